"""The content of a foreign file under our names, unchecked: what every reader returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmcl.corpus.schema import Word
from mmcl.errors import DatasetError
from mmcl.types import MODALITIES, SPLITS, Modality, SplitName, TaskKind

__all__ = [
    "LAYOUTS",
    "SPLIT_NAMES",
    "Sequences",
    "SourceFile",
    "SourceSplit",
    "as_features",
    "as_labels",
    "as_numbers",
    "as_texts",
    "features_of",
    "named_splits",
]

Sequences = NDArray[np.float32] | list[NDArray[np.float32]]
"""Features of one modality: one array ``[clips, steps, d_m]``, or one ``[n, d_m]`` per clip."""

LAYOUTS = "The layouts that can be read: mmcl corpus convert --help"
SPLIT_NAMES: Mapping[str, SplitName] = {
    "train": "train",
    "valid": "valid",
    "val": "valid",
    "dev": "valid",
    "validation": "valid",
    "test": "test",
}
"""Names of the splits in the field, and ours."""


@dataclass
class SourceSplit:
    """One split of a foreign file.

    Attributes:
        name: Our name of it.
        features: Per modality its sequences, padded or ragged.
        labels: Per task that the file has labels for: scores or class numbers ``[clips]``,
            or 0/1 judgements ``[clips, emotions]``; float64, NaN for anything else.
        lengths: Real steps per clip, where the file gives them.
        step_masks: Mask of the real steps, bool ``[clips, steps]``, where the file has one.
        present: Whether a clip has a modality, bool ``[clips]``, where the file tells.
        modality_labels: Scores per modality.
        ids: Clip ids, where the file has them.
        video_ids: The recording of every clip, where the file tells.
        clip_ids: Names of clips inside their recording.
        texts: Spoken text of every clip; None where unknown.
        words: The words of every clip.
    """

    name: SplitName
    features: dict[Modality, Sequences]
    labels: dict[TaskKind, NDArray[np.float64]] = field(default_factory=dict)
    lengths: dict[Modality, NDArray[np.int64]] = field(default_factory=dict)
    step_masks: dict[Modality, NDArray[np.bool_]] = field(default_factory=dict)
    present: dict[Modality, NDArray[np.bool_]] = field(default_factory=dict)
    modality_labels: dict[Modality, NDArray[np.float64]] = field(default_factory=dict)
    ids: list[str] | None = None
    video_ids: list[str] | None = None
    clip_ids: list[str] | None = None
    texts: list[str | None] | None = None
    words: list[tuple[Word, ...]] | None = None

    def sizes(self) -> dict[str, int]:
        """Return how many clips each part lists, modalities first."""
        parts: dict[str, Any] = {m: self.features[m] for m in MODALITIES if m in self.features}
        parts |= {f"{m} lengths": lengths for m, lengths in self.lengths.items()}
        parts |= {f"{m} masks": masks for m, masks in self.step_masks.items()}
        parts |= {f"{m} presence": present for m, present in self.present.items()}
        parts |= {f"{kind} labels": labels for kind, labels in self.labels.items()}
        parts |= {f"{m} labels": labels for m, labels in self.modality_labels.items()}
        lists = {"ids": self.ids, "texts": self.texts, "words": self.words}
        parts |= {name: listed for name, listed in lists.items() if listed is not None}
        return {name: len(part) for name, part in parts.items()}

    def num_steps(self, modality: Modality) -> int | None:
        """Return the steps of a padded modality; None if it is ragged or absent."""
        sequences = self.features.get(modality)
        return sequences.shape[1] if isinstance(sequences, np.ndarray) else None

    def clip_name(self, row: int) -> str:
        """Return the id of a clip, made from its row where the file has none."""
        if self.ids is not None and row < len(self.ids):
            return self.ids[row]
        return f"{self.name}_{row:04d}"


@dataclass
class SourceFile:
    """A foreign file as its reader understood it.

    Attributes:
        layout: Name of the layout: ``mmsa``, ``mult``, ``magbert``, ``plain`` or ``npz``.
        splits: Its splits, in the order train, valid, test.
        names: Class or emotion names, where the file has them.
        ignored: Fields that the reader does not keep.
    """

    layout: str
    splits: list[SourceSplit]
    names: dict[TaskKind, tuple[str, ...]] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()


def named_splits(content: Mapping[Any, Any]) -> list[tuple[SplitName, Any]]:
    """Return the splits of a foreign dict in our order under our names; empty if it has none."""
    splits: dict[SplitName, Any] = {}
    for key, value in content.items():
        name = SPLIT_NAMES.get(_text(key).lower())
        if name is None:
            continue
        if name in splits:
            raise DatasetError(
                f'the "{name}" split is there twice, under two names.\n'
                '  Expected one of "valid", "val" and "dev", not several.\n'
                f"  {LAYOUTS}"
            )
        splits[name] = value
    return [(name, splits[name]) for name in SPLITS if name in splits]


def features_of(fields: Mapping[str, Any], where: str) -> dict[Modality, Sequences]:
    """Return the features of all modalities that a split has."""
    return {m: as_features(fields[m], f"{where}: {m}") for m in MODALITIES if m in fields}


def as_features(value: Any, what: str) -> Sequences:
    """Turn the features of a modality into float32 sequences.

    Args:
        value: An array ``[clips, steps, d]``, an array ``[clips, d]`` (sequences of length
            one), or a list of arrays ``[n, d]`` or ``[d]``.
        what: Name of the value in an error.

    Raises:
        DatasetError: If it is none of these.
    """
    if isinstance(value, np.ndarray) and value.dtype != object:
        if value.ndim not in (2, 3):
            raise DatasetError(_no_features(what, value))
        array = _float32(value, what)
        return array if array.ndim == 3 else array[:, np.newaxis, :]
    try:
        arrays = [_float32(np.asarray(item), what) for item in value]
    except (TypeError, ValueError):
        raise DatasetError(_no_features(what, value)) from None
    sequences = [array[np.newaxis] if array.ndim == 1 else array for array in arrays]
    if any(array.ndim != 2 for array in sequences):
        raise DatasetError(_no_features(what, value))
    return sequences


def _float32(array: NDArray[Any], what: str) -> NDArray[np.float32]:
    if array.dtype.kind not in "fiub":
        raise DatasetError(_no_features(what, array))
    with np.errstate(over="ignore"):  # too large a value becomes inf, which is counted later
        return array.astype(np.float32, copy=False)


def _no_features(what: str, value: Any) -> str:
    shape = f"shape {list(value.shape)}, {value.dtype}" if isinstance(value, np.ndarray) else ""
    return (
        f"{what} is {shape or type(value).__name__}, which cannot be read as features.\n"
        "  Expected numbers of shape [clips, steps, width] or [clips, width], "
        "or a list of arrays [steps, width].\n"
        f"  {LAYOUTS}"
    )


def as_numbers(value: Any, what: str) -> NDArray[np.float64]:
    """Return one number per clip from ``[clips]``, ``[clips, 1]``, ``[clips, 1, 1]`` or a list."""
    array = _float64(value, what)
    if array.ndim == 0 or array.size != len(array):
        raise DatasetError(_no_numbers(what, f"shape {list(array.shape)}"))
    return array.reshape(-1)


def as_labels(value: Any, what: str, number_kind: TaskKind) -> dict[TaskKind, NDArray[np.float64]]:
    """Return labels by task: several numbers per clip are emotions, one is ``number_kind``.

    Emotions ``[clips, emotions]`` are 0 or 1. Emotions ``[clips, emotions, 2]`` are one-hot
    pairs (no, yes). A pair that is neither becomes NaN, which the checks report.
    """
    labels = np.asarray(value)
    if labels.ndim < 2 or labels.size == len(labels):
        return {number_kind: as_numbers(labels, what)}
    array = _float64(labels, what)
    if array.ndim == 2:
        return {"emotions": array}
    if array.ndim != 3 or array.shape[2] != 2:
        raise DatasetError(_no_numbers(what, f"shape {list(array.shape)}"))
    one_hot = np.isin(array, (0.0, 1.0)).all(axis=2) & (array.sum(axis=2) == 1)
    return {"emotions": np.where(one_hot, array[:, :, 1], np.nan)}


def _float64(value: Any, what: str) -> NDArray[np.float64]:
    try:
        return np.asarray(value).astype(np.float64)
    except (TypeError, ValueError):
        raise DatasetError(_no_numbers(what, "no numbers")) from None


def _no_numbers(what: str, actual: str) -> str:
    return f"{what} is {actual}.\n  Expected one number per clip.\n  {LAYOUTS}"


def as_texts(value: Any) -> list[str]:
    """Return strings from a list or array of strings, bytes or numbers."""
    items: Sequence[Any] = value.tolist() if isinstance(value, np.ndarray) else value
    return [_text(item) for item in items]


def _text(item: Any) -> str:
    if item is None:
        return ""
    if isinstance(item, bytes):
        return item.decode("utf-8", errors="replace")
    text = str(item)
    if text.isascii():
        return text
    try:
        # The unpickler reads text of Python 2 as latin-1; mostly it was UTF-8.
        return text.encode("latin1").decode("utf-8")
    except UnicodeError:
        return text
