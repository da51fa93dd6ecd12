"""Tests of the readers: a small file of each layout; padding, repairs, faults and messages."""

import hashlib
import pickle

import numpy as np
import pytest

from mmcl.corpus.check import corpus_clips
from mmcl.corpus.readers import check_file, convert_corpus, read_corpus
from mmcl.corpus.schema import Repairs, Task
from mmcl.corpus.store import open_corpus
from mmcl.errors import DatasetError, UnsafePickleError

SPLITS = ("train", "valid", "test")


@pytest.fixture
def mmsa(content):
    """The common layout made into MMSA's: token masks, ids, unimodal labels."""
    for split, fields in content.items():
        count = len(fields["id"])
        fields["id"] = [f"{split}vid$_${row}" for row in range(count)]
        fields["raw_text"] = np.array([f"text {row}" for row in range(count)])
        fields["annotations"] = ["Neutral"] * count
        fields["classification_labels"] = np.zeros(count)
        tokens = np.zeros((count, 3, 6), dtype=np.float32)
        tokens[:, 1, :4] = 1
        fields["text_bert"] = tokens
    return content


def unaligned(content):
    """Give audio and vision steps and lengths of their own."""
    for fields in content.values():
        count = len(fields["id"])
        fields["audio"] = np.ones((count, 9, 2))
        fields["vision"] = np.ones((count, 7, 5))
        fields["audio_lengths"] = [8] * count
        fields["vision_lengths"] = np.full(count, 3)
    return content


def lengths(corpus):
    return {m: sorted({len(c.features[m]) for c in corpus_clips(corpus)}) for m in corpus.card.dims}


def refusal(path, **options):
    with pytest.raises(DatasetError) as caught:
        read_corpus(path, **options)
    return str(caught.value)


# --- the common layout -------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["toy.pkl", "toy.pkl.gz"])
def test_plain_comes_through(content, dump, ending):
    path = dump(content, ending)
    corpus = read_corpus(path)
    assert corpus.card.name == "toy"
    assert corpus.card.counts == {"train": 4, "valid": 3, "test": 2}
    assert corpus.card.dims == {"text": 3, "audio": 2, "vision": 5}
    assert corpus.card.aligned
    assert corpus.card.task == Task(kind="regression", low=-2.0, high=2.0)
    assert corpus.card.notes == (
        "label range -2..2 inferred from the training split; "
        "if it is another: --label-range LOW HIGH",
    )
    assert corpus.card.source.layout == "plain"
    assert corpus.card.source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    read = list(corpus_clips(corpus))
    index = 0
    for split in SPLITS:
        for row, name in enumerate(content[split]["id"]):
            assert (read[index].id, read[index].split) == (name, split)
            assert read[index].label == content[split]["regression_labels"][row]
            for modality, steps in read[index].features.items():
                np.testing.assert_array_equal(steps, content[split][modality][row], strict=True)
            index += 1
    assert index == len(read)


def test_aligned_padding_is_cut_at_both_ends_alike(content, dump):
    for modality in ("text", "audio", "vision"):
        content["train"][modality][0, :2] = 0
        content["train"][modality][0, 5:] = 0
        content["train"][modality][0, 3] = 0  # in between: stays
    content["train"]["audio"][0, 2] = 0  # zero in one modality only: stays
    clip = next(iter(corpus_clips(read_corpus(dump(content)))))
    for modality, steps in clip.features.items():
        np.testing.assert_array_equal(steps, content["train"][modality][0, 2:5])


def test_unaligned_padding_is_cut_at_the_end_modality_by_modality(content, dump):
    for fields in content.values():
        fields["audio"] = np.ones((len(fields["id"]), 9, 2))
    content["train"]["audio"][0, :1] = 0
    content["train"]["audio"][0, 7:] = 0
    content["train"]["text"][0, 4:] = 0
    corpus = read_corpus(dump(content))
    clip = next(iter(corpus_clips(corpus)))
    assert not corpus.card.aligned
    assert {m: len(steps) for m, steps in clip.features.items()} == {
        "text": 4,
        "audio": 7,
        "vision": 6,
    }
    assert not clip.features["audio"][0].any()


def test_lengths_are_believed(content, dump):
    content["train"]["audio"][:, 4:] = 0
    for fields in content.values():
        fields["audio_lengths"] = [5] * len(fields["id"])
    # All arrays have as many steps and the only lengths given agree: aligned, all cut alike.
    assert lengths(read_corpus(dump(content))) == {"text": [5], "audio": [5], "vision": [5]}


def test_values_per_clip_are_sequences_of_one_step(content, dump):
    for fields in content.values():
        fields["vision"] = fields["vision"][:, 0]
    corpus = read_corpus(dump(content))
    assert lengths(corpus) == {"text": [6], "audio": [6], "vision": [1]}
    assert not corpus.card.aligned


def test_lists_of_sequences_are_ragged(content, dump):
    rows = [np.ones((2 + row, 4)) for row in range(4)]
    for name in ("valid", "test"):
        del content[name]["audio"]
    content["train"]["audio"] = rows
    corpus = read_corpus(dump(content))
    assert [len(c.features["audio"]) for c in corpus.split("train").clips()] == [2, 3, 4, 5]
    assert corpus.card.notes[1:] == (
        "audio: missing in 3 of 3 valid clips",
        "audio: missing in 2 of 2 test clips",
    )


