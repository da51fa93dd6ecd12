"""Damaged .csd files (HDF5), and damaged tables: Parquet, Arrow files of other makers, and csv."""

import csv
import io
import tempfile
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet

from fakes.csd import MOSI, make_data, write_all
from faults.damage import damaged

__all__ = ["make_csd", "make_table"]


# ---------------------------------------------------------------- HDF5


@lru_cache(maxsize=1)
def _csd_seeds() -> dict[str, bytes]:
    """Return the files of a small valid corpus by their names."""
    with tempfile.TemporaryDirectory() as folder:
        return {path.name: path.read_bytes() for path in write_all(Path(folder), make_data(MOSI))}


def make_csd(random: Random, folder: Path, canary: Path) -> Path:
    """Write the files of a corpus, one of them damaged."""
    source = folder / "csd"
    source.mkdir()
    for name, content in _csd_seeds().items():
        (source / name).write_bytes(content)
    path = source / random.choice(list(_csd_seeds()))
    if random.random() < 0.5:
        path.write_bytes(damaged(path.read_bytes(), random))
        return source
    with h5py.File(path, "r+") as file:
        for _ in range(random.choice((1, 1, 2, 3))):
            random.choice(_ODD_PARTS)(file, random)
    return source


def _a_group(file: h5py.File, random: Random) -> h5py.Group:
    """Return the group of a video, or that of all videos where none is a group any more."""
    data = file[next(iter(file))]["data"]
    groups = [data[key] for key in data if isinstance(data.get(key), h5py.Group)]
    return random.choice(groups or [data])


def _odd_array(file: h5py.File, random: Random) -> None:
    group, key = _a_group(file, random), random.choice(("features", "intervals"))
    text = h5py.string_dtype()
    arrays = (
        *(np.full((7, 2), value) for value in (np.nan, np.inf, -1e300, 10**18, 2 + 1j)),
        *(np.zeros(shape) for shape in ((0, 2), (7,), (2,), (7, 2, 2), (7, 0), (1, 10**5), ())),
        np.array([[2.0, 1.0]] * 7),
        np.zeros((7, 2), dtype=[("start", "f4"), ("end", "f4")]),
        np.zeros((7, 2), dtype="V5"),
        np.array([[b"\x1b[2J\xff"]] * 7),
        np.array([["z" * 10_000]] * 7, dtype=text),
        np.array([[file.ref]] * 7, dtype=h5py.ref_dtype),
        np.array([[True, False]] * 7),
    )
    _remove(group, key)
    group.create_dataset(key, data=random.choice(arrays))


def _declared_array(file: h5py.File, random: Random) -> None:
    """Declare an array that the file does not hold, or that lies in another file."""
    group, key = _a_group(file, random), random.choice(("features", "intervals"))
    _remove(group, key)
    kind = random.choice(("huge", "external", "virtual"))
    if kind == "huge":
        shape = random.choice(((10**9, 2), (7, 10**8), (10**12,)))
        group.create_dataset(key, shape=shape, dtype="f4", chunks=(1,) * len(shape))
    elif kind == "external":
        group.create_dataset(key, (7, 2), "u1", external=[("/etc/passwd", 0, 14)])
    else:
        layout = h5py.VirtualLayout((7, 2), "f4")
        layout[:] = h5py.VirtualSource("/nowhere.csd", "x", (7, 2))
        group.create_virtual_dataset(key, layout)


def _odd_link(file: h5py.File, random: Random) -> None:
    root = file[next(iter(file))]
    group = random.choice((_a_group(file, random), root, root["data"]))
    targets = (file["/"], group, h5py.SoftLink("/nowhere"), h5py.ExternalLink("/etc/passwd", "/x"))
    key = random.choice(
        ("features", "loop", "x\x1b[2Jy", "v" * 5000, "a[1]", f"a[{10**30}]", "[0]")
    )
    _remove(group, key)
    group[key] = random.choice(targets)


def _odd_name(file: h5py.File, random: Random) -> None:
    data = file[next(iter(file))]["data"]
    names = ("x\x1b[2Jy", "v" * 5000, "03bSnISJMiM[1]", f"a[{10**30}]", "[0]", "é", "nobody")
    if len(data):
        new = random.choice(names)
        _remove(data, new)
        data.move(random.choice(list(data)), new)


def _odd_metadata(file: h5py.File, random: Random) -> None:
    root = file[next(iter(file))]
    _remove(root, "metadata")
    values = (1.5, "\x1b[2J", "n" * 10_000, b"\xff", np.zeros(3), "[1, 2]", "null", "mosi")
    root.require_group("metadata")["dataset name"] = random.choice(values)


def _removed_part(file: h5py.File, random: Random) -> None:
    group = _a_group(file, random)
    _remove(group, random.choice(("features", "intervals")))


def _remove(group: h5py.Group, key: str) -> None:
    if group.get(key, getlink=True) is not None:
        del group[key]


_ODD_PARTS = (
    *(_odd_array, _odd_array, _declared_array, _odd_link),
    *(_odd_name, _odd_metadata, _removed_part),
)


# ---------------------------------------------------------------- tables


