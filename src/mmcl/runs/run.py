"""A run: one configuration trained with several seeds, its folder and what it can do.

::

    RUN/run.json              configuration, seeds, versions, commit, corpus and its checksum
    RUN/seed-N/               one training each, see mmcl.learning.loop
    RUN/metrics.json          mean, s.d. and 95% interval over seeds, and the reference rows
    RUN/predictions.parquet   seed, id, split, truth, prediction, scores
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import ValidationError

from mmcl.config import Config, model_names
from mmcl.corpus.batches import labelled_rows
from mmcl.corpus.schema import Card, Task
from mmcl.corpus.store import Corpus, Split
from mmcl.errors import DatasetError, RunError, UsageError
from mmcl.evaluation.metrics import Metrics
from mmcl.evaluation.moments import (
    Moments,
    as_probability,
    in_words,
    moments_of,
    spread_over_seeds,
)
from mmcl.evaluation.protocol import (
    JUDGED,
    Judged,
    JudgedSplit,
    answers,
    judge,
    prediction_table,
    reference_metrics,
    reference_notes,
)
from mmcl.evaluation.summary import summarise, summarise_seeds
from mmcl.evaluation.tables import write_table
from mmcl.files import write_json
from mmcl.learning.inference import Scored, score_split
from mmcl.learning.loop import DONE, Fitted, Progress, fit, read_fitted
from mmcl.models.mmcl import MMCL
from mmcl.models.network import Network
from mmcl.models.registry import load_network
from mmcl.runtime import environment, launch

__all__ = ["DIVERGED", "METRICS", "PREDICTIONS", "Run", "finish_run", "open_run", "train"]

RUN, METRICS, PREDICTIONS = "run.json", "metrics.json", "predictions.parquet"

DIVERGED = "diverged.json"
"""Beside a seed's checkpoint: that its loss stopped being finite, and where."""


