"""The content of a foreign file under our names, unchecked: what every reader returns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmcl.corpus.schema import Word
from mmcl.errors import DatasetError
from mmcl.types import MODALITIES, SPLITS, Modality, SplitName

__all__ = ["LAYOUTS", "SPLIT_NAMES", "LeftOut", "Sequences", "SourceFile", "SourceSplit"]
__all__ += [
    "as_features",
    "as_label_array",
    "as_numbers",
    "as_texts",
    "free_splits",
    "is_unlabelled",
    "named_splits",
    "split_of",
    "text_of",
]

Sequences = NDArray[np.float32] | list[NDArray[np.float32]]
"""Features of one modality: one array ``[clips, steps, d_m]``, or one ``[n, d_m]`` per clip."""

_CONTAINERS = (Mapping, list, tuple, set, frozenset, np.ndarray)
LAYOUTS = "The layouts that can be read: mmcl corpus convert --help"
"""Last line of an error about a file whose layout is not known."""
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
    # By field, as found: numbers or strings [clips], or numbers [clips, k] or [clips, k, 2].
    labels: dict[str, NDArray[Any]] = field(default_factory=dict)
    unlabelled: dict[str, NDArray[np.bool_]] = field(default_factory=dict)  # by field, [clips]
    lengths: dict[Modality, NDArray[np.int64]] = field(default_factory=dict)  # [clips]
    step_masks: dict[Modality, NDArray[np.bool_]] = field(default_factory=dict)  # [clips, steps]
    present: dict[Modality, NDArray[np.bool_]] = field(default_factory=dict)  # [clips]
    modality_labels: dict[Modality, NDArray[np.float64]] = field(default_factory=dict)  # [clips]
    ids: list[str] | None = None
    video_ids: list[str] | None = None  # the recording of every clip
    clip_ids: list[str] | None = None  # names of the clips inside their recording
    texts: list[str | None] | None = None
    speakers: list[str | None] | None = None
    words: list[tuple[Word, ...]] | None = None

    def sizes(self) -> dict[str, int]:
        """Return how many clips each part lists, modalities first."""
        parts: dict[str, Any] = {m: self.features[m] for m in MODALITIES if m in self.features}
        parts |= {f"{m} lengths": lengths for m, lengths in self.lengths.items()}
        parts |= {f"{m} masks": masks for m, masks in self.step_masks.items()}
        parts |= {f"{m} presence": present for m, present in self.present.items()}
        parts |= self.labels
        parts |= {f"{m} labels": labels for m, labels in self.modality_labels.items()}
        parts |= {"ids": self.ids, "video_id": self.video_ids, "clip_id": self.clip_ids}
        parts |= {"texts": self.texts, "speaker": self.speakers, "words": self.words}
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


class LeftOut(NamedTuple):
    """A part of a foreign file that is not read."""

    what: str  # names the part and says why, a phrase
    clips: int = 0  # clips that are lost with it
    fix: str = ""  # what to do if it should be read, a sentence


@dataclass
class SourceFile:
    """A foreign file as its reader understood it."""

    layout: str  # mmsa, mult, magbert, plain, npz, table, csd or arrays
    splits: list[SourceSplit]  # in the order train, valid, test
    names: tuple[str, ...] = ()  # of classes or emotions, in label order
    split_keys: dict[SplitName, str] = field(default_factory=dict)  # the file's own names
    fields: tuple[str, ...] = ()  # that are read, by the file's own names
    left_out: list[LeftOut] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what a user should know of the reading
    aligned: bool | None = None  # None: to be found out
    name: str = ""  # of the corpus, where the files themselves tell it


def named_splits(content: Mapping[Any, Any]) -> dict[SplitName, str]:
    """Return the file's own name of every split it has, in our order."""
    keys: dict[SplitName, str] = {}
    for key in content:
        name = split_of(key)
        if name is None:
            continue
        if name in keys:
            own, free = text_of(key), next(free_splits(content), None)
            other = f', or say what it is: --rename "{own}={free}"' if free else ""
            raise DatasetError(
                f'the "{name}" split is there twice, as "{text_of(keys[name])}" and "{own}".\n'
                f'  Expected one of them. Leave one out: --rename "{own}="{other}\n  {LAYOUTS}'
            )
        keys[name] = key
    return {name: keys[name] for name in SPLITS if name in keys}


