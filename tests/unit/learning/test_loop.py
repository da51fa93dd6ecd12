"""The loop: it learns, the same seed learns the same, and validation alone chooses."""

import csv
import json
import math
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch

from mmcl.config import LearningSettings
from mmcl.corpus import batches
from mmcl.corpus.batches import drop_modalities
from mmcl.corpus.check import corpus_clips
from mmcl.corpus.plant import PlantSettings, plant_clips, plant_corpus
from mmcl.corpus.store import pack_corpus
from mmcl.errors import ConfigError, DatasetError, RunError, TrainingError
from mmcl.learning import loop
from mmcl.learning.checkpoints import load_state, save_state
from mmcl.learning.fitted import read_fitted
from mmcl.learning.history import EpochRow, read_history
from mmcl.learning.inference import score_split, targets_of, validation_loss
from mmcl.learning.loop import build_model, fit
from mmcl.learning.schedule import Schedule

KINDS = ("task", "rloo", "ddpg", "ones", "random")


@pytest.fixture(scope="session")
def development(tiny_corpus):
    return tiny_corpus.development()


def _weights(fitted):
    return {name: value.clone() for name, value in fitted.model.state_dict().items()}


def _identical(one, other):
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def _untimed(history):
    return [row._replace(clips_per_second=0.0) for row in history]


# ---------------------------------------------------------------- learning


@pytest.mark.parametrize("kind", ["task", "rloo"])
def test_eight_clips_are_learnt_by_heart(tmp_path, tiny_config, kind):
    corpus = plant_corpus(PlantSettings(train=8, valid=8, test=1))
    config = tiny_config(
        f"policy.kind={kind}",
        "model.width=16",
        "model.dropout=0",
        "model.head_dropout=0",
        "learning.epochs=60",
        "learning.patience=60",
        "learning.learning_rate=0.01",
        "learning.alignment_weight=0",
        "learning.weight_decay=0",
    )
    fitted = fit(corpus.development(), config, seed=1, folder=tmp_path)
    labels = corpus.split("train").labels()
    constant = np.abs(labels - np.median(labels)).mean()
    # A model that ignores its input cannot get below the constant's error.
    assert min(row.task_loss for row in fitted.history) < 0.3 * constant


def test_a_step_size_of_nearly_nothing_learns_nothing(tmp_path, development, tiny_config):
    # The wrong setting that must miss: where the test above could pass without learning.
    config = tiny_config("learning.learning_rate=1e-9", "learning.epochs=1", "policy.kind=task")
    model = build_model(development, config)
    fitted = fit(development, config, seed=1, folder=tmp_path)
    split = development.split("train")
    labels = split.labels()
    loss = validation_loss(fitted.model, split, np.arange(24), targets_of(split), 24)
    assert loss > 0.8 * np.abs(labels - np.median(labels)).mean()
    assert _weights(fitted).keys() == model.state_dict().keys()


# ---------------------------------------------------------------- the same seed


@pytest.mark.parametrize(
    ("variant", "kind"), [("calibrated", "task"), ("calibrated", "rloo"), ("released", "ddpg")]
)
def test_same_seed_same_weights_and_another_seed_others(
    tmp_path, development, tiny_config, variant, kind
):
    config = tiny_config(f"policy.kind={kind}", "learning.modality_dropout=0.2", model=variant)
    one, same, other = (
        fit(development, config, seed=seed, folder=tmp_path / name)
        for name, seed in (("one", 1), ("same", 1), ("other", 2))
    )
    assert _identical(_weights(one), _weights(same))
    assert _untimed(one.history) == _untimed(same.history)
    assert one.best_epoch == same.best_epoch
    assert not _identical(_weights(one), _weights(other))


def test_every_epoch_and_seed_has_an_order_of_its_own(
    tmp_path, development, tiny_config, monkeypatch
):
    from mmcl.learning.learner import PolicyLearner

    seen = []
    step = PolicyLearner.step
    monkeypatch.setattr(
        PolicyLearner, "step", lambda self, b: (seen.extend(b.rows.tolist()), step(self, b))[1]
    )
    for seed in (1, 2):
        fit(development, tiny_config("policy.kind=task"), seed=seed, folder=tmp_path / str(seed))
    orders = [tuple(seen[start : start + 24]) for start in range(0, 96, 24)]
    assert all(sorted(order) == list(range(24)) for order in orders)
    assert len(set(orders)) == 4


