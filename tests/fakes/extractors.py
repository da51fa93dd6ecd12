"""Extractors that open no media, for tests of batches; importable by a process of its own."""

import errno
import os
import signal
import time

import numpy as np

from mmcl.corpus.schema import Clip, Word
from mmcl.errors import MediaError, MissingExtraError
from mmcl.media.extract import STAGES, Extracted

FACELESS = "no face in any picture: vision is left out"


class FakeExtractor:
    """Does what the text of a file says: ``bad``, ``bug``, ``die``, ``quit``, ``wait``, ``stall``.

    One that stalls goes on when the file says something else. Whatever else it says is the words
    of its utterances, one a line. Every file it was asked for is a line of ``calls.log`` beside
    it.
    """

    def __init__(self, recipe):
        self.recipe = recipe

    def extract(self, path, *, transcript=None, video_id=None, span=None):
        with (path.parent / "calls.log").open("a") as log:
            log.write(f"{path.name}\n")
        while (text := path.read_text()).strip() == "stall":
            time.sleep(0.05)
        _misbehave(path, text.strip())
        lines = [transcript or text] if span else text.splitlines()
        clips = [_clip(video_id, at, line) for at, line in enumerate(lines)]
        return Extracted(
            clips=clips,
            spans=[(2.0 * at, 2.0 * at + 1.5) for at in range(len(clips))],
            notes=(f"{len(lines)} lines",) if len(lines) > 2 else (FACELESS,),
            timings=dict.fromkeys(STAGES, 0.25),
            duration=10.0,
            language="en",
        )


def _misbehave(path, text):
    if text == "bad":
        raise MediaError(f'"{path.name}" is bad.\n  Make it good.')
    if text == "bug":
        raise RuntimeError("a library has a fault")
    if text == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if text == "quit":
        os._exit(3)
    if text == "lacking":
        raise MissingExtraError("hearing needs ears, which are not installed.")
    if text == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    if text == "wait":
        time.sleep(5)


def _clip(video_id, at, line):
    words = line.split()
    steps = np.arange(len(words) * 2, dtype=np.float32).reshape(-1, 2) + 1
    features = {"text": steps} if words == ["text"] else {"text": steps, "audio": -steps}
    return Clip(
        id=f"{video_id}/{at}",
        split="test",
        features=features,
        video_id=video_id,
        clip_id=str(at),
        text=line,
        words=tuple(Word(text=w, start=i / 2, end=i / 2 + 0.5) for i, w in enumerate(words)),
    )