def train(
    corpus: Corpus,
    config: Config | None = None,
    *,
    out: str | Path | None = None,
    seeds: Sequence[int] = (1,),
    resume: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Train with several seeds, choose on validation, score once, save everything.

    Where ``torchrun`` started several of this process they train together, the first of them
    scores and writes, and all return the run; ``out`` is on a disk that all of them see.

    Args:
        corpus: What to learn from.
        config: All settings; the defaults are those of ``calibrated``.
        out: Run folder; by default the first free ``runs/<corpus>-<model>-<k>``.
        seeds: One training each.
        resume: Go on with a run that was interrupted; finished seeds are not trained again.
        progress: Told how far it is.

    Returns:
        The finished run.

    Raises:
        UsageError: If a seed is negative or named twice.
        RunError: If the folder holds a run and ``resume`` is not set, or holds one of
            another configuration or corpus.
        DatasetError: If there is nothing to learn from or to choose by.
        ConfigError: If the settings ask for what the machine has not.
        TrainingError: If the loss stops being finite.
    """
    config = config or Config()
    folder = Path(out) if out is not None else _free_folder(corpus, config)
    # With several processes all of them run these lines; the first one writes.
    fabric = launch(config.runtime)
    if fabric.is_global_zero:
        open_run(folder, corpus, config, seeds=seeds, resume=resume)
    fabric.barrier()
    development = corpus.development()
    for seed in seeds:
        fit(
            development,
            config,
            seed=seed,
            folder=folder / f"seed-{seed}",
            resume=resume,
            progress=_name_seed(progress, seed, seeds),
        )
    if fabric.is_global_zero:
        finish_run(folder, corpus)
    fabric.barrier()
    return Run.load(folder)


class Run:
    """A finished run folder.

    Attributes:
        folder: Where it lies.
        config: Its configuration.
        card: The card of the corpus it was trained on.
        seeds: Its seeds that were trained to their end.
        diverged: Its other seeds, whose loss stopped being finite, and what was said of it;
            only a comparison keeps them.
    """

    def __init__(self, folder: Path, description: dict[str, Any]) -> None:
        self.folder = folder
        self.description = description
        self.config, self.card = _settings_of(folder, description)
        self.diverged: dict[int, str] = {
            seed: json.loads(path.read_text())["message"]
            for seed in description["seeds"]
            if (path := folder / f"seed-{seed}" / DIVERGED).exists()
        }
        self.seeds = tuple(seed for seed in description["seeds"] if seed not in self.diverged)
        self._models: dict[int, Network] = {}

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, {self.config.model.name}, {len(self.seeds)} seeds)"

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Open a run folder.

        Raises:
            RunError: If it is none, or not every seed has finished.
        """
        folder = Path(folder)
        run = cls(folder, _read_description(folder))
        missing = [s for s in run.seeds if not (folder / f"seed-{s}" / DONE).exists()]
        if not run.seeds:
            raise RunError(
                f"{folder}: every seed diverged; seed {min(run.diverged)}: "
                f"{next(iter(run.diverged.values()))}"
            )
        if missing:
            raise RunError(
                f"{folder}: seeds {missing} of {list(run.seeds)} have not finished training.\n"
                "  Go on with it: the same mmcl train command with --resume"
            )
        return run

    @property
    def metrics(self) -> dict[str, Any]:
        """What training wrote to metrics.json.

        Raises:
            RunError: If the run was stopped after training and before it was scored.
        """
        path = self.folder / METRICS
        if not path.exists():
            raise RunError(
                f"{self.folder}: trained, but not scored yet (no {METRICS} in it).\n"
                "  Go on with it: the same mmcl train command with --resume"
            )
        report: dict[str, Any] = json.loads(path.read_text())
        return report

    def model(self, seed: int | None = None) -> Network:
        """The network of one seed (the first by default), in evaluation mode."""
        seed = self.seeds[0] if seed is None else seed
        if seed not in self._models:
            folder = self.folder / f"seed-{seed}" / "model"
            self._models[seed] = load_network(folder)
        return self._models[seed]

    def evaluate(self, corpus: Corpus) -> dict[str, Any]:
        """Score every seed on a corpus: the layout of metrics.json.

        Raises:
            RunError: If the corpus does not fit the run.
        """
        return self.score(corpus)[0]

    def predict(self, corpus: Corpus, *, advance: Callable[[int], None] | None = None) -> pa.Table:
        """Predict every clip of a corpus; labels are not needed and not looked at.

        Args:
            corpus: Same task and feature widths as the run's own.
            advance: Called with the number of clips done.

        Returns:
            A row per clip: ``id``, ``split``, ``prediction`` (of the mean over seeds) and
            ``spread`` (s.d. over seeds of the score, or of the predicted class's
            probability; null for a single seed).

        Raises:
            RunError: If the corpus does not fit the run.
        """
        self.check_fits(corpus)
        split = corpus.every_clip()
        task = self.card.task
        size = self.config.evaluation.batch_size
        each = [
            as_probability(
                task,
                score_split(
                    self.model(s), split, batch_size=size, per_step=False, advance=advance
                ).scores,
            )
            for s in self.seeds
        ]
        return self.predicted(split, np.stack(each))

    def predicted(self, split: Split, scores: NDArray[np.float64]) -> pa.Table:
        """The table of :meth:`predict`, of scores that are known.

        Args:
            split: The clips.
            scores: Of every seed, ``[seeds, clips, ...]``; probabilities where classes or
                emotions are predicted.
        """
        task = self.card.task
        mean = scores.mean(axis=0)
        chosen = answers(task, mean)
        return pa.table(
            {
                "id": pa.array(split.ids, pa.string()),
                "split": split.table.column("split").cast(pa.string()),
                "prediction": pa.array(in_words(task, chosen)),
                "spread": pa.array(spread_over_seeds(task, scores, mean), pa.float64()),
            }
        )

    def moments(self, corpus: Corpus) -> list[Moments]:
        """Predict every clip and say what moved it: which modality, which steps, which words.

        Slower than :meth:`predict`: a clip is predicted again without each modality and
        without each word.

        Args:
            corpus: Same task and feature widths as the run's own.

        Raises:
            RunError: If the corpus does not fit the run, or its model has no policies.
        """
        self.check_fits(corpus)
        models = [self.model(seed) for seed in self.seeds]
        if not isinstance(models[0], MMCL):
            raise RunError(
                f"{self.folder}: {self.config.model.name} predicts, and does not say from which "
                "moments.\n  Only calibrated and released do: mmcl train CORPUS --model calibrated"
            )
        size = self.config.evaluation.batch_size
        return moments_of(models, corpus.every_clip(), batch_size=size)

    @property
    def validation_error(self) -> float | None:
        """Mean absolute error on validation, mean over seeds; None unless scores were judged."""
        if self.card.task.kind != "regression" or not (self.folder / METRICS).exists():
            return None
        summary = self.metrics["valid"].get("mae")
        return None if summary is None else summary["mean"]

    def score(self, corpus: Corpus) -> tuple[dict[str, Any], list[tuple[int, Judged]]]:
        """The report of :meth:`evaluate`, and every seed's per-item results."""
        self.check_fits(corpus)
        settings = self.config.evaluation
        report: dict[str, Any] = {"valid": {}, "test": {}}
        everything: list[tuple[int, Judged]] = []
        notes: list[str] = list(self.notes(corpus))
        references: dict[str, dict[str, Any]] = {}
        for name in JUDGED:
            if not corpus.card.counts.get(name):
                notes.append(f'the corpus has no split "{name}"')
                continue
            judged = [(seed, self._judge(seed, corpus, name)) for seed in self.seeds]
            everything += judged
            report[name] = _summaries([j.metrics.values for _, j in judged])
            notes += _warnings(name, [j.metrics for _, j in judged])
            if len(labelled_rows(corpus.split("train"))):
                for row, metrics in reference_metrics(corpus, name, preset=settings.preset).items():
                    references.setdefault(row, {})[name] = _finite(metrics.values)
        notes += reference_notes(corpus)
        report |= {
            "references": references,
            "preset": settings.preset if corpus.card.task.kind == "regression" else None,
            "model": self.config.model.name,
            "corpus": corpus.card.name,
            "seeds": list(self.seeds),
            "training": self._training_figures(),
            "notes": notes,
        }
        return report, everything

    def _judge(self, seed: int, corpus: Corpus, name: JudgedSplit) -> Judged:
        settings = self.config.evaluation
        judged = judge(
            self.model(seed),
            corpus,
            name,
            preset=settings.preset,
            batch_size=settings.batch_size,
        )
        # What was seen in every step has gone into the metrics: a large split of it is heavy.
        return judged._replace(scored=Scored(judged.scored.scores, [], [], []))

    def fitted(self, seed: int) -> Fitted:
        """History and network of one seed."""
        return read_fitted(self.folder / f"seed-{seed}")

    def check_fits(self, corpus: Corpus) -> None:
        """See that a corpus has the run's task and feature widths.

        Raises:
            RunError: If it does not.
        """
        mine, theirs = self.card, corpus.card
        used = self.model().modalities
        faults = [
            f"{m}: {theirs.dims[m]} features per step, the run was trained on {mine.dims[m]}"
            for m in used
            if m in theirs.dims and theirs.dims[m] != mine.dims[m]
        ]
        if not any(m in theirs.dims for m in used):
            faults.append(f"it has {list(theirs.dims)}, the run was trained on {list(used)}")
        if self.model().released and mine.aligned and not theirs.aligned:
            faults.append("it is not aligned, and released was trained on a corpus that is")
        if _kind(mine.task) != _kind(theirs.task):
            faults.append(f"its task is {_kind(theirs.task)}, the run's is {_kind(mine.task)}")
        if faults:
            raise RunError(
                "\n  ".join([f"{self.folder}: the corpus {theirs.name!r} does not fit.", *faults])
                + "\n  See what the corpus holds: mmcl corpus describe CORPUS"
            )

    def notes(self, corpus: Corpus) -> list[str]:
        """What a reader of this run's results on a corpus should know."""
        notes = list(corpus.card.notes)
        model = self.model()
        for modality in model.never_seen:
            notes.append(
                f"{modality} was never seen in training: no training clip has it, "
                "so prediction ignores it"
            )
        for modality in model.modalities:
            if modality not in corpus.card.dims:
                notes.append(f"the corpus has no {modality}: predicted without it")
        if isinstance(model, MMCL) and model.released and not model.aligned:
            notes.append(
                "released needs equal lengths: every modality was brought to "
                f"{model.settings.steps} steps (longer ones averaged in segments, "
                "shorter ones repeated, absent ones zero)"
            )
        if model.released and corpus.card.missing_as_zero:
            notes.append(
                "released knows one length per clip: steps that are missing are zeros to it, "
                "and not left out"
            )
        return notes

    def _training_figures(self) -> dict[str, Any]:
        fitted = [self.fitted(seed) for seed in self.seeds]
        return {
            "clips_per_second": summarise([f.clips_per_second for f in fitted]).as_dict(),
            "best_epochs": [f.best_epoch for f in fitted],
            "epochs": [len(f.history) for f in fitted],
            "seconds": summarise([f.seconds for f in fitted]).as_dict(),
            "parameters": sum(p.numel() for p in self.model().parameters()),
        }


def _kind(task: Task) -> str:
    return f"{task.kind} of {', '.join(task.names)}" if task.names else task.kind


def _summaries(seeds: list[dict[str, float]]) -> dict[str, Any]:
    return {key: summary.as_dict() for key, summary in summarise_seeds(seeds).items()}


def _warnings(name: str, each: list[Metrics]) -> list[str]:
    return sorted({f"{name}: {warning}" for metrics in each for warning in metrics.warnings})


def _finite(values: dict[str, float]) -> dict[str, float | None]:
    return {key: value if math.isfinite(value) else None for key, value in values.items()}


def _check_seeds(seeds: Sequence[int]) -> None:
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise UsageError(f"seeds must be different whole numbers from 0 on, got {list(seeds)}")


def _name_seed(progress: Progress | None, seed: int, seeds: Sequence[int]) -> Progress | None:
    if progress is None:
        return None
    told = progress
    label = f"seed {seed} ({list(seeds).index(seed) + 1} of {len(seeds)})"

    def tell(stage: str, done: int, total: int, numbers: dict[str, float]) -> None:
        told(f"{label}, {stage}", done, total, numbers)

    return tell


def _free_folder(corpus: Corpus, config: Config) -> Path:
    number = 1
    while True:
        folder = Path("runs") / f"{corpus.card.name}-{config.model.name}-{number}"
        if not folder.exists():
            return folder
        number += 1


def open_run(
    folder: Path, corpus: Corpus, config: Config, *, seeds: Sequence[int], resume: bool
) -> None:
    """Make a run folder that trainings can be put into, or see that the one there fits.

    Raises:
        UsageError: If a seed is negative or named twice.
        RunError: If the folder holds a run and ``resume`` is not set, or holds one of
            another configuration or corpus.
    """
    _check_seeds(seeds)
    description = {
        "config": config.model_dump(mode="json"),
        "seeds": list(seeds),
        "corpus": corpus.card.model_dump(mode="json"),
        "corpus_checksum": corpus.checksum(),
        "environment": environment(),
    }
    if (folder / RUN).exists():
        _check_resumable(folder, description, resume)
        if list(seeds) == _read_description(folder)["seeds"]:
            return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / RUN, description)
    except OSError as fault:
        raise RunError(
            f"{folder}: no run can be kept here ({fault.strerror or fault}).\n"
            "  Give a new folder where you may write: --out"
        ) from None


