"""Whether a recording is whole.

Everywhere else broken packets are passed over, and what is left of a recording is read. Whoever
answers strangers had better say that something is missing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mmcl.errors import MediaError
from mmcl.extras import load
from mmcl.media.decode import main_stream, open_media, origin_of, starts_at_zero

if TYPE_CHECKING:
    from av.container import InputContainer

__all__ = ["check_whole"]

MISSING = 0.25
"""Seconds by which a stream may end before the file says that it does."""

_KINDS: tuple[Literal["audio", "video"], ...] = ("video", "audio")
_CALLED = {"audio": "sound", "video": "pictures"}


def check_whole(path: Path) -> None:
    """Decode all of a recording, and refuse it at the first thing amiss.

    What a decoder takes for whole is whole here, too: a bit turned over may change a picture and
    leave no other trace. A broadcast may begin in the middle of a picture.

    Args:
        path: A media file.

    Raises:
        MediaError: As :func:`mmcl.media.decode.probe`, or if something cannot be decoded, the
            file ends before it should, or contradicts itself.
    """
    found = next(_faults(path), None)
    if found is not None:
        raise MediaError(
            f'"{path.name}" is damaged: {found}.\n'
            "  Copy, download or record it again, or keep what is left of it: "
            f'ffmpeg -i "{path.name}" kept.mp4'
        )


def _faults(path: Path) -> Iterator[str]:
    with _told_by_ffmpeg() as told:
        container = open_media(path)
    with container:
        yield from _cut_off(path)
        decoders = {s.codec_context.name for s in container.streams if s.codec_context}
        for message in told:
            if message[1] not in decoders:  # what these cannot do is seen below
                yield f"FFmpeg says of it, {message[2].strip()}"
        yield from _without_decoder(container)
        yield from _while_decoding(container)


@contextmanager
def _told_by_ffmpeg() -> Iterator[list[tuple[int, str, str]]]:
    """What FFmpeg calls an error, in this thread: its level, who says it, and what.

    For opening only: a decoder's thread that has something to say while its container is closed
    waits for Python, which waits for it.
    """
    logging = load("av", "reading video and sound").logging
    before = logging.get_level(), logging.get_skip_repeated()
    told: list[tuple[int, str, str]] = []
    logging.set_level(logging.ERROR)
    logging.set_skip_repeated(False)
    try:
        with logging.Capture() as captured:
            yield told
        told += captured
    finally:
        logging.set_level(before[0])
        logging.set_skip_repeated(before[1])


def _cut_off(path: Path) -> Iterator[str]:
    """Boxes of an mp4 that claim more bytes than there are."""
    size, at = path.stat().st_size, 0
    with path.open("rb") as file:
        if file.read(8)[4:] != b"ftyp":
            return
        while at + 8 <= size:
            file.seek(at)
            length, kind, longer = struct.unpack(">I4sQ", file.read(16).ljust(16, b"\0"))
            if length == 0:  # to the end of the file
                return
            length = longer if length == 1 else length
            if at + length > size or length < 8:
                yield f'its part "{kind.decode("ascii", "replace")}" is cut short'
                return
            at += length


def _without_decoder(container: InputContainer) -> Iterator[str]:
    kinds = {stream.type for stream in container.streams}
    for kind in _KINDS:
        lost = kind in kinds and main_stream(container, kind) is None
        if lost and not any(_is_cover(s) for s in container.streams if s.type == kind):
            yield f"nothing says how its {_CALLED[kind]} can be decoded"


def _is_cover(stream: Any) -> bool:
    av = load("av", "reading video and sound")
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _while_decoding(container: InputContainer) -> Iterator[str]:
    av = load("av", "reading video and sound")
    found = (main_stream(container, kind) for kind in _KINDS)
    lines = {s.index: _Line(container, s) for s in found if s is not None}
    if not lines:
        yield "nothing in it can be decoded"
        return
    for line in lines.values():
        line.stream.thread_type = "AUTO"
    packets = container.demux([line.stream for line in lines.values()])
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError as fault:
            yield f"it cannot be read to its end ({fault.strerror})"
            return
        if packet is None:
            break
        yield from lines[packet.stream.index].decode(packet)
    for line in lines.values():
        yield from line.ended()
    if starts_at_zero(container) and len(lines) == len(container.streams):
        last = max(line.last for line in lines.values())
        length = (container.duration or 0) / 1_000_000
        if 0 < last < length - MISSING:
            yield f"it ends at {last:.2f} s of {length:.2f} s"


class _Line:
    """One stream, decoded from its beginning to its end."""

    def __init__(self, container: InputContainer, stream: Any) -> None:
        self.stream, self.called = stream, _CALLED[stream.type]
        self.origin = origin_of(container)
        self.is_whole = starts_at_zero(container)  # a broadcast is a piece of something
        self.first: float | None = None
        self.last = 0.0

    def decode(self, packet: Any) -> Iterator[str]:
        """Decode a packet, the empty one at the end included."""
        av = load("av", "reading video and sound")
        if packet.is_corrupt:
            yield from self._broken(packet, "is incomplete")
        try:
            frames = packet.decode()
        except EOFError:
            return
        except av.error.FFmpegError:
            yield from self._broken(packet, "cannot be decoded")
            return
        for frame in frames:
            if frame.is_corrupt:
                yield from self._broken(packet, "cannot be decoded in full")
            else:
                self._note(frame)

    def _broken(self, packet: Any, how: str) -> Iterator[str]:
        if self.is_whole or self.first is not None:
            place = None if packet.pts is None else float(packet.pts * packet.time_base)
            at = "" if place is None else f" at {max(place - self.origin, 0.0):.2f} s"
            yield f"a packet of its {self.called} {how}{at}"

    def _note(self, frame: Any) -> None:
        if frame.pts is None:
            self.first = 0.0 if self.first is None else self.first
            return
        time = float(frame.pts * frame.time_base)
        self.first = time if self.first is None else self.first
        self.last = max(self.last, time + float((frame.duration or 0) * frame.time_base))

    def ended(self) -> Iterator[str]:
        """Nothing may be missing where the file says how long the stream is."""
        if self.first is None:
            yield f"nothing of its {self.called} can be decoded"
        elif self.is_whole and self.stream.duration is not None and self.last:
            length = float(self.stream.duration * self.stream.time_base)
            if self.last - self.first < length - MISSING:
                found = self.last - self.first
                yield f"there are {found:.2f} s of its {self.called} in place of {length:.2f} s"
