"""CAML: what is dropped, what is taught and to whom, and a student that does without."""

import math

import pytest
import torch

from mmcl.config import ModelSettings
from mmcl.corpus.batches import drop_modalities
from mmcl.corpus.schema import Task
from mmcl.errors import ConfigError
from mmcl.models.baselines.caml import CAML, distillation_loss
from mmcl.models.baselines.late_fusion import LateFusion
from mmcl.models.mmcl import MMCL
from mmcl.models.registry import load_network

# Float32, means of a few terms of size one.
TOLERANCE = {"rtol": 0.0, "atol": 1e-5}
DIMS = {"text": 5, "audio": 3, "vision": 4}
TASKS = {
    "regression": Task(kind="regression", low=-3, high=3),
    "classes": Task(kind="classes", names=("calm", "happy", "sad")),
    "emotions": Task(kind="emotions", names=("Neutral", "Happy")),
}
TARGETS = {
    "regression": torch.tensor([1.0, -2.0, 0.5, 3.0]),
    "classes": torch.tensor([0, 2, 1, 2]),
    "emotions": torch.tensor([[0, 1], [1, 1], [0, 0], [1, 0]]),
}


def make_model(task="regression", **options):
    torch.manual_seed(7)
    options = {"width": 8, "heads": 2, "layers": 1, "dropout": 0.0, **options}
    return CAML(DIMS, TASKS[task], model=ModelSettings(name="caml", options=options))


@pytest.fixture
def features(generator):
    return {m: torch.randn(4, 3, d, generator=generator) for m, d in DIMS.items()}


def test_dropping_spares_one_modality_that_the_clip_has():
    masks = {m: torch.ones(400, 2, dtype=torch.bool) for m in DIMS}
    masks["text"][:200] = False
    masks["audio"][:100] = False
    masks["audio"][300:, 0] = False
    before = {m: mask.clone() for m, mask in masks.items()}
    torch.manual_seed(0)

    dropped = drop_modalities(masks, 0.9)

    left = torch.stack([mask.any(dim=1) for mask in dropped.values()])  # [m, b]
    assert left.any(dim=0).all()
    assert left[2, :100].all()  # vision is all that these have
    assert all(torch.equal(masks[m], before[m]) for m in DIMS)
    assert all(not (dropped[m] & ~masks[m]).any() for m in DIMS)
    # Of three, the spared one and a tenth of the two others stay: 1.2, give or take .09.
    assert left[:, 200:].sum(dim=0).float().mean().item() == pytest.approx(1.2, abs=0.15)


def test_nothing_is_dropped_at_rate_zero():
    masks = {m: torch.ones(50, 2, dtype=torch.bool) for m in DIMS}
    assert all(torch.equal(drop_modalities(masks, 0.0)[m], masks[m]) for m in DIMS)


@pytest.mark.parametrize(("epoch", "rate"), [(0, 0.0), (1, 0.2), (3, 0.6), (5, 0.6), (7, 0.6)])
def test_modalities_are_dropped_ever_more_often_over_half_the_epochs(epoch, rate):
    model = make_model(drop_rate=0.6)
    model.start_epoch(epoch, 6)
    assert model._drop_rate == pytest.approx(rate, abs=1e-12)


def test_distillation_of_scores_worked_by_hand():
    found = distillation_loss(torch.tensor([1.0, 2.0]), torch.tensor([4.0, 3.0]), temperature=None)
    assert found.item() == pytest.approx((9 + 1) / 2, abs=1e-6)


def test_distillation_of_logits_worked_by_hand():
    # Odds 1:3 against 1:1 of the student, once the temperature 2 is taken off.
    teacher = 2 * torch.tensor([[1.0, 3.0], [1.0, 1.0]]).log()
    student = torch.zeros(2, 2)
    expected = 4 * (math.log(2) + 1 / 4 * math.log(1 / 4) + 3 / 4 * math.log(3 / 4)) / 2
    found = distillation_loss(student, teacher, temperature=2.0)
    assert found.item() == pytest.approx(expected, abs=1e-6)
    by_emotion = distillation_loss(student[None], teacher[None], temperature=2.0)
    assert by_emotion.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("task", TASKS)
