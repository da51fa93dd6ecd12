"""A labelled folder of inputs that are bad, each in its way, and what is to be said of each.

None of them needs a face or a voice; a test may put more rows after these.
"""

import csv
import io
import os
from contextlib import redirect_stderr, redirect_stdout
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fakes.recordings import write_media
from mmcl.cli.main import main

GOOD = ("Größe 1/ein Ton 日本", "v/faceless", "v/tone", "v/short", "v/uhd")
"""Files that become a clip all the same."""

FAULTY_ROWS = [
    (
        "v/photo",
        'label.csv, row 9: no file "Raw/v/photo.mp4", but "photo.jpg", whose ending is of no '
        "video or sound",
    ),
    ("v/missing", 'label.csv, row 15: no file "Raw/v/missing.mp4", nor one with another ending'),
    (
        "Größe 1/ein Ton 日本",
        "label.csv, row 16: the same video_id and clip_id are in row 2",
    ),
    (
        "v/score",
        'label.csv, row 17: label is "happy", not a number',
    ),
]
BAD_FILES = [
    (
        "v/empty",
        '"empty.mp4" is empty (0 bytes); expected a video or a sound. Copy or download it again.',
    ),
    (
        "v/cut",
        '"cut.mp4" is cut short: it begins as an mp4, but its index (moov) is missing. '
        "Nothing can be read without it. Copy, download or record the file again.",
    ),
    (
        "v/text",
        '"text.mp4" is neither a video nor a sound, whatever its name says. Expected mp4, webm, '
        'mkv, mov, wav, mp3 or the like. See what it is: file "text.mp4"',
    ),
    (
        "v/picture",
        '"picture.mp4" is a picture, not a video or a sound. '
        "Expected a recording of someone who speaks.",
    ),
    (
        "v/silence",
        '"silence.mp4" holds no words, no sound and no face, so nothing to learn from. '
        "Expected a recording of someone who speaks.",
    ),
    (
        "v/large",
        '"large.mp4" has pictures of 4096x4096 pixels; expected at most as many as 3840x2160. '
        'Make them smaller: ffmpeg -i "large.mp4" -vf scale=-2:720 smaller.mp4',
    ),
    (
        "v/times",
        '"times.srt" has 2 times that do not fit its clip of 2.00 s: '
        "utterance 2: 5..6 s lies outside the clip. "
        "utterance 3: 1.9..1.5 s does not end after it starts. "
        "Expected 0 <= start < end <= the clip's length. Is it of another file? "
        "Correct it, or take it away: what is said is recognised then.",
    ),
]
TIMES = """1
00:00:00,000 --> 00:00:01,000
in time

2
00:00:05,000 --> 00:00:06,000
too late

3
00:00:01,900 --> 00:00:01,500
backwards
"""


class BadFolder:
    """Writes the files and the rows of ``label.csv``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[tuple[str, ...]] = []
        self._write_good_and_broken()
        self._write_strange()

    def row(self, name: str, mode: str = "train", *, text: str = "", label: str = "1") -> None:
        """Add a row: ``row("video/clip")``."""
        self.rows.append((*name.split("/"), text, label, mode))
        with (self.path / "label.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerows([("video_id", "clip_id", "text", "label", "mode"), *self.rows])

    def place(self, name: str) -> Path:
        """Where a file of that name lies; its folder is made."""
        path = self.path / "Raw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _write_good_and_broken(self) -> None:
        write_tone(self.place("Größe 1/ein Ton 日本.wav"), 1.0)
        self.row("Größe 1/ein Ton 日本", "test")
        self.place("v/empty.mp4").touch()
        self.row("v/empty")
        write_media(self.place("v/faceless.mp4"), pictures=grey(20), sound=tone(2.0))
        self.row("v/faceless", text="grey is all there is", label="-1")
        whole = write_media(self.place("v/cut.mp4"), pictures=grey(10)).read_bytes()
        self.place("v/cut.mp4").write_bytes(whole[: whole.index(b"moov") - 4])
        self.row("v/cut")
        write_tone(self.place("v/tone.wav"), 2.0)
        self.row("v/tone", "valid")
        self.place("v/text.mp4").write_text("these are words\n" * 50)
        self.row("v/text")
        write_picture(self.place("v/picture.mp4"), "png", "rgb24")
        self.row("v/picture")
        write_picture(self.place("v/photo.jpg"), "mjpeg", "yuvj420p")
        self.row("v/photo")

    def _write_strange(self) -> None:
        write_tone(self.place("v/short.wav"), 0.05)
        self.row("v/short")
        silence = [(0.0, np.zeros(16_000))]
        write_media(self.place("v/silence.mp4"), pictures=grey(10), sound=silence)
        self.row("v/silence")
        large = {"rate": 10, "picture_codec": "mpeg4"}
        write_media(self.place("v/large.mp4"), pictures=grey(2, 4096, 4096), **large)
        self.row("v/large")
        uhd = grey(2, 2160, 3840)
        write_media(self.place("v/uhd.mp4"), pictures=uhd, sound=tone(0.2), **large)
        self.row("v/uhd", "test")
        write_tone(self.place("v/times.wav"), 2.0)
        self.place("v/times.srt").write_text(TIMES)
        self.row("v/times")
        self.row("v/missing")
        self.row("Größe 1/ein Ton 日本")
        write_tone(self.place("v/score.wav"), 1.0)
        self.row("v/score", label="happy")


def grey(count, height=64, width=96):
    """Pictures of one grey each, darker first."""
    return [np.full((height, width, 3), 20 + 5 * at, np.uint8) for at in range(count)]


def tone(seconds):
    """A sine of 440 Hz, as sound of :func:`write_media`."""
    return [(0.0, 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * 16_000)) / 16_000))]


def write_tone(path, seconds):
    write_media(path, sound=tone(seconds), sound_codec="pcm_s16le")


def write_picture(path, codec, pixels):
    """A picture by itself, whatever its name says."""
    import av

    context = av.CodecContext.create(codec, "w")
    context.width = context.height = 64
    context.pix_fmt, context.time_base = pixels, Fraction(1)
    frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 90, np.uint8), "rgb24")
    packets = [*context.encode(frame.reformat(format=pixels)), *context.encode(None)]
    path.write_bytes(b"".join(bytes(packet) for packet in packets))


class Extracted(NamedTuple):
    """Result of ``mmcl extract``, and the files that it left."""

    place: Path
    code: int
    out: str
    err: str
    errors: list[tuple[str, ...]]
    left: list[str]


def extract_all(place):
    """Extract the folder ``bad inputs`` of a place, which is the working folder."""
    words = ("extract", "bad inputs", "--out", "corpus.arrow", "--max-failures", "0.9")
    done = run(*words)
    return Extracted(place, *done, table(place / "errors.csv"), sorted(os.listdir(place)))


def run(*words):
    """Call ``mmcl``: exit code, standard output, standard error."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main([str(word) for word in words])
    return code, out.getvalue(), err.getvalue()


def table(path):
    """The rows of a CSV file."""
    with path.open(newline="", encoding="utf-8") as file:
        return [tuple(row) for row in csv.reader(file)]
