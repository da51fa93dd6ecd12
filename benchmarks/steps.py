"""The steps of ``make results``: what each measures, needs and depends on, and its time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from corpora import SOURCES, Place, development_corpora, is_here, planted_corpus, real_corpus
from trainings import (
    Training,
    Variant,
    ablation,
    comparison,
    equal_search,
    explanation,
    validation,
)


class Step(NamedTuple):
    """One kept result.

    Attributes:
        about: What is measured, in a few words.
        minutes: About how long it takes on two quiet cores.
        depends: Files whose change makes the result older than the code, as git names them.
        make: Measures, and returns what is kept.
        seeds: Number of seeds of its trainings.
        data: Real corpora it needs.
        after: Steps whose result it reads.
        by_name: Made only where it is named, so that all the others take one night.
    """

    about: str
    minutes: float
    depends: tuple[str, ...]
    make: Callable[[Place], dict[str, Any]]
    seeds: int = 0
    data: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    by_name: bool = False

    def missing(self) -> list[str]:
        """Return the real corpora that are not on this machine."""
        return [SOURCES[name].path for name in self.data if not is_here(name)]


def _of(*rooms: str) -> tuple[str, ...]:
    return tuple(f"src/mmcl/{room}" for room in rooms)


TRAINING = (
    *_of(
        "config.py", "presets", "runtime.py", "corpus", "models", "learning", "evaluation", "runs"
    ),
    ":!src/mmcl/models/export.py",
    ":!src/mmcl/evaluation/published_results.csv",
    ":!src/mmcl/runs/starter.py",  # for predictions alone
)
ON_PLANTED = (*TRAINING, ":!src/mmcl/corpus/readers")
ON_WORDS = (*TRAINING, *_of("media/text.py", "media/text_vectors.py", "media/weights.py"))
FROM_STARTER = (*ON_WORDS, *_of("starter"))

LEARNING = _of(
    "config.py", "runtime.py", "corpus/batches.py", "corpus/store.py", "models", "learning"
)

SEARCHED = ("calibrated", "late_fusion", "self_mm", "almt")
"""Models that are searched on every real corpus, beside those of a single modality."""
TRIALS = 8

PLANTED = Training(partial(planted_corpus, aligned=True), seeds=3, preset="planted")
UNALIGNED = PLANTED._replace(
    corpus=partial(planted_corpus, aligned=False),
    models=("calibrated", "released", "almt", "mvcl", "late_fusion"),
)
RAVDESS = Training(
    partial(real_corpus, name="ravdess"),
    seeds=3,
    settings=("learning.epochs=40", "learning.patience=12"),
    search="search-ravdess",
)
MMMO = Training(
    partial(real_corpus, name="mmmo"),
    seeds=5,
    settings=("learning.epochs=60", "learning.patience=15"),
    search="search-mmmo",
)
PUBLISHED = MMMO._replace(
    corpus=partial(real_corpus, name="mmmo-published"),
    search="search-mmmo-published",
    models=(*SEARCHED, "audio_only", "released"),
)
POM = Training(
    partial(real_corpus, name="pom"),
    seeds=3,
    settings=("learning.epochs=40", "learning.patience=12"),
    search="search-pom",
)
MELD_TUNED = Training(
    partial(real_corpus, name="meld"),
    seeds=2,
    models=("text_only", "calibrated"),
    settings=("text.encoder=packaged", "learning.epochs=2", "learning.batch_size=64"),
    reference="text_only",
)
MELD_FROZEN = MELD_TUNED._replace(
    corpus=partial(real_corpus, name="meld-vectors"),
    seeds=3,
    settings=("learning.epochs=10", "learning.batch_size=64"),
)
MOSI = Training(
    partial(real_corpus, name="mosi-words"),
    seeds=3,
    preset="mosi",
    settings=("learning.epochs=6",),
)
MOSI_VECTORS = Training(
    partial(real_corpus, name="mosi"),
    seeds=5,
    settings=("learning.epochs=20", "learning.patience=6", "learning.batch_size=32"),
    search="search-mosi",
)

FOLDS = 5
FEWER_ABLATIONS = (
    "no decoupling",
    "mean for min",
    "softmax maps",
    "no alignment loss",
    "actions all ones",
    "soft gate",
)
"""What could differ where the modalities are not aligned."""


def _compared(name: str, training: Training) -> dict[str, Any]:
    return {"make": partial(comparison, name=name, training=training), "seeds": training.seeds}


def _searched(name: str, training: Training, alone: tuple[str, ...]) -> dict[str, Any]:
    chosen = training._replace(models=(*SEARCHED, *alone), search=None)
    return {"make": partial(equal_search, name=name, training=chosen, trials=TRIALS)}


def _ablated(
    name: str, training: Training, beside: str, only: tuple[str, ...] = ()
) -> dict[str, Any]:
    work = partial(ablation, name=name, training=training, beside=beside, only=only)
    return {"make": work, "seeds": training.seeds}


def _explained(name: str, training: Training, of: str) -> dict[str, Any]:
    work = partial(explanation, name=name, training=training, of=of)
    return {"make": work, "seeds": training.seeds, "after": (of,)}


def _gates(corpus: str, training: Training, alone: tuple[str, ...]) -> dict[str, Any]:
    """Policies that drop steps, weight them, or keep them all, on validation clips."""
    variants = (
        Variant("calibrated"),
        Variant("soft gate", settings=("policy.kind=task",)),
        Variant("every step kept", settings=("policy.kind=ones",)),
        *(_one_modality(model.removesuffix("_only")) for model in alone),
        *(Variant(model, model) for model in (*alone, "late_fusion")),
    )

    def make(place: Place) -> dict[str, Any]:
        corpora = development_corpora(place, corpus, FOLDS)
        return validation(place, f"gates-{corpus}", corpora, training, variants)

    after = () if training.search is None else (training.search,)
    return {"make": make, "seeds": training.seeds, "after": after}


def _one_modality(modality: str) -> Variant:
    """``calibrated`` with a single modality: does the other one help or hinder it?"""
    return Variant(f"calibrated, {modality} alone", settings=(f'model.modalities=["{modality}"]',))


def _mosi(place: Place) -> dict[str, Any]:
    """CMU-MOSI's words, read by an encoder that learns with the network."""
    encoder = "text.encoder=packaged"
    variants = (
        Variant("calibrated", settings=(encoder,)),
        Variant("calibrated, from the starter", start="starter"),
        Variant("text_only", "text_only", (encoder,)),
    )
    corpora = development_corpora(place, "mosi-words", FOLDS)
    return validation(place, "mosi", corpora, MOSI, variants)


