"""Recordings that are none any more: cut, flipped, mislabelled, swollen; the same at every call."""

import gzip
import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from random import Random
from typing import Any

__all__ = ["is_harmless", "malformed"]

_HEADS = {
    "png": b"\x89PNG\r\n\x1a\n",
    "riff": b"RIFF\xff\xff\xff\xffWAVEfmt ",
    "avi": b"RIFF\xff\xff\xff\xffAVI LIST",
    "ogg": b"OggS\x00\x02",
    "id3": b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f",
    "ebml": b"\x1a\x45\xdf\xa3\x01\xff\xff\xff\xff\xff\xff\xff",
    "ftyp": b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2",
    "flac": b"fLaC\x00\x00\x00\x22",
    "mpeg": b"\x00\x00\x01\xba",
    "elf": b"\x7fELF\x02\x01\x01",
    "pdf": b"%PDF-1.7\n",
    "mp3": b"\xff\xfb\x90\x00",
}
_TEXTS = (
    b"#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
    b"ffconcat version 1.0\nfile /etc/passwd\n",
    b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\nm=audio 5004 RTP/AVP 0\r\n",
    b'<?xml version="1.0"?><MPD><Period><BaseURL>file:///etc/passwd</BaseURL></Period></MPD>',
    b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    b"1\n00:00:00,000 --> 00:00:01,000\nhello\n",
    b"these are words\n" * 50,
    b"\x00" * 10_000,
    b"",
    b"\n",
)


def malformed(whole: bytes, count: int, *, seed: int = 1) -> Iterator[tuple[str, bytes]]:
    """Make files out of one that is whole: what was done, and the bytes.

    Args:
        whole: A small mp4.
        count: How many.
        seed: Draws where they are cut and flipped.
    """
    random = Random(seed)
    makers = (_cut, _flipped, _flipped_head, _mislabelled, _absurd, _bomb, _text, _noise)
    for at in range(count):
        maker = makers[at % len(makers)]
        yield f"{maker.__name__[1:]}-{at}", maker(whole, at // len(makers), random)


def is_harmless(content: bytes, whole: bytes) -> bool:
    """True if FFmpeg decodes as much of it as of the whole, and says no word, not even in warning.

    A bit turned over in a picture may make another picture; nobody can tell.
    """
    return _decoded(content) == _decoded(whole)


def _decoded(content: bytes) -> tuple[dict[int, int], list[Any]]:
    """Frames of each stream, and what was said of them."""
    import av

    before = av.logging.get_level(), av.logging.get_skip_repeated()
    av.logging.set_level(av.logging.WARNING)
    av.logging.set_skip_repeated(False)
    frames: dict[int, int] = {}
    try:
        with (
            av.logging.Capture(local=False) as said,
            suppress(av.error.FFmpegError),
            av.open(io.BytesIO(content)) as container,
        ):
            media = [s for s in container.streams if s.type in ("audio", "video")]
            for stream in media:
                stream.thread_type = "NONE"  # a thread that says something may wait for ever
            for packet in container.demux(media) if media else ():
                with suppress(EOFError):  # nothing is left in the decoder
                    at = packet.stream.index
                    frames[at] = frames.get(at, 0) + len(packet.decode())
    finally:
        av.logging.set_level(before[0])
        av.logging.set_skip_repeated(before[1])
    return frames, said


def _cut(whole: bytes, at: int, random: Random) -> bytes:
    """Its end is missing; every other one has lost its beginning too."""
    end = random.randrange(1, len(whole) - 1)
    return whole[random.randrange(end) if at % 2 else 0 : end]


def _flipped(whole: bytes, at: int, random: Random) -> bytes:
    """Bits turned over anywhere, more and more of them."""
    return _flip(whole, random, 0, len(whole), 2 ** (at % 14))


def _flipped_head(whole: bytes, at: int, random: Random) -> bytes:
    """Bits turned over in the index, which says where everything lies."""
    begin = whole.index(b"moov")
    return _flip(whole, random, begin, len(whole), 1 + 3 * at)


def _flip(whole: bytes, random: Random, begin: int, end: int, count: int) -> bytes:
    content = bytearray(whole)
    for _ in range(count):
        content[random.randrange(begin, end)] ^= 1 << random.randrange(8)
    return bytes(content)


def _mislabelled(whole: bytes, at: int, random: Random) -> bytes:
    """The head of one kind of file before something else."""
    head = list(_HEADS.values())[at % len(_HEADS)]
    return head + (random.randbytes(5000) if at % 2 else whole[64:])


def _absurd(whole: bytes, at: int, random: Random) -> bytes:
    """Pictures as large as they can be called, in a picture or in the recording itself."""
    side = (65_535, 30_000, 2**31 - 1)[at % 3]
    if at % 2:
        return _png(side)
    content = bytearray(whole)
    place = content.find(b"avc1", content.index(b"stsd"))
    content[place + 28 : place + 32] = struct.pack(">HH", *2 * (min(side, 65_535),))
    return bytes(content)


def _png(side: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\x00" * 2**20)
    return _HEADS["png"] + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def _bomb(whole: bytes, at: int, random: Random) -> bytes:
    """Much in little: a zip of zeros, a zip in a zip, gzip, or one hidden in a recording."""
    zeros = b"\x00" * (8 + at) * 2**20
    packed = gzip.compress(zeros) if at % 4 == 2 else _zip(zeros)
    if at % 4 == 1:
        return _zip(packed)
    return whole[:32] + packed if at % 4 == 3 else packed


def _zip(content: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("recording.mp4", content)
    return packed.getvalue()


def _text(whole: bytes, at: int, random: Random) -> bytes:
    return _TEXTS[at % len(_TEXTS)]


def _noise(whole: bytes, at: int, random: Random) -> bytes:
    return random.randbytes(random.randrange(1, 20_000))
