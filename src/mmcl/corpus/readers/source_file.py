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

__all__ = ["LAYOUTS", "SPLIT_NAMES", "Sequences", "SourceFile", "SourceSplit", "named_splits"]
__all__ += ["as_features", "as_labels", "as_numbers", "as_texts"]

Sequences = NDArray[np.float32] | list[NDArray[np.float32]]
"""Features of one modality: one array ``[clips, steps, d_m]``, or one ``[n, d_m]`` per clip."""

LAYOUTS = "The layouts that can be read: mmcl corpus convert --help"
_SPLIT_WORDS: Mapping[SplitName, tuple[str, ...]] = {
    "train": ("train", "training", "trn"),
    "valid": ("valid", "val", "dev", "validation", "validate", "devel", "development"),
    "test": ("test", "testing", "tst"),
}
SPLIT_NAMES: Mapping[str, SplitName] = {
    f"{word}{ending}": name
    for name, words in _SPLIT_WORDS.items()
    for word in words
    for ending in ("", "set", "_set", "_split", "_data")
}
"""Names of the splits in the field, in small letters, and ours."""


@dataclass
class SourceSplit:
    """One split of a foreign file; parts that the file does not have are empty or None."""

    name: SplitName
    features: dict[Modality, Sequences]  # padded or ragged
    # Scores or class numbers [clips], or 0/1 judgements [clips, emotions]; NaN for anything else.
    labels: dict[TaskKind, NDArray[np.float64]] = field(default_factory=dict)
    lengths: dict[Modality, NDArray[np.int64]] = field(default_factory=dict)  # [clips]
    step_masks: dict[Modality, NDArray[np.bool_]] = field(default_factory=dict)  # [clips, steps]
    present: dict[Modality, NDArray[np.bool_]] = field(default_factory=dict)  # [clips]
    modality_labels: dict[Modality, NDArray[np.float64]] = field(default_factory=dict)  # [clips]
    ids: list[str] | None = None
    video_ids: list[str] | None = None  # the recording of every clip
    clip_ids: list[str] | None = None  # names of the clips inside their recording
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
        parts |= {"ids": self.ids, "texts": self.texts, "words": self.words}
        return {name: len(part) for name, part in parts.items() if part is not None}

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
    """A foreign file as its reader understood it."""

    layout: str  # mmsa, mult, magbert, plain or npz
    splits: list[SourceSplit]  # in the order train, valid, test
    names: dict[TaskKind, tuple[str, ...]] = field(default_factory=dict)  # of classes, emotions
    ignored: tuple[str, ...] = ()  # fields that the reader does not keep


def named_splits(content: Mapping[Any, Any]) -> dict[SplitName, Any]:
    """Return the splits of a foreign dict in our order under our names; empty if it has none."""
    splits: dict[SplitName, Any] = {}
    for key, value in content.items():
        name = SPLIT_NAMES.get(_text(key).lower())
        if name is None:
            continue
        if name in splits:
            raise DatasetError(
                f'the "{name}" split is there twice, under two names.\n'
                f'  Expected one of "valid", "val" and "dev", not several.\n  {LAYOUTS}'
            )
        splits[name] = value
    return {name: splits[name] for name in SPLITS if name in splits}


def as_features(value: Any, part: str) -> Sequences:
    """Turn the features of a modality into float32 sequences.

    They may be an array ``[clips, steps, d]``, an array ``[clips, d]`` (sequences of length
    one), or a list of arrays ``[n, d]`` or ``[d]``. ``part`` names them in an error.

    Raises:
        DatasetError: If they are none of these.
    """
    if isinstance(value, np.ndarray) and value.dtype != object:
        if value.ndim not in (2, 3):
            raise _no_features(part, value)
        array = _float32(value, part)
        return array if array.ndim == 3 else array[:, np.newaxis, :]
    try:
        arrays = [_float32(np.asarray(item), part) for item in value]
    except (TypeError, ValueError):
        raise _no_features(part, value) from None
    sequences = [array[np.newaxis] if array.ndim == 1 else array for array in arrays]
    if any(array.ndim != 2 for array in sequences):
        raise _no_features(part, value)
    return sequences


def _float32(array: NDArray[Any], part: str) -> NDArray[np.float32]:
    if array.dtype.kind not in "fiub":
        raise _no_features(part, array)
    with np.errstate(over="ignore"):  # too large a value becomes inf, which is counted later
        return array.astype(np.float32, copy=False)


def _no_features(part: str, value: Any) -> DatasetError:
    is_array = isinstance(value, np.ndarray)
    shown = f"shape {list(value.shape)}, {value.dtype}" if is_array else type(value).__name__
    return DatasetError(
        f"{part} is {shown}, which cannot be read as features.\n"
        "  Expected numbers of shape [clips, steps, width] or [clips, width], "
        f"or a list of arrays [steps, width].\n  {LAYOUTS}"
    )


def as_numbers(value: Any, part: str) -> NDArray[np.float64]:
    """Return one number per clip from ``[clips]``, ``[clips, 1]``, ``[clips, 1, 1]`` or a list."""
    array = _float64(value, part)
    if array.ndim == 0 or array.size != len(array):
        raise _no_numbers(part, f"shape {list(array.shape)}")
    return array.reshape(-1)


def as_labels(value: Any, part: str, number_kind: TaskKind) -> dict[TaskKind, NDArray[np.float64]]:
    """Return labels by task: several numbers per clip are emotions, one is ``number_kind``.

    Emotions ``[clips, emotions]`` are 0 or 1; ``[clips, emotions, 2]`` are one-hot pairs
    (no, yes). A pair that is not one-hot becomes NaN, which the checks report.
    """
    labels = np.asarray(value)
    if labels.ndim < 2 or labels.size == len(labels):
        return {number_kind: as_numbers(labels, part)}
    array = _float64(labels, part)
    if array.ndim == 2:
        return {"emotions": array}
    if array.ndim != 3 or array.shape[2] != 2:
        raise _no_numbers(part, f"shape {list(array.shape)}")
    one_hot = np.isin(array, (0.0, 1.0)).all(axis=2) & (array.sum(axis=2) == 1)
    return {"emotions": np.where(one_hot, array[:, :, 1], np.nan)}


def _float64(value: Any, part: str) -> NDArray[np.float64]:
    try:
        return np.asarray(value).astype(np.float64)
    except (TypeError, ValueError):
        raise _no_numbers(part, "no numbers") from None


def _no_numbers(part: str, shown: str) -> DatasetError:
    return DatasetError(f"{part} is {shown}.\n  Expected one number per clip.\n  {LAYOUTS}")


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
    try:
        # The unpickler reads text of Python 2 as latin-1; mostly it was UTF-8.
        return text if text.isascii() else text.encode("latin1").decode("utf-8")
    except UnicodeError:
        return text
