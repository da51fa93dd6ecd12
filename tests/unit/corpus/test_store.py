"""Tests of the store: what is written is read back, without copies and never half a file."""

import errno
import json
import os
import pickle
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mmcl import files
from mmcl.corpus import store
from mmcl.corpus.check import corpus_clips
from mmcl.corpus.plant import PlantSettings, plant_corpus
from mmcl.corpus.schema import Card, Clip, Planted, Repairs, Source, Task, Word
from mmcl.corpus.store import is_corpus_file, open_corpus, pack_corpus, write_corpus
from mmcl.errors import DatasetError, DiskError, SealedSplitError

WIDTHS = {"text": 3, "audio": 2, "vision": 5}
LENGTHS = {"text": 4, "audio": 6, "vision": 1}


def make_clip(split, row, *, absent=(), **fields):
    rng = np.random.default_rng(row)
    features = {
        m: rng.normal(size=(LENGTHS[m] + row, width)).astype(np.float32)
        for m, width in WIDTHS.items()
        if m not in absent
    }
    return Clip(id=f"{split}-{row}", split=split, features=features, **fields)


@pytest.fixture
def card():
    return Card(
        name="toy",
        task=Task(kind="regression", low=-3.0, high=3.0),
        dims=WIDTHS,
        counts={"train": 2, "valid": 1, "test": 1},
        aligned=False,
        repairs={"audio": Repairs(minus_inf=1)},
        source=Source(name="toy.pkl", layout="plain", sha256="ab"),
        notes=("a note",),
    )


@pytest.fixture
def clips():
    words = (Word(text="so", start=0.25, end=0.5), Word(text="good"))
    return [
        make_clip("train", 0, label=1.25, video_id="v", clip_id="0", text="so good", words=words),
        make_clip("train", 1, absent=("text",), modality_labels={"audio": -1.5}),
        make_clip("valid", 2, label=-3.0, speaker="Anna"),
        make_clip("test", 3, label=0.0, text="né"),
    ]


@pytest.fixture
def written(tmp_path, card, clips):
    return write_corpus(tmp_path / "toy.arrow", card, clips)


def failing_open(fault):
    """Open files as usual, but let a file that is written fail after its first kilobyte."""
    ordinary_open = Path.open

    def opened(path, mode="r", **options):
        file = ordinary_open(path, mode, **options)
        written = 0

        class Failing:
            closed = False

            def __enter__(self):
                return self

            def __exit__(self, *_):
                file.close()

            def write(self, block):
                nonlocal written
                written += len(block)
                if written > 1024:
                    raise fault
                return file.write(block)

            def __getattr__(self, name):
                return getattr(file, name)

        return Failing() if mode == "wb" else file

    return opened


def test_everything_comes_back(written, card, clips, same_clip):
    corpus = open_corpus(written)
    read = list(corpus_clips(corpus))
    assert corpus.card == card
    for original, restored in zip(clips, read, strict=True):
        same_clip(original, restored)


def test_corpus_written_before_there_were_speakers(tmp_path, card, clips):
    clips = [clip.model_copy(update={"speaker": None}) for clip in clips]
    path = write_corpus(tmp_path / "new.arrow", card, clips)
    table = pa.ipc.open_file(path).read_all()
    with pa.ipc.new_file(tmp_path / "old.arrow", table.drop_columns("speaker").schema) as writer:
        writer.write_table(table.drop_columns("speaker"))
    old, new = open_corpus(tmp_path / "old.arrow"), open_corpus(path)
    assert [clip.speaker for clip in corpus_clips(old)] == [None] * 4
    assert old.checksum() == new.checksum()


def test_speakers_are_part_of_the_checksum(written, tmp_path, card, clips):
    clips[2] = clips[2].model_copy(update={"speaker": "Ben"})
    other = open_corpus(write_corpus(tmp_path / "other.arrow", card, clips))
    assert other.checksum() != open_corpus(written).checksum()


def test_packed_corpus_holds_the_same_and_counts_by_itself(card, clips, same_clip):
    corpus = pack_corpus(card.model_copy(update={"counts": {}}), clips)
    assert corpus.card == card
    for original, restored in zip(clips, corpus_clips(corpus), strict=True):
        same_clip(original, restored)


def test_planted_answer_key_comes_back(tmp_path, card, same_clip):
    roles = {m: np.arange(length, dtype=np.int8) % 3 for m, length in LENGTHS.items()}
    planted = Planted(roles=roles, scores={"common": 0.5, "text": -1.0})
    clip = make_clip("train", 0, label=1.0, planted=planted)
    planted_card = card.model_copy(update={"counts": {"train": 1}, "recipe": {"planted": {}}})
    path = write_corpus(tmp_path / "planted.arrow", planted_card, [clip])
    (read,) = open_corpus(path).split("train").clips()
    same_clip(clip, read)


