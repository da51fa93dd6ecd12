"""The type of a file, by its first bytes, and advice for types that cannot be read.

The name of a file is never believed: a page of a download service is often saved as ``.pkl``.
"""

from __future__ import annotations

import gzip
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Literal

from mmcl.corpus.readers.source_file import LAYOUTS
from mmcl.errors import DatasetError, did_you_mean

__all__ = ["READABLE", "ReadableType", "csd_files", "file_type"]

READABLE = "a pickle (plain or gzip'd), an npz file, a table (csv, Parquet, Arrow) or .csd files"
"""List of the files that can be read, for error messages."""

ReadableType = Literal["pickle", "npz", "text table", "parquet", "arrow", "hdf5"]
"""Types that have a reader. Content that is not recognised is left to the reader of pickles."""

HEAD = 4096  # bytes that are looked at
ZIP_MAGICS = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
TAR_MAGIC_AT = 257
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
HDF5_STARTS = (0, 512, 1024, 2048)  # a header of the owner's may come first
SHOWN = 3  # names of entries of an archive, or letters x 20 of a text
OF_INTEREST = (".pkl", ".pickle", ".npz", ".csv", ".tsv", ".parquet", ".csd", ".arrow", ".mp4")
TORCH_OLD = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the magic number, as a pickle
TORCH_ADVICE = (
    "Nothing of it was run. Load it where it was made, by "
    'torch.load("{path}", weights_only=True), and save its arrays as npz.'
)
MEDIA_ADVICE = "Make a corpus of recordings: mmcl extract {path} --out mine.arrow"
NPZ_ADVICE = "save its arrays as npz with the names of their splits and fields"

_READABLE: tuple[tuple[bytes, ReadableType], ...] = (
    (b"PAR1", "parquet"),
    (b"ARROW1", "arrow"),
    (b"FEA1", "arrow"),
    (b"\xff\xff\xff\xff", "arrow"),  # a stream
)
# First bytes, what the file is, and what to do with it.
_BY_MAGIC: tuple[tuple[bytes, str, str], ...] = (
    (
        b"\x93NUMPY",
        "a single array (npy)",
        "A corpus has several arrays: save them in one file with "
        'np.savez("mine.npz", **{"train/text": ..., "train/labels": ..., "test/text": ...}).',
    ),
    (TORCH_OLD, "a torch file of the old form", TORCH_ADVICE),
    (
        b"version https://git-lfs",
        "a Git LFS pointer, not the file itself",
        "Fetch the file in the repository: git lfs install && git lfs pull",
    ),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "Unpack it first: 7z x {path}"),
    (b"Rar!\x1a\x07", "a rar archive", "Unpack it first: unrar x {path}"),
    (b"\xfd7zXZ\x00", "compressed by xz", "Decompress it first: xz -dk {path}"),
    (b"BZh", "compressed by bzip2", "Decompress it first: bzip2 -dk {path}"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd", "Decompress it first: zstd -dk {path}"),
    (b"\x04\x22\x4d\x18", "compressed by lz4", "Decompress it first: lz4 -dk {path}"),
    (
        b"MATLAB 5.0 MAT-file",
        "a MATLAB file (version 5)",
        f"Open it with scipy.io.loadmat and {NPZ_ADVICE}.",
    ),
    (
        b"MATLAB 7.3 MAT-file",
        "a MATLAB file (version 7.3)",
        f"Open it with h5py (the axes are reversed) and {NPZ_ADVICE}.",
    ),
    (
        b"SQLite format 3\x00",
        "an SQLite database",
        "Save its table as csv or Parquet, with the columns of docs/data.md.",
    ),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office file", "Save the table as csv (UTF-8)."),
    (b"%PDF", "a PDF document", "Fetch the data that it is about."),
    (b"\x89PNG", "a picture (PNG)", "A corpus is made of clips, not of pictures."),
    (b"\xff\xd8\xff", "a picture (JPEG)", "A corpus is made of clips, not of pictures."),
    (b"PARE", "an encrypted Parquet file", "Save it without encryption."),
    (b"ORC", "an ORC file", "Save it as Parquet, with the columns of docs/data.md."),
    (b"\x1a\x45\xdf\xa3", "a video (Matroska or WebM)", MEDIA_ADVICE),
    (b"OggS", "a recording (Ogg)", MEDIA_ADVICE),
    (b"fLaC", "a recording (FLAC)", MEDIA_ADVICE),
    (b"ID3", "a recording (MP3)", MEDIA_ADVICE),
    (b"\xff\xfb", "a recording (MP3)", MEDIA_ADVICE),
    (b"FLV\x01", "a video (FLV)", MEDIA_ADVICE),
    (b"\x00\x00\x01\xba", "a video (MPEG)", MEDIA_ADVICE),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "a video (WMV)", MEDIA_ADVICE),
)
# Pickles of protocols 0 and 1, which have no mark of their own: a container, or a named function.
_OLD_PICKLE = re.compile(
    rb"\([dli]p|[\]})]q|\(\(|\([\]}]q|c(?:\w+\.[\w.]+|copy_reg|__builtin__|builtins|collections)\n\w+\n"
)
_HTML = re.compile(rb"<!doctype html|<html|<head\b|<body\b", re.IGNORECASE)
_LETTERS = frozenset(range(32, 256)) | {9, 10, 12, 13}