def test_modality_of_zeros_or_said_absent_is_left_out(content, dump):
    content["train"]["text"][1] = 0
    content["valid"]["vision_present"] = np.array([True, False, True])
    corpus = read_corpus(dump(content))
    present = [tuple(clip.features) for clip in corpus_clips(corpus)]
    everything = ("text", "audio", "vision")
    expected = [everything] * 9
    expected[1], expected[5] = ("audio", "vision"), ("text", "audio")
    assert present == expected
    assert corpus.card.notes[1:] == (
        "text: missing in 1 of 4 train clips",
        "vision: missing in 1 of 3 valid clips",
    )


def test_modality_absent_from_every_clip_is_left_out(content, dump):
    for fields in content.values():
        fields["text"][:] = 0
    card = read_corpus(dump(content)).card
    assert card.dims == {"audio": 2, "vision": 5}
    assert "text: absent from every clip, so left out" in card.notes


def test_values_that_are_not_finite_are_counted_replaced_and_reported(content, dump):
    content["train"]["audio"][0, 1] = [-np.inf, 1.0]
    content["valid"]["audio"][0, 2] = [np.inf, -np.inf]
    content["test"]["audio"][1, 0, 1] = np.nan
    content["test"]["text"] = content["test"]["text"].astype(np.float64)
    content["test"]["text"][0, 0, 0] = 1e300  # beyond float32
    corpus = read_corpus(dump(content))
    assert corpus.card.repairs == {
        "text": Repairs(plus_inf=1),
        "audio": Repairs(minus_inf=2, plus_inf=1, nan=1),
    }
    assert corpus.card.notes[1:] == (
        "text: 1 values were not finite (0 -inf, 1 inf, 0 NaN) and were replaced by 0",
        "audio: 4 values were not finite (2 -inf, 1 inf, 1 NaN) and were replaced by 0",
    )
    clips = list(corpus_clips(corpus))
    np.testing.assert_array_equal(clips[0].features["audio"][1], [0.0, 1.0])
    np.testing.assert_array_equal(clips[4].features["audio"][2], [0.0, 0.0])
    assert all(np.isfinite(steps).all() for clip in clips for steps in clip.features.values())


def test_step_of_nothing_but_nan_is_still_a_step(content, dump):
    for modality in ("text", "audio", "vision"):
        content["train"][modality][0, 5] = np.nan
    clip = next(iter(corpus_clips(read_corpus(dump(content)))))
    assert len(clip.features["text"]) == 6


@pytest.mark.parametrize("split", ["val", "dev", "validation"])
def test_other_names_of_the_validation_split(content, dump, split):
    content[split] = content.pop("valid")
    assert read_corpus(dump(content)).split("valid").ids == ["valid-0", "valid-1", "valid-2"]


def test_ids_are_made_from_the_row_where_there_are_none(content, dump):
    for fields in content.values():
        del fields["id"]
    corpus = read_corpus(dump(content))
    assert corpus.split("valid").ids == ["valid_0000", "valid_0001", "valid_0002"]
    assert (
        corpus.card.notes[1] == 'train: no ids in the file; made from the row, as in "train_0000"'
    )


def test_text_of_python_2_is_mended(content, dump):
    content["train"]["raw_text"] = ["né".encode().decode("latin1"), "né", "", None]
    texts = [clip.text for clip in read_corpus(dump(content)).split("train").clips()]
    assert texts == ["né", "né", None, None]


# --- tasks and ranges --------------------------------------------------------------------


def labelled(content, values, **fields):
    for name, own in content.items():
        own["regression_labels"] = np.resize(np.asarray(values, dtype=float), len(own["id"]))
        for key, of_clips in fields.items():
            own[key] = np.resize(of_clips, len(own["id"])).tolist()
            assert name in SPLITS
    return content


@pytest.mark.parametrize(
    ("largest", "bound"),
    [(-0.9, 1.0), (-1.0, 1.0), (-1.5, 2.0), (-2.5, 3.0), (-3.5, 4.0), (-60.0, 100.0)],
)
def test_label_range_is_the_smallest_that_holds_the_training_labels(content, dump, largest, bound):
    task = read_corpus(dump(labelled(content, [largest]))).card.task
    assert (task.low, task.high) == (-bound, bound)


def test_label_range_is_inferred_from_training_labels_alone(content, dump):
    labelled(content, [-0.5])["test"]["regression_labels"][1] = 1.5
    path = dump(content)
    assert refusal(path) == (
        f'{path}, split "test", clip "test-1": label is 1.5.\n'
        "  A label must be a number from -1 to 1 "
        "(of another range: convert with --label-range LOW HIGH).\n"
        f"  See them all: mmcl corpus check {path}"
    )


@pytest.mark.parametrize(
    ("name", "bound"), [("mosi", 3.0), ("CMU-MOSEI", 3.0), ("sims", 1.0), ("simsv2", 1.0)]
)
def test_label_range_of_a_known_corpus(content, dump, name, bound):
    task = read_corpus(dump(labelled(content, [0.5])), name=name).card.task
    assert (task.low, task.high) == (-bound, bound)


