"""The file of a row, and the near one that is offered where a spreadsheet changed the id."""

from unicodedata import normalize

import pytest

from mmcl.media.folders import raw_files as home
from mmcl.media.folders.raw_files import RawFiles


@pytest.fixture
def find(make_folder):
    """Look for a clip among files: ``find("v", "1", ["v/1.wav"])`` gives a name and a fault."""

    def look(video_id, clip_id, files, named=()):
        folder = make_folder("", files)
        found = RawFiles(folder, named).find(video_id, clip_id)
        return found.path.relative_to(folder / "Raw").as_posix(), found.fault

    return look


@pytest.mark.parametrize(
    ("files", "path"),
    [
        (["v/1.wav", "v/1.MKV", "v/1.srt"], "v/1.MKV"),
        (["v/1.MP4", "v/1.mp4", "v/1.wav"], "v/1.mp4"),
        (["v/1.OGG", "v/01.mp4"], "v/1.OGG"),
    ],
)
def test_the_preferred_ending_is_found(find, files, path):
    assert find("v", "1", files) == (path, None)


def test_accents_in_either_form(find):
    decomposed = normalize("NFD", "Größe")
    assert find("Größe", "é", [f"{decomposed}/{normalize('NFD', 'é')}.wav"])[1] is None


TEXT = "a spreadsheet changes such ids: write the id as text"
ZEROS = "Excel drops leading zeros: write the id as text"


@pytest.mark.parametrize(
    ("written", "file", "reason"),
    [
        ("1", "0001.ogg", ZEROS),
        ("0012", "12.mp4", ZEROS),
        ("3.0", "3.wav", TEXT),
        ("3,0", "003.wav", TEXT),
        ("1E+05", "100000.mp4", TEXT),
        ("1.23457E+11", "123456789012.mp4", TEXT),
        ("1,5E+03", "1500.mp4", TEXT),
        ("02-Jan", "1-2.mp4", TEXT),
        ("02. Jan", "2_1.mp4", TEXT),
        ("Mar-04", "03-04.mp4", TEXT),
        ("2024-05-06", "5-6.mp4", TEXT),
        ("01.02.2003", "1-2-2003.mp4", TEXT),
        ("Talk", "talk.mp4", "upper and lower case differ"),
    ],
)
def test_ids_that_a_spreadsheet_changed(find, written, file, reason):
    expected = f'but "{file}" is there ({reason})'
    assert find("v", written, [f"v/{file}"])[1] == f'no file "Raw/v/{written}.mp4", {expected}'


@pytest.mark.parametrize(
    ("written", "folder", "reason"), [("7", "007", ZEROS), ("1E+05", "100000", TEXT)]
)
def test_folders_whose_id_a_spreadsheet_changed(find, written, folder, reason):
    assert find(written, "1", [f"{folder}/1"])[1] == (
        f'no folder "Raw/{written}", but "{folder}" is there ({reason})'
    )


def test_near_names(find):
    assert find("v", "morning-tlak", ["v/morning-talk.wav"])[1] == (
        'no file "Raw/v/morning-tlak.mp4", but "morning-talk.wav" is there; did you mean that?'
    )


@pytest.mark.parametrize(
    ("written", "files", "named"),
    [
        pytest.param("12", ["v/13", "v/21"], [], id="another-number"),
        pytest.param("100012", ["v/100013"], [], id="a-long-number"),
        pytest.param("clip_12", ["v/clip_13"], [("v", "clip_13")], id="named-by-another-row"),
        pytest.param("1E+05", ["v/160000"], [], id="another-large-number"),
        pytest.param("02-Jan", ["v/1-3", "v/12"], [], id="another-date"),
    ],
)
def test_other_clips_are_not_offered(find, written, files, named):
    assert find("v", written, files, named)[1] == (
        f'no file "Raw/v/{written}.mp4", nor one with another ending'
    )


def test_id_with_its_ending(find):
    assert find("v", "0001.mp4", ["v/0001.mp4"])[1] == (
        'no file "Raw/v/0001.mp4.mp4", but "0001.mp4" is there '
        "(write the clip_id without the ending)"
    )


def test_folder_that_is_not_there(find):
    assert find("x", "1", ["v/1"]) == ("x/1.mp4", 'no folder "Raw/x"')


@pytest.mark.parametrize("name", ["x_1.mp4", "x-1.wav", "diax_utt1.mp4"])
def test_file_in_raw_itself(find, name):
    assert find("x", "1", [name, "x_2.mp4"])[1] == (
        f'no folder "Raw/x", but "{name}" is there: move it to "Raw/x/1{name[-4:]}"'
    )


def test_other_file_in_raw_itself(find):
    assert find("x", "1", ["x_2.mp4", "x_1.srt"])[1] == 'no folder "Raw/x"'


def test_near_files_are_sought_only_for_so_many(make_folder, monkeypatch):
    monkeypatch.setattr(home, "MOST_SOUGHT", 1)
    files = RawFiles(make_folder("", ["v/01", "v/02"]))
    assert "Excel" in files.find("v", "1").fault
    assert files.find("v", "2").fault == 'no file "Raw/v/2.mp4", nor one with another ending'
