"""A random BERT that is made in a second, and corpora of text for it."""

import torch
import transformers

from mmcl.corpus.schema import Card, Clip, Task, Word
from mmcl.corpus.store import pack_corpus

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "film", "was", "good", "bad", "play", "##ing"]
SCORES = Task(kind="regression", low=-3.0, high=3.0)
DIM = 12


def tiny_bert(folder):
    """Write a random BERT of width 12 with two layers and 24 positions; return its folder."""
    vocabulary = {piece: number for number, piece in enumerate(PIECES)}
    transformers.BertTokenizer(vocab=vocabulary, model_max_length=24).save_pretrained(folder)
    torch.manual_seed(3)
    config = transformers.BertConfig(
        vocab_size=len(PIECES),
        hidden_size=DIM,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=24,
        initializer_range=0.5,
    )
    transformers.BertModel(config).save_pretrained(folder)
    return folder


def text_corpus(count=24, *, task=SCORES):
    """Return reviews without features: the word good or bad decides the label."""
    words = ["good", "bad"]
    clips, counts = [], {}
    for split, number in (("train", count), ("valid", count // 2), ("test", count // 2)):
        counts[split] = number
        for row in range(number):
            filler = " the film" * (row % 3)
            text = f"the film was {words[row % 2]}{filler}"
            label = 2.0 - 4.0 * (row % 2) if task.kind == "regression" else row % 2
            clips.append(Clip(id=f"{split}{row}", split=split, features={}, label=label, text=text))
    return pack_corpus(
        Card(name="reviews", task=task, dims={}, counts=counts, aligned=False), clips
    )


def spoken_corpus(voice, *, aligned=True):
    """Return one split of clips with words, and a voice ``[n, 2]`` for each of them."""
    clips = [
        Clip(
            id=f"clip{row}",
            split="train",
            features={"audio": steps},
            label=0.5,
            words=tuple(Word(text=word) for word in spoken),
        )
        for row, (spoken, steps) in enumerate(voice)
    ]
    card = Card(
        name="spoken", task=SCORES, dims={"audio": 2}, counts={"train": len(clips)}, aligned=aligned
    )
    return pack_corpus(card, clips)