def test_label_range_can_be_given(content, dump):
    path = dump(labelled(content, [4.5]))
    task = read_corpus(path, label_range=(2.0, 6.0)).card.task
    assert (task.low, task.high) == (2.0, 6.0)


def test_label_range_that_cannot_be_told_is_asked_for(content, dump):
    path = dump(labelled(content, [-4.5, 250.0]))
    assert refusal(path) == (
        f"{path}: the range of the scores cannot be told; those of the training split lie in "
        "-4.5..250.\n"
        "  Say what they can be: --label-range LOW HIGH"
    )


def test_many_named_classes_are_the_task(content, dump):
    names = ["calm", "sad", "glad", "mad"]
    for fields in content.values():
        fields["classification_labels"] = list(range(len(fields["id"])))
        fields["annotations"] = names[: len(fields["id"])]
    corpus = read_corpus(dump(content))
    assert corpus.card.task == Task(kind="classes", names=tuple(names))
    assert corpus.split("valid").labels().tolist() == [0, 1, 2]
    assert read_corpus(dump(content), task="regression").card.task.kind == "regression"


def test_few_classes_beside_scores_are_not_the_task(content, dump):
    for fields in content.values():
        fields["classification_labels"] = [0, 1, 2, 2][: len(fields["id"])]
    assert read_corpus(dump(content)).card.task.kind == "regression"
    classes = read_corpus(dump(content), task="classes").card.task
    assert classes == Task(kind="classes", names=("class_0", "class_1", "class_2"))


def test_known_corpus_has_its_usual_task(content, dump):
    for fields in content.values():
        fields["classification_labels"] = list(range(len(fields["id"])))
        fields["annotations"] = ["a", "b", "c", "d"][: len(fields["id"])]
    assert read_corpus(dump(content), name="mine").card.task.kind == "classes"
    usual = {name: read_corpus(dump(content), name=name).card.task for name in ("ravdess", "mosi")}
    assert usual["ravdess"].kind == "classes"
    assert usual["mosi"].kind == "regression"
    polarity = read_corpus(dump(content), name="ravdess", task="regression").card.task
    assert (polarity.low, polarity.high) == (-2.0, 2.0)


def test_task_without_labels_is_refused(content, dump):
    path = dump(content)
    assert refusal(path, task="emotions") == (
        f'{path}: no labels for the task "emotions".\n'
        "  Its labels are: regression_labels, numbers -1.20482..1.75947: regression.\n"
        f"  Take one of these: mmcl corpus convert {path} DST --task regression"
    )


def test_file_without_labels_can_be_read(content, dump):
    for fields in content.values():
        del fields["regression_labels"]
    corpus = read_corpus(dump(content))
    assert all(clip.label is None for clip in corpus_clips(corpus))
    assert corpus.card.notes == ("label range -3..3 inferred from nothing: the file has no labels",)


# --- MMSA --------------------------------------------------------------------------------


def test_mmsa_aligned(mmsa, dump):
    for fields in mmsa.values():
        fields["audio"][:, 4:] = 0
        fields["vision"][:, 4:] = 0  # text has values beyond its mask: BERT's padding
    corpus = read_corpus(dump(mmsa, "aligned_50.pkl"), name="mosi")
    assert corpus.card.source.layout == "mmsa"
    assert corpus.card.aligned
    assert lengths(corpus) == {"text": [4], "audio": [4], "vision": [4]}
    clip = next(iter(corpus_clips(corpus)))
    assert (clip.id, clip.video_id, clip.clip_id) == ("trainvid$_$0", "trainvid", "0")
    assert clip.text == "text 0"
    assert clip.modality_labels is None


def test_mmsa_unaligned_with_labels_per_modality(mmsa, dump):
    for fields in unaligned(mmsa).values():
        fields["regression_labels"] = np.full(len(fields["id"]), 0.6)
        for key, score in (("T", -0.2), ("A", 0.4), ("V", 1.0)):
            fields[f"regression_labels_{key}"] = np.full((len(fields["id"]), 1), score)
    corpus = read_corpus(dump(mmsa, "unaligned_39.pkl"), name="sims")
    assert not corpus.card.aligned
    assert lengths(corpus) == {"text": [4], "audio": [8], "vision": [3]}
    assert corpus.card.task == Task(kind="regression", low=-1.0, high=1.0)
    clip = next(iter(corpus_clips(corpus)))
    assert clip.modality_labels == {"text": -0.2, "audio": 0.4, "vision": 1.0}


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (np.array(["a$_$1", "b$_$2"]), [("a$_$1", "a", "1"), ("b$_$2", "b", "2")]),
        ([b"a$_$1", b"b$_$2"], [("a$_$1", "a", "1"), ("b$_$2", "b", "2")]),
        (
            np.array([["a", "0.5", "1.5"], ["b", "2", "3"]]),
            [("a$_$0.5_1.5", "a", "0.5_1.5"), ("b$_$2_3", "b", "2_3")],
        ),
        (["plain", "other"], [("plain", None, None), ("other", None, None)]),
    ],
    ids=["array", "bytes", "rows", "no-recording"],
)
def test_mmsa_ids_in_every_container(mmsa, dump, ids, expected):
    mmsa["test"]["id"] = ids
    clips = list(read_corpus(dump(mmsa)).open_test_split().clips())
    assert [(clip.id, clip.video_id, clip.clip_id) for clip in clips] == expected


