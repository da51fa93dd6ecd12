"""Check that a recording is complete.

Extraction skips broken packets and reads what is left of a recording. A service that answers
strangers should rather say that something is missing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mmcl.errors import MediaError
from mmcl.extras import load
from mmcl.media.containers.decode import main_stream, open_media, origin_of, starts_at_zero

if TYPE_CHECKING:
    from av.container import InputContainer

__all__ = ["check_whole"]

MISSING = 0.25  # seconds by which a stream may end before the file says that it does
_KINDS: dict[Literal["audio", "video"], str] = {"video": "pictures", "audio": "sound"}


def check_whole(path: Path) -> None:
    """Decode all of a recording and refuse it at the first fault.

    Only faults that a decoder reports are found: a flipped bit may change a picture and leave
    no other trace. A broadcast may begin in the middle of a picture.

    Raises:
        MediaError: As :func:`mmcl.media.containers.decode.probe`, or if something cannot be
            decoded, the file ends before it should, or contradicts itself.
    """
    fault = next(_faults(path), None)
    if fault is not None:
        raise MediaError(
            f'"{path.name}" is damaged: {fault}.\n'
            "  Copy, download or record it again, or keep what is left of it: "
            f'ffmpeg -i "{path.name}" kept.mp4'
        )


def _faults(path: Path) -> Iterator[str]:
    with _ffmpeg_errors() as errors:
        container = open_media(path)
    with container:
        yield from _truncated_boxes(path)
        decoders = {s.codec_context.name for s in container.streams if s.codec_context}
        for _, source, message in errors:
            if source not in decoders:  # decoders' faults are found by decoding, below
                yield f"FFmpeg says of it, {message.strip()}"
        yield from _undecodable_streams(container)
        yield from _decoding_faults(container)


@contextmanager
def _ffmpeg_errors() -> Iterator[list[tuple[int, str, str]]]:
    """Collect FFmpeg's errors as level, source and message, when the block ends.

    For opening only. Closing a container waits for its decoder threads, and a thread with a
    message to log waits for Python: the two would wait for each other.
    """
    logging = load("av", "reading video and sound").logging
    level, skips_repeated = logging.get_level(), logging.get_skip_repeated()
    errors: list[tuple[int, str, str]] = []
    logging.set_level(logging.ERROR)
    logging.set_skip_repeated(False)
    try:
        with logging.Capture() as captured:
            yield errors
        errors += captured
    finally:
        logging.set_level(level)
        logging.set_skip_repeated(skips_repeated)


def _truncated_boxes(path: Path) -> Iterator[str]:
    """Find a box (part) of an mp4 that claims more bytes than the file has."""
    size, place = path.stat().st_size, 0
    with path.open("rb") as file:
        if file.read(8)[4:] != b"ftyp":
            return
        while place + 8 <= size:
            file.seek(place)
            length, kind, long_length = struct.unpack(">I4sQ", file.read(16).ljust(16, b"\0"))
            if length == 0:  # to the end of the file
                return
            length = long_length if length == 1 else length
            if place + length > size or length < 8:
                yield f'its part "{kind.decode("ascii", "replace")}" is cut short'
                return
            place += length


def _undecodable_streams(container: InputContainer) -> Iterator[str]:
    cover = load("av", "reading video and sound").stream.Disposition.attached_pic
    for kind, kind_name in _KINDS.items():
        streams = [stream for stream in container.streams if stream.type == kind]
        is_lost = streams and main_stream(container, kind) is None
        if is_lost and not any(stream.disposition & cover for stream in streams):
            yield f"nothing says how its {kind_name} can be decoded"


def _decoding_faults(container: InputContainer) -> Iterator[str]:
    av = load("av", "reading video and sound")
    streams = [stream for kind in _KINDS if (stream := main_stream(container, kind))]
    checks = {stream.index: _StreamCheck(container, stream) for stream in streams}
    if not checks:
        yield "nothing in it can be decoded"
        return
    packets = container.demux(streams)
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError as fault:
            yield f"it cannot be read to its end ({fault.strerror})"
            return
        if packet is None:
            break
        yield from checks[packet.stream.index].decode(packet)
    for check in checks.values():
        yield from check.missing_end()
    # The container's length is only comparable if every stream was decoded.
    if starts_at_zero(container) and len(checks) == len(container.streams):
        last = max(check.last for check in checks.values())
        length = (container.duration or 0) / 1_000_000
        if 0 < last < length - MISSING:
            yield f"it ends at {last:.2f} s of {length:.2f} s"


class _StreamCheck:
    """Check of one stream while it is decoded from its beginning to its end."""

    def __init__(self, container: InputContainer, stream: Any) -> None:
        self.stream, self.kind_name = stream, _KINDS[stream.type]
        self.origin = origin_of(container)
        self.is_broadcast = not starts_at_zero(container)
        self.first: float | None = None  # time of the first good frame, in seconds
        self.last = 0.0  # end of the last one
        stream.thread_type = "AUTO"

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
                continue
            time = None if frame.pts is None else float(frame.pts * frame.time_base)
            if self.first is None:
                self.first = time or 0.0
            if time is not None:
                self.last = max(self.last, time + float((frame.duration or 0) * frame.time_base))

    def _broken(self, packet: Any, fault: str) -> Iterator[str]:
        # A broadcast may begin with packets whose beginning was not recorded.
        if self.is_broadcast and self.first is None:
            return
        place = None if packet.pts is None else float(packet.pts * packet.time_base)
        where = "" if place is None else f" at {max(place - self.origin, 0.0):.2f} s"
        yield f"a packet of its {self.kind_name} {fault}{where}"

    def missing_end(self) -> Iterator[str]:
        """Compare what was decoded with the length that the file states for the stream."""
        if self.first is None:
            yield f"nothing of its {self.kind_name} can be decoded"
        elif not self.is_broadcast and self.stream.duration is not None and self.last:
            length = float(self.stream.duration * self.stream.time_base)
            seconds = self.last - self.first
            if seconds < length - MISSING:
                kind = self.kind_name
                yield f"there are {seconds:.2f} s of its {kind} in place of {length:.2f} s"
