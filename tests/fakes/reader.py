"""A reader that opens no media: a recording is a text that says what happens to it.

Importable by a process of its own. Each line is an order: ``bad``, ``bug``, ``die``, ``full``,
``long``, ``hold SECONDS``, ``eat MIB``, ``until PATH``; anything else is an utterance.
"""

import os
import signal
import time
from pathlib import Path

from fakes.words import FakeModels
from mmcl.corpus.plant import PlantSettings, plant_clips
from mmcl.corpus.schema import Word
from mmcl.errors import MediaError, MissingExtraError
from mmcl.media.extract import STAGES, Extracted

SETTINGS = PlantSettings(train=24, valid=8, test=8)
"""Settings of the corpus whose clips the utterances are given."""


class FakeReader:
    """Reads what tests write."""

    def warm(self, recipe):
        pass

    def duration(self, path):
        return 10_000.0 if "long" in path.read_text().splitlines() else 10.0

    def check(self, path):
        pass

    def extractor(self, recipe, tell):
        return FakeExtractor(recipe, tell)


class LameReader(FakeReader):
    """One that cannot even be begun."""

    def warm(self, recipe):
        os._exit(7)


class FakeExtractor:
    """Does what a recording says, line by line."""

    models = FakeModels()

    def __init__(self, recipe, tell):
        self.recipe, self.tell = recipe, tell

    def extract(self, path, *, transcript=None):
        self.tell("decode")
        self.tell("recognise")
        for line in path.read_text().splitlines():
            _obey(path, line)
        self.tell("decode")  # reading on is no new stage
        self.tell("vision")
        said = [line for line in path.read_text().splitlines() if len(line.split()) > 2]
        if transcript is not None:
            said = [transcript.read_text().strip()]
        clips = [
            _clip(at, clip, text)
            for at, (clip, text) in enumerate(zip(plant_clips(SETTINGS), said, strict=False))
        ]
        return Extracted(
            clips=clips,
            spans=[(2.0 * at, 2.0 * at + 1.5) for at in range(len(clips))],
            notes=(f"language {self.recipe.language}",),
            timings=dict.fromkeys(STAGES, 0.25),
            duration=10.0,
            language="en",
        )


def _obey(path, line):
    order, _, what = line.partition(" ")
    match order:
        case "bad":
            raise MediaError(f'"{path.name}" is bad, in "{path.parent}".\n  Make it good.')
        case "bug":
            raise RuntimeError(f"a library has a fault in {path}")
        case "full":
            raise MemoryError
        case "lacking":
            raise MissingExtraError("hearing needs ears, which are not installed.")
        case "die":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "hold":
            time.sleep(float(what))
        case "until":
            while not Path(what).exists():
                time.sleep(0.01)
        case "eat":
            held = bytearray(int(what) * 2**20)
            held[::4096] = b"x" * len(held[::4096])
            time.sleep(5)


def _clip(at, clip, text):
    words = tuple(
        Word(text=word, start=i / 4, end=(i + 1) / 4) for i, word in enumerate(text.split())
    )
    features = {m: x[: len(words)] for m, x in clip.features.items() if m != "vision" or at == 0}
    return clip.model_copy(
        update={"split": "test", "text": text, "words": words, "features": features}
    )
