"""``mmcl extract`` as a user types it: what is printed where, the exit code, what is left."""

import os
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from fakes.extractors import FakeExtractor
from mmcl.cli.main import main
from mmcl.corpus.check import corpus_clips, faults
from mmcl.corpus.store import open_corpus
from mmcl.media import batch as home

ROOT = os.environ.get("MMCL_REAL_DATA")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capsys):
    def call(*words):
        code = main(["extract", *map(str, words)])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


@pytest.fixture
def fake(monkeypatch):
    """Extraction without media: a file's text is what is said in it."""
    monkeypatch.setattr(home, "with_versions", lambda recipe: recipe)
    real = home.extract_batch
    monkeypatch.setattr(home, "extract_batch", partial(real, make=FakeExtractor))


@pytest.fixture
def corpus_of(folder):
    """Write ``label.csv`` and the files of its rows; their text is what is said."""

    def make(*rows, said="heard it", columns="video_id,clip_id,text,label,mode"):
        (folder / "src").mkdir()
        (folder / "src" / "label.csv").write_text("\n".join([columns, *rows]))
        for row in rows:
            video, clip, *_ = row.split(",")
            path = folder / "src" / "Raw" / video / f"{clip}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(said)

    return make


def test_labelled_folder_becomes_a_corpus_that_describes(fake, corpus_of, run, capsys):
    corpus_of("a,1,yes no,1.5,train", "a,2,,-1,train", "b,1,so,0,valid", "c,1,so,2,test")
    assert run("src", "--out", "mine.arrow") == (
        0,
        "mine.arrow: mine, regression, 2/1/1 clips, text 2, audio 2\n",
        'note: "a/1" and 3 more: no face in any picture: vision is left out\n',
    )
    assert sorted(os.listdir()) == ["mine.arrow", "src"]
    assert faults(open_corpus("mine.arrow")) == []
    assert main(["corpus", "describe", "mine.arrow"]) == 0
    assert "clips: train 2, valid 1, test 1" in capsys.readouterr().out


def test_failures_are_named_and_the_rest_is_kept(fake, corpus_of, run, folder):
    rows = [f"v,{at},yes,1,train" for at in range(8)]
    corpus_of(*rows, "v,8,yes,much,train", "v,9,yes,1,train")
    (folder / "src/Raw/v/9.mp4").write_text("bad")
    code, out, err = run("src", "--out", "mine.arrow", "--name", "talks")
    assert (code, out) == (0, "mine.arrow: talks, regression, 8/0/0 clips, text 2, audio 2\n")
    first = 'label.csv, row 10: label is "much", not a number (for classes: --task classes)'
    assert err == (
        'note: "v/0" and 7 more: no face in any picture: vision is left out\n'
        "note: 2 of 10 items failed and are not in it\n"
        f"failed: v/8: {first}\n"
        'failed: v/9: "9.mp4" is bad.\n'
        "all 2 failures: errors.csv\n"
    )
    assert Path("errors.csv").read_text() == (
        "item,cause\n"
        f'v/8,"{first.replace(chr(34), chr(34) * 2)}"\n'
        'v/9,"""9.mp4"" is bad. Make it good."\n'
    )


def test_engine_is_the_one_that_was_asked_for(fake, corpus_of, run, monkeypatch):
    asked = []

    def run_tasks(work, tasks, **how):
        asked.append(how)
        for task in tasks:
            yield task, work(task, 1)

    monkeypatch.setattr(home, "run_tasks", run_tasks)
    corpus_of("a,1,yes no,1.5,train")
    code, out, _ = run("src", "--out", "mine.arrow", "--engine", "ray", "--workers", "3")
    assert (code, out) == (0, "mine.arrow: mine, regression, 1/0/0 clips, text 2, audio 2\n")
    assert asked == [{"workers": 3, "engine": "ray"}]


def test_too_many_failures_end_it(fake, corpus_of, run):
    corpus_of("v,1,yes,1,train", "v,2,yes,4,train", "v,3,yes,x,train")
    assert run("src", "--out", "mine.arrow") == (
        1,
        "",
        "MediaError: 2 of 3 items failed, more than 20%: no corpus was written.\n"
        "  v/2: label.csv, row 3: label is 4, outside -3..3 (for another range: --label-range "
        "LOW HIGH)\n"
        '  v/3: label.csv, row 4: label is "x", not a number (for classes: --task classes)\n'
        "  All of them: errors.csv\n"
        "  What is done is kept; the same command continues. To allow more: --max-failures 0.9\n",
    )
    assert not Path("mine.arrow").exists()


def test_classes_and_ranges(fake, corpus_of, run):
    corpus_of("v,1,yes,sad,train", "v,2,yes,happy,test")
    code, out, _ = run("src", "--out", "mine.arrow", "--task", "classes")
    assert (code, out) == (0, "mine.arrow: mine, classes, 1/0/1 clips, text 2, audio 2\n")
    assert open_corpus("mine.arrow").card.task.names == ("happy", "sad")


