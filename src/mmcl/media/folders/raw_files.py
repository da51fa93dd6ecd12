"""Find the file of a row of ``label.csv`` in the folder ``Raw``, or say which one is near.

Spreadsheets change ids that look like numbers or dates: 0001 becomes 1, 1-2 becomes 02-Jan.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

from mmcl.errors import MediaError
from mmcl.media.transcripts.reading import TRANSCRIPT_ENDINGS

__all__ = ["MEDIA_ENDINGS", "RAW", "Found", "RawFiles"]

RAW = "Raw"
"""Name of the folder that holds the recordings."""
MEDIA_ENDINGS = (
    *(".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".mpg", ".mpeg", ".flv", ".wmv"),
    *(".3gp", ".ts", ".mts", ".m2ts", ".vob", ".ogv"),
    *(".wav", ".mp3", ".m4a", ".flac", ".ogg", ".opus", ".aac"),
    *(".wma", ".aif", ".aiff", ".caf", ".amr", ".mka", ".weba"),
)
"""Endings by which media files are found, the preferred first."""

ALIKE = 0.8  # similarity of a name that is offered in place of another
MOST_SOUGHT = 50  # missing files for which a near one is sought, since that takes its time
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH_NUMBERS = {
    **{name: number for number, name in enumerate(_MONTHS, start=1)},
    "mär": 3,
    "mrz": 3,
    "mai": 5,
    "okt": 10,
    "dez": 12,
}


class Found(NamedTuple):
    """The file of a row.

    Attributes:
        path: Where it is, or where it was expected.
        fault: Why there is none, with the nearest one; None if there is.
    """

    path: Path
    fault: str | None = None


class RawFiles:
    """The files below ``Raw``, each folder of which is listed only once.

    Args:
        folder: The folder that holds ``Raw``.
        named: Video and clip of every row, whose files are not offered for other rows.

    Raises:
        MediaError: If there is no folder ``Raw``.
    """

    def __init__(self, folder: Path, named: Collection[tuple[str, str]] = ()) -> None:
        self.raw = folder / RAW
        self.named = {(_composed(video), _composed(clip)) for video, clip in named}
        self._listed: dict[Path, dict[str, dict[str, Path]]] = {}
        self._sought = 0
        if not self.raw.is_dir():
            folders = sorted(path.name for path in folder.iterdir() if path.is_dir())
            alike = [name for name in folders if name.lower() == RAW.lower()]
            near = f'; did you mean "{alike[0]}"?' if alike else ""
            raise MediaError(
                f'"{folder}" has a label.csv, but no folder "{RAW}"{near or "."}\n'
                f"  Found the folders: {', '.join(folders) or 'none'}.\n"
                f"  Expected the files as {RAW}/VIDEO_ID/CLIP_ID{MEDIA_ENDINGS[0]}."
            )

    def find(self, video_id: str, clip_id: str) -> Found:
        """Return the file of a clip; the preferred ending wins where it has several."""
        folder = self._folder(video_id)
        if folder is None:
            return self._no_folder(video_id, clip_id)
        endings = self._files(folder).get(_composed(clip_id), {})
        for ending in MEDIA_ENDINGS:
            if ending in endings:
                return Found(endings[ending])
        wanted = folder / f"{clip_id}{MEDIA_ENDINGS[0]}"
        fault = f'no file "{RAW}/{video_id}/{wanted.name}"'
        others = (path for end, path in endings.items() if end not in TRANSCRIPT_ENDINGS)
        for path in others:
            near = f'but "{path.name}", whose ending is of no video or sound'
            return Found(wanted, f"{fault}, {near}")
        return Found(wanted, f"{fault}, {self._near_file(folder, video_id, clip_id)}")

    def _folder(self, video_id: str) -> Path | None:
        """Return the folder of a video, whose accents may be written in either Unicode form."""
        forms = (video_id, _composed(video_id), normalize("NFD", video_id))
        return next((self.raw / form for form in forms if (self.raw / form).is_dir()), None)

    def _files(self, folder: Path) -> dict[str, dict[str, Path]]:
        """Return the files of a folder by their stem and their ending in small letters."""
        if folder not in self._listed:
            files: dict[str, dict[str, Path]] = {}
            # Of 1.mp4 and 1.MP4 the first wins: it comes last in this order.
            for path in sorted(folder.iterdir()):
                if not path.is_dir():
                    files.setdefault(_composed(path.stem), {})[path.suffix.lower()] = path
            self._listed[folder] = files
        return self._listed[folder]

    def _no_folder(self, video_id: str, clip_id: str) -> Found:
        wanted = self.raw / video_id / f"{clip_id}{MEDIA_ENDINGS[0]}"
        parent = wanted.parent.parent
        folders = sorted(p.name for p in parent.iterdir() if p.is_dir()) if parent.is_dir() else []
        named = {video for video, _ in self.named}
        free = [name for name in folders if name not in named]
        if flat := self._flat_file(video_id, clip_id):
            advice = f'move it to "{RAW}/{video_id}/{clip_id}{flat.suffix}"'
            return Found(
                wanted, f'no folder "{RAW}/{video_id}", but "{flat.name}" is there: {advice}'
            )
        near = self._nearest(wanted.parent.name, {name: name for name in folders}, free)
        return Found(wanted, f'no folder "{RAW}/{video_id}"{f", {near}" if near else ""}')

    def _flat_file(self, video_id: str, clip_id: str) -> Path | None:
        """Return a file of the clip that lies in ``Raw`` itself, under the usual names."""
        stems = (f"{video_id}_{clip_id}", f"{video_id}-{clip_id}", f"dia{video_id}_utt{clip_id}")
        for stem in map(_composed, stems):
            for ending, path in self._files(self.raw).get(stem, {}).items():
                if ending in MEDIA_ENDINGS:
                    return path
        return None

    def _near_file(self, folder: Path, video_id: str, clip_id: str) -> str:
        stem_to_name = {
            stem: min(endings.items(), key=lambda item: MEDIA_ENDINGS.index(item[0]))[1].name
            for stem, all_endings in self._files(folder).items()
            if (endings := {end: p for end, p in all_endings.items() if end in MEDIA_ENDINGS})
        }
        if clip_id in stem_to_name.values():
            return f'but "{clip_id}" is there (write the clip_id without the ending)'
        free = [stem for stem in stem_to_name if (_composed(video_id), stem) not in self.named]
        near = self._nearest(clip_id, stem_to_name, free)
        return near or "nor one with another ending"

    def _nearest(self, written: str, id_to_name: Mapping[str, str], free: Sequence[str]) -> str:
        """Return a phrase that suggests the nearest name, or an empty string if none is near.

        Args:
            written: The id in the table.
            id_to_name: Names of what is there by their ids.
            free: The ids that no row names.
        """
        self._sought += 1
        if self._sought > MOST_SOUGHT:
            return ""
        for actual, name in id_to_name.items():
            if reason := _changed_id(written, actual):
                return f'but "{name}" is there ({reason})'
        # One digit more or less is another clip, so numbers are not compared by their looks.
        near = [] if written.isdigit() else get_close_matches(written, free, n=1, cutoff=ALIKE)
        return f'but "{id_to_name[near[0]]}" is there; did you mean that?' if near else ""


def _composed(name: str) -> str:
    """Return a name with accents as one letter each; macOS stores them as two."""
    return normalize("NFC", name)


def _changed_id(written: str, actual: str) -> str:
    """Return how a spreadsheet changed an id; an empty string if it did not."""
    if written.isdigit() and actual.isdigit() and int(written) == int(actual):
        return "Excel drops leading zeros: write the id as text"
    if _is_same_number(written, actual) or _is_same_date(written, actual):
        return "a spreadsheet changes such ids: write the id as text"
    return "upper and lower case differ" if written.casefold() == actual.casefold() else ""


def _is_same_number(written: str, actual: str) -> bool:
    """Tell whether a spreadsheet writes an id so: ``3.0``, ``1E+05``, ``1.23457E+11``."""
    match = re.fullmatch(r"\d+(?:[.,](\d+))?([eE]\+?\d+)?", written)
    if not match or not actual.isdigit():
        return False
    number = float(written.replace(",", "."))
    if match[2]:
        digits = len(match[1] or "")
        return f"{float(actual):.{digits}e}" == f"{number:.{digits}e}"
    return number == float(actual)


def _is_same_date(written: str, actual: str) -> bool:
    """Tell whether a spreadsheet makes a date of an id: ``02-Jan`` or ``2024-01-02`` of ``1-2``."""
    parts = re.findall(r"\d+|[^\W\d_]+", written.lower())
    dates = [int(part) if part.isdigit() else _MONTH_NUMBERS.get(part[:3], -1) for part in parts]
    pieces = re.split(r"[-/._ ]", actual)
    if len(dates) < 2 or -1 in dates or not all(piece.isdigit() for piece in pieces):
        return False
    numbers = sorted(int(piece) for piece in pieces)
    without_year = [number for number in dates if number <= 31]
    return len(numbers) > 1 and numbers in (sorted(dates), sorted(without_year))