def test_mmsa_mask_of_other_steps_is_a_fault(mmsa, dump):
    mmsa["valid"]["text_bert"] = mmsa["valid"]["text_bert"][:, :, :5]
    path = dump(mmsa)
    assert refusal(path) == (
        f'{path}, split "valid": the mask of text has 5 steps, its features 6.\n'
        "  A mask must cover the same steps as the features. Correct it, or go without it: "
        '--rename "text_bert="\n'
        f"  See them all: mmcl corpus check {path}"
    )
    assert read_corpus(path, rename={"text_bert": ""}).card.counts["valid"] == 3


def test_mmsa_tokens_of_another_shape_are_refused(mmsa, dump):
    mmsa["valid"]["text_bert"] = mmsa["valid"]["text_bert"][:, :2]
    path = dump(mmsa)
    assert refusal(path) == (
        f'{path}, split "valid": text_bert has shape [3, 2, 6].\n'
        "  Expected [clips, 3, steps]: token ids, mask and segments.\n"
        "  The layouts that can be read: mmcl corpus convert --help"
    )


# --- MulT --------------------------------------------------------------------------------


def mult_content(content, labels_of):
    return {
        split: {
            **{m: fields[m] for m in ("text", "audio", "vision")},
            "labels": labels_of(len(fields["id"])),
        }
        for split, fields in content.items()
    }


def iemocap_widths(content):
    for fields in content.values():
        for modality, width in (("text", 300), ("audio", 74), ("vision", 35)):
            fields[modality] = np.ones((len(fields["id"]), 6, width))
    return content


def test_mult_emotions(content, dump):
    content = iemocap_widths(content)
    one_hot = np.eye(2)[[[0, 1, 0, 0], [1, 0, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0]]]  # [4, 4, 2]
    corpus = read_corpus(dump(mult_content(content, lambda n: one_hot[:n]), "iemocap_data.pkl"))
    assert corpus.card.name == "iemocap"
    assert corpus.card.task.names == ("neutral", "happy", "sad", "angry")
    assert corpus.split("train").labels().tolist() == [
        [0, 1, 0, 0],
        [1, 0, 0, 1],
        [0, 0, 1, 0],
        [0, 0, 0, 0],
    ]


def test_mult_pair_that_is_not_one_hot_is_a_fault(content, dump):
    pairs = np.zeros((4, 4, 2))
    pairs[:, :, 0] = 1
    pairs[1, 2] = [1, 1]
    path = dump(mult_content(content, lambda n: pairs[:n] if n == 4 else pairs[:1].repeat(n, 0)))
    assert refusal(path) == (
        f'{path}, split "train", clip "train_0001": label is (0, 0, -1, 0).\n'
        "  A label must be 4 judgements, each 0 or 1.\n"
        f"  See them all: mmcl corpus check {path}"
    )


def test_mult_scores_and_ids_of_bytes(content, dump):
    mult = mult_content(content, lambda n: np.linspace(-3, 3, n).reshape(n, 1, 1))
    for split, fields in mult.items():
        fields["id"] = np.array(
            [[split.encode(), b"%d" % row, b"%d" % (row + 1)] for row in range(len(fields["text"]))]
        )
    corpus = read_corpus(dump(mult, "mosi_data.pkl"))
    assert corpus.card.task == Task(kind="regression", low=-3.0, high=3.0)
    np.testing.assert_allclose(corpus.split("train").labels(), [-3, -1, 1, 3], atol=1e-12)
    assert corpus.split("train").ids[1] == "train$_$1_2"
    assert next(iter(corpus.split("train").clips())).video_id == "train"


# --- MAG-BERT ----------------------------------------------------------------------------


def magbert_clip(words, label, segment, seed=0):
    rng = np.random.default_rng(seed)
    visual, acoustic = rng.normal(size=(len(words), 4)), rng.normal(size=(len(words), 3))
    return (words, visual, acoustic), np.array([[label]]), segment


def test_magbert(dump):
    content = {
        "train": [
            magbert_clip(["so", "good"], 2.4, "vid[3]"),
            magbert_clip(["no"], -1.0, "vid[4]"),
        ],
        "dev": [magbert_clip(["a", "b", "c"], 0.0, "w[0]")],
        "test": [magbert_clip(["d"], 1.0, "x[0]")],
    }
    corpus = read_corpus(dump(content, "mosi.pkl"))
    assert corpus.card.dims == {"audio": 3, "vision": 4}
    assert corpus.card.aligned
    assert corpus.card.counts == {"train": 2, "valid": 1, "test": 1}
    clip = next(iter(corpus_clips(corpus)))
    assert (clip.id, clip.video_id, clip.clip_id) == ("vid[3]", "vid", "3")
    assert clip.text == "so good"
    assert [word.text for word in clip.words] == ["so", "good"]
    assert clip.label == 2.4
    expected = content["train"][0][0][1].astype(np.float32)
    np.testing.assert_array_equal(clip.features["vision"], expected)


