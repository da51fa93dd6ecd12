"""Names of splits and fields, forms of the content, and the account of what was left out."""

import numpy as np
import pytest

from mmcl.corpus.check import corpus_clips
from mmcl.corpus.readers import read_corpus
from mmcl.errors import DatasetError


def refusal(path, **options):
    with pytest.raises(DatasetError) as caught:
        read_corpus(path, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("train", "valid", "test"),
    [
        ("training", "validation", "testing"),
        ("TRAIN", "Dev", "Test"),
        ("train_set", "valid_set", "test_set"),
        ("trn", "val", "tst"),
        ("train_data", "val_data", "test_data"),
    ],
)
def test_names_of_the_splits(content, dump, train, valid, test):
    own = {train: content["train"], valid: content["valid"], test: content["test"]}
    corpus = read_corpus(dump(own))
    assert corpus.card.counts == {"train": 4, "valid": 3, "test": 2}
    assert corpus.card.account.source[0] == (
        f"9 clips, of which 9 were read ({train} 4, {valid} 3, {test} 2)"
    )


def test_split_by_another_name_is_asked_for(content, dump):
    content["evaluation"] = content.pop("test")
    path = dump(content)
    assert refusal(path) == (
        f"{path}: 2 of 9 clips would be left out, more than 10%:\n"
        '  key "evaluation", 2 clips, since it names no split; did you mean "validation"\n'
        '  Say which it is: --rename "evaluation=test"; to leave it out: --rename "evaluation=".\n'
        "  To go on without them: --max-lost 0.23"
    )
    assert read_corpus(path, rename={"evaluation": "test"}).card.counts["test"] == 2
    left_out = {"key": 'key "evaluation", 2 clips', "asked": '"evaluation", as asked'}
    account = read_corpus(path, max_lost=0.23).card.account
    assert account.left_out[0].startswith(left_out["key"])
    account = read_corpus(path, rename={"evaluation": ""}).card.account
    assert account.left_out == (left_out["asked"],)


def test_key_that_is_no_split_is_listed(content, dump):
    content["config"] = {"audio": {"tool": "librosa"}, "text": "bert"}
    content["mean"] = np.zeros(3)
    account = read_corpus(dump(content)).card.account
    assert account.left_out == (
        'key "config", which is no split',
        'key "mean", which is no split',
    )


@pytest.mark.parametrize(
    ("field", "meant"), [("video", "vision"), ("visual", "vision"), ("facet", "vision")]
)
def test_near_name_of_a_modality_is_asked_for(content, dump, field, meant):
    for fields in content.values():
        fields[field] = fields.pop("vision")
    path = dump(content)
    assert refusal(path) == (
        f'{path}, field "{field}" is not read; did you mean "{meant}"?\n'
        "  Expected the fields text, audio, vision, lengths (audio_lengths) and labels.\n"
        f'  If so: --rename "{field}={meant}"; to leave one out: --rename "{field}="\n'
        "  The layouts that can be read: mmcl corpus convert --help"
    )
    assert read_corpus(path, rename={field: meant}).card.dims[meant] == 5
    without = read_corpus(path, rename={field: ""})
    assert meant not in without.card.dims
    assert f'"{field}", as asked' in without.card.account.left_out


@pytest.mark.parametrize(
    ("old", "new"), [("audio_lengths", "audio_length"), ("regression_labels", "sentiment")]
)
def test_near_name_of_lengths_and_labels_is_asked_for(content, dump, old, new):
    for fields in content.values():
        fields["audio_lengths"] = np.full(len(fields["id"]), 6)
        fields[new] = fields.pop(old)
    path = dump(content)
    meant = "labels" if old == "regression_labels" else old
    assert f'field "{new}" is not read; did you mean "{meant}"?' in refusal(path)
    assert read_corpus(path, rename={new: old}).card.dims["audio"] == 2


def test_other_field_is_listed_and_a_near_name_is_asked_for(content, dump):
    for fields in content.values():
        count = len(fields["id"])
        fields.pop("raw_text", None)
        fields["transcript"] = [f"said {row}" for row in range(count)]
        fields["loudness"] = np.zeros(count)
    path = dump(content)
    assert read_corpus(path).card.account.left_out == (
        "field loudness, which is not read",
        'field transcript, which is not read; if it is raw_text: --rename "transcript=raw_text"',
    )
    clip = next(read_corpus(path, rename={"transcript": "raw_text"}).split("train").clips())
    assert clip.text == "said 0"


