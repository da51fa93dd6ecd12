"""Estimate of how many trainings with a language model fit into memory side by side."""

from __future__ import annotations

from pathlib import Path

from mmcl.config import Config

__all__ = ["MEMORY_FILE", "workers_that_fit"]

MEMORY_FILE = Path("/proc/meminfo")
"""File in which Linux says how much memory is free; elsewhere nothing is checked."""
GIB = 1 << 30
PROCESS_BYTES = 0.7 * GIB  # Python and torch
COPIES = (
    7  # of the weights: gradient, two of AdamW, best epoch, and two while a checkpoint is saved
)
WIDTHS_PER_PIECE = 20  # numbers kept per piece and layer for the gradient, in widths


def workers_that_fit(wanted: int, config: Config) -> tuple[int, str | None]:
    """Return how many trainings to run at a time, and why if they are fewer than wanted.

    The estimate is rough: weights, their copies, and activations of the longest batch. Without
    ``text.encoder`` a training is small, and nothing is checked.

    Args:
        wanted: Trainings at a time.
        config: Settings of one of them.
    """
    free = _available_bytes()
    if config.text.encoder is None or wanted == 1 or free is None:
        return wanted, None
    needed = _training_bytes(config)
    fitting = max(1, min(wanted, int(free // needed)))
    if fitting == wanted:
        return wanted, None
    return fitting, (
        f"{fitting} training{'s' * (fitting > 1)} at a time, not {wanted}: with text.encoder each "
        f"takes about {needed / GIB:.1f} GiB, and {free / GIB:.1f} GiB are free"
    )


def _training_bytes(config: Config) -> float:
    from mmcl.models.words import WordEncoder

    encoder = WordEncoder.published(config.text).encoder
    shape = encoder.config
    weights = sum(parameter.numel() for parameter in encoder.parameters())
    clips = -(-config.learning.batch_size // config.learning.accumulate)
    pieces = clips * config.text.max_tokens
    layers = 1 if config.text.checkpointing else shape.num_hidden_layers
    kept = pieces * layers * shape.hidden_size * WIDTHS_PER_PIECE
    return float(PROCESS_BYTES + 4 * (COPIES * weights + kept))


def _available_bytes() -> int | None:
    """Return the memory that programs can still take, or None where it is not known."""
    try:
        lines = MEMORY_FILE.read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 if found else None
