"""Predictions of a corpus by processes of Ray: block by block, the rows of one process."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from mmcl.corpus.readers import read_corpus
from mmcl.corpus.store import Corpus, Split
from mmcl.engines import Died, check_shared, over_ray
from mmcl.errors import DatasetError, RunError
from mmcl.evaluation.moments import as_probability
from mmcl.learning.inference import score_split
from mmcl.runs.run import Run

__all__ = ["predict_over_ray"]

BLOCKS = 4
"""Blocks for each process: one that is slow, or has died, holds up the others by so much less."""


class _Block(NamedTuple):
    """Some clips to be scored by the network of one seed.

    Attributes:
        call: Of one call of ours: what a process has opened for another may be out of date.
        run: Folder of the run.
        corpus: File of the corpus.
        seed: Whose network.
        start: First row.
        stop: Row after the last.
    """

    call: str
    run: Path
    corpus: Path
    seed: int
    start: int
    stop: int


class _Scores(NamedTuple):
    """What a block came to: the ids that were found in it, and their scores ``[clips, ...]``."""

    ids: list[str]
    scores: NDArray[np.float64]


def predict_over_ray(
    run: Run,
    corpus: Corpus,
    path: Path,
    *,
    workers: int,
    advance: Callable[[int], None] | None = None,
) -> pa.Table:
    """Predict every clip of a corpus: the rows of :meth:`Run.predict`, in their order.

    The blocks hold whole batches, so that a clip is padded as it is in one process.

    Args:
        run: The run, in a folder that every machine sees.
        corpus: Same task and feature widths as the run's own.
        path: The file it was read from, which every machine sees.
        workers: Processes at a time; they share the cores evenly.
        advance: Called with the number of clips done.

    Raises:
        RunError: If the corpus does not fit the run, or a block was given up.
        DatasetError: If a machine does not see the files, or sees others.
        MissingExtraError: If Ray is not installed.
    """
    run.check_fits(corpus)
    split = corpus.every_clip()
    ids, task = split.ids, run.card.task
    blocks = list(_blocks(run, len(split), path, workers))
    scored: dict[_Block, NDArray[np.float64]] = {}
    with closing(over_ray(_score_there, blocks, workers=workers)) as ended:
        for block, answer in ended:
            if isinstance(answer, Died):
                raise RunError(
                    f"predicting clips {block.start} to {block.stop - 1}: {answer.cause}.\n"
                    "  Go on with fewer at a time: the same command with --workers 1"
                )
            _check_ids(answer.ids, ids[block.start : block.stop], path)
            scored[block] = answer.scores
            if advance is not None:
                advance(block.stop - block.start)
    each = [
        as_probability(task, np.concatenate([scored[b] for b in blocks if b.seed == seed]))
        for seed in run.seeds
    ]
    return run.predicted(split, np.stack(each))


def _blocks(run: Run, num_clips: int, corpus: Path, workers: int) -> Iterator[_Block]:
    """Every seed's clips in whole batches, :data:`BLOCKS` blocks or more for each process."""
    batch = run.config.evaluation.batch_size
    batches = math.ceil(num_clips / batch) * len(run.seeds)
    size = batch * max(1, batches // (workers * BLOCKS))
    files = (uuid.uuid4().hex, run.folder.absolute(), corpus.absolute())
    for seed in run.seeds:
        for start in range(0, max(num_clips, 1), size):
            yield _Block(*files, seed, start, min(start + size, num_clips))


def _check_ids(found: list[str], wanted: list[str], path: Path) -> None:
    if found != wanted:
        raise DatasetError(
            f"{path}: another machine reads other clips here than this one does.\n"
            "  With --engine ray every machine must see the same file under one path"
        )


def _score_there(block: _Block, threads: int) -> _Scores:
    """Score one block in this process."""
    torch.set_num_threads(threads)
    run, split = _opened(block.call, block.run, block.corpus)
    part = split.between(block.start, block.stop)
    size = run.config.evaluation.batch_size
    return _Scores(
        part.ids, score_split(run.model(block.seed), part, batch_size=size, per_step=False).scores
    )


@lru_cache(maxsize=1)
def _opened(call: str, run: Path, corpus: Path) -> tuple[Run, Split]:
    """What a process keeps open from one block to the next."""
    check_shared(run)
    check_shared(corpus)
    return Run.load(run), read_corpus(corpus).every_clip()