def test_renaming_of_nothing_is_refused(content, dump):
    path = dump({"train": {"text": content["train"]["text"], "labels": np.ones(4)}})
    assert refusal(path, rename={"vidio": "vision"}) == (
        f'{path}: --rename "vidio=vision": nothing in the file is called "vidio".\n'
        "  It has: labels, text, train.\n"
        "  The layouts that can be read: mmcl corpus convert --help"
    )


def test_labels_that_were_not_taken_are_listed(content, dump):
    for fields in content.values():
        fields["classification_labels"] = np.zeros(len(fields["id"]))
    account = read_corpus(dump(content)).card.account
    assert account.left_out == (
        "field classification_labels, since regression_labels was taken (--task chooses another)",
    )


def test_token_ids_without_vectors_are_said(content, dump):
    for fields in content.values():
        del fields["text"]
        fields["text_bert"] = np.zeros((len(fields["id"]), 3, 6))
    card = read_corpus(dump(content)).card
    assert card.account.left_out == (
        "text_bert, which holds token ids: there are no vectors of words",
    )
    assert card.notes[0] == (
        "text: absent, since text_bert holds token ids and no vectors; expected vectors of words "
        'as a field "text", [clips, steps, width]'
    )


def test_fields_of_splits(content, dump, same_clip):
    by_field = {
        field: {split: fields[field] for split, fields in content.items()}
        for field in content["train"]
    }
    first, second = read_corpus(dump(content)), read_corpus(dump(by_field, "other.pkl"))
    for clip, other in zip(
        first.split("train").clips(), second.split("train").clips(), strict=True
    ):
        same_clip(clip, other)


def test_rows_with_a_field_that_names_the_split(content, dump, same_clip):
    rows = {
        field: [value for fields in content.values() for value in fields[field]]
        for field in content["train"]
    }
    rows["mode"] = [split for split, fields in content.items() for _ in fields["id"]]
    first, second = read_corpus(dump(content)), read_corpus(dump(rows, "other.pkl"))
    for clip, other in zip(
        first.split("valid").clips(), second.split("valid").clips(), strict=True
    ):
        same_clip(clip, other)


def test_rows_of_no_split_are_asked_for(content, dump):
    rows = {
        field: [value for fields in content.values() for value in fields[field]]
        for field in content["train"]
    }
    names = {"train": "train", "valid": "valid", "test": "fold 9"}
    rows["split"] = [names[split] for split, fields in content.items() for _ in fields["id"]]
    path = dump(rows)
    assert '2 of 9 clips would be left out, more than 10%:\n  clips of split "fold 9"' in refusal(
        path
    )
    assert read_corpus(path, rename={"fold 9": "test"}).card.counts["test"] == 2


def test_rows_that_list_another_number_of_clips_are_refused(content, dump):
    rows = dict(content["train"], split=["train"] * 3)
    path = dump(rows)
    assert refusal(path).startswith(
        f'{path}, field "text" has 4 clips, the names of the splits 3.\n'
    )


def test_fields_without_splits_get_advice(content, dump):
    path = dump(content["train"])
    assert 'add a field "split" that names the split of every clip' in refusal(path)


def test_folds_get_advice(content, dump):
    path = dump({"fold1": content["train"], "fold2": content["valid"]})
    assert '  Say which split each one is: --rename "fold1=train"\n' in refusal(path)
    corpus = read_corpus(path, rename={"fold1": "train", "fold2": "valid"})
    assert corpus.card.counts == {"train": 4, "valid": 3}


def test_keys_of_python_2_are_names(content, dump, same_clip):
    """Read with encoding="bytes" and saved again, keys and strings are bytes."""
    old = {
        split.encode(): {key.encode(): values for key, values in fields.items()}
        for split, fields in content.items()
    }
    assert_same(dump(content), dump(old, "old.pkl"), same_clip)