def _script(
    name: str, *options: str, quick: tuple[str, ...] = ()
) -> Callable[[Place], dict[str, Any]]:
    """Return what runs a measurement in a process of its own, and reads its result."""

    def make(place: Place) -> dict[str, Any]:
        script = Path(__file__).with_name(f"{name}.py")
        with TemporaryDirectory() as folder:
            out = Path(folder) / "result.json"
            chosen = quick if place.is_try else options
            command = [sys.executable, str(script), *chosen, "--out", str(out)]
            subprocess.run(command, check=True)
            content: dict[str, Any] = json.loads(out.read_text())
        return content

    return make


STEPS: dict[str, Step] = {
    "planted": Step(
        "every model on the planted corpus, aligned",
        45,
        ON_PLANTED,
        **_compared("planted", PLANTED),
    ),
    "planted-unaligned": Step(
        "some models on the planted corpus, not aligned",
        15,
        ON_PLANTED,
        **_compared("planted-unaligned", UNALIGNED),
    ),
    "ablation": Step(
        "one thing changed at a time, aligned",
        30,
        ON_PLANTED,
        **_ablated("ablation", PLANTED, "planted"),
    ),
    "ablation-unaligned": Step(
        "one thing changed at a time, not aligned",
        10,
        ON_PLANTED,
        **_ablated("ablation-unaligned", UNALIGNED, "planted-unaligned", FEWER_ABLATIONS),
    ),
    "search-ravdess": Step(
        "settings for RAVDESS, chosen on validation",
        12,
        TRAINING,
        data=("ravdess",),
        **_searched("search-ravdess", RAVDESS, ("text_only", "audio_only", "vision_only")),
    ),
    "ravdess": Step(
        "every model on RAVDESS",
        22,
        TRAINING,
        data=("ravdess",),
        after=("search-ravdess",),
        **_compared("ravdess", RAVDESS),
    ),
    "search-mmmo": Step(
        "settings for ICT-MMMO, chosen on validation",
        3,
        TRAINING,
        data=("mmmo",),
        **_searched("search-mmmo", MMMO, ("text_only", "audio_only", "vision_only")),
    ),
    "mmmo": Step(
        "every model on ICT-MMMO, a split of our own",
        7,
        TRAINING,
        data=("mmmo",),
        after=("search-mmmo",),
        **_compared("mmmo", MMMO),
    ),
    "search-mmmo-published": Step(
        "settings for ICT-MMMO's published split, chosen on validation",
        3,
        TRAINING,
        data=("mmmo-published",),
        **_searched("search-mmmo-published", PUBLISHED, ("audio_only",)),
    ),
    "mmmo-published": Step(
        "ICT-MMMO's published split; no training clip has text",
        3,
        TRAINING,
        data=("mmmo-published",),
        after=("search-mmmo-published",),
        **_compared("mmmo-published", PUBLISHED),
    ),
    "search-pom": Step(
        "settings for POM, chosen on validation",
        6,
        TRAINING,
        data=("pom",),
        **_searched("search-pom", POM, ("audio_only", "vision_only")),
    ),
    "pom": Step(
        "every model on POM, voice and face",
        7,
        TRAINING,
        data=("pom",),
        after=("search-pom",),
        **_compared("pom", POM),
    ),
    "meld-tuned": Step(
        "MELD's texts, an encoder that learns",
        19,
        ON_WORDS,
        data=("meld",),
        **_compared("meld-tuned", MELD_TUNED),
    ),
    "meld-frozen": Step(
        "MELD's texts, frozen vectors",
        8,
        ON_WORDS,
        data=("meld-vectors",),
        **_compared("meld-frozen", MELD_FROZEN),
    ),
    "mosi": Step(
        "CMU-MOSI's words, an encoder that learns, validation clips",
        16,
        FROM_STARTER,
        _mosi,
        seeds=MOSI.seeds,
        data=("mosi-words",),
    ),
    "search-mosi": Step(
        "settings for CMU-MOSI's words and voice, chosen on validation",
        8,
        ON_WORDS,
        data=("mosi",),
        make=partial(
            equal_search,
            name="search-mosi",
            training=MOSI_VECTORS._replace(
                models=("calibrated", "late_fusion", "text_only", "audio_only"), search=None
            ),
            trials=TRIALS,
        ),
    ),
    "gates-mosi": Step(
        "policies on CMU-MOSI's words and voice, validation clips",
        8,
        ON_WORDS,
        data=("mosi",),
        **_gates("mosi", MOSI_VECTORS, ("text_only", "audio_only")),
    ),
    "gates-mmmo": Step(
        "policies on ICT-MMMO, five folds",
        8,
        TRAINING,
        data=("mmmo",),
        **_gates("mmmo", MMMO, ("text_only",)),
    ),
    "gates-ravdess": Step(
        "policies on RAVDESS, five folds of actors",
        9,
        TRAINING,
        data=("ravdess",),
        **_gates("ravdess", RAVDESS._replace(seeds=1), ("audio_only", "vision_only")),
    ),
    "gates-pom": Step(
        "policies on POM, validation clips",
        4,
        TRAINING,
        data=("pom",),
        **_gates("pom", POM._replace(seeds=5), ("audio_only", "vision_only")),
    ),
    "explanation": Step(
        "what the policies found, planted",
        4,
        (*ON_PLANTED, *_of("explain")),
        **_explained("explanation", PLANTED, "planted"),
    ),
    "explanation-ravdess": Step(
        "what the policies found, RAVDESS",
        4,
        (*TRAINING, *_of("explain")),
        data=("ravdess",),
        **_explained("explanation-ravdess", RAVDESS, "ravdess"),
    ),
    "speed": Step(
        "clips per second beside the machine's floor and plain torch",
        10,
        LEARNING,
        _script("speed", quick=("--quick",)),
    ),
    "phases": Step(
        "where a step spends its time, and how that grows",
        10,
        LEARNING,
        _script("phases", quick=("--quick",)),
        by_name=True,
    ),
    "export": Step(
        "one clip through torch and through onnxruntime",
        2,
        _of("models", "config.py"),
        _script("export", quick=("--rounds", "1", "--widths", "64")),
        by_name=True,
    ),
    "long-sequences": Step(
        "time and memory of long clips",
        4,
        LEARNING,
        _script("long_sequences", quick=("--longest", "500", "--clips", "32")),
        by_name=True,
    ),
    "processes": Step(
        "one network by two processes, and seeds side by side",
        10,
        (*LEARNING, *_of("runs/jobs.py", "pool.py")),
        _script("processes", quick=("--epochs", "1", "--epochs-at-once", "1")),
        by_name=True,
    ),
    "streaming": Step(
        "200,000 clips from disk (8 GB)",
        10,
        LEARNING,
        _script("streaming", "--batches", "400", quick=("--clips", "2000", "--batches", "2")),
    ),
    "finetune": Step(
        "speed of fine-tuning beside plain loops",
        3,
        (*LEARNING, *_of("media/text.py", "media/weights.py")),
        _script("finetune", quick=("--rounds", "1")),
        by_name=True,
    ),
    "media": Step(
        "what extraction costs, and how right it is",
        18,
        _of("media"),
        _script("media", "--long", quick=("--rounds", "1")),
        data=("grid", "ravdess-clips", "moud"),
    ),
    "service": Step(
        "the service under load",
        6,
        _of("serve", "media", "models", "learning/inference.py"),
        _script("service", quick=("--rounds", "1", "--malformed", "5")),
    ),
}
