"""Small pickles that ask for much: each is refused in words, in time and in memory."""

import gzip
import os
import pickle
import resource
import sys
import tracemalloc

import numpy as np
import pytest

from mmcl.corpus.readers import check_file, convert_corpus, read_corpus
from mmcl.corpus.readers.choose_task import _named_classes
from mmcl.corpus.store import open_corpus
from mmcl.corpus.unpickle import load_pickle
from mmcl.corpus.written_out import Finisher
from mmcl.errors import DatasetError
from mmcl.limits import Budget

MIB = 2**20


def folded(times, kind=list):
    """Return ten of ten of ... of one container, which takes few bytes in a pickle."""
    value = kind([1] * 10)
    for _ in range(times):
        value = kind([value] * 10)
    return value


def deep(times):
    value = []
    for _ in range(times):
        value = [value]
    return value


NESTED_KEY = b"\x80\x04}(" + b"K\x01\x85\x94" + b"h\x00h\x00\x86\x94" * 40 + b"K\x01u."
DEEP_KEY = b"\x80\x04}" + b")" + b"\x85" * 500_000 + b"K\x01s."
BOMBS = {
    "bytes-of-a-size": (b"\x80\x04cbuiltins\nbytes\n(L3000000000L\ntR.", "bytes of a size"),
    "bytearray-of-a-size": (b"\x80\x04cbuiltins\nbytearray\n(L3000000000L\ntR.", "of a size"),
    "declared-bytes": (b"\x80\x04\x8e" + (7 << 30).to_bytes(8, "little") + b"x.", "MAX_UNPACKED"),
    "declared-array": (b"\x80\x05\x96" + (7 << 30).to_bytes(8, "little") + b"x.", "MAX_UNPACKED"),
    "place-in-the-memo": (b"\x80\x04]r\xff\xff\xff\x7f0cbuiltins\nnone\n.", "builtins.none"),
    "nested-key": (NESTED_KEY, "neither text nor a number"),
    "deep-key": (DEEP_KEY, "neither text nor a number"),
    "nested-set": (
        b"\x80\x04\x8f(" + b"K\x01\x85\x94" + b"h\x00h\x00\x86\x94" * 40 + b"\x90.",
        "neither",
    ),
    "nested-text": (b"\x80\x04cbuiltins\nstr\n(]tR.", "str of a list"),
    "lists": (pickle.dumps(folded(12), 4), "MAX_OBJECTS"),
    "tuples": (pickle.dumps(folded(12, tuple), 4), "MAX_OBJECTS"),
    "one-text-often": (pickle.dumps(["x" * 10**6] * 1000, 4), "MAX_UNPACKED"),
    "deep": (b"\x80\x04" + b"]" * 100 + b"a" * 99 + b".", "MAX_DEPTH"),
    "very-deep": (b"\x80\x04" + b"]" * 10**6 + b"a" * (10**6 - 1) + b".", "MAX_DEPTH"),
    "no-bytes-many-clips": (pickle.dumps(np.zeros((10**9, 0))), "MAX_OBJECTS"),
    "gzip-of-lists": (gzip.compress(b"\x80\x04](" + b"]" * 5 * 10**6 + b"e."), "MAX_OBJECTS"),
    "gzip-of-zeros": (gzip.compress(pickle.dumps(bytes(300 * MIB), 4), 1), "MAX_UNPACKED"),
    "object-of-a-class": (b"\x80\x04ccollections\nOrderedDict\n)\x81.", "invalid load key"),
    "state-of-a-dict": (b"\x80\x04ccollections\nOrderedDict\n)R}b.", "state of OrderedDict"),
}


