"""The clips that a training learns from or is validated on, and whether there are enough."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from torch import Tensor

from mmcl.config import Config
from mmcl.corpus.batches import labelled_rows
from mmcl.corpus.store import Corpus, Split
from mmcl.errors import ConfigError, DatasetError
from mmcl.learning.inference import targets_of
from mmcl.types import SplitName

__all__ = ["LabelledClips", "check_clips", "check_features", "labelled_clips", "too_large"]


class LabelledClips(NamedTuple):
    """Labelled clips of one split, and the targets of the whole split."""

    split: Split
    rows: np.ndarray
    targets: Tensor


def labelled_clips(corpus: Corpus, name: SplitName) -> LabelledClips:
    """Return the labelled clips of a split, or refuse a split without any."""
    split = corpus.split(name)
    rows = labelled_rows(split)
    if not len(rows):
        raise DatasetError(
            f'{corpus.card.name}, split "{name}": no clip with a label ({len(split)} clips).\n'
            "  Training needs labelled clips to learn from and others to choose by.\n"
            "  See what there is: mmcl corpus describe CORPUS"
        )
    return LabelledClips(split, rows, targets_of(split))


def check_features(corpus: Corpus, config: Config) -> None:
    """Refuse a corpus of text alone if nothing is to read it."""
    if not corpus.card.dims and config.text.encoder is None:
        raise DatasetError(
            f"{corpus.card.name}: it has text and no features.\n"
            "  Let a language model read it: --set text.encoder=packaged (or a hub id or folder)\n"
            "  Or make vectors of it once: mmcl corpus convert SRC DST --text-model packaged"
        )


def check_clips(processes: int, batch_size: int, clips: int) -> None:
    """Refuse more processes than clips: each process needs a share of every batch."""
    if batch_size < processes:
        raise ConfigError(
            f"learning.batch_size is {batch_size}, fewer clips than the {processes} processes "
            f"that share them\n  Use fewer processes: --set runtime.devices={batch_size}"
        )
    if clips < processes:
        raise DatasetError(
            f'split "train": {clips} clip{"s" * (clips != 1)} with a label, fewer than the '
            f"{processes} processes that share them\n"
            f"  Use fewer processes: --set runtime.devices={clips}"
        )


def too_large(split: Split, config: Config, block: np.ndarray) -> str:
    """Return the message that a batch does not fit into memory, and which setting to lower."""
    available = [m for m in config.model.modalities if m in split.card.dims]
    longest = max(int(split.lengths(m)[block].max(initial=1)) for m in available)
    clips = "1 clip" if len(block) == 1 else f"{len(block)} clips"
    # Half of the batch, or of the width where the batch is a single clip.
    lower = f"learning.batch_size={config.learning.batch_size // 2}"
    if len(block) == 1:
        lower = f"model.width={max(config.model.width // 2, 4)}, or cut the clips"
    return (
        f"a batch of {clips} of up to {longest:,} steps does not fit into memory.\n"
        f"  Lower it: --set {lower}\n"
        "  See how long the clips are: mmcl corpus describe CORPUS"
    )
