"""Items found in files and folders, and every fault of a ``label.csv``."""

import os
import sys
from pathlib import Path

import pytest

from mmcl.corpus.schema import Task
from mmcl.errors import MediaError
from mmcl.media.folder import Failure, gather, read_labels, split_of

SCORES = Task(kind="regression", low=-3, high=3)


@pytest.fixture
def make_folder(tmp_path):
    """Write a ``label.csv`` with an empty file for each ``video/clip`` named in ``files``."""

    def make(text, files=(), name="corpus"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "label.csv").write_text(text, encoding="utf-8")
        for file in files:
            path = folder / "Raw" / (file if "." in file else f"{file}.mp4")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return folder

    return make


def test_rows_become_items(make_folder):
    folder = make_folder(
        "\ufeffvideo_id,clip_id,text,label,label_T,label_A,label_V,annotation,mode\n"
        'v1,0001,"Well, yes",1.5,1,,-0.5,Positive,train\n'
        "v2,2,,,,,,,Dev\n"
        "Ünï cöde,3,so,-3,,,,,test\n",
        ["v1/0001", "v2/2.WAV", "Ünï cöde/3.webm"],
    )
    found = read_labels(folder)
    assert (found.failures, found.task, found.notes) == ([], SCORES, ())
    first, second, third = found.items
    assert first.path == folder / "Raw/v1/0001.mp4"
    assert (first.name, first.video_id, first.clip_id) == ("v1/0001", "v1", "0001")
    assert (first.split, first.label, first.text) == ("train", 1.5, "Well, yes")
    assert first.modality_labels == {"text": 1.0, "vision": -0.5}
    assert second.path == folder / "Raw/v2/2.WAV"
    assert (second.split, second.label, second.text) == ("valid", None, None)
    assert second.modality_labels is None
    assert third.path == folder / "Raw/Ünï cöde/3.webm"
    assert (third.split, third.label) == ("test", -3.0)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere every name is UTF-8")
def test_name_that_is_no_utf8_becomes_legible(tmp_path):
    path = Path(os.fsdecode(bytes(tmp_path / "caf") + b"\xe9.wav"))
    path.touch()
    (item,) = gather([tmp_path]).items
    assert (item.path, item.name, item.video_id) == (path, r"caf\udce9.wav", r"caf\udce9")


def test_file_of_another_kind_is_named(make_folder):
    folder = make_folder(
        "video_id,clip_id,text,label\nv,[1],yes,1\nv,2,yes,1\n",
        ["v/[1].srt", "v/[1].jpg", "v/2.txt", "v/2.1.jpg"],
    )
    assert [failure.cause for failure in read_labels(folder).failures] == [
        'label.csv, row 2: no file "Raw/v/[1].mp4", but "[1].jpg", whose ending is of no video '
        "or sound",
        'label.csv, row 3: no file "Raw/v/2.mp4", nor one with another ending',
    ]


def test_faulty_rows_fail_all_at_once_with_their_numbers(make_folder):
    folder = make_folder(
        "video_id,clip_id,text,label,label_A,mode\n"
        "v1,1,yes,1,,train\n"
        "v1,2,yes,1,,train\n"
        "v1,1,yes,1,,train\n"
        "v1,3,yes,happy,x,trian\n"
        "v1,4,yes,3.5,,test\n"
        "v1,5,yes,nan,,test\n"
        "v1,,yes,1,,test\n",
        ["v1/1", "v1/3", "v1/4", "v1/5"],
    )
    found = read_labels(folder)
    assert [item.name for item in found.items] == ["v1/1"]
    no_number = "not a number (for classes: --task classes)"
    assert found.failures == [
        Failure("v1/2", 'label.csv, row 3: no file "Raw/v1/2.mp4", nor one with another ending'),
        Failure("v1/1", "label.csv, row 4: the same video_id and clip_id are in row 2"),
        Failure(
            "v1/3",
            'label.csv, row 5: mode is "trian", expected train, valid or test; '
            f'did you mean "train"?; label is "happy", {no_number}; label_A is "x", {no_number}',
        ),
        Failure(
            "v1/4",
            "label.csv, row 6: label is 3.5, outside -3..3 "
            "(for another range: --label-range LOW HIGH)",
        ),
        Failure("v1/5", f'label.csv, row 7: label is "nan", {no_number}'),
        Failure("v1/", "label.csv, row 8: clip_id is empty"),
    ]


def test_range_can_be_given(make_folder):
    folder = make_folder("video_id,clip_id,text,label\nv,1,a,3.5\n", ["v/1"])
    found = read_labels(folder, label_range=(0, 5))
    assert found.items[0].label == 3.5
    assert found.task == Task(kind="regression", low=0, high=5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            "video_id,clipid,text,labels\nv,1,a,1\n",
            '"label.csv" lacks 2 columns.\n'
            '  clip_id: not there; did you mean "clipid"?\n'
            '  label: not there; did you mean "labels"?\n'
            "  Found: video_id, clipid, text, labels. Expected: video_id, clip_id, text, label; "
            "with them, if wanted: label_T, label_A, label_V, mode, annotation.",
            id="misspelt",
        ),
        pytest.param(
            "",
            '"label.csv" lacks 4 columns.\n'
            "  video_id: not there\n  clip_id: not there\n  text: not there\n"
            "  label: not there\n"
            "  Found: nothing. Expected: video_id, clip_id, text, label; "
            "with them, if wanted: label_T, label_A, label_V, mode, annotation.",
            id="empty",
        ),
        pytest.param(
            "video_id,clip_id,text,label\n",
            '"label.csv" has no rows.\n  Expected one per clip.',
            id="no-rows",
        ),
    ],
)
def test_missing_columns_and_rows(make_folder, text, message):
    with pytest.raises(MediaError) as caught:
        read_labels(make_folder(text))
    assert str(caught.value) == message


