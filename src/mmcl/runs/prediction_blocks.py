"""Prediction of a corpus by several processes, block by block.

The rows are those that one process would return.
"""

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
from mmcl.errors import DatasetError, RunError
from mmcl.evaluation.moments import as_probability
from mmcl.learning.inference import score_split
from mmcl.pool import Died, Engine, run_tasks
from mmcl.pool_ray import check_shared
from mmcl.runs.run import Run

__all__ = ["predict_in_blocks"]

BLOCKS = 4  # per process: with small blocks the others wait less for a slow process


class _Block(NamedTuple):
    """Clips ``start`` to ``stop - 1`` of a corpus file, to be scored by the network of a seed."""

    call: str  # name of the call: a later one opens the files again, since they may have changed
    run: Path
    corpus: Path
    seed: int
    start: int
    stop: int


class _Scores(NamedTuple):
    ids: list[str]
    scores: NDArray[np.float64]  # [clips, ...]


def predict_in_blocks(
    run: Run,
    corpus: Corpus,
    path: Path,
    *,
    workers: int,
    engine: Engine = "local",
    advance: Callable[[int], None] | None = None,
) -> pa.Table:
    """Predict every clip of a corpus; return the table of :meth:`Run.predict`.

    Args:
        run: The run; with Ray in a folder that every machine sees.
        corpus: Same task and feature widths as the run's own.
        path: The file it was read from; with Ray one that every machine sees.
        workers: Processes at a time; they share the cores evenly.
        engine: Where the processes run: on this machine, or on Ray.
        advance: Called with the number of clips of every finished block.

    Raises:
        RunError: If the corpus does not fit the run, or a process died with a block.
        DatasetError: If a machine does not see the files, or sees others.
        MissingExtraError: If Ray is asked for and not installed.
    """
    split = run.prepared(corpus).every_clip()
    ids = split.ids
    blocks = list(_blocks(run, len(split), path, workers))
    scored: dict[_Block, NDArray[np.float64]] = {}
    with closing(run_tasks(_score_block, blocks, workers=workers, engine=engine)) as results:
        for block, result in results:
            if isinstance(result, Died):
                raise RunError(
                    f"predicting clips {block.start} to {block.stop - 1}: {result.cause}.\n"
                    "  Continue with fewer at a time: the same command with --workers 1"
                )
            # Another machine may see another file under the same path.
            if result.ids != ids[block.start : block.stop]:
                raise DatasetError(
                    f"{path}: another machine reads other clips here than this one does.\n"
                    "  With --engine ray every machine must see the same file under one path"
                )
            scored[block] = result.scores
            if advance is not None:
                advance(block.stop - block.start)
    # Blocks end in any order; put them back in the order of the corpus.
    scores_of_seeds = [
        np.concatenate([scored[block] for block in blocks if block.seed == seed])
        for seed in run.seeds
    ]
    return run.predicted(
        split, np.stack([as_probability(run.card.task, scores) for scores in scores_of_seeds])
    )


def _blocks(run: Run, num_clips: int, corpus: Path, workers: int) -> Iterator[_Block]:
    """Cut the clips of every seed into blocks, at least :data:`BLOCKS` per process if possible."""
    batch = run.config.evaluation.batch_size
    num_batches = math.ceil(num_clips / batch) * len(run.seeds)
    # Whole batches, so that a clip is padded as in one process.
    size = batch * max(1, num_batches // (workers * BLOCKS))
    files = (uuid.uuid4().hex, run.folder.absolute(), corpus.absolute())
    for seed in run.seeds:
        for start in range(0, max(num_clips, 1), size):
            yield _Block(*files, seed, start, min(start + size, num_clips))


def _score_block(block: _Block, threads: int) -> _Scores:
    """Score a block in a worker."""
    torch.set_num_threads(threads)
    run, split = _open_once(block.call, block.run, block.corpus)
    part = split.between(block.start, block.stop)
    size = run.config.evaluation.batch_size
    scored = score_split(run.model(block.seed), part, batch_size=size, per_step=False)
    return _Scores(part.ids, scored.scores)


@lru_cache(maxsize=1)
def _open_once(call: str, run: Path, corpus: Path) -> tuple[Run, Split]:
    """Open the files of a call; a process keeps them for its next blocks."""
    check_shared(run, corpus)
    opened = Run.load(run)
    return opened, opened.prepared(read_corpus(corpus)).every_clip()
