"""A made-up timeline: two utterances, of which the second has no face and no second seed."""

import numpy as np
import pytest

from mmcl.corpus.schema import Clip, Task, Word
from mmcl.evaluation.moments import Moments
from mmcl.runs.recordings import Timeline

SCORES = Task(kind="regression", low=-3, high=3)


def _said(text, step=0.5):
    words = text.split()
    return tuple(
        Word(text=word, start=at * step, end=(at + 1) * step) for at, word in enumerate(words)
    )


def _clip(name, text):
    return Clip(id=name, split="test", features={}, text=text, words=_said(text))


def _steps(**values):
    return {m: np.array(each, dtype=np.float32) for m, each in values.items()}


@pytest.fixture
def moments_like():
    """Make the moments of a clip: ``moments_like(1.3, {"text": 0.9}, [0.1, 0.8])``."""

    def make(prediction, share, word_share=(), *, present=None, **changes):
        given = {
            "id": "clip",
            "spread": None,
            "probability": None if isinstance(prediction, float) else 0.71,
            "probabilities": {},
            "present": tuple(share) if present is None else present,
            "commonality": {},
            "action": {},
            "keep_probability": {},
            "found": {},
        }
        return Moments(
            prediction=prediction,
            share=share,
            word_share=np.array(word_share, dtype=np.float64),
            **{**given, **changes},
        )

    return make


@pytest.fixture
def clip_like():
    """Make a clip of words of half a second: ``clip_like("what a film")``."""
    return lambda text: _clip("clip", text)


@pytest.fixture
def timeline(moments_like):
    """Two utterances of scores."""
    first = moments_like(
        1.26,
        {"text": 0.9, "audio": -0.2, "vision": 0.04},
        [0.05, 0.6, -0.3],
        spread=0.25,
        commonality=_steps(text=[0.5, 0.25, 1], audio=[0, 0.5, 1], vision=[0.2, 0.2, 0.2]),
        action=_steps(text=[1, 0, 1], audio=[0, 0, 1], vision=[0.5, 1, 0]),
        found={
            "text": np.array([True, True, True]),
            "audio": np.array([True, True, True]),
            "vision": np.array([False, True, True]),
        },
    )
    second = moments_like(
        -2.0,
        {"text": -1.0, "audio": -0.5, "vision": 0.0},
        [-0.5],
        spread=0.5,
        present=("text", "audio"),
        commonality=_steps(text=[0.5], audio=[0.25, 0.75]),
        action=_steps(text=[1], audio=[0, 1]),
        found={"text": np.array([True]), "audio": np.array([True, True])},
    )
    return Timeline(
        name="film.mp4",
        task=SCORES,
        clips=(_clip("film_0", "a wonderful mess"), _clip("film_1", "<script>alert(1)</script>")),
        spans=((0.5, 2.0), (75.25, 75.75)),
        moments=(first, second),
        error=0.612,
        notes=("no <b>face</b> in any picture",),
    )
