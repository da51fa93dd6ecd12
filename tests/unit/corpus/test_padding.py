"""Padding: found at either end, with lengths or without, or asked about."""

import numpy as np
import pytest

from mmcl.corpus.check import corpus_clips
from mmcl.corpus.readers import read_corpus
from mmcl.corpus.readers.padding import Edges, find_place
from mmcl.errors import DatasetError

# Real steps of the nine clips of the content, longest 5 of 8.
LENGTHS = {
    "train": {"text": [3, 5, 1, 4], "audio": [2, 5, 3, 1]},
    "valid": {"text": [2, 5, 3], "audio": [4, 1, 5]},
    "test": {"text": [5, 2], "audio": [3, 4]},
}
TOTAL = {"text": 6, "audio": 8}


def first_step(side, total, length):
    return {"right": 0, "left": total - length, "both": (total - length) // 2}[side]


def padded(side, *, lengths_in_file, value=0.0, dtype=np.float32):
    """Return a dict of splits, padded at a side with a value, and the real steps."""
    rng = np.random.default_rng(3)
    content, real = {}, {}
    for split, by_modality in LENGTHS.items():
        fields = {}
        for modality, lengths in by_modality.items():
            total = TOTAL[modality]
            array = np.full((len(lengths), total, 2), value, dtype=dtype)
            for row, length in enumerate(lengths):
                start = first_step(side, total, length)
                array[row, start : start + length] = rng.normal(size=(length, 2)) + 3
                real[split, row, modality] = array[row, start : start + length].astype(np.float32)
            fields[modality] = array
            if lengths_in_file:
                fields[f"{modality}_lengths"] = lengths
        fields["regression_labels"] = np.linspace(-2.5, 2.5, len(lengths))
        content[split] = fields
    return content, real


def assert_steps(corpus, real):
    rows = dict.fromkeys(LENGTHS, 0)
    for clip in corpus_clips(corpus):
        for modality, steps in clip.features.items():
            np.testing.assert_array_equal(steps, real[clip.split, rows[clip.split], modality])
        rows[clip.split] += 1


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
@pytest.mark.parametrize("lengths_in_file", [True, False])
@pytest.mark.parametrize("side", ["left", "right", "both"])
def test_padding_is_found_at_its_side(dump, side, lengths_in_file, dtype):
    content, real = padded(side, lengths_in_file=lengths_in_file, dtype=dtype)
    corpus = read_corpus(dump(content))
    assert_steps(corpus, real)
    end = {"left": "the left", "right": "the right", "both": "both ends"}[side]
    evidence = {m: f"{m}_lengths" if lengths_in_file else "steps of zeros" for m in TOTAL}
    assert corpus.card.account.source[-2:] == tuple(
        f"{m} padded at {end} ({evidence[m]})" for m in TOTAL
    )


@pytest.mark.parametrize("value", [-1.5, np.nan, -np.inf])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_of_another_value_than_zero_is_found(dump, side, value):
    content, real = padded(side, lengths_in_file=False, value=value)
    for by_modality in LENGTHS.values():  # every clip must end with two padded steps at least
        assert max(by_modality["audio"]) <= TOTAL["audio"] - 2
    content = {
        split: {"audio": f["audio"], "labels": f["regression_labels"]}
        for split, f in content.items()
    }
    corpus = read_corpus(dump(content))
    assert_steps(corpus, real)
    assert corpus.card.repairs == {}
    assert (
        f"audio: padded with steps of {value:g}; they were cut "
        "(if they were measured: --padding none)"
    ) in corpus.card.notes
    whole = read_corpus(dump(content), padding="none")
    assert {len(clip.features["audio"]) for clip in corpus_clips(whole)} == {TOTAL["audio"]}


def test_lengths_of_the_other_side_are_no_contradiction_but_wrong_ones_are(dump):
    content, _ = padded("left", lengths_in_file=True)
    content["valid"]["audio_lengths"] = [1, 1, 1]
    content["test"]["audio_lengths"] = [1, 1]
    path = dump(content)
    with pytest.raises(DatasetError) as caught:
        read_corpus(path)
    assert str(caught.value) == (
        f"{path} has 4 faults\n"
        '  split "valid", clip "valid_0000": audio length is 1, but the steps 4 to 7 of 8 hold '
        "something\n"
        '  split "valid", clip "valid_0002": audio length is 1, but the steps 3 to 7 of 8 hold '
        "something\n"
        '  split "test", clip "test_0000": audio length is 1, but the steps 5 to 7 of 8 hold '
        "something\n"
        '  split "test", clip "test_0001": audio length is 1, but the steps 4 to 7 of 8 hold '
        "something\n"
        "  Real steps must fit into the length, at the left or at the right. Correct the lengths, "
        'or leave them out: --rename "audio_lengths="\n'
        f"  See them all: mmcl corpus check {path}"
    )
    # The way out that the message names.
    assert read_corpus(path, rename={"audio_lengths": ""}).card.counts["valid"] == 3


def test_lengths_that_count_padding_are_asked_about(dump):
    content, _ = padded("left", lengths_in_file=True)
    for fields in content.values():
        fields["audio_lengths"] = np.full(len(fields["audio"]), TOTAL["audio"])
    corpus = read_corpus(dump(content))
    assert {len(clip.features["audio"]) for clip in corpus_clips(corpus)} == {8}
    assert (
        "audio: its lengths count every step, but 9 of 9 clips begin with steps of zeros; these "
        "were kept (to look for padding instead, leave the lengths out: "
        '--rename "audio_lengths=")' in corpus.card.notes
    )


def test_lengths_that_cannot_be_checked_are_said(dump):
    """The vectors that BERT gives to padding are not zero."""
    content, _ = padded("right", lengths_in_file=True)
    for fields in content.values():
        fields["text"] = np.ones_like(fields["text"])
    corpus = read_corpus(dump(content))
    assert [len(c.features["text"]) for c in corpus.split("train").clips()] == [3, 5, 1, 4]
    assert (
        "text: no step is empty, so its lengths could not be checked; the first steps were taken "
        "(if the last ones are real: --padding left)" in corpus.card.notes
    )


def test_user_settles_the_side(dump):
    content, _ = padded("right", lengths_in_file=True)
    for fields in content.values():
        del fields["text"], fields["text_lengths"]
        fields["audio"] = np.arange(8.0).repeat(2).reshape(1, 8, 2) + np.ones(
            (len(fields["audio"]), 1, 1)
        )
    path = dump(content)
    clips = list(read_corpus(path, padding="left").split("train").clips())
    assert [clip.features["audio"][-1, 0] for clip in clips] == [8.0] * 4
    assert [len(clip.features["audio"]) for clip in clips] == [2, 5, 3, 1]


def test_zeros_measured_at_the_other_end_are_kept_and_said(dump):
    content, real = padded("right", lengths_in_file=False)
    content["train"]["audio"][1, 0] = 0  # a first step of zeros, in one clip alone
    real["train", 1, "audio"][0] = 0
    corpus = read_corpus(dump(content))
    assert_steps(corpus, real)
    assert (
        "audio: 1 of 9 clips begin with steps of zeros and 9 end with them; those at the beginning "
        "were kept as measured (or: --padding both or left)" in corpus.card.notes
    )


def test_mask_at_another_place_than_the_steps_is_not_used(dump):
    content, real = padded("left", lengths_in_file=False)
    for split, fields in content.items():
        tokens = np.zeros((len(fields["text"]), 3, TOTAL["text"]))
        for row, length in enumerate(LENGTHS[split]["text"]):
            tokens[row, 1, :length] = 1
        fields["text_bert"] = tokens
    corpus = read_corpus(dump(content))
    assert_steps(corpus, real)
    assert (
        "text: the mask of text_bert marks other steps as real than those that hold something; "
        "the latter were taken" in corpus.card.notes
    )


def test_mask_that_marks_nothing_is_not_used(dump):
    content, real = padded("right", lengths_in_file=False)
    for fields in content.values():
        fields["text_bert"] = np.zeros((len(fields["text"]), 3, TOTAL["text"]))
    corpus = read_corpus(dump(content))
    assert_steps(corpus, real)
    assert (
        "text: the mask of text_bert marks no step as real, so it was not used" in corpus.card.notes
    )


def test_alignment_that_only_the_number_of_steps_suggests_is_asked_about(dump):
    content, real = padded("right", lengths_in_file=False)
    for fields in content.values():
        fields["audio"] = fields["audio"][:, :6]
    path = dump(content)
    corpus = read_corpus(path)
    assert corpus.card.aligned
    assert (
        "text, audio: taken as aligned, since all modalities have the same number of steps; but in "
        "8 of 9 clips they begin or end at different ones (if step i is not the same moment in all "
        "of them: --align none)" in corpus.card.notes
    )
    corpus = read_corpus(path, align="none")
    assert not corpus.card.aligned
    assert_steps(corpus, real)


def test_alignment_that_the_steps_contradict_is_refused(dump):
    path = dump(padded("right", lengths_in_file=False)[0])
    with pytest.raises(DatasetError) as caught:
        read_corpus(path, align="word")
    assert str(caught.value) == (
        f"{path}: its modalities have different numbers of steps (text 6, audio 8).\n"
        "  Expected the same number for --align word. Leave the option out, or: --align none"
    )


def test_single_wrong_length_of_many_is_said_and_believed():
    lengths = np.full(20, 3)
    edges = Edges(np.full(20, 9), np.zeros(20, int), np.append(np.full(19, 3), 5), lengths)
    place = find_place(edges, None, lengths_field="audio_lengths")
    assert (place.side, place.contradicting) == ("right", ())
    assert place.notes == (
        "in 1 of 20 clips steps outside the length hold something; the lengths were believed",
    )


def test_row_that_lies_between_others_is_no_padding(dump):
    """A measured value that most clips begin and end with, such as a face that is there."""
    rows = [[1, 1, 2, 1, 1, 1], [1, 1, 1, 2, 2, 1], [2, 1, 2, 2, 1, 1], [1, 1, 2, 1, 2, 2]]
    vision = np.array(rows, dtype=np.float32)[..., np.newaxis]
    content = {"train": {"vision": vision, "labels": np.linspace(-3, 3, 4)}}
    corpus = read_corpus(dump(content))
    np.testing.assert_array_equal(
        [clip.features["vision"] for clip in corpus_clips(corpus)], vision
    )
    assert not [note for note in corpus.card.notes if "padded" in note]


@pytest.mark.parametrize("shape", [(-1,), (-1, 1), (-1, 1, 1)])
def test_lengths_may_be_floats_with_axes_of_one(dump, shape):
    content, real = padded("left", lengths_in_file=True)
    for fields in content.values():
        for modality in TOTAL:
            field = f"{modality}_lengths"
            fields[field] = np.array(fields[field], dtype=np.float64).reshape(shape)
    assert_steps(read_corpus(dump(content)), real)


def test_lengths_that_are_shares_are_refused(dump):
    content, _ = padded("right", lengths_in_file=True)
    content["valid"]["audio_lengths"] = np.array([4, 1, 5]) / 8
    path = dump(content)
    with pytest.raises(DatasetError) as caught:
        read_corpus(path)
    assert str(caught.value) == (
        f'{path}, split "valid": audio_lengths holds 0.5.\n'
        "  Expected the number of real steps of every clip, a whole number. If these are shares, "
        "multiply them by the steps of the array.\n"
        '  To leave them out: --rename "audio_lengths="'
    )
    assert read_corpus(path, rename={"audio_lengths": ""}).card.counts["valid"] == 3


def test_lengths_of_an_absent_modality_are_left_out(dump):
    content, _ = padded("right", lengths_in_file=True)
    for fields in content.values():
        del fields["audio"]
    account = read_corpus(dump(content)).card.account
    assert account.left_out == ("field audio_lengths, since there is no field audio",)
    assert "audio_lengths" not in account.source[1]


def test_clip_of_nothing_but_padding_stays_if_the_user_says_that_there_is_none(dump):
    content, _ = padded("right", lengths_in_file=False, value=-1.0)
    content["valid"]["audio"][1] = -1.0
    content = {
        split: {"audio": f["audio"], "text": f["audio"], "labels": f["regression_labels"]}
        for split, f in content.items()
    }
    content["valid"]["text"] = content["valid"]["text"] + 2
    path = dump(content)
    assert "audio" not in list(corpus_clips(read_corpus(path)))[5].features
    whole = list(corpus_clips(read_corpus(path, padding="none")))
    np.testing.assert_array_equal(whole[5].features["audio"], np.full((8, 2), -1.0))


def test_lengths_of_several_modalities_are_left_out_together(dump):
    """Aligned features, whose lengths of audio and text both count the padding."""
    content, _ = padded("right", lengths_in_file=False)
    for fields in content.values():
        fields["text"] = fields["audio"]
        for modality in TOTAL:
            fields[f"{modality}_lengths"] = [8] * len(fields["text"])
    path = dump(content)
    note = next(note for note in read_corpus(path).card.notes if "count every step" in note)
    advice = '--rename "text_lengths=" --rename "audio_lengths=")'
    assert note.endswith(advice)
    without = {"text_lengths": "", "audio_lengths": ""}
    lengths = [len(c.features["audio"]) for c in corpus_clips(read_corpus(path, rename=without))]
    assert lengths == [length for by in LENGTHS.values() for length in by["audio"]]
