"""Corpora of arrays in memory, and back to a DataFrame."""

import numpy as np
import pandas as pd
import pytest
import torch

import mmcl
from mmcl.corpus.check import corpus_clips
from mmcl.corpus.readers.arrays import corpus_of_clips, is_clip
from mmcl.corpus.schema import Task
from mmcl.errors import DatasetError

TASK = Task(kind="regression", low=-3.0, high=3.0)


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        split: {
            "text": rng.normal(size=(count, 5, 8)),
            "audio": rng.normal(size=(count, 5, 4)).astype(np.float32),
            "regression_labels": np.linspace(-3, 3, count),
            "raw_text": [f"said {row}" for row in range(count)],
        }
        for split, count in (("train", 4), ("valid", 3), ("test", 2))
    }


def refusal(data, **options):
    with pytest.raises(DatasetError) as caught:
        mmcl.Corpus.from_arrays(data, **options)
    return str(caught.value)


def test_dicts_of_arrays(arrays):
    corpus = mmcl.Corpus.from_arrays(arrays, name="mine")
    assert repr(corpus) == "Corpus('mine', regression, 4/3/2 clips)"
    clip = next(corpus.split("valid").clips())
    np.testing.assert_array_equal(clip.features["text"], arrays["valid"]["text"][0].astype("f4"))
    assert (clip.text, clip.label) == ("said 0", -3.0)
    assert corpus.card.source is None


def test_lists_of_ragged_arrays(arrays):
    for fields in arrays.values():
        fields["audio"] = [np.ones((1 + row, 4)) for row in range(len(fields["raw_text"]))]
    corpus = mmcl.Corpus.from_arrays(arrays)
    assert corpus.split("train").lengths("audio").tolist() == [1, 2, 3, 4]
    assert not corpus.card.aligned


def test_arrays_of_the_user_are_not_changed(arrays):
    arrays["train"]["audio"][0, 0, 0] = np.nan
    before = arrays["train"]["audio"].copy()
    corpus = mmcl.Corpus.from_arrays(arrays)
    assert corpus.card.repairs["audio"].nan == 1
    np.testing.assert_array_equal(arrays["train"]["audio"], before)


def test_data_frame_comes_back(arrays, tmp_path, same_clip):
    arrays["train"]["audio"][1] = 0  # a clip without the modality
    corpus = mmcl.Corpus.from_arrays(arrays)
    frame = corpus.to_pandas()
    assert list(frame.columns) == [
        *("id", "split", "label", "video_id", "clip_id", "text", "speaker"),
        *("features_text", "features_audio"),
    ]
    assert frame["features_audio"][1] is None
    frame.to_parquet(tmp_path / "mine.parquet")
    for again in (mmcl.Corpus.from_arrays(frame), mmcl.load_corpus(tmp_path / "mine.parquet")):
        for clip, other in zip(corpus_clips(corpus), corpus_clips(again), strict=True):
            same_clip(clip, other)


@pytest.mark.parametrize("kind", ["classes", "emotions"])
def test_data_frame_of_other_tasks_comes_back(arrays, kind):
    values = {"classes": ["sad", "glad", "mad", "sad"], "emotions": [[0, 1, 1], [1, 0, 0]] * 2}
    for fields in arrays.values():
        del fields["regression_labels"]
        fields["labels"] = values[kind][: len(fields["raw_text"])]
    corpus = mmcl.Corpus.from_arrays(arrays)
    again = mmcl.Corpus.from_arrays(corpus.to_pandas(), task=kind)
    assert again.card.task == corpus.card.task
    assert [c.label for c in corpus_clips(again)] == [c.label for c in corpus_clips(corpus)]


def test_data_frame_of_one_step_per_clip():
    frame = pd.DataFrame(
        {
            "split": ["train", "train", "dev", "test"],
            "label": ["glad", "sad", "glad", None],
            "audio_0": [0.5, 1.0, 2.0, 3.0],
            "audio_1": [1.5, 1.0, 0.0, 3.0],
        }
    )
    corpus = mmcl.Corpus.from_arrays(frame)
    assert corpus.card.counts == {"train": 2, "valid": 1, "test": 1}
    assert [clip.label for clip in corpus_clips(corpus)] == [0, 1, 0, None]
    assert "test: 1 of 1 clips have no label" in corpus.card.notes
    np.testing.assert_array_equal(corpus.split("train").steps("audio", 1), [[1.0, 1.0]])


def test_faults_are_named_without_a_file(arrays):
    arrays["valid"]["audio"] = arrays["valid"]["audio"][:2]
    assert refusal(arrays) == (
        'arrays, split "valid": audio has 2 clips, text has 3.\n'
        "  Every modality must list the same clips in the same order.\n"
        '  First clip without audio: "valid_0002".'
    )


