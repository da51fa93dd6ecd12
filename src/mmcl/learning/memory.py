"""Whether a batch fits into memory, said before training and not by whoever ends it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from mmcl.config import LearningSettings
from mmcl.corpus.store import Split
from mmcl.errors import TrainingError
from mmcl.models.mmcl import MMCL
from mmcl.models.network import Network
from mmcl.types import Modality

__all__ = ["available_bytes", "batch_bytes", "check_memory"]

FEATURE_COPIES = 2
CALIBRATED_KEPT, RELEASED_KEPT = (22, 2), (20, 1)
"""Numbers kept for the gradient per feature, per step and width, and per step and inner width:
the least that was counted (tests/unit/learning/test_memory.py counts them again)."""
_FLOAT = 4
_GIBIBYTE = 1 << 30
_MEMINFO = Path("/proc/meminfo")
_CONTAINER = Path("/sys/fs/cgroup")


def check_memory(model: Network, split: Split, learning: LearningSettings) -> None:
    """Refuse a batch size whose batches cannot fit.

    What is estimated is the least that a batch of the longest clips takes, so that what fits
    is never refused; what is a little too large may pass.

    Args:
        model: The network, on the CPU.
        split: The training split.
        learning: Its batch size counts.

    Raises:
        TrainingError: If a batch needs more than there is.
    """
    available = available_bytes()
    held = [m for m in model.modalities if m in split.card.dims]
    lengths = {m: int(split.lengths(m).max(initial=1)) for m in held}
    size = min(learning.batch_size, len(split))
    needed = batch_bytes(model, lengths, size)
    if available is None or needed <= available:
        return
    each = needed / size
    clips = "1 clip" if size == 1 else f"{size} clips"
    lower = f"learning.batch_size={int(available // each)}"
    if each > available:
        lower = f"model.width={max(model.settings.width // 2, 4)}, or cut the clips"
    raise TrainingError(
        f"a batch of {clips} of up to {max(lengths.values()):,} steps needs at least "
        f"{needed / _GIBIBYTE:.1f} GiB of memory, and {available / _GIBIBYTE:.1f} GiB are free.\n"
        f"  Lower it: --set {lower}\n"
        "  See how long the clips are: mmcl corpus describe CORPUS"
    )


def batch_bytes(model: Network, lengths: Mapping[Modality, int], batch_size: int) -> int:
    """The least memory that one training step takes beside the network itself.

    Args:
        model: The network. Of a baseline only its input is counted.
        lengths: Steps of the longest clip, by modality.
        batch_size: Clips per step.
    """
    per_clip = FEATURE_COPIES * sum(n * model.dims[m] for m, n in lengths.items())
    if isinstance(model, MMCL):
        steps = max(lengths.values())
        if model.released and not model.aligned:
            steps = model.settings.steps
        outer, inner = RELEASED_KEPT if model.released else CALIBRATED_KEPT
        widths = outer * model.settings.width + inner * model.inner_width
        per_clip += len(model.modalities) * steps * widths
    return _FLOAT * batch_size * per_clip


def available_bytes() -> int | None:
    """Memory this process may still take, of the machine or of its container; None if unknown."""
    try:
        (free,) = re.findall(r"^MemAvailable:\s+(\d+) kB", _MEMINFO.read_text(), re.M)
    except (OSError, ValueError):
        return None
    return min(1024 * int(free), _left_in_container())


def _left_in_container() -> int:
    """What the limit of a container leaves; files it has read can be dropped."""
    try:
        limit = int((_CONTAINER / "memory.max").read_text())
        used = int((_CONTAINER / "memory.current").read_text())
        (cached,) = re.findall(
            r"^inactive_file (\d+)", (_CONTAINER / "memory.stat").read_text(), re.M
        )
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        return 1 << 62
    return max(limit - used + int(cached), 0)
