"""Pictures and sound of any container, on the file's own clock.

Time 0 is where the container starts. Everything streams: a file of any length costs the
memory of one picture or one block of sound.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmcl.errors import MediaError
from mmcl.extras import load
from mmcl.media.recipe import SAMPLE_RATE

if TYPE_CHECKING:
    from av.container import InputContainer

__all__ = [
    "Frame",
    "MediaInfo",
    "audio_blocks",
    "frames",
    "main_stream",
    "open_media",
    "origin_of",
    "probe",
    "read_audio",
    "starts_at_zero",
]

MAX_PIXELS = 3840 * 2160
MAX_HEIGHT = 720
"""Pictures are scaled down to this many rows: features of a face need no more."""

CLOCK = 1e-3
"""Times nearer than this are the same: Matroska stores milliseconds."""

JITTER = 0.02
"""Sound this near its place, in seconds, carries on; otherwise it is moved there."""

MAX_GAP = 600.0
"""A gap in the sound beyond this, in seconds, is a broken clock and not silence."""

LEAD = 0.5
"""Decoding starts this early, in seconds, so that a codec's memory is filled."""

SEEKABLE = {"mov", "matroska", "mpeg", "mpegts", "ogg", "wav"}
"""Containers that store times, so that these are right after a seek; mp3 guesses them."""

FROM_ZERO = {"mov", "matroska"}
"""Containers whose clock starts at 0, whatever comes first; that of a broadcast may not."""

PLAYLISTS = (b"#EXTM3U", b"ffconcat", b"<MPD", b"v=0\r\n", b"v=0\n")
"""How a list of other files, near or on the network, begins."""

PICTURES = {"image2", "ico", "apng"}
PICTURE_BRANDS = {"heic", "heix", "mif1", "msf1", "avif", "avis"}
TEXTS = {"tty", "bin", "xbin", "adf", "idf"}

_Kind = Literal["audio", "video"]


class MediaInfo(NamedTuple):
    """What a file holds.

    Attributes:
        duration: In seconds.
        has_audio: Whether there is sound.
        has_video: Whether there are pictures; the cover of a song is none.
        width: Of the upright picture in pixels, 0 without pictures.
        height: Likewise.
        frame_rate: Pictures per second on average, 0 without pictures.
    """

    duration: float
    has_audio: bool
    has_video: bool
    width: int
    height: int
    frame_rate: float


class Frame(NamedTuple):
    """A picture.

    Attributes:
        time: When it is on screen, in seconds from the start of the file.
        image: RGB, uint8 ``[h, w, 3]``, contiguous, upright.
    """

    time: float
    image: NDArray[np.uint8]


def probe(path: Path) -> MediaInfo:
    """Say what a media file holds, reading no more of it than needed.

    Args:
        path: A file of any container FFmpeg knows.

    Raises:
        MediaError: If the file is missing, empty, cut short, not media, a still picture, or
            its pictures are larger than 3840x2160 pixels in all.
    """
    with open_media(path) as container:
        video = main_stream(container, "video")
        duration = _duration(path, container)
        has_audio = main_stream(container, "audio") is not None
        if video is None:
            return MediaInfo(duration, has_audio, False, 0, 0, 0.0)
        _check_size(path, video)
        width, height = video.codec_context.width, video.codec_context.height
        if _quarter_turns(next(_decoded(container, video), None)) % 2:
            width, height = height, width
        rate = video.average_rate or video.guessed_rate or 0
        return MediaInfo(duration, has_audio, True, width, height, float(rate))


def audio_blocks(path: Path, *, block_seconds: float = 30.0) -> Iterator[NDArray[np.float32]]:
    """Stream the sound of a file, 16 kHz mono, from time 0.

    Joined, the blocks are what :func:`read_audio` returns. A file without sound has none.

    Args:
        path: A media file.
        block_seconds: Length of every block but the last, in seconds.

    Yields:
        Samples, float32 ``[k]``, in -1..1.

    Raises:
        MediaError: As :func:`probe`, or if none of the sound can be decoded.
    """
    size = round(block_seconds * SAMPLE_RATE)
    held: list[NDArray[np.float32]] = []
    for piece in _sound(path, 0.0):
        held.append(piece)
        if sum(map(len, held)) < size:
            continue
        joined = np.concatenate(held)
        whole = len(joined) // size * size
        yield from joined[:whole].reshape(-1, size)
        held = [joined[whole:]]
    if sum(map(len, held)):
        yield np.concatenate(held)


