"""Computational sequences of CMU-MultimodalSDK: several ``.csd`` files that are one corpus.

The labels file cuts the videos into segments, which become the clips. The other files hold the
steps of whole videos: word vectors and words (text), COVAREP or openSMILE (audio), FACET or
OpenFace (vision). With ``align`` ``word`` the steps of audio and vision are averaged over each
word; with ``none`` every modality keeps its own rate.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmcl.corpus.folds import find_folds, split_of
from mmcl.corpus.readers.csd_file import CsdFile, Frames, open_csd
from mmcl.corpus.readers.options import ReadOptions
from mmcl.corpus.readers.segments import SHORTEST, average_over, overlapping
from mmcl.corpus.readers.source_file import LAYOUTS, LeftOut, SourceFile, SourceSplit
from mmcl.corpus.schema import Word
from mmcl.errors import DatasetError
from mmcl.types import MODALITIES, SPLITS, Modality, SplitName

__all__ = ["CsdSource", "Role", "parse_source", "read_csd"]

Role = Literal["text", "audio", "vision", "words", "labels", "phones"]
"""Parts of a sequence of a csd file."""

# Parts of the names that the SDK and others gave to sequences, the more telling first.
_NAMES: Mapping[Role, tuple[str, ...]] = {
    "labels": ("label", "opinion"),
    "phones": ("phone",),
    "text": ("glove", "vector", "bert", "fasttext", "elmo", "text", "language"),
    "audio": ("covarep", "opensmile", "acoustic", "audio", "emobase", "egemaps", "mfcc"),
    "vision": ("facet", "openface", "visual", "vision", "video", "face"),
    "words": ("word", "transcript"),
}
SILENCES = frozenset(("sp", "sil", "<sp>", "<sil>"))  # "words" of the aligner's
EMOTIONS = ("happy", "sad", "anger", "surprise", "disgust", "fear")
SENTIMENT_AND_EMOTIONS = 1 + len(EMOTIONS)  # columns of MOSEI's labels


class CsdSource(NamedTuple):
    """A file to read, and what it holds where the user said so."""

    path: Path
    role: Role | None = None


def parse_source(text: str) -> CsdSource:
    """Split ``audio=FILE`` into role and file; a file may be named alone.

    Example:
        >>> parse_source("audio=mine.csd").role, parse_source("mine.csd").role
        ('audio', None)
    """
    name, equals, path = text.partition("=")
    role = next((role for role in _NAMES if role == name), None)
    if equals and role is not None and not Path(text).exists():
        return CsdSource(Path(path), role)
    return CsdSource(Path(text))


VIDEOS_LOOKED_AT = 10  # for the unit of their times
MUCH_LATER = 50  # times; a video is hardly so much longer than the part of it that has labels


@dataclass
class _Counts:
    """Counts of lost clips, words and values, for the account and the notes."""

    lost: Counter[str] = field(default_factory=Counter)  # clips, by why they are left out
    silences: int = 0
    words: int = 0
    empty: Counter[Modality] = field(default_factory=Counter)  # words without a step
    ignored: Counter[Modality] = field(default_factory=Counter)  # values, in averages


def read_csd(sources: Sequence[CsdSource], options: ReadOptions) -> SourceFile:
    """Read the files of one corpus.

    Args:
        sources: The files, in any order.
        options: Choices of the user; ``align`` and ``task`` are used.

    Raises:
        DatasetError: If it is not certain what a file holds, one that is needed is missing, or
            one is at fault.
    """
    if options.rename:
        raise DatasetError(
            "--rename has no use for .csd files.\n"
            "  Expected it for a pickle, npz file or table. To say what a .csd file holds: "
            "audio=FILE"
        )
    with ExitStack() as stack:
        files = _by_role([(s, stack.enter_context(open_csd(s.path))) for s in sources])
        labels = files["labels"]
        align = options.align or ("word" if files.keys() & {"text", "words"} else "none")
        if align == "word" and not files.keys() & {"text", "words"}:
            raise DatasetError(
                f"{labels.path}: --align word needs the times of words.\n"
                "  Expected a .csd file of words or of word vectors beside the others; or keep "
                "the rate of each modality: --align none"
            )
        videos = list(labels.videos)
        folds = find_folds(videos)
        clips = {name: _Clips({m: [] for m in MODALITIES if m in files}) for name in SPLITS}
        counts = _Counts()
        for video in videos:
            split = folds[1].get(video) if folds else split_of(video)
            _read_video(video, clips[split] if split else None, files, align, counts)
        has_words = "words" in files
        splits = [of_split.split(name, has_words) for name, of_split in clips.items()]
        source = SourceFile("csd", [split for split in splits if split.ids])
        source.aligned = align == "word"
        source.fields = tuple(f"{role}: {file.path.name}" for role, file in files.items())
        source.left_out = _left_out(files, counts, folds[0] if folds else "")
        source.notes = [*_split_notes(folds, source), *_notes(counts, align, options)]
        source.notes += _other_units(files)
        _choose_labels(source, labels.path, options)
        source.name = folds[0] if folds else labels.dataset
        return source


# ---------------------------------------------------------------- which file is which


def _by_role(opened: Sequence[tuple[CsdSource, CsdFile]]) -> dict[Role, CsdFile]:
    files: dict[Role, CsdFile] = {}
    for source, file in opened:
        role = _role(source, file)
        if role in files:
            raise DatasetError(
                f"{file.path}: a second file of {role}, beside {files[role].path}.\n"
                "  Expected one per modality. Leave one out, or say what they are: "
                f"text=FILE audio=FILE vision=FILE labels=FILE\n  {LAYOUTS}"
            )
        files[role] = file
    first = opened[0][1]
    if "labels" not in files:
        raise DatasetError(
            f"{first.path}: a .csd file of CMU-MultimodalSDK (HDF5), {first.name!r}; "
            "such a file is one part of a corpus, and the file of labels is missing.\n"
            "  Expected all files of the corpus at once; the labels say where the clips lie:\n"
            "  mmcl corpus convert text.csd audio.csd vision.csd labels.csd --out DST\n"
            f"  {LAYOUTS}"
        )
    if not files.keys() & set(MODALITIES):
        raise DatasetError(
            f"{first.path}: no features beside the labels.\n"
            "  Expected a .csd file of text, audio or vision:\n"
            "  mmcl corpus convert text.csd audio.csd vision.csd labels.csd --out DST\n"
            f"  {LAYOUTS}"
        )
    return files


def _role(source: CsdSource, file: CsdFile) -> Role:
    is_text = _holds_strings(file)
    if source.role is not None:
        return "words" if source.role == "text" and is_text else source.role
    for name in (file.name, file.path.stem):
        spelled = re.sub(r"[^a-z0-9]", "", name.lower())
        for role, parts in _NAMES.items():
            # Only words, phonemes and named classes are strings; only words may be told by that.
            if any(part in spelled for part in parts):
                return "words" if is_text and role not in ("labels", "phones") else role
    if is_text:
        return "words"
    raise DatasetError(
        f"{file.path}: it is not certain what this file holds; its name inside is {file.name!r}.\n"
        f"  Say it: text={file.path} (or audio=, vision=, labels=)\n  {LAYOUTS}"
    )


def _holds_strings(file: CsdFile) -> bool:
    for video in file.videos:
        features = file.read(video).features
        if features.size:
            return features.dtype.kind == "U"
    return False


@dataclass
class _Clips:
    """Clips of one split, as they are cut from the videos."""

    features: dict[Modality, list[NDArray[np.float32]]]
    labels: list[NDArray[Any]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    video_ids: list[str] = field(default_factory=list)
    clip_ids: list[str] = field(default_factory=list)
    texts: list[str | None] = field(default_factory=list)
    words: list[tuple[Word, ...]] = field(default_factory=list)

    def split(self, name: SplitName, has_words: bool) -> SourceSplit:
        """Return the clips as a split, whose labels are rows yet."""
        split = SourceSplit(name, dict(self.features), labels={"labels": np.array(self.labels)})
        split.ids, split.video_ids, split.clip_ids = self.ids, self.video_ids, self.clip_ids
        if has_words:
            split.texts, split.words = self.texts, self.words
        return split


# ---------------------------------------------------------------- one video


def _read_video(
    video: str,
    clips: _Clips | None,
    files: Mapping[Role, CsdFile],
    align: str,
    counts: _Counts,
) -> None:
    """Cut a video into its segments and add them to a split as clips."""
    segments = files["labels"].read(video)
    if clips is None:
        counts.lost["videos in no standard fold"] += len(segments.intervals)
        return
    steps: dict[Modality, Frames] = {m: _numeric(files[m], video) for m in MODALITIES if m in files}
    words = files["words"].read(video) if "words" in files else None
    spoken, steps = _spoken_steps(steps, words, counts)
    for row, (start, end) in enumerate(segments.intervals):
        clip_name = f"{video}[{segments.numbers[row]}]"
        if end - start <= SHORTEST:
            counts.lost["segments of no length"] += 1
            continue
        label = segments.features[row]
        if label.dtype.kind == "f" and np.isnan(label).any():
            counts.lost["segments with a label of NaN"] += 1
            continue
        inside = spoken.within(start, end)
        clip = _cut(steps, inside, (start, end), align, counts)
        if not any(len(array) for array in clip.values()):
            why = "segments without a word" if align == "word" else "segments without a step"
            counts.lost[why] += 1
            continue
        for modality, array in clip.items():
            clips.features[modality].append(array)
        clips.labels.append(label)
        clips.ids.append(clip_name)
        clips.video_ids.append(video)
        clips.clip_ids.append(str(segments.numbers[row]))
        if words is not None:
            clips.words.append(inside.words(start, end))
            clips.texts.append(" ".join(text for text in inside.texts if text) or None)


def _numeric(file: CsdFile, video: str) -> Frames:
    """Read the steps of a modality as float32.

    Raises:
        DatasetError: If they are strings.
    """
    frames = file.read(video)
    if frames.features.dtype.kind == "U":
        raise DatasetError(
            f'{file.path}, "{video}": the features are strings.\n'
            "  Expected numbers [steps, width]. For words give the file without a role: "
            f"{file.path}\n  {LAYOUTS}"
        )
    with np.errstate(over="ignore"):  # inf is counted later
        return frames._replace(features=frames.features.astype(np.float32, copy=False))


class _Spoken(NamedTuple):
    """Words, or steps of text, in their order: times ``[n, 2]`` and strings ``[n]``."""

    intervals: NDArray[np.float64]
    texts: tuple[str, ...]

    def within(self, start: float, end: float) -> _Spoken:
        """Return the words that overlap a stretch of time."""
        rows = overlapping(self.intervals, start, end)
        return _Spoken(self.intervals[rows], tuple(self.texts[row] for row in rows))

    def words(self, start: float, end: float) -> tuple[Word, ...]:
        """Return the words with their times from ``start`` on."""
        times = np.clip(self.intervals, start, end) - start
        return tuple(
            Word(text=text, start=float(times[row, 0]), end=float(times[row, 1]))
            for row, text in enumerate(self.texts)
        )


def _spoken_steps(
    steps: dict[Modality, Frames], words: Frames | None, counts: _Counts
) -> tuple[_Spoken, dict[Modality, Frames]]:
    """Return the words of a video without silences, and the steps with those of text to match.

    Where there are word vectors, they are the words: a vector has the string at its middle.
    """
    text = steps.get("text")
    reference = words if text is None else text
    if reference is None:
        return _Spoken(np.zeros((0, 2)), ()), steps
    texts = _texts_at(reference.intervals, words)
    kept = np.array([text.lower() not in SILENCES for text in texts], dtype=bool)
    counts.silences += int((~kept).sum())
    if text is not None:
        steps = steps | {"text": Frames(*(part[kept] for part in text))}
    return _Spoken(reference.intervals[kept], tuple(np.array(texts, dtype=object)[kept])), steps


def _texts_at(intervals: NDArray[np.float64], words: Frames | None) -> list[str]:
    """Return the word that is spoken in the middle of each interval, or ""."""
    if words is None or not len(words.intervals):
        return [""] * len(intervals)
    middles = intervals.mean(axis=1)
    rows = np.searchsorted(words.intervals[:, 0], middles, side="right") - 1
    is_inside = (rows >= 0) & (middles <= words.intervals[rows, 1])
    return [
        str(words.features[row, 0]).strip() if inside else ""
        for row, inside in zip(rows.tolist(), is_inside.tolist(), strict=True)
    ]


def _cut(
    steps: Mapping[Modality, Frames],
    spoken: _Spoken,
    segment: tuple[float, float],
    align: str,
    counts: _Counts,
) -> dict[Modality, NDArray[np.float32]]:
    """Return the steps of one segment; of audio and vision averages over words, if aligned."""
    clip: dict[Modality, NDArray[np.float32]] = {}
    counts.words += len(spoken.texts)
    for modality, frames in steps.items():
        if align == "none" or modality == "text":
            clip[modality] = frames.features[overlapping(frames.intervals, *segment)]
            continue
        if not len(spoken.texts):
            clip[modality] = frames.features[:0]
            continue
        # A word at an end of the segment keeps the steps that lie outside.
        near = overlapping(frames.intervals, *_span(spoken.intervals))
        averages = average_over(spoken.intervals, frames.intervals[near], frames.features[near])
        clip[modality] = averages.features
        counts.empty[modality] += averages.num_empty
        counts.ignored[modality] += averages.num_ignored
    return clip


def _span(intervals: NDArray[np.float64]) -> tuple[float, float]:
    return float(intervals[:, 0].min()), float(intervals[:, 1].max())


# ---------------------------------------------------------------- labels


def _choose_labels(source: SourceFile, path: Path, options: ReadOptions) -> None:
    """Turn the rows of labels into fields: sentiment, or MOSEI's six emotions if asked for."""
    for split in source.splits:
        rows = split.labels["labels"]
        if rows.shape[1:] == (1,):
            name = "labels" if rows.dtype.kind == "U" else "regression_labels"
            split.labels = {name: rows[:, 0]}
        elif rows.shape[1:] == (SENTIMENT_AND_EMOTIONS,) and options.task == "emotions":
            present = np.where(np.isfinite(rows[:, 1:]), rows[:, 1:] > 0, np.nan)
            split.labels, source.names = {"labels": present}, EMOTIONS
        elif rows.shape[1:] == (SENTIMENT_AND_EMOTIONS,):
            split.labels = {"regression_labels": rows[:, 0].astype(np.float64)}
        else:
            raise DatasetError(
                f"{path}: the labels are {rows.shape[1]} wide.\n"
                "  Expected one column, or seven as in CMU-MOSEI (sentiment and six emotions). "
                f"Write the column that you want into a file of its own.\n  {LAYOUTS}"
            )
    if source.splits and rows.shape[1] == SENTIMENT_AND_EMOTIONS:
        names = ", ".join(EMOTIONS)
        source.notes.append(
            f"emotions ({names}): taken as there where above 0"
            if options.task == "emotions"
            else f"the labels hold sentiment, which is taken, and {names}: --task emotions"
        )


