"""A stand-in for the starter: a run that is trained in a second, on a text model of width 12."""

import numpy as np

from fakes.tiny_bert import DIM, SCORES
from mmcl.corpus.schema import Card, Clip, Word
from mmcl.corpus.store import pack_corpus
from mmcl.media.recipe import Recipe
from mmcl.runs.run import train

__all__ = ["FACE", "LABEL", "clip_of", "make_starter", "use_starter"]

FACE = 5  # width of the features of its face
LABEL = "starter sha256:0123456789ab"  # of its text model


def make_starter(folder, config):
    """Train the run into ``folder/run``, and write a card."""
    draw = np.random.default_rng(4)
    dims = {"text": DIM, "vision": FACE}
    clips = [
        Clip(
            id=f"c{at}",
            split="train" if at < 24 else "valid" if at < 32 else "test",
            features={m: draw.normal(size=(6, d)).astype(np.float32) for m, d in dims.items()},
            label=float(draw.uniform(-3, 3)),
        )
        for at in range(40)
    ]
    recipe = Recipe(text_model="starter", language="en", versions={"text_model": LABEL})
    card = Card(
        name="reviews",
        task=SCORES,
        dims=dims,
        counts={},
        aligned=True,
        language="en",
        missing_as_zero=True,
        recipe={"extraction": recipe.model_dump()},
    )
    train(pack_corpus(card, clips), config, out=folder / "run")
    (folder / "CARD.md").write_text("# Starter\n\nIts *data*, errors and limits.\n")
    return folder


def use_starter(monkeypatch, folder, bert):
    """Let the package find the stand-in, whose text model is the BERT of a folder."""
    from mmcl.media import text_vectors

    find = text_vectors.text_model

    def found(name):
        return (str(bert), LABEL) if name == "starter" else find(name)

    monkeypatch.setattr("mmcl.runs.starter.STARTER", folder)
    monkeypatch.setattr(text_vectors, "text_model", found)


def clip_of(text, *modalities, seed=0, at=0):
    """An utterance as extraction makes it, with features of some modalities."""
    draw = np.random.default_rng(seed)
    words = text.split() or ["", ""]
    widths = {"text": DIM, "audio": 3, "vision": FACE}
    return Clip(
        id=f"film/{at}",
        split="test",
        features={
            m: draw.normal(size=(len(words), widths[m])).astype(np.float32) for m in modalities
        },
        video_id="film",
        clip_id=str(at),
        text=text or None,
        words=tuple(Word(text=w, start=i / 2, end=i / 2 + 0.5) for i, w in enumerate(words)),
    )