def test_what_was_drawn_before_does_not_matter(tmp_path, development, tiny_config):
    one = fit(development, tiny_config(), seed=1, folder=tmp_path / "one")
    torch.rand(7)
    np.random.rand(7)
    same = fit(development, tiny_config(), seed=1, folder=tmp_path / "same")
    assert _identical(_weights(one), _weights(same))


def test_result_is_what_the_folder_holds(tmp_path, development, tiny_config):
    fitted = fit(development, tiny_config(), seed=1, folder=tmp_path)
    again = read_fitted(tmp_path)
    assert _identical(_weights(fitted), _weights(again))
    assert fitted.history == again.history
    assert fitted[2:] == again[2:]
    assert not fitted.model.training
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "checkpoint.safetensors",
        "done.json",
        "history.csv",
        "model",
    ]


# ---------------------------------------------------------------- choosing on validation


@pytest.fixture
def scripted(monkeypatch):
    """Let the validation losses follow a script; remember the weights they were given to."""
    seen = []

    def play(*losses):
        def loss(model, *_, **__):
            seen.append({k: v.clone() for k, v in model.state_dict().items()})
            return losses[len(seen) - 1]

        monkeypatch.setattr(loop, "validation_loss", loss)
        return seen

    return play


def test_best_epoch_is_kept_and_patience_counted(tmp_path, development, tiny_config, scripted):
    seen = scripted(3.0, 2.0, 2.5, 1.0, 1.5, 1.0, 1.25, 0.5)
    config = tiny_config("learning.epochs=8", "learning.patience=3")
    fitted = fit(development, config, seed=1, folder=tmp_path)
    # Epoch 3 is best; an equal loss at 5 is no improvement; 4, 5 and 6 are three epochs of waiting.
    assert fitted.best_epoch == 3
    assert len(fitted.history) == 7
    assert [row.valid_loss for row in fitted.history] == [3.0, 2.0, 2.5, 1.0, 1.5, 1.0, 1.25]
    assert _identical(_weights(fitted), seen[3])
    assert not _identical(seen[3], seen[6])
    assert json.loads((tmp_path / "done.json").read_text()) == {
        "seed": 1,
        "best_epoch": 3,
        "best_valid_loss": 1.0,
        "clips": 24,
        "never_seen": [],
    }


def test_last_epoch_can_be_the_best(tmp_path, development, tiny_config, scripted):
    seen = scripted(3.0, 2.0, 1.0)
    config = tiny_config("learning.epochs=3", "learning.patience=1")
    fitted = fit(development, config, seed=1, folder=tmp_path)
    assert (fitted.best_epoch, len(fitted.history)) == (2, 3)
    assert _identical(_weights(fitted), seen[2])


def test_validation_loss_is_a_mean_over_clips(development, tiny_config):
    model = build_model(development, tiny_config())
    split = development.split("valid")
    rows, targets = np.arange(8), targets_of(split)
    by_three = validation_loss(model, split, rows, targets, 3)
    with torch.no_grad():
        alone = [validation_loss(model, split, np.array([r]), targets, 1) for r in rows]
    # float32 scores of other batch shapes: a few ulps of numbers about 1.
    assert by_three == pytest.approx(validation_loss(model, split, rows, targets, 8), abs=1e-6)
    assert by_three == pytest.approx(np.mean(alone), abs=1e-6)
    of_batches = np.mean([np.mean(alone[:3]), np.mean(alone[3:6]), np.mean(alone[6:])])
    assert abs(by_three - of_batches) > 1e-3  # the mean over batches would be another number


def test_validation_does_not_change_the_mode_or_the_weights(development, tiny_config):
    model = build_model(development, tiny_config()).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    split = development.split("valid")
    validation_loss(model, split, np.arange(8), targets_of(split), 3)
    assert model.training
    assert _identical(before, model.state_dict())


def test_size_of_evaluation_batches_changes_no_weight(tmp_path, development, tiny_config):
    fitted = [
        fit(
            development,
            tiny_config(f"evaluation.batch_size={size}"),
            seed=1,
            folder=tmp_path / str(size),
        )
        for size in (3, 8)
    ]
    assert _identical(*(_weights(each) for each in fitted))


# ---------------------------------------------------------------- what is refused


def test_corpus_with_test_clips_is_refused(tmp_path, tiny_corpus, tiny_config):
    with pytest.raises(DatasetError) as caught:
        fit(tiny_corpus, tiny_config(), seed=1, folder=tmp_path / "run")
    assert str(caught.value) == ("fit takes a corpus without test clips: pass corpus.development()")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("split", "count"), [("train", 24), ("valid", 8)])
