"""Vectors for the words of a corpus that has none."""

import numpy as np
import pytest

from fakes.tiny_bert import DIM, spoken_corpus, text_corpus, tiny_bert
from mmcl.corpus.check import corpus_clips
from mmcl.errors import DatasetError
from mmcl.media.text import TextEncoder
from mmcl.media.text_vectors import with_text_vectors


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return str(tiny_bert(tmp_path_factory.mktemp("tiny-bert")))


def test_words_between_spaces_get_a_vector_each(bert):
    corpus = text_corpus(4)
    card, clips = with_text_vectors(corpus.card, corpus_clips(corpus), bert)
    clips = list(clips)
    assert card.dims == {"text": DIM}
    expected = TextEncoder(bert).encode([clip.text.split() for clip in clips])
    for clip, vectors in zip(clips, expected, strict=True):
        np.testing.assert_array_equal(clip.features["text"], vectors)
        assert [word.text for word in clip.words] == clip.text.split()
    assert card.notes[-1].startswith("text: a vector per word by ")


def test_words_of_the_corpus_are_the_steps(bert):
    corpus = spoken_corpus([(["the", "playing"], np.ones((2, 2), np.float32))])
    card, clips = with_text_vectors(corpus.card, corpus_clips(corpus), bert)
    clip = next(clips)
    assert card.dims == {"text": DIM, "audio": 2}
    assert clip.features["text"].shape == (2, DIM)
    assert clip.features["audio"].shape == (2, 2)


def test_clip_without_words_gets_no_vectors(bert):
    corpus = text_corpus(4)
    clips = [clip.model_copy(update={"text": None}) for clip in corpus_clips(corpus)]
    assert all(
        "text" not in clip.features for clip in with_text_vectors(corpus.card, clips, bert)[1]
    )


def test_corpus_with_vectors_is_refused(bert):
    corpus = text_corpus(4)
    card = corpus.card.model_copy(update={"dims": {"text": 3}})
    with pytest.raises(DatasetError) as caught:
        with_text_vectors(card, [], bert)
    assert str(caught.value) == (
        "reviews: has features of its text already, 3 wide.\n"
        '  To make others, leave them out first: --rename "text="'
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [("我很高兴 OK", "我 很 高 兴 OK"), ("it's fine, 好", "it's fine, 好"), ("すごい", "す ご い")],
)
def test_text_without_spaces_is_read_by_character(bert, text, words):
    corpus = text_corpus(1)
    clips = [clip.model_copy(update={"text": text}) for clip in corpus_clips(corpus)]
    clip = next(with_text_vectors(corpus.card, clips, bert)[1])
    assert [word.text for word in clip.words] == words.split()