def read_audio(path: Path, start: float = 0.0, end: float | None = None) -> NDArray[np.float32]:
    """Read a stretch of sound, 16 kHz mono.

    Sample ``i`` is time ``start + i / 16000`` by the file's clock: gaps, and the wait for
    sound that begins late, are silence.

    Args:
        path: A media file.
        start: In seconds.
        end: In seconds; None reads on to where the sound ends.

    Returns:
        Samples, float32 ``[k]``, in -1..1; fewer than asked for where the sound ends first,
        none where the file has no sound.

    Raises:
        MediaError: As :func:`probe`, or if none of the sound can be decoded.
    """
    wanted = math.inf if end is None else round(end * SAMPLE_RATE) - round(start * SAMPLE_RATE)
    pieces = [np.zeros(0, np.float32)]
    count = 0
    for piece in _sound(path, start):
        pieces.append(piece)
        count += len(piece)
        if count >= wanted:
            break
    joined = np.concatenate(pieces)
    return joined if end is None else joined[: int(max(wanted, 0))]


def frames(
    path: Path, *, rate: float = 10.0, start: float = 0.0, end: float | None = None
) -> Iterator[Frame]:
    """Stream the pictures on screen at the times ``i / rate``.

    Each is the last picture shown by then, whether the file's rate varies or not; times
    before the first picture and after the last have none. A file without pictures has none.

    Args:
        path: A media file.
        rate: Pictures per second wanted.
        start: First time wanted, in seconds.
        end: Times from here on are not wanted, in seconds.

    Raises:
        MediaError: As :func:`probe`, or if none of the pictures can be decoded.
    """
    stop = math.inf if end is None else end
    due = math.ceil((start - CLOCK) * rate)
    for time, until, picture in _shown(path, start):
        due = max(due, math.ceil((time - CLOCK) * rate))
        last = math.ceil((min(until, stop) - CLOCK) * rate)
        if due < last:  # only pictures that are wanted are converted
            image = _upright(picture)
            for at in range(due, last):
                yield Frame(at / rate, image)
            due = last
        if until >= stop:
            return


def _shown(path: Path, start: float) -> Iterator[tuple[float, float, Any]]:
    """Every picture with the times at which it comes on screen and goes."""
    before: tuple[float, Any] | None = None
    usual = 0.04
    for time, picture in _timed(path, "video", start):
        if before is not None:
            yield before[0], time, before[1]
            usual = time - before[0]
        before = time, picture
    if before is not None:
        time, picture = before
        yield time, time + (float(picture.duration * picture.time_base) or usual), picture


def _upright(picture: Any) -> NDArray[np.uint8]:
    turns = _quarter_turns(picture)
    width, height = picture.width, picture.height
    rows = width if turns % 2 else height
    scale = min(1.0, MAX_HEIGHT / rows)
    image = picture.to_ndarray(
        format="rgb24", width=max(1, round(width * scale)), height=max(1, round(height * scale))
    )
    return np.ascontiguousarray(np.rot90(image, turns), np.uint8)


def _quarter_turns(picture: Any | None) -> int:
    """Count the quarter turns, counterclockwise, that put a picture upright."""
    return 0 if picture is None else round(picture.rotation / 90) % 4


def _sound(path: Path, start: float) -> Iterator[NDArray[np.float32]]:
    """Sound without a gap from sample ``round(start * SAMPLE_RATE)`` on, in pieces."""
    line = _Line(round(start * SAMPLE_RATE))
    for time, frame in _timed(path, "audio", start):
        yield from line.add(frame, time)
    yield from line.finish()


