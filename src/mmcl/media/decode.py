"""Decode pictures and sound from a media file, on the file's own clock.

Time 0 is where the container starts. Everything is streamed: a file of any length needs only
the memory of one picture or one block of sound.
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
    *("Frame", "MediaInfo", "audio_blocks", "frames", "main_stream", "open_media"),
    *("origin_of", "probe", "read_audio", "starts_at_zero"),
]

MAX_PIXELS = 3840 * 2160
MAX_HEIGHT = 720  # rows; larger pictures are scaled down, since face features need no more
SAME_TIME = 1e-3  # seconds; Matroska stores times in milliseconds
JITTER = 0.02  # seconds by which sound may be off its expected time without being moved
MAX_GAP = 600.0  # seconds; a longer gap in the sound is a broken clock and not silence
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
_Floats = NDArray[np.float32]


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


def audio_blocks(
    path: Path, start: float = 0.0, end: float | None = None, *, block_seconds: float = 30.0
) -> Iterator[_Floats]:
    """Stream a stretch of sound, 16 kHz mono.

    Sample ``i`` is at ``start + i / 16000`` seconds on the file's clock. Gaps, and the time
    before sound that begins late, are silence.

    Args:
        path: A media file.
        start: In seconds.
        end: In seconds; None reads to the end of the sound.
        block_seconds: Length of every block but the last, in seconds.

    Yields:
        Samples, float32 ``[k]``, in -1..1; fewer than asked for where the sound ends first, and
        none where the file has no sound.

    Raises:
        MediaError: As :func:`probe`, or if none of the sound can be decoded.
    """
    size = round(block_seconds * SAMPLE_RATE)
    wanted = math.inf if end is None else round(end * SAMPLE_RATE) - round(start * SAMPLE_RATE)
    pending: list[_Floats] = []
    for piece in _sound(path, start):
        pending.append(piece[: int(max(0, min(wanted, len(piece))))])
        wanted -= len(piece)
        if sum(map(len, pending)) >= size:
            samples = np.concatenate(pending)
            complete = len(samples) // size * size
            yield from samples[:complete].reshape(-1, size)
            pending = [samples[complete:]]
        if wanted <= 0:
            break
    if sum(map(len, pending)):
        yield np.concatenate(pending)


def read_audio(path: Path, start: float = 0.0, end: float | None = None) -> _Floats:
    """Read a stretch of sound at once, float32 ``[samples]``; see :func:`audio_blocks`."""
    return np.concatenate([np.zeros(0, np.float32), *audio_blocks(path, start, end)])


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
        MediaError: As :func:`probe`, or if none of the pictures can be decoded.
    """
    stop = math.inf if end is None else end
    due = math.ceil((start - SAME_TIME) * rate)
    for appears, disappears, picture in _shown(path, start):
        due = max(due, math.ceil((appears - SAME_TIME) * rate))
        last = math.ceil((min(disappears, stop) - SAME_TIME) * rate)
        # Converting a picture is slow, so only those that are wanted are converted.
        if due < last:
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
    for time, picture in _frames_from(path, "video", start):
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


def _quarter_turns(picture: Any | None) -> int:
    """Count the quarter turns, counterclockwise, that put a picture upright."""
    return 0 if picture is None else round(picture.rotation / 90) % 4


def _sound(path: Path, start: float) -> Iterator[_Floats]:
    """Yield sound without a gap from sample ``round(start * SAMPLE_RATE)`` on, in pieces."""
    sound = _GaplessSound(round(start * SAMPLE_RATE))
    for time, frame in _frames_from(path, "audio", start):
        yield from sound.add(frame, time)
    yield from sound.finish()


class _GaplessSound:
    """Frames of sound at their times, resampled to 16 kHz mono, with silence in the gaps."""

    def __init__(self, first_sample: int) -> None:
        self.written = first_sample  # the next sample to yield
        self.place = first_sample  # where the next sample of the resampler belongs
        self.due = math.nan  # when the next frame comes if nothing is missing, in seconds
        self.resampler: Any = None

    def add(self, frame: Any, time: float) -> Iterator[_Floats]:
        """Add a frame that begins at ``time`` seconds."""
        if self.resampler is None or JITTER < abs(time - self.due) < MAX_GAP:
            yield from self._restart(frame, time)
        try:
            resampled = self.resampler.resample(frame)
        except ValueError:  # another rate, format or number of channels from here on
            yield from self._restart(frame, time)
            resampled = self.resampler.resample(frame)
        self.due += frame.samples / frame.sample_rate
        yield from self._placed(resampled)

    def _restart(self, frame: Any, time: float) -> Iterator[_Floats]:
        """Begin with a new resampler at the time of a frame."""
        yield from self.finish()
        av = load("av", "reading video and sound")
        self.resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
        # Only every so many samples do both rates have one at the same time. Start at such a
        # sample and fill up with silence, so that the resampled ones fall on whole places.
        rate = frame.sample_rate
        first, cycle = round(time * rate), rate // math.gcd(rate, SAMPLE_RATE)
        self.place, self.due = (first - first % cycle) * SAMPLE_RATE // rate, time
        if first % cycle:
            yield from self._placed(self.resampler.resample(_silence(frame, first % cycle)))

    def finish(self) -> Iterator[_Floats]:
        """Yield what the resampler still holds."""
        if self.resampler is not None:
            yield from self._placed(self.resampler.resample(None))

    def _placed(self, resampled: list[Any]) -> Iterator[_Floats]:
        """Yield samples at their places: gaps are filled with silence, overlaps are dropped."""
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
    """Return a silent frame in the format of another."""
    av = load("av", "reading video and sound")
    frame = av.AudioFrame(format=like.format.name, layout=like.layout.name, samples=samples)
    frame.sample_rate = like.sample_rate
    zero = b"\x80" if like.format.name.startswith("u8") else b"\x00"
    for plane in frame.planes:
        plane.update(zero * plane.buffer_size)
    return frame


def _frames_from(path: Path, kind: _Kind, start: float) -> Iterator[tuple[float, Any]]:
    """Yield decoded frames of one stream with their times, from a little before ``start`` on."""
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
