"""Means over minutes and speakers, and the utterances that stand out."""

import pytest

from mmcl.corpus.schema import Clip, Task
from mmcl.explain.timeline_means import (
    Extremes,
    Part,
    extremes,
    means_table,
    minutes,
    speaker_sentences,
    speakers,
)


@pytest.fixture
def talk(timeline, moments_like):
    """Make a recording: ``talk([(0.0, 2.0, "Anna", 1.5), ...])``, the last is the prediction."""

    def make(rows):
        return timeline._replace(
            clips=tuple(
                Clip(id=str(at), split="test", features={}, speaker=row[2])
                for at, row in enumerate(rows)
            ),
            spans=tuple((start, end) for start, end, *_ in rows),
            moments=tuple(moments_like(row[3], {}) for row in rows),
        )

    return make


def _rows(*scores):
    return [(float(at), at + 0.5, None, score) for at, score in enumerate(scores)]


# ---------------------------------------------------------------- what stands out


def test_extremes_come_strongest_first(talk):
    scores = (0.6, -0.7, 2.0, -3.0, 1.0, 0.0, -1.0, 1.5)
    assert extremes(talk(_rows(*scores))) == Extremes((2, 7, 4, 0), (3, 6, 1))


def test_extremes_are_at_most_five_and_never_neutral(talk):
    scores = (0.4, -0.4, *(1.0 + at / 10 for at in range(7)))
    assert extremes(talk(_rows(*scores))) == Extremes((8, 7, 6, 5, 4), ())


def test_few_utterances_have_no_extremes(talk):
    assert extremes(talk(_rows(*[2.0] * 7))) == Extremes((), ())
    assert len(extremes(talk(_rows(*[2.0] * 8))).positive) == 5


def test_classes_have_no_extremes(talk):
    classes = talk(_rows(*["calm"] * 9))._replace(task=Task(kind="classes", names=("calm", "x")))
    assert extremes(classes) == Extremes((), ())


# ---------------------------------------------------------------- minutes and speakers


def test_utterance_belongs_to_the_minute_of_its_middle(talk):
    parts = minutes(
        talk([(50.0, 69.9, None, 1.0), (50.0, 70.1, None, 1.0), (185.0, 187.0, None, 1.0)])
    )
    assert parts == [
        Part("0:00", 0.0, 60.0, (0,)),
        Part("1:00", 60.0, 120.0, (1,)),
        Part("2:00", 120.0, 180.0, ()),
        Part("3:00", 180.0, 240.0, (2,)),
    ]


def test_speakers_come_as_they_begin(talk):
    said = talk(
        [
            (0.0, 2.0, "Ben", 1.0),
            (3.0, 4.0, None, -3.0),
            (5.0, 9.0, "Anna", 2.0),
            (9.0, 9.5, "Ben", 2.0),
        ]
    )
    assert speakers(said) == [Part("Ben", 0.0, 9.5, (0, 3)), Part("Anna", 5.0, 9.0, (2,))]
    assert speaker_sentences(said) == [
        ("Ben", "2 utterances: on average positive (+1.5 of −3…3), from +1.0 to +2.0."),
        ("Anna", "1 utterance: positive (+2.0 of −3…3)."),
    ]


@pytest.mark.parametrize("names", [(None, None), ("Anna", "Anna"), ("Anna", None)])
def test_one_speaker_is_not_told_apart(talk, names):
    said = talk([(0.0, 1.0, names[0], 1.0), (1.0, 2.0, names[1], -1.0)])
    assert speakers(said) == []
    assert means_table(said).column("of").to_pylist() == ["recording", "minute"]


# ---------------------------------------------------------------- the table


def test_table_of_scores(talk):
    said = talk(
        [(1.0, 3.0, "Anna", 1.0), (4.0, 5.0, "Ben", -2.0), (125.0, 129.0, "Anna", 2.5)]
    )._replace(name="talk.mp4")
    table = means_table(said)
    assert table.column_names == [
        *("of", "name", "start", "end", "utterances", "seconds", "mean", "lowest", "highest")
    ]
    assert [tuple(row.values()) for row in table.to_pylist()] == [
        ("recording", "talk.mp4", 1.0, 129.0, 3, 7.0, 0.5, -2.0, 2.5),
        ("minute", "0:00", 0.0, 60.0, 2, 3.0, -0.5, -2.0, 1.0),
        ("minute", "1:00", 60.0, 120.0, 0, 0.0, None, None, None),
        ("minute", "2:00", 120.0, 180.0, 1, 4.0, 2.5, 2.5, 2.5),
        ("speaker", "Anna", 1.0, 129.0, 2, 6.0, 1.75, 1.0, 2.5),
        ("speaker", "Ben", 4.0, 5.0, 1, 1.0, -2.0, -2.0, -2.0),
    ]


def test_table_of_classes_has_probabilities(talk, moments_like):
    moments = tuple(
        moments_like(name, {}, probabilities={"calm": calm, "cross": 1 - calm})
        for name, calm in (("calm", 0.75), ("cross", 0.25), ("calm", 1.0))
    )
    said = talk([(0.0, 1.0, None, ""), (1.0, 2.0, None, ""), (130.0, 131.0, None, "")])
    task = Task(kind="classes", names=("calm", "cross"))
    rows = means_table(said._replace(task=task, moments=moments)).to_pylist()
    assert [(row["name"], row["mean_calm"], row["mean_cross"]) for row in rows] == [
        ("film.mp4", pytest.approx(2 / 3), pytest.approx(1 / 3)),
        ("0:00", 0.5, 0.5),
        ("1:00", None, None),
        ("2:00", 1.0, 0.0),
    ]