def assert_same(path, other, same_clip):
    pairs = zip(corpus_clips(read_corpus(path)), corpus_clips(read_corpus(other)), strict=True)
    for clip, same in pairs:
        same_clip(clip, same)


def test_capitals_do_not_matter(content, dump, same_clip):
    large = {
        split: {key.title(): values for key, values in fields.items()}
        for split, fields in content.items()
    }
    assert "Regression_Labels" in large["train"]
    assert_same(dump(content), dump(large, "large.pkl"), same_clip)


def test_names_that_differ_only_in_capitals_are_not_merged(content, dump):
    content["train"]["Text"] = content["train"]["text"] + 1
    assert read_corpus(dump(content)).card.account.left_out == ("field Text, which is not read",)


@pytest.mark.parametrize("name", ["{split}_{field}", "{split}_set.{field}", "{field}-{split}"])
def test_split_and_field_in_one_name(content, dump, same_clip, name):
    flat = {
        name.format(split=split, field=field): values
        for split, fields in content.items()
        for field, values in fields.items()
    }
    assert_same(dump(content), dump(flat, "flat.pkl"), same_clip)


def test_split_and_field_in_one_name_are_asked_about(content, dump):
    flat = {}
    for split, fields in content.items():
        flat[f"X_{split}"], flat[f"y_{split}"] = fields["text"], fields["regression_labels"]
    path = dump(flat)
    assert '--rename "y=labels"' in refusal(path)
    assert "there are neither features nor text; its fields are X, labels." in refusal(
        path, rename={"y": "labels"}
    )
    corpus = read_corpus(path, rename={"y": "labels", "X": "text"})
    assert corpus.card.counts == {"train": 4, "valid": 3, "test": 2}


def test_split_of_another_name_in_one_name_with_the_field_is_asked_for(content, dump):
    names = {"train": "train", "valid": "dev", "test": "eval"}
    flat = {
        f"{names[s]}_{f}": values for s, fields in content.items() for f, values in fields.items()
    }
    path = dump(flat)
    assert '  Say which it is: --rename "eval=test"; to leave it out: --rename "eval="' in refusal(
        path
    )
    assert read_corpus(path, rename={"eval": "test"}).card.counts["test"] == 2


@pytest.mark.parametrize("by_id", [True, False])
def test_a_dict_per_clip(content, dump, same_clip, by_id):
    for fields in content.values():
        fields["raw_text"] = [f"said {row}" for row in range(len(fields["id"]))]
    clips = {
        split: [
            dict(zip(fields, values, strict=True)) for values in zip(*fields.values(), strict=True)
        ]
        for split, fields in content.items()
    }
    if by_id:
        clips = {split: {clip.pop("id"): clip for clip in rows} for split, rows in clips.items()}
    assert_same(dump(content), dump(clips, "clips.pkl"), same_clip)


@pytest.mark.parametrize("by_id", [True, False])
def test_a_dict_per_clip_that_names_its_split(content, dump, same_clip, by_id):
    clips = [
        {"split": split, **dict(zip(fields, values, strict=True))}
        for split, fields in content.items()
        for values in zip(*fields.values(), strict=True)
    ]
    own = {clip.pop("id"): clip for clip in clips} if by_id else clips
    assert_same(dump(content), dump(own, "clips.pkl"), same_clip)


def test_clip_without_a_field_lacks_it(dump):
    rng = np.random.default_rng(0)
    clips = [{"text": rng.normal(size=(3, 2)), "label": score} for score in (-2.0, 0.5, 1.0)]
    clips[1]["audio"] = rng.normal(size=(4, 5))
    corpus = read_corpus(dump({"train": clips}))
    assert [list(clip.features) for clip in corpus_clips(corpus)] == [
        ["text"],
        ["text", "audio"],
        ["text"],
    ]


def test_splits_by_number_are_asked_for(content, dump):
    rows = {
        field: [value for fields in content.values() for value in fields[field]]
        for field in content["train"]
    }
    rows["split"] = np.repeat([0, 1, 2], [4, 3, 2])
    path = dump(rows)
    assert refusal(path) == (
        f'{path}, field "split" holds no name of a split, but "0", "1", "2".\n'
        "  Expected train, valid or test for every clip.\n"
        "  If these are the splits, say which is which: "
        '--rename "0=train" --rename "1=valid" --rename "2=test"\n'
        "  The layouts that can be read: mmcl corpus convert --help"
    )
    corpus = read_corpus(path, rename={"0": "train", "1": "valid", "2": "test"})
    assert corpus.card.counts == {"train": 4, "valid": 3, "test": 2}


