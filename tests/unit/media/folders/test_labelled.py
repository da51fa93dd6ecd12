"""Rows of a labelled folder: what they become, every fault of theirs, and what is not used."""

import pytest

from mmcl.corpus.schema import Task
from mmcl.errors import MediaError
from mmcl.media.folders.items import Failure
from mmcl.media.folders.labelled import read_labels, split_of

SCORES = Task(kind="regression", low=-3, high=3)
HEADER = "video_id,clip_id,text,label"


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
    assert found.failures == [
        Failure("v1/2", 'label.csv, row 3: no file "Raw/v1/2.mp4", nor one with another ending'),
        Failure("v1/1", "label.csv, row 4: the same video_id and clip_id are in row 2"),
        Failure(
            "v1/3",
            'label.csv, row 5: mode is "trian", expected train, valid or test; '
            'did you mean "train"?; label is "happy", not a number; label_A is "x", not a number',
        ),
        Failure(
            "v1/4",
            "label.csv, row 6: label is 3.5, outside -3..3 "
            "(for another range: --label-range LOW HIGH)",
        ),
        Failure(
            "v1/5",
            'label.csv, row 7: label is "nan"; where it is not known, leave the cell empty',
        ),
        Failure("v1/", "label.csv, row 8: clip_id is empty"),
    ]


def test_range_can_be_given(make_folder):
    folder = make_folder("video_id,clip_id,text,label\nv,1,a,3.5\n", ["v/1"])
    found = read_labels(folder, label_range=(0, 5))
    assert found.items[0].label == 3.5
    assert found.task == Task(kind="regression", low=0, high=5)


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


def test_modes_of_the_field_in_any_case(make_folder):
    modes = ["train", "Training", "VALID", "val", "dev", "Validation", "test", "testing"]
    rows = "".join(f"v,{n},a,0,{mode}\n" for n, mode in enumerate([*modes, "vaild", ""]))
    found = read_labels(make_folder(f"{HEADER},mode\n{rows}", [f"v/{n}" for n in range(10)]))
    assert [item.split for item in found.items] == [*["train"] * 2, *["valid"] * 4, *["test"] * 2]
    assert [failure.cause for failure in found.failures] == [
        'label.csv, row 10: mode is "vaild", expected train, valid or test; did you mean "valid"?',
        "label.csv, row 11: mode is empty, expected train, valid or test",
    ]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_decimal_commas_of_every_column_of_scores(make_folder, separator):
    cells = [["v", "1", "a", "1,5", "-0,25"], ["v", "2", "a", "-1", "0"]]
    quoted = [[f'"{cell}"' if "," in cell else cell for cell in row] for row in cells]
    rows = [f"{HEADER},label_T".split(","), *(quoted if separator == "," else cells)]
    text = "\n".join(separator.join(row) for row in rows)
    found = read_labels(make_folder(text, ["v/1", "v/2"]))
    assert [item.label for item in found.items] == [1.5, -1.0]
    assert [item.modality_labels for item in found.items] == [{"text": -0.25}, {"text": 0.0}]
    assert found.notes[:2] == (
        'column "label" has decimal commas: "1,5" is read as 1.5',
        'column "label_T" has decimal commas: "-0,25" is read as -0.25',
    )


def test_commas_in_names_of_classes_are_theirs(make_folder):
    folder = make_folder(f'{HEADER}\nv,1,a,"1,5"\nv,2,a,2.5\n', ["v/1", "v/2"])
    assert read_labels(folder, kind="classes").task.names == ("1,5", "2.5")


@pytest.mark.parametrize("kind", ["regression", "classes"])
def test_marks_of_unknown_labels_are_faults_of_their_rows(make_folder, kind):
    labels = ["1", "2", "N/A", "#NAME?"]
    rows = "".join(f"v,{n},a,{label}\n" for n, label in enumerate(labels))
    found = read_labels(make_folder(f"{HEADER}\n{rows}", [f"v/{n}" for n in range(4)]), kind=kind)
    assert len(found.items) == 2
    assert [failure.cause for failure in found.failures] == [
        f'label.csv, row {row}: label is "{label}"; where it is not known, leave the cell empty'
        for row, label in ((4, "N/A"), (5, "#NAME?"))
    ]


def test_advice_for_a_label_outside_the_range_is_as_its_fellows_are(make_folder):
    files = ["v/1", "v/2", "v/3"]
    whole = make_folder(
        f"{HEADER},mode\n" + "".join(f"v,{n},a,{2 * n - 1},train\n" for n in (1, 2, 3)), files
    )
    (failure,) = read_labels(whole).failures
    assert failure.cause == (
        "label.csv, row 4: label is 5, outside -3..3 "
        "(for another range: --label-range LOW HIGH; for classes: --task classes)"
    )
    (failure,) = read_labels(whole, kind="regression").failures
    assert failure.cause.endswith("(for another range: --label-range LOW HIGH)")


def test_date_that_a_spreadsheet_made_of_a_score(make_folder):
    folder = make_folder(f"{HEADER},mode\nv,1,a,1.5,train\nv,2,a,01. Mai,train\n", ["v/1", "v/2"])
    (failure,) = read_labels(folder).failures
    assert failure.cause == (
        'label.csv, row 3: label is "01. Mai", not a number '
        "(a spreadsheet may have made a date of it)"
    )