def test_magbert_words_without_a_step_are_a_fault(dump):
    (words, visual, acoustic), label, segment = magbert_clip(["so", "good"], 1.0, "v[0]")
    path = dump({"train": [((words, visual, acoustic[:1]), label, segment)]})
    assert refusal(path) == (
        f'{path}, split "train", clip "v[0]": audio has 1 steps for 2 words.\n'
        "  Every word needs one step of every modality.\n"
        f"  See them all: mmcl corpus check {path}"
    )


def test_magbert_clip_of_another_shape_is_refused(dump):
    path = dump({"train": [(1, 2, 3)]})
    assert refusal(path) == (
        f'{path}, split "train": a clip is not ((words, visual, acoustic), label, segment).\n'
        "  Expected these parts of every clip of a MAG-BERT pickle.\n"
        "  The layouts that can be read: mmcl corpus convert --help"
    )


# --- npz ---------------------------------------------------------------------------------


def save_npz(path, content, **more):
    arrays = {f"{split}/{key}": v for split, fields in content.items() for key, v in fields.items()}
    np.savez_compressed(path, **arrays, **more)
    return path


def npz_content(content, labels_of):
    return {
        split: {
            **{m: fields[m] for m in ("text", "audio", "vision")},
            "labels": labels_of(len(fields["id"])),
            "ids": np.array(fields["id"]),
            "text_lengths": np.full(len(fields["id"]), 2),
            "audio_lengths": np.full(len(fields["id"]), 5),
        }
        for split, fields in content.items()
    }


@pytest.mark.parametrize(
    ("labels_of", "kind"),
    [
        (lambda n: np.linspace(-1, 1, n), "regression"),
        (lambda n: np.arange(n) % 3, "classes"),
        (lambda n: np.tile([0, 1, 1], (n, 1)), "emotions"),
    ],
)
def test_npz(content, tmp_path, labels_of, kind):
    names = np.array(["no", "maybe", "yes"])
    path = save_npz(tmp_path / "mine.npz", npz_content(content, labels_of), names=names)
    corpus = read_corpus(path)
    assert corpus.card.task.kind == kind
    assert corpus.card.task.names == (() if kind == "regression" else ("no", "maybe", "yes"))
    assert lengths(corpus) == {"text": [2], "audio": [5], "vision": [6]}
    assert corpus.split("valid").ids == ["valid-0", "valid-1", "valid-2"]
    labels = corpus.split("train").labels()
    np.testing.assert_array_equal(labels, labels_of(4))


def test_npz_with_a_pickle_inside_is_refused(tmp_path):
    path = save_npz(tmp_path / "mine.npz", {"train": {"text": np.array([{}, 1], dtype=object)}})
    with pytest.raises(UnsafePickleError) as caught:
        read_corpus(path)
    assert str(caught.value) == (
        f'{path}: array "train/text" is a pickle of objects; nothing of it was run.\n'
        "  Expected arrays of numbers or strings only.\n"
        "  Clips of different lengths: pad them with zeros to one array [clips, steps, width], "
        "and save how many steps each has as text_lengths."
    )


def test_npz_of_another_layout(tmp_path):
    path = tmp_path / "mine.npz"
    np.savez(path, features=np.ones(3))
    assert refusal(path) == (
        f"{path}: unknown layout; it holds a dict with 'features'.\n"
        '  Expected arrays named like "train/text", "train/audio" and "train/labels".\n'
        "  The layouts that can be read: mmcl corpus convert --help"
    )


def test_npz_names_only_the_fields_that_are_ignored(content, tmp_path):
    for fields in content.values():
        fields["loudness"] = np.zeros(len(fields["id"]))
    corpus = read_corpus(save_npz(tmp_path / "mine.npz", content))
    assert corpus.split("valid").ids == ["valid-0", "valid-1", "valid-2"]
    assert corpus.card.account.left_out == ("field loudness, which is not read",)


def test_npz_cut_short(content, tmp_path):
    path = save_npz(tmp_path / "mine.npz", npz_content(content, np.zeros))
    path.write_bytes(path.read_bytes()[:-200])
    assert f"{path}: the npz file is cut short or damaged (" in refusal(path)


# --- what is refused ---------------------------------------------------------------------


def test_missing_file(content, dump, tmp_path):
    dump(content, "mosi.pkl")
    path = tmp_path / "mosj.pkl"
    assert refusal(path) == (
        f'{path}: no such file; did you mean "mosi.pkl"?\n'
        "  Expected a corpus written by mmcl, a pickle (plain or gzip'd), an npz file, "
        "a table (csv, Parquet, Arrow) or .csd files.\n"
        "  Make one to try things on: mmcl corpus plant planted.arrow"
    )


def test_empty_file(tmp_path):
    path = tmp_path / "mosi.pkl"
    path.touch()
    assert refusal(path) == (
        f"{path}: the file is empty.\n"
        "  Expected a corpus written by mmcl, a pickle (plain or gzip'd), an npz file, "
        "a table (csv, Parquet, Arrow) or .csd files; "
        "fetch or copy it again.\n"
        "  The layouts that can be read: mmcl corpus convert --help"
    )


