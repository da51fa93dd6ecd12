"""Input checks that every model shares: input is completed, checked and shaped."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from mmcl.config import ModelSettings, PolicySettings
from mmcl.corpus.schema import Task
from mmcl.errors import DatasetError, RunError, ShapeError
from mmcl.models.network import Network

DIMS = {"text": 2, "audio": 1, "vision": 3}
REGRESSION = Task(kind="regression", low=-3, high=3)
NAN, INF = float("nan"), float("inf")


class Plain(Network):
    """Nothing but what the base does."""


class Tied(Network):
    def __init__(self, dims, task, *, model=None, **kept):
        super().__init__(dims, task, model=model, **kept)
        self.one = nn.Linear(2, 2)
        self.other = nn.ModuleList([self.one])


class WithoutVision(Network):
    takes = ("text", "audio")


@pytest.fixture
def network():
    return Plain(DIMS, REGRESSION)


def mask(*rows):
    return torch.tensor(rows, dtype=torch.bool)


# ---------------------------------------------------------------- which modalities


def test_modalities_are_those_of_corpus_settings_and_class():
    swapped = {"vision": 3, "audio": 1, "text": 2, "smell": 9}
    assert Plain(swapped, REGRESSION).modalities == ("text", "audio", "vision")
    assert Plain(swapped, REGRESSION).dims == DIMS
    assert WithoutVision(swapped, REGRESSION).modalities == ("text", "audio")
    settings = ModelSettings(modalities=("vision", "audio"))
    assert WithoutVision(swapped, REGRESSION, model=settings).dims == {"audio": 1}
    assert Plain({"audio": 1}, REGRESSION).modalities == ("audio",)


def test_none_of_its_modalities_is_refused():
    settings = ModelSettings(modalities=("vision", "text"))
    with pytest.raises(ShapeError) as caught:
        WithoutVision({"audio": 1, "vision": 3}, REGRESSION, model=settings)
    assert str(caught.value) == "none of the modalities ['text'] is in ['audio', 'vision']"


def test_never_seen_are_those_without_a_step(network):
    assert network.never_seen == ()
    network.fit_standardisation(
        {"text": torch.ones(4, 2), "audio": torch.ones(0, 1), "vision": torch.ones(1, 3)}
    )
    assert network.seen.tolist() == [True, False, True]
    assert network.never_seen == ("audio",)
    assert "seen" in network.state_dict()


def test_settings_may_be_plain_dictionaries():
    task = {"kind": "classes", "names": ["calm", "sad"]}
    network = Plain(DIMS, task, model={"width": 16, "heads": 2}, policy={"samples": 3})
    assert network.settings == ModelSettings(width=16, heads=2)
    assert network.policy_settings == PolicySettings(samples=3)
    assert network.task == Task(**task)
    assert not network.aligned


# ---------------------------------------------------------------- complete


def test_complete_worked_by_hand(network):
    features = {
        "text": torch.tensor([[[1.0, 2.0], [3.0, NAN]], [[5.0, 6.0], [7.0, 8.0]]]),
        "vision": torch.tensor([[[1.0, 1.0, 1.0]], [[INF, 2.0, 2.0]]]),
    }
    masks = {"text": mask([True, False], [True, True]), "vision": mask([True], [False])}
    complete, complete_masks = network.complete(features, masks)
    assert list(complete) == list(complete_masks) == ["text", "audio", "vision"]
    assert complete["text"].tolist() == [[[1, 2], [0, 0]], [[5, 6], [7, 8]]]
    assert complete["audio"].tolist() == [[[0]], [[0]]]  # left out: an empty step
    assert complete["vision"].tolist() == [[[1, 1, 1]], [[0, 0, 0]]]
    assert complete_masks["text"].tolist() == [[True, False], [True, True]]
    assert complete_masks["audio"].tolist() == [[False], [False]]
    assert complete_masks["vision"].tolist() == [[True], [False]]
    assert features["text"][0, 1].isnan().tolist() == [False, True]  # what was given is as it was


def test_complete_takes_every_step_where_no_mask_is_given(network):
    features = {m: torch.ones(2, n, d) for (m, d), n in zip(DIMS.items(), (3, 1, 2), strict=True)}
    complete, masks = network.complete(features, None)
    assert {m: x.shape for m, x in masks.items()} == {
        "text": (2, 3),
        "audio": (2, 1),
        "vision": (2, 2),
    }
    assert all(each.all() for each in masks.values())
    assert all(torch.equal(complete[m], x) for m, x in features.items())


def test_complete_empties_what_training_never_saw(network):
    network.seen[0] = False
    features = {"text": torch.full((1, 2, 2), NAN), "audio": torch.ones(1, 2, 1)}
    complete, masks = network.complete(features, None)
    assert complete["text"].tolist() == [[[0, 0], [0, 0]]]
    assert masks["text"].tolist() == [[False, False]]
    assert masks["audio"].tolist() == [[True, True]]


def test_complete_keeps_type_and_ignores_what_is_not_used():
    network = Plain({"text": 2, "audio": 1}, REGRESSION)
    features = {"vision": torch.full((1, 1, 3), NAN), "audio": torch.ones(1, 2, 1).double()}
    complete, _ = network.complete(features, None)
    assert list(complete) == ["text", "audio"]
    assert complete["text"].dtype == torch.float64
    assert complete["text"].shape == (1, 1, 2)


@pytest.mark.parametrize(
    ("features", "masks", "message"),
    [
        pytest.param(
            {"smell": torch.ones(2, 3, 1)},
            None,
            "features must hold one of ['text', 'audio', 'vision'], got none of them",
            id="none",
        ),
        pytest.param(
            {"text": torch.ones(2, 3, 2), "audio": torch.ones(2, 3, 1)},
            {"text": mask([True] * 3, [True] * 3)},
            "masks must hold audio, as features do; got ['text']",
            id="no-mask",
        ),
        pytest.param(
            {"text": torch.ones(2, 3, 2), "audio": torch.ones(3, 3, 1)},
            None,
            "audio must be [clips, steps, features] with a mask [clips, steps] and 2 clips, "
            "got [3, 3, 1] and [3, 3]",
            id="more-clips",
        ),
        pytest.param(
            {"audio": torch.ones(2, 3, 1)},
            {"audio": mask([True] * 2, [True] * 2)},
            "audio must be [clips, steps, features] with a mask [clips, steps] and 2 clips, "
            "got [2, 3, 1] and [2, 2]",
            id="short-mask",
        ),
        pytest.param(
            {"vision": torch.ones(2, 3)},
            None,
            "vision must be [clips, steps, features] with a mask [clips, steps] and 2 clips, "
            "got [2, 3] and [2, 3]",
            id="no-features",
        ),
        pytest.param(
            {"vision": torch.ones(2, 3, 2)},
            None,
            "vision must have 3 features per step, got 2",
            id="narrow",
        ),
    ],
)
def test_complete_refuses_what_does_not_fit(network, features, masks, message):
    with pytest.raises(ShapeError) as caught:
        network.complete(features, masks)
    assert str(caught.value) == message


# ---------------------------------------------------------------- finite


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_first_clip_that_is_not_finite_is_named(network, value):
    audio = torch.ones(5, 2, 1)
    audio[3, 1, 0] = audio[4, 0, 0] = value
    with pytest.raises(DatasetError) as caught:
        network.complete({"audio": audio}, None)
    assert str(caught.value) == (
        "audio holds NaN or infinity in clip 3 of the batch.\n"
        "  A corpus that was converted has none: mmcl corpus convert SRC DST"
    )


def test_infinities_that_cancel_are_found(network):
    with pytest.raises(DatasetError, match="in clip 0 of the batch"):
        network.complete({"audio": torch.tensor([[[INF], [-INF]]])}, None)


def test_numbers_whose_sum_overflows_are_numbers(network):
    audio = torch.full((2, 3, 1), 3e38)
    assert audio.sum() == INF
    assert torch.equal(network.complete({"audio": audio}, None)[0]["audio"], audio)


# ---------------------------------------------------------------- shapes, defaults, saving


@pytest.mark.parametrize("clips", [1, 2])
def test_scores_take_the_shape_of_the_task(clips):
    raw = torch.arange(clips * 1.0).view(clips, 1)
    assert Plain(DIMS, REGRESSION).shape_scores(raw).tolist() == [0.0, 1.0][:clips]
    names = ("calm", "happy", "sad")
    raw = torch.arange(clips * 3.0).view(clips, 3)
    assert torch.equal(Plain(DIMS, Task(kind="classes", names=names)).shape_scores(raw), raw)
    raw = torch.arange(clips * 6.0).view(clips, 6)
    emotions = Plain(DIMS, Task(kind="emotions", names=names)).shape_scores(raw)
    assert emotions[0].tolist() == [[0, 1], [2, 3], [4, 5]]  # logits of one emotion side by side
    assert emotions.shape == (clips, 3, 2)


def test_scores_of_several_samples_keep_their_axes():
    raw = torch.zeros(4, 2, 6)
    task = Task(kind="emotions", names=("calm", "happy", "sad"))
    assert Plain(DIMS, task).shape_scores(raw).shape == (4, 2, 3, 2)
    assert Plain(DIMS, REGRESSION).shape_scores(raw[..., :1]).shape == (4, 2)


def test_a_network_adds_and_keeps_nothing_by_itself(network):
    added = network.auxiliary_loss(None, torch.tensor([1, 2]), torch.tensor([0, 1]))
    assert (added.shape, added.dtype, added.item()) == ((), torch.float32, 0.0)
    assert network.training_state() == {}
    assert network.standardisers == {}
    assert network.without_gradient == ()
    assert not network.released


def test_saved_network_comes_back(network, tmp_path, capfd):
    network.seen[1] = False
    network.train().save_pretrained(tmp_path)
    loaded = Plain.from_pretrained(tmp_path)
    assert type(loaded) is Plain
    assert loaded.never_seen == ("audio",)
    assert not loaded.training
    assert loaded.task == REGRESSION
    assert capfd.readouterr().out == ""
    # The library's own page says that the weights were pushed to the Hub.
    page = (tmp_path / "README.md").read_text()
    assert "The network of one seed of an mmcl run." in page
    assert "library_name: mmcl" in page
    assert "pushed" not in page


def test_saved_network_may_have_one_layer_twice(tmp_path):
    network = Tied(DIMS, REGRESSION)
    network.save_pretrained(tmp_path)
    loaded = Tied.from_pretrained(tmp_path)
    assert torch.equal(loaded.one.weight, network.one.weight)
    assert loaded.other[0] is loaded.one


def test_saved_network_with_a_weight_missing_is_refused(tmp_path):
    Tied(DIMS, REGRESSION).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    save_file({key: value for key, value in weights.items() if "bias" not in key}, file)
    with pytest.raises(RuntimeError, match="bias"):
        Tied.from_pretrained(tmp_path)


# ---------------------------------------------------------------- ranges other than the field's


STARS = Task(kind="regression", low=1, high=5)


def test_raw_scores_lie_around_the_middle_of_the_range_and_end_with_it():
    network = Plain(DIMS, STARS).eval()
    raw = torch.tensor([[0.0], [1.5], [-3.0], [7.0], [-7.0], [NAN]])
    scores = network.shape_scores(raw)
    expected = torch.tensor([3.0, 4.0, 1.0, 5.0, 1.0, NAN])
    torch.testing.assert_close(scores, expected, equal_nan=True)


def test_scores_in_training_may_leave_the_range_and_have_a_gradient():
    raw = torch.tensor([[7.0]], requires_grad=True)
    scores = Plain(DIMS, STARS).train().shape_scores(raw)
    scores.sum().backward()
    assert scores.item() == pytest.approx(3 + 7 * 4 / 6)
    assert raw.grad.item() == pytest.approx(4 / 6)


def test_scores_of_the_field_are_not_touched():
    for low, high in ((-3, 3), (-1, 1), (-2, 2)):
        network = Plain(DIMS, Task(kind="regression", low=low, high=high)).eval()
        assert network.shape_scores(torch.tensor([[7.0]])).item() == 7.0
        assert "score_range" not in network.state_dict()


def test_half_precision_keeps_the_points_apart():
    network = Plain(DIMS, Task(kind="regression", low=0, high=1000)).eval()
    scores = network.shape_scores(torch.tensor([[2.0]], dtype=torch.bfloat16))
    assert scores.dtype == torch.float32
    assert scores.item() == pytest.approx(500 + 2000 / 6)


def test_weights_of_a_version_without_the_scale_are_refused(tmp_path):
    network = Tied(DIMS, STARS)
    network.save_pretrained(tmp_path)
    assert Tied.from_pretrained(tmp_path).task == STARS
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    save_file({key: value for key, value in weights.items() if key != "score_range"}, file)
    with pytest.raises(RunError) as caught:
        Tied.from_pretrained(tmp_path)
    assert str(caught.value) == (
        f"{file}: was trained by an earlier version of mmcl, which did not know the middle of "
        "scores from 1 to 5.\n"
        "  Its predictions would be wrong here. Train it again: mmcl train CORPUS --out NEW"
    )
