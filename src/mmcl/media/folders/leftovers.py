"""Files of a source that do not become clips: their kinds, and the reasons."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from mmcl.media.folders.raw_files import MEDIA_ENDINGS
from mmcl.media.transcripts.languages import language_in
from mmcl.media.transcripts.reading import TRANSCRIPT_ENDINGS

__all__ = ["ERRORS", "LISTED", "FolderFiles", "LeftOut", "legible", "list_files"]
__all__ += ["unused_files"]

ERRORS = "errors.csv"
"""Name of the table of everything that failed, beside the corpus."""
LISTED = 3
"""Names of each kind that are shown."""


class LeftOut(NamedTuple):
    """Things of one kind that are not used.

    Attributes:
        kind: What they are and why they are left out, in the plural.
        names: Each of them.
    """

    kind: str
    names: tuple[str, ...]

    def phrase(self) -> str:
        """Return the kind with a count and the first names.

        Example:
            >>> LeftOut("hidden files", (".a", ".b", ".c", ".d")).phrase()
            'hidden files: 4 (.a, .b, .c and 1 more, all in errors.csv)'
        """
        names = ", ".join(self.names[:LISTED])
        more = len(self.names) - LISTED
        rest = f" and {more} more, all in {ERRORS}" if more > 0 else ""
        return f"{self.kind}: {len(self.names)} ({names}{rest})"


class FolderFiles(NamedTuple):
    """Files and folders below a folder, linked ones too, in the order of the paths.

    Attributes:
        files: The files that are not hidden.
        hidden: Files and folders whose names begin with a dot; such folders are not searched.
        unreadable: Folders that may not be listed.
    """

    files: list[Path]
    hidden: list[Path]
    unreadable: list[Path]


def list_files(folder: Path) -> FolderFiles:
    """List a folder and its folders; each is listed once, even if links make a circle."""
    files: list[Path] = []
    hidden: list[Path] = []
    unreadable: list[Path] = []
    seen: set[Path] = set()

    def note_unreadable(fault: OSError) -> None:
        unreadable.append(Path(fault.filename))

    for place, folders, names in os.walk(folder, onerror=note_unreadable, followlinks=True):
        real = Path(place).resolve()
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        hidden += [Path(place, name) for name in (*folders, *names) if name.startswith(".")]
        files += [Path(place, name) for name in names if not name.startswith(".")]
        folders[:] = sorted(name for name in folders if not name.startswith("."))
    return FolderFiles(sorted(files), sorted(hidden), sorted(unreadable))


def unused_files(
    folder: Path, found: FolderFiles, used: Collection[Path], unnamed: str
) -> Iterator[LeftOut]:
    """Yield the files of a folder that are not used, by kind.

    Args:
        folder: Names are shown as they are below it.
        found: What it holds.
        used: Media files, transcripts and tables that are used.
        unnamed: The kind of media files that are not used.
    """
    rest = [path for path in found.files if path not in used and path.name != ERRORS]
    media = [path for path in rest if path.suffix.lower() in MEDIA_ENDINGS]
    texts = [path for path in rest if path.suffix.lower() in TRANSCRIPT_ENDINGS]
    stems = {path.with_suffix("") for path in used if path.suffix.lower() in MEDIA_ENDINGS}
    doubles = [path for path in media if path.with_suffix("") in stems]
    alone = [path for path in media if path.with_suffix("") not in stems]
    beside = [path for path in texts if path.with_suffix("") in stems]
    of_languages = [path for path in texts if language_in(path) and _without_tag(path) in stems]
    lonely = [path for path in texts if path not in {*beside, *of_languages}]
    known = {*media, *texts}
    others = [path for path in rest if path not in known]
    kinds: Sequence[tuple[str, Sequence[Path]]] = (
        (unnamed, alone),
        ("media files in whose place one with another ending is used", doubles),
        ("transcripts in whose place another text is used", beside),
        ("transcripts of a language that is not used (choose by --language)", of_languages),
        ("text files that are the transcript of no file that is used", lonely),
        ("files whose ending is of no video or sound", others),
        ("hidden files and folders", found.hidden),
        ("folders that may not be read", found.unreadable),
    )
    for kind, paths in kinds:
        if paths:
            yield LeftOut(kind, tuple(legible(path.relative_to(folder)) for path in paths))


def _without_tag(path: Path) -> Path:
    return path.with_suffix("").with_suffix("")


def legible(path: Path) -> str:
    """Return a path as text that can be stored, even if it is not UTF-8 on disk."""
    return path.as_posix().encode("utf-8", "backslashreplace").decode("utf-8")
