"""Batches: padding and masks, the order of an epoch, and which clips have a label."""

import numpy as np
import pytest
import torch

from mmcl.corpus import batches, store
from mmcl.corpus.batches import (
    batch_rows,
    collate,
    drop_steps,
    epoch_order,
    labelled_rows,
    move_batch,
    of_like_length,
    shuffle_window,
)
from mmcl.corpus.schema import Card, Clip, Task
from mmcl.corpus.store import Split, pack_corpus

WIDTHS = {"text": 2, "vision": 3}
TASKS = {
    "regression": Task(kind="regression", low=-3, high=3),
    "classes": Task(kind="classes", names=("calm", "happy", "sad")),
    "emotions": Task(kind="emotions", names=("happy", "sad")),
}
# Per clip its steps of text and of vision; None where the modality is absent.
LENGTHS = [(3, 1), (1, 4), (None, 2), (2, None)]


def _with_a_hole():
    """One clip of three steps; vision is missing in the second, text is at rest in none."""
    card = Card(
        name="toy",
        task=TASKS["regression"],
        dims=WIDTHS,
        counts={},
        aligned=True,
        missing_as_zero=True,
    )
    features = {m: np.ones((3, d), dtype=np.float32) for m, d in WIDTHS.items()}
    features["vision"][1] = 0.0
    features["vision"][2] = [0.0, -1.0, 0.0]  # one value is enough
    return pack_corpus(card, [Clip(id="0", split="train", features=features)])


def _split(labels=(None,) * 4, kind="regression", dtype="float32"):
    rng = np.random.default_rng(2)
    card = Card(name="toy", task=TASKS[kind], dims=WIDTHS, counts={}, aligned=False)
    clips = [
        Clip(
            id=str(row),
            split="train",
            label=label,
            features={
                m: rng.uniform(1, 2, size=(n, WIDTHS[m])).astype(dtype)
                for m, n in zip(WIDTHS, lengths, strict=True)
                if n is not None
            },
        )
        for row, (lengths, label) in enumerate(zip(LENGTHS, labels, strict=True))
    ]
    return pack_corpus(card, clips, dtype=dtype).split("train")


@pytest.fixture
def split():
    return _split()


def test_batch_is_padded_to_its_longest_modality_by_modality(split):
    batch = collate(split, [1, 0], ("text", "vision"))
    assert list(batch.features) == list(batch.masks) == ["text", "vision"]
    assert batch.features["text"].shape == (2, 3, 2)
    assert batch.features["vision"].shape == (2, 4, 3)
    assert batch.masks["text"].tolist() == [[True, False, False], [True, True, True]]
    assert batch.masks["vision"].tolist() == [[True] * 4, [True, False, False, False]]
    for modality in WIDTHS:
        assert batch.features[modality].dtype == torch.float32
        assert batch.masks[modality].dtype == torch.bool
        for at, row in enumerate((1, 0)):
            steps = split.steps(modality, row)
            np.testing.assert_array_equal(batch.features[modality][at, : len(steps)], steps)
            assert not batch.features[modality][at, len(steps) :].any()
    assert batch.rows.tolist() == [1, 0]
    assert batch.targets is None


def test_absent_modality_is_masked_and_zero(split):
    batch = collate(split, [2, 3], ("text", "vision"))
    assert batch.masks["text"].tolist() == [[False, False], [True, True]]
    assert batch.masks["vision"].tolist() == [[True, True], [False, False]]
    assert not batch.features["text"][0].any()
    assert not batch.features["vision"][1].any()


def test_modality_absent_from_every_clip_is_one_empty_step(split):
    batch = collate(split, [2], ("text",))
    assert batch.features["text"].shape == (1, 1, 2)
    assert batch.masks["text"].tolist() == [[False]]
    assert list(batch.features) == ["text"]


def test_clip_of_the_batch_does_not_depend_on_the_others(split):
    alone, beside = collate(split, [0], ("text",)), collate(split, [1, 0, 3], ("text",))
    n = alone.features["text"].shape[1]
    assert torch.equal(alone.features["text"][0], beside.features["text"][1, :n])


def test_batch_is_a_copy(split):
    batch = collate(split, [0], ("text",))
    batch.features["text"].zero_()
    assert split.steps("text", 0).all()


def test_half_precision_becomes_single():
    split = _split(dtype="float16")
    batch = collate(split, [0], ("text",))
    assert split.steps("text", 0).dtype == np.float16
    assert batch.features["text"].dtype == torch.float32
    np.testing.assert_array_equal(batch.features["text"][0], split.steps("text", 0))


@pytest.mark.parametrize("rows", [[3, 1], np.array([3, 1]), np.array([3, 1], dtype=np.int32)])
def test_targets_go_with_their_clips(split, rows):
    targets = torch.arange(8).reshape(4, 2)
    batch = collate(split, rows, ("text",), targets)
    assert batch.targets.tolist() == [[6, 7], [2, 3]]
    assert batch.rows.dtype == torch.int64


