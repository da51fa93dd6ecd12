"""Tests of the checks: every kind of fault, several at once, and the messages."""

import numpy as np
import pytest

from mmcl.corpus.check import Fault, fault_message, faults
from mmcl.corpus.schema import Card, Clip, Task
from mmcl.corpus.store import Corpus, pack_corpus

SCORES = Task(kind="regression", low=-1.0, high=1.0)
CLASSES = Task(kind="classes", names=("a", "b", "c"))
EMOTIONS = Task(kind="emotions", names=("a", "b"))


def clip(name="c", split="train", *, text=None, **fields):
    steps = np.ones((2, 3), dtype=np.float32) if text is None else text
    return Clip(id=name, split=split, features={"text": steps}, **fields)


def test_sound_clips_have_no_faults():
    sound = [
        clip("a", label=-1.0, modality_labels={"text": 1.0}),
        clip("b", "valid", label=None),
        clip("c", "test", label=1.0),
    ]
    assert faults(sound, SCORES) == []


@pytest.mark.parametrize(
    ("clips", "task", "lines"),
    [
        pytest.param(
            [clip(), clip(), clip()],
            SCORES,
            ['split "train": id "c" is listed 3 times'],
            id="duplicate-id",
        ),
        pytest.param(
            [clip(), clip(split="test")],
            SCORES,
            ['splits "train" and "test": id "c" is in more than one'],
            id="id-in-two-splits",
        ),
        pytest.param(
            [clip(label=1.5)], SCORES, ['split "train", clip "c": label is 1.5'], id="label-outside"
        ),
        pytest.param(
            [clip(label=float("nan"))],
            SCORES,
            ['split "train", clip "c": label is nan'],
            id="label-nan",
        ),
        pytest.param(
            [clip(modality_labels={"text": -2.0})],
            SCORES,
            ['split "train", clip "c": text label is -2'],
            id="modality-label-outside",
        ),
        pytest.param(
            [clip("a", label=3), clip("b", label=-1), clip("c", label=1.5), clip("d", label=2)],
            CLASSES,
            [
                'split "train", clip "a": label is 3',
                'split "train", clip "b": label is -1',
                'split "train", clip "c": label is 1.5',
            ],
            id="no-class",
        ),
        pytest.param(
            [clip("a", label=(0, 2)), clip("b", label=(1,)), clip("c", label=(0, 1))],
            EMOTIONS,
            [
                'split "train", clip "a": label is (0, 2)',
                'split "train", clip "b": label is (1)',
            ],
            id="no-judgements",
        ),
        pytest.param(
            [Clip(id="c", split="train", features={})],
            SCORES,
            ['split "train", clip "c": it has no steps in any modality'],
            id="zero-length",
        ),
        pytest.param(
            [clip(text=np.ones((0, 3)))],
            SCORES,
            ['split "train", clip "c": text has no steps'],
            id="present-without-steps",
        ),
        pytest.param(
            [clip("a"), clip("b", text=np.ones((2, 4)))],
            SCORES,
            ['split "train", clip "b": text is 4 wide, 3 in the clips before it'],
            id="ragged-width",
        ),
        pytest.param(
            [clip(text=np.ones(3))],
            SCORES,
            ['split "train", clip "c": text has shape [3]'],
            id="one-axis",
        ),
        pytest.param(
            [clip(text=np.array([[1.0, np.nan, np.inf]]))],
            SCORES,
            ['split "train", clip "c": text holds 2 values that are not finite'],
            id="not-finite",
        ),
    ],
)
def test_fault_is_found(clips, task, lines):
    assert [str(fault) for fault in faults(clips, task)] == lines


def test_every_fault_is_found_at_once():
    broken = [
        clip("a", label=9.0, text=np.full((1, 3), np.nan)),
        clip("a", "valid", label=float("nan")),
        Clip(id="b", split="test", features={}, label=-9.0),
    ]
    assert [str(fault) for fault in faults(broken, SCORES)] == [
        'splits "train" and "valid": id "a" is in more than one',
        'split "train", clip "a": text holds 3 values that are not finite',
        'split "train", clip "a": label is 9',
        'split "valid", clip "a": label is nan',
        'split "test", clip "b": it has no steps in any modality',
        'split "test", clip "b": label is -9',
    ]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_label_a_rounding_error_outside_is_no_fault(sign):
    assert faults([clip(label=sign * float(np.float32(1.0000001)))], SCORES) == []
    assert len(faults([clip(label=sign * 1.00001)], SCORES)) == 1


def test_corpus_whose_card_counts_otherwise():
    card = Card(name="toy", task=SCORES, dims={"text": 3}, counts={}, aligned=True)
    packed = pack_corpus(card, [clip("a", label=5.0), clip("b", "test", label=6.0)])
    wrong = Corpus(packed.card.model_copy(update={"counts": {"train": 1}}), packed._table)
    assert [str(fault) for fault in faults(packed)] == [
        'split "train", clip "a": label is 5',
        'split "test", clip "b": label is 6',
    ]
    assert str(faults(wrong)[0]) == "card: it counts 1 clips, the file holds 2"


def test_message_of_one_fault():
    fault = Fault('split "valid"', "audio has 2 clips, text has 3", "They must agree.", "First: 1.")
    assert fault_message("data/mosi.pkl", [fault]) == (
        'data/mosi.pkl, split "valid": audio has 2 clips, text has 3.\n'
        "  They must agree.\n"
        "  First: 1.\n"
        "  See them all: mmcl corpus check data/mosi.pkl"
    )


def test_message_of_many_faults_lists_ten():
    many = [Fault(f"clip {index}", "is wrong", "Be right.") for index in range(12)]
    assert fault_message("x.pkl", many) == "\n".join(
        [
            "x.pkl has 12 faults",
            *(f"  clip {index}: is wrong" for index in range(10)),
            "  and 2 more",
            "  See them all: mmcl corpus check x.pkl",
        ]
    )
    assert "more" not in fault_message("x.pkl", many[:10])
