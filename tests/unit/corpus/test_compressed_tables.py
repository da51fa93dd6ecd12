"""Tables that unpack to more than the limits allow: refused before, or while, they are unpacked."""

import io

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import feather, parquet

from mmcl.corpus.arrow_sizes import unpacked_bytes
from mmcl.corpus.readers import check_file
from mmcl.corpus.readers.arrow_table import read_arrow
from mmcl.corpus.readers.parquet_sizes import BYTES_OF_VALUE, unpacked_columns
from mmcl.errors import DatasetError

MIB = 2**20
ZEROS = pa.table({"audio_0": np.zeros(MIB)})
BITS = np.zeros(100_000, bool)  # small, but each is a clip
LONG = "x" * 100_000


@pytest.fixture(autouse=True)
def _little_is_free(monkeypatch):
    monkeypatch.setattr("mmcl.limits.FREE_BYTES", MIB)
    monkeypatch.setattr("mmcl.limits.FREE_OBJECTS", 10_000)


def parquet_of(table, **options):
    held = io.BytesIO()
    parquet.write_table(table, held, **options)
    return held.getvalue()


def arrow_of(table, compression=None, writer=pa.ipc.new_file):
    held = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with writer(held, table.schema, options=options) as written:
        written.write_table(table)
    return held.getvalue()


def column(values):
    return pa.table({"a": values})


def one_text_often(kind):
    """Return a column of views whose every cell is one long text, which is there once."""
    views = pa.array([LONG], kind).buffers()
    return pa.Array.from_buffers(kind, 200, [None, pa.py_buffer(bytes(views[1]) * 200), views[2]])