def test_batch_on_the_same_device_is_the_batch(split):
    batch = collate(split, [0], ("text",))
    assert move_batch(batch, torch.device("cpu")) is batch


def test_batch_moves_but_its_rows_do_not(split):
    batch = collate(split, [0, 1], ("text", "vision"), torch.arange(4.0))
    moved = move_batch(batch, torch.device("meta"))
    assert {x.device.type for x in moved.features.values()} == {"meta"}
    assert {x.device.type for x in moved.masks.values()} == {"meta"}
    assert moved.targets.device.type == "meta"
    assert moved.rows is batch.rows
    assert move_batch(batch._replace(targets=None), torch.device("meta")).targets is None


# ---------------------------------------------------------------- labels, order, cuts


@pytest.mark.parametrize(
    ("kind", "labels", "known"),
    [
        ("regression", (0.0, None, -3.0, None), [0, 2]),
        ("classes", (None, 0, 2, 1), [1, 2, 3]),
        ("emotions", ((0, 0), None, (1, 0), (0, 1)), [0, 2, 3]),
        ("emotions", ((0, 0), (-1, 1), (1, -1), (0, 1)), [0, 3]),  # known in part is not known
        ("regression", (None,) * 4, []),
        ("classes", (None,) * 4, []),
        ("emotions", (None,) * 4, []),
    ],
)
def test_labelled_rows(kind, labels, known):
    found = labelled_rows(_split(labels, kind))
    assert found.tolist() == known
    assert found.dtype == np.int64


def test_labelled_rows_of_no_clip():
    split = _split(((0, 0), None, (1, 0), (0, 1)), "emotions").select([])
    assert labelled_rows(split).tolist() == []


def test_epoch_order_is_a_permutation_of_its_own():
    rows = np.array([2, 3, 5, 7, 11, 13, 17, 19])
    orders = {
        (seed, epoch): tuple(epoch_order(rows, seed=seed, epoch=epoch))
        for seed in range(3)
        for epoch in range(3)
    }
    assert all(sorted(order) == rows.tolist() for order in orders.values())
    assert len(set(orders.values())) == 9  # (1, 2) and (2, 1) too
    assert tuple(epoch_order(rows, seed=1, epoch=2)) == orders[1, 2]
    assert rows.tolist() == [2, 3, 5, 7, 11, 13, 17, 19]


@pytest.mark.parametrize("window", [None, 8, 1000])
def test_what_fits_into_a_window_is_permuted_as_a_whole(window):
    rows = np.array([2, 3, 5, 7, 11, 13, 17, 19])
    expected = np.random.default_rng([4, 2]).permutation(rows)
    np.testing.assert_array_equal(epoch_order(rows, seed=4, epoch=2, window=window), expected)


