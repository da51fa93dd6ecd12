"""What is known of published corpora, to hold a file against."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from mmcl.corpus.schema import Card, Task
from mmcl.types import Modality, SplitName

__all__ = ["KNOWN", "KnownCorpus", "columns_of", "compare_with_known", "find_known", "guess_name"]

_EIGHT = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
_SENTIMENT = Task(kind="regression", low=-3.0, high=3.0)
_SENTIMENT_ZH = Task(kind="regression", low=-1.0, high=1.0)
_COVAREP = (1, 3, 6, 25, 60)
_FACET = (0, 2, 5, 10, 11, 12, 14, 17, 20, 21, 22, 24, 25, 29, 30, 31, 32, 36, 37, 40)
_GENERIC_STEM = re.compile(r"(un)?aligned(_\d+)?|(no)?align|data|features?|processed|seq")


@dataclass(frozen=True)
class KnownCorpus:
    """A published corpus.

    Attributes:
        title: Its name as printed.
        task: What its labels are; ``score_range`` is that of its regression labels.
        aliases: Words in a file's name that mean it.
        counts: Clips per split; empty where no one split is published.
        dims: Feature widths per layout of file, as far as they are known.
        sha256: How the checksum of a published file begins, per kind of file.
        columns: Names of feature columns, where the width says that it is that set.
        language: Of the speech.
        score_range: Range of regression labels, where the task is another one.
    """

    title: str
    task: Task
    aliases: tuple[str, ...]
    counts: Mapping[SplitName, int] = field(default_factory=dict)
    dims: Mapping[str, Mapping[Modality, int]] = field(default_factory=dict)
    sha256: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[Modality, tuple[str, ...]] = field(default_factory=dict)
    language: str | None = None
    score_range: tuple[float, float] | None = None


KNOWN: Mapping[str, KnownCorpus] = MappingProxyType(
    {
        "mosi": KnownCorpus(
            title="CMU-MOSI",
            task=_SENTIMENT,
            aliases=("mosi", "cmumosi"),
            counts={"train": 1284, "valid": 229, "test": 686},
            dims={"mmsa": {"text": 768, "audio": 5, "vision": 20}},
            sha256={"aligned": "d3994fd2", "unaligned": "78e0f8b5"},
            columns={
                "audio": tuple(f"covarep_{index}" for index in _COVAREP),
                "vision": tuple(f"facet_{index}" for index in _FACET),
            },
            language="en",
        ),
        "mosei": KnownCorpus(
            title="CMU-MOSEI",
            task=_SENTIMENT,
            aliases=("mosei", "cmumosei"),
            counts={"train": 16326, "valid": 1871, "test": 4659},
            dims={"mmsa": {"text": 768, "audio": 74, "vision": 35}},
            sha256={"aligned": "45eccfb7", "unaligned": "ad8b23d5"},
            language="en",
        ),
        "iemocap": KnownCorpus(
            title="IEMOCAP",
            task=Task(kind="emotions", names=("neutral", "happy", "sad", "angry")),
            aliases=("iemocap",),
            counts={"train": 2717, "valid": 798, "test": 938},
            dims={"mult": {"text": 300, "audio": 74, "vision": 35}},
            language="en",
        ),
        "sims": KnownCorpus(
            title="CH-SIMS",
            task=_SENTIMENT_ZH,
            aliases=("sims", "chsims"),
            counts={"train": 1368, "valid": 456, "test": 457},
            dims={"mmsa": {"text": 768, "audio": 33, "vision": 709}},
            sha256={"unaligned": "c9e20c13"},
            language="zh",
        ),
        "simsv2": KnownCorpus(
            title="CH-SIMS v2 (supervised part)",
            task=_SENTIMENT_ZH,
            aliases=("simsv2", "simsv2s", "chsimsv2", "chsimsv2s", "sims2"),
            counts={"train": 2722, "valid": 647, "test": 1034},
            language="zh",
        ),
        "ravdess": KnownCorpus(
            title="RAVDESS",
            task=Task(kind="classes", names=_EIGHT),
            aliases=("ravdess",),
            language="en",
            score_range=(-2.0, 2.0),
        ),
        "mmmo": KnownCorpus(
            title="ICT-MMMO",
            task=Task(kind="regression", low=-2.0, high=2.0),
            aliases=("mmmo", "ictmmmo"),
            language="en",
        ),
    }
)
"""Corpora by name. Counts, widths and checksums are those of the MMSA and MulT releases."""


def find_known(name: str) -> KnownCorpus | None:
    """The corpus of a name or one of its aliases, in any spelling: ``CH-SIMS v2`` too.

    Example:
        >>> find_known("CH-SIMS v2").title
        'CH-SIMS v2 (supervised part)'
    """
    known = _canonical(name)
    return KNOWN[known] if known else None


def guess_name(path: Path, sha256: str, counts: Mapping[SplitName, int]) -> str:
    """Name a corpus after its checksum, its file's name, its folder or its clip counts.

    Args:
        path: The foreign file.
        sha256: Its checksum.
        counts: Clips per split found in it.

    Returns:
        A name of :data:`KNOWN`, or else the file's own name without its endings.

    Example:
        >>> guess_name(Path("MOSI/Processed/unaligned_50.pkl"), "00", {})
        'mosi'
    """
    for name, known in KNOWN.items():
        if any(sha256.startswith(prefix) for prefix in known.sha256.values()):
            return name
    stem = path.name.split(".")[0]
    named = _canonical(stem)
    if named is None and _GENERIC_STEM.fullmatch(stem.lower()):
        folders = [folder.name for folder in path.absolute().parents][:2]
        named = next(filter(None, map(_canonical, folders)), None)
    if named is None:
        same = (name for name, known in KNOWN.items() if counts and dict(known.counts) == counts)
        named = next(same, None)
    return named or stem or "corpus"


def columns_of(card: Card) -> dict[Modality, tuple[str, ...]]:
    """Names of the feature columns, where the corpus is known and the width fits."""
    known = find_known(card.name)
    columns = known.columns if known else {}
    return {m: names for m, names in columns.items() if card.dims.get(m) == len(names)}


def compare_with_known(card: Card) -> list[str]:
    """Hold a card against the published corpus of its name.

    Args:
        card: Card of a corpus that was read.

    Returns:
        Warnings, each with what was found and what was expected; none for a corpus that
        is not known. They are no errors: other releases of the same corpus exist.
    """
    known = find_known(card.name)
    if known is None:
        return []
    warnings = [
        f"{split} has {card.counts.get(split, 0)} clips; {known.title} has {count}"
        for split, count in known.counts.items()
        if card.counts.get(split, 0) != count
    ]
    layout = card.source.layout if card.source else ""
    warnings += [
        f"{modality} is {_width(card, modality)}; in {known.title} of this kind {width} wide"
        for modality, width in known.dims.get(layout, {}).items()
        if card.dims.get(modality) != width
    ]
    return warnings + _task_warnings(card, known) + _checksum_warnings(card, known)


def _task_warnings(card: Card, known: KnownCorpus) -> list[str]:
    found, expected = _range_of(card.task), known.score_range or _range_of(known.task)
    if card.task.kind != "regression" or found == expected or expected is None:
        return []
    return [
        f"labels lie in {card.task.low:g}..{card.task.high:g}; "
        f"those of {known.title} in {expected[0]:g}..{expected[1]:g}"
    ]


def _range_of(task: Task) -> tuple[float, float] | None:
    return None if task.low is None or task.high is None else (task.low, task.high)


def _checksum_warnings(card: Card, known: KnownCorpus) -> list[str]:
    source = card.source
    if source is None or source.layout != "mmsa" or not known.sha256:
        return []
    kind = "aligned" if card.aligned else "unaligned"
    expected = known.sha256.get(kind)
    if expected is None or source.sha256.startswith(expected):
        return []
    return [
        f"sha256 begins with {source.sha256[:8]}; "
        f"that of the published {kind} file of {known.title} with {expected}"
    ]


def _width(card: Card, modality: Modality) -> str:
    return f"{card.dims[modality]} wide" if modality in card.dims else "absent"


def _canonical(text: str) -> str | None:
    """The known corpus that a text names; of two names in it the longer one counts."""
    pieces = re.split(r"[^a-z0-9]+", text.lower())
    runs = {"".join(pieces[i:j]) for i in range(len(pieces)) for j in range(i + 1, i + 4)}
    hits = [
        (len(alias), name)
        for name, known in KNOWN.items()
        for alias in known.aliases
        if alias in runs
    ]
    return max(hits)[1] if hits else None