def test_folder(tmp_path):
    assert refusal(tmp_path).startswith(f"{tmp_path}: a folder.\n  Expected a pickle")


@pytest.mark.parametrize(
    ("thing", "shown"),
    [
        ([1, 2], "one list of ints"),
        (np.zeros(2), "one ndarray"),
        ({}, "a dict with no keys"),
        ({"a": 1, "b": 2}, "a dict with 'a', 'b'"),
        (
            {"train": {"x": 1}, "test": {}},
            "a dict with 'train', 'test', and in the first of them a dict with 'x'",
        ),
        (dict.fromkeys("abcdefg"), "a dict with 'a', 'b', 'c', 'd', 'e', ..."),
    ],
)
def test_unknown_layout(dump, thing, shown):
    path = dump(thing)
    assert refusal(path) == (
        f"{path}: unknown layout; it holds {shown}.\n"
        '  Expected a dict of splits "train", "valid" (or "dev", "val") and "test", each a dict '
        'with "text", "audio" or "vision", or a list of ((words, visual, acoustic), label, '
        "segment).\n"
        "  The layouts that can be read: mmcl corpus convert --help"
    )


def test_modalities_that_list_different_clips(content, dump):
    content["valid"]["audio"] = content["valid"]["audio"][:2]
    path = dump(content)
    assert refusal(path) == (
        f'{path}, split "valid": audio has 2 clips, text has 3.\n'
        "  Every modality must list the same clips in the same order.\n"
        '  First clip without audio: "valid-2".\n'
        f"  See them all: mmcl corpus check {path}"
    )


def test_labels_that_list_different_clips(content, dump):
    content["test"]["regression_labels"] = [0.5]
    path = dump(content)
    assert refusal(path) == (
        f'{path}, split "test": regression_labels has 1 clips, text has 2.\n'
        "  Every field must list the same clips in the same order.\n"
        '  First clip without regression_labels: "test-1".\n'
        f"  See them all: mmcl corpus check {path}"
    )


def test_duplicate_ids(content, dump):
    content["train"]["id"] = ["a", "b", "a", "c"]
    path = dump(content)
    assert refusal(path) == (
        f'{path}, split "train": id "a" is listed 2 times.\n'
        "  Every clip needs an id of its own.\n"
        f"  See them all: mmcl corpus check {path}"
    )


def test_id_in_two_splits(content, dump):
    content["test"]["id"][0] = "train-0"
    path = dump(content)
    assert refusal(path) == (
        f'{path}, splits "train" and "test": id "train-0" is in more than one.\n'
        "  A clip belongs to one split only.\n"
        f"  See them all: mmcl corpus check {path}"
    )


@pytest.mark.parametrize(("label", "shown"), [(3.5, "3.5"), (np.nan, "nan"), (-np.inf, "-inf")])
def test_label_outside_its_range(content, dump, label, shown):
    content["valid"]["regression_labels"][1] = label
    path = dump(content, "mosi.pkl")
    assert refusal(path) == (
        f'{path}, split "valid", clip "valid-1": label is {shown}.\n'
        "  A label must be a number from -3 to 3 "
        "(of another range: convert with --label-range LOW HIGH).\n"
        f"  See them all: mmcl corpus check {path}"
    )


@pytest.mark.parametrize(("label", "shown"), [(-1, "-1"), (8, "8"), (1.5, "1.5"), (np.nan, "nan")])
def test_class_that_does_not_exist(content, dump, label, shown):
    for fields in content.values():
        fields["classification_labels"] = np.linspace(0, 7, len(fields["id"])).round()
    content["test"]["classification_labels"][1] = label
    path = dump(content, "ravdess.pkl")
    assert refusal(path) == (
        f'{path}, split "test", clip "test-1": label is {shown}.\n'
        "  A label must be a whole number from 0 to 7.\n"
        f"  See them all: mmcl corpus check {path}"
    )


def test_faults_of_a_file_that_needs_an_option_name_no_command_that_lacks_it(content, dump):
    content["eval"] = content.pop("test")
    content["train"]["id"][1] = "train-0"
    path = dump(content)
    assert refusal(path, rename={"eval": "test"}) == (
        f'{path}, split "train": id "train-0" is listed 2 times.\n'
        "  Every clip needs an id of its own."
    )


def test_clip_without_steps(content, dump):
    for modality in ("text", "audio", "vision"):
        content["train"][modality][2] = 0
    path = dump(content)
    assert refusal(path) == (
        f'{path}, split "train", clip "train-2": it has no steps in any modality.\n'
        "  A clip needs one step of one modality at least.\n"
        f"  See them all: mmcl corpus check {path}"
    )


@pytest.mark.parametrize("length", [-1, 10])
def test_length_beyond_the_array(content, dump, length):
    unaligned(content)["valid"]["audio_lengths"][2] = length
    path = dump(content)
    faults = check_file(path)[1]
    assert str(faults[0]) == (
        f'split "valid", clip "valid-2": audio length is {length}, the array has 9 steps'
    )