def test_losses_add_up(task, features):
    model = make_model(task, task_share=0.2, hidden_weight=0.7, score_weight=1.1).train()
    output, targets = model(features), TARGETS[task]
    whole = model.teacher(features)
    if task == "regression":
        own, temperature = (whole.scores - targets).abs().mean(), None
    else:
        own = -whole.scores.log_softmax(-1).gather(-1, targets.unsqueeze(-1)).mean()
        temperature = 2.0
    scores = distillation_loss(output.scores, whole.scores, temperature=temperature)
    hidden = (output.hidden - whole.hidden).square().mean()

    found = model.auxiliary_loss(output, targets, torch.arange(4))

    torch.testing.assert_close(found, own + 4 * (0.7 * hidden + 1.1 * scores), **TOLERANCE)


def test_the_student_teaches_the_teacher_nothing(features):
    def slopes(weight):
        model = make_model(hidden_weight=weight, score_weight=weight).train()
        loss = model.auxiliary_loss(model(features), TARGETS["regression"], torch.arange(4))
        loss.backward()
        return {name: p.grad for name, p in model.named_parameters()}

    weak, strong = slopes(0.1), slopes(9.0)
    assert all(torch.equal(weak[n], strong[n]) for n in weak if n.startswith("teacher."))
    name = "student.inner.weight"
    assert not torch.equal(weak[name], strong[name])


def test_the_student_alone_predicts(features):
    model = make_model().eval()
    output = model(features)
    assert torch.equal(output.scores, model.student(features).scores)
    assert model.auxiliary_loss(output, TARGETS["regression"], torch.arange(4)) == 0


@pytest.mark.parametrize(
    ("backbone", "kind"), [("late_fusion", LateFusion), ("calibrated", MMCL), ("caml", None)]
)
def test_both_networks_are_saved(backbone, kind, features, tmp_path):
    if kind is None:
        with pytest.raises(ConfigError) as caught:
            make_model(backbone=backbone)
        assert str(caught.value).splitlines()[1] == (
            "  model.options.backbone: must be a model other than \"caml\", got 'caml'"
        )
        return
    model = make_model(backbone=backbone).eval()
    model.save_pretrained(tmp_path)
    loaded = load_network(tmp_path)
    assert isinstance(loaded.teacher, kind)
    assert torch.equal(loaded(features).scores, model(features).scores)
    assert torch.equal(loaded.teacher(features).scores, model.teacher(features).scores)


def test_unknown_backbones_are_refused():
    with pytest.raises(ConfigError, match=r'^unknown model "late_fusoin"; did you mean'):
        make_model(backbone="late_fusoin")


def test_a_student_learns_to_do_without(generator):
    # Text says it all at once, audio through noise: what is left must be used as well as it can.
    score = 1.5 * torch.randn(64, generator=generator)
    features = {
        "text": score.view(-1, 1, 1) * torch.randn(5, generator=generator),
        "audio": (score + 0.3 * torch.randn(64, generator=generator))
        .view(-1, 1, 1)
        .repeat(1, 1, 3),
    }
    targets = score.clamp(-3, 3)

    def train(drop_rate):
        model = make_model(drop_rate=drop_rate).train()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        for epoch in range(40):
            model.start_epoch(epoch, 40)
            output = model(features)
            loss = (output.scores - targets).abs().mean()
            optimizer.zero_grad()
            (loss + model.auxiliary_loss(output, targets, torch.arange(64))).backward()
            optimizer.step()
        with torch.no_grad():
            found = model.eval()({"audio": features["audio"]}).scores
        return (found - targets).abs().mean().item()

    assert train(0.5) < 0.6 * train(0.0)