def file_type(path: Path) -> ReadableType:
    """Return the type of a file that can be read.

    Raises:
        DatasetError: If the file is of a type that is not read. The message names the type and
            what to do.
    """
    with path.open("rb") as file:
        head = file.read(HEAD)
    if head.startswith(b"\x1f\x8b"):
        return _inside_gzip(path)
    return "hdf5" if _is_hdf5(head) else _type_of_head(path, head)


def _is_hdf5(head: bytes) -> bool:
    is_matlab = head.startswith(b"MATLAB")
    return not is_matlab and any(head[start:].startswith(HDF5_MAGIC) for start in HDF5_STARTS)


def csd_files(folder: Path) -> list[Path]:
    """Return the HDF5 files in a folder, sorted by name.

    Raises:
        DatasetError: If there are none. The message says what the folder is and what to do.
    """
    found = []
    for path in sorted(entry for entry in folder.iterdir() if entry.is_file()):
        with path.open("rb") as file:
            if _is_hdf5(file.read(HEAD)):
                found.append(path)
    if not found:
        raise _folder_error(folder)
    return found


def _type_of_head(path: Path, head: bytes) -> ReadableType:
    for magic, readable in _READABLE:
        if head.startswith(magic):
            return readable
    for magic, what, advice in _BY_MAGIC:
        # The names of the columns of a table may begin with the same letters.
        if head.startswith(magic) and not (magic.isalnum() and _is_text(head)):
            raise _refusal(path, what, advice)
    if head.startswith(ZIP_MAGICS):
        return _inside_zip(path, head)
    if head[TAR_MAGIC_AT:].startswith(b"ustar"):
        raise _refusal(
            path, f"a tar archive{_listed(_tar_names(path))}", f"{_UNPACK}: tar xf {path}"
        )
    if head[4:8] == b"ftyp":
        raise _refusal(path, "a video or recording (MP4)", MEDIA_ADVICE)
    if head.startswith(b"RIFF") and head[8:12] in (b"WAVE", b"AVI "):
        raise _refusal(path, f"a recording ({head[8:12].decode().strip()})", MEDIA_ADVICE)
    if head[8:10] == b'{"':
        raise _refusal(path, "a safetensors file", f"Load it and {NPZ_ADVICE}.")
    if head.startswith(b"\x80") or _OLD_PICKLE.match(head):
        return "pickle"
    return _type_of_text(path, head) if _is_text(head) else "pickle"


_UNPACK = "Unpack it first, then convert the file in it"


def _type_of_text(path: Path, head: bytes) -> ReadableType:
    """Return "text table", or refuse other text by what it is."""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(b"<") and _HTML.search(start):
        title = re.search(rb"<title>([^<]{1,80})", start, re.IGNORECASE)
        name = f' "{title[1].decode("utf-8", "replace").strip()}"' if title else ""
        raise _refusal(
            path,
            f"a web page{name}, not the file",
            "The download stopped at a question or a login. Open the link in a browser, or for "
            "Google Drive: pip install gdown && gdown --fuzzy LINK",
        )
    if start.startswith(b"<"):
        raise _refusal(
            path, "XML, often the error of a server", f"It begins: {_shown(start)}. Fetch it again."
        )
    if start.startswith((b"{", b"[")):
        advice = f"It begins: {_shown(start)}. If it is the data: {NPZ_ADVICE}, or save it as csv."
        raise _refusal(path, "JSON", advice)
    if start.startswith((b"outs:\n- md5", b"outs:\r\n- md5")):
        raise _refusal(path, "a DVC pointer, not the file itself", "Fetch the file: dvc pull")
    if b"/annex/objects/" in start[:300]:
        raise _refusal(
            path, "a git-annex pointer, not the file itself", "Fetch the file: git annex get {path}"
        )
    if start.startswith(b"WEBVTT") or re.match(rb"\d+\r?\n\d\d:\d\d:\d\d[,.]\d", start):
        raise _refusal(
            path,
            "subtitles",
            "Subtitles are read beside their recording, of the same name: mmcl extract FOLDER",
        )
    first_line = head.replace(b"\x00", b"").strip().splitlines()[0]
    is_column_of_text = first_line.strip(b'\r" ').lower() in (b"text", b"raw_text")
    has_columns = any(mark in first_line for mark in (b",", b";", b"\t", b"|"))
    if not has_columns and not is_column_of_text:
        raise _refusal(
            path,
            "a text, not a table",
            f"It begins: {_shown(start)}. If it is the answer of a server, fetch the file again.",
        )
    return "text table"


