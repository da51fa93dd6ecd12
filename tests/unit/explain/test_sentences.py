"""Sentences: what is said of a prediction, word for word."""

import pytest

from mmcl.corpus.schema import Task
from mmcl.explain.sentences import (
    brief,
    certainty,
    headline,
    label,
    rating,
    sentence,
    shared,
    strong_words,
    tint,
    words_of,
)

SCORES = Task(kind="regression", low=-3, high=3)
CLASSES = Task(kind="classes", names=("calm", "cross"))
EMOTIONS = Task(kind="emotions", names=("happy", "sad", "angry"))


@pytest.mark.parametrize(
    ("low", "high", "score", "expected"),
    [
        (-3, 3, 0.49, "neutral"),
        (-3, 3, -0.51, "rather negative"),
        (-3, 3, 1.3, "rather positive"),
        (-3, 3, 1.5, "positive"),
        (-3, 3, -2.6, "very negative"),
        (-3, 3, 7.0, "very positive"),
        (-1, 1, 0.4, "rather positive"),
        (0, 1, 0.5, "neutral"),
        (1, 5, 1.2, "very negative"),
        (-1, 3, -0.9, "very negative"),
        (-1, 3, 0.4, "neutral"),
    ],
)
def test_rating_is_relative_to_the_range(low, high, score, expected):
    assert rating(Task(kind="regression", low=low, high=high), score) == expected


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [(2.9, "positive"), (-0.6, "negative"), (0.1, "neutral"), ("cross", "neutral")],
)
def test_tint_is_of_the_sign(prediction, expected):
    assert tint(SCORES, prediction) == expected


def test_sentence_of_a_score(clip_like, moments_like):
    clip = clip_like("what a wonderful film")
    share = {"text": 0.9, "audio": -0.2, "vision": 0.0}
    moments = moments_like(1.3, share, [0.0, -0.9, 0.7, 0.2], present=("text", "audio"))
    assert sentence(SCORES, clip, moments) == (
        "Rather positive (+1.3 of −3…3). Text raised it most (+0.9), above all by “wonderful”; "
        "the voice lowered it a little; no face was found."
    )
    assert brief(SCORES, clip, moments) == "text +0.9 (wonderful), voice −0.2, no face"


@pytest.mark.parametrize(
    ("share", "present", "expected"),
    [
        pytest.param(
            {"text": 0.05, "audio": -1.2, "vision": 0.5},
            None,
            "The voice lowered it most (−1.2); the face raised it (+0.5); text hardly changed it.",
            id="voice-first",
        ),
        pytest.param(
            {"text": 0.05, "audio": 0.09, "vision": -0.5},
            None,
            "The face lowered it most (−0.5); the voice and text hardly changed it.",
            id="two-hardly",
        ),
        pytest.param(
            {"text": 0.05, "audio": -0.09},
            None,
            "No modality alone changed it much.",
            id="none-much",
        ),
        pytest.param(
            {"text": 0.0, "audio": 0.4, "vision": 0.0},
            ("audio",),
            "The voice raised it (+0.4); no words were found; no face was found.",
            id="one-alone",
        ),
        pytest.param(
            {"text": 0.2, "audio": 0.15},
            None,
            "Text raised it most (+0.2); the voice raised it a little.",
            id="little-is-most",
        ),
        pytest.param({"vision": 0.02}, None, "The face hardly changed it.", id="one-hardly"),
        pytest.param(
            {"text": 0.0, "audio": 0.0}, (), "No words were found; no voice was found.", id="none"
        ),
    ],
)
def test_sentence_says_what_drove_it(clip_like, moments_like, share, present, expected):
    moments = moments_like(0.0, share, [0.01], present=present)
    assert sentence(SCORES, clip_like("film"), moments) == f"Neutral (0.0 of −3…3). {expected}"


def test_brief_leaves_out_what_changed_little(clip_like, moments_like):
    share = {"text": 0.05, "audio": -0.2, "vision": 0.0}
    clip, moments = clip_like("a"), moments_like(1.3, share, [0.0], present=("text", "audio"))
    assert brief(SCORES, clip, moments) == "voice −0.2, no face"
    little = moments._replace(share={"text": 0.05, "audio": 0.0, "vision": 0.0})
    assert brief(SCORES, clip, little) == "none alone, no face"


