"""Find where the sound and the pictures of a file end, and where its header says that they do.

A download that was broken off, or a recorder that lost its battery, leaves a file whose header
still tells of all of it. What is left can be read, but a user must know that the rest is gone.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mmcl.extras import load
from mmcl.media.containers.decode import main_stream, open_media, origin_of

if TYPE_CHECKING:
    from av.container import InputContainer

__all__ = ["Ends", "ends_of"]

MISSING = 0.25  # seconds by which a file may end before its header says, since codecs round
EARLY = 1.0  # seconds by which sound or pictures may end before the file does

# Containers whose header states a length. FFmpeg guesses that of others from their size.
STATED = {"mov", "matroska", "flac", "aiff", "au", "asf", "flv"}
HEAD = 4096  # bytes in which the first frame of an mp3 and the chunks of a wav are looked for
ID3 = 10  # bytes before the title and the cover of an mp3
OGG_PAGE = 65_307  # bytes, the most that a page of Ogg has


class Ends(NamedTuple):
    """Ends of a file's sound and pictures, in seconds on its own clock.

    Attributes:
        stated: Length of the file by its header; None where it states none.
        audio: End of the last complete packet of sound; None if there is none, and infinite
            where the packets have no times.
        video: Likewise of the pictures.
        is_cut: Whether the file breaks off in the middle of a packet.
    """

    stated: float | None
    audio: float | None
    video: float | None
    is_cut: bool = False

    @property
    def last(self) -> float:
        """Later end of sound and pictures."""
        return max(self.audio or 0.0, self.video or 0.0)

    @property
    def is_short(self) -> bool:
        """True if the file ends before its header says."""
        return self.stated is not None and 0 < self.last < self.stated - MISSING

    def notes(self, start: float, wanted: float) -> list[str]:
        """Return notes on what is missing between two times."""
        if wanted <= self.last:
            notes = []
        elif self.is_short:
            notes = [f"it ends at {self.last:.1f} of {self.stated:.1f} s: the rest is missing"]
        else:
            notes = [f"it is cut short, at {self.last:.1f} s"] if self.is_cut else []
        end = min(wanted, self.last)
        for kind, verb, of_kind in (("sound", "ends", self.audio), ("pictures", "end", self.video)):
            if of_kind is not None and of_kind < end - EARLY and end < math.inf:
                notes.append(f"its {kind} {verb} at {max(of_kind, start):.1f} of {self.last:.1f} s")
        return notes


def ends_of(path: Path) -> Ends:
    """Read all packets of a file, without decoding them, and return where they end.

    Raises:
        MediaError: As :func:`mmcl.media.containers.decode.open_media`.
    """
    av = load("av", "reading video and sound")
    with open_media(path) as container:
        ends: dict[int, float] = {}
        packets, origin = container.demux(), origin_of(container)
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError:  # broken off: what came before is there
                break
            if packet is None:
                break
            if not packet.size or (packet.is_corrupt and not _is_plain(packet.stream)):
                continue
            time = packet.dts if packet.pts is None else packet.pts
            number = packet.stream.index
            if time is None or packet.time_base is None:
                ends[number] = math.inf
            else:
                end = float((time + (packet.duration or 0)) * packet.time_base) - origin
                ends[number] = max(end, ends.get(number, 0.0))
        audio, video = main_stream(container, "audio"), main_stream(container, "video")
        return Ends(
            stated=_stated_length(path, container, ends),
            audio=None if audio is None else ends.get(audio.index),
            video=None if video is None else ends.get(video.index),
            is_cut=container.format.name == "ogg" and _has_broken_page(path),
        )


def _is_plain(stream: Any) -> bool:
    """Return whether samples are not compressed, so that a part of a packet can be decoded."""
    return stream.codec_context is not None and stream.codec_context.name.startswith("pcm_")


def _stated_length(path: Path, container: InputContainer, ends: dict[int, float]) -> float | None:
    """Return the length in the header, if it has one and it is that of sound and pictures."""
    name = container.format.name.split(",")[0]
    own = {"wav": _length_of_wav, "avi": _length_of_avi, "mp3": _length_of_mp3}.get(name)
    if own is not None:
        return own(_head(path))
    if name not in STATED or container.duration is None:
        return None
    whole = container.duration / 1_000_000
    streams = [stream for stream in container.streams if stream.type in ("audio", "video")]
    lengths = [
        float(stream.duration * stream.time_base)
        for stream in streams
        if stream.duration is not None and stream.time_base is not None
    ]
    if len(lengths) == len(streams):
        return min(whole, max(lengths))
    # The length may be that of subtitles, which last longer.
    others = [ends.get(s.index, 0.0) for s in container.streams if s not in streams]
    return whole if max(others, default=0.0) < whole - MISSING else None


def _head(path: Path) -> bytes:
    """Return the first bytes of a file, behind the title and the cover of an mp3."""
    with path.open("rb") as file:
        first = file.read(ID3)
        is_title = first[:3] == b"ID3" and len(first) == ID3
        # Seven bits of each byte count.
        skipped = ID3 + sum((first[9 - at] & 127) << 7 * at for at in range(4)) if is_title else 0
        file.seek(skipped)
        return file.read(HEAD)


def _length_of_wav(head: bytes) -> float | None:
    """Return the size of the samples by their bytes per second."""
    place, bytes_per_second = 12, 0
    while head[:4] == b"RIFF" and place + 8 <= len(head):
        kind, size = struct.unpack("<4sI", head[place : place + 8])
        if kind == b"fmt " and place + 20 <= len(head):
            (bytes_per_second,) = struct.unpack("<I", head[place + 16 : place + 20])
        if kind == b"data":
            # A program that writes to a pipe knows no size and fills in the largest.
            is_known = 0 < size < 0x7FFF_0000 and bytes_per_second > 0
            return size / bytes_per_second if is_known else None
        place += 8 + size + size % 2
    return None


def _length_of_avi(head: bytes) -> float | None:
    """Return the number of pictures times the microseconds of one."""
    place = head.find(b"avih")
    if place < 0 or place + 28 > len(head):
        return None
    microseconds, *_, count = struct.unpack("<5I", head[place + 8 : place + 28])
    return microseconds * count / 1_000_000 or None


def _length_of_mp3(head: bytes) -> float | None:
    """Return the number of frames that the first one states, in the way of Xing and LAME."""
    place = next((at for at in map(head.find, (b"Xing", b"Info")) if at >= 0), -1)
    begin = head.rfind(b"\xff", 0, max(place, 0))
    if begin < 0 or place + 12 > len(head):
        return None
    (frame,) = struct.unpack(">I", head[begin : begin + 4])
    flags, count = struct.unpack(">II", head[place + 4 : place + 12])
    version, rate = frame >> 19 & 3, frame >> 10 & 3
    if not flags & 1 or version == 1 or rate == 3:
        return None
    hertz = (44_100, 48_000, 32_000)[rate] // {3: 1, 2: 2, 0: 4}[version]
    return float(count * (1152 if version == 3 else 576) / hertz)


def _has_broken_page(path: Path) -> bool:
    """Return whether the last page of Ogg is longer than what is left of the file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - OGG_PAGE))
        tail = file.read()
    place = tail.rfind(b"OggS")
    if place < 0 or place + 27 > len(tail):
        return True
    segments = tail[place + 27 : place + 27 + tail[place + 26]]
    return place + 27 + tail[place + 26] + sum(segments) > len(tail)
