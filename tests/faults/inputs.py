"""Damaged inputs of every kind that is read, the same for the same seed and number.

Half of them are valid files with damaged bytes, half are well-formed files with wrong content.
"""

import gzip
import io
import json
import os
import pickle
import shutil
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from faults.damage import damaged
from faults.foreign_inputs import make_csd, make_table

ROOT = Path(__file__).parents[2]
EARLIER_RUN = ROOT / "tests" / "golden" / "earlier-run"
RECORDING = ROOT / "src" / "mmcl" / "serve" / "example.mp4"
# How many of twenty inputs are of a kind: pickles can do most, and recordings take long.
SHARES = {
    "pickle": 6,
    "npz": 2,
    "arrow": 3,
    "csd": 2,
    "table": 2,
    "run": 2,
    "transcript": 1,
    "label.csv": 1,
    "media": 1,
}


class Calls:
    """Pickles as a call of a function, which leaves a file if it is ever made."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.canary}'",)


def make_input(seed: int, number: int, folder: Path, canary: Path) -> tuple[str, Path]:
    """Write input ``number`` into a folder; return its kind, and its path."""
    random = Random(f"{seed}-{number}")
    kind = random.choices(list(SHARES), list(SHARES.values()))[0]
    return kind, _MAKERS[kind](random, folder, canary)


# ---------------------------------------------------------------- wrong content


def odd_value(random: Random, folds: tuple[int, ...] = (5, 30)) -> Any:
    """Return a value where another one is expected; ``folds`` are depths of lists of lists."""
    makers = (
        lambda: None,
        lambda: random.choice((-1, 0, 10**9, 10**18, 10**400, True)),
        lambda: random.choice((float("nan"), float("inf"), -1e300, 0.5)),
        lambda: random.choice(("", "x", "\x1b[2J\x07", "y" * 10_000, "\ud800", "1e999", "−3")),
        lambda: random.choice((b"", b"\xff\xfe", b"text")),
        lambda: random.choice(([], {}, (), set())),
        lambda: [[1, 2], [3]],
        lambda: {"a": {"b": [1]}},
        lambda: np.array(random.choice((1.5, 3, "x"))),
        lambda: np.zeros(random.choice(((0,), (0, 3), (10**9, 0), (4, 0, 3), (2, 2, 2, 2)))),
        lambda: np.array([None, "a", 1.5], dtype=object),
        lambda: np.full((3, 2), np.nan),
        lambda: np.array([1 + 2j, 3]),
        lambda: _folded([1, 2], random.choice(folds)),
        lambda: _folded((), random.choice(folds)),
        lambda: np.float32(1.5),
    )
    return random.choice(makers)()


def _folded(value: Any, times: int) -> Any:
    """Return lists of lists of ... of a value, each ten times the one below."""
    for _ in range(times):
        value = [value] * 10 if isinstance(value, list) else (value,) * 10
    return value


def with_odd_parts(content: Any, random: Random, folds: tuple[int, ...] = (5, 30)) -> Any:
    """Return nested content with one to three of its parts replaced; it is not changed itself."""
    for _ in range(random.choice((1, 1, 2, 3))):
        content = _replaced(content, random, random.randrange(1, 5), folds)
    return content


def _replaced(content: Any, random: Random, depth: int, folds: tuple[int, ...]) -> Any:
    if depth == 0 or not isinstance(content, dict | list) or not content:
        return odd_value(random, folds)
    if isinstance(content, dict):
        key = random.choice(list(content))
        if depth == 1 and random.random() < 0.3:  # another name, of another type perhaps
            others = {other: value for other, value in content.items() if other != key}
            return {**others, random.choice((7, None, b"text", "x", (1, "a"), key)): content[key]}
        return {**content, key: _replaced(content[key], random, depth - 1, folds)}
    index = random.randrange(len(content))
    return [
        *content[:index],
        _replaced(content[index], random, depth - 1, folds),
        *content[index + 1 :],
    ]


# ---------------------------------------------------------------- pickles and npz


def _corpora() -> list[Any]:
    """Return the content of small valid corpora in the layouts of pickles."""
    rng = np.random.default_rng(0)

    def fields(split: str, count: int) -> dict[str, Any]:
        return {
            "text": rng.normal(size=(count, 4, 3)).astype(np.float32),
            "audio": rng.normal(size=(count, 4, 2)).astype(np.float32),
            "vision": [rng.normal(size=(row % 3 + 1, 2)) for row in range(count)],
            "labels": rng.uniform(-3, 3, size=count),
            "classification_labels": rng.integers(0, 3, size=count),
            "id": [f"{split}$_${row}" for row in range(count)],
            "raw_text": [f"these are the words of {row}" for row in range(count)],
            "audio_lengths": np.full(count, 4),
        }

    sizes = {"train": 5, "valid": 2, "test": 2}
    plain = {split: fields(split, count) for split, count in sizes.items()}
    magbert = {
        split: [
            (
                (["so", "well"], rng.normal(size=(2, 3)), rng.normal(size=(2, 2))),
                1.5,
                f"{split}[{i}]",
            )
            for i in range(count)
        ]
        for split, count in sizes.items()
    }
    by_clip = {
        split: {
            f"{split}{i}": {"audio": rng.normal(size=(3, 2)), "label": 0.5} for i in range(count)
        }
        for split, count in sizes.items()
    }
    return [plain, magbert, by_clip]


_PLAIN = _corpora()


def _make_pickle(random: Random, folder: Path, canary: Path) -> Path:
    content = random.choice(_PLAIN)
    protocol = random.choice((0, 2, 4, 5))
    is_odd = random.random() < 0.5
    if is_odd:
        content = with_odd_parts(content, random)
    if random.random() < 0.1:
        content = (
            {**content, "extra": Calls(canary)} if isinstance(content, dict) else Calls(canary)
        )
    if random.random() < 0.03 and isinstance(content, dict):
        content = dict(content)
        content["self"] = content
    raw = random.choice(_BOMBS)(random) if random.random() < 0.02 else _dumped(content, protocol)
    if random.random() < 0.2:
        raw = gzip.compress(raw, 1, mtime=0)
    path = folder / "input.pkl"
    path.write_bytes(raw if is_odd else damaged(raw, random))
    return path


def _dumped(content: Any, protocol: int) -> bytes:
    try:
        return pickle.dumps(content, protocol)
    except (ValueError, UnicodeError, pickle.PicklingError):
        return pickle.dumps(content, 4)


# Small pickles that ask for much: lists without end, sizes, places in the memo, nested keys.
_BOMBS = (
    lambda random: b"\x80\x04]" + b"(" + b"]" * 3_000_000 + b"e.",
    lambda random: b"\x80\x04cbuiltins\nbytes\n(L3000000000L\ntR.",
    lambda random: b"\x80\x04]r\xff\xff\xff\x7f.",
    lambda random: b"\x80\x04\x8e" + (7 << 30).to_bytes(8, "little") + b"x.",
    lambda random: b"\x80\x05\x96" + (7 << 30).to_bytes(8, "little") + b"x.",
    lambda random: b"\x80\x04}(" + b"K\x01\x85\x94" + b"h\x00h\x00\x86\x94" * 40 + b"K\x01u.",
    lambda random: b"\x80\x04" + b"]" * 200_000 + b"a" * 199_999 + b".",
    lambda random: b"\x80\x04" + b")" + b"\x85" * 500_000 + b"}" + b"K\x01s.",
    lambda random: pickle.dumps({"train": np.zeros((10**8, 0))}),
)


def _make_npz(random: Random, folder: Path, canary: Path) -> Path:
    arrays = {
        f"{split}/{field}": np.asarray(value)
        for split, fields in _PLAIN[0].items()
        for field, value in fields.items()
        if field not in ("vision", "raw_text" if random.random() < 0.5 else "vision")
    }
    arrays = {key: value for key, value in arrays.items() if "classification" not in key}
    is_odd = random.random() < 0.5
    for _ in range(random.choice((1, 2, 3)) if is_odd else 0):
        key = random.choice([*arrays, "names", "train/speaker"])
        value = np.asarray(random.choice((1.5, 7, "x", [1, 2], [["a"]], np.nan, [None], [b"\xff"])))
        arrays[key] = random.choice((value, np.zeros((10**8, 0)), np.zeros(2**16, np.uint8)))
    held = io.BytesIO()
    (np.savez_compressed if random.random() < 0.5 else np.savez)(held, **arrays)
    raw = held.getvalue()
    if random.random() < 0.15:  # a shape that the file does not hold
        raw = raw.replace(b"'shape': (5, 4, 3)", b"'shape': (5" + b"9" * 6 + b",)")
    path = folder / "input.npz"
    path.write_bytes(raw if is_odd else damaged(raw, random))
    return path


# ---------------------------------------------------------------- our own files


@lru_cache(maxsize=1)
def _arrow_seeds() -> list[bytes]:
    """Return corpus files of every task, as mmcl writes them."""
    import tempfile

    from mmcl.corpus.plant import PlantSettings, plant_card, plant_clips
    from mmcl.corpus.store import write_corpus

    seeds = []
    with tempfile.TemporaryDirectory() as folder:
        for task in ("regression", "classes", "emotions"):
            settings = PlantSettings(
                train=4, valid=2, test=2, steps=14, widths=(4, 3, 2), task=task
            )
            path = write_corpus(
                Path(folder) / "seed.arrow", plant_card(settings), plant_clips(settings)
            )
            seeds.append(path.read_bytes())
    return seeds


def _make_arrow(random: Random, folder: Path, canary: Path) -> Path:
    content = random.choice(_arrow_seeds())
    if random.random() < 0.3:  # the card
        start = content.index(b'{"name"')
        end = content.index(b"}", start + 200)
        content = content[:start] + damaged(content[start:end], random) + content[end:]
    path = folder / "input.arrow"
    path.write_bytes(damaged(content, random))
    return path


def _odd_json(text: str, random: Random) -> str:
    """Return JSON with other parts; lists of lists are written out, so they are few."""
    content = with_odd_parts(json.loads(text), random, folds=(2, 3))
    return json.dumps(content, default=str, skipkeys=True)


def _make_run(random: Random, folder: Path, canary: Path) -> Path:
    run = folder / "run"
    shutil.copytree(EARLIER_RUN / "run", run)
    files = sorted(path for path in run.rglob("*") if path.is_file() and path.suffix != ".md")
    path = random.choice(files)
    if path.suffix == ".json" and random.random() < 0.7:
        text = _odd_json(path.read_text(), random)
        if random.random() < 0.3:
            text = random.choice(("", "null", "[]", "[" * 100_000, "{}"))
        path.write_text(text, errors="replace")
    elif path.suffix == ".safetensors" and random.random() < 0.3:
        raw = bytearray(path.read_bytes())
        raw[-4:] = random.choice((b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f"))  # NaN, infinity
        path.write_bytes(raw)
    elif random.random() < 0.1:
        path.unlink()
    else:
        path.write_bytes(damaged(path.read_bytes(), random))
    return run


# ---------------------------------------------------------------- recordings, transcripts, labels

_TRANSCRIPTS = {
    ".srt": "1\n00:00:00,500 --> 00:00:02,000\nIt is good.\n\n"
    "2\n00:00:02,500 --> 00:00:04,000\nVery.\n",
    ".vtt": "WEBVTT\n\n00:00.500 --> 00:02.000\n<v Ann>It is <b>good</b>.\n\n"
    "00:02.500 --> 00:04.000\nVery.\n",
    ".sbv": "0:00:00.500,0:00:02.000\nIt is good.\n\n0:00:02.500,0:00:04.000\nVery.\n",
    ".json": '{"segments": [{"start": 0.5, "end": 2.0, "text": "It is good.", "words": '
    '[{"word": "It", "start": 0.5, "end": 0.7}]}, {"start": 2.5, "end": 4.0, "text": "Very."}]}',
    ".tsv": "start\tend\ttext\n500\t2000\tIt is good.\n2500\t4000\tVery.\n",
    ".csv": "start,end,text\n0.5,2.0,It is good.\n2.5,4.0,Very.\n",
    ".txt": "It is good.\nVery.\n",
}
_LABELS = (
    "video_id,clip_id,text,label,label_T,mode,annotation\n"
    "talk,1,It is good.,1.5,1,train,Positive\n"
    "talk,2,It is bad.,-1.5,-1,valid,Negative\n"
    'walk,1,"Well, so.",0,0,test,Neutral\n'
)


def _make_transcript(random: Random, folder: Path, canary: Path) -> Path:
    suffix = random.choice(list(_TRANSCRIPTS))
    path = folder / f"input{suffix}"
    text = _TRANSCRIPTS[suffix]
    if suffix == ".json" and random.random() < 0.5:
        path.write_text(_odd_json(text, random), errors="replace")
    else:
        path.write_bytes(damaged(text.encode(random.choice(("utf-8", "utf-16"))), random))
    return path


def _make_labels(random: Random, folder: Path, canary: Path) -> Path:
    for video, clip in (("talk", 1), ("talk", 2), ("walk", 1)):
        (folder / "Raw" / video).mkdir(parents=True, exist_ok=True)
        (folder / "Raw" / video / f"{clip}.mp4").write_bytes(RECORDING.read_bytes()[:1000])
    text = _LABELS.replace(",", random.choice(",,;\t"))
    if random.random() < 0.5:
        cells = text.split(",")
        cells[random.randrange(len(cells))] = str(odd_value(random, folds=(2, 3)))[:1000]
        text = ",".join(cells)
        (folder / "label.csv").write_text(text, encoding="utf-8", errors="replace")
    else:
        (folder / "label.csv").write_bytes(damaged(text.encode(), random))
    return folder


def _make_media(random: Random, folder: Path, canary: Path) -> Path:
    path = folder / f"input{random.choice(('.mp4', '.wav', '.webm'))}"
    path.write_bytes(damaged(RECORDING.read_bytes(), random))
    return path


_MAKERS = {
    "pickle": _make_pickle,
    "npz": _make_npz,
    "arrow": _make_arrow,
    "csd": make_csd,
    "table": make_table,
    "run": _make_run,
    "transcript": _make_transcript,
    "label.csv": _make_labels,
    "media": _make_media,
}