def test_other_encodings_are_refused(make_folder):
    folder = make_folder("")
    (folder / "label.csv").write_bytes("video_id,clip_id,text,label\nv,1,déjà,1\n".encode("cp1252"))
    with pytest.raises(MediaError) as caught:
        read_labels(folder)
    assert str(caught.value) == (
        "\"label.csv\" cannot be read as a table ('utf-8' codec can't decode byte 0xe9 in "
        "position 33: invalid continuation byte).\n"
        "  Expected commas between columns and the encoding UTF-8."
    )


def test_words_can_be_classes(make_folder):
    folder = make_folder(
        "video_id,clip_id,text,label,mode\nv,1,a,sad,train\nv,2,a,happy,train\nv,3,a,,train\n",
        ["v/1", "v/2", "v/3"],
    )
    found = read_labels(folder, kind="classes")
    assert found.task == Task(kind="classes", names=("happy", "sad"))
    assert [item.label for item in found.items] == [1, 0, None]


def test_numbers_can_be_classes_in_their_order(make_folder):
    rows = "".join(f"v,{label},a,{label}\n" for label in (10, 2, 1))
    folder = make_folder("video_id,clip_id,text,label\n" + rows, ["v/10", "v/2", "v/1"])
    found = read_labels(folder, kind="classes")
    assert found.task.names == ("1", "2", "10")
    assert [item.label for item in found.items] == [2, 1, 0]


@pytest.mark.parametrize("count", [1, 21])
def test_too_few_and_too_many_classes(make_folder, count):
    rows = "".join(f"v,{at},a,{at}\n" for at in range(count))
    folder = make_folder("video_id,clip_id,text,label\n" + rows)
    with pytest.raises(MediaError) as caught:
        read_labels(folder, kind="classes")
    assert str(caught.value) == (
        f'"label.csv": column "label" holds {count} different values; classes are 2 to 20.\n'
        "  For scores: --task regression"
    )


def test_without_mode_whole_videos_are_assigned(make_folder):
    files = [f"video{at}/{clip}" for at in range(40) for clip in range(2)]
    rows = "".join("{},{},a,0\n".format(*file.split("/")) for file in files)
    found = read_labels(make_folder("video_id,clip_id,text,label\n" + rows, files))
    homes = {item.video_id: set() for item in found.items}
    for item in found.items:
        homes[item.video_id].add(item.split)
    assert all(len(splits) == 1 for splits in homes.values())
    counts = [
        sum(item.split == name for item in found.items) for name in ("train", "valid", "test")
    ]
    assert found.notes == (
        'label.csv has no column "mode": whole videos went to train, valid and test '
        f"by a hash of video_id, {counts[0]}/{counts[1]}/{counts[2]} clips",
    )


def test_splits_by_hash_have_their_shares():
    splits = [split_of(f"video{number}") for number in range(40_000)]
    # Of 40,000 fair draws a share has a standard deviation of .0023 at most.
    for name, share in (("train", 0.70), ("valid", 0.15), ("test", 0.15)):
        assert splits.count(name) / 40_000 == pytest.approx(share, abs=0.01)


# ---------------------------------------------------------------- other sources


def test_files_and_folders_without_labels(tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("b/one.MP4", "b/two.wav", "b/notes.txt", "three.webm"):
        (tmp_path / name).touch()
    found = gather([tmp_path / "three.webm", tmp_path / "b", tmp_path / "three.webm"])
    assert [item.video_id for item in found.items] == ["three", "one", "two"]
    assert {(item.split, item.label, item.clip_id) for item in found.items} == {
        ("test", None, None)
    }
    assert found.notes == ("no label.csv: the clips have no labels and are all in the test split",)


def test_files_of_one_name_are_told_apart(tmp_path):
    for name in ("a/x.mp4", "b/x.mp4"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    ids = [item.video_id for item in gather([tmp_path]).items]
    assert ids == [(tmp_path / "a/x.mp4").as_posix(), (tmp_path / "b/x.mp4").as_posix()]


def test_a_labelled_folder_is_read_by_its_table(make_folder):
    folder = make_folder("video_id,clip_id,text,label\nv,1,a,1\n", ["v/1", "v/2"])
    assert [item.name for item in gather([folder]).items] == ["v/1"]


def test_two_labelled_folders_are_refused(make_folder):
    text = "video_id,clip_id,text,label\nv,1,a,1\n"
    with pytest.raises(MediaError) as caught:
        gather([make_folder(text, name="one"), make_folder(text, name="two")])
    assert str(caught.value) == (
        '"one" and "two" both have a label.csv; a corpus has one.\n'
        "  Extract them one by one, or join the two."
    )


def test_nothing_there(tmp_path):
    with pytest.raises(MediaError) as caught:
        gather([tmp_path / "gone.mp4"])
    assert str(caught.value) == (
        f'"{tmp_path}/gone.mp4": no such file or folder.\n'
        "  Give a media file, a folder of them, or a folder with a label.csv."
    )
    with pytest.raises(MediaError) as caught:
        gather([tmp_path])
    assert str(caught.value).startswith(
        f'"{tmp_path}": neither a label.csv nor a media file in this folder.\n'
        "  Looked for files that end in .mp4, .mkv,"
    )
