"""Splits that go by the video: the standard folds of MOSI and MOSEI, and a rule for the others."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from functools import cache
from importlib.resources import files

from mmcl.types import SplitName

__all__ = ["find_folds", "split_of"]

TRAIN_SHARE, VALID_SHARE = 0.70, 0.15
CORPORA = ("mosi", "mosei")  # with a file in standard_folds/
FEWEST_KNOWN = 0.5  # share of the videos that must be a corpus's, to be taken for that corpus


def split_of(video_id: str) -> SplitName:
    """Return the split of a whole video if none is given: 70% train, 15% valid, 15% test.

    The sha256 of the id decides, so the split is the same on every machine and does not depend
    on the other videos.

    Example:
        >>> [split_of(f"video{number}") for number in range(1, 6)]
        ['train', 'test', 'train', 'train', 'valid']
    """
    share = int.from_bytes(hashlib.sha256(video_id.encode()).digest()[:8], "big") / 2**64
    if share < TRAIN_SHARE:
        return "train"
    return "valid" if share < TRAIN_SHARE + VALID_SHARE else "test"


def find_folds(video_ids: Collection[str]) -> tuple[str, dict[str, SplitName]] | None:
    """Find the corpus that most of the videos belong to, and the standard split of each of its own.

    The ids alone decide: those of YouTube do not repeat.

    Returns:
        The name of the corpus and the splits by video, or None if the videos are of neither.
    """
    for name in CORPORA:
        folds = _standard_folds(name)
        known = sum(video in folds for video in video_ids)
        if video_ids and known >= FEWEST_KNOWN * len(video_ids):
            return name, folds
    return None


@cache
def _standard_folds(name: str) -> dict[str, SplitName]:
    text = (
        files("mmcl.corpus").joinpath("standard_folds", f"{name}.txt").read_text(encoding="utf-8")
    )
    folds: dict[str, SplitName] = {}
    headings: dict[str, SplitName] = {"[train]": "train", "[valid]": "valid", "[test]": "test"}
    split: SplitName = "train"
    for line in text.splitlines():
        if line in headings:
            split = headings[line]
        elif not line.startswith("#"):
            folds |= dict.fromkeys(line.split(), split)
    return folds
