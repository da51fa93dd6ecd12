"""Several tables, one per split, as MELD has them."""

from pathlib import Path

import pytest

from mmcl.cli.main import main
from mmcl.corpus.readers import convert_corpus, read_corpus
from mmcl.corpus.readers.table_per_split import split_in_name
from mmcl.errors import DatasetError

HEADER = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID\n"
ROWS = (
    "1,What?,Monica,surprise,negative,0,0\n"
    "2,Fine,Ross,joy,positive,0,1\n"
    "3,So,Joey,joy,neutral,1,0\n"
)


@pytest.fixture
def meld(tmp_path):
    for name in ("train_sent_emo", "dev_sent_emo", "test_sent_emo"):
        (tmp_path / f"{name}.csv").write_text(HEADER + ROWS)
    return tmp_path


def test_folder_of_meld_is_one_corpus(meld):
    corpus = read_corpus(meld)
    assert corpus.card.counts == {"train": 3, "valid": 3, "test": 3}
    assert corpus.card.task.kind == "classes"
    assert corpus.card.task.names == ("negative", "neutral", "positive")
    clips = list(corpus.split("valid").clips())
    assert [clip.id for clip in clips] == ["valid_0/0", "valid_0/1", "valid_1/0"]
    assert [clip.label for clip in clips] == [0, 2, 1]
    assert [clip.text for clip in clips] == ["What?", "Fine", "So"]
    assert [clip.speaker for clip in clips] == ["Monica", "Ross", "Joey"]
    assert any("--rename Emotion=label" in note for note in corpus.card.notes)


def test_emotions_of_meld_are_asked_for_by_renaming(meld):
    corpus = read_corpus(meld, rename={"Sentiment": "", "Emotion": "label"})
    assert corpus.card.task.names == ("joy", "surprise")
    assert not any("--rename Emotion=label" in note for note in corpus.card.notes)


def test_tables_are_given_one_by_one(meld, tmp_path, capsys):
    files = [str(meld / f"{name}_sent_emo.csv") for name in ("train", "dev")]
    out = tmp_path / "meld.arrow"
    assert main(["corpus", "convert", *files, "--out", str(out)]) == 0
    assert read_corpus(out).card.counts == {"train": 3, "valid": 3}


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.csv", "train"),
        ("MOSI-Val.csv", "valid"),
        ("test_set.tsv", "test"),
        ("labels.csv", None),
        ("train_and_test.csv", None),
    ],
)
def test_split_in_name(name, split):
    assert split_in_name(Path(name)) == split


def test_tables_with_other_columns_are_refused(meld):
    (meld / "dev_sent_emo.csv").write_text("Utterance,Sentiment\nWhat?,negative\n")
    with pytest.raises(DatasetError, match='"Dialogue_ID" is not in this'):
        read_corpus(meld)


def test_two_tables_of_one_split_are_refused(meld):
    files = [meld / "train_sent_emo.csv", meld / "dev_sent_emo.csv", meld / "valid.csv"]
    (meld / "valid.csv").write_text(HEADER + ROWS)
    with pytest.raises(DatasetError, match="its name says valid, as another does"):
        convert_corpus(files, meld / "out.arrow")


def test_folder_without_a_training_table_is_no_corpus(meld):
    (meld / "train_sent_emo.csv").rename(meld / "notes.csv")
    with pytest.raises(DatasetError, match="a folder"):
        read_corpus(meld)