@pytest.mark.parametrize(
    ("task", "labels", "expected"),
    [
        (Task(kind="classes", names=("a", "b", "c")), [2, None], [2, -1]),
        (
            Task(kind="emotions", names=("a", "b", "c")),
            [(0, 1, 1), None],
            [[0, 1, 1], [-1, -1, -1]],
        ),
        (Task(kind="regression", low=-1.0, high=1.0), [0.1, None], [0.1, np.nan]),
    ],
)
def test_labels_of_every_task_come_back(tmp_path, card, task, labels, expected):
    labelled = [make_clip("train", row, label=label) for row, label in enumerate(labels)]
    task_card = card.model_copy(update={"task": task, "counts": {"train": 2}})
    corpus = open_corpus(write_corpus(tmp_path / "toy.arrow", task_card, labelled))
    assert [clip.label for clip in corpus.split("train").clips()] == labels
    np.testing.assert_array_equal(corpus.split("train").labels(), expected)


def test_half_precision_comes_back_as_rounded(tmp_path, card, clips):
    path = write_corpus(tmp_path / "half.arrow", card, clips, dtype="float16")
    for original, restored in zip(clips, corpus_clips(open_corpus(path)), strict=True):
        for modality, steps in original.features.items():
            expected = steps.astype(np.float16)
            np.testing.assert_array_equal(restored.features[modality], expected, strict=True)


def test_unknown_precision_is_refused(tmp_path, card, clips):
    with pytest.raises(DatasetError) as caught:
        write_corpus(tmp_path / "toy.arrow", card, clips, dtype="float64")
    assert str(caught.value) == 'dtype must be "float32" or "float16", got \'float64\''
    assert list(tmp_path.iterdir()) == []


def test_opening_and_reading_copies_nothing(tmp_path, card):
    large = [make_clip("train", 20000)]
    path = write_corpus(
        tmp_path / "l.arrow", card.model_copy(update={"counts": {"train": 1}}), large
    )
    before = pa.total_allocated_bytes()
    split = open_corpus(path).split("train")
    once, again = split.steps("text", 0), split.steps("text", 0)
    assert pa.total_allocated_bytes() == before
    assert np.shares_memory(once, again)
    assert not once.flags.owndata
    assert not once.flags.writeable


def test_more_clips_than_a_batch_holds(tmp_path, card, clips, same_clip, monkeypatch):
    # One clip per batch: every batch names another split and another set of clips.
    monkeypatch.setattr(store, "CLIPS_PER_BATCH", 1)
    corpus = open_corpus(write_corpus(tmp_path / "toy.arrow", card, clips))
    for original, restored in zip(clips, corpus_clips(corpus), strict=True):
        same_clip(original, restored)
    np.testing.assert_array_equal(corpus.split("train").lengths("text"), [4, 0])


@pytest.mark.parametrize(("start", "stop"), [(0, 4), (1, 3), (2, 4), (3, 3)])
def test_rows_between_two_are_those_of_the_whole(written, start, stop):
    everything = open_corpus(written).every_clip()
    part = everything.between(start, stop)
    assert (len(part), part.ids) == (stop - start, everything.ids[start:stop])
    for m in WIDTHS:
        np.testing.assert_array_equal(part.lengths(m), everything.lengths(m)[start:stop])
        for row in range(stop - start):
            mine, theirs = part.steps(m, row), everything.steps(m, start + row)
            np.testing.assert_array_equal(mine, theirs)
            assert not len(mine) or np.shares_memory(mine, theirs)


def test_test_split_is_sealed(written):
    with pytest.raises(SealedSplitError) as caught:
        open_corpus(written).split("test")
    assert str(caught.value) == (
        'the test split is sealed: training, selection and tuning use "train" and "valid".\n'
        "  To score a run on it: mmcl evaluate RUN"
    )
    assert open_corpus(written).open_test_split().ids == ["test-3"]


def test_development_and_prediction_see_only_what_they_may(written):
    corpus = open_corpus(written)
    assert len(corpus.development().open_test_split()) == 0
    hidden = list(corpus.every_clip().clips())
    assert len(hidden) == 4
    assert all(clip.label is None and clip.modality_labels is None for clip in hidden)


def test_clips_out_of_order_leave_nothing(tmp_path, card, clips):
    with pytest.raises(DatasetError) as caught:
        write_corpus(tmp_path / "toy.arrow", card, clips[::-1])
    assert str(caught.value) == 'clip "valid-2": clips must come as train, valid, test'
    assert list(tmp_path.iterdir()) == []


def test_wrong_counts_leave_the_old_file(written, card, clips):
    before = written.read_bytes()
    with pytest.raises(DatasetError, match="the card says"):
        write_corpus(written, card, clips[:-1])
    assert written.read_bytes() == before
    assert list(written.parent.iterdir()) == [written]


@pytest.mark.parametrize("has_old_file", [False, True])
def test_full_disk_leaves_nothing(tmp_path, card, clips, monkeypatch, has_old_file):
    path = tmp_path / "toy.arrow"
    if has_old_file:
        path.write_bytes(b"old")
    fault = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(store.Path, "open", failing_open(fault))
    with pytest.raises(DiskError) as caught:
        write_corpus(path, card, clips)
    assert str(caught.value) == (
        f"{path}: the disk is full (No space left on device).\n"
        "  Nothing was left behind of this file; all others are kept.\n"
        "  Free some space, then give the same command again."
    )
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"old"] * has_old_file