def test_rows_of_a_split_in_other_capitals_are_of_the_same(content, dump):
    rows = {"text": [*content["train"]["text"], *content["test"]["text"]]}
    rows |= {
        "labels": np.linspace(-1, 1, 6),
        "split": ["Train", "TRAIN ", "train", "Train", "test", "TEST"],
    }
    assert read_corpus(dump(rows)).card.counts == {"train": 4, "test": 2}


def test_row_without_a_split_is_left_out_with_advice(content, dump):
    rows = {"text": list(np.tile(content["train"]["text"], (3, 1, 1)))}
    rows |= {"labels": np.linspace(-1, 1, 12), "split": ["train"] * 11 + [""]}
    assert read_corpus(dump(rows)).card.account.left_out == (
        'clips of split "", 1 clip, since it names no split; '
        "write train, valid or test for these clips",
    )


def test_more_splits_than_three_can_only_be_left_out(content, dump):
    content["trainval"] = content["train"]
    path = dump(content)
    assert '  To leave it out: --rename "trainval=".\n' in refusal(path)
    assert read_corpus(path, rename={"trainval": ""}).card.counts["train"] == 4


def test_text_in_the_place_of_features_is_asked_about(content, dump):
    for fields in content.values():
        fields["text"] = [f"said {row}" for row in range(len(fields["id"]))]
    path = dump(content)
    assert refusal(path) == (
        f'{path}, split "train": text holds strings, such as "said 0", where numbers are '
        "expected.\n"
        "  Expected numbers of shape [clips, steps, width] or [clips, width].\n"
        '  If it is what is said: --rename "text=raw_text"; to leave it out: --rename "text="\n'
        "  The layouts that can be read: mmcl corpus convert --help"
    )
    said = read_corpus(path, rename={"text": "raw_text"})
    assert next(corpus_clips(said)).text == "said 0"
    assert "text" not in read_corpus(path, rename={"text": ""}).card.dims


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 1), (4, 3, 6)])
def test_token_ids_in_the_place_of_features_are_asked_about(content, dump, shape):
    tokens = np.arange(100, 100 + np.prod(shape)).reshape(shape).astype(np.float32)
    content = {"train": content["train"] | {"text": tokens}}
    path = dump(content)
    asked = (
        f"text: whole numbers up to {tokens.max():g} were read as features; if they are token ids, "
        'leave them out: --rename "text="'
    )
    assert asked in read_corpus(path).card.notes
    assert "text" not in read_corpus(path, rename={"text": ""}).card.dims


def test_features_of_as_many_values_as_there_are_steps_are_asked_about(content, dump):
    for fields in content.values():
        fields["audio"] = np.full((len(fields["id"]), 6), 0.5)  # a pitch for each of six steps?
    corpus = read_corpus(dump(content))
    assert corpus.card.dims["audio"] == 6
    assert (
        "audio: read as one step of 6 values; if it is 6 steps of one value, store it as "
        "[clips, 6, 1]"
    ) in corpus.card.notes


@pytest.mark.parametrize("kind", [np.array, list])
def test_split_without_clips_is_absent(content, dump, kind):
    content["valid"] = {field: kind(values[:0]) for field, values in content["valid"].items()}
    card = read_corpus(dump(content)).card
    assert card.counts == {"train": 4, "test": 2}
    assert 'no "valid" split in the file' in card.notes


def test_advice_for_several_parts_can_be_followed_at_once(content, dump):
    named = dict(zip(("train", "fold b", "fold c"), content.values(), strict=True))
    path = dump(named)
    said = refusal(path)
    assert '--rename "fold b=valid"' in said
    assert '--rename "fold c=test"' in said
    corpus = read_corpus(path, rename={"fold b": "valid", "fold c": "test"})
    assert corpus.card.counts == {"train": 4, "valid": 3, "test": 2}
