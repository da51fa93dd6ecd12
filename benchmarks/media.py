"""Cost of extraction on real recordings, and how right it is.

Seconds of every stage per second of recording, models loaded; the recogniser's word error
rate and the aligner's error where the truth is known; the share of pictures with a face;
with ``--long`` the peak memory over 3 and over 30 minutes. Recordings come from the folder
that MMCL_REAL_DATA names. Run it with: python benchmarks/media.py --long
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))
os.environ["HF_HUB_OFFLINE"] = "1"

import av
import numpy as np

from mmcl.corpus.schema import Word
from mmcl.media.align import align_words
from mmcl.media.containers.decode import probe
from mmcl.media.containers.sound import read_audio
from mmcl.media.extract import Extracted, Extractor
from mmcl.media.face import FaceTrack, FaceTracker
from mmcl.media.recipe import Recipe
from mmcl.media.recognise import Recogniser
from mmcl.media.weights import speech_model
from output import add_out, write

GROUPS = {"grid": "grid/*.mpg", "ravdess": "ravdess/*.mp4", "moud": "moud/*.mp4"}
ASKED = {"grid": 0.5, "ravdess": 1.0, "moud": 0.5}
"""Seconds that a second of recording may take, on two cores."""
MINUTES = (3, 30)
LONG_RATE = 2.0
"""Pictures per second of the long recordings: their number is not what memory goes to."""

FIGURES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
SENTENCE: tuple[dict[str, str], ...] = (
    {"b": "bin", "l": "lay", "p": "place", "s": "set"},
    {"b": "blue", "g": "green", "r": "red", "w": "white"},
    {"a": "at", "b": "by", "i": "in", "w": "with"},
    {},  # a letter is itself
    {**{str(at): name for at, name in enumerate(FIGURES)}, "z": "zero"},
    {"a": "again", "n": "now", "p": "please", "s": "soon"},
)
ALIGNED, ALIGN_UNIT = "grid/id2_vcd_swwp2s", 25_000


class Round(NamedTuple):
    """One pass over a group of recordings."""

    extracted: list[Extracted]
    wall: float
    cpu: float


class Watched:
    """A face tracker that keeps in how many pictures it found a face."""

    def __init__(self, tracker: FaceTracker) -> None:
        self.tracker = tracker
        self.found: list[np.ndarray] = []

    def track(self, *given: Any) -> FaceTrack:
        """Track, and keep what was found."""
        track = self.tracker.track(*given)
        self.found.append(track.found)
        return track


def main() -> None:
    """Measure and print; write the result to the file that --out names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--long", action="store_true", help="memory over 3 and 30 minutes, too")
    parser.add_argument(
        "--also", action="append", default=[], help="another speech model: a folder or a hub id"
    )
    add_out(parser)
    parser.add_argument("--memory-of", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.memory_of:
        print(json.dumps(memory_of(chosen.memory_of)))
        return
    root = Path(os.environ.get("MMCL_REAL_DATA") or sys.exit("MMCL_REAL_DATA is not set"))
    paths = {name: sorted(root.glob(pattern)) for name, pattern in GROUPS.items()}
    content = measure(paths, chosen.rounds)
    for model in chosen.also:
        content["word_error_rates"][speech_model(model)[1]] = word_error_rate(
            paths["grid"], recognised(paths["grid"], model)
        )
    content["align_error"] = align_error(root / ALIGNED)
    if chosen.long:
        content["memory"] = long_memory(paths["grid"][0])
    report(content)
    write(content, chosen.out)


def measure(paths: dict[str, list[Path]], rounds: int) -> dict[str, Any]:
    """All groups in turn, several times, by one extractor."""
    extractor = Extractor(Recipe())
    watched = Watched(extractor.models.tracker)
    extractor.models.tracker = watched  # type: ignore[assignment]
    extractor.extract(paths["grid"][0])  # loads the models
    seen: dict[str, list[Round]] = {name: [] for name in paths}
    faces: dict[str, float] = {}
    for _ in range(rounds):
        for name, group in paths.items():
            watched.found.clear()
            seen[name].append(extract_all(extractor, group))
            faces[name] = float(np.concatenate(watched.found).mean())
    results = {
        name: summary(paths[name][0], each) | {"face_share": faces[name], "asked": ASKED[name]}
        for name, each in seen.items()
    }
    texts = [" ".join(c.text or "" for c in each.clips) for each in seen["grid"][0].extracted]
    return {
        "rounds": rounds,
        "versions": extractor.recipe.versions,
        "results": results,
        "word_error_rates": {
            extractor.recipe.versions["speech_model"]: word_error_rate(paths["grid"], texts)
        },
        "load": [round(each, 1) for each in os.getloadavg()],
    }


def extract_all(extractor: Extractor, paths: list[Path]) -> Round:
    """Extract every recording of a group, by the clock and by the processor."""
    wall, cpu = time.perf_counter(), time.process_time()
    extracted = [extractor.extract(path) for path in paths]
    return Round(extracted, time.perf_counter() - wall, time.process_time() - cpu)


def summary(first: Path, rounds: list[Round]) -> dict[str, Any]:
    """The round of the median duration, per second of recording."""
    chosen = sorted(rounds, key=lambda each: each.wall)[len(rounds) // 2]
    duration = sum(each.duration for each in chosen.extracted)
    stages = chosen.extracted[0].timings
    info = probe(first)
    return {
        "recordings": len(chosen.extracted),
        "size": f"{info.width}x{info.height}",
        "seconds": duration,
        "stages": {
            name: sum(each.timings[name] for each in chosen.extracted) / duration for name in stages
        },
        "wall": chosen.wall / duration,
        "cpu": min(each.cpu for each in rounds) / duration,
        "walls": [each.wall / duration for each in rounds],
    }


# ---------------------------------------------------------------- how right it is


def recognised(paths: list[Path], model: str) -> list[str]:
    """Words that another model hears."""
    recogniser = Recogniser(speech_model(model)[0])
    heard = [recogniser.transcribe(read_audio(path), "en").words for path in paths]
    return [" ".join(word.text for word in words) for words in heard]


def word_error_rate(paths: list[Path], texts: list[str]) -> float:
    """Words to change, leave out or put in, over the words that were said."""
    said = [spoken(path) for path in paths]
    wrong = sum(distance(truth, plain(text)) for truth, text in zip(said, texts, strict=True))
    return wrong / sum(map(len, said))


def spoken(path: Path) -> list[str]:
    """Words said in a recording of GRID, from its name."""
    letters = path.stem.rpartition("_")[2]
    return [names.get(each, each) for names, each in zip(SENTENCE, letters, strict=True)]


def plain(text: str) -> list[str]:
    """Words in lower case, figures spelled out one by one."""
    found = re.findall(r"[a-z']+|\d", text.lower())
    return [FIGURES[int(word)] if word.isdigit() else word for word in found]


def distance(said: list[str], heard: list[str]) -> int:
    """Levenshtein distance of two lists of words."""
    above = np.arange(len(heard) + 1)
    for at, word in enumerate(said, start=1):
        row = [at]
        for other, each in enumerate(heard):
            row.append(min(above[other + 1] + 1, row[-1] + 1, above[other] + (word != each)))
        above = np.array(row)
    return int(above[-1])


def align_error(stem: Path) -> dict[str, float]:
    """Distance in seconds of found word boundaries from the true ones: mean and largest."""
    lines = (line.split() for line in stem.with_suffix(".align").read_text().splitlines())
    truth = [(word, int(a), int(b)) for a, b, word in lines if word != "sil"]
    audio = read_audio(stem.with_suffix(".mpg"))
    words: tuple[Word, ...] = align_words(audio, " ".join(word for word, _, _ in truth))
    found = np.array([(word.start, word.end) for word in words], float)
    true = np.array([edges for _, *edges in truth]) / ALIGN_UNIT
    apart = np.abs(found - true)
    return {"mean": float(apart.mean()), "largest": float(apart.max())}


# ---------------------------------------------------------------- memory


def long_memory(source: Path) -> dict[str, dict[str, float]]:
    """Peak memory and time of a process that extracts a recording said again and again."""
    measured = {}
    with tempfile.TemporaryDirectory() as folder:
        for minutes in MINUTES:
            path = Path(folder) / f"{minutes}min.mkv"
            repeat(source, path, 60 * minutes)
            command = [sys.executable, __file__, "--memory-of", str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            measured[f"{minutes} min"] = json.loads(done.stdout.splitlines()[-1])
            print(minutes, "min:", measured[f"{minutes} min"], flush=True)
    return measured


def repeat(source: Path, path: Path, seconds: float) -> None:
    """Write a recording over and over into one file, without coding it again."""
    length = probe(source).duration
    with av.open(str(path), "w") as out:
        streams: dict[int, Any] = {}
        for turn in range(int(seconds // length)):
            with av.open(str(source)) as file:
                for stream in file.streams:
                    if stream.index not in streams:
                        streams[stream.index] = out.add_stream_from_template(stream)
                for packet in file.demux():
                    if packet.dts is None:
                        continue
                    shift = round((turn * length - (file.start_time or 0) / 1e6) / packet.time_base)
                    packet.pts, packet.dts = (packet.pts or packet.dts) + shift, packet.dts + shift
                    packet.stream = streams[packet.stream_index]
                    out.mux(packet)


def memory_of(path: Path) -> dict[str, float]:
    """Extract a recording and say what this process needed at most, in MiB (Linux)."""
    began = time.perf_counter()
    extracted = Extractor(Recipe(frame_rate=LONG_RATE)).extract(path)
    status = Path("/proc/self/status").read_text()
    peak = int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1024
    return {
        "peak_mib": round(peak),
        "seconds": round(extracted.duration, 1),
        "wall": round(time.perf_counter() - began, 1),
        "cpu": round(time.process_time(), 1),
        "utterances": len(extracted.clips),
    }


# ---------------------------------------------------------------- what is shown and kept


def report(content: dict[str, Any]) -> None:
    """Print it."""
    results = content["results"]
    print(f"{'seconds per second':20}" + "".join(f"{name:>12}" for name in results))
    rows = {stage: [r["stages"][stage] for r in results.values()] for stage in stages(content)}
    for key in ("wall", "asked", "cpu", "face_share"):
        rows[key] = [r[key] for r in results.values()]
    for row, values in rows.items():
        print(f"{row:20}" + "".join(f"{value:12.3f}" for value in values))
    for model, rate in content["word_error_rates"].items():
        print(f"word error rate on GRID: {rate:.3f} ({model})")
    error = content["align_error"]
    print(f"aligned words: {error['mean']:.3f} s off on average, {error['largest']:.3f} at most")
    print(f"load of the machine: {content['load']}")


def stages(content: dict[str, Any]) -> list[str]:
    """Names of the stages, in order."""
    return list(next(iter(content["results"].values()))["stages"])


if __name__ == "__main__":
    main()
