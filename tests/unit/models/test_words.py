"""The encoder of words: checked against BERT called by hand, then by the laws it must keep."""

import json

import numpy as np
import pytest
import torch
import transformers

from fakes.tiny_bert import DIM, SCORES, spoken_corpus, text_corpus, tiny_bert
from mmcl.config import ModelSettings, PolicySettings, TextSettings
from mmcl.corpus.plant import PlantSettings, plant_corpus
from mmcl.corpus.store import pack_corpus
from mmcl.errors import ConfigError, DatasetError, RunError, ShapeError
from mmcl.models.registry import build_network, load_network
from mmcl.models.words import WordEncoder

# Padding and the order of a batch change the order of float32 sums in two small layers.
TOLERANCE = {"rtol": 0.0, "atol": 1e-5}


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return str(tiny_bert(tmp_path_factory.mktemp("tiny-bert")))


@pytest.fixture
def words(bert):
    def load(**settings):
        return WordEncoder.published(
            TextSettings(encoder=bert, **{"max_tokens": 24, **settings})
        ).eval()

    return load


def features_of(encoder, corpus):
    """Return pieces and mask of all training clips, as a batch has them."""
    split = encoder.corpus(corpus).split("train")
    padded, lengths = split.padded("text", np.arange(len(split)))
    mask = np.arange(padded.shape[1]) < lengths[:, None]
    return torch.from_numpy(padded), torch.from_numpy(mask)


def by_hand(bert, ids):
    model = transformers.AutoModel.from_pretrained(bert).eval()
    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids])).last_hidden_state[0]


def test_words_are_the_means_of_their_pieces(bert, words):
    encoder = words()
    corpus = spoken_corpus([(["the", "playing", "film"], np.ones((3, 2), np.float32))])
    vectors = encoder(*features_of(encoder, corpus))
    hidden = by_hand(bert, [2, 4, 9, 10, 5, 3])  # [CLS] the play ##ing film [SEP]
    expected = torch.stack([hidden[1], hidden[2:4].mean(dim=0), hidden[4]])
    torch.testing.assert_close(vectors[0], expected, **TOLERANCE)


def test_pieces_are_steps_with_the_marks_of_beginning_and_end(bert, words):
    encoder = words(pool="tokens")
    corpus = spoken_corpus([(["the", "playing"], np.ones((5, 2), np.float32))])
    vectors = encoder(*features_of(encoder, corpus))
    torch.testing.assert_close(vectors[0], by_hand(bert, [2, 4, 9, 10, 3]), **TOLERANCE)


def test_words_of_plain_text_are_found_by_the_tokenizer(bert, words):
    encoder = words()
    pieces, mask = features_of(encoder, text_corpus(2))
    assert mask.sum(dim=1).tolist() == [4, 6]  # the film was good; the film was bad the film
    hidden = by_hand(bert, [2, 4, 5, 6, 7, 3])
    torch.testing.assert_close(encoder(pieces, mask)[0, :4], hidden[1:5], **TOLERANCE)


def test_words_of_plain_text_are_named(words):
    corpus = text_corpus(2)
    clips = [next(corpus.split("train").clips()).model_copy(update={"text": "the film, playing!"})]
    named = words().corpus(pack_corpus(corpus.card.model_copy(update={"counts": {}}), clips))
    (row,) = named.split("train").table.column("words").to_pylist()
    assert [word["text"] for word in row] == ["the", "film", ",", "playing", "!"]
    assert named.split("train").lengths("text").tolist() == [5]


def test_words_of_the_corpus_keep_their_names_and_times(words):
    spoken = spoken_corpus([(["the", "playing"], np.ones((2, 2), np.float32))])
    before = spoken.split("train").table.column("words").to_pylist()
    assert words().corpus(spoken).split("train").table.column("words").to_pylist() == before


def test_company_and_padding_change_nothing(words):
    encoder = words()
    pieces, mask = features_of(encoder, text_corpus(23))
    together = encoder(pieces, mask)
    for row in (0, 7, 22):
        alone = encoder(pieces[row : row + 1], mask[row : row + 1])
        torch.testing.assert_close(together[row], alone[0], **TOLERANCE)
    wider = torch.nn.functional.pad(pieces, (0, 2, 0, 3))
    more = encoder(wider, torch.nn.functional.pad(mask, (0, 3)))
    torch.testing.assert_close(more[:, :-3], together, **TOLERANCE)


def test_masked_step_is_as_if_its_word_had_not_been_said(bert, words):
    encoder = words()
    corpus = spoken_corpus([(["the", "playing", "film"], np.ones((3, 2), np.float32))])
    pieces, mask = features_of(encoder, corpus)
    mask[0, 1] = False
    vectors = encoder(pieces, mask)
    hidden = by_hand(bert, [2, 4, 5, 3])
    torch.testing.assert_close(vectors[0, [0, 2]], hidden[1:3], **TOLERANCE)
    assert not vectors[0, 1].any()


def test_clip_without_words_is_zero(words):
    encoder = words()
    pieces, mask = features_of(encoder, text_corpus(2))
    mask[1] = False
    vectors = encoder(pieces, mask)
    assert vectors[0].any()
    assert not vectors[1].any()
    assert not encoder(pieces, torch.zeros_like(mask)).any()


def test_gradient_reaches_every_weight_of_the_encoder(words):
    encoder = words().train()
    encoder(*features_of(encoder, text_corpus(6))).square().sum().backward()
    without = [name for name, p in encoder.named_parameters() if p.grad is None]
    assert without == []


