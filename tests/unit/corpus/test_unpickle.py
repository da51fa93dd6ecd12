"""Tests of the unpickler: data comes through unchanged, and everything else is refused."""

import collections
import gzip
import os
import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from mmcl.corpus.unpickle import load_pickle
from mmcl.errors import DatasetError, UnsafePickleError

# Python 2 wrote b"..." where Python 3 writes text: this is pickle.dumps(np.array([1.5, -2],
# dtype="<f4"), 2) of Python 2.7 with numpy 1.16, byte for byte in its structure.
PYTHON2_ARRAY = (
    b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85U\x01b\x87R"
    b"(K\x01K\x02\x85cnumpy\ndtype\nq\x03U\x02f4K\x00K\x01\x87R"
    b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x08"
    + np.array([1.5, -2.0], dtype="<f4").tobytes()
    + b"tb."
)
# An object array whose dtype claims, with forged flags, to hold no objects: numpy would
# take the eight bytes for a pointer.
FORGED_OBJECTS = (
    b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    b"(K\x01K\x01\x85cnumpy\ndtype\nU\x02O8K\x00K\x01\x87R"
    b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x08AAAAAAAAtb."
)
VALUES = {
    "float": np.arange(6.0).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "view": np.arange(10)[::2],
    "objects": np.array([{"x": 1}, "é", None], dtype=object),
    "strings": np.array(["ab", "c"]),
    "bytes": np.array([b"ab", b"c"]),
    "float32": np.float32(1.5),
    "int64": np.int64(3),
    "raw": b"\xff\x00",
    "big endian": np.arange(3, dtype=">f4"),
    "empty": np.zeros((0, 3)),
    "no axes": np.array(3.5),
    "bool": np.array([True, False]),
    "set": {1, 2},
    "ordered": collections.OrderedDict(a=1),
    "nested": [("text", 1, 2.5, None, True)],
}


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function, *values):
        self.call = (function, values)

    def __reduce__(self):
        return self.call


class Persistent(pickle.Pickler):
    def persistent_id(self, value):
        return "tag" if value == "elsewhere" else None


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", VALUES)
def test_data_comes_through_unchanged(dump, protocol, name):
    value = VALUES[name]
    read = load_pickle(dump(value, protocol=protocol))
    if isinstance(value, np.ndarray | np.generic):
        np.testing.assert_array_equal(np.asarray(read), value)
        assert np.asarray(read).dtype == value.dtype
    else:
        assert read == value
        assert type(read) is type(value)


def test_pickle_of_python_2(tmp_path):
    path = tmp_path / "old.pkl"
    path.write_bytes(PYTHON2_ARRAY)
    np.testing.assert_array_equal(load_pickle(path), np.array([1.5, -2.0], dtype=np.float32))


@pytest.mark.parametrize("protocol", range(6))
def test_malicious_pickle_is_refused_before_it_runs(dump, tmp_path, protocol):
    canary = tmp_path / "canary"
    path = dump({"train": Calls(os.system, f"touch {canary}")}, protocol=protocol)
    with pytest.raises(UnsafePickleError) as caught:
        load_pickle(path)
    assert str(caught.value) == (
        f'{path}: this pickle asks for "posix.system", which is not plain data; '
        "nothing of it was run.\n"
        "  Expected only numpy arrays, dicts, lists, tuples, strings and numbers.\n"
        "  If you trust its maker, load it where it was made and save its arrays as npz.\n"
        "  The layouts that can be read: mmcl corpus convert --help"
    )
    assert not canary.exists()


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Calls(eval, "1"), "builtins.eval"),
        (Calls(getattr, "a", "b"), "builtins.getattr"),
        (Calls(np.load, "x.npy"), "numpy.load"),
        (np.random.default_rng(0), "numpy.random._pickle.__generator_ctor"),
        (np.ma.masked_array([1.0]), "numpy.ma.core._mareconstruct"),
        (np.zeros(1, dtype=[("a", "O")]), "numpy.dtype of 'V8'"),
        (Calls(np.ndarray, (2,)), "numpy.ndarray"),
        (Calls(bytes.fromhex, "00"), "builtins.getattr"),
        (range(3), "builtins.range"),
    ],
)
def test_everything_else_is_refused_by_name(dump, value, name):
    with pytest.raises(UnsafePickleError) as caught:
        load_pickle(dump([value]))
    assert f'asks for "{name}"' in str(caught.value)


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        (pd.DataFrame({"text": ["a"]}), "frame.to_parquet("),
        (pd.Series([1.0]), "frame.to_parquet("),
        (torch.zeros(3), "tensor.numpy()"),
    ],
    ids=["frame", "series", "tensor"],
)
def test_values_of_other_libraries_get_their_own_advice(dump, value, advice):
    with pytest.raises(UnsafePickleError) as caught:
        load_pickle(dump({"train": value}))
    assert "If you trust its maker, load it where it was made and save" in str(caught.value)
    assert advice in str(caught.value)


@pytest.mark.parametrize("protocol", range(6))
def test_persistent_id_is_refused(tmp_path, protocol):
    path = tmp_path / "persistent.pkl"
    with path.open("wb") as file:
        Persistent(file, protocol=protocol).dump(["elsewhere"])
    with pytest.raises(UnsafePickleError, match='asks for "a persistent id"'):
        load_pickle(path)


