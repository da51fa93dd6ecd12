"""A language model that learns with the network, through the command line."""

import json

import numpy as np
import pytest
import torch

import mmcl
from fakes.tiny_bert import text_corpus, tiny_bert
from mmcl.cli.main import main
from mmcl.config import model_names
from mmcl.corpus.check import corpus_clips
from mmcl.corpus.plant import PlantSettings, plant_card, plant_clips
from mmcl.corpus.schema import Word
from mmcl.corpus.store import write_corpus
from mmcl.models.words import WordEncoder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder with a corpus of reviews, and the settings of a tiny encoder."""
    folder = tmp_path_factory.mktemp("reviews")
    corpus = text_corpus(24)
    write_corpus(folder / "reviews.arrow", corpus.card, corpus_clips(corpus))
    return folder, tiny_bert(folder / "bert")


def train(place, out, *more, model="text_only"):
    folder, bert = place
    settings = {
        "text.encoder": bert,
        "text.max_tokens": 24,
        "text.learning_rate": 0.01,
        "learning.epochs": 4,
        "learning.batch_size": 8,
        "model.width": 8,
        "model.heads": 2,
    }
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    command = ["train", str(folder / "reviews.arrow"), "--out", str(out), "--model", model]
    assert main([*command, *words, *more]) == 0
    return mmcl.Run.load(out)


@pytest.mark.parametrize("model", ["text_only", "calibrated"])
def test_words_are_learned_and_predicted_again(place, tmp_path, model, capsys):
    longer = ("--set", "learning.epochs=30", "--set", "learning.learning_rate=0.01")
    run = train(place, tmp_path / "run", *longer, model=model)
    assert run.metrics["test"]["mae"]["mean"] < 1.0  # a constant has 2
    notes = run.metrics["notes"]
    assert "no row ridge: the corpus has words and no features" in notes
    table = run.predict(place[0] / "reviews.arrow")
    scores = np.array(table["prediction"].to_pylist())
    assert (scores[::2] > scores[1::2]).all()  # good, bad, good, ...
    command = ["predict", str(tmp_path / "run"), str(place[0] / "reviews.arrow")]
    assert main([*command, "--out", str(tmp_path / "p.csv")]) == 0


def test_a_published_run_has_its_encoder_and_no_path_of_this_machine(place, tmp_path):
    run = train(place, tmp_path / "run", "--set", "learning.epochs=1")
    out = tmp_path / "published"
    assert main(["push", str(tmp_path / "run"), str(out)]) == 0
    corpus = place[0] / "reviews.arrow"
    assert mmcl.from_pretrained(out).predict(corpus) == run.predict(corpus)
    files = [path for path in out.rglob("*") if path.is_file()]
    assert {"tokenizer.json", "settings.json"} <= {path.name for path in files}
    assert [path for path in files if str(place[0]).encode() in path.read_bytes()] == []
    card = (out / "README.md").read_text()
    assert 'run.predict("reviews.csv")' in card
    assert "weights of a language model (bert), whose licence holds too" in card


def test_resumed_training_gives_the_same_weights(place, tmp_path, monkeypatch):
    whole = train(place, tmp_path / "whole").model().state_dict()
    from mmcl.learning import loop

    def stop(self, state):
        kept(self, state)
        if self.epoch == 2:
            raise KeyboardInterrupt

    kept = loop._Training.save
    monkeypatch.setattr(loop._Training, "save", stop)
    with pytest.raises((KeyboardInterrupt, SystemExit, AssertionError)):
        train(place, tmp_path / "part")
    monkeypatch.undo()
    again = train(place, tmp_path / "part", "--resume").model().state_dict()
    assert whole.keys() == again.keys()
    assert all(np.array_equal(whole[key], again[key]) for key in whole)


def test_seeds_side_by_side_equal_those_one_after_the_other(place, tmp_path):
    several = train(place, tmp_path / "several", "--seeds", "1,2", "--workers", "2")
    single = train(place, tmp_path / "single", "--seeds", "1,2", "--workers", "1")
    assert several.metrics["valid"]["mae"] == single.metrics["valid"]["mae"]


def test_corpus_without_words_is_refused(place, tmp_path, capsys):
    settings = PlantSettings(train=20, valid=10, test=10)
    write_corpus(tmp_path / "planted.arrow", plant_card(settings), plant_clips(settings))
    command = ["train", str(tmp_path / "planted.arrow"), "--out", str(tmp_path / "run")]
    assert main([*command, "--set", f"text.encoder={place[1]}", "--set", "text.max_tokens=24"]) == 1
    assert "no clip keeps its words, and text.encoder reads them" in capsys.readouterr().err


def test_settings_are_in_the_run(place, tmp_path):
    train(place, tmp_path / "run")
    content = json.loads((tmp_path / "run/run.json").read_text())
    assert content["config"]["text"]["max_tokens"] == 24
    assert (tmp_path / "run/seed-1/model/encoder/tokenizer.json").exists()


def test_every_command_reads_the_words(place, tmp_path, capsys):
    run, corpus = tmp_path / "run", str(place[0] / "reviews.arrow")
    train(place, run, model="calibrated")
    assert main(["evaluate", str(run), "--corpus", corpus]) == 0
    assert main(["explain", str(run), corpus, "--out", str(tmp_path / "explained")]) == 0
    assert main(["robustness", str(run), corpus, "--out", str(tmp_path / "robust")]) == 0
    for workers in ("1", "2"):
        out = tmp_path / f"predicted{workers}.csv"
        assert main(["predict", str(run), corpus, "--out", str(out), "--workers", workers]) == 0
    assert (tmp_path / "predicted1.csv").read_text() == (tmp_path / "predicted2.csv").read_text()


def test_comparison_of_models_that_read_words(place, tmp_path, capsys):
    folder, bert = place
    command = ["compare", str(folder / "reviews.arrow"), "--out", str(tmp_path / "compared")]
    settings = (f"text.encoder={bert}", "text.max_tokens=24", "learning.epochs=1", "model.width=8")
    words = [word for setting in settings for word in ("--set", setting)]
    chosen = ["--models", "calibrated,text_only", "--seeds", "2", "--workers", "1"]
    assert main([*command, *chosen, *words]) == 0
    assert "text_only" in capsys.readouterr().out


def test_reviews_of_a_table_are_learned_with_and_without_an_encoder(place, tmp_path, capsys):
    table = tmp_path / "reviews.csv"
    rows = [
        f"v{row},{row},the film was {'good' if row % 2 else 'bad'},{row % 2 * 2 - 1}"
        for row in range(40)
    ]
    table.write_text("\n".join(["video_id,clip_id,text,label", *rows]) + "\n")
    out = tmp_path / "run"
    assert main(["train", str(table), "--out", str(out)]) == 1
    assert "it has text and no features" in capsys.readouterr().err
    learning = ["--set", "learning.epochs=1", "--set", "model.width=8"]
    words = ["--set", f"text.encoder={place[1]}", "--set", "text.max_tokens=24"]
    assert main(["train", str(table), "--out", str(out), *learning, *words]) == 0
    frozen = tmp_path / "frozen.arrow"
    assert main(["corpus", "convert", str(table), str(frozen), "--text-model", str(place[1])]) == 0
    assert main(["train", str(frozen), "--out", str(tmp_path / "frozen"), *learning]) == 0


@pytest.fixture(scope="module")
def spoken_place(place, tmp_path_factory):
    """Return a folder with an aligned corpus of words, voice and face, and the tiny encoder."""
    folder, rng = tmp_path_factory.mktemp("spoken"), np.random.default_rng(0)
    reviews = text_corpus(24)
    clips = []
    for clip in corpus_clips(reviews):
        words = tuple(Word(text=word) for word in clip.text.split())
        steps = {
            m: rng.normal(size=(len(words), 3)).astype(np.float32) for m in ("audio", "vision")
        }
        clips.append(clip.model_copy(update={"features": steps, "words": words}))
    card = reviews.card.model_copy(update={"dims": {"audio": 3, "vision": 3}, "aligned": True})
    write_corpus(folder / "reviews.arrow", card, clips)
    return folder, place[1]


@pytest.mark.parametrize(
    "model", [n for n in model_names() if n not in ("audio_only", "vision_only")]
)
def test_every_model_reads_words_and_its_encoder_learns(spoken_place, tmp_path, model):
    run = train(spoken_place, tmp_path / "run", "--set", "learning.epochs=1", model=model)
    learned = run.model().words.encoder.state_dict()
    settings = run.config.text
    published = WordEncoder.published(settings).encoder.state_dict()
    changed = [key for key in learned if not torch.equal(learned[key], published[key])]
    assert any("layer.0" in key for key in changed)
    assert any("word_embeddings" in key for key in changed)
