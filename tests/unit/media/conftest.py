"""Tiny media files, made where they are needed."""

import numpy as np
import pytest

from fakes.recordings import write_media


@pytest.fixture
def make_media(tmp_path):
    """Write a media file.

    ``make_media("clip.mp4", pictures=[rgb, ...], rate=10)`` shows them ten a second,
    ``times=`` at times of their own; ``sound=[(start, samples), ...]`` in seconds and -1..1.
    """
    pytest.importorskip("av")

    def make(name, **content):
        return write_media(tmp_path / name, **content)

    return make


@pytest.fixture
def grey_pictures():
    """Pictures that can be told apart: picture ``i`` has grey level ``20 * i + 20``."""

    def make(count, height=32, width=48):
        levels = 20 * np.arange(count, dtype=np.uint8) + 20
        return [np.full((height, width, 3), level, np.uint8) for level in levels]

    return make


@pytest.fixture
def tone():
    """A sine of so many seconds: ``tone(0.5, pitch=440)``, at half the full level."""

    def make(seconds, pitch=440.0, rate=16_000):
        times = np.arange(round(seconds * rate)) / rate
        return 0.5 * np.sin(2 * np.pi * pitch * times)

    return make


@pytest.fixture
def make_folder(tmp_path):
    """Write a ``label.csv`` with an empty file for each ``video/clip`` named in ``files``."""

    def make(text, files=(), name="corpus", encoding="utf-8"):
        folder = tmp_path / name
        (folder / "Raw").mkdir(parents=True)
        (folder / "label.csv").write_bytes(text.encode(encoding))
        for file in files:
            path = folder / "Raw" / (file if "." in file else f"{file}.mp4")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return folder

    return make
