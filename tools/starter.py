"""Make the starter: the model that comes with mmcl and needs no training.

    python tools/starter.py --faces blendshapes.csv.gz [--reviews reviews.csv] [--work DIR]

It fetches VADER's rated sentences by pip, fine-tunes the packaged encoder on them, trains
MMCL over words and face on the encoder's vectors, measures both on what was held out, and
writes ``src/mmcl/starter``. Two hours on two cores; if it was stopped, give the same command
again. Needs ``pip install "mmcl[text,media-offline,research,pandas]"``.

The photographed faces are 52 blendshapes each, with ``person`` and ``emotion``: those of
muxspace/facial_expressions (Apache-2.0), measured by the landmarker of ``media-offline``.
``--reviews`` is a table of spoken reviews (``label.csv`` of text alone), only to be measured on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from starter_card import write_card
from starter_checks import (
    Vectors,
    check_faces,
    check_reviews,
    check_sentences,
    encode,
    hand_written,
)
from starter_clips import (
    HIGH,
    LOW,
    SPLITS,
    Faces,
    Sentence,
    as_spoken,
    make_clips,
    read_sentences,
    write_sentences,
)

import mmcl
from mmcl.cli.show import training_progress
from mmcl.corpus.schema import Task, Word
from mmcl.corpus.store import write_corpus
from mmcl.evaluation.tables import write_result
from mmcl.media.adapter import write_adapter
from mmcl.media.extract import card_of
from mmcl.media.face import FACE_COLUMNS
from mmcl.media.recipe import Recipe
from mmcl.media.text import ADAPTER
from mmcl.media.weights import STARTER, with_versions
from mmcl.runs.run import Run

PACKAGE = "vaderSentiment==3.3.2"
INNER = "hutto_ICWSM_2014.tar.gz"  # inside the source distribution
SHA256 = "d5bb07d87474b3eb8d30b4deccbc23f19d742a6c5718fbacc65485b70b95c5fa"
WORD_SEEDS, NETWORK_SEEDS = (1,), (1, 2, 3, 4, 5, 6)
NETWORKS = 3  # so many of these seeds are in the starter
LARGEST = 5_000_000  # bytes of all files of the starter

WORDS = (
    *("text.encoder=packaged", "text.adapter=lora", "text.rank=32", "text.learning_rate=4e-4"),
    *("text.max_tokens=64", "learning.epochs=3", "learning.batch_size=32"),
    *("learning.patience=3", "learning.learning_rate=1e-3", "learning.schedule=cosine"),
)
NETWORK = (
    *('model.modalities=["text","vision"]', "model.dropout=0.3", "model.head_dropout=0.3"),
    # Without it speech, which is unlike what was rated, is judged worse.
    *(
        "model.input_dropout=0.2",
        "learning.epochs=3",
        "learning.patience=4",
        "learning.batch_size=64",
    ),
)


def main() -> None:
    """Run every step that has not been done."""
    arguments = _arguments()
    work: Path = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    sentences = read_sentences(fetch(work, arguments.vader))
    table = work / "sentences.csv"
    write_sentences(sentences, table)
    words = train(table, work / "words", "text_only", WORDS, WORD_SEEDS)
    (STARTER / "encoder").mkdir(parents=True, exist_ok=True)
    best = best_seed(words)
    write_adapter(words.model(best).words.encoder, STARTER / "encoder" / ADAPTER)

    faces = Faces(arguments.faces)
    corpus = work / "starter.arrow"
    vectors = vectors_of(sentences, work)
    write_pairs(sentences, vectors, faces, corpus)
    networks = train(corpus, work / "network", "calibrated", NETWORK, NETWORK_SEEDS)
    network_losses = losses(networks)
    reviews = None if arguments.reviews is None else check_reviews(networks, arguments.reviews)
    chosen = choose(NETWORK_SEEDS, reviews)
    networks = train(corpus, work / "network", "calibrated", NETWORK, chosen)  # scored again
    publish(networks)

    results: dict[str, Any] = {
        "counts": {split: sum(s.split == split for s in sentences) for split in SPLITS},
        "words": losses(words),
        "network": network_losses,
        "chosen": chosen,
        "sentences": check_sentences(sentences, vectors),
        "faces": check_faces(sentences, vectors, faces),
        "hand_written": hand_written(),
    }
    if reviews is not None:
        together = check_reviews(networks, arguments.reviews)["rows"]["all seeds"]
        results["reviews"] = {**reviews, "rows": {**reviews["rows"], "the starter": together}}
    write_result(work / "results.json", json.dumps(results, indent=1))
    write_card(results, STARTER / "CARD.md")
    size = sum(file.stat().st_size for file in STARTER.rglob("*") if file.is_file())
    print(f"{STARTER}: {size / 1e6:.2f} MB")
    if size > LARGEST:
        sys.exit(f"the starter may have {LARGEST / 1e6:g} MB: lower text.rank in {__file__}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faces", type=Path, required=True, help="table of blendshapes")
    parser.add_argument("--vader", type=Path, help=f"{INNER}, if it was fetched before")
    parser.add_argument("--reviews", type=Path, help="spoken reviews to measure on")
    parser.add_argument("--work", type=Path, default=Path("starter-work"), help="folder to work in")
    return parser.parse_args()


def fetch(work: Path, archive: Path | None) -> Path:
    """Return the folder of the rated sentences; fetch and check them where they are missing."""
    folder = work / "hutto_ICWSM_2014"
    if folder.is_dir():
        return folder
    if archive is None:
        archive = _from_pypi(work)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != SHA256:
        sys.exit(f"{archive}: another file than expected (sha256 {digest}, not {SHA256})")
    with tarfile.open(archive) as opened:
        opened.extractall(work, filter="data")
    return folder


def _from_pypi(work: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary"]
    subprocess.run([*command, ":all:", "--dest", str(work), PACKAGE], check=True)
    source = next(work.glob("vader*3.3.2.tar.gz"))
    with tarfile.open(source) as opened:
        inner = next(m for m in opened.getmembers() if m.name.endswith(INNER))
        inner.name = INNER
        opened.extract(inner, work, filter="data")
    return work / INNER


def train(
    corpus: Path, out: Path, model: str, settings: Sequence[str], seeds: Sequence[int]
) -> Run:
    """Train every seed, or go on with what was begun."""
    config = mmcl.resolve_config(model=model, overrides=settings)
    with training_progress() as progress:
        return mmcl.train(
            mmcl.load_corpus(corpus),
            config,
            out=out,
            seeds=seeds,
            resume=(out / "run.json").exists(),
            progress=progress,
        )


def best_seed(run: Run) -> int:
    """Return the seed with the least validation loss."""
    return min(run.seeds, key=lambda seed: _loss(run, seed))


def _loss(run: Run, seed: int) -> float:
    return min(row.valid_loss for row in run.fitted(seed).history)


def vectors_of(sentences: Sequence[Sentence], work: Path) -> Vectors:
    """Return the words of every sentence, and their vectors by the encoder that was just tuned."""
    texts = [as_spoken(each) for each in sentences]
    words = [tuple(Word(text=word) for word in text.split()) for text in texts]
    digest = hashlib.sha256((STARTER / "encoder" / ADAPTER).read_bytes()).hexdigest()
    kept = work / f"vectors-{digest[:12]}.npy"
    if not kept.exists():
        np.save(kept, np.concatenate(encode(texts)))
    starts = np.cumsum([len(each) for each in words])[:-1]
    vectors = np.split(np.load(kept), starts)
    return {s.id: (w, v) for s, w, v in zip(sentences, words, vectors, strict=True)}


def write_pairs(sentences: Sequence[Sentence], vectors: Vectors, faces: Faces, path: Path) -> None:
    """Write the corpus of words, faces and pairs, as if mmcl extract had made it."""
    clips = list(make_clips(sentences, vectors, faces, seed=1))
    counts = {split: sum(c.split == split for c in clips) for split in SPLITS}
    card = card_of(
        with_versions(Recipe(text_model="starter", language="en")),
        {"text": 384, "vision": len(FACE_COLUMNS)},
        task=Task(kind="regression", low=LOW, high=HIGH),
        counts=counts,
        name="starter",
        language="en",
    )
    write_corpus(path, card, clips, dtype="float16")


def publish(networks: Run) -> None:
    """Copy the run of the networks, without its predictions and checkpoints."""
    target = STARTER / "run"
    shutil.rmtree(target, ignore_errors=True)
    others = [f"seed-{seed}" for seed in NETWORK_SEEDS if seed not in networks.seeds]
    left_out = shutil.ignore_patterns(
        "checkpoint*", "predictions*", "start.json", "cost.json", *others
    )
    shutil.copytree(networks.folder, target, ignore=left_out)


def choose(seeds: Sequence[int], reviews: dict[str, Any] | None) -> list[int]:
    """Return the seeds of the starter: those with the least error on reviews, or the first."""
    if reviews is not None:
        seeds = sorted(seeds, key=lambda seed: reviews["rows"][f"seed {seed}"]["mae"])
    return sorted(seeds[:NETWORKS])


def losses(run: Run) -> dict[str, float]:
    """Return the best validation loss of every seed."""
    return {f"seed {seed}": _loss(run, seed) for seed in run.seeds}


if __name__ == "__main__":
    main()