BOMBS = {
    "parquet-of-zeros": (lambda: parquet_of(ZEROS, compression="zstd"), "MAX_UNPACKED"),
    "parquet-pages-of-version-2": (
        lambda: parquet_of(ZEROS, compression="gzip", data_page_version="2.0"),
        "MAX_UNPACKED",
    ),
    "parquet-without-a-dictionary": (
        lambda: parquet_of(ZEROS, compression="zstd", use_dictionary=False),
        "MAX_UNPACKED",
    ),
    "parquet-of-one-text": (lambda: parquet_of(column([LONG] * 200)), "MAX_UNPACKED"),
    "parquet-of-a-long-list": (lambda: parquet_of(column([[0.0] * MIB])), "MAX_UNPACKED"),
    "parquet-of-nothing": (lambda: parquet_of(column(pa.nulls(100_000))), "MAX_OBJECTS"),
    "arrow-zstd": (lambda: arrow_of(ZEROS, "zstd"), "MAX_UNPACKED"),
    "arrow-lz4": (lambda: arrow_of(ZEROS, "lz4"), "MAX_UNPACKED"),
    "stream-zstd": (lambda: arrow_of(ZEROS, "zstd", pa.ipc.new_stream), "MAX_UNPACKED"),
    "compressed-dictionary": (
        lambda: arrow_of(column(pa.array(["x" * 8 * MIB]).dictionary_encode()), "zstd"),
        "MAX_UNPACKED",
    ),
    "dictionary-of-one-text": (
        lambda: arrow_of(column(pa.array([LONG] * 200).dictionary_encode())),
        "MAX_UNPACKED",
    ),
    "views-of-one-text": (
        lambda: arrow_of(column(one_text_often(pa.string_view()))),
        "MAX_UNPACKED",
    ),
    "parquet-of-bits": (lambda: parquet_of(column(BITS)), "MAX_OBJECTS"),
    "bits": (lambda: arrow_of(column(BITS)), "MAX_OBJECTS"),
    "nothing": (lambda: arrow_of(column(pa.nulls(10**9))), "MAX_OBJECTS"),
    "list-of-nothing": (
        lambda: arrow_of(column(pa.ListArray.from_arrays([0, 10**9], pa.nulls(10**9)))),
        "MAX_OBJECTS",
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bomb_is_refused_by_its_limit(tmp_path, name):
    make, words = BOMBS[name]
    path = tmp_path / "x.arrow"
    path.write_bytes(make())
    assert path.stat().st_size < 200_000
    with pytest.raises(DatasetError) as caught:
        check_file(path)
    assert str(caught.value).startswith(str(path))
    assert f"export MMCL_{words}=" in str(caught.value)


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
def test_pages_declare_at_least_what_their_values_take(compression, version):
    random = np.random.default_rng(1)
    table = pa.table(
        {
            "numbers": random.normal(size=3000),
            "zeros": np.zeros(3000),
            "lists": [[1.0, 2.0]] * 3000,
            "gaps": [None, True] * 1500,
        }
    )
    raw = parquet_of(table, compression=compression, data_page_version=version, row_group_size=1000)
    sizes = unpacked_columns(io.BytesIO(raw))
    assert len(sizes) == 3 * table.num_columns
    for index, num_values in enumerate((3000, 3000, 6000, 3000)):
        assert sum(sizes[index :: table.num_columns]) >= BYTES_OF_VALUE * num_values


@pytest.mark.parametrize("writer", [pa.ipc.new_file, pa.ipc.new_stream])
@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_buffers_declare_what_a_column_takes(compression, writer):
    raw = arrow_of(ZEROS, compression, writer)
    assert unpacked_bytes(pa.py_buffer(raw)) == ZEROS.nbytes
    assert unpacked_bytes(pa.py_buffer(arrow_of(ZEROS, None, writer))) == 0


def test_a_limit_can_be_raised(tmp_path, monkeypatch):
    feather.write_feather(ZEROS, tmp_path / "x.arrow", "zstd")
    monkeypatch.setenv("MMCL_MAX_UNPACKED", "100000")
    monkeypatch.setenv("MMCL_MAX_OBJECTS", "100000")
    assert read_arrow(tmp_path / "x.arrow", "arrow").equals(ZEROS)


@pytest.mark.parametrize("cut", [1, 9, 40, 200])
@pytest.mark.parametrize(
    ("make", "kind"),
    [(parquet_of, "a Parquet table"), (arrow_of, "an Arrow table (not written by mmcl)")],
)
def test_damaged_metadata_are_said_to_be_so(tmp_path, make, kind, cut):
    path = tmp_path / "x.arrow"
    raw = bytearray(make(column(["so", "well"])))
    raw[-cut - 8 : -cut] = b"\xff" * 8
    path.write_bytes(raw)
    with pytest.raises(DatasetError) as caught:
        read_arrow(path, "parquet" if make is parquet_of else "arrow")
    assert str(caught.value).startswith(f"{path}: {kind} that is cut short or damaged (")


def test_a_column_whose_size_cannot_be_told_is_not_read(tmp_path):
    path = tmp_path / "x.arrow"
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([10**9], pa.int32()), ["x"])
    path.write_bytes(arrow_of(column(runs)))
    with pytest.raises(DatasetError) as caught:
        check_file(path)
    assert str(caught.value) == (
        f'{path}: the column "a" is of type {runs.type}, which is not read.\n'
        "  Expected numbers, text, or lists of them. Write it in one of these types, or leave it "
        "out of the file.\n"
        "  The layouts that can be read: mmcl corpus convert --help"
    )


def test_views_and_dictionaries_of_texts_are_read(tmp_path):
    path = tmp_path / "x.arrow"
    texts = ["so", "well", None, "a text of more than twelve letters"]
    table = pa.table(
        {
            "views": pa.array(texts, pa.string_view()),
            "names": pa.array(texts).dictionary_encode(),
            "numbers": pa.array([1, 2, 1, None]).dictionary_encode(),
        }
    )
    path.write_bytes(arrow_of(table))
    assert read_arrow(path, "arrow").equals(table)


# A struct with a map whose value is a map, and so on; a column in a group without any place.
DEEP_MAPS = b"\x1b" + b"\x01\x5b\x02" * 5000
COLUMN_OF_NOTHING = b"\x49\x1c\x19\x1c\x3c\x00\x00\x00\x00"


@pytest.mark.parametrize(
    ("footer", "words"),
    [
        (DEEP_MAPS, "more than 32 values inside"),
        (COLUMN_OF_NOTHING, "a column that begins nowhere"),
    ],
)
def test_damaged_footer_is_refused_in_words(footer, words):
    file = io.BytesIO(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    with pytest.raises(ValueError, match=words):
        unpacked_columns(file)
