"""Were the planted steps found? Worked by hand, then by the laws of a ranking."""

import numpy as np
import pytest

from mmcl.corpus.plant import ROLE_COMMON, ROLE_COMPLEMENTARY, ROLE_DISTRACTOR
from mmcl.corpus.schema import Card, Clip, Planted, Task
from mmcl.corpus.store import pack_corpus
from mmcl.evaluation.planted import role_metrics
from mmcl.learning.inference import Scored

MODALITIES = ("text", "audio", "vision")
WIDTHS = {"text": 1, "audio": 1, "vision": 1}
ROLES = [
    {"text": [0, 1, 2], "audio": [1, 0], "vision": [2]},
    {"text": [2, 0], "audio": [0, 1, 1, 0], "vision": [0, 0]},
]


@pytest.fixture
def split():
    card = Card(
        name="planted",
        task=Task(kind="regression", low=-3, high=3),
        dims=WIDTHS,
        counts={},
        aligned=False,
        recipe={"planted": {}},
    )
    clips = [
        Clip(
            id=str(row),
            split="train",
            label=0.0,
            features={m: np.zeros((len(r), 1), np.float32) for m, r in roles.items()},
            planted=Planted(
                roles={m: np.array(r, dtype=np.int8) for m, r in roles.items()},
                scores={"common": 0.0},
            ),
        )
        for row, roles in enumerate(ROLES)
    ]
    return pack_corpus(card, clips).split("train")


def _padded(fill, value_of):
    """Per clip [m, n] with ``fill`` in the padding, n the longest of both clips."""
    padded = []
    for roles in ROLES:
        clip = np.full((3, 4), fill, dtype=np.float32)
        for m, modality in enumerate(MODALITIES):
            steps = roles[modality]
            clip[m, : len(steps)] = [value_of(role) for role in steps]
        padded.append(clip)
    return padded


def _scored(commonality, keep):
    actions = [np.full_like(clip, 0.5) for clip in keep]
    return Scored(np.zeros(2), actions, commonality, keep)


def _aurocs(split, scored):
    found = role_metrics(split, scored, MODALITIES)
    return {key: value for key, value in found.items() if key.endswith("auroc")}


@pytest.mark.parametrize("padding", [-9.0, 9.0])
def test_steps_all_found_and_padding_not_counted(split, padding):
    scored = _scored(
        _padded(padding, lambda role: float(role == ROLE_COMMON)),
        _padded(padding, lambda role: float(role == ROLE_COMPLEMENTARY)),
    )
    assert _aurocs(split, scored) == {"common_auroc": 1.0, "action_auroc": 1.0}


def test_steps_all_taken_for_their_opposite(split):
    scored = _scored(
        _padded(0.0, lambda role: float(role != ROLE_COMMON)),
        _padded(0.0, lambda role: float(role != ROLE_COMPLEMENTARY)),
    )
    assert _aurocs(split, scored) == {"common_auroc": 0.0, "action_auroc": 0.0}


def test_no_opinion_is_chance(split):
    scored = _scored(_padded(0.0, lambda role: 0.3), _padded(0.0, lambda role: 0.3))
    assert _aurocs(split, scored) == {"common_auroc": 0.5, "action_auroc": 0.5}


def test_roles_worked_by_hand(split):
    # Roles over all real steps: 7 distractors, 4 common, 3 complementary. A score that puts
    # complementary over common over distractors finds common steps against 7 below and 3
    # above: 7 / 10; and complementary ones wholly.
    scored = _scored(_padded(0.0, float), _padded(0.0, float))
    found = _aurocs(split, scored)
    assert found == {"common_auroc": pytest.approx(0.7), "action_auroc": 1.0}


def test_modalities_go_by_name_and_only_those_used_count(split):
    # Vision alone: one complementary step and two distractors, no common one.
    keep = [clip[2:3] for clip in _padded(0.0, lambda role: float(role == ROLE_COMPLEMENTARY))]
    found = role_metrics(split, _scored(keep, keep), ("vision",))
    assert found["action_auroc"] == 1.0
    assert np.isnan(found["common_auroc"])


def test_keep_probability_is_judged_not_the_action(split):
    # A refined or drawn action of one half everywhere says nothing; what it came from does.
    keep = _padded(0.0, lambda role: 0.25 + 0.25 * (role == ROLE_COMPLEMENTARY))
    assert role_metrics(split, _scored(keep, keep), MODALITIES)["action_auroc"] == 1.0


def test_real_corpus_has_no_answer_key():
    card = Card(
        name="real",
        task=Task(kind="regression", low=-3, high=3),
        dims={"text": 1},
        counts={},
        aligned=False,
    )
    clip = Clip(id="0", split="train", features={"text": np.zeros((2, 1), np.float32)})
    real = pack_corpus(card, [clip]).split("train")
    values = [np.zeros((1, 2), np.float32)]
    assert role_metrics(real, Scored(np.zeros(1), values, values, values), ("text",)) == {}


def test_no_clip_no_metric(split):
    assert role_metrics(split.select([]), Scored(np.zeros(0), [], [], []), MODALITIES) == {}


@pytest.mark.parametrize("padding", [0.0, 1.0])
def test_kept_steps_are_counted_by_hand(split, padding):
    # Common and complementary steps are kept: 4 and 3 of 14.
    actions = _padded(padding, lambda role: 0.4 * (role != ROLE_DISTRACTOR))
    keep = _padded(0.0, float)
    found = role_metrics(split, Scored(np.zeros(2), actions, keep, keep), MODALITIES)
    assert (found["kept"], found["kept_precision"], found["kept_recall"]) == (7 / 14, 3 / 7, 1.0)


def test_precision_of_nothing_is_undefined(split):
    nothing = _padded(0.0, lambda role: 0.0)
    found = role_metrics(split, Scored(np.zeros(2), nothing, nothing, nothing), MODALITIES)
    assert (found["kept"], found["kept_recall"]) == (0.0, 0.0)
    assert np.isnan(found["kept_precision"])
