"""Items found in files and folders, each once, and tables of labels in the wrong place."""

import os
import sys
from pathlib import Path

import pytest

from mmcl.errors import MediaError
from mmcl.media.folders.gather import gather


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere every name is UTF-8")
def test_name_that_is_no_utf8_becomes_legible(tmp_path):
    path = Path(os.fsdecode(bytes(tmp_path / "caf") + b"\xe9.wav"))
    path.touch()
    (item,) = gather([tmp_path]).items
    assert (item.path, item.name, item.video_id) == (path, r"caf\udce9.wav", r"caf\udce9")


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


def phrases(found):
    return [part.phrase() for part in found.left_out]


def test_what_is_not_media_is_named_for_each_folder(tmp_path):
    for name in (
        "a/x.mp4",
        "a/x.srt",
        "a/x.json",
        "a/.y.mp4",
        "a/.git/z.mp4",
        "b/u.MP3",
        "b/p.png",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = gather([tmp_path / "a", tmp_path / "b"])
    assert [item.name for item in found.items] == ["x.mp4", "u.MP3"]
    assert found.source == (
        '1 media file in "a"',
        '1 media file in "b"',
    )
    assert phrases(found) == [
        "transcripts in whose place another text is used: 1 (x.json)",
        "hidden files and folders: 2 (.git, .y.mp4)",
        "files whose ending is of no video or sound: 1 (p.png)",
    ]


@pytest.mark.parametrize("source", [".", "x.mp4"])
@pytest.mark.parametrize(
    ("language", "unused"),
    [(None, "2 (x.de.vtt, x.en.vtt)"), ("en", "1 (x.de.vtt)"), ("fr", "2 (x.de.vtt, x.en.vtt)")],
)
def test_transcripts_of_other_languages_are_named(tmp_path, source, language, unused):
    for name in ("x.mp4", "x.en.vtt", "x.de.vtt"):
        (tmp_path / name).touch()
    assert phrases(gather([tmp_path / source], language=language)) == [
        f"transcripts of a language that is not used (choose by --language): {unused}"
    ]


def test_other_transcripts_beside_a_file_are_named(tmp_path):
    for name in ("x.mp4", "x.srt", "x.json", "y.srt", "x.wav"):
        (tmp_path / name).touch()
    assert phrases(gather([tmp_path / "x.mp4"])) == [
        "transcripts in whose place another text is used: 1 (x.json)"
    ]


def test_a_file_is_taken_once_under_whatever_name(make_folder):
    folder = make_folder("video_id,clip_id,text,label\nv,1,a,1\n", ["v/1"])
    (folder.parent / "more").mkdir()
    (folder.parent / "more/link.mp4").symlink_to(folder / "Raw/v/1.mp4")
    (folder.parent / "more/v.mp4").touch()
    found = gather([folder, folder.parent / "more", folder.parent / "more/../more/v.mp4"])
    # The recording of a row is v, too, so the other file of that name gets a longer one.
    assert [item.video_id for item in found.items] == ["v", f"{folder.parent}/more/v.mp4"]
    assert phrases(found) == [
        f"files that are there a second time: 2 ({folder.parent}/more/link.mp4, "
        f"{folder.parent}/more/../more/v.mp4)"
    ]


def test_linked_folders_are_searched_and_circles_end(tmp_path):
    for name in ("src/x.mp4", "far/y.mp4"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    (tmp_path / "src/far").symlink_to(tmp_path / "far")
    (tmp_path / "far/back").symlink_to(tmp_path / "src")
    assert [item.name for item in gather([tmp_path / "src"]).items] == ["y.mp4", "x.mp4"]


def test_folder_named_like_a_file_is_searched(tmp_path):
    (tmp_path / "take.mp4").mkdir()
    (tmp_path / "take.mp4/x.wav").touch()
    assert [item.name for item in gather([tmp_path]).items] == ["x.wav"]


def refusal(source):
    with pytest.raises(MediaError) as caught:
        gather([source])
    return str(caught.value)


def test_labels_in_a_folder_below_are_not_passed_over(make_folder, tmp_path):
    make_folder("video_id,clip_id,text,label\nv,1,a,1\n", ["v/1"], name="all/one")
    source = tmp_path / "all"
    assert refusal(source) == (
        f'"{source}" has no label.csv, but its folder "one" has one.\n'
        f'  With its labels: mmcl extract "{source}/one". Without them: give the folder '
        f'"{source}/one/Raw".'
    )


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("labels.csv", "rename"),
        ("Label.CSV", "rename"),
        ("label.tsv", "rename"),
        ("label.xlsx", "save"),
    ],
)
def test_labels_under_a_near_name_are_not_passed_over(make_folder, name, how):
    folder = make_folder("", ["v/1"])
    (folder / "label.csv").rename(folder / name)
    assert refusal(folder) == (
        f'"{folder}" has no label.csv, but "{name}".\n'
        f"  If that holds the labels, {how} it as label.csv. If it does not, give it another name."
    )


def test_transcript_of_a_file_that_is_called_label(tmp_path):
    for name in ("labels.mp4", "labels.csv"):
        (tmp_path / name).touch()
    assert [item.name for item in gather([tmp_path]).items] == ["labels.mp4"]


def test_table_given_in_place_of_its_folder(make_folder):
    folder = make_folder("", ["v/1"])
    assert refusal(folder / "label.csv") == (
        f'"{folder}/label.csv" is a table, not a media file.\n'
        f'  Give the folder that holds it and Raw: mmcl extract "{folder}"'
    )