class _Line:
    """Lays frames of sound down at their times, 16 kHz mono, in pieces without a gap."""

    def __init__(self, first: int) -> None:
        self.written = first  # the next sample to hand out
        self.place = first  # where the next sample out of the resampler belongs
        self.due = math.nan  # when the next frame comes if nothing is missing, in seconds
        self.resampler: Any = None

    def add(self, frame: Any, time: float) -> Iterator[NDArray[np.float32]]:
        """Lay down one frame that begins at ``time`` seconds."""
        off = abs(time - self.due)
        if self.resampler is None or JITTER < off < MAX_GAP:
            yield from self._start(frame, time)
        try:
            resampled = self.resampler.resample(frame)
        except ValueError:  # another rate, format or number of channels from here on
            yield from self._start(frame, time)
            resampled = self.resampler.resample(frame)
        self.due += frame.samples / frame.sample_rate
        yield from self._laid(resampled)

    def _start(self, frame: Any, time: float) -> Iterator[NDArray[np.float32]]:
        """Begin afresh, with as much silence first as puts the samples on whole places."""
        yield from self.finish()
        av = load("av", "reading video and sound")
        self.resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
        rate = frame.sample_rate
        at, cycle = round(time * rate), rate // math.gcd(rate, SAMPLE_RATE)
        self.place, self.due = (at - at % cycle) * SAMPLE_RATE // rate, time
        if at % cycle:
            yield from self._laid(self.resampler.resample(_silence(frame, at % cycle)))

    def finish(self) -> Iterator[NDArray[np.float32]]:
        """Hand out what the resampler still holds."""
        if self.resampler is not None:
            yield from self._laid(self.resampler.resample(None))

    def _laid(self, resampled: list[Any]) -> Iterator[NDArray[np.float32]]:
        for frame in resampled:
            samples = frame.to_ndarray()[0].astype(np.float32) / 32768
            missing = self.place - self.written
            self.place += len(samples)
            if missing > 0:
                yield np.zeros(missing, np.float32)
            samples = samples[max(-missing, 0) :]
            self.written = max(self.written, self.place)
            if len(samples):
                yield samples


def _silence(like: Any, samples: int) -> Any:
    av = load("av", "reading video and sound")
    frame = av.AudioFrame(format=like.format.name, layout=like.layout.name, samples=samples)
    frame.sample_rate = like.sample_rate
    nothing = b"\x80" if like.format.name.startswith("u8") else b"\x00"
    for plane in frame.planes:
        plane.update(nothing * plane.buffer_size)
    return frame


def _timed(path: Path, kind: _Kind, start: float) -> Iterator[tuple[float, Any]]:
    """What decodes of one stream, with times in seconds, beginning a little before ``start``.

    A seek that lands too late (in MPEG programme streams it may) is made good by reading
    from the beginning.
    """
    if start > LEAD:
        with open_media(path) as container:
            stream = main_stream(container, kind)
            if stream is not None and container.format.name.split(",")[0] in SEEKABLE:
                origin = origin_of(container)
                container.seek(
                    math.floor((start - LEAD + origin) / stream.time_base), stream=stream
                )
                found = _with_times(path, container, stream)
                first = next(found, None)
                if first is not None and first[0] <= start - LEAD / 2:
                    yield from chain([first], found)
                    return
    with open_media(path) as container:
        stream = main_stream(container, kind)
        if stream is None:
            return
        first = next(found := _with_times(path, container, stream), None)
        if first is None:
            raise MediaError(_undecodable(path, kind))
        yield from chain([first], found)


def _with_times(path: Path, container: InputContainer, stream: Any) -> Iterator[tuple[float, Any]]:
    if stream.type == "video":
        _check_size(path, stream)
    origin, time, step = origin_of(container), 0.0, 0.0
    for frame in _decoded(container, stream):
        if frame.pts is None:  # a stream without times: one after the other
            time += step
        else:
            time = float(frame.pts * frame.time_base) - origin
        step = _length(frame, stream)
        yield time, frame


def _length(frame: Any, stream: Any) -> float:
    if stream.type == "audio":
        return float(frame.samples / frame.sample_rate)
    return float(1 / (stream.average_rate or stream.guessed_rate or 25))


def _decoded(container: InputContainer, stream: Any) -> Iterator[Any]:
    """Whatever of a stream can be decoded: broken packets are passed over."""
    av = load("av", "reading video and sound")
    stream.thread_type = "AUTO"
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError:  # cut in the middle: what is still in the decoder is good
            packet = None
        with suppress(av.error.FFmpegError):
            yield from stream.decode(packet)
        if packet is None:
            return


def open_media(path: Path) -> InputContainer:
    """Open a media file, and nothing that it points to.

    Raises:
        MediaError: As :func:`probe`, but for the size of its pictures.
    """
    av = load("av", "reading video and sound")
    _check_file(path)
    try:
        # "file:" so that a colon in a name is no protocol; nothing may reach the network.
        container: InputContainer = av.open(
            f"file:{path}", options={"protocol_whitelist": "file"}, metadata_errors="replace"
        )
    except av.error.FFmpegError:
        raise MediaError(_unreadable(path)) from None
    fault_found = _unusable(path, container)
    if fault_found is not None:
        container.close()
        raise MediaError(fault_found)
    return container