def test_frozen_layers_do_not_learn(words):
    encoder = words(frozen_layers=1).train()
    encoder(*features_of(encoder, text_corpus(6))).square().sum().backward()
    learning = {name for name, p in encoder.named_parameters() if p.grad is not None}
    assert learning
    assert all(name.startswith("encoder.encoder.layer.1.") for name in learning)


def test_more_frozen_layers_than_there_are_is_refused(words):
    with pytest.raises(ConfigError) as caught:
        words(frozen_layers=3)
    assert str(caught.value) == (
        "text.frozen_layers is 3; the encoder has 2\n  Use fewer, or 0: --set text.frozen_layers=0"
    )


def test_adapter_begins_as_the_encoder_and_learns_alone(words):
    pytest.importorskip("peft")
    plain, adapted = words(), words(adapter="lora", rank=2)
    given = features_of(plain, text_corpus(4))
    torch.testing.assert_close(adapted(*given), plain(*given), **TOLERANCE)
    learning = {name for name, p in adapted.named_parameters() if p.requires_grad}
    assert learning
    assert all("lora_" in name for name in learning)


def test_longer_texts_are_cut_and_counted(words):
    encoder = words(max_tokens=6)
    corpus = encoder.corpus(text_corpus(6))
    # Every third text has eight words, every other third six, the others four.
    assert corpus.split("train").lengths("text").tolist() == [4, 4, 4, 4, 4, 4]
    assert corpus.card.notes == (
        "text: 8 of 12 clips have more than 6 word pieces and were cut "
        "(for longer ones: --set text.max_tokens=N)",
    )


def test_more_tokens_than_positions_are_refused(words):
    with pytest.raises(ConfigError, match=r"text\.max_tokens is 25, and .* reads at most 24"):
        words(max_tokens=25)


def test_aligned_corpus_needs_a_word_per_step(words):
    corpus = spoken_corpus([(["the", "playing"], np.ones((3, 2), np.float32))])
    with pytest.raises(DatasetError) as caught:
        words().corpus(corpus)
    assert str(caught.value) == (
        'spoken, clip "clip0": 2 words of text, but audio has 3 steps, and the corpus is aligned.\n'
        "  Expected as many. Try the other kind of step: --set text.pool=tokens\n"
        "  Or say that it is not aligned: mmcl corpus convert SRC DST --align none"
    )
    unaligned = spoken_corpus([(["the", "playing"], np.ones((3, 2), np.float32))], aligned=False)
    assert words().corpus(unaligned).split("train").lengths("text").tolist() == [2]


def test_corpus_without_words_is_refused(words):
    with pytest.raises(DatasetError) as caught:
        words().corpus(plant_corpus(PlantSettings(train=4, valid=2, test=2)))
    assert str(caught.value).startswith(
        "planted: no clip keeps its words, and text.encoder reads them.\n"
    )


# ---------------------------------------------------------------- in a network


def network(words, name="text_only"):
    return build_network(
        {"text": 3},
        SCORES,
        aligned=False,
        model=ModelSettings(name=name, width=8, heads=2),
        policy=PolicySettings(),
        words=words,
    )


def test_network_reads_words_and_vectors_of_words_alike(words):
    model = network(words()).eval()
    corpus = model.words.corpus(text_corpus(6))
    batch = model.collate(corpus.split("train"), np.arange(6))
    embedded = model.embed(batch)
    assert embedded.features["text"].shape[-1] == DIM
    with torch.no_grad():
        first = model(batch.features, batch.masks).scores
        second = model(embedded.features, embedded.masks).scores
    torch.testing.assert_close(first, second, **TOLERANCE)


def test_network_is_saved_with_its_encoder(words, tmp_path):
    model = network(words()).eval()
    model.save_pretrained(tmp_path / "saved")
    assert not list((tmp_path / "saved").rglob("*.bin"))
    again = load_network(tmp_path / "saved")
    batch = model.collate(model.words.corpus(text_corpus(6)).split("train"), np.arange(6))
    with torch.no_grad():
        expected = model(batch.features, batch.masks).scores
        torch.testing.assert_close(again(batch.features, batch.masks).scores, expected)
    assert again.words.settings == model.words.settings


def test_saved_network_without_its_tokenizer_is_refused(words, tmp_path):
    network(words()).save_pretrained(tmp_path / "saved")
    (tmp_path / "saved/encoder/config.json").unlink()
    with pytest.raises(RunError, match="the encoder of the words cannot be loaded"):
        load_network(tmp_path / "saved")


def test_program_in_a_foreign_encoder_is_not_run(words, tmp_path, monkeypatch):
    network(words()).save_pretrained(tmp_path / "saved")
    encoder = tmp_path / "saved/encoder"
    (encoder / "own.py").write_text("raise SystemExit('foreign code ran')\n")
    config = json.loads((encoder / "config.json").read_text())
    classes = {"AutoConfig": "own.Config", "AutoModel": "own.Model"}
    config |= {"model_type": "own", "auto_map": classes}
    (encoder / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr("builtins.input", lambda _: "y")  # transformers would ask
    with pytest.raises(RunError, match="the encoder of the words cannot be loaded"):
        load_network(tmp_path / "saved")


def test_encoder_of_another_width_is_refused(words):
    model = network(None)
    with pytest.raises(ShapeError) as caught:
        model.attach_words(words())
    assert str(caught.value) == (
        "the encoder has 12 values per word, the network takes {'text': 3}"
    )
