"""Published corpora: their names, sizes, widths, label ranges and checksums."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from mmcl.corpus.schema import Card, Task
from mmcl.types import MODALITIES, SPLITS, Modality, SplitName

__all__ = [
    *("KNOWN", "KnownCorpus", "columns_of", "compare_with_known", "find_known", "guess_name"),
    "is_known_release",
]

_RAVDESS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
_SENTIMENT = Task(kind="regression", low=-3.0, high=3.0)
_SENTIMENT_ZH = Task(kind="regression", low=-1.0, high=1.0)
_FACET = (0, 2, 5, 10, 11, 12, 14, 17, 20, 21, 22, 24, 25, 29, 30, 31, 32, 36, 37, 40)
_MOSI_COLUMNS: Mapping[Modality, tuple[str, ...]] = {
    "audio": tuple(f"covarep_{index}" for index in (1, 3, 6, 25, 60)),
    "vision": tuple(f"facet_{index}" for index in _FACET),
}
# File names that name no corpus, only a kind of file.
_GENERIC_STEM = re.compile(r"(un)?aligned(_\d+)?|(no)?align|data|features?|processed|seq")


@dataclass(frozen=True)
class KnownCorpus:
    """A published corpus; a mapping is empty where nothing is known."""

    title: str  # its name as printed
    task: Task  # its usual task
    aliases: tuple[str, ...] = ()  # other words in a file's name that mean this corpus
    counts: Mapping[SplitName, int] = field(default_factory=dict)
    dims: Mapping[str, Mapping[Modality, int]] = field(default_factory=dict)  # by layout of file
    sha256: Mapping[str, str] = field(default_factory=dict)  # first digits, by kind of file
    columns: Mapping[Modality, tuple[str, ...]] = field(default_factory=dict)
    language: str = "en"
    score_range: tuple[float, float] | None = None  # of its scores, if its task is another


def _counts(*counts: int) -> dict[SplitName, int]:
    return dict(zip(SPLITS, counts, strict=True))


def _widths(*widths: int) -> dict[Modality, int]:
    return dict(zip(MODALITIES, widths, strict=True))


KNOWN: Mapping[str, KnownCorpus] = MappingProxyType(
    {
        "mosi": KnownCorpus(
            title="CMU-MOSI",
            task=_SENTIMENT,
            aliases=("cmumosi",),
            counts=_counts(1284, 229, 686),
            dims={"mmsa": _widths(768, 5, 20)},
            sha256={"aligned": "d3994fd2", "unaligned": "78e0f8b5"},
            columns=_MOSI_COLUMNS,
        ),
        "mosei": KnownCorpus(
            title="CMU-MOSEI",
            task=_SENTIMENT,
            aliases=("cmumosei",),
            counts=_counts(16326, 1871, 4659),
            dims={"mmsa": _widths(768, 74, 35)},
            sha256={"aligned": "45eccfb7", "unaligned": "ad8b23d5"},
        ),
        "iemocap": KnownCorpus(
            title="IEMOCAP",
            task=Task(kind="emotions", names=("neutral", "happy", "sad", "angry")),
            counts=_counts(2717, 798, 938),
            dims={"mult": _widths(300, 74, 35)},
        ),
        "sims": KnownCorpus(
            title="CH-SIMS",
            task=_SENTIMENT_ZH,
            aliases=("chsims",),
            counts=_counts(1368, 456, 457),
            dims={"mmsa": _widths(768, 33, 709)},
            sha256={"unaligned": "c9e20c13"},
            language="zh",
        ),
        "simsv2": KnownCorpus(
            title="CH-SIMS v2 (supervised part)",
            task=_SENTIMENT_ZH,
            aliases=("simsv2s", "chsimsv2", "chsimsv2s", "sims2"),
            counts=_counts(2722, 647, 1034),
            language="zh",
        ),
        "ravdess": KnownCorpus(
            title="RAVDESS",
            task=Task(kind="classes", names=_RAVDESS),
            score_range=(-2.0, 2.0),
        ),
        "mmmo": KnownCorpus(
            title="ICT-MMMO",
            task=Task(kind="regression", low=-2.0, high=2.0),
            aliases=("ictmmmo",),
        ),
    }
)
"""Corpora by name. Counts, widths and checksums are those of the MMSA and MulT releases."""


def find_known(name: str) -> KnownCorpus | None:
    """Find a published corpus by its name or an alias, in any spelling: ``CH-SIMS v2`` too."""
    known_name = _known_name(name)
    return KNOWN[known_name] if known_name else None


def is_known_release(
    known: KnownCorpus,
    layout: str,
    dims: Mapping[Modality, int],
    counts: Mapping[SplitName, int],
) -> bool:
    """Tell whether a file has the widths or the clips of a published corpus.

    A name alone does not say in which order a file lists its classes. Of a corpus whose sizes
    are not known the name has to suffice.
    """
    widths = known.dims.get(layout)
    if not widths and not known.counts:
        return True
    return dict(dims) == widths or dict(counts) == dict(known.counts)


def guess_name(path: Path, sha256: str, counts: Mapping[SplitName, int]) -> str:
    """Guess a corpus's name from its checksum, file name, folders and clips per split.

    Returns:
        A name of :data:`KNOWN`, or else the file's own name without its endings.
    """
    for name, known in KNOWN.items():
        if any(sha256.startswith(prefix) for prefix in known.sha256.values()):
            return name
    stem = path.name.split(".")[0]
    guesses = [_known_name(stem)]
    # A folder names only files that have no name of their own.
    if _GENERIC_STEM.fullmatch(stem.lower()):
        guesses += [_known_name(folder.name) for folder in list(path.absolute().parents)[:2]]
    if counts:
        guesses += [name for name, known in KNOWN.items() if dict(known.counts) == counts]
    return next(filter(None, guesses), stem or "corpus")


def _known_name(text: str) -> str | None:
    """Return the known corpus that a text names; the longest alias in the text decides."""
    pieces = re.split(r"[^a-z0-9]+", text.lower())
    # Up to three neighbouring pieces may spell an alias: "CH-SIMS v2".
    runs = {"".join(pieces[i:j]) for i in range(len(pieces)) for j in range(i + 1, i + 4)}
    names = {alias: name for name, known in KNOWN.items() for alias in (name, *known.aliases)}
    matches = [(len(alias), names[alias]) for alias in runs & names.keys()]
    return max(matches)[1] if matches else None


def columns_of(card: Card) -> dict[Modality, tuple[str, ...]]:
    """Name the feature columns, where the corpus is known and the width fits."""
    known = find_known(card.name)
    columns = known.columns if known else {}
    return {m: names for m, names in columns.items() if card.dims.get(m) == len(names)}


def compare_with_known(card: Card) -> list[str]:
    """Compare a card with the published corpus of its name.

    Returns:
        A warning for every difference, with the expected value; none for an unknown corpus.
        They are no errors: other releases of the same corpus exist.
    """
    known = find_known(card.name)
    if known is None:
        return []
    title, source = known.title, card.source
    warnings = [
        f"{split} has {card.counts.get(split, 0)} clips; {title} has {count}"
        for split, count in known.counts.items()
        if card.counts.get(split, 0) != count
    ]
    for modality, width in known.dims.get(source.layout if source else "", {}).items():
        if card.dims.get(modality) != width:
            actual = f"{card.dims[modality]} wide" if modality in card.dims else "absent"
            warnings.append(f"{modality} is {actual}; in {title} of this kind {width} wide")
    expected = known.score_range or known.task.score_range
    actual_range = card.task.score_range
    if actual_range and expected and actual_range != expected:
        warnings.append(
            f"labels lie in {actual_range[0]:g}..{actual_range[1]:g}; "
            f"those of {title} in {expected[0]:g}..{expected[1]:g}"
        )
    kind = "aligned" if card.aligned else "unaligned"
    prefix = known.sha256.get(kind, "")
    if source is not None and source.layout == "mmsa" and not source.sha256.startswith(prefix):
        warnings.append(
            f"sha256 begins with {source.sha256[:8]}; "
            f"that of the published {kind} file of {title} with {prefix}"
        )
    return warnings