def test_path_is_asked_for_where_arrays_were_given(arrays):
    with pytest.raises(DatasetError) as caught:
        mmcl.load_corpus(arrays)
    assert str(caught.value) == (
        "expected the path of a file, got one dict.\n"
        "  Arrays in memory become a corpus by mmcl.Corpus.from_arrays(data)"
    )


def test_options_are_those_of_a_file(arrays):
    for fields in arrays.values():
        fields["video"] = fields.pop("text")
    assert 'did you mean "vision"?' in refusal(arrays)
    corpus = mmcl.Corpus.from_arrays(arrays, rename={"video": "vision"}, label_range=(-5, 5))
    assert corpus.card.dims == {"audio": 4, "vision": 8}
    assert corpus.card.task.score_range == (-5.0, 5.0)


# ---------------------------------------------------------------- single clips


def test_single_clips():
    clips = [
        {"text": np.ones((3, 8)), "audio": np.ones((7, 4)), "id": "mine", "raw_text": "so good"},
        {"text": [[1.0] * 8]},
    ]
    corpus = corpus_of_clips(clips, TASK, "clips")
    assert corpus.card.dims == {"text": 8, "audio": 4}
    assert not corpus.card.aligned
    assert [clip.id for clip in corpus_clips(corpus)] == ["mine", "clip_0001"]
    assert [len(clip.features["text"]) for clip in corpus_clips(corpus)] == [3, 1]


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        (3, "clip 0: int.\n  Expected a dict with the features [steps, width]"),
        ({}, "clip 0: nothing.\n"),
        ({"text": np.ones(3)}, "clip 0: text.\n"),
        ({"text": np.ones((2, 3)), "video": 1}, 'clip 0: "video" is not read.\n'),
        ({"text": np.full((2, 3), np.nan)}, "holds 6 values that are not finite"),
    ],
)
def test_what_is_no_clip(clip, message):
    with pytest.raises(DatasetError) as caught:
        corpus_of_clips([clip], TASK, "clips")
    assert message in str(caught.value)


def test_clip_is_told_from_a_corpus(arrays):
    assert is_clip({"text": np.ones((3, 8))})
    assert not is_clip(arrays)
    assert not is_clip(arrays["train"])
    assert not is_clip({"text": [[1.0], [1.0, 2.0]]})


@pytest.mark.parametrize("as_list", [True, False])
def test_torch_tensors_are_arrays(as_list):
    steps = torch.arange(1.0, 25.0).reshape(4, 3, 2).requires_grad_()
    fields = {"text": list(steps) if as_list else steps, "labels": torch.tensor([0.5, 1, -1, 2])}
    corpus = mmcl.Corpus.from_arrays({"train": fields})
    clips = list(corpus.split("train").clips())
    np.testing.assert_array_equal([c.features["text"] for c in clips], steps.detach().numpy())
    assert [clip.label for clip in clips] == [0.5, 1.0, -1.0, 2.0]


@pytest.mark.parametrize(
    ("values", "dtype", "labels"),
    [
        (["joy", None, "sad", "joy"], "string", [0, None, 1, 0]),
        ([True, None, False, True], "boolean", [1, None, 0, 1]),
        ([1, None, -2, 2], "Int64", [1.0, None, -2.0, 2.0]),
    ],
)
def test_missing_values_of_pandas_are_unknown(values, dtype, labels):
    frame = pd.DataFrame({"split": ["train"] * 4, "audio_0": [1.0, 2.0, 3.0, 4.0]})
    frame["label"] = pd.array(values, dtype=dtype)
    frame["raw_text"] = pd.array(["so", None, "is", "it"], dtype="string")
    clips = list(mmcl.Corpus.from_arrays(frame).split("train").clips())
    assert [clip.label for clip in clips] == labels
    assert [clip.text for clip in clips] == ["so", None, "is", "it"]


def test_masked_features_are_not_read():
    steps = np.ma.masked_array(np.ones((3, 2, 2)), mask=False)
    steps.mask[0, 1] = True
    corpus = mmcl.Corpus.from_arrays({"train": {"audio": steps, "labels": [0.5, -1.0, 2.0]}})
    first = next(corpus.split("train").clips())
    np.testing.assert_array_equal(first.features["audio"], [[1, 1], [0, 0]])
    assert corpus.card.repairs["audio"].nan == 2


def test_features_of_a_type_that_is_not_read_are_refused():
    steps = memoryview(np.ones((4, 3, 2)))
    with pytest.raises(DatasetError, match=r'split "train": audio is memoryview, which cannot be'):
        mmcl.Corpus.from_arrays({"train": {"audio": steps, "labels": [1, 2, 3, 0.5]}})
