"""Features predicted by many clips at once, in the worker's process.

Prediction has a process of its own because reading JSON holds the interpreter's lock: in one
process, requests and predictions would take turns.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from mmcl.corpus.schema import Clip
from mmcl.corpus.store import Split, pack_corpus
from mmcl.errors import DatasetError
from mmcl.evaluation.moments import as_probability, in_words, spread_over_seeds
from mmcl.evaluation.protocol import answers
from mmcl.learning.inference import score_split
from mmcl.runs.run import Run
from mmcl.serve.features import Expected, Features
from mmcl.serve.limits import Limits
from mmcl.types import MODALITIES

__all__ = ["FeatureWorker", "Predicted", "expected_of", "num_threads", "predict_features"]


class Predicted(NamedTuple):
    """Prediction of one clip.

    Attributes:
        prediction: A score, the name of a class, or the names of the emotions present.
        spread: Standard deviation over seeds of the score, or of the predicted class's
            probability; None for a single seed.
        probabilities: Probability by class or emotion; None for a score.
    """

    prediction: float | str | list[str]
    spread: float | None
    probabilities: dict[str, float] | None


class FeatureWorker:
    """Runs whose networks are loaded.

    Args:
        _: Would report stages; a prediction has only one.
        folders: Run folders by name.
        limits: How much goes through a network at once.
    """

    def __init__(
        self, _: Callable[[str], None], folders: Mapping[str, Path], limits: Limits
    ) -> None:
        torch.set_num_threads(num_threads())
        self._limits = limits
        self._runs = {name: Run.load(folder) for name, folder in folders.items()}
        for run in self._runs.values():
            for seed in run.seeds:
                run.model(seed)

    def expected(self) -> dict[str, Expected]:
        """Return the features that each run takes."""
        return {name: expected_of(run) for name, run in self._runs.items()}

    def predict(self, model: str, clips: Sequence[Features]) -> list[Predicted]:
        """Predict clips by one run; see :func:`predict_features`."""
        return predict_features(self._runs[model], clips, self._limits)


def num_threads() -> int:
    """Return the number of threads that predict features, half of the cores.

    The other cores are for requests and recordings.
    """
    return max(1, (os.cpu_count() or 1) // 2)


def expected_of(run: Run) -> Expected:
    """Return the features that a run takes."""
    network = run.model()
    dims = {m: run.card.dims[m] for m in MODALITIES if m in run.card.dims}
    equal = network.released and network.aligned
    return Expected(run.folder.name, dims, network.modalities, equal)


def predict_features(run: Run, clips: Sequence[Features], limits: Limits) -> list[Predicted]:
    """Predict clips; clips of similar length go through the networks together.

    Args:
        run: The run.
        clips: Checked clips, of one request or of many.
        limits: How much goes through a network at once.

    Returns:
        One prediction per clip, in order; none depends on the clips beside it.

    Raises:
        DatasetError: If a clip's numbers are so large that its scores are not finite.
    """
    predicted: dict[int, Predicted] = {}
    for block in _blocks(clips, limits):
        split = _split(run, [clips[index] for index in block])
        predicted.update(zip(block, _predict(run, split), strict=True))
    return [predicted[index] for index in range(len(clips))]


def _blocks(clips: Sequence[Features], limits: Limits) -> Iterator[list[int]]:
    """Yield the indices of clips that go together, of similar length and within the limits."""
    block: list[int] = []
    for index in sorted(range(len(clips)), key=lambda index: clips[index].longest):
        # Attention needs memory for every pair of steps of every clip.
        pairs = (len(block) + 1) * clips[index].longest ** 2
        if block and (len(block) >= limits.clips_at_once or pairs > limits.pairs_at_once):
            yield block
            block = []
        block.append(index)
    if block:
        yield block


def _split(run: Run, clips: Sequence[Features]) -> Split:
    packed = [
        Clip(id=str(index), split="test", features=dict(clip.steps))
        for index, clip in enumerate(clips)
    ]
    return pack_corpus(run.card.model_copy(update={"counts": {}}), packed).every_clip()


def _predict(run: Run, split: Split) -> list[Predicted]:
    task = run.card.task
    scores = np.stack(
        [
            as_probability(task, score_split(run.model(seed), split, batch_size=len(split)).scores)
            for seed in run.seeds
        ]
    )  # [seeds, clips, ...]
    mean = scores.mean(axis=0)
    if not np.isfinite(mean).all():
        raise DatasetError(
            "the features of a clip are so large that nothing can be predicted from them.\n"
            "  Expected numbers like those the run was trained on."
        )
    chosen = in_words(task, answers(task, mean))
    spreads = spread_over_seeds(task, scores, mean)
    rows: list[Any] = list(mean)
    return [
        Predicted(prediction, spread, _by_name(run, row))
        for prediction, spread, row in zip(chosen, spreads, rows, strict=True)
    ]


def _by_name(run: Run, mean: Any) -> dict[str, float] | None:
    """Return probabilities by class or emotion, None for a score."""
    task = run.card.task
    if task.kind == "regression":
        return None
    probabilities = mean if task.kind == "classes" else mean[:, 1]
    return dict(zip(task.names, probabilities.tolist(), strict=True))
