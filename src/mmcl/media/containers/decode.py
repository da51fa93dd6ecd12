"""Open a media file and decode its pictures, on the file's own clock.

Time 0 is where the container starts. Everything is streamed: a file of any length needs only
the memory of one picture.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmcl.errors import MediaError
from mmcl.extras import load
from mmcl.limits import check_regular

if TYPE_CHECKING:
    from av.container import InputContainer

__all__ = [
    *("Frame", "MediaInfo", "converting", "decoded_frames", "frames", "main_stream", "open_media"),
    *("origin_of", "probe", "starts_at_zero"),
]

MAX_PIXELS = 3840 * 2160
MAX_HEIGHT = 720  # rows; larger pictures are scaled down, since face features need no more
SAME_TIME = 1e-3  # seconds; Matroska stores times in milliseconds
LEAD = 0.5  # seconds; decoding starts this early, because frames depend on earlier ones

# Containers that store times, so that these are right after a seek. mp3 only guesses them.
SEEKABLE = {"mov", "matroska", "mpeg", "mpegts", "ogg", "wav"}
# Containers whose clock starts at 0. That of a broadcast may start anywhere.
FROM_ZERO = {"mov", "matroska"}
# First bytes of lists that point to other files, perhaps on the network.
PLAYLISTS = (b"#EXTM3U", b"ffconcat", b"<MPD", b"v=0\r\n", b"v=0\n")
# FFmpeg's names of formats that are no recordings.
PICTURES = {"image2", "ico", "apng"}
PICTURE_BRANDS = {"heic", "heix", "mif1", "msf1", "avif", "avis"}
TEXTS = {"tty", "bin", "xbin", "adf", "idf"}

_KIND_NAMES = {"audio": "sound", "video": "pictures"}
_Kind = Literal["audio", "video"]


class MediaInfo(NamedTuple):
    """Contents of a media file.

    Attributes:
        duration: In seconds.
        has_audio: Whether there is sound.
        has_video: Whether there are pictures. The cover of a song is none.
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
    """One picture.

    Attributes:
        time: When it is on screen, in seconds from the start of the file.
        image: RGB, uint8 ``[h, w, 3]``, contiguous, upright.
    """

    time: float
    image: NDArray[np.uint8]


def probe(path: Path) -> MediaInfo:
    """Return the contents of a file of any container FFmpeg knows, without reading all of it.

    Raises:
        MediaError: If the file is missing, empty, cut short, not media, a still picture, or
            has pictures of more than 3840 x 2160 pixels.
    """
    with open_media(path) as container:
        video = main_stream(container, "video")
        duration = _duration(path, container)
        has_audio = main_stream(container, "audio") is not None
        if video is None:
            return MediaInfo(duration, has_audio, False, 0, 0, 0.0)
        _check_size(path, video)
        width, height = video.codec_context.width, video.codec_context.height
        # The rotation is known only once a picture is decoded.
        if _quarter_turns(next(_decoded(container, video), None)) % 2:
            width, height = height, width
        rate = video.average_rate or video.guessed_rate or 0
        return MediaInfo(duration, has_audio, True, width, height, float(rate))


def frames(
    path: Path, *, rate: float = 10.0, start: float = 0.0, end: float | None = None
) -> Iterator[Frame]:
    """Stream the pictures that are on screen at the times ``i / rate``.

    The picture at a time is the last one shown by then, also in a file whose rate varies.
    Times before the first picture and after the last have none.

    Args:
        path: A media file.
        rate: Pictures per second wanted.
        start: First time wanted, in seconds.
        end: Time from which on no picture is wanted, in seconds.

    Raises:
        MediaError: As :func:`probe`, or if none of the pictures can be decoded, or one cannot
            be converted.
    """
    stop = math.inf if end is None else end
    due = math.ceil((start - SAME_TIME) * rate)
    for appears, disappears, picture in _shown(path, start):
        due = max(due, math.ceil((appears - SAME_TIME) * rate))
        last = math.ceil((min(disappears, stop) - SAME_TIME) * rate)
        # Converting a picture is slow, so only those that are wanted are converted.
        if due < last:
            with converting(path, "video"):
                image = _upright(picture)
            for number in range(due, last):
                yield Frame(number / rate, image)
            due = last
        if disappears >= stop:
            return


def _shown(path: Path, start: float) -> Iterator[tuple[float, float, Any]]:
    """Yield every picture with the times at which it appears and disappears."""
    previous: tuple[float, Any] | None = None
    usual_seconds = 0.04
    for time, picture in decoded_frames(path, "video", start):
        if previous is not None:
            yield previous[0], time, previous[1]
            usual_seconds = time - previous[0]
        previous = time, picture
    if previous is not None:
        time, picture = previous
        seconds = float(picture.duration * picture.time_base) or usual_seconds
        yield time, time + seconds, picture


def _upright(picture: Any) -> NDArray[np.uint8]:
    """Convert to RGB, scale down to at most :data:`MAX_HEIGHT` rows, and turn upright."""
    turns = _quarter_turns(picture)
    width, height = picture.width, picture.height
    rows = width if turns % 2 else height
    scale = min(1.0, MAX_HEIGHT / rows)
    image = picture.to_ndarray(
        format="rgb24", width=max(1, round(width * scale)), height=max(1, round(height * scale))
    )
    return np.ascontiguousarray(np.rot90(image, turns), np.uint8)