def split_of(key: Any) -> SplitName | None:
    """Return our name of a split, or None if a name means none: ``Dev`` is ``valid``."""
    return SPLIT_NAMES.get(text_of(key).strip().lower())


def free_splits(names: Iterable[Any]) -> Iterator[SplitName]:
    """Yield the splits that no name means: parts of other names may be these."""
    taken = {split_of(name) for name in names}
    yield from (name for name in SPLITS if name not in taken)


def as_features(value: Any, part: str) -> Sequences:
    """Turn the features of a modality into float32 sequences.

    They may be an array ``[clips, steps, d]``, an array ``[clips, d]`` (sequences of length
    one), or a list with an array ``[n, d]`` or ``[d]`` per clip, or None where a clip has none.
    Further axes of length one are dropped. ``part`` names the features in an error.

    Raises:
        DatasetError: If they are none of these.
    """
    if isinstance(value, np.ndarray) and value.dtype != object:
        array = _without_single_axes(_float32(value, part), 3, first=1)
        if array.ndim not in (2, 3):
            raise _no_features(part, value)
        return array if array.ndim == 3 else array[:, np.newaxis, :]
    try:
        arrays = [_steps_of_clip(item) for item in value]
    # RuntimeError: of torch, and of memoryviews.
    except (TypeError, ValueError, OverflowError, RuntimeError):
        raise _no_features(part, value) from None
    sequences = []
    for array in arrays:
        steps = _without_single_axes(_float32(array, part), 2, first=0)
        sequences.append(steps[np.newaxis] if steps.ndim == 1 else steps)
        if sequences[-1].ndim != 2:
            raise _no_features(part, array)
    return sequences


def _steps_of_clip(item: Any) -> NDArray[Any]:
    """Return the features of a clip as an array; None is no steps."""
    return np.zeros((0, 0), np.float32) if item is None else np.asarray(item)


def _without_single_axes(
    array: NDArray[np.float32], ndim: int, *, first: int
) -> NDArray[np.float32]:
    """Drop axes of length one, but not the last, until ``ndim`` are left: [1, n, d] is [n, d]."""
    while array.ndim > ndim and 1 in array.shape[first:-1]:
        array = array.squeeze(first + array.shape[first:-1].index(1))
    return array


def _float32(array: NDArray[Any], part: str) -> NDArray[np.float32]:
    if array.dtype.kind not in "fiub":
        raise _no_features(part, array)
    with np.errstate(over="ignore"):  # too large a value becomes inf, which is counted later
        return array.astype(np.float32, copy=False)


def _no_features(part: str, value: Any) -> DatasetError:
    if isinstance(value, np.ndarray) and value.dtype.kind in "SU" and value.size:
        return _text_as_features(part, text_of(value.reshape(-1)[0].item()))
    is_array = isinstance(value, np.ndarray)
    shown = f"shape {list(value.shape)}, {value.dtype}" if is_array else type(value).__name__
    return DatasetError(
        f"{part} is {shown}, which cannot be read as features.\n"
        "  Expected numbers of shape [clips, steps, width] or [clips, width], "
        f"or a list of arrays [steps, width].\n  {LAYOUTS}"
    )


def _text_as_features(part: str, shown: str) -> DatasetError:
    field = part.rpartition(": ")[2]
    return DatasetError(
        f'{part} holds strings, such as "{shown[:40]}", where numbers are expected.\n'
        "  Expected numbers of shape [clips, steps, width] or [clips, width].\n"
        f'  If it is what is said: --rename "{field}=raw_text"; '
        f'to leave it out: --rename "{field}="\n  {LAYOUTS}'
    )


def as_numbers(value: Any, part: str) -> NDArray[np.float64]:
    """Return one number per clip from ``[clips]``, ``[clips, 1]``, ``[clips, 1, 1]`` or a list."""
    array = _float64(value, part)
    if array.ndim == 0 or array.size != len(array):
        raise _no_numbers(part, f"shape {list(array.shape)}")
    return array.reshape(-1)


