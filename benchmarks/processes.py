"""Two ways to use several cores: one network by several processes, and several seeds at once.

Planted data and settings of the preset ``planted``. First ``mmcl train`` with one process and with
two (``runtime.devices``), one thread each, three seeds: the best validation loss of the two must
lie within 5% of that of the one. Then ``mmcl train`` of four seeds, one after the other and side
by side (``--workers``), 15 epochs each: the time of the second over that of the first.

    python benchmarks/processes.py            (a quarter of an hour on 2 quiet cores)
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from output import add_out, write

SEEDS = (1, 2, 3)
SEEDS_AT_ONCE = (1, 2, 3, 4)


def main() -> None:
    """Train, compare and print; write the result to the file that --out names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, help="of the first part; the preset's own by default")
    parser.add_argument("--epochs-at-once", type=int, default=15, help="of the second part")
    add_out(parser)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "planted.arrow"
        mmcl("corpus", "plant", str(corpus))
        content = {
            "validation_loss": losses_by_processes(corpus, chosen.epochs),
            "seeds_at_once": seconds_by_workers(corpus, chosen.epochs_at_once),
        }
    print(json.dumps(content, indent=2))
    write(content, chosen.out)


def mmcl(*words: str) -> float:
    """Run a command of mmcl; return its seconds."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "mmcl", *words], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def train(corpus: Path, out: Path, seeds: tuple[int, ...], *words: str) -> float:
    """Train on a planted corpus; return the seconds it took."""
    named = ",".join(map(str, seeds))
    return mmcl("train", str(corpus), "--out", str(out), "--seeds", named, *words)


def losses_by_processes(corpus: Path, epochs: int | None) -> dict[str, Any]:
    """Best validation loss of every seed by one process and by two, and the ratio of the means."""
    settings = ["--workers", "1", "--set", "runtime.threads=1"]
    if epochs is not None:
        settings += ["--set", f"learning.epochs={epochs}"]
    losses: dict[str, list[float]] = {}
    seconds: dict[str, float] = {}
    for devices in ("1", "2"):
        out = corpus.parent / f"devices-{devices}"
        seconds[devices] = train(
            corpus, out, SEEDS, *settings, "--set", f"runtime.devices={devices}"
        )
        losses[devices] = [
            json.loads((out / f"seed-{seed}" / "done.json").read_text())["best_valid_loss"]
            for seed in SEEDS
        ]
    ratio = statistics.mean(losses["2"]) / statistics.mean(losses["1"])
    return {"by_devices": losses, "seconds": seconds, "two_over_one": ratio}


def seconds_by_workers(corpus: Path, epochs: int) -> dict[str, Any]:
    """Seconds of four seeds one after the other and on all cores, and their ratio."""
    workers = min(os.cpu_count() or 1, len(SEEDS_AT_ONCE))
    settings = ("--set", f"learning.epochs={epochs}", "--set", "runtime.threads=1")
    seconds = {
        str(count): train(
            corpus,
            corpus.parent / f"workers-{count}",
            SEEDS_AT_ONCE,
            *settings,
            "--workers",
            str(count),
        )
        for count in (1, workers)
    }
    return {"seconds": seconds, "ratio": seconds[str(workers)] / seconds["1"]}


if __name__ == "__main__":
    main()