def _inside_gzip(path: Path) -> ReadableType:
    """Return "pickle" for a gzip'd pickle or a damaged gzip file; refuse other content."""
    try:
        with gzip.open(path) as file:
            head = file.read(HEAD)
    except (OSError, EOFError, zlib.error):
        return "pickle"  # its reader says how the gzip stream is damaged
    if head[TAR_MAGIC_AT:].startswith(b"ustar"):
        what = f"a tar archive, compressed by gzip{_listed(_tar_names(path))}"
        raise _refusal(path, what, f"{_UNPACK}: tar xzf {path}")
    if head.startswith(b"\x80") or _OLD_PICKLE.match(head) or not head:
        if head.startswith(TORCH_OLD):
            raise _refusal(path, "a torch file of the old form, gzip'd", TORCH_ADVICE)
        return "pickle"
    if head.startswith((b"PAR1", b"ARROW1", b"\x89HDF", b"PK", b"\x93NUMPY")) or _is_text(head):
        raise _refusal(
            path,
            "compressed by gzip, and no pickle",
            f"Only pickles are read compressed. Decompress it first: gunzip -k {path}",
        )
    return "pickle"


def _inside_zip(path: Path, head: bytes) -> ReadableType:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        first = head[30 : 30 + int.from_bytes(head[26:28], "little")]
        if first.endswith(b".npy"):
            return "npz"  # its reader says how it is damaged
        raise _refusal(
            path, "a zip archive that is cut short or damaged", f"Fetch it again; unzip -t {path}"
        ) from None
    files = [name for name in names if not name.endswith("/")]
    if files and all(name.endswith(".npy") for name in files):
        return "npz"
    if any(name.rpartition("/")[2] == "data.pkl" for name in names):
        raise _refusal(path, "a torch file", TORCH_ADVICE)
    if "[Content_Types].xml" in names:
        is_excel = any(name.startswith("xl/") for name in names)
        what = "an Excel file" if is_excel else "an Office document"
        raise _refusal(
            path, what, "Save the table as csv (UTF-8), with the columns of docs/data.md."
        )
    if not names:
        raise _refusal(path, "an archive or npz file with nothing in it", "Write it again.")
    raise _refusal(path, f"a zip archive{_listed(names)}", f"{_UNPACK}: unzip {path}")


def _folder_error(path: Path) -> DatasetError:
    """Return the error for a folder that is no corpus: what it is, and the command for it."""
    names = sorted(entry.name for entry in path.iterdir())
    if "run.json" in names:
        what, advice = "a folder of a run", f"What it can be used for: mmcl evaluate {path}"
    elif "label.csv" in names:
        what = "a folder of recordings with label.csv"
        advice = f"Make a corpus of them: mmcl extract {path} --out {path.name or 'mine'}.arrow"
    else:
        what, wanted = "a folder", [name for name in names if name.lower().endswith(OF_INTEREST)]
        near = did_you_mean(path.name, wanted) if wanted else ""
        example = path / (wanted[0] if wanted else "FILE")
        advice = f"Name a file in it{near.replace('; did', ', did') or f': {example}'}"
    return _refusal(path, what, advice)


def _tar_names(path: Path) -> list[str]:
    """Return the names of some entries; reading all of a large archive would take minutes."""
    try:
        with tarfile.open(path, "r|*") as archive:
            return [member.name for member in islice(archive, 100) if member.isfile()]
    except (OSError, EOFError, tarfile.TarError, zlib.error):
        return []


def _listed(names: Iterable[str]) -> str:
    """Name some entries of an archive, those that may hold a corpus first."""
    wanted = sorted(
        (name for name in names if not name.endswith("/")),
        key=lambda name: (not name.lower().endswith(OF_INTEREST), name),
    )
    if not wanted:
        return ""
    more = ", ..." if len(wanted) > SHOWN else ""
    return f" with {', '.join(wanted[:SHOWN])}{more}"


def _is_text(head: bytes) -> bool:
    """Tell whether bytes are text, also of two bytes per letter (every second one is 0)."""
    letters = head.replace(b"\x00", b"")
    return bool(letters.strip()) and all(byte in _LETTERS for byte in letters)


def _shown(start: bytes) -> str:
    line = start.splitlines()[0].decode("utf-8", "replace")
    return f'"{line[:60]}..."' if len(line) > 60 else f'"{line}"'


def _refusal(path: Path, what: str, advice: str) -> DatasetError:
    return DatasetError(
        f"{path}: {what}.\n"
        f"  Expected {READABLE}.\n  {advice.replace('{path}', str(path))}\n  {LAYOUTS}"
    )