def test_disk_found_full_at_the_last_moment_leaves_nothing(tmp_path, card, clips, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(DiskError, match="the disk is full"):
        write_corpus(tmp_path / "toy.arrow", card, clips)
    assert list(tmp_path.iterdir()) == []


LIMITED = """
import sys, resource
from mmcl.corpus.plant import PlantSettings, plant_card, plant_clips
from mmcl.corpus.store import write_corpus
from mmcl.errors import DiskError
settings = PlantSettings(train=64, valid=8, test=8)
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
try:
    write_corpus(sys.argv[1], plant_card(settings), plant_clips(settings))
except DiskError as fault:
    print(fault)
"""


def test_file_size_limit_of_the_system_leaves_nothing(tmp_path):
    path = tmp_path / "toy.arrow"
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == (
        f"{path}: the file is larger than is allowed here (File too large).\n"
        "  Nothing was left behind of this file; all others are kept.\n"
        "  Allow larger files (ulimit -f), or use another disk, then give the same command again.\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
def test_read_only_target(tmp_path, card, clips, monkeypatch, code):
    def refuse(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files.tempfile, "mkstemp", refuse)
    path = tmp_path / "toy.arrow"
    with pytest.raises(DatasetError) as caught:
        write_corpus(path, card, clips)
    assert str(caught.value) == (
        f"{path}: cannot be written ({os.strerror(code)}); nothing was left behind.\n"
        "  Give a file in a folder you may write to."
    )
    assert list(tmp_path.iterdir()) == []


def test_target_below_a_file(tmp_path, card, clips):
    (tmp_path / "file").write_bytes(b"x")
    path = tmp_path / "file" / "toy.arrow"
    with pytest.raises(DatasetError) as caught:
        write_corpus(path, card, clips)
    assert str(caught.value) == (
        f"{path}: cannot be written (File exists); nothing was left behind.\n"
        "  Give a file in a folder you may write to."
    )


def test_file_cut_short_is_no_corpus(written):
    assert is_corpus_file(written)
    written.write_bytes(written.read_bytes()[:-50])
    with pytest.raises(DatasetError, match=r"not a readable corpus file \(.*\)\.\n  Expected"):
        open_corpus(written)


def test_arrow_file_without_a_card(tmp_path):
    path = tmp_path / "other.arrow"
    table = pa.table({"a": [1]})
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(DatasetError) as caught:
        open_corpus(path)
    assert str(caught.value) == (
        f"{path}: an Arrow file without a corpus card, so not written by mmcl.\n"
        f"  Convert the file it came from again: mmcl corpus convert SRC {path}"
    )


def test_card_of_another_version(tmp_path):
    path = tmp_path / "other.arrow"
    table = pa.table({"a": [1]}).replace_schema_metadata({b"mmcl.card": b'{"name": "x", "z": 1}'})
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(DatasetError) as caught:
        open_corpus(path)
    assert str(caught.value) == (
        f"{path}: its card: 5 values do not fit mmcl {metadata.version('mmcl')}; "
        "it does not say which version wrote it.\n"
        "  aligned: missing\n"
        "  counts: missing\n"
        "  dims: missing\n"
        "  task: missing\n"
        "  z: not known here\n"
        f"  Convert the file it came from again: mmcl corpus convert SRC {path}"
    )


def test_corpus_names_the_version_that_wrote_it(tmp_path, card, clips, monkeypatch):
    path = tmp_path / "other.arrow"
    later = json.loads(card.model_dump_json()) | {"licence": "CC"}
    monkeypatch.setattr(store.metadata, "version", lambda _: "9.1")
    monkeypatch.setattr(type(card), "model_dump_json", lambda _: json.dumps(later))
    write_corpus(path, card, clips)
    monkeypatch.undo()
    with pytest.raises(DatasetError) as caught:
        open_corpus(path)
    assert str(caught.value) == (
        f"{path}: its card: 1 value does not fit mmcl {metadata.version('mmcl')}; "
        "mmcl 9.1 wrote it.\n"
        "  licence: not known here\n"
        '  Install the version that wrote it: pip install "mmcl==9.1"\n'
        f"  Or convert the file it came from again: mmcl corpus convert SRC {path}"
    )


def test_missing_corpus_file(tmp_path):
    path = tmp_path / "none.arrow"
    with pytest.raises(DatasetError) as caught:
        open_corpus(path)
    assert str(caught.value) == f"{path}: no such file.\n  Make one: mmcl corpus plant {path}"


def test_pickled_corpus_keeps_its_new_name_and_all_its_clips(tmp_path):
    planted = plant_corpus(PlantSettings(train=4, valid=2, test=3))
    path = write_corpus(tmp_path / "x.arrow", planted.card, corpus_clips(planted))
    corpus = open_corpus(path)
    corpus.card = corpus.card.model_copy(update={"name": "other"})
    again = pickle.loads(pickle.dumps(corpus))
    assert again.card == corpus.card
    assert len(again.every_clip()) == 9
    assert len(pickle.loads(pickle.dumps(corpus.development())).every_clip()) == 6
