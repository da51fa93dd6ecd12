"""Clips per second of fine-tuning, beside plain loops of transformers with the same encoder.

Three ways to train a linear layer on the mean of the last layer of the packaged encoder, by L1 loss
and AdamW on batches of 32: ``mmcl`` (text_only), a plain loop over batches of sentences of like
length, and a plain loop that pads every sentence to 50 pieces, as the field's code does. Rounds of
the three are interleaved, since a machine's rate drifts. The sentences are random words, as many
as in CMU-MOSI's clips: 10 in the median, seldom more than 27. It needs the media-offline extra. Run
it with: python benchmarks/finetune.py
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch

from mmcl.config import resolve_config
from mmcl.corpus.batches import batch_rows, epoch_order, of_like_length
from mmcl.corpus.schema import Card, Clip, Task
from mmcl.corpus.store import Corpus, pack_corpus
from mmcl.learning.inference import targets_of
from mmcl.learning.loop import build_model, make_learner
from mmcl.media.text import load_encoder
from mmcl.media.weights import text_model
from mmcl.models.words import WordEncoder
from mmcl.runtime import launch, seed_everything
from output import add_out, write

CLIPS, BATCH, ROUNDS, PADDED = 256, 32, 5, 50
WORDS = "the film was a good bad story with great actors and i liked what they did in it very much"
LENGTHS = (2.29, 0.61)  # mean and s.d. of the logarithm of a clip's number of words
RATE = 5e-5


def main() -> None:
    """Measure and print; write the result to the file that --out names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    add_out(parser)
    chosen = parser.parse_args()
    corpus = reviews()
    ways = {
        "mmcl": ours(corpus),
        "sorted": plain(corpus, pad_to=None),
        "padded": plain(corpus, pad_to=PADDED),
    }
    for epoch in ways.values():  # the first epoch also allocates
        epoch()
    rounds = [{name: rate(epoch) for name, epoch in ways.items()} for _ in range(chosen.rounds)]
    found = {name: statistics.median(r[name] for r in rounds) for name in ways}
    ratios = {
        f"mmcl/{other}": statistics.median(r["mmcl"] / r[other] for r in rounds)
        for other in ("sorted", "padded")
    }
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    for name, value in found.items():
        print(f"{name:8} {value:7.1f} clips/s")
    for name, value in ratios.items():
        print(f"{name:14} {value:.2f}")
    print(f"most memory of the process: {memory:,.0f} MiB (all three networks)")
    settings = {"clips": CLIPS, "batch": BATCH, "rounds": chosen.rounds, "padded": PADDED}
    write(
        {"settings": settings, "clips_per_second": found, "ratios": ratios, "peak_mib": memory},
        chosen.out,
    )


def rate(epoch: Callable[[], None]) -> float:
    """Clips per second of one epoch."""
    began = time.perf_counter()
    epoch()
    return CLIPS / (time.perf_counter() - began)


def reviews() -> Corpus:
    """Random sentences with scores."""
    rng, words = np.random.default_rng(0), WORDS.split()
    lengths = rng.lognormal(*LENGTHS, CLIPS).round().clip(1, PADDED - 2).astype(int)
    clips = [
        Clip(
            id=f"{row}",
            split="train",
            features={},
            label=float(rng.uniform(-3, 3)),
            text=" ".join(rng.choice(words, lengths[row])),
        )
        for row in range(CLIPS)
    ]
    task = Task(kind="regression", low=-3, high=3)
    return pack_corpus(Card(name="reviews", task=task, dims={}, counts={}, aligned=False), clips)


def ours(corpus: Corpus) -> Callable[[], None]:
    """Return an epoch of text_only with the packaged encoder."""
    settings = [
        "text.encoder=packaged",
        f"text.learning_rate={RATE}",
        f"learning.batch_size={BATCH}",
    ]
    config = resolve_config(model="text_only", overrides=settings)
    seed_everything(1)
    words = WordEncoder.published(config.text)
    tokens = words.corpus(corpus)
    model = build_model(tokens, config, words)
    learner = make_learner(model, config, launch(config.runtime))
    split = tokens.split("train")
    targets, lengths = targets_of(split), split.lengths("text")

    def epoch() -> None:
        model.train()
        order = epoch_order(np.arange(CLIPS), seed=1, epoch=0)
        order = of_like_length(order, lengths, BATCH, seed=1, epoch=0)
        for rows in batch_rows(order, BATCH):
            learner.step(model.collate(split, rows, targets))

    return epoch


def plain(corpus: Corpus, *, pad_to: int | None) -> Callable[[], None]:
    """Return an epoch of a plain loop, over sentences sorted by length or all padded alike."""
    tokenizer, encoder = load_encoder(text_model(None)[0])
    head = torch.nn.Linear(encoder.config.hidden_size, 1)
    parameters = [*encoder.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, fused=True)
    split = corpus.split("train")
    clips = list(split.clips())
    texts, labels = [clip.text for clip in clips], torch.tensor([clip.label for clip in clips])
    order: Any = np.argsort([len(str(text).split()) for text in texts]) if pad_to is None else None
    order = np.random.default_rng(1).permutation(CLIPS) if order is None else order
    options = (
        {"padding": True} if pad_to is None else {"padding": "max_length", "max_length": pad_to}
    )

    def epoch() -> None:
        encoder.train()
        for rows in order.reshape(-1, BATCH):
            given = tokenizer(
                [texts[row] for row in rows], truncation=True, return_tensors="pt", **options
            )
            hidden = encoder(**given).last_hidden_state
            mask = given["attention_mask"].unsqueeze(-1)
            mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
            loss = (head(mean).squeeze(-1) - labels[rows]).abs().mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    return epoch


if __name__ == "__main__":
    main()