def as_label_array(value: Any, part: str) -> NDArray[Any]:
    """Return labels as found: an array ``[clips, ...]`` of float64, int64 or strings.

    Axes of length one are dropped, but for the first. None becomes NaN or "".

    Raises:
        DatasetError: If they are neither numbers nor strings, or not one of a kind per clip.
    """
    if isinstance(value, Mapping):
        raise _no_numbers(part, f"a dict with {', '.join(map(str, list(value)[:5]))}")
    if isinstance(value, str | bytes):
        raise _no_numbers(part, "a single value")
    items = value.tolist() if isinstance(value, np.ndarray) and value.dtype == object else value
    try:
        if not isinstance(items, np.ndarray):
            items = [np.nan if item is None else item for item in items]
    except TypeError:
        raise _no_numbers(part, "a single value") from None
    try:
        labels = np.asarray(items)
    except ValueError:  # rows of different lengths
        raise _no_numbers(part, "of a different number of values per clip") from None
    except OverflowError:
        raise _no_numbers(part, "larger than any number of this machine") from None
    if labels.ndim == 0:
        raise _no_numbers(part, "a single value")
    if labels.dtype.kind in "SU":
        texts = [text_of(item).strip() for item in labels.reshape(-1).tolist()]
        # An unknown one among strings has become the string "nan".
        known = np.array(["" if text == "nan" else text for text in texts], dtype=str)
        labels = _numbers_in_texts(known.reshape(labels.shape))
    elif labels.dtype.kind not in "biuf":
        raise _no_numbers(part, f"of type {labels.dtype}")
    if labels.dtype.kind != "U":
        labels = labels.astype(np.float64 if labels.dtype.kind == "f" else np.int64)
    return labels.reshape(len(labels), *(size for size in labels.shape[1:] if size != 1))


def is_unlabelled(value: Any) -> NDArray[np.bool_]:
    """Tell which labels are None or empty strings, ``[clips]``. NaN is a fault of its maker."""
    items = value.tolist() if isinstance(value, np.ndarray) else list(value)
    return np.array(
        [item is None or (isinstance(item, str | bytes) and not item.strip()) for item in items],
        dtype=bool,
    )


def _numbers_in_texts(labels: NDArray[Any]) -> NDArray[Any]:
    """Return numbers where every known label is one, else the texts."""
    try:
        return np.where(labels == "", "nan", labels).astype(np.float64)
    except ValueError:
        return labels


def _float64(value: Any, part: str) -> NDArray[np.float64]:
    try:
        return np.asarray(value).astype(np.float64)
    except (TypeError, ValueError, OverflowError):
        raise _no_numbers(part, "no numbers") from None


def _no_numbers(part: str, shown: str) -> DatasetError:
    return DatasetError(f"{part} is {shown}.\n  Expected one number per clip.\n  {LAYOUTS}")


def as_texts(value: Any, part: str) -> list[str]:
    """Return strings from a list or array of strings, bytes or numbers; None and NaN are empty.

    Axes of length one are dropped. ``part`` names the value in an error.

    Raises:
        DatasetError: If it is not one string, or what can become one, for every clip.
    """
    if isinstance(value, np.ndarray) and value.ndim and value.size == len(value):
        value = value.reshape(-1).tolist()
    if not isinstance(value, list | tuple):
        raise _no_texts(part, value)
    wrong = [item for item in value if isinstance(item, _CONTAINERS)]
    if wrong:
        raise _no_texts(part, wrong[0], "a list that holds ")
    return [text_of(item) for item in value]


def _no_texts(part: str, value: Any, where: str = "") -> DatasetError:
    is_array = isinstance(value, np.ndarray)
    shown = f"an array of shape {list(value.shape)}" if is_array else f"one {type(value).__name__}"
    return DatasetError(
        f"{part} is {where}{shown}.\n  Expected a list of strings, one for each.\n  {LAYOUTS}"
    )


def text_of(item: Any) -> str:
    """Return a value as a string: bytes decoded, None and NaN as an empty string.

    What is no text, a broken byte or half of a character, becomes a replacement character.
    """
    if item is None or (isinstance(item, float | np.floating) and np.isnan(item)):
        return ""
    if isinstance(item, bytes):
        return item.decode("utf-8", errors="replace")
    text = str(item)
    if not text.isascii():
        # UTF-8 cannot hold halves of characters (surrogates); a pair becomes its character.
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    try:
        # The unpickler reads text of Python 2 as latin-1; mostly it was UTF-8.
        return text if text.isascii() else text.encode("latin1").decode("utf-8")
    except UnicodeError:
        return text