def _peak():
    """Return the most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.timeout(60)
def test_it_is_refused_in_words(tmp_path, name):
    raw, words = BOMBS[name]
    path = tmp_path / "x.pkl"
    path.write_bytes(raw)
    before = _peak()
    with pytest.raises(DatasetError) as caught:
        load_pickle(path)
    assert words in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert _peak() - before < 900 * MIB


def test_empty_lists_are_counted_and_not_kept(tmp_path):
    content = [[] for _ in range(100_000)]
    (tmp_path / "x.pkl").write_bytes(b"x")
    tracemalloc.start()
    Finisher(Budget(tmp_path / "x.pkl")).finish(content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < MIB
    with pytest.raises(DatasetError, match="MMCL_MAX_OBJECTS"):
        Finisher(Budget(tmp_path / "x.pkl")).finish([[] for _ in range(1_100_000)])


@pytest.mark.parametrize("value", [deep(20), folded(4), {"a": {("b", 1): [None]}}], ids=str)
def test_what_is_honest_passes(dump, value):
    assert load_pickle(dump(value)) == value


def test_one_array_for_many_clips_passes(dump):
    silence = np.zeros((50, 74), dtype=np.float32)
    read = load_pickle(dump([silence] * 2000))
    assert all(item is read[0] for item in read)


def test_a_limit_can_be_raised(dump, monkeypatch):
    value = deep(40)
    with pytest.raises(DatasetError, match="export MMCL_MAX_DEPTH=320"):
        load_pickle(dump(value))
    monkeypatch.setenv("MMCL_MAX_DEPTH", "100")
    assert load_pickle(dump(value)) == value


# ---------------------------------------------------------------- the readers behind it

FIELDS = {
    "audio": np.ones((4, 3, 2)),
    "labels": np.array([1.5, -2.0, 0.5, 1.0]),
    "id": ["a", "b", "c", "d"],
}
ODD = {
    "self": ("a dict that contains itself", None),
    "id is a number": ('split "train": id is one int.', {"id": 7}),
    "id is one text": ('split "train": id is one str.', {"id": "abcd"}),
    "ids of lists": ("id is a list that holds one dict.", {"id": [{}, {}, {}, {}]}),
    "ids of no axis": ("id is an array of shape []", {"id": np.array("a")}),
    "labels of no axis": ("labels is a single value.", {"labels": np.array(1.5)}),
    "labels are one text": ("labels is a single value.", {"labels": "abcd"}),
    "labels beyond floats": ("labels is of type object.", {"labels": [1.5, 10**400, 0, 0]}),
    "text of a number": ('split "train": raw_text is one int.', {"raw_text": 5}),
    "speakers of arrays": ("speaker is a list that holds an array", {"speaker": [np.ones(2)] * 4}),
    "uneven tokens": (
        "text_bert has shape",
        {"text": np.ones((4, 3, 2)), "text_bert": [[1], [2, 3]]},
    ),
    "lengths of a dict": ("audio_lengths is no numbers.", {"audio_lengths": {"a": 1}}),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_fields_are_refused_by_name(dump, name):
    words, changes = ODD[name]
    content = {"train": {**FIELDS, **(changes or {})}}
    if changes is None:
        content["train"] = content
    path = dump(content)
    with pytest.raises(DatasetError) as caught:
        check_file(path)
    assert str(caught.value).startswith(str(path))
    assert words in str(caught.value)
    assert "does not foresee" not in str(caught.value)


@pytest.mark.parametrize(
    ("clip", "words"),
    [
        ((5, np.ones((2, 3)), np.ones((2, 3))), "words is one int."),
        ((["a", ["b"]], np.ones((2, 3)), np.ones((2, 3))), "words is a list that holds one list."),
    ],
)
def test_words_of_magbert_that_are_none(dump, clip, words):
    with pytest.raises(DatasetError, match=words):
        check_file(dump({"train": [(clip, 1.5, "a[0]")]}))


def test_labels_of_magbert_that_differ(dump):
    parts = (["a"], np.ones((1, 3)), np.ones((1, 3)))
    with pytest.raises(DatasetError, match="of a different number of values per clip"):
        check_file(dump({"train": [(parts, [1.5, [2]], "a[0]"), (parts, 1.5, "a[1]")]}))


def test_a_class_number_makes_no_names(dump):
    content = {"train": {**FIELDS, "labels": np.array([0, 1, 2, 10**9])}}
    card, _ = check_file(dump(content))
    assert len(card.task.names) <= 4
    assert _named_classes(("a", "b"), 10**9).names == ("a", "b")


def test_keys_that_have_no_order(dump):
    path = dump({"text": np.ones((1, 2)), "train": {("a", 1): 1, "text": [1]}})
    with pytest.raises(DatasetError) as caught:
        check_file(path)
    assert str(caught.value).startswith(f'{path}, split "train": text is shape [], int64')
    with pytest.raises(DatasetError, match="It has: "):
        read_corpus(path, rename={"nothing": "text"})


def test_halves_of_characters_are_replaced(dump):
    texts = ["\ud800", "so \ud83d\ude00", "é", "plain"]
    names = ["\udfff", *"bcd"]
    corpus = read_corpus(
        dump({"train": {**FIELDS, "raw_text": texts, "speaker": texts, "id": names}})
    )
    clips = list(corpus.every_clip().clips())
    assert [clip.text for clip in clips] == ["\ufffd", "so \U0001f600", "é", "plain"]
    assert [clip.speaker for clip in clips] == [clip.text for clip in clips]
    assert clips[0].id == "\ufffd"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_name_of_a_file_that_is_no_text(tmp_path):
    path = tmp_path / os.fsdecode(b"\xff.csv")
    path.write_text("split;text;label\ntrain;so bad;-2.5\nvalid;fine;1.5\n")
    card = convert_corpus(path, tmp_path / "x.arrow", max_lost=1.0)
    assert (card.name, card.source.name) == (r"\udcff", r"\udcff.csv")
    assert open_corpus(tmp_path / "x.arrow").card == card


@pytest.mark.timeout(20)
def test_names_without_end(dump):
    many = {f"field {number}": [1] for number in range(100_000)}
    with pytest.raises(DatasetError, match="a split with 100,003 fields"):
        check_file(dump({"train": {**FIELDS, **many}}))
    with pytest.raises(DatasetError) as caught:
        check_file(dump({"a_" * 500_000: [1]}))
    assert "unknown layout" in str(caught.value)
    assert len(str(caught.value)) < 1500


def test_unforeseen_content_is_said_to_be_so(dump, monkeypatch):
    def fail(*_):
        raise KeyError("x")

    monkeypatch.setattr("mmcl.corpus.readers.open_or_convert.build_corpus", fail)
    path = dump({"train": FIELDS})
    with pytest.raises(DatasetError) as caught:
        check_file(path)
    assert str(caught.value) == (
        f"{path}: its content cannot be read as a corpus (KeyError: 'x').\n"
        "  It is damaged, or has a form that mmcl does not foresee. Fetch or copy it again.\n"
        f"  If it is as docs/data.md says, report what this shows: mmcl --debug corpus check {path}"
    )
