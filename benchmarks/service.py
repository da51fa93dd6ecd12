"""Load test of ``mmcl serve``: many clients, malformed files, start and memory.

Clients are threads of another process on the same machine. The run has the settings of
``calibrated`` and the widths that ``mmcl extract`` makes, but is hardly trained. Needs the extras
serve and media-offline. Run it with: python benchmarks/service.py
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from urllib.parse import urlsplit

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import httpx
import numpy as np

from fakes.malformed import is_harmless, malformed
from fakes.talking import random_clips, train_talking, write_recording
from mmcl.config import resolve_config
from output import add_out, write

CLIENTS, REQUESTS = 32, 20
LONG = 2000
"""Requests during which the service's memory is measured."""
PAUSE = 0.5
"""Seconds between two recordings that the service predicts for long."""
SEEDS = (1, 2)
EPOCHS = 2


class Serving(NamedTuple):
    """A running service and its client."""

    process: int
    address: str
    client: httpx.Client
    began: float


def main() -> None:
    """Measure and print; write the result to the file that --out names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds after a first, uncounted one")
    parser.add_argument("--malformed", type=int, default=200, help="number of malformed files")
    parser.add_argument(
        "--recordings", type=float, help="only predict recordings for so many seconds; no result"
    )
    add_out(parser)
    parser.add_argument("--crowd", nargs=3, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.crowd:
        address, clients, requests = chosen.crowd
        print(json.dumps(crowd(address, int(clients), int(requests))))
        return
    if chosen.recordings:
        with TemporaryDirectory() as place:
            print(json.dumps(recordings_memory(Path(place), chosen.recordings), indent=2))
        return
    with TemporaryDirectory() as place:
        content = measure(Path(place), chosen.rounds, chosen.malformed)
    print(json.dumps(content, indent=2))
    write(content, chosen.out)


def measure(place: Path, rounds: int, num_malformed: int) -> dict[str, Any]:
    """Return every measurement of one run."""
    folder, recording = run_and_recording(place)
    with serving(folder, place / "state") as cold:
        start_times(cold, recording)
    with serving(folder, place / "state") as warm:  # the files of the models are cached now
        start = start_times(warm, recording)
        throughput(warm)  # the first large batches allocate memory
        content: dict[str, Any] = {
            "load": os.getloadavg()[0],
            "networks": len(SEEDS),
            "start": start,
            "rounds": [throughput(warm) for _ in range(rounds)],
            "memory": long_memory(warm),
            "malformed": refuse(warm, recording, num_malformed),
        }
    return content


def run_and_recording(place: Path) -> tuple[Path, bytes]:
    """Train a run that takes recordings; return its folder, and a short recording."""
    config = resolve_config(model="calibrated", overrides=[f"learning.epochs={EPOCHS}"])
    folder = train_talking(place / "talking", config, seeds=SEEDS).folder
    return folder, write_recording(place / "tone.mp4").read_bytes()


@contextmanager
def serving(run: Path, state: Path) -> Iterator[Serving]:
    """Run ``mmcl serve`` as long as the context lasts."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "mmcl.cli.main", "serve", str(run), "--port", "0"]
    process = subprocess.Popen(
        [*command, "--state", str(state)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    try:
        process.stdout.readline()
        match = re.search(r"http://\S+", process.stdout.readline())
        assert match is not None
        with httpx.Client(base_url=match[0], timeout=120) as client:
            yield Serving(process.pid, match[0], client, began)
    finally:
        process.terminate()
        process.wait()


def start_times(served: Serving, recording: bytes) -> dict[str, float]:
    """Return seconds to the first answers, and the memory of an idle service."""

    def seconds() -> float:
        return round(time.perf_counter() - served.began, 2)

    times = {"listening": seconds()}
    served.client.post("/v1/predict", content=body(0), headers=JSON).raise_for_status()
    times["features"] = seconds()
    send(served.client, recording).raise_for_status()
    times["recording"] = seconds()
    time.sleep(2.0)
    times["memory_mib"] = round(held_by_all(served.process))
    return times


# ---------------------------------------------------------------- requests of features

JSON = {"Content-Type": "application/json"}


def body(seed: int) -> bytes:
    """Return a request with one clip of 20 steps."""
    (clip,) = random_clips(1, seed=seed)
    features = {m: x.astype(float).round(4).tolist() for m, x in clip.features.items()}
    return json.dumps({"clips": [{"id": clip.id, **features}]}).encode()


def throughput(served: Serving) -> dict[str, Any]:
    """Return requests per second of one client, and of many at once."""
    alone = from_another_process(served.address, 1, 200)
    together = from_another_process(served.address, CLIENTS, REQUESTS)
    ratio = together["per_second"] / alone["per_second"]
    return {"alone": alone, "together": together, "ratio": round(ratio, 2)}


def from_another_process(address: str, clients: int, requests: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--crowd", address, str(clients), str(requests)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def crowd(address: str, clients: int, requests: int) -> dict[str, Any]:
    """Send requests from many threads; return errors, milliseconds and requests per second."""
    bodies = [body(seed) for seed in range(clients)]
    host = urlsplit(address).netloc
    taken: list[float] = []
    statuses: Counter[int] = Counter()
    gate = threading.Barrier(clients + 1)

    def ask(sent: bytes) -> None:
        connection = http.client.HTTPConnection(host, timeout=60)
        connection.connect()
        gate.wait()
        for _ in range(requests):
            began = time.perf_counter()
            connection.request("POST", "/v1/predict", sent, JSON)
            answer = connection.getresponse()
            answer.read()
            taken.append(time.perf_counter() - began)
            statuses[answer.status] += 1
        connection.close()

    threads = [threading.Thread(target=ask, args=(sent,)) for sent in bodies]
    for thread in threads:
        thread.start()
    gate.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    wall = time.perf_counter() - began
    p50, p99 = np.percentile(taken, [50, 99]) * 1000
    errors = sum(count for status, count in statuses.items() if status != 200)
    return {
        "requests": len(taken),
        "errors": errors + clients * requests - len(taken),
        "per_second": round(len(taken) / wall, 1),
        "p50_ms": round(p50, 1),
        "p99_ms": round(p99, 1),
    }


def long_memory(served: Serving) -> dict[str, float]:
    """Return MiB of all processes after more and more requests."""
    held = {"0": round(held_by_all(served.process), 1)}
    for done in range(LONG // 4, LONG + 1, LONG // 4):
        from_another_process(served.address, 10, LONG // 40)
        held[str(done)] = round(held_by_all(served.process), 1)
    return held


def recordings_memory(place: Path, seconds: float) -> dict[str, Any]:
    """Return MiB of all processes while one recording after the other is predicted.

    It is measured ten times, each time with the number of recordings that were done by then.
    The files of libraries are left out: their share depends on what else the machine does.
    """
    folder, recording = run_and_recording(place)
    held: dict[str, float] = {}
    with serving(folder, place / "state") as served:
        start_times(served, recording)
        began, done = time.monotonic(), 0
        while (passed := time.monotonic() - began) < seconds:
            if passed >= len(held) * seconds / 10:
                held[str(done)] = round(held_by_all(served.process, "Pss_Anon"), 1)
            answer = send(served.client, recording).raise_for_status()
            assert answer.status_code == 200, answer.text  # done, and not only accepted
            done += 1
            time.sleep(PAUSE)
        held[str(done)] = round(held_by_all(served.process, "Pss_Anon"), 1)
    return {"seconds": seconds, "memory_mib": held}


# ---------------------------------------------------------------- malformed files


def refuse(served: Serving, recording: bytes, count: int) -> dict[str, Any]:
    """Send malformed files one by one, while ``/healthz`` is asked.

    Files that FFmpeg decodes without an error all the same are counted separately.
    """
    statuses: Counter[str] = Counter()
    harmless: Counter[str] = Counter()
    files = malformed(recording, 2 * count)
    with health_watch(served.address) as slowest:
        while statuses.total() < count:
            what, content = next(files)
            answer = send(served.client, content, name=f"{what}.mp4")
            counted = harmless if is_harmless(content, recording) else statuses
            counted[str(answer.status_code)] += 1
            if counted is statuses and not 400 <= answer.status_code < 500:
                print(what, answer.status_code, answer.text, file=sys.stderr)
    send(served.client, recording).raise_for_status()
    return {
        "statuses": dict(statuses),
        "harmless": dict(harmless),
        "slowest_health_seconds": round(slowest(), 3),
    }


@contextmanager
def health_watch(address: str) -> Iterator[Callable[[], float]]:
    """Ask ``/healthz`` twenty times a second; yields the time of its slowest answer."""
    stop, slowest = threading.Event(), [0.0]

    def watch() -> None:
        with httpx.Client(base_url=address) as client:
            while not stop.wait(0.05):
                began = time.perf_counter()
                client.get("/healthz").raise_for_status()
                slowest[0] = max(slowest[0], time.perf_counter() - began)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield lambda: slowest[0]
    finally:
        stop.set()
        watcher.join()


def send(client: httpx.Client, content: bytes, *, name: str = "tone.mp4") -> httpx.Response:
    return client.post("/v1/predict?wait=30", files={"file": (name, content)})


# ---------------------------------------------------------------- memory


def held_by_all(process: int, kind: str = "Pss") -> float:
    """Return MiB of a process and its children; shared memory is counted once."""
    rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
    match = re.search(rf"^{kind}:\s+(\d+)", rollup, re.M)
    own = int(match[1]) / 1024 if match else 0.0
    tasks = Path(f"/proc/{process}/task").iterdir()
    children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    return own + sum(held_by_all(child, kind) for child in children)


if __name__ == "__main__":
    main()