def _check_file(path: Path) -> None:
    if not path.exists():
        raise MediaError(
            f'"{path.name}": no such file in "{path.parent}".\n'
            "  Expected a video or a sound, as mp4, webm, mkv, mov, wav or mp3."
        )
    if path.is_dir():
        raise MediaError(
            f'"{path.name}" is a folder; expected a video or a sound.\n'
            f'  Give one of its files: ls "{path}"'
        )
    if path.stat().st_size == 0:
        raise MediaError(
            f'"{path.name}" is empty (0 bytes); expected a video or a sound.\n'
            "  Copy or download it again."
        )
    if any(mark in _head(path) for mark in PLAYLISTS):
        raise MediaError(
            f'"{path.name}" is a list of other files; expected a video or a sound.\n'
            "  Give the files it names, one by one."
        )


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(256)
    except PermissionError:
        raise MediaError(
            f'"{path.name}" may not be read by you.\n  Allow it: chmod u+r "{path.name}"'
        ) from None


def _unreadable(path: Path) -> str:
    if _head(path)[4:8] == b"ftyp":
        return (
            f'"{path.name}" is cut short: it begins as an mp4, but its index (moov) is missing.\n'
            "  Nothing can be read without it. Copy, download or record the file again."
        )
    return (
        f'"{path.name}" is neither a video nor a sound, whatever its name says.\n'
        f'  Expected mp4, webm, mkv, mov, wav, mp3 or the like. See what it is: file "{path.name}"'
    )


def _unusable(path: Path, container: InputContainer) -> str | None:
    formats = set(container.format.name.split(","))
    brand = container.metadata.get("major_brand", "")
    if formats & PICTURES or container.format.name.endswith("_pipe") or brand in PICTURE_BRANDS:
        return (
            f'"{path.name}" is a picture, not a video or a sound.\n'
            "  Expected a recording of someone who speaks."
        )
    kinds = sorted({stream.type for stream in container.streams})
    if formats & TEXTS or not {"audio", "video"} & set(kinds):
        found = "text" if formats & TEXTS else ", ".join(kinds) or "nothing"
        return (
            f'"{path.name}" holds neither pictures nor sound (found: {found}).\n'
            "  Expected a video or a sound, as mp4, webm, mkv, mov, wav or mp3."
        )
    return None


def _undecodable(path: Path, kind: _Kind) -> str:
    what = {"audio": "sound", "video": "pictures"}[kind]
    return (
        f'"{path.name}" has {what}, but nothing of it can be decoded: '
        "the file is damaged or cut short.\n"
        "  Copy, download or record it again."
    )


def _check_size(path: Path, stream: Any) -> None:
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > MAX_PIXELS:
        raise MediaError(
            f'"{path.name}" has pictures of {width}x{height} pixels; '
            "expected at most as many as 3840x2160.\n"
            f'  Make them smaller: ffmpeg -i "{path.name}" -vf scale=-2:720 smaller.mp4'
        )


def main_stream(container: InputContainer, kind: _Kind) -> Any | None:
    """The main stream of a kind; a song's cover is no video."""
    av = load("av", "reading video and sound")
    best = container.streams.best(kind)
    if best is None or best.codec_context is None:  # the latter: no decoder for it
        return None
    if best.disposition & av.stream.Disposition.attached_pic:
        return None
    return best


def starts_at_zero(container: InputContainer) -> bool:
    """Whether the container's clock starts at 0; else it may be a piece of a broadcast."""
    return container.format.name.split(",")[0] in FROM_ZERO


def origin_of(container: InputContainer) -> float:
    """Where the container's clock starts, in seconds."""
    return 0.0 if starts_at_zero(container) else max(container.start_time or 0, 0) / 1_000_000


def _duration(path: Path, container: InputContainer) -> float:
    """Length in seconds, from the packets where the header does not say (live recordings)."""
    if container.duration is not None:
        return float(container.duration / 1_000_000)
    with open_media(path) as again:
        ends = [
            float((packet.pts + (packet.duration or 0)) * packet.time_base)
            for packet in again.demux()
            if packet.pts is not None and packet.time_base is not None
        ]
    return max(ends, default=origin_of(container)) - origin_of(container)
