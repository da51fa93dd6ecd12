"""Random corpora, written in the layouts and conventions of the field.

A :class:`Truth` is what a file means; :func:`write_file` writes it in one of the layouts.
"""

import gzip
import pickle
import struct
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from hypothesis import strategies as st

MODALITIES = ("text", "audio", "vision")
SPLIT_NAMES = {
    "train": ("train", "Train", "training", "train_set"),
    "valid": ("valid", "val", "dev", "validation"),
    "test": ("test", "TEST", "testing", "testset"),
}
LAYOUTS = (
    "plain",
    "mmsa",
    "mult",
    "magbert",
    "npz",
    "parquet",
    "csv",
    "rows",
    "by_field",
    "flat",
    "clips",
)
ONE_STEP_LAYOUTS = ("csv",)
LABEL_KINDS = ("scores", "whole scores", "classes", "names", "one-hot", "emotions", "pairs")
LABEL_KINDS_OF = {
    "magbert": ("scores", "whole scores"),
    "csv": ("scores", "whole scores", "classes", "names"),
    "parquet": ("scores", "whole scores", "classes", "names"),
}
RANGES = ((-3.0, 3.0), (-1.0, 1.0), (0.0, 1.0), (1.0, 5.0), (0.0, 100.0))
NAMES = ("hap", "sad", "neu", "ang")


@dataclass
class Clip:
    """A clip as its file means it; a modality that it lacks is not in ``features``."""

    features: dict[str, np.ndarray]  # float32 [n, d]
    label: Any
    text: str


@dataclass
class Truth:
    """A corpus, and how it is written."""

    clips: dict[str, list[Clip]]  # by split
    label_kind: str
    layout: str
    padding: str  # left, right or both
    has_lengths: bool
    is_aligned: bool
    container: str  # array, objects or list
    dtype: str
    protocol: int  # of the pickle; 2 with strings of Python 2 is "-2"
    is_gzip: bool
    widths: dict[str, int]
    split_keys: dict[str, str] = field(default_factory=dict)


@st.composite
def truths(draw):
    """Draw a corpus and a way to write it."""
    layout = draw(st.sampled_from(LAYOUTS))
    label_kind = draw(st.sampled_from(LABEL_KINDS_OF.get(layout, LABEL_KINDS)))
    modalities = draw(st.lists(st.sampled_from(MODALITIES), min_size=1, unique=True))
    if layout == "magbert":
        modalities = ["audio", "vision"]
    if layout == "mmsa" and "text" not in modalities:
        modalities.append("text")
    is_aligned = layout == "magbert" or draw(st.booleans())
    container = draw(st.sampled_from(("array", "objects", "list")))
    if layout == "npz":
        container = "array"
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    widths = {m: int(rng.integers(1, 4)) for m in MODALITIES if m in modalities}
    splits = ["train", *draw(st.lists(st.sampled_from(("valid", "test")), unique=True))]
    longest = 1 if layout in ONE_STEP_LAYOUTS else draw(st.integers(1, 7))
    score_range = draw(st.sampled_from(RANGES))
    counts = {
        split: draw(st.integers(2 if split == "train" else 1, 4))
        for split in sorted(splits, key=SPLIT_ORDER)
    }
    # A class that no clip of the file has cannot be known of: the first clips have them all.
    labels = _labels(rng, label_kind, score_range, sum(counts.values()))
    is_missing = draw(st.booleans()) and layout not in ("magbert", "csv")
    clips = {
        split: [
            _clip(rng, widths, longest, is_aligned, is_missing, labels.pop(), f"{split} {row}")
            for row in range(count)
        ]
        for split, count in counts.items()
    }
    return Truth(
        clips=clips,
        label_kind=label_kind,
        layout=layout,
        padding=draw(st.sampled_from(("right", "right", "left", "both"))),
        has_lengths=draw(st.booleans()),
        is_aligned=is_aligned,
        container=container,
        dtype=draw(st.sampled_from(("float16", "float32", "float64"))),
        protocol=draw(st.sampled_from((-2, 0, 1, 2, 3, 4, 5))),
        is_gzip=draw(st.booleans()),
        widths=widths,
        split_keys={split: draw(st.sampled_from(SPLIT_NAMES[split])) for split in clips},
    )


SPLIT_ORDER = ("train", "valid", "test").index