def test_split_without_labels_is_refused(
    tmp_path, tiny_corpus, tiny_settings, split, count, tiny_config
):
    clips = [
        clip.model_copy(update={"label": None}) if clip.split == split else clip
        for clip in plant_clips(tiny_settings)
    ]
    corpus = pack_corpus(tiny_corpus.card, clips).development()
    with pytest.raises(DatasetError) as caught:
        fit(corpus, tiny_config(), seed=1, folder=tmp_path)
    assert str(caught.value) == (
        f'planted, split "{split}": no clip with a label ({count} clips).\n'
        "  Training needs labelled clips to learn from and others to choose by.\n"
        "  See what there is: mmcl corpus describe CORPUS"
    )


@pytest.mark.parametrize("task", ["regression", "classes", "emotions"])
def test_corpus_without_validation_clips_is_refused(tmp_path, planted, tiny_config, task):
    corpus = planted(task=task)
    alone = pack_corpus(corpus.card, corpus.split("train").clips())
    with pytest.raises(DatasetError) as caught:
        fit(alone, tiny_config(), seed=1, folder=tmp_path)
    assert str(caught.value) == (
        'planted, split "valid": no clip with a label (0 clips).\n'
        "  Training needs labelled clips to learn from and others to choose by.\n"
        "  See what there is: mmcl corpus describe CORPUS"
    )


def test_clips_without_a_label_are_left_out(tmp_path, tiny_corpus, tiny_settings, tiny_config):
    def without(clip):
        hidden = clip.split == "train" and int(clip.id[-6:]) % 2
        return clip.model_copy(update={"label": None}) if hidden else clip

    corpus = pack_corpus(tiny_corpus.card, map(without, plant_clips(tiny_settings)))
    fitted = fit(corpus.development(), tiny_config(), seed=1, folder=tmp_path)
    assert all(math.isfinite(row.loss) for row in fitted.history)


def test_loss_that_is_not_finite_stops(tmp_path, development, tiny_config, monkeypatch):
    from mmcl.learning import learner

    calls = []
    original = learner.item_losses

    def spoiled(*given):
        calls.append(1)
        return original(*given) * (math.nan if len(calls) == 2 else 1.0)

    monkeypatch.setattr(learner, "item_losses", spoiled)
    with pytest.raises(TrainingError) as caught:
        fit(development, tiny_config("policy.kind=task"), seed=1, folder=tmp_path)
    assert str(caught.value) == (
        "the loss is nan at epoch 1, step 2.\n"
        "  Lower the step size: --set learning.learning_rate=0.0001\n"
        "  Look for faults in the corpus: mmcl corpus check CORPUS"
    )
    assert not list(tmp_path.iterdir())


def test_validation_loss_that_is_not_finite_stops(tmp_path, development, tiny_config, scripted):
    scripted(1.0, math.nan)
    with pytest.raises(TrainingError) as caught:
        fit(development, tiny_config(), seed=1, folder=tmp_path)
    assert str(caught.value) == (
        "the validation loss is nan after epoch 2.\n"
        "  Lower the step size: --set learning.learning_rate=0.0001\n"
        "  Look for faults in the corpus: mmcl corpus check CORPUS"
    )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        pytest.param(
            ("policy.reward=separate", "policy.kind=ddpg"),
            'policy.reward "separate" needs policy.kind "rloo", got "ddpg": the DDPG critic is '
            "joint\n  Use: --set policy.kind=rloo",
            id="separate",
        ),
        pytest.param(
            ("policy.reward=as-released",),
            'policy.reward "as-released" exists for emotions only, the corpus has regression\n'
            "  Use: --set policy.reward=joint",
            id="as-released",
        ),
    ],
)
def test_reward_that_does_not_exist_is_refused(
    tmp_path, development, tiny_config, overrides, message
):
    with pytest.raises(ConfigError) as caught:
        fit(development, tiny_config(*overrides), seed=1, folder=tmp_path)
    assert str(caught.value) == message


# ---------------------------------------------------------------- modality dropout


@pytest.fixture
def batch(development):
    from mmcl.corpus.batches import collate

    split = development.split("train")
    found = collate(split, [0, 1, 2, 3] * 50, ("text", "audio", "vision"))
    found.masks["text"][0::4] = False  # clip 0 has two modalities, clip 1 has one
    found.masks["audio"][1::4] = False
    found.masks["vision"][1::4] = False
    return found