@contextmanager
def converting(path: Path, kind: _Kind) -> Iterator[None]:
    """Name the file where FFmpeg cannot convert what it has decoded.

    Raises:
        MediaError: In place of FFmpeg's own error: a frame may declare 43 channels, for example.
    """
    av = load("av", "reading video and sound")
    try:
        yield
    except av.error.FFmpegError as error:
        raise MediaError(
            f'"{path.name}": a part of its {_KIND_NAMES[kind]} cannot be converted '
            f"({error.strerror}); the file may be damaged.\n"
            "  Copy, download or record it again."
        ) from None


def _quarter_turns(picture: Any | None) -> int:
    """Count the quarter turns, counterclockwise, that put a picture upright."""
    return 0 if picture is None else round(picture.rotation / 90) % 4


def decoded_frames(path: Path, kind: _Kind, start: float) -> Iterator[tuple[float, Any]]:
    """Yield decoded frames of one stream with their times, from a little before ``start`` on.

    Raises:
        MediaError: As :func:`probe`, or if nothing of the stream can be decoded.
    """
    if start > LEAD:
        with open_media(path) as container:
            stream = main_stream(container, kind)
            if stream is not None and container.format.name.split(",")[0] in SEEKABLE:
                place = start - LEAD + origin_of(container)
                container.seek(math.floor(place / stream.time_base), stream=stream)
                timed = _timed_frames(path, container, stream)
                first = next(timed, None)
                if first is not None and first[0] <= start - LEAD / 2:
                    yield from chain([first], timed)
                    return
    # No seek, or one that landed too late as in MPEG programme streams: read all of it.
    with open_media(path) as container:
        stream = main_stream(container, kind)
        if stream is None:
            return
        timed = _timed_frames(path, container, stream)
        first = next(timed, None)
        if first is None:
            raise MediaError(
                f'"{path.name}" has {_KIND_NAMES[kind]}, but nothing of it can be decoded: '
                "the file is damaged or cut short.\n"
                "  Copy, download or record it again."
            )
        yield from chain([first], timed)


def _timed_frames(
    path: Path, container: InputContainer, stream: Any
) -> Iterator[tuple[float, Any]]:
    if stream.type == "video":
        _check_size(path, stream)
    origin, time, step = origin_of(container), 0.0, 0.0
    for frame in _decoded(container, stream):
        if frame.pts is None:  # a stream without times: one frame follows the other
            time += step
        else:
            time = float(frame.pts * frame.time_base) - origin
        if stream.type == "audio":
            step = float(frame.samples / frame.sample_rate)
        else:
            step = float(1 / (stream.average_rate or stream.guessed_rate or 25))
        yield time, frame


def _decoded(container: InputContainer, stream: Any) -> Iterator[Any]:
    """Yield the frames of a stream that can be decoded; broken packets are skipped."""
    av = load("av", "reading video and sound")
    stream.thread_type = "AUTO"
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError:  # a file cut short: what the decoder still holds is good
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
    fault = _unusable(path, container)
    if fault is not None:
        container.close()
        raise MediaError(fault)
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
    check_regular(path, MediaError)
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
    """Return the first bytes of a file."""
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
        content = "text" if formats & TEXTS else ", ".join(kinds) or "nothing"
        return (
            f'"{path.name}" holds neither pictures nor sound (found: {content}).\n'
            "  Expected a video or a sound, as mp4, webm, mkv, mov, wav or mp3."
        )
    return None


def _check_size(path: Path, stream: Any) -> None:
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > MAX_PIXELS:
        raise MediaError(
            f'"{path.name}" has pictures of {width}x{height} pixels; '
            "expected at most as many as 3840x2160.\n"
            f'  Make them smaller: ffmpeg -i "{path.name}" -vf scale=-2:720 smaller.mp4'
        )


def main_stream(container: InputContainer, kind: _Kind) -> Any | None:
    """Return the main stream of a kind, or None; a song's cover is no video."""
    av = load("av", "reading video and sound")
    best = container.streams.best(kind)
    if best is None or best.codec_context is None:  # no stream, or no decoder for it
        return None
    if best.disposition & av.stream.Disposition.attached_pic:
        return None
    return best


def starts_at_zero(container: InputContainer) -> bool:
    """Return whether the container's clock starts at 0; that of a broadcast may not."""
    return container.format.name.split(",")[0] in FROM_ZERO


def origin_of(container: InputContainer) -> float:
    """Return the time at which the container's clock starts, in seconds."""
    return 0.0 if starts_at_zero(container) else max(container.start_time or 0, 0) / 1_000_000


def _duration(path: Path, container: InputContainer) -> float:
    """Return the length in seconds; live recordings do not state it, so their packets are read."""
    if container.duration is not None:
        return float(container.duration / 1_000_000)
    with open_media(path) as reopened:
        ends = [
            float((packet.pts + (packet.duration or 0)) * packet.time_base)
            for packet in reopened.demux()
            if packet.pts is not None and packet.time_base is not None
        ]
    return max(ends, default=origin_of(container)) - origin_of(container)
