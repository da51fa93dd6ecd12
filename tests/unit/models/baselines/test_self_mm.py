"""Self-MM: proposals and the moving of labels by hand, its losses, its state, its idea."""

import math

import pytest
import torch

from mmcl.config import ModelSettings
from mmcl.corpus.schema import Task
from mmcl.errors import ConfigError
from mmcl.models.baselines import self_mm
from mmcl.models.baselines.self_mm import PseudoLabels, SelfMM, propose_labels

# Float32, a handful of operations on numbers up to five.
TOLERANCE = {"rtol": 0.0, "atol": 1e-5}
DIMS = {"text": 5, "audio": 3, "vision": 4}
SCORE = Task(kind="regression", low=-3, high=3)
CALLS = Task(kind="emotions", names=("Neutral", "Happy"))
SMALL = {
    **{f"{m}_state": 6 for m in DIMS},
    **{f"{m}_width": 8 for m in (*DIMS, "fusion")},
    **{f"{m}_dropout": 0.0 for m in DIMS},
}


def make_model(task=SCORE, **options):
    torch.manual_seed(7)
    settings = ModelSettings(name="self_mm", options={**SMALL, **options})
    return SelfMM(DIMS, task, model=settings)


@pytest.fixture
def features(generator):
    return {m: torch.randn(4, 3, d, generator=generator) for m, d in DIMS.items()}


@pytest.fixture
def labels():
    """Four clips seen once, and one without a label."""
    targets = torch.tensor([2.0, -1.0, 0.5, -3.0, math.nan])
    held = PseudoLabels(targets, ("text",), low=-3.0, high=3.0)
    seen = {
        "text": torch.tensor([[1.0], [-1.0], [3.0], [-3.0]]),  # centres 2 and -2
        "fusion": torch.tensor([[2.0], [0.0], [4.0], [-2.0]]),  # centres 3 and -1
    }
    held.advance(torch.arange(4), seen, {"text": torch.ones(4, dtype=torch.bool)}, epoch=1)
    return held


BATCH = {"text": torch.tensor([[1.0], [-1.0]]), "fusion": torch.tensor([[1.5], [-0.5]])}
# Text leans 2 and -2/3, the fused features 2/3 and -6/7. Clip 0: ratio 3, so that
# (3 * 2 + 2 + 2 - 2/3) / 2 = 4.7 is cut to 3. Clip 1: ratio 7/9.
SECOND = (-7 / 9 - 1 - 2 / 3 + 6 / 7) / 2
BOTH = {"text": torch.tensor([True, True])}


def test_labels_start_as_the_clips_own(labels):
    assert labels.of("text", torch.tensor([3, 0])).tolist() == [-3.0, 2.0]


@pytest.mark.parametrize(("epoch", "share"), [(2, 2 / 3), (3, 1 / 2), (9, 1 / 5)])
def test_labels_move_as_worked_by_hand(labels, epoch, share):
    labels.advance(torch.tensor([0, 1]), BATCH, BOTH, epoch=epoch)
    expected = [2 + share * (3 - 2), -1 + share * (SECOND + 1), 0.5, -3]
    found = labels.of("text", torch.arange(4))
    torch.testing.assert_close(found, torch.tensor(expected), **TOLERANCE)


def test_labels_lie_around_the_middle_of_their_range():
    def moved(low, high):
        middle = (low + high) / 2
        targets = torch.tensor([2.0, -1.0, 0.5, -3.0]) + middle
        held = PseudoLabels(targets, ("text",), low=low, high=high)
        rows, every = torch.arange(4), {"text": torch.ones(4, dtype=torch.bool)}
        x = torch.tensor([[1.0], [-1.0], [3.0], [-3.0]])
        held.advance(rows, {"text": x, "fusion": x}, every, epoch=1)
        held.advance(rows, {"text": x.flip(0), "fusion": x}, every, epoch=2)
        return held.of("text", rows) - middle

    torch.testing.assert_close(moved(2.0, 8.0), moved(-3.0, 3.0), **TOLERANCE)


def test_nothing_moves_in_the_first_epoch(labels):
    labels.advance(torch.tensor([0, 1]), BATCH, BOTH, epoch=1)
    assert labels.of("text", torch.arange(4)).tolist() == [2.0, -1.0, 0.5, -3.0]