def test_modality_dropout_always_leaves_one_that_the_clip_has(batch):
    torch.manual_seed(5)
    for rate in (0.3, 0.99):
        dropped = batch._replace(masks=drop_modalities(batch.masks, rate))
        after = torch.stack([mask.any(dim=1) for mask in dropped.masks.values()])
        before = torch.stack([mask.any(dim=1) for mask in batch.masks.values()])
        assert after.any(dim=0).all()
        assert not (after & ~before).any()
        assert (after.sum(dim=0) < before.sum(dim=0)).any()
        kept = dict(zip(dropped.masks, after, strict=True))
        for modality, mask in dropped.masks.items():  # a modality goes whole or not at all
            whole = batch.masks[modality] & kept[modality].unsqueeze(1)
            assert torch.equal(mask, whole)


def test_modality_dropout_spares_no_modality_more_than_another(batch):
    torch.manual_seed(5)
    kept = torch.zeros(3)
    for _ in range(20):
        dropped = batch._replace(masks=drop_modalities(batch.masks, 0.5))
        full = torch.arange(200) % 4 >= 2  # the clips that have all three
        kept += torch.stack([m.any(dim=1)[full] for m in dropped.masks.values()]).sum(dim=1)
    # Kept with chance 1/2 + 1/2 * 1/3 = 2/3; of 2000 draws the s.d. is .011.
    assert (kept / 2000 - 2 / 3).abs().max() < 0.04


# ---------------------------------------------------------------- schedules


class _Optimizer:
    def __init__(self):
        self.param_groups = [{"lr": 0.1}, {"lr": 0.1}]


def _rates(losses, **settings):
    optimizer = _Optimizer()
    schedule = Schedule(optimizer, LearningSettings(learning_rate=0.1, **settings))
    rates = []
    for epoch, loss in enumerate(losses):
        rates.append(schedule.start_epoch(epoch))
        assert [group["lr"] for group in optimizer.param_groups] == [rates[-1]] * 2
        schedule.end_epoch(loss)
    return rates


def test_constant_schedule():
    assert _rates([3, 3, 3, 3], schedule="constant", plateau_patience=1) == [0.1] * 4


def test_cosine_schedule():
    found = _rates([1] * 4, schedule="cosine", epochs=4)
    # Half of 1 + cos of 0, 45, 90 and 135 degrees.
    expected = [0.1, 0.05 * (1 + math.sqrt(0.5)), 0.05, 0.05 * (1 - math.sqrt(0.5))]
    assert found == pytest.approx(expected, abs=1e-12)


def test_plateau_schedule():
    # Two epochs of patience: the third without improvement shrinks the step, and waiting
    # begins anew; an equal loss is no improvement.
    losses = [2, 1, 1, 3, 1, 0.5, 1, 1, 1, 1]
    found = _rates(losses, schedule="plateau", plateau_patience=2, plateau_factor=0.5)
    assert found == pytest.approx([0.1] * 5 + [0.05] * 4 + [0.025], abs=1e-12)


def test_encoder_of_words_warms_up_and_follows_the_schedule():
    optimizer = _Optimizer()
    optimizer.param_groups[1] |= {"lr": 0.01, "warms_up": True}
    schedule = Schedule(optimizer, LearningSettings(learning_rate=0.1, epochs=2), warmup=0.25)
    rates = []
    for epoch in range(2):
        schedule.start_epoch(epoch)
        for step in range(4):
            schedule.start_step(4 * epoch + step, 8)
            rates.append([group["lr"] for group in optimizer.param_groups])
    # Two of eight steps warm up; in the second of two epochs a cosine is at one half.
    expected = [[0.1, 0.005], [0.1, 0.01], [0.1, 0.01], [0.1, 0.01]] + [[0.05, 0.005]] * 4
    np.testing.assert_allclose(rates, expected, rtol=0, atol=1e-12)


def test_schedule_goes_on_from_its_state():
    settings = LearningSettings(schedule="plateau", plateau_patience=1, plateau_factor=0.5)
    one, other = (Schedule(_Optimizer(), settings) for _ in range(2))
    for loss in (1.0, 2.0):
        one.end_epoch(loss)
    other.load_state_dict(one.state_dict())
    for schedule in (one, other):
        schedule.end_epoch(2.0)
    assert one.state_dict() == other.state_dict() == {"factor": 0.5, "best": 1.0, "waited": 0}