def test_forged_object_array_never_reaches_numpy(tmp_path):
    path = tmp_path / "forged.pkl"
    path.write_bytes(FORGED_OBJECTS)
    with pytest.raises(DatasetError, match="an object array without a list of its objects"):
        load_pickle(path)


@pytest.mark.parametrize(
    ("program", "name"),
    [
        pytest.param(
            b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(U\x02O8K\x00K\x01tRU\x08AAAAAAAAtR.",
            "numpy scalar of an object",
            id="object-scalar",
        ),
        pytest.param(
            b"cnumpy.core.numeric\n_frombuffer\n(U\x08AAAAAAAAcnumpy\ndtype\n(U\x02O8tRK\x01\x85U\x01CtR.",
            "numpy object array from raw bytes",
            id="object-buffer",
        ),
        pytest.param(
            b"c_codecs\nencode\n(U\x01aU\x03hextR.", "_codecs.encode to 'hex'", id="codec"
        ),
        pytest.param(
            b"cnumpy.core.multiarray\nscalar\n}U\x09_functionK\x01sb.",
            "change of a function",
            id="state-of-a-function",
        ),
        pytest.param(b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "os.system", id="stack-global"),
        pytest.param(
            b"\x80\x04\x8c\x05numpy\x8c\x13core.multiarray.abc\x93.",
            "numpy.core.multiarray.abc",
            id="dotted",
        ),
    ],
)
def test_tricks_are_refused(tmp_path, program, name):
    path = tmp_path / "trick.pkl"
    path.write_bytes(program)
    with pytest.raises(UnsafePickleError) as caught:
        load_pickle(path)
    assert f'asks for "{name}"' in str(caught.value)


@pytest.mark.parametrize("ending", ["toy.pkl", "toy.pkl.gz"])
def test_file_cut_anywhere_is_an_error_of_ours(content, dump, ending):
    path = dump({"train": [1, 2.5, content["test"]["text"], "x"]}, ending)
    raw = path.read_bytes()
    for end in range(len(raw)):
        path.write_bytes(raw[:end])
        with pytest.raises(DatasetError):
            load_pickle(path)


FLIPS = """
import pathlib, random, resource, sys
from mmcl.corpus.unpickle import load_pickle
from mmcl.errors import DatasetError

# A flipped byte may ask for gigabytes; that must fail at once, not fill the machine.
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
path, rng, refused = pathlib.Path(sys.argv[1]), random.Random(5), 0
content = path.read_bytes()
for _ in range(1000):
    broken = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        broken[rng.randrange(len(broken))] = rng.randrange(256)
    path.write_bytes(bytes(broken))
    try:
        load_pickle(path)
    except DatasetError:
        refused += 1
print(refused)
"""


def test_file_with_flipped_bytes_loads_or_is_an_error_of_ours(dump):
    # In a process of its own: numpy's own reconstruction dies here of a segmentation fault.
    path = dump({"train": {"a": np.arange(4.0), "b": np.array(["x", {}], dtype=object), "c": 1.5}})
    done = subprocess.run(
        [sys.executable, "-c", FLIPS, str(path)],
        capture_output=True,
        text=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 500  # most of the flips hit the program, not the numbers


def test_truncated_gzip(dump, content):
    path = dump(content, "toy.pkl.gz")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DatasetError) as caught:
        load_pickle(path)
    assert str(caught.value) == (
        f"{path}: the gzip stream is cut short or damaged "
        "(Compressed file ended before the end-of-stream marker was reached).\n"
        "  Expected a whole gzip'd pickle. Fetch or copy the file again.\n"
        f"  Test the copy: gzip -t {path}"
    )


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"\x00\x01\x02", r"invalid load key, '\x00'"),
        (b"", "Ran out of input"),
        (pickle.dumps([1, 2])[:-1], "pickle data was truncated"),
        (gzip.compress(b"", mtime=0), "Ran out of input"),
    ],
    ids=["no-pickle", "empty", "cut", "empty-inside-gzip"],
)
def test_what_is_no_pickle(tmp_path, raw, reason):
    path = tmp_path / "toy.pkl"
    path.write_bytes(raw)
    with pytest.raises(DatasetError) as caught:
        load_pickle(path)
    assert reason in str(caught.value)
    assert str(path) in str(caught.value)


def test_second_object_of_a_pickle_is_not_lost_in_silence(tmp_path):
    path = tmp_path / "two.pkl"
    path.write_bytes(pickle.dumps({"train": [1]}) + pickle.dumps({"test": [2]}))
    with pytest.raises(DatasetError) as caught:
        load_pickle(path)
    assert str(caught.value) == (
        f"{path}: more follows the first object of the pickle; it would be lost.\n"
        "  Expected one object. If the splits were dumped one after the other, load each and dump "
        'them together: {"train": ..., "valid": ..., "test": ...}\n'
        "  The layouts that can be read: mmcl corpus convert --help"
    )


def test_zeros_and_line_ends_may_follow_a_pickle(tmp_path):
    path = tmp_path / "padded.pkl"
    path.write_bytes(pickle.dumps([1, 2]) + b"\r\n" + bytes(512))
    assert load_pickle(path) == [1, 2]
