"""Features through a run: many clips at once, as :meth:`Run.predict` would say of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

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

__all__ = ["Predicted", "expected_of", "predict_features"]


class Predicted(NamedTuple):
    """What a run says of one clip.

    Attributes:
        prediction: A score, the name of a class, or the names of the emotions held.
        spread: S.d. over seeds of the score, or of the predicted class's probability; None
            for a single seed.
        probabilities: By name of a class or emotion; None for a score.
    """

    prediction: float | str | list[str]
    spread: float | None
    probabilities: dict[str, float] | None


def expected_of(run: Run) -> Expected:
    """What features a run takes."""
    network = run.model()
    dims = {m: run.card.dims[m] for m in MODALITIES if m in run.card.dims}
    equal = network.released and network.aligned
    return Expected(run.folder.name, dims, network.modalities, equal)


def predict_features(run: Run, clips: Sequence[Features], limits: Limits) -> list[Predicted]:
    """Predict clips; those of like length go through the networks together.

    Args:
        run: The run.
        clips: Checked already, of one request or of many.
        limits: How much goes through at once.

    Returns:
        One per clip, in order; none depends on the clips beside it.

    Raises:
        DatasetError: If a clip's numbers are so large that its scores are none.
    """
    predicted: list[Predicted | None] = [None] * len(clips)
    for block in _blocks(clips, limits):
        split = _split(run, [clips[at] for at in block])
        for at, found in zip(block, _predict(run, split), strict=True):
            predicted[at] = found
    return [each for each in predicted if each is not None]


def _blocks(clips: Sequence[Features], limits: Limits) -> Iterator[list[int]]:
    """Places of clips that go together: like lengths, and not more than memory allows."""
    block: list[int] = []
    for at in sorted(range(len(clips)), key=lambda each: clips[each].longest):
        pairs = (len(block) + 1) * clips[at].longest ** 2
        if block and (len(block) >= limits.clips_at_once or pairs > limits.pairs_at_once):
            yield block
            block = []
        block.append(at)
    if block:
        yield block


def _split(run: Run, clips: Sequence[Features]) -> Split:
    packed = [
        Clip(id=str(at), split="test", features=dict(clip.steps)) for at, clip in enumerate(clips)
    ]
    return pack_corpus(run.card.model_copy(update={"counts": {}}), packed).every_clip()


def _predict(run: Run, split: Split) -> list[Predicted]:
    task = run.card.task
    each = [
        as_probability(task, score_split(run.model(seed), split, batch_size=len(split)).scores)
        for seed in run.seeds
    ]
    scores = np.stack(each)  # [seeds, clips, ...]
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
    task = run.card.task
    if task.kind == "regression":
        return None
    held = mean if task.kind == "classes" else mean[:, 1]
    return dict(zip(task.names, held.tolist(), strict=True))