def test_nothing_moves_while_a_centre_is_of_no_clip():
    held = PseudoLabels(torch.tensor([2.0, 1.0, -1.0]), ("text",), low=-3.0, high=3.0)
    rows, every = torch.tensor([0, 1]), {"text": torch.ones(2, dtype=torch.bool)}
    for epoch in (1, 2, 3):  # the only negative clip is never seen
        held.advance(rows, BATCH, every, epoch=epoch)
    assert held.of("text", torch.arange(3)).tolist() == [2.0, 1.0, -1.0]


def test_an_absent_modality_is_neither_kept_nor_moved(labels):
    before = labels.features["text"].clone()
    batch = {**BATCH, "text": torch.tensor([[7.0], [-1.0]])}
    labels.advance(torch.tensor([0, 1]), batch, {"text": torch.tensor([False, True])}, epoch=3)
    found = labels.of("text", torch.tensor([0, 1]))
    torch.testing.assert_close(found, torch.tensor([2.0, (SECOND - 1) / 2]), **TOLERANCE)
    assert labels.features["text"][0] == before[0]
    assert labels.features["text"][1] == BATCH["text"][1]


def test_centres_are_of_clips_that_were_seen():
    # Clip 2 is positive and unseen: were it taken as 0, the positive centre would be .5.
    held = PseudoLabels(torch.tensor([1.0, -1.0, 2.0]), ("text",), low=-3.0, high=3.0)
    x = {"text": torch.tensor([[1.0], [-1.0]]), "fusion": torch.tensor([[1.0], [-1.0]])}
    held.advance(torch.tensor([0, 1]), x, BOTH, epoch=1)
    assert held._lean("text", torch.tensor([[3.0]])).tolist() == pytest.approx([1.0], abs=1e-6)
    # A modality's centres go by its own labels, those of the fused features by the clips'.
    held.labels["text"] = -held.labels["text"]
    x = torch.tensor([[3.0]])
    assert held._lean("text", x).tolist() == pytest.approx([-0.5], abs=1e-6)
    assert held._lean("fusion", x).tolist() == pytest.approx([1.0], abs=1e-6)


def test_a_proposal_stays_calm_where_the_fused_features_lean_nowhere():
    human = torch.tensor([1.0, 1.0, -2.0])
    lean = torch.tensor([0.5, 0.5, 0.25])
    fused = torch.tensor([0.0, -1e-9, 0.05])
    found = propose_labels(human, lean, fused)
    torch.testing.assert_close(found, torch.tensor([1.5, 1.5, -1.8]), **TOLERANCE)


def test_single_heads_are_taught_by_how_far_their_label_departed(features):
    model = make_model().train()
    targets, rows = torch.tensor([1.0, -2.0, 0.5, 3.0]), torch.tensor([3, 1, 0, 2])
    every = torch.zeros(5)
    every[rows] = targets
    model.prepare_training(every)
    output = model(features)
    assert model.auxiliary_loss(output, targets, rows) == 0  # epoch 1: no label has departed

    departed = {m: torch.randn(5) for m in DIMS}
    model.pseudo_labels.labels = {m: x.clone() for m, x in departed.items()}
    expected = sum(
        abs(output.extras[f"{m}_scores"][i].item() - departed[m][row].item())
        * math.tanh(abs(departed[m][row].item() - targets[i].item()))
        for m in DIMS
        for i, row in enumerate(rows.tolist())
    )
    found = model.auxiliary_loss(output, targets, rows)
    assert found.item() == pytest.approx(expected / 4, abs=1e-5)


def test_classes_are_taught_by_the_clips_own_label(features):
    model = make_model(CALLS, unimodal_weight=0.3).train()
    targets, rows = torch.tensor([[1, 0], [0, 1], [1, 1], [0, 0]]), torch.arange(4)
    model.prepare_training(targets)
    masks = {m: torch.ones(4, 3, dtype=torch.bool) for m in DIMS}
    masks["audio"][2] = False
    output = model(features, masks)
    expected = 0.0
    for m in DIMS:
        chances = output.extras[f"{m}_scores"].softmax(dim=-1)
        for i in range(4):
            if m == "audio" and i == 2:
                continue
            expected -= sum(chances[i, e, targets[i, e]].log().item() / 2 for e in range(2))
    found = model.auxiliary_loss(output, targets, rows)
    assert found.item() == pytest.approx(0.3 * expected / 4, abs=1e-5)
    assert model.training_state() == {}