@pytest.mark.parametrize("schedule", ["constant", "cosine", "plateau"])
def test_history_tells_the_step_size(tmp_path, development, tiny_config, schedule):
    config = tiny_config(f"learning.schedule={schedule}")
    fitted = fit(development, config, seed=1, folder=tmp_path)
    second = 0.0005 if schedule == "cosine" else 0.001
    assert [row.learning_rate for row in fitted.history] == pytest.approx([0.001, second])


# ---------------------------------------------------------------- history and progress


def test_history_has_a_row_per_epoch(tmp_path, development, tiny_config):
    fitted = fit(development, tiny_config("learning.epochs=3"), seed=1, folder=tmp_path)
    with (tmp_path / "history.csv").open(newline="") as file:
        head, *rows = csv.reader(file)
    assert head == [
        "epoch",
        "loss",
        "task_loss",
        "alignment_loss",
        "critic_loss",
        "reward",
        "mean_action",
        "valid_loss",
        "learning_rate",
        "clips_per_second",
    ]
    assert [row[0] for row in rows] == ["0", "1", "2"]
    assert fitted.history == [EpochRow(int(e), *map(float, rest)) for e, *rest in rows]
    assert fitted.clips_per_second == np.median([row.clips_per_second for row in fitted.history])
    assert fitted.clips_per_second > 0


def test_history_is_a_mean_over_clips(tmp_path, development, tiny_config, monkeypatch):
    # 24 clips in batches of 16 and 8: the first counts twice.
    from mmcl.learning.learner import PolicyLearner, StepReport

    reports = iter([StepReport(1.0, *[0.0] * 5), StepReport(4.0, *[0.0] * 5)])
    monkeypatch.setattr(PolicyLearner, "step", lambda self, batch: next(reports))
    config = tiny_config("learning.batch_size=16", "learning.epochs=1", "policy.kind=task")
    fitted = fit(development, config, seed=1, folder=tmp_path)
    assert fitted.history[0].loss == pytest.approx(2.0)


def test_progress_is_told_of_steps_and_epochs(tmp_path, development, tiny_config):
    told = []
    config = tiny_config("learning.batch_size=16")
    fit(
        development,
        config,
        seed=1,
        folder=tmp_path,
        progress=lambda *given: told.append(given),
    )
    assert [given[:3] for given in told] == [
        ("epoch 1", 1, 2),
        ("epoch 1", 2, 2),
        ("epochs", 1, 2),
        ("epoch 2", 1, 2),
        ("epoch 2", 2, 2),
        ("epochs", 2, 2),
    ]
    assert {"loss", "reward", "mean_action"} <= set(told[0][3])
    assert {"valid_loss", "clips_per_second"} <= set(told[2][3])


def test_drop_last_leaves_out_the_smaller_batch(tmp_path, development, tiny_config, monkeypatch):
    from mmcl.learning.learner import PolicyLearner

    sizes = []
    step = PolicyLearner.step
    monkeypatch.setattr(
        PolicyLearner, "step", lambda self, b: (sizes.append(len(b.rows)), step(self, b))[1]
    )
    for drop in ("false", "true"):
        config = tiny_config(
            "learning.batch_size=10",
            "learning.epochs=1",
            f"learning.drop_last={drop}",
            "policy.kind=task",
        )
        fit(development, config, seed=1, folder=tmp_path / drop)
    assert sizes == [10, 10, 4, 10, 10]


def test_tensorboard_files_are_written(tmp_path, development, tiny_config):
    pytest.importorskip("tensorboard")
    config = tiny_config("runtime.tensorboard=true", "learning.epochs=1")
    fit(development, config, seed=1, folder=tmp_path)
    assert list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))


def test_missing_tensorboard_is_named(tmp_path, development, tiny_config, monkeypatch):
    from mmcl.errors import MissingExtraError

    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(MissingExtraError) as caught:
        fit(development, tiny_config("runtime.tensorboard=true"), seed=1, folder=tmp_path)
    assert str(caught.value) == (
        "writing TensorBoard files needs tensorboard, which is not installed.\n"
        '  Install it: pip install "mmcl[track]"'
    )


# ---------------------------------------------------------------- memory