def _columns() -> dict[str, Any]:
    """Return the columns of a small valid table."""
    rng = np.random.default_rng(0)
    rows = 9
    return {
        "split": ["train"] * 5 + ["valid"] * 2 + ["test"] * 2,
        "label": rng.uniform(-3, 3, rows),
        "id": [f"clip {row}" for row in range(rows)],
        "text": [f"these are the words of {row}" for row in range(rows)],
        "speaker": [f"speaker {row % 3}" for row in range(rows)],
        "features_audio": [rng.normal(size=(row % 3 + 1, 2)).tolist() for row in range(rows)],
        "vision_0": rng.normal(size=rows),
        "vision_1": rng.normal(size=rows),
    }


_NUM_ROWS = 9


def _odd_columns() -> list[pa.Array]:
    """Return columns of every type that Arrow has, and of odd values."""
    floats = pa.array(np.linspace(-1e300, 1e300, _NUM_ROWS))
    lists = [[1.0, 2.0], None, [], [None], [3.0], [np.nan], [1e300], [0.0], [-1.0]]
    not_utf8 = pa.array([b"\xff\xfe"] * _NUM_ROWS, pa.binary()).view(pa.string())
    return [
        pa.nulls(_NUM_ROWS),
        pa.nulls(_NUM_ROWS, pa.string()),
        pa.array([np.nan] * _NUM_ROWS),
        floats,
        pa.array([10**18] * _NUM_ROWS),
        pa.array([True, None] + [False] * (_NUM_ROWS - 2)),
        pa.array(["", "\x1b[2J", "y" * 10_000, None, "x", "nan", "1e999", "−3", "=1"]),
        not_utf8,
        pa.array([b"\xff"] * _NUM_ROWS),
        pa.array(["a", "b", "a"] * 3).dictionary_encode(),
        pa.array([Decimal("1.50")] * _NUM_ROWS),
        pa.array([0] * _NUM_ROWS, pa.timestamp("us")),
        pa.array([0] * _NUM_ROWS, pa.duration("s")),
        pa.array([0] * _NUM_ROWS, pa.time64("ns")),
        pa.array([{"a": [1]}] * _NUM_ROWS),
        pa.array([[("k", 1)]] * _NUM_ROWS, pa.map_(pa.string(), pa.int64())),
        pa.array(lists),
        pa.array(lists, pa.large_list(pa.float16())),
        pa.array([[1.0, 2.0]] * _NUM_ROWS, pa.list_(pa.float32(), 2)),
        pa.array([[[1.0], [2.0, 3.0]]] * _NUM_ROWS),
        pa.array([[[], None]] * _NUM_ROWS, pa.list_(pa.list_(pa.float32()))),
        pa.array([["so", "well"]] * _NUM_ROWS),
        pa.array([[[["deep"]]]] * _NUM_ROWS),
        pa.array([[[b"\0"]]] * _NUM_ROWS),
        pa.array(["train"] * _NUM_ROWS, pa.large_string()),
    ]


_NAMES = (
    *("split", "label", "id", "text", "raw_text", "video_id", "clip_id", "speaker", "label_T"),
    *("features_text", "features_audio", "audio", "vision_0", "vision_2", "vision_99999999999"),
    *("", "x\x1b[2Jy", "c" * 5000, "words", "labels", "audio_lengths", "classification_labels"),
)


def make_table(random: Random, folder: Path, canary: Path) -> Path:
    """Write a table with other columns than it should have, or with damaged bytes."""
    columns = [(name, pa.array(values)) for name, values in _columns().items()]
    is_odd = random.random() < 0.5
    for _ in range(random.choice((1, 1, 2, 3)) if is_odd else 0):
        place = random.randrange(len(columns))
        name, column = columns[place]
        change = random.random()
        if change < 0.6:
            columns[place] = name, random.choice(_odd_columns())
        elif change < 0.8:
            columns[place] = random.choice(_NAMES), column
        elif len(columns) > 1:
            del columns[place]
    table = pa.Table.from_arrays([c for _, c in columns], names=[n for n, _ in columns])
    suffix, write = random.choice(_WRITERS)
    try:
        content = write(table, random)
    except (pa.ArrowException, ValueError):  # a type that the format lacks
        suffix, content = ".arrow", _stream(table, random)
    path = folder / f"input{suffix}"
    path.write_bytes(content if is_odd else damaged(content, random))
    return path


def _parquet(table: pa.Table, random: Random) -> bytes:
    held = io.BytesIO()
    pa.parquet.write_table(
        table,
        held,
        compression=random.choice(("none", "snappy", "gzip", "zstd")),
        use_dictionary=random.random() < 0.5,
        store_schema=random.random() < 0.8,
    )
    return held.getvalue()


def _feather(table: pa.Table, random: Random) -> bytes:
    held = io.BytesIO()
    pa.feather.write_feather(table, held, random.choice(("uncompressed", "lz4", "zstd")))
    return held.getvalue()


def _stream(table: pa.Table, random: Random) -> bytes:
    held = io.BytesIO()
    with pa.ipc.new_stream(held, table.schema) as stream:
        stream.write_table(table)
    return held.getvalue()


def _csv(table: pa.Table, random: Random) -> bytes:
    held = io.StringIO()
    writer = csv.writer(held, delimiter=random.choice(",;\t"))
    writer.writerows(
        [table.column_names, *zip(*(c.to_pylist() for c in table.columns), strict=True)]
    )
    return held.getvalue().encode(random.choice(("utf-8", "utf-8", "utf-16")), "replace")


_WRITERS = (
    *((".parquet", _parquet), (".parquet", _parquet), (".feather", _feather)),
    *((".arrow", _stream), (".csv", _csv)),
)