def test_evaluation_moves_no_label(features):
    model = make_model()
    targets = torch.tensor([1.0, -2.0, 0.5, 3.0])
    model.prepare_training(targets)
    model.eval()
    model.auxiliary_loss(model(features), targets, torch.arange(4))
    assert not model.pseudo_labels.features


def test_state_goes_on_where_it_stopped(features):
    targets, rows = torch.tensor([1.0, -2.0, 0.5, 3.0]), torch.arange(4)
    models = [make_model().train(), make_model().train()]
    for model in models:
        model.prepare_training(targets)

    def advance(model, epoch):
        model.start_epoch(epoch, 5)
        scaled = {m: x * (1 + epoch) for m, x in features.items()}
        model.auxiliary_loss(model(scaled), targets, rows)

    advance(models[0], 0)
    assert torch.equal(models[0].pseudo_labels.labels["text"], targets)
    advance(models[0], 1)
    assert not torch.equal(models[0].pseudo_labels.labels["text"], targets)
    models[1].load_training_state(models[0].training_state())
    for model in models:
        advance(model, 2)

    first, second = (model.pseudo_labels.labels for model in models)
    assert all(torch.equal(first[m], second[m]) for m in DIMS)


def test_clips_of_all_processes_are_joined(monkeypatch):
    def share(*rows):
        features = {"text": torch.tensor([[float(row)] for row in rows])}
        return torch.tensor(rows), features, {"text": torch.tensor([row > 1 for row in rows])}

    class TwoProcesses:
        is_available = is_initialized = staticmethod(lambda: True)
        get_world_size = staticmethod(lambda: 2)

        @staticmethod
        def all_gather_object(shares, own):
            shares[:] = [own, share(4)]

    assert self_mm._gather_clips(*share(3, 1))[0].tolist() == [3, 1]
    monkeypatch.setattr(self_mm, "distributed", TwoProcesses)
    rows, features, present = self_mm._gather_clips(*share(3, 1))
    assert rows.tolist() == [3, 1, 4]
    assert features["text"].tolist() == [[3.0], [1.0], [4.0]]
    assert present["text"].tolist() == [True, False, True]


def test_saved_weights_hold_no_training_clip(features):
    model = make_model().train()
    names = set(model.state_dict())
    model.prepare_training(torch.tensor([1.0, -2.0, 0.5, 3.0]))
    model.auxiliary_loss(model(features), torch.tensor([1.0, -2.0, 0.5, 3.0]), torch.arange(4))
    assert set(model.state_dict()) == names


def test_options_are_refused():
    with pytest.raises(ConfigError) as caught:
        make_model(audio_dropout=1.0, text_stat=3)
    assert str(caught.value) == (
        "options of self_mm have 2 problems\n"
        "  model.options.audio_dropout: must be less than 1, got 1.0\n"
        '  model.options.text_stat: unknown key; did you mean "text_state"?\n'
        "  Options of self_mm: text_state, audio_state, vision_state, text_width, audio_width, "
        "vision_width, fusion_width, text_dropout, audio_dropout, vision_dropout, "
        "fusion_dropout, unimodal_weight"
    )


def test_labels_find_what_each_modality_says_itself():
    # The clip's score is what text says plus what audio says; nobody tells either alone.
    generator = torch.Generator().manual_seed(5)
    said = 1.2 * torch.randn(2, 64, generator=generator)
    features = {
        m: (said[i].unsqueeze(1) * torch.randn(DIMS[m], generator=generator)).unsqueeze(1)
        for i, m in enumerate(("text", "audio"))
    }
    targets, rows = said.sum(dim=0).clamp(-3, 3), torch.arange(64)
    model = make_model().train()
    model.prepare_training(targets)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for epoch in range(40):
        model.start_epoch(epoch, 40)
        output = model(features)
        loss = (output.scores - targets).abs().mean()
        optimizer.zero_grad()
        (loss + model.auxiliary_loss(output, targets, rows)).backward()
        optimizer.step()

    text, audio = (model.pseudo_labels.of(m, rows) for m in ("text", "audio"))
    both = torch.stack([text - audio, said[0] - said[1]])
    assert loss.item() < 0.6 * targets.abs().mean().item()
    assert torch.corrcoef(both)[0, 1] > 0.5  # 0 at the start, where both are the clip's