def test_ragged_width_within_a_modality(content, dump):
    content["train"]["text"] = [np.ones((2, 3)), np.ones((2, 3)), np.ones((2, 4)), np.ones((1, 3))]
    path = dump(content)
    assert refusal(path) == (
        f'{path}, split "train", clip "train-2": text is 4 wide, 3 in the clips before it.\n'
        "  A modality must have one width throughout the corpus.\n"
        f"  See them all: mmcl corpus check {path}"
    )


def test_width_that_changes_between_splits(content, dump):
    content["test"]["audio"] = np.ones((2, 6, 7))
    faults = check_file(dump(content))[1]
    assert [str(fault) for fault in faults] == [
        'split "test", clip "test-0": audio is 7 wide, 2 in the clips before it',
        'split "test", clip "test-1": audio is 7 wide, 2 in the clips before it',
    ]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (np.ones((4, 2, 2, 2)), "shape [4, 2, 2, 2], float64"),
        ([np.ones((2, 3, 4))] * 4, "shape [2, 3, 4], float64"),
        (np.ones((4, 2, 3)) * 1j, "shape [4, 2, 3], complex128"),
        (5, "int"),
    ],
)
def test_features_that_are_none(content, dump, value, shown):
    content["train"]["text"] = value
    path = dump(content)
    assert refusal(path) == (
        f'{path}, split "train": text is {shown}, which cannot be read as features.\n'
        "  Expected numbers of shape [clips, steps, width] or [clips, width], "
        "or a list of arrays [steps, width].\n"
        "  The layouts that can be read: mmcl corpus convert --help"
    )


def test_label_of_no_clip_is_refused(content, dump):
    content["train"]["regression_labels"] = 1.0
    path = dump(content)
    assert refusal(path) == (
        f'{path}, split "train": regression_labels is a single value.\n'
        "  Expected one number per clip.\n"
        "  The layouts that can be read: mmcl corpus convert --help"
    )


def test_labels_of_different_kinds_are_refused(content, dump):
    content["train"]["regression_labels"] = ["a", "b", "c", "d"]
    content["valid"]["regression_labels"][:] = content["test"]["regression_labels"][:] = 0.5
    path = dump(content)
    assert refusal(path) == (
        f'{path}, field "regression_labels" holds numbers such as "0.5" and "a": neither numbers '
        "nor names of classes.\n"
        "  Expected numbers with a decimal point, or names; nothing where a label is unknown. "
        "Correct them in the file.\n"
        "  The layouts that can be read: mmcl corpus convert --help"
    )


def test_split_under_two_names(content, dump):
    content["dev"] = content["valid"]
    path = dump(content)
    assert refusal(path) == (
        f'{path}: the "valid" split is there twice, as "valid" and "dev".\n'
        '  Expected one of them. Leave one out: --rename "dev="\n'
        "  The layouts that can be read: mmcl corpus convert --help"
    )


def test_file_without_clips(dump):
    path = dump({"train": {"text": np.zeros((0, 2, 3))}})
    assert refusal(path) == (
        f"{path}, every split: it holds no clips.\n"
        "  A corpus needs one clip at least.\n"
        f"  See them all: mmcl corpus check {path}"
    )


def test_every_fault_is_listed_at_once(content, dump):
    content["train"]["vision"] = content["train"]["vision"][:3]
    content["valid"]["id"][1] = "valid-0"
    content["test"]["regression_labels"][:] = [9.0, np.nan]
    content["test"]["text"][0] = content["test"]["audio"][0] = content["test"]["vision"][0] = 0
    path = dump(content)
    assert refusal(path) == (
        f"{path} has 5 faults\n"
        '  split "train": vision has 3 clips, text has 4\n'
        '  split "valid": id "valid-0" is listed 2 times\n'
        '  split "test", clip "test-0": it has no steps in any modality\n'
        '  split "test", clip "test-0": label is 9\n'
        '  split "test", clip "test-1": label is nan\n'
        "  A label must be a number from -2 to 2 "
        "(of another range: convert with --label-range LOW HIGH).\n"
        f"  See them all: mmcl corpus check {path}"
    )
    assert len(check_file(path)[1]) == 5


# --- from file to file -------------------------------------------------------------------


def test_converted_corpus_is_the_one_that_was_read(content, dump, tmp_path, same_clip):
    path = dump(content)
    target = tmp_path / "toy.arrow"
    card = convert_corpus(path, target)
    read, converted = read_corpus(path), read_corpus(target)
    assert converted.card == read.card == card
    for original, restored in zip(corpus_clips(read), corpus_clips(converted), strict=True):
        same_clip(original, restored)
    assert check_file(target) == (card, [])


def test_corpus_can_be_converted_again_in_half_precision(content, dump, tmp_path):
    convert_corpus(dump(content), tmp_path / "toy.arrow")
    card = convert_corpus(
        tmp_path / "toy.arrow", tmp_path / "half.arrow", dtype="float16", name="half"
    )
    half = open_corpus(tmp_path / "half.arrow")
    assert half.card == card
    assert half.card.name == "half"
    assert half.split("train").steps("text", 0).dtype == np.float16