@pytest.mark.parametrize(
    ("batch_size", "message"),
    [
        pytest.param(
            8,
            "a batch of 8 clips of up to 20 steps does not fit into memory.\n"
            "  Lower it: --set learning.batch_size=4\n",
            id="batch",
        ),
        pytest.param(
            1,
            "a batch of 1 clip of up to 20 steps does not fit into memory.\n"
            "  Lower it: --set model.width=4, or cut the clips\n",
            id="clip",
        ),
    ],
)
def test_batch_that_does_not_fit_is_answered_with_what_to_lower(
    tmp_path, development, tiny_config, monkeypatch, batch_size, message
):
    from mmcl.learning.learner import PolicyLearner

    # What torch itself raises for a petabyte.
    monkeypatch.setattr(PolicyLearner, "step", lambda self, batch: torch.empty(1 << 50))
    config = tiny_config(f"learning.batch_size={batch_size}")
    with pytest.raises(TrainingError) as caught:
        fit(development, config, seed=1, folder=tmp_path)
    assert str(caught.value) == (
        message + "  See how long the clips are: mmcl corpus describe CORPUS"
    )


@pytest.mark.parametrize(
    "said",
    [
        "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory",
        "[enforce fail at alloc_cpu.cpp:121] data. DefaultCPUAllocator: not enough memory",
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    ],
)
def test_every_way_to_run_out_of_memory_is_understood(
    tmp_path, development, tiny_config, monkeypatch, said
):
    from mmcl.learning.learner import PolicyLearner

    def step(self, batch):
        raise RuntimeError(said)

    monkeypatch.setattr(PolicyLearner, "step", step)
    with pytest.raises(TrainingError, match="does not fit into memory"):
        fit(development, tiny_config(), seed=1, folder=tmp_path)


