"""Text files of unknown encoding: read where the encoding is certain, refused where it is not."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path

from mmcl.errors import MMCLError

__all__ = ["decode_text", "read_text_file"]

_MARKS = (  # the longer mark first, since that of UTF-32 begins with that of UTF-16
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Encodings that are still met, by the names that iconv and Python share.
CANDIDATES = ("cp1252", "gb18030", "big5", "shift_jis", "euc_kr", "cp1251", "cp1250", "cp1256")
SHOWN = 60  # letters of a line in a message
FEWEST_NULS = 0.3  # share of zero bytes at every second place in UTF-16 of Latin letters


def read_text_file(path: Path, error: type[MMCLError]) -> str:
    """Read a text file with ``\\n`` at the end of its lines.

    Args:
        path: The file.
        error: Class of the error to raise.

    Raises:
        MMCLError: Of the class ``error``, if the file is missing, cannot be read, or its
            encoding is not certain.
    """
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

    Example:
        >>> decode_text("Grüße".encode("utf-16"), "talk.srt", MMCLError)
        'Grüße'
    """
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), None)
    try:
        text = content.decode(encoding or _unmarked_encoding(content))
    except UnicodeDecodeError as fault:
        raise error(_not_decoded(content, name, fault)) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _unmarked_encoding(content: bytes) -> str:
    """Return UTF-16 where every second byte is mostly zero, else UTF-8."""
    pairs = max(len(content) // 2, 1)
    if content[1::2].count(0) > FEWEST_NULS * pairs and content[::2].count(0) < pairs / 10:
        return "utf-16-le"
    if content[::2].count(0) > FEWEST_NULS * pairs and content[1::2].count(0) < pairs / 10:
        return "utf-16-be"
    return "utf-8"


def _not_decoded(content: bytes, name: str, fault: UnicodeDecodeError) -> str:
    if fault.encoding.lower().replace("-", "").startswith(("utf16", "utf32")):
        return (
            f'"{name}" begins as {fault.encoding.upper()} text and is cut short or damaged '
            f"(byte {fault.start}).\n  Expected text in UTF-8. Fetch or save the file again."
        )
    lines = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    line = next((n, line) for n, line in enumerate(lines, 1) if not line.isascii())
    readings = [f"    {encoding:<10} {text}" for encoding, text in _readings(line[1])]
    return "\n".join(
        [
            f'"{name}" is not UTF-8 text (byte {fault.start}), and its encoding is not known.',
            f"  Line {line[0]} in each encoding that is possible:",
            *readings,
            "  Take the one that reads right, and convert the file with it:",
            f'    iconv -f ENCODING -t utf8 "{name}" > "utf8-{name}"',
        ]
    )


def _readings(line: bytes) -> Iterator[tuple[str, str]]:
    for encoding in CANDIDATES:
        try:
            text = line.decode(encoding)
        except UnicodeDecodeError:
            continue
        if text.isprintable():
            yield encoding, text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