# ---------------------------------------------------------------- account and notes


def _left_out(files: Mapping[Role, CsdFile], counts: _Counts, corpus: str) -> list[LeftOut]:
    parts = [
        LeftOut(
            f"{clips} clip{'s' * (clips != 1)}: {why}{f' of {corpus}' * ('fold' in why)}", clips
        )
        for why, clips in counts.lost.items()
    ]
    labelled = files["labels"].videos.keys()
    for role, file in files.items():
        count = len(file.videos.keys() - labelled)
        if role == "phones":
            parts.append(LeftOut(f"{file.path.name}, since phonemes are not read"))
        elif count:
            what = f"{count} video{'s' * (count != 1)} of {file.path.name} without labels"
            parts.append(LeftOut(what))
    if counts.silences:
        parts.append(LeftOut(f'{counts.silences} silences ("sp") among the words'))
    return parts


def _other_units(files: Mapping[Role, CsdFile]) -> Iterator[str]:
    """Ask about files whose times are much later, or earlier, than those of the labels."""
    for role, file in files.items():
        videos = [video for video in files["labels"].videos if video in file.videos]
        ends = [
            [files[r].read(v).intervals.max(initial=0.0) for r in ("labels", role)]
            for v in videos[:VIDEOS_LOOKED_AT]
        ]
        labels_end, end = np.median(ends, axis=0) if ends else (0.0, 0.0)
        if end > MUCH_LATER * labels_end or labels_end > MUCH_LATER * end:
            yield (
                f"{file.path.name}: its times end at {end:g} and those of the labels at "
                f"{labels_end:g}; expected seconds in both. Are these milliseconds, or steps?"
            )


def _split_notes(folds: tuple[str, dict[str, SplitName]] | None, source: SourceFile) -> list[str]:
    sizes = "/".join(
        str(sum(len(s.ids or ()) for s in source.splits if s.name == name)) for name in SPLITS
    )
    if folds:
        return [f"splits: the standard folds of {folds[0]}, {sizes} clips"]
    return [
        "splits: the videos are not those of MOSI or MOSEI, so whole videos went to train, valid "
        f"and test by a hash of their names, {sizes} clips"
    ]


def _notes(counts: _Counts, align: str, options: ReadOptions) -> list[str]:
    notes = []
    if options.align is None:
        way = "averaged over each word" if align == "word" else "kept at their own rate"
        other = "none" if align == "word" else "word"
        notes.append(f"align: audio and vision are {way}; the other way: --align {other}")
    for modality in MODALITIES:
        if counts.empty[modality]:
            notes.append(
                f"{modality}: {counts.empty[modality]} of {counts.words} words have no step of it "
                "and are zero there"
            )
        if counts.ignored[modality]:
            notes.append(
                f"{modality}: {counts.ignored[modality]} values were not finite and were left out "
                "of the averages of their words"
            )
    return notes