def finish_run(folder: Path, corpus: Corpus) -> Run:
    """Score the trained seeds of a run folder once, and write what they came to."""
    run = Run.load(folder)
    report, judged = run.score(corpus)
    _write_predictions(folder / PREDICTIONS, judged)
    write_json(folder / METRICS, report)
    return run


def _check_resumable(folder: Path, description: dict[str, Any], resume: bool) -> None:
    if not resume:
        raise RunError(
            f"{folder}: holds a run already; nothing was changed.\n"
            "  Go on with it: --resume\n  Start another: --out with a new folder"
        )
    before = _read_description(folder)
    with suppress(ValidationError, KeyError):  # an earlier version's names are today's settings
        before["config"] = _read_config(before["config"]).model_dump(mode="json")
    for key, what in (("corpus_checksum", "another corpus"), ("config", "other settings")):
        if before[key] != description[key]:
            raise RunError(
                f"{folder}: was started with {what}; nothing was changed.\n"
                f"  Its settings: {folder / RUN}\n  Start another: --out with a new folder"
            )


def _settings_of(folder: Path, description: dict[str, Any]) -> tuple[Config, Card]:
    try:
        config = _read_config(description["config"])
        return config, Card.model_validate(description["corpus"])
    except (KeyError, ValidationError) as fault:
        name = description.get("config", {}).get("model", {}).get("name")
        why = "its settings are of another version"
        if isinstance(fault, ValidationError) and name not in (None, *model_names()):
            why = f'no model "{name}" is installed here'
        raise RunError(
            f"{folder / RUN}: cannot be opened: {why}.\n"
            "  Install what it was trained with, or train it again: mmcl train CORPUS --out NEW"
        ) from fault


def _read_config(saved: dict[str, Any]) -> Config:
    """Read saved settings; earlier versions called ``runtime.devices`` ``runtime.processes``."""
    runtime = dict(saved.get("runtime", {}))
    if "processes" in runtime:
        runtime["devices"] = runtime.pop("processes")
    return Config.model_validate({**saved, "runtime": runtime})


def _read_description(folder: Path) -> dict[str, Any]:
    try:
        description: dict[str, Any] = json.loads((folder / RUN).read_text())
    except FileNotFoundError:
        raise RunError(
            f"{folder}: not a run folder (no {RUN} in it).\n"
            f"  Make one: mmcl train CORPUS --out {folder}"
        ) from None
    except (OSError, ValueError) as fault:
        raise RunError(f"{folder / RUN}: not readable ({fault}).") from None
    return description


def _write_predictions(path: Path, judged: list[tuple[int, Judged]]) -> None:
    if not judged:
        raise DatasetError("the corpus has neither validation nor test clips to predict")
    write_table(pa.concat_tables([prediction_table(j, seed) for seed, j in judged]), path)