def test_other_faults_of_a_step_are_not_taken_for_want_of_memory(
    tmp_path, development, tiny_config, monkeypatch
):
    from mmcl.learning.learner import PolicyLearner

    monkeypatch.setattr(PolicyLearner, "step", lambda self, batch: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        fit(development, tiny_config(), seed=1, folder=tmp_path)


# ---------------------------------------------------------------- every kind, task and shape


@pytest.mark.parametrize("aligned", [True, False], ids=["aligned", "unaligned"])
@pytest.mark.parametrize("variant", ["calibrated", "released"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_policy_trains(tmp_path, planted, tiny_config, kind, variant, aligned):
    config = tiny_config(f"policy.kind={kind}", "policy.refinement_steps=2", model=variant)
    fitted = fit(planted(aligned=aligned).development(), config, seed=1, folder=tmp_path)
    values = np.array([row[1:] for row in fitted.history])
    assert values.shape == (2, len(EpochRow._fields) - 1)
    assert np.isfinite(values).all()
    action = {row.mean_action for row in fitted.history}
    assert action == {1.0} if kind == "ones" else all(0 < a < 1 for a in action)
    assert (fitted.history[-1].critic_loss > 0) == (kind == "ddpg")


@pytest.mark.parametrize("task", ["regression", "classes", "emotions"])
@pytest.mark.parametrize(("variant", "kind"), [("calibrated", "rloo"), ("released", "ddpg")])
def test_every_task_trains(tmp_path, planted, tiny_config, task, variant, kind):
    config = tiny_config(f"policy.kind={kind}", model=variant)
    fitted = fit(planted(task=task).development(), config, seed=1, folder=tmp_path)
    assert np.isfinite(np.array(fitted.history)).all()
    assert fitted.model.task.kind == task


@pytest.mark.parametrize("modalities", [["text"], ["vision", "text"]])
def test_some_modalities_train(tmp_path, development, tiny_config, modalities):
    config = tiny_config(f"model.modalities={modalities}", "learning.modality_dropout=0.5")
    fitted = fit(development, config, seed=1, folder=tmp_path)
    assert set(fitted.model.modalities) == set(modalities)
    assert np.isfinite(np.array(fitted.history)).all()


def test_statistics_are_those_of_the_training_split(development, tiny_config):
    from mmcl.models.projection import Standardiser

    model = build_model(development, tiny_config())
    split = development.split("train")
    expected = Standardiser(48)
    expected.fit(torch.from_numpy(np.concatenate([split.steps("audio", r) for r in range(24)])))
    assert _identical(model.projection.standardisers["audio"].state_dict(), expected.state_dict())


def test_steps_for_statistics_are_thinned_evenly(development, monkeypatch):
    split = development.split("train")
    monkeypatch.setattr(loop, "MOST_STEPS_FOR_STATISTICS", 100)  # of 480: every fifth
    found = loop._all_steps(split, "text")
    expected = np.concatenate([split.steps("text", row)[::5] for row in range(24)])
    np.testing.assert_array_equal(found.numpy(), expected)


def test_steps_for_statistics_are_not_always_the_first(planted, monkeypatch):
    split = planted(aligned=False).split("train")
    monkeypatch.setattr(loop, "MOST_STEPS_FOR_STATISTICS", 40)
    stride = -(-int(split.lengths("audio").sum()) // 40)
    assert 2 * stride > split.lengths("audio").mean()
    expected = [split.steps("audio", row)[row % stride :: stride] for row in range(24)]
    np.testing.assert_array_equal(loop._all_steps(split, "audio"), np.concatenate(expected))


def test_checkpoint_is_the_state_after_the_latest_epoch(tmp_path, development, tiny_config):
    fitted = fit(development, tiny_config(), seed=1, folder=tmp_path)
    state = load_state(tmp_path / "checkpoint.safetensors")
    assert [EpochRow(*row) for row in state["history"]] == fitted.history
    assert state["best"] == [fitted.best_epoch, fitted.history[fitted.best_epoch].valid_loss]


class _StoppedError(BaseException):
    pass


def _stop_in_epoch_three(development, config, folder):
    def stop(stage, done, *_):
        if (stage, done) == ("epoch 3", 2):
            raise _StoppedError

    fit(development, config, seed=1, folder=folder, progress=stop)


def _cut_in_epoch_three(development, config, folder):
    """Fit, fall over in the middle of the third epoch, and go on."""
    with pytest.raises(_StoppedError):
        _stop_in_epoch_three(development, config, folder)
    torch.rand(3)
    return fit(development, config, seed=1, folder=folder, resume=True)


def test_resume_in_the_middle_of_an_epoch(tmp_path, development, tiny_config):
    # The flow tests kill real processes; this one says which line is at fault.
    config = tiny_config("learning.epochs=4", "learning.modality_dropout=0.3")
    whole = fit(development, config, seed=1, folder=tmp_path / "whole")
    resumed = _cut_in_epoch_three(development, config, tmp_path / "cut")
    assert _identical(_weights(whole), _weights(resumed))
    assert _untimed(whole.history) == _untimed(resumed.history)


def test_order_of_a_large_corpus_is_resumed(tmp_path, development, tiny_config, monkeypatch):
    # 24 clips in three windows of blocks of one.
    size = development.split("train").feature_bytes()
    monkeypatch.setattr(batches, "WINDOW_BYTES", size // 3)
    config = tiny_config("learning.epochs=3")
    whole = fit(development, config, seed=1, folder=tmp_path / "whole")
    _interrupt(development, config, tmp_path / "cut", monkeypatch)
    again = fit(development, config, seed=1, folder=tmp_path / "cut", resume=True)
    assert _identical(_weights(again), _weights(whole))
    assert _untimed(again.history) == _untimed(whole.history)
    monkeypatch.setattr(batches, "WINDOW_BYTES", size)
    other = fit(development, config, seed=1, folder=tmp_path / "other")
    assert _untimed(other.history) != _untimed(whole.history)


def _interrupt(development, config, folder, monkeypatch):
    """Stop a training in the middle of its second epoch."""
    from mmcl.learning.learner import PolicyLearner

    step, seen = PolicyLearner.step, []

    def fail(self, batch):
        seen.append(batch)
        if len(seen) == 5:
            raise KeyboardInterrupt
        return step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(PolicyLearner, "step", fail)
        with pytest.raises(KeyboardInterrupt):
            fit(development, config, seed=1, folder=folder)


def test_resume_keeps_waiting_on_a_plateau(tmp_path, development, tiny_config, monkeypatch):
    monkeypatch.setattr(loop, "validation_loss", lambda *_, **__: 1.0)
    config = tiny_config(
        "learning.epochs=5", "learning.schedule=plateau", "learning.plateau_patience=1"
    )
    resumed = _cut_in_epoch_three(development, config, tmp_path)
    # The first loss is the best; the two after it are one more than patience allows.
    expected = [0.001, 0.001, 0.001, 0.00095, 0.00095]
    assert [row.learning_rate for row in resumed.history] == pytest.approx(expected, abs=1e-12)


def test_without_resume_it_starts_again(tmp_path, development, tiny_config):
    config = tiny_config("learning.epochs=1")
    fit(development, config, seed=1, folder=tmp_path)
    again = fit(development, config, seed=2, folder=tmp_path)
    assert json.loads(Path(tmp_path / "done.json").read_text())["seed"] == 2
    assert len(again.history) == 1


def test_training_that_starts_again_is_not_resumed_from_the_one_before(
    tmp_path, development, tiny_config
):
    config = tiny_config("learning.epochs=4")
    fit(development, config, seed=2, folder=tmp_path / "cut")
    resumed = _cut_in_epoch_three(development, config, tmp_path / "cut")
    whole = fit(development, config, seed=1, folder=tmp_path / "whole")
    assert _identical(_weights(whole), _weights(resumed))

    def stop(*_):
        raise _StoppedError

    # Stopped before its first checkpoint, it has nothing to go on from.
    with pytest.raises(_StoppedError):
        fit(development, config, seed=2, folder=tmp_path / "whole", progress=stop)
    assert not (tmp_path / "whole/checkpoint.safetensors").exists()


def test_checkpoint_of_several_processes_is_refused_by_one(tmp_path, development, tiny_config):
    config = tiny_config("learning.epochs=4")
    with pytest.raises(_StoppedError):
        _stop_in_epoch_three(development, config, tmp_path)
    state = load_state(tmp_path / "checkpoint.safetensors")
    save_state(tmp_path / "checkpoint.safetensors", state | {"processes": [{}, {}]})
    with pytest.raises(TrainingError) as caught:
        fit(development, config, seed=1, folder=tmp_path, resume=True)
    assert str(caught.value) == (
        f"{tmp_path}/checkpoint.safetensors: was written by 2 processes, this training has 1.\n"
        "  Go on with as many as before: --set runtime.devices=2"
    )


@pytest.fixture
def with_holes(planted):
    """Clips of which every third step of vision is missing."""
    whole = planted()

    def clips():
        for clip in corpus_clips(whole):
            vision = clip.features["vision"].copy()
            vision[::3] = 0.0
            yield clip.model_copy(update={"features": {**clip.features, "vision": vision}})

    return pack_corpus(whole.card.model_copy(update={"missing_as_zero": True}), clips())


def test_missing_steps_are_not_part_of_the_statistics(with_holes):
    split = with_holes.split("train")
    every = np.concatenate([split.steps("vision", row) for row in range(len(split))])
    found = loop._all_steps(split, "vision").numpy()
    np.testing.assert_array_equal(found, every[every.any(axis=1)])
    assert len(found) < len(every)


@pytest.mark.parametrize("variant", ["calibrated", "released"])
def test_corpus_with_missing_steps_trains(tmp_path, with_holes, tiny_config, variant):
    config = tiny_config(model=variant)
    fitted = fit(with_holes.development(), config, seed=1, folder=tmp_path)
    assert np.isfinite(np.array(fitted.history)).all()
    scored = score_split(fitted.model, with_holes.split("valid"))
    vision = np.stack([actions[-1] for actions in scored.actions])
    assert np.isfinite(scored.scores).all()
    if variant == "calibrated":  # a step that is missing is never kept
        assert not vision[:, ::3].any()


@pytest.mark.parametrize(
    ("version", "by", "advice"),
    [
        ("9.1", "mmcl 9.1 wrote it", 'Install that version: pip install "mmcl==9.1"'),
        (
            None,
            "it does not say which version wrote it",
            "Train it again: mmcl train CORPUS --out NEW",
        ),
    ],
)
def test_checkpoint_of_another_version_is_refused(
    tmp_path, development, tiny_config, version, by, advice
):
    config = tiny_config("learning.epochs=1")
    fit(development, config, seed=1, folder=tmp_path)
    (tmp_path / "done.json").unlink()
    path = tmp_path / "checkpoint.safetensors"
    state = load_state(path)
    del state["schedule"], state["version"]
    save_state(path, state | ({} if version is None else {"version": version}))
    with pytest.raises(RunError) as caught:
        fit(development, config, seed=1, folder=tmp_path, resume=True)
    assert str(caught.value) == (
        f"{path}: mmcl {metadata.version('mmcl')} cannot go on from it; {by} "
        f"(KeyError: 'schedule').\n  {advice}"
    )


def test_history_of_another_version_is_refused(tmp_path):
    (tmp_path / "history.csv").write_text("epoch,loss\n0,1.5\n")
    with pytest.raises(RunError, match=r"history.csv: has no column task_loss, alignment_loss, "):
        read_history(tmp_path)
