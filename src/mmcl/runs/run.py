"""Runs: a configuration trained with several seeds, and its results in a folder.

::

    RUN/run.json              configuration, seeds, versions, commit, corpus and its checksum
    RUN/seed-N/               the training of a seed, see mmcl.learning.loop
    RUN/metrics.json          mean, s.d. and 95% interval over seeds, and the reference rows
    RUN/predictions.parquet   seed, id, split, truth, prediction, scores
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmcl.config import Config
from mmcl.corpus.batches import labelled_rows
from mmcl.corpus.readers.arrays import CorpusLike, any_corpus
from mmcl.corpus.store import Corpus, Split
from mmcl.errors import DatasetError, RunError
from mmcl.evaluation.metrics import range_notes
from mmcl.evaluation.moments import (
    Encode,
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
from mmcl.files import read_json, reading, write_json
from mmcl.learning.fitted import DONE, Fitted, read_fitted
from mmcl.learning.inference import Scored, score_split
from mmcl.learning.labelled_clips import check_features
from mmcl.learning.loop import Progress, fit
from mmcl.learning.start import open_start, start_note, with_start
from mmcl.models.mmcl import MMCL
from mmcl.models.network import Network
from mmcl.models.registry import load_network
from mmcl.runs.fitting import fitting_corpus, text_model_notes
from mmcl.runs.jobs import DIVERGED, Job, Tell, corpus_file, train_jobs
from mmcl.runs.run_folder import (
    free_folder,
    open_run,
    read_description,
    read_settings,
    saying_how_to_go_on,
)
from mmcl.runtime import in_first_process, launch

__all__ = ["METRICS", "PREDICTIONS", "Run", "finish_run", "message_of", "summaries", "train"]

METRICS, PREDICTIONS = "metrics.json", "predictions.parquet"


def train(
    corpus: Corpus,
    config: Config | None = None,
    *,
    out: str | Path | None = None,
    seeds: Sequence[int] = (1,),
    start: str | Path | None = None,
    workers: int = 1,
    resume: bool = False,
    progress: Progress | None = None,
    tell: Tell | None = None,
) -> Run:
    """Train with several seeds, choose the epoch on validation, score once, save everything.

    If ``torchrun`` started several processes, they train together. The first one scores and
    writes, and all return the run; all must see the disk of ``out``.

    Args:
        corpus: The corpus to learn from.
        config: All settings. Default: those of ``calibrated``.
        out: Run folder. Default: the first free ``runs/<corpus>-<model>-<k>``.
        seeds: Every seed is a training.
        start: Run folder or ``starter``: its weights are taken as far as they fit, and without
            ``config`` its settings, too.
        workers: Seeds to train side by side, each in its own process with its share of the
            cores. A script that asks for several needs ``if __name__ == "__main__":``. If
            several processes train together, seeds are trained one after the other.
        resume: Continue a run that was stopped; finished seeds are not trained again.
        progress: Called as a training advances in this process.
        tell: Called about once a second with the state of seeds that train side by side.

    Raises:
        UsageError: If a seed is negative, too large or repeated.
        RunError: If the folder holds a run and ``resume`` is not set, or a run with another
            configuration or corpus.
        DatasetError: If there are no clips to learn from or to choose the epoch by.
        ConfigError: If the machine lacks what the settings ask for.
        TrainingError: If the loss stops being finite, or a process dies.
        DiskError: If the disk takes no more. It says what is kept and how to go on.
    """
    config = (config or Config()) if start is None else with_start(config, start, corpus)
    if config.learning.start is not None and not resume:
        open_start(config.learning.start).check(corpus.card, config)
    check_features(corpus, config)
    folder = Path(out) if out is not None else free_folder(corpus, config)
    with saying_how_to_go_on(folder, resume):
        return _train_seeds(
            corpus,
            config,
            folder,
            seeds,
            workers=workers,
            resume=resume,
            progress=progress,
            tell=tell,
        )


def _train_seeds(
    corpus: Corpus,
    config: Config,
    folder: Path,
    seeds: Sequence[int],
    *,
    workers: int,
    resume: bool,
    progress: Progress | None,
    tell: Tell | None,
) -> Run:
    """Train and score the run of a folder; see :func:`train`."""
    # If torchrun started several processes, all of them run these lines; the first one writes.
    fabric = launch(config.runtime)
    config = _with_devices(config, fabric.world_size)
    in_first_process(fabric, lambda: open_run(folder, corpus, config, seeds=seeds, resume=resume))
    # Processes that train one network together use all cores: one seed at a time.
    workers = min(workers, len(seeds)) if fabric.world_size == 1 else 1
    if workers > 1:
        with corpus_file(corpus, folder) as path:
            train_jobs(
                [Job(path, config, seed, folder / f"seed-{seed}", f"{seed}") for seed in seeds],
                workers=workers,
                for_comparison=False,
                tell=tell,
            )
    else:
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
    in_first_process(fabric, lambda: finish_run(folder, corpus))
    return Run.load(folder)


def _with_devices(config: Config, processes: int) -> Config:
    """Return the settings with the number of training processes, which torchrun may have set."""
    runtime = config.runtime.model_copy(update={"devices": processes})
    return config.model_copy(update={"runtime": runtime})


class Run:
    """A finished run folder.

    Attributes:
        folder: Its path.
        name: What a user calls it: the name of its folder, or ``starter``.
        where: What messages call it: its path, or a name that was given.
        description: Content of its run.json.
        config: Its configuration.
        card: The card of the corpus it was trained on.
        seeds: Seeds whose training finished.
        diverged: Seeds whose loss stopped being finite, with the message; only in a comparison.
    """

    def __init__(self, folder: Path, description: dict[str, Any], name: str | None = None) -> None:
        self.folder = folder
        self.name = name or folder.resolve().name
        self.where = name or str(folder)
        self.description = description
        self.config, self.card = read_settings(folder, description)
        self.diverged: dict[int, str] = {
            seed: message_of(path)
            for seed in description["seeds"]
            if (path := folder / f"seed-{seed}" / DIVERGED).exists()
        }
        self.seeds = tuple(seed for seed in description["seeds"] if seed not in self.diverged)
        self._models: dict[int, Network] = {}
        self._prepared: Callable[[], Corpus | None] = lambda: None  # the last one, if in use

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, {self.config.model.name}, {len(self.seeds)} seeds)"

    @classmethod
    def load(cls, folder: str | Path, name: str | None = None) -> Self:
        """Open a run folder.

        Args:
            folder: Its path.
            name: What it is called. Default: the name of the folder.

        Raises:
            RunError: If it is no run folder, or a seed has not finished.
        """
        folder = Path(folder)
        run = cls(folder, read_description(folder), name)
        # A seed is complete when its done.json is there; it is written last.
        missing = [s for s in run.seeds if not (folder / f"seed-{s}" / DONE).exists()]
        if not run.seeds:
            raise RunError(
                f"{folder}: every seed diverged; seed {min(run.diverged)}: "
                f"{next(iter(run.diverged.values()))}"
            )
        if missing:
            raise RunError(
                f"{folder}: seeds {missing} of {list(run.seeds)} have not finished training.\n"
                "  Continue it: the same mmcl train command with --resume"
            )
        return run

    @property
    def metrics(self) -> dict[str, Any]:
        """Content of metrics.json.

        Raises:
            RunError: If the run was stopped before it was scored.
        """
        path = self.folder / METRICS
        if not path.exists():
            raise RunError(
                f"{self.folder}: trained, but not scored yet (no {METRICS} in it).\n"
                "  Continue it: the same mmcl train command with --resume"
            )
        report = read_json(path)
        with reading(path):
            # What everything that reads the results relies on.
            for part in ("valid", "test", "references", "training"):
                if not isinstance(report[part], dict):
                    raise ValueError(f"{part} is no table")
            if not isinstance(report["seeds"], list):
                raise ValueError("seeds is no list")
        return report

    def model(self, seed: int | None = None) -> Network:
        """Return the network of one seed (the first by default), in evaluation mode."""
        seed = self.seeds[0] if seed is None else seed
        if seed not in self._models:  # networks are kept, since callers ask again
            self._models[seed] = load_network(self.folder / f"seed-{seed}" / "model")
        return self._models[seed]

    def evaluate(self, corpus: Corpus) -> dict[str, Any]:
        """Score every seed on a corpus, in the layout of metrics.json.

        Raises:
            RunError: If the corpus does not fit the run.
        """
        return self.score(corpus)[0]

    def predict(
        self, corpus: CorpusLike, *, advance: Callable[[int], None] | None = None
    ) -> pa.Table:
        """Predict every clip of a corpus; its labels are not used.

        Args:
            corpus: A corpus of the task and feature widths of the run's own; or the path of
                one; or arrays, as :meth:`~mmcl.corpus.store.Corpus.from_arrays` takes them; or
                one clip, ``{"text": [n, d], "audio": [n, d], ...}``, or a list of such clips.
            advance: Called with the number of clips of every finished batch.

        Returns:
            A row per clip: ``id``, ``split``, ``prediction`` (of the mean over seeds) and
            ``spread`` (s.d. over seeds of the score, or of the probability of the predicted
            class; null for a single seed).

        Raises:
            RunError: If the corpus does not fit the run.
            DatasetError: If what was given is no corpus.
        """
        corpus = self.prepared(any_corpus(corpus, self.card.task))
        split = corpus.every_clip()
        task = self.card.task
        size = self.config.evaluation.batch_size
        scored = [
            score_split(self.model(seed), split, batch_size=size, per_step=False, advance=advance)
            for seed in self.seeds
        ]
        return self.predicted(split, np.stack([as_probability(task, s.scores) for s in scored]))

    def predicted(self, split: Split, scores: NDArray[np.float64]) -> pa.Table:
        """Return the table of :meth:`predict` for given scores, ``[seeds, clips, ...]``.

        Scores of classes and emotions are probabilities.
        """
        task = self.card.task
        mean = scores.mean(axis=0)
        return pa.table(
            {
                "id": pa.array(split.ids, pa.string()),
                "split": split.table.column("split").cast(pa.string()),
                "prediction": pa.array(in_words(task, answers(task, mean))),
                "spread": pa.array(spread_over_seeds(task, scores, mean), pa.float64()),
            }
        )

    def moments(self, corpus: Corpus, *, encode: Encode | None = None) -> list[Moments]:
        """Predict every clip, and how far modalities, steps and words moved the prediction.

        Slower than :meth:`predict`: a clip is predicted again without every modality and word.

        Args:
            corpus: A corpus that fits the run.
            encode: Makes the vectors of words again without one of them, see
                :func:`~mmcl.evaluation.moments.moments_of`.

        Raises:
            RunError: If the corpus does not fit the run, or its model has no policies.
        """
        corpus = self.prepared(corpus)
        if not isinstance(self.model(), MMCL):
            raise RunError(
                f"{self.folder}: {self.config.model.name} predicts, and does not say from which "
                "moments.\n  Only calibrated and released do: mmcl train CORPUS --model calibrated"
            )
        models = [self.model(seed) for seed in self.seeds]
        size = self.config.evaluation.batch_size
        return moments_of(models, corpus.every_clip(), batch_size=size, encode=encode)

    @property
    def validation_error(self) -> float | None:
        """Mean absolute error on validation, mean over seeds; None unless the task has scores."""
        if self.card.task.kind != "regression" or not (self.folder / METRICS).exists():
            return None
        summary = self.metrics["valid"].get("mae")
        return None if summary is None else summary["mean"]

    def score(self, corpus: Corpus) -> tuple[dict[str, Any], list[tuple[int, Judged]]]:
        """Return the report of :meth:`evaluate`, and the per-item results of every seed."""
        prepared = self.prepared(corpus)
        settings = self.config.evaluation
        report: dict[str, Any] = {"valid": {}, "test": {}}
        results: list[tuple[int, Judged]] = []
        notes = start_note(self.folder / f"seed-{self.seeds[0]}") + self.notes(prepared)
        notes += range_notes(corpus.card.task, preset=settings.preset)
        references: dict[str, dict[str, Any]] = {}
        for name in JUDGED:
            if not corpus.card.counts.get(name):
                notes.append(f'the corpus has no split "{name}"')
                continue
            judged = [self._judged(seed, prepared, name) for seed in self.seeds]
            results += zip(self.seeds, judged, strict=True)
            report[name] = summaries([result.metrics.values for result in judged])
            warnings = {warning for result in judged for warning in result.metrics.warnings}
            notes += sorted(f"{name}: {warning}" for warning in warnings)
            # The references learn from the training labels of this corpus.
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
        return report, results

    def _judged(self, seed: int, corpus: Corpus, name: JudgedSplit) -> Judged:
        preset, size = self.config.evaluation.preset, self.config.evaluation.batch_size
        judged = judge(self.model(seed), corpus, name, preset=preset, batch_size=size)
        # Only the metrics needed the values per step, which take much memory for a large split.
        return judged._replace(scored=Scored(judged.scored.scores, [], [], []))

    def fitted(self, seed: int) -> Fitted:
        """Return the history and network of a seed."""
        return read_fitted(self.folder / f"seed-{seed}")

    def prepared(self, corpus: Corpus) -> Corpus:
        """Return a corpus as the networks of the run read it.

        Networks that read words get their pieces. Others get vectors of the words, made by the
        text model of the run's own corpus, if the corpus has none.

        Raises:
            RunError: If it has another task, other feature widths, vectors of another text model,
                or words that are needed and not there.
            MediaError: If vectors are needed and the text model cannot be loaded.
        """
        # Who prepares a corpus may give it to methods that prepare theirs.
        if corpus is not self._prepared():
            corpus = fitting_corpus(self.where, self.card, self.model(), corpus)
            self._prepared = weakref.ref(corpus)
        return corpus

    def notes(self, corpus: Corpus) -> list[str]:
        """Return notes for the reader of this run's results on a corpus."""
        notes = list(corpus.card.notes)
        model = self.model()
        if "text" in model.modalities and model.words is None:
            notes += text_model_notes(self.card, corpus.card)
        for modality in model.never_seen:
            notes.append(
                f"{modality} was never seen in training: no training clip has it, "
                "so prediction ignores it"
            )
        own, given = self.card.task.score_range, corpus.card.task.score_range
        if own and given and own != given:
            notes.append(
                f"predictions lie in the run's range, {own[0]:g}..{own[1]:g}; the corpus says "
                f"{given[0]:g}..{given[1]:g} of its labels: do not compare the two as they are"
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
        if model.keeps_missing_steps and corpus.card.missing_as_zero:
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


def message_of(path: Path) -> str:
    """Return why a training diverged, from the file that says so."""
    content = read_json(path)
    with reading(path):
        return str(content["message"])


def summaries(seeds: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Return the summary of every metric over the seeds, for JSON."""
    return {key: summary.as_dict() for key, summary in summarise_seeds(seeds).items()}


def _finite(values: dict[str, float]) -> dict[str, float | None]:
    # JSON has no nan.
    return {key: value if math.isfinite(value) else None for key, value in values.items()}


def _name_seed(progress: Progress | None, seed: int, seeds: Sequence[int]) -> Progress | None:
    """Return a progress callback that adds the seed to the name of the stage."""
    if progress is None:
        return None
    label = f"seed {seed} ({list(seeds).index(seed) + 1} of {len(seeds)})"

    def tell(stage: str, done: int, total: int, numbers: dict[str, float]) -> None:
        progress(f"{label}, {stage}", done, total, numbers)

    return tell


def finish_run(folder: Path, corpus: Corpus) -> Run:
    """Score the seeds of a run folder, and write metrics and predictions."""
    run = Run.load(folder)
    report, judged = run.score(corpus)
    if not judged:
        raise DatasetError("the corpus has neither validation nor test clips to predict")
    predictions = [prediction_table(split, seed) for seed, split in judged]
    write_table(pa.concat_tables(predictions), folder / PREDICTIONS)
    # Written last: a run with metrics.json is complete.
    write_json(folder / METRICS, report)
    return run