def _labels(rng, kind, score_range, count):
    low, high = score_range
    if kind in ("scores", "whole scores"):
        scores = rng.uniform(low, high, count).round(3 if kind == "scores" else 0)
        # The last ones are the first of the training split, which shows the range.
        scores[-2:] = [low, high][-count:]
        return scores.tolist()
    if kind in ("classes", "names", "one-hot"):
        return rng.integers(0, 4, count).tolist()
    return [tuple(row) for row in rng.integers(0, 2, (count, 3)).tolist()]


def _clip(rng, widths, longest, is_aligned, is_missing, label, text):
    length = int(rng.integers(1, longest + 1))
    features = {}
    for modality, width in widths.items():
        own = length if is_aligned else int(rng.integers(1, longest + 1))
        steps = rng.choice([-1.0, 1.0], (own, width)) * rng.uniform(0.5, 2.0, (own, width))
        # A step of zeros in the middle is measured; at an end nobody could tell it from padding.
        if own > 2 and rng.random() < 0.3:
            steps[rng.integers(1, own - 1)] = 0.0
        features[modality] = steps.astype(np.float16).astype(np.float32)
    if is_missing and len(features) > 1 and rng.random() < 0.3:
        del features[list(features)[int(rng.integers(len(features)))]]
    return Clip(features, label, text)


# ---------------------------------------------------------------- writing


def write_file(truth: Truth, folder: Path) -> Path:
    """Write a corpus in its layout."""
    if truth.layout == "magbert":
        content = {truth.split_keys[s]: _magbert(clips) for s, clips in truth.clips.items()}
        return _write_pickle(truth, content, folder)
    if truth.layout in ("parquet", "csv"):
        return _write_table(truth, folder)
    splits = {truth.split_keys[name]: _fields(truth, name) for name in truth.clips}
    if truth.layout == "npz":
        path = folder / "own.npz"
        np.savez(
            path, **{f"{s}/{k}": np.asarray(v) for s, f in splits.items() for k, v in f.items()}
        )
        return path
    content: dict[str, Any] = splits
    if truth.layout == "by_field":
        keys = dict.fromkeys(key for fields in splits.values() for key in fields)
        content = {key: {s: fields[key] for s, fields in splits.items()} for key in keys}
    if truth.layout == "flat":
        content = {f"{s}_{key}": v for s, fields in splits.items() for key, v in fields.items()}
    if truth.layout == "clips":
        content = {
            s: [
                dict(zip(fields, values, strict=True))
                for values in zip(*fields.values(), strict=True)
            ]
            for s, fields in splits.items()
        }
    if truth.layout == "rows":
        keys = dict.fromkeys(key for fields in splits.values() for key in fields)
        content = {key: [v for fields in splits.values() for v in fields[key]] for key in keys}
        content["split"] = [s for s, fields in splits.items() for _ in fields["raw_text"]]
    return _write_pickle(truth, content, folder)


def _fields(truth: Truth, split: str) -> dict[str, Any]:
    clips = truth.clips[split]
    label_field = {"mult": "labels", "npz": "labels"}.get(truth.layout)
    fields: dict[str, Any] = {"raw_text": [clip.text for clip in clips]}
    if truth.layout == "mmsa":
        fields["id"] = [f"{split}$_${row}" for row in range(len(clips))]
    for modality, width in truth.widths.items():
        rows = [clip.features.get(modality) for clip in clips]
        fields[modality] = _packed(truth, rows, width, modality)
        if truth.has_lengths and truth.layout != "mult":
            fields[f"{modality}_lengths"] = [0 if row is None else len(row) for row in rows]
    labels = _written_labels(truth, [clip.label for clip in clips])
    if label_field is None:
        is_score = truth.label_kind in ("scores", "whole scores")
        is_class = truth.label_kind == "classes"
        label_field = "regression_labels" if is_score else "labels"
        label_field = "classification_labels" if is_class else label_field
    if truth.layout == "mult" and truth.label_kind == "scores":
        labels = np.asarray(labels).reshape(-1, 1, 1)
    fields[label_field] = labels
    return fields


def _steps_of_file(truth: Truth, modality: str) -> int:
    every = [clip for clips in truth.clips.values() for clip in clips]
    of = [modality] if not truth.is_aligned else list(truth.widths)
    return max((len(c.features[m]) for c in every for m in of if m in c.features), default=1)