def test_rows_of_a_wrong_width_fail_and_their_files_count_as_named(make_folder):
    folder = make_folder(
        f"{HEADER},mode\nv,1,well, yes,1.5,train\nv,2,so,1,train\n", ["v/1", "v/2"]
    )
    found = read_labels(folder)
    assert [item.name for item in found.items] == ["v/2"]
    assert found.failures == [
        Failure(
            "v/1",
            "label.csv, row 2: 6 cells where the header has 5 columns (a comma inside a text? Put "
            'such a text in quotes): "v,1,well, yes,1.5,train"',
        )
    ]
    assert found.left_out == ()


# ---------------------------------------------------------------- what is there, and not used


def phrases(found):
    return [part.phrase() for part in found.left_out]


def test_account_of_a_folder_of_which_all_is_used(make_folder):
    folder = make_folder(
        f"{HEADER},mode\nv,1,a,1.5,train\nv,2,,-1,test\n", ["v/1", "v/2.wav", "v/2.srt"]
    )
    found = read_labels(folder)
    assert found.source == ("2 rows of label.csv, columns video_id, clip_id, text, label, mode",)
    assert phrases(found) == []


def test_everything_that_is_not_used_is_named(make_folder):
    folder = make_folder(
        f"{HEADER},mood,annotation,mode\nv,1,so,1.5,x,y,train\n,,,,,,\nv,2,,-1,x,y,test\n",
        [
            *("v/1.mp4", "v/1.WAV", "v/1.srt", "v/2.mp4", "v/2.vtt", "v/2.srt"),
            *("v/9.mp4", "w/3.mp4", "w/4.mp4", "w/5.mp4", "v/.DS_Store", "v/notes.txt", "v/1.jpg"),
        ],
    )
    (folder / "talk.mov").touch()
    (folder / "errors.csv").touch()
    assert phrases(read_labels(folder)) == [
        "columns of label.csv that are not read: 2 (mood, annotation)",
        "rows of label.csv without any text: 1 (row 3)",
        "media files that no row of label.csv names: 5 (Raw/v/9.mp4, Raw/w/3.mp4, Raw/w/4.mp4 "
        "and 2 more, all in errors.csv)",
        "media files in whose place one with another ending is used: 1 (Raw/v/1.WAV)",
        "transcripts in whose place another text is used: 2 (Raw/v/1.srt, Raw/v/2.vtt)",
        "text files that are the transcript of no file that is used: 1 (Raw/v/notes.txt)",
        "files whose ending is of no video or sound: 1 (Raw/v/1.jpg)",
        "hidden files and folders: 1 (Raw/v/.DS_Store)",
    ]


def test_columns_of_near_names_are_asked_for(make_folder):
    folder = make_folder(f"{HEADER},modus,label_AA\nv,1,so,1.5,x,1\n", ["v/1"])
    assert phrases(read_labels(folder)) == [
        'columns of label.csv that are not read: 2 (modus; did you mean "mode"?, '
        'label_AA; did you mean "label_A"?)'
    ]


def test_scores_of_modalities_are_not_read_for_classes(make_folder):
    folder = make_folder(f"{HEADER},label_T\nv,1,so,a,1\nv,2,so,b,1\n", ["v/1", "v/2"])
    assert phrases(read_labels(folder, kind="classes")) == [
        "columns of label.csv that are not read: 1 (label_T)"
    ]


def test_folder_without_raw(make_folder):
    folder = make_folder(f"{HEADER}\nv,1,a,1\n")
    (folder / "Raw").rename(folder / "raw")
    with pytest.raises(MediaError) as caught:
        read_labels(folder)
    assert str(caught.value) == (
        f'"{folder}" has a label.csv, but no folder "Raw"; did you mean "raw"?\n'
        "  Found the folders: raw.\n"
        "  Expected the files as Raw/VIDEO_ID/CLIP_ID.mp4."
    )


def test_folder_without_any_files(make_folder):
    folder = make_folder(f"{HEADER}\nv,1,a,1\n")
    (folder / "Raw").rmdir()
    with pytest.raises(MediaError, match=r'has a label.csv, but no folder "Raw"\.\n  Found the'):
        read_labels(folder)


def test_mixed_decimal_signs_name_their_rows(make_folder):
    folder = make_folder(f'{HEADER}\nv,1,a,"1,5"\nv,2,a,0.5\n', ["v/1", "v/2"])
    with pytest.raises(MediaError, match=r'"1,5" \(row 2\) and "0.5" \(row 3\)'):
        read_labels(folder)


def test_speakers_are_read(make_folder):
    rows = f"{HEADER},Speaker\nv,1,so,1,Anna\nv,2,so,1,\n"
    found = read_labels(make_folder(rows, ["v/1", "v/2"]))
    assert [item.speaker for item in found.items] == ["Anna", None]
    assert found.left_out == ()


@pytest.mark.parametrize(
    ("rows", "note"),
    [
        ("a/train a/train b/test", None),
        ("a/train b/train a/test b/valid", "2 videos have clips in several splits (a, b)"),
        ("a/train b/test b/valid", "1 video has clips in several splits (b)"),
        (
            "a/train a/test b/train b/test c/train c/test d/train d/test",
            "4 videos have clips in several splits (a, b, c and 1 more)",
        ),
    ],
)
def test_videos_in_several_splits_are_named(make_folder, rows, note):
    pairs = [row.split("/") for row in rows.split()]
    lines = [f"{video},{n},so,-2,{split}" for n, (video, split) in enumerate(pairs)]
    files = [f"{video}/{n}" for n, (video, _) in enumerate(pairs)]
    folder = make_folder("\n".join([f"{HEADER},mode", *lines]), files)
    easier = ": people who are known from training are easier to predict"
    assert read_labels(folder).notes == ((f"{note}{easier}",) if note else ())
