"""Campaign of damaged inputs: each in a child process with limited time and memory.

``python tests/faults/campaign.py --count 2000`` or ``--seconds 3600``; prints its figures, and
every input that was neither read nor refused in words. ``--only NUMBER`` keeps one to look at.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from queue import Empty, Queue
from typing import Any

TESTS = Path(__file__).parents[1]
SECONDS_PER_INPUT = 20.0  # of processor time, so that other processes do not count
STANDSTILL_SECONDS = 600.0  # of the clock, without an answer
BYTES_OF_A_CHILD = 2 << 30
INPUTS_PER_CHILD = 2000  # then a new one, so that nothing grows
START_SECONDS = 300.0  # of processor time
PAGE = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")
ALLOWED = ("read", "refused", "unforeseen")


@dataclass
class Figures:
    """What came of a campaign."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)  # by kind and outcome
    failures: list[tuple[int, str, str, str]] = field(default_factory=list)
    unforeseen: list[tuple[int, str]] = field(default_factory=list)
    slowest: float = 0.0
    largest: int = 0
    seconds: float = 0.0

    def add(self, number: int, kind: str, outcome: str, text: str) -> None:
        """Count an input."""
        self.outcomes[kind, outcome] += 1
        if outcome == "unforeseen":
            self.unforeseen.append((number, text))
        if outcome not in ALLOWED:
            self.failures.append((number, kind, outcome, text))

    def __str__(self) -> str:
        kinds = sorted({kind for kind, _ in self.outcomes})
        lines = [f"{'':12}{'inputs':>8}{'read':>8}{'refused':>9}{'unforeseen':>12}{'failed':>8}"]
        for kind in (*kinds, "all"):
            rows = [(o, n) for (k, o), n in self.outcomes.items() if kind in (k, "all")]
            counts = [sum(n for o, n in rows if o == name) for name in ALLOWED]
            total = sum(n for _, n in rows)
            cells = (total, *counts, total - sum(counts))
            lines.append(
                f"{kind:12}"
                + "".join(f"{c:>{w}}" for c, w in zip(cells, (8, 8, 9, 12, 8), strict=True))
            )
        lines.append(
            f"{self.seconds:.0f} s; the slowest input {self.slowest:.1f} s; "
            f"the largest child {self.largest >> 20} MiB"
        )
        for number, kind, outcome, text in self.failures[:20]:
            lines.append(f"input {number} ({kind}): {outcome}\n{text}")
        return "\n".join(lines)


class Child:
    """A child process that answers inputs one after the other."""

    def __init__(self, seed: int, canary: Path) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]),
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
        }
        self.process = subprocess.Popen(
            [sys.executable, str(TESTS / "faults" / "worker.py"), str(seed), str(canary)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self.answers: Queue[str] = Queue()
        self.left = INPUTS_PER_CHILD
        self.largest = 0
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in self.process.stdout:
            self.answers.put(line)

    def answer(self, number: int) -> tuple[str, str, str, float]:
        """Return kind, outcome, text and seconds of an input."""
        self.process.stdin.write(f"{number}\n")
        self.process.stdin.flush()
        first = self._wait(START_SECONDS)
        if "kind" not in first:
            return "?", first["outcome"], "while the input was made", 0.0
        began = self._processor_seconds()
        result = self._wait(SECONDS_PER_INPUT)
        self.left -= 1
        taken = max(0.0, self._processor_seconds() - began)
        return first["kind"], result["outcome"], result.get("text", ""), taken

    def _wait(self, processor_seconds: float) -> dict[str, Any]:
        deadline = time.monotonic() + STANDSTILL_SECONDS
        most = self._processor_seconds() + processor_seconds
        while True:
            try:
                return json.loads(self.answers.get(timeout=0.05))
            except Empty:
                code = self.process.poll()
            if code is not None and self.answers.empty():
                return {"outcome": f"died ({-code if code < 0 else code})"}
            self.largest = max(self.largest, self._resident())
            if self.largest > BYTES_OF_A_CHILD:
                return {"outcome": "too much memory"}
            if time.monotonic() > deadline or self._processor_seconds() > most:
                return {"outcome": "too slow"}

    def _resident(self) -> int:
        try:
            return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * PAGE
        except (OSError, IndexError):
            return 0

    def _processor_seconds(self) -> float:
        """Return the processor time that the process has had."""
        try:
            stat = Path(f"/proc/{self.process.pid}/stat").read_text()
        except OSError:
            return 0.0
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / TICKS

    def end(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(OSError, ValueError):
                pipe.close()


def run_campaign(
    *, count_inputs: int | None, seconds: float | None = None, seed: int = 1, workers: int = 2
) -> Figures:
    """Give inputs to children until there are enough, or the time is over."""
    figures, lock, began = Figures(), threading.Lock(), time.monotonic()
    numbers = iter(range(count_inputs) if count_inputs is not None else count())

    def work(canary: Path) -> None:
        child: Child | None = None
        while seconds is None or time.monotonic() - began < seconds:
            with lock:
                number = next(numbers, None)
            if number is None:
                break
            child = child or Child(seed, canary)
            kind, outcome, text, taken = child.answer(number)
            with lock:
                figures.add(number, kind, outcome, text)
                figures.slowest = max(figures.slowest, taken)
                figures.largest = max(figures.largest, child.largest)
            if child.left <= 0 or outcome.startswith(("died", "too")):
                child.end()
                child = None
        if child is not None:
            child.end()

    with tempfile.TemporaryDirectory() as folder:
        threads = [
            threading.Thread(target=work, args=(Path(folder) / f"canary-{index}",))
            for index in range(workers)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    figures.seconds = time.monotonic() - began
    return figures


def main() -> int:
    """Run a campaign from the command line; the exit code is 1 if an input failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", type=int)
    given = parser.parse_args()
    if given.only is not None:
        sys.path.insert(0, str(TESTS))
        from faults.inputs import make_input

        folder = Path(tempfile.mkdtemp(prefix="mmcl-fuzz-"))
        print(*make_input(given.seed, given.only, folder, folder / "canary"))
        return 0
    figures = run_campaign(
        count_inputs=given.count, seconds=given.seconds, seed=given.seed, workers=given.workers
    )
    print(figures)
    for number, text in figures.unforeseen[:20]:
        print(f"unforeseen: input {number}: {text.splitlines()[0]}")
    return 1 if figures.failures else 0


if __name__ == "__main__":
    sys.exit(main())