def _packed(truth: Truth, rows: list, width: int, modality: str) -> Any:
    """Pad the clips to one array, or keep a list of them."""
    if truth.container != "array" and not truth.has_lengths and not _has_missing(truth):
        arrays = [row.astype(truth.dtype) for row in rows]
        if truth.container == "list":
            return arrays
        objects = np.empty(len(arrays), dtype=object)
        objects[:] = arrays
        return objects
    total = _steps_of_file(truth, modality) + 1
    padded = np.zeros((len(rows), total, width), dtype=truth.dtype)
    for row, steps in enumerate(rows):
        if steps is not None:
            # In an aligned file all modalities of a clip are padded alike.
            first = {"right": 0, "left": total - len(steps), "both": (total - len(steps)) // 2}
            padded[row, first[truth.padding] :][: len(steps)] = steps
    return padded


def _has_missing(truth: Truth) -> bool:
    return any(len(c.features) < len(truth.widths) for clips in truth.clips.values() for c in clips)


def _written_labels(truth: Truth, labels: list) -> Any:
    if truth.label_kind == "names":
        return [NAMES[label] for label in labels]
    if truth.label_kind == "one-hot":
        return np.eye(4)[labels]
    if truth.label_kind == "pairs":
        return np.eye(2)[np.array(labels)]
    if truth.label_kind == "classes":
        return np.array(labels, dtype=np.int64)
    return np.array(labels, dtype=float)


def _magbert(clips: list[Clip]) -> list:
    return [
        (
            (
                [f"word{i}" for i in range(len(clip.features["audio"]))],
                clip.features["vision"].astype(np.float64),
                clip.features["audio"].astype(np.float64),
            ),
            np.array([[clip.label]]),
            f"{clip.text.replace(' ', '')}[0]",
        )
        for clip in clips
    ]


def _write_table(truth: Truth, folder: Path) -> Path:
    rows = [(truth.split_keys[s], clip) for s, clips in truth.clips.items() for clip in clips]
    labels = _written_labels(truth, [clip.label for _, clip in rows])
    columns: dict[str, Any] = {"split": [split for split, _ in rows], "label": list(labels)}
    columns["text" if truth.layout == "parquet" else "raw_text"] = [clip.text for _, clip in rows]
    for modality, width in truth.widths.items():
        features = [clip.features.get(modality) for _, clip in rows]
        if truth.layout == "parquet":
            kind = pa.list_(pa.list_(pa.float32()))
            lists = [None if steps is None else steps.tolist() for steps in features]
            columns[f"features_{modality}"] = pa.array(lists, kind)
        else:
            for index in range(width):
                columns[f"{modality}_{index}"] = [float(steps[0, index]) for steps in features]
    if truth.layout == "parquet":
        pa.parquet.write_table(pa.table(columns), folder / "own.parquet")
        return folder / "own.parquet"
    separator = {"right": ",", "left": ";", "both": "\t"}[truth.padding]
    lines = [separator.join(columns)]
    lines += [separator.join(map(str, row)) for row in zip(*columns.values(), strict=True)]
    (folder / "own.csv").write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
    return folder / "own.csv"


class _Python2Pickler(pickle._Pickler):  # the pickler in Python, whose opcodes can be changed
    """Write text and bytes as Python 2 wrote its strings."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_string(self, text):
        content = text if isinstance(text, bytes) else text.encode("utf-8")
        if len(content) < 256:
            self.write(pickle.SHORT_BINSTRING + struct.pack("<B", len(content)) + content)
        else:
            self.write(pickle.BINSTRING + struct.pack("<i", len(content)) + content)
        self.memoize(text)

    dispatch[str] = save_string
    dispatch[bytes] = save_string


def _write_pickle(truth: Truth, content: Any, folder: Path) -> Path:
    if truth.protocol == -2:
        buffer = BytesIO()
        _Python2Pickler(buffer, 2).dump(content)
        written = buffer.getvalue()
    else:
        written = pickle.dumps(content, protocol=truth.protocol)
    path = folder / ("own.pkl.gz" if truth.is_gzip else "own.pkl")
    path.write_bytes(gzip.compress(written) if truth.is_gzip else written)
    return path
