"""Names of splits and fields, forms of the content, and the account of what was left out."""

import numpy as np
import pytest

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
        '  Say which it is: --rename "evaluation=test" (or train, valid; nothing after = leaves '
        "it out).\n"
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
        f'  If it is: --rename "{field}={meant}"; to leave it out: --rename "{field}="\n'
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
        "field classification_labels, since regression_labels was taken (or: --task)",
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