def _windows(order, number):
    return [set((each // 4).tolist()) for each in np.array_split(order, number)]


def test_windows_hold_whole_blocks_from_everywhere(monkeypatch):
    # 1,000 rows in windows of 64 at most, that are 16: blocks of 4, 16 to a window.
    monkeypatch.setattr(batches, "BLOCKS_PER_WINDOW", 16)
    rows = np.arange(1000)
    order = epoch_order(rows, seed=1, epoch=0, window=64)
    assert sorted(order) == rows.tolist()
    for blocks in _windows(order, 16):
        assert len(blocks) <= 17  # the ends of a window may cut a block each
        assert max(blocks) - min(blocks) > 125  # far more than the 17 that neighbours would be
    within = np.array_split(order, 16)
    assert not any((np.diff(each) == 1).mean() > 0.2 for each in within)


def test_order_in_windows_is_of_its_seed_and_epoch():
    rows = np.arange(200)
    orders = {
        (seed, epoch): tuple(epoch_order(rows, seed=seed, epoch=epoch, window=70))
        for seed in range(3)
        for epoch in range(3)
    }
    assert len(set(orders.values())) == 9
    assert tuple(epoch_order(rows, seed=1, epoch=2, window=70)) == orders[1, 2]


def test_every_row_can_come_anywhere():
    # Row 0 of 96 in 200 epochs of windows of 32: its place is uniform, mean 47.5, s.e. 2.
    places = [
        int(np.flatnonzero(epoch_order(np.arange(96), seed=1, epoch=e, window=32) == 0)[0])
        for e in range(200)
    ]
    assert 39 < np.mean(places) < 56
    assert min(places) < 8
    assert max(places) > 87


def test_shuffle_window_is_a_gibibyte_of_clips(split, monkeypatch):
    # Six steps of two and seven of three float32 features: 132 bytes in four clips.
    assert split.feature_bytes() == 4 * (6 * 2 + 7 * 3)
    assert shuffle_window(split) == (1 << 30) * 4 // 132
    monkeypatch.setattr(batches, "WINDOW_BYTES", 100)
    assert shuffle_window(split) == 3
    monkeypatch.setattr(batches, "WINDOW_BYTES", 1)
    assert shuffle_window(split) == 1
    assert shuffle_window(split.select([])) == 1


def test_clips_of_several_record_batches_lie_side_by_side(monkeypatch):
    whole = _split()
    monkeypatch.setattr(store, "CLIPS_PER_BATCH", 1)
    cut = _split()
    assert cut.table.column("features_text").num_chunks == 4
    rows = [3, 0, 2, 1, 0]
    for modality in WIDTHS:
        for one, other in zip(
            whole.padded(modality, rows), cut.padded(modality, rows), strict=True
        ):
            np.testing.assert_array_equal(one, other, strict=True)


@pytest.mark.parametrize(
    ("count", "drop_last", "sizes"),
    [
        (8, False, [3, 3, 2]),
        (8, True, [3, 3]),
        (9, False, [3, 3, 3]),
        (9, True, [3, 3, 3]),
        (2, False, [2]),
        (2, True, [2]),  # it is all there is
        (0, False, []),
        (0, True, []),
    ],
)
def test_rows_are_cut_into_batches(count, drop_last, sizes):
    blocks = list(batch_rows(np.arange(count), 3, drop_last=drop_last))
    assert [len(block) for block in blocks] == sizes
    assert np.concatenate([*blocks, []]).tolist() == list(range(sum(sizes)))


def test_step_of_zeros_is_missing_where_the_card_says_so():
    split = _with_a_hole().split("train")
    batch = collate(split, [0], ("text", "vision"))
    assert batch.masks["text"].tolist() == [[True, True, True]]
    assert batch.masks["vision"].tolist() == [[True, False, True]]
    kept = collate(split, [0], ("text", "vision"), keep_missing=True)
    assert kept.masks["vision"].tolist() == [[True, True, True]]
    torch.testing.assert_close(kept.features, batch.features, rtol=0, atol=0)


def test_step_of_zeros_is_a_step_where_the_card_does_not_say_so():
    corpus = _with_a_hole()
    table = corpus.split("train").table
    card = corpus.card.model_copy(update={"missing_as_zero": False})
    batch = collate(Split("train", card, table), [0], ("vision",))
    assert batch.masks["vision"].tolist() == [[True, True, True]]


def test_batches_of_like_length_hold_every_row_once():
    lengths = np.random.default_rng(0).integers(1, 60, 1000)
    rows = epoch_order(np.arange(3, 1000), seed=1, epoch=0)  # 31 batches of 32, and 5 clips
    order = of_like_length(rows, lengths, 32, seed=1, epoch=0)
    assert sorted(order) == sorted(rows)
    assert order[-5:].tolist() == rows[-5:].tolist()
    blocks = list(batch_rows(order[:-5], 32))
    spread = [np.ptp(lengths[block]) for block in blocks]
    assert np.mean(spread) < 10  # 57 in the order of the epoch
    # Batches do not come by length.
    means = [lengths[block].mean() for block in blocks]
    assert abs(np.corrcoef(means, np.arange(31))[0, 1]) < 0.5


def test_batches_of_like_length_change_with_the_epoch():
    lengths = np.arange(100)
    orders = {
        epoch: of_like_length(np.arange(100), lengths, 10, seed=1, epoch=epoch).tolist()
        for epoch in (0, 1)
    }
    assert orders[0] != orders[1]
    assert orders[0] == of_like_length(np.arange(100), lengths, 10, seed=1, epoch=0).tolist()


def test_fewer_rows_than_a_batch_stay_as_they_are():
    assert of_like_length(np.array([2, 0]), np.arange(3), 8, seed=1, epoch=0).tolist() == [2, 0]


def test_steps_are_dropped_of_some_clips_only():
    torch.manual_seed(1)
    masks = {"text": torch.ones(400, 30, dtype=torch.bool), "vision": torch.zeros(400, 5).bool()}
    left = drop_steps(masks, 0.5)
    assert left["text"][:, 0].dtype == torch.bool
    share = left["text"].float().mean(dim=1)
    assert 0.4 < (share < 1).float().mean() < 0.6
    assert share.min() > 0  # a clip keeps a step
    # Half of the clips lose half of their steps in the mean: four standard errors are .06.
    assert share.mean() == pytest.approx(0.75, abs=0.06)
    assert not left["vision"].any()
    assert masks["text"].all()


def test_clip_that_would_lose_every_step_keeps_them():
    torch.manual_seed(1)
    masks = {"text": torch.ones(500, 1, dtype=torch.bool)}
    assert drop_steps(masks, 0.99)["text"].all()
