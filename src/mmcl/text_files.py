"""Text files of unknown encoding: read where the encoding is certain, refused where it is not."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path

from mmcl.errors import MMCLError
from mmcl.limits import check_regular

__all__ = ["decode_text", "read_text_file"]

_MARKS = (  # the longer mark first, since that of UTF-32 begins with that of UTF-16
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Encodings that are still met, by names that iconv and Python share.
CANDIDATES = (
    *("cp1252", "gb18030", "big5", "shift_jis", "euc-kr"),
    *("cp1251", "koi8-r", "cp1250", "cp1253", "cp1256", "macintosh"),
)
SHOWN = 60  # letters of a line in a message
FEWEST_NULS = 0.3  # share of letters with a zero byte in UTF-16 that could also be UTF-8


def read_text_file(path: Path, error: type[MMCLError]) -> str:
    """Read a text file with ``\\n`` at the end of its lines.

    Args:
        path: The file.
        error: Class of the error to raise.

    Raises:
        MMCLError: Of the class ``error``, if the file is missing, cannot be read, is no text,
            or its encoding is not certain.
    """
    check_regular(path, error)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise error(f'"{path.name}": no such file in "{path.parent}".') from None
    except OSError as fault:
        raise error(f'"{path.name}" cannot be read: {fault.strerror}.') from None
    return decode_text(content, path.name, error)


def decode_text(content: bytes, name: str, error: type[MMCLError]) -> str:
    """Decode UTF-8, or UTF-16 and UTF-32 that say what they are; refuse everything else.

    An encoding of one byte per letter decodes any file, mostly wrongly, so none is guessed: the
    error shows how the first line that is not ASCII reads in each encoding that is possible.

    Raises:
        MMCLError: Of the class ``error``, if the content is no text or its encoding is not
            certain.

    Example:
        >>> decode_text("Grüße".encode("utf-16"), "talk.srt", MMCLError)
        'Grüße'
    """
    marked = next((encoding for mark, encoding in _MARKS if content.startswith(mark)), None)
    try:
        text = content.decode(marked or _unmarked_encoding(content))
    except UnicodeDecodeError as fault:
        raise error(_not_decoded(content, name, fault, marked)) from None
    if "\0" in text:
        raise error(_no_text(name))
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _unmarked_encoding(content: bytes) -> str:
    """Return UTF-16 where the zero bytes of its ASCII letters show it, else UTF-8."""
    even, odd = content[::2].count(0), content[1::2].count(0)
    for encoding, of_letters, others in (("utf-16-le", odd, even), ("utf-16-be", even, odd)):
        if of_letters and not others and _reads_as(content, encoding):
            # A stray zero byte does not make UTF-16 of text that reads as UTF-8.
            is_frequent = of_letters > FEWEST_NULS * len(content) / 2
            if is_frequent or not _reads_as(content.replace(b"\0", b""), "utf-8"):
                return encoding
    return "utf-8"


def _reads_as(content: bytes, encoding: str) -> bool:
    """Return whether the content is letters, signs and spaces in an encoding."""
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        return False
    return all(letter.isprintable() or letter.isspace() for letter in text)


def _not_decoded(content: bytes, name: str, fault: UnicodeDecodeError, marked: str | None) -> str:
    if marked is not None:
        return (
            f'"{name}" begins as {marked.removesuffix("-sig").upper()} text and is cut short or '
            f"damaged (byte {fault.start}).\n  Fetch or save the file again, as UTF-8."
        )
    if b"\0" in content:
        return _no_text(name)
    lines = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    index = next(index for index, line in enumerate(lines) if not line.isascii())
    readings = list(_readings(content, index))
    if not readings:
        return _no_text(name)
    width = max(len(encodings) for encodings, _ in readings)
    return "\n".join(
        [
            f'"{name}" is not UTF-8 text (byte {fault.start}), and its encoding is not known.',
            f"  Line {index + 1} in each encoding that is possible:",
            *(f"    {encodings:<{width}} {line}" for encodings, line in readings),
            "  Take the one that reads right, and convert the file with it:",
            f'    iconv -f ENCODING -t utf8 "{name}" > "utf8-{name}"',
        ]
    )


def _no_text(name: str) -> str:
    return (
        f'"{name}" is no text file: no usual encoding decodes it.\n'
        "  Expected text in UTF-8. Look at what it is: file "
        f'"{name}"'
    )


def _readings(content: bytes, index: int) -> Iterator[tuple[str, str]]:
    """Yield a line in every encoding that decodes the whole file.

    Encodings that give the same text are named together.
    """
    text_to_encodings: dict[str, list[str]] = {}
    for encoding in CANDIDATES:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        text_to_encodings.setdefault(text, []).append(encoding)
    for text, encodings in text_to_encodings.items():
        line = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")[index]
        if line.replace("\t", " ").isprintable():
            shown = line if len(line) <= SHOWN else f"{line[:SHOWN]}..."
            yield ", ".join(encodings), shown.replace("\t", " ")