def test_sentence_of_a_class(clip_like, moments_like):
    moments = moments_like("cross", {"text": 0.32, "audio": -0.03}, [0.3, 0.1])
    clip = clip_like("oh no")
    assert sentence(CLASSES, clip, moments) == (
        "Cross (71%). Text spoke for it most (+32 points), above all by “oh”; "
        "the voice spoke against it a little."
    )
    assert brief(CLASSES, clip, moments) == "text +32 (oh), voice −3"
    assert label(CLASSES, moments) == "cross 71%"


@pytest.mark.parametrize(
    ("held", "expected"),
    [(["happy", "sad"], "happy and sad 71%"), ([], "no emotion 71%")],
)
def test_label_of_emotions(moments_like, held, expected):
    assert label(EMOTIONS, moments_like(held, {"text": 0.1})) == expected


@pytest.mark.parametrize(
    ("prediction", "spread", "error", "expected"),
    [
        (1.0, 0.26, 0.612, "± 0.6 on validation, ± 0.3 between seeds"),
        (1.0, None, 0.612, "± 0.6 on validation"),
        (1.0, None, None, ""),
        ("calm", 0.256, None, "probability 71%, ± 0.26 between seeds"),
    ],
)
def test_certainty(moments_like, prediction, spread, error, expected):
    task = SCORES if isinstance(prediction, float) else CLASSES
    assert certainty(task, moments_like(prediction, {}, spread=spread), error) == expected


def test_headline_of_scores(moments_like):
    each = [moments_like(score, {}) for score in (1.0, -1.5, 2.4)]
    assert headline(SCORES, each) == (
        "3 utterances: on average rather positive (+0.6 of −3…3), from −1.5 to +2.4."
    )
    assert headline(SCORES, each[:1]) == "1 utterance: rather positive (+1.0 of −3…3)."


STARS = Task(kind="regression", low=1, high=5)
POINTS = Task(kind="regression", low=0, high=100)
SHARES_OF_ONE = Task(kind="regression", low=0, high=1)


@pytest.mark.parametrize(
    ("task", "scores", "expected"),
    [
        (STARS, (4.26,), "1 utterance: positive (4.3 of 1…5)."),
        (
            POINTS,
            (50.0, 20.4),
            "2 utterances: on average rather negative (35 of 0…100), from 20 to 50.",
        ),
        (SHARES_OF_ONE, (0.512,), "1 utterance: neutral (0.51 of 0…1)."),
        (
            Task(kind="regression", low=-50, high=50),
            (-44.0,),
            "1 utterance: very negative (−44 of −50…50).",
        ),
    ],
)
def test_scores_have_a_sign_only_where_they_can_be_negative(task, scores, expected, moments_like):
    assert headline(task, [moments_like(score, {}) for score in scores]) == expected


@pytest.mark.parametrize(
    ("task", "share", "expected"),
    [
        (STARS, 0.26, "+0.3"),
        (POINTS, 0.26, "0"),
        (POINTS, -7.6, "−8"),
        (SHARES_OF_ONE, 0.02, "+0.02"),
    ],
)
def test_share_is_as_fine_as_the_range(task, share, expected):
    assert shared(task, share) == expected


def test_certainty_is_as_fine_as_the_range(moments_like):
    moments = moments_like(0.5, {}, spread=0.026)
    assert certainty(SHARES_OF_ONE, moments, 0.112) == (
        "± 0.11 on validation, ± 0.03 between seeds"
    )


def test_headline_of_classes(moments_like):
    each = [moments_like(name, {}) for name in ("cross", "calm", "cross")]
    assert headline(CLASSES, each) == "3 utterances: 2 × cross, 1 × calm."


def test_strong_words_come_strongest_first(clip_like, moments_like):
    clip, moments = clip_like("a b c d"), moments_like(1.0, {}, [0.2, -0.6, 0.05, 0.4])
    assert strong_words(SCORES, clip, moments) == ["b", "d", "a"]
    assert strong_words(SCORES, clip, moments, toward=1.0) == ["d", "a"]
    assert strong_words(SCORES, clip, moments, toward=-0.1) == ["b"]


def test_words_are_named_only_where_each_has_a_step(clip_like, moments_like):
    assert words_of(clip_like("a b"), moments_like(1.0, {}, [1.0, 2.0])) == ["a", "b"]
    assert words_of(clip_like("a b"), moments_like(1.0, {}, [1.0, 2.0, 3.0])) == []
    written = clip_like("a b").model_copy(update={"words": None})
    assert words_of(written, moments_like(1.0, {}, [1.0, 2.0])) == ["a", "b"]


def test_share_is_in_points_where_there_are_probabilities():
    assert (shared(SCORES, -0.26), shared(CLASSES, -0.26)) == ("−0.3", "−26")