def test_range_and_recipe_are_kept(fake, corpus_of, run):
    corpus_of("v,1,yes,9,train")
    words = ["--label-range", 0, 10, "--alignment", "native", "--frame-rate", 5, "--language", "en"]
    assert run("src", "--out", "mine.arrow", *words)[0] == 0
    card = open_corpus("mine.arrow").card
    assert (card.task.low, card.task.high, card.aligned) == (0, 10, False)
    made = card.recipe["extraction"]
    assert (made["alignment"], made["frame_rate"], made["language"]) == ("native", 5.0, "en")


def test_timings(fake, corpus_of, run):
    corpus_of("v,1,yes,1,train", "v,2,yes,1,train")
    code, out, _ = run("src", "--out", "mine.arrow", "--timings", "--workers", 2)
    assert code == 0
    assert "seconds for 20.0 s of media" in out
    rows = [line.replace("│", " ").split() for line in out.splitlines()]
    for stage in home.STAGES:
        assert [stage, "0.50", "0.025"] in rows
    assert ["all", "3.00", "0.150"] in rows


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param(
            ["--frame-rate", "0"],
            "UsageError: --frame-rate: Input should be greater than 0, got 0.0\n",
            id="rate",
        ),
        pytest.param(
            ["--label-range", "3", "-3"],
            "UsageError: --label-range takes LOW HIGH, low below high, got 3 -3\n",
            id="range",
        ),
    ],
)
def test_wrong_usage(run, words, message):
    assert run("a.mp4", "--out", "mine.arrow", *words) == (2, "", message)


def test_missing_source(run):
    assert run("gone.mp4", "--out", "mine.arrow") == (
        1,
        "",
        'MediaError: "gone.mp4": no such file or folder.\n'
        "  Give a media file, a folder of them, or a folder with a label.csv.\n",
    )


# ---------------------------------------------------------------- real files, bad ones


def test_files_that_are_no_media_are_failures_with_their_reasons(run, folder):
    import av

    (folder / "src").mkdir()
    (folder / "src" / "empty.mp4").touch()
    (folder / "src" / "words.mp4").write_text("these are words\n" * 50)
    (folder / "src" / "cut.mp4").write_bytes(b"\0\0\0\x20ftypisom" + bytes(500))
    with av.open(str(folder / "src" / "still.png.mp4"), "w", format="image2") as container:
        stream = container.add_stream("png", rate=1)
        stream.width = stream.height = 32
        stream.pix_fmt = "rgb24"
        picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "rgb24")
        container.mux(stream.encode(picture))
    code, out, err = run("src", "--out", "mine.arrow")
    assert (code, out) == (1, "")
    assert err == (
        "MediaError: 4 of 4 items failed, more than 20%: no corpus was written.\n"
        '  cut.mp4: "cut.mp4" is cut short: it begins as an mp4, but its index (moov) is '
        "missing.\n"
        '  empty.mp4: "empty.mp4" is empty (0 bytes); expected a video or a sound.\n'
        '  still.png.mp4: "still.png.mp4" is a picture, not a video or a sound.\n'
        '  words.mp4: "words.mp4" is neither a video nor a sound, whatever its name says.\n'
        "  All of them: errors.csv\n"
        "  Mend at least one of them, and give the same command again.\n"
    )
    assert len(Path("errors.csv").read_text().splitlines()) == 5


# ---------------------------------------------------------------- real recordings


@pytest.fixture
def grid(folder):
    """Two recordings under names with spaces and accents, labelled, and one that is missing."""
    rows = ["video_id,clip_id,text,label,mode"]
    for video, name, text in (
        ("Größe und Ärger", "bbaf2n", "bin blue at f two now"),
        ("two", "lbbc2a", ""),
    ):
        target = folder / "src" / "Raw" / video / f"{name} clip.mpg"
        target.parent.mkdir(parents=True)
        shutil.copy(Path(ROOT or "") / "grid" / f"{name}.mpg", target)
        rows.append(f"{video},{name} clip,{text},1,{'test' if text else 'train'}")
    rows.append("two,gone,yes,1,train")
    (folder / "src" / "label.csv").write_text("\n".join(rows), encoding="utf-8")


@pytest.mark.real
@pytest.mark.skipif(not ROOT, reason="MMCL_REAL_DATA is not set: no recordings at hand")
@pytest.mark.timeout(300)
def test_real_recordings_become_a_corpus(grid, run):
    code, out, err = run("src", "--out", "grid.arrow", "--max-failures", 0.5, "--timings")
    assert code == 0, err
    corpus = open_corpus("grid.arrow")
    assert faults(corpus) == []
    card = corpus.card
    assert (card.counts, card.aligned, card.missing_as_zero) == (
        {"train": 1, "test": 1},
        True,
        True,
    )
    assert list(card.dims) == ["text", "audio", "vision"]
    assert {m: len(names) for m, names in card.columns.items()} == dict(card.dims)
    heard, given = corpus_clips(corpus)
    assert given.text == "bin blue at f two now"
    for clip in (heard, given):
        assert len({len(steps) for steps in clip.features.values()} | {len(clip.words)}) == 1
        assert all(0 <= w.start <= w.end <= 3.1 for w in clip.words)
        assert clip.features["vision"].any(axis=1).mean() > 0.5
    assert "two/gone" in err
    assert "per second of media" in out
