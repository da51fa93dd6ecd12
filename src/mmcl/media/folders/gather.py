"""Find what to extract: files, folders of files, and at most one folder with a ``label.csv``.

What lies in a folder and is not extracted is named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from mmcl.corpus.schema import Task
from mmcl.corpus.score_range import FIELD_RANGE
from mmcl.errors import MediaError
from mmcl.media.folders.items import Gathered, Item
from mmcl.media.folders.label_table import LABELS
from mmcl.media.folders.label_values import Kind
from mmcl.media.folders.labelled import read_labels
from mmcl.media.folders.leftovers import FolderFiles, LeftOut, legible, list_files, unused_files
from mmcl.media.folders.raw_files import MEDIA_ENDINGS, RAW
from mmcl.media.transcripts.reading import find_transcript, transcripts_beside

__all__ = ["gather"]

TABLE_ENDINGS = (".csv", ".tsv", ".txt", ".xlsx", ".xls", ".ods", ".parquet")


def gather(
    sources: Sequence[Path],
    *,
    kind: Kind = None,
    label_range: tuple[float, float] | None = None,
    language: str | None = None,
) -> Gathered:
    """Find what there is to extract.

    Args:
        sources: Media files, folders of them (and of folders), and at most one folder with a
            ``label.csv``.
        kind: What the labels are; None where nobody said it, which is regression.
        label_range: Lowest and highest score; -3..3 by default.
        language: Language of the speech, two letters; None where nobody said it. Transcripts of
            other languages are not used.

    Raises:
        MediaError: If a source does not exist or holds nothing, its ``label.csv`` cannot be
            read, more than one has a ``label.csv``, or it has another name or place.
    """
    labelled = [source for source in sources if (source / LABELS).is_file()]
    if len(labelled) > 1:
        raise MediaError(
            f'"{labelled[0].name}" and "{labelled[1].name}" both have a {LABELS}; '
            "a corpus has one.\n  Extract them one by one, or join the two."
        )
    if labelled:
        gathered = read_labels(labelled[0], kind=kind, label_range=label_range, language=language)
    else:
        note = f"no {LABELS}: the clips have no labels and are all in the test split"
        low, high = label_range or FIELD_RANGE
        gathered = Gathered([], [], Task(kind="regression", low=low, high=high), (note,))
    others = [source for source in sources if source not in labelled]
    return _with_unlabelled(gathered, others, language)


def _with_unlabelled(gathered: Gathered, sources: Sequence[Path], language: str | None) -> Gathered:
    """Add the media files of sources without ``label.csv``, each file once."""
    paths: list[Path] = []
    described: list[str] = []
    left_out: list[LeftOut] = []
    seen = {item.path.resolve() for item in gathered.items}
    again: list[str] = []
    for source in sources:
        media, unused = _media_files(source, language)
        name = legible(Path(source.resolve().name))
        described.append(f'{len(media)} media file{"s" * (len(media) != 1)} in "{name}"')
        left_out += unused
        for path in media:
            if path.resolve() in seen:
                again.append(legible(path))
            else:
                seen.add(path.resolve())
                paths.append(path)
    if again:
        left_out.append(LeftOut("files that are there a second time", tuple(again)))
    return gathered._replace(
        items=gathered.items + _unlabelled_items(paths, gathered.items),
        source=(*gathered.source, *described),
        left_out=(*gathered.left_out, *left_out),
    )


def _unlabelled_items(paths: Sequence[Path], labelled: Sequence[Item]) -> list[Item]:
    taken = Counter(path.stem for path in paths)
    taken.update({item.video_id for item in labelled})
    items = []
    for path in paths:
        video_id = path.stem if taken[path.stem] == 1 else path.as_posix()
        items.append(Item(path, legible(Path(path.name)), legible(Path(video_id))))
    return items


def _media_files(source: Path, language: str | None) -> tuple[list[Path], list[LeftOut]]:
    """Return the media files of a source without ``label.csv``, and what else is in it."""
    if not source.exists():
        raise MediaError(
            f'"{source}": no such file or folder.\n'
            "  Give a media file, a folder of them, or a folder with a label.csv."
        )
    if not source.is_dir():
        _check_is_no_table(source)
        beside = FolderFiles(transcripts_beside(source), [], [])
        used = {source, find_transcript(source, language) or source}
        return [source], list(unused_files(source.parent, beside, used, "media files"))
    found = list_files(source)
    paths = [path for path in found.files if path.suffix.lower() in MEDIA_ENDINGS]
    _check_no_other_table(source, found, paths)
    if not paths:
        raise MediaError(
            f'"{source}": neither a {LABELS} nor a media file in this folder.\n'
            f"  Looked for files that end in {', '.join(MEDIA_ENDINGS)}."
        )
    transcripts = {transcript for path in paths if (transcript := find_transcript(path, language))}
    return paths, list(unused_files(source, found, {*paths, *transcripts}, "media files"))


def _check_is_no_table(source: Path) -> None:
    if source.name.lower() == LABELS:
        raise MediaError(
            f'"{source}" is a table, not a media file.\n'
            f'  Give the folder that holds it and {RAW}: mmcl extract "{source.parent}"'
        )


def _check_no_other_table(source: Path, found: FolderFiles, media: Collection[Path]) -> None:
    """Raise a MediaError if the labels lie in a folder below, or under a near name."""
    stems = {path.with_suffix("") for path in media}
    for path in found.files:
        is_below = path.parent != source and (path.parent / RAW).is_dir()
        if path.name == LABELS and is_below:
            raise MediaError(
                f'"{source}" has no {LABELS}, but its folder "{path.parent.relative_to(source)}" '
                f"has one.\n"
                f'  With its labels: mmcl extract "{path.parent}". Without them: give the folder '
                f'"{path.parent / RAW}".'
            )
        is_near = path.stem.lower() in ("label", "labels") and path.suffix.lower() in TABLE_ENDINGS
        if path.parent == source and is_near and path.with_suffix("") not in stems:
            how = "rename it" if path.suffix.lower() in (".csv", ".tsv", ".txt") else "save it"
            raise MediaError(
                f'"{source}" has no {LABELS}, but "{path.name}".\n'
                f"  If that holds the labels, {how} as {LABELS}. "
                "If it does not, give it another name."
            )