def test_value_too_large_for_half_precision_leaves_nothing(content, dump, tmp_path):
    content["valid"]["audio"][1, 2, 1] = -70000.0
    path = dump(content)
    with pytest.raises(DatasetError) as caught:
        convert_corpus(path, tmp_path / "half.arrow", dtype="float16")
    assert str(caught.value) == (
        f'{path}, clip "valid-1": audio holds 70000, and float16 ends at 65504.\n'
        "  Expected values that fit; keep full precision: --dtype float32"
    )
    assert list(tmp_path.iterdir()) == [path]


def test_faulty_source_leaves_nothing_and_the_old_target(content, dump, tmp_path):
    content["train"]["id"][1] = "train-0"
    path, target = dump(content), tmp_path / "toy.arrow"
    target.write_bytes(b"old")
    with pytest.raises(DatasetError):
        convert_corpus(path, target)
    assert target.read_bytes() == b"old"
    assert sorted(tmp_path.iterdir()) == sorted([path, target])


def test_unreadable_file(content, dump, monkeypatch):
    path = dump(content)

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("mmcl.corpus.readers.open_or_convert.hashlib.file_digest", refuse)
    with pytest.raises(DatasetError) as caught:
        read_corpus(path)
    assert str(caught.value) == (
        f"{path}: cannot be read (Permission denied).\n"
        "  Expected a corpus written by mmcl, a pickle (plain or gzip'd), an npz file, "
        "a table (csv, Parquet, Arrow) or .csd files, "
        "which you may read.\n"
        "  The layouts that can be read: mmcl corpus convert --help"
    )


def test_same_file_under_every_pickle_protocol(content, dump, same_clip):
    first = list(corpus_clips(read_corpus(dump(content, "p0.pkl", protocol=0))))
    for protocol in range(1, pickle.HIGHEST_PROTOCOL + 1):
        path = dump(content, f"p{protocol}.pkl", protocol=protocol)
        for original, restored in zip(first, corpus_clips(read_corpus(path)), strict=True):
            same_clip(original, restored)


@pytest.mark.parametrize(
    "shaped",
    [
        lambda steps: steps[:, np.newaxis],
        lambda steps: [clip[np.newaxis] for clip in steps],
        lambda steps: [clip[:, np.newaxis] for clip in steps],
        lambda steps: np.asfortranarray(steps),
        lambda steps: steps.astype(">f4"),
    ],
    ids=["[N,1,n,d]", "[1,n,d]", "[n,1,d]", "fortran", "big-endian"],
)
def test_axes_of_one_and_memory_orders_do_not_matter(content, dump, shaped):
    expected = [clip.copy() for clip in content["train"]["audio"]]
    for fields in content.values():
        fields["audio"] = shaped(fields["audio"])
    clips = read_corpus(dump(content)).split("train").clips()
    for clip, steps in zip(clips, expected, strict=True):
        np.testing.assert_array_equal(clip.features["audio"], steps)


def test_clip_whose_features_are_none_lacks_the_modality(content, dump):
    for fields in content.values():
        fields["audio"] = [None, *fields["audio"][1:]]
    corpus = read_corpus(dump(content))
    assert [list(clip.features) for clip in corpus.split("valid").clips()] == [
        ["text", "vision"],
        ["text", "audio", "vision"],
        ["text", "audio", "vision"],
    ]
    assert corpus.card.dims["audio"] == 2


def test_ids_that_begin_anew_in_every_split(content, dump):
    for fields in content.values():
        fields["id"] = np.arange(len(fields["id"]))
    path = dump(content)
    assert str(check_file(path)[1][0]) == (
        'every split: "id" numbers the clips of each split, so that the splits share ids'
    )
    assert (
        "  Every clip needs an id of its own. To name the clips by their split and row: "
        '--rename "id="\n'
    ) in refusal(path)
    assert next(read_corpus(path, rename={"id": ""}).split("valid").clips()).id == "valid_0000"


def test_ids_of_one_part_name_no_clip_in_a_recording(content, dump):
    for split, fields in content.items():
        fields["id"] = np.array([[f"{split}{row}"] for row in range(len(fields["id"]))])
    clip = next(read_corpus(dump(content)).split("train").clips())
    assert (clip.id, clip.video_id, clip.clip_id) == ("train0", None, None)


def test_empty_cells_are_no_text(content, dump):
    content["train"]["raw_text"] = ["a", float("nan"), None, np.float32("nan")]
    clips = read_corpus(dump(content)).split("train").clips()
    assert [clip.text for clip in clips] == ["a", None, None, None]


def test_clips_of_misa_have_their_words_in_a_fourth_part(dump):
    rng = np.random.default_rng(0)
    words = ["so", "good"]
    parts = (np.array([5, 9]), rng.normal(size=(2, 4)), rng.normal(size=(2, 3)), words)
    path = dump({"train": [(parts, np.array([[1.5]]), "abc[2]")]})
    clip = next(read_corpus(path).split("train").clips())
    assert (clip.text, clip.clip_id, clip.label) == ("so good", "2", 1.5)
    assert {m: steps.shape for m, steps in clip.features.items()} == {
        "audio": (2, 3),
        "vision": (2, 4),
    }
