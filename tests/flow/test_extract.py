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
from mmcl.media.stages import STAGES

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


COLUMNS = "columns video_id, clip_id, text, label, mode"


def account(rows, clips, *left_out):
    """What is printed at the end for a folder of ``rows`` of which ``clips`` became clips."""
    became = f"{clips} file{'s' * (clips != 1)} became {clips} clip{'s' * (clips != 1)}"
    parts = "".join(f"left out: {part}\n" for part in left_out or ("nothing",))
    rows_there = f"{rows} row{'s' * (rows != 1)} of label.csv, {COLUMNS}"
    return f"in the source: {rows_there}; {became}\n{parts}"


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
        "mine.arrow: mine, regression, 2/1/1 clips, text 2, audio 2\n" + account(4, 4),
        'note: "a/1" and 3 more: no face in any picture: vision is left out\n',
    )
    assert sorted(os.listdir()) == ["mine.arrow", "src"]
    assert faults(open_corpus("mine.arrow")) == []
    assert main(["corpus", "describe", "mine.arrow"]) == 0
    assert "clips: train 2, valid 1, test 1" in capsys.readouterr().out


def test_failures_are_named_and_the_rest_is_kept(fake, corpus_of, run, folder):
    rows = [f"v,{at},yes,1,train" for at in range(18)]
    corpus_of(*rows, "v,18,yes,much,train", "v,19,yes,1,train")
    (folder / "src/Raw/v/19.mp4").write_text("bad")
    code, out, err = run("src", "--out", "mine.arrow", "--name", "talks")
    assert (code, out) == (
        0,
        "mine.arrow: talks, regression, 18/0/0 clips, text 2, audio 2\n"
        + account(20, 18, "items that failed: 2 (v/18, v/19)"),
    )
    first = 'label.csv, row 20: label is "much", not a number'
    assert err == (
        'note: "v/0" and 17 more: no face in any picture: vision is left out\n'
        "note: 2 of 20 items failed and are not in it\n"
        f"failed: v/18: {first}\n"
        'failed: v/19: "19.mp4" is bad.\n'
        "all 2 failures: errors.csv\n"
    )
    assert Path("errors.csv").read_text() == (
        "item,cause\n"
        f'v/18,"{first.replace(chr(34), chr(34) * 2)}"\n'
        'v/19,"""19.mp4"" is bad. Make it good."\n'
    )


def test_single_failure_is_named(fake, corpus_of, run):
    corpus_of(*(f"v,{at},yes,1,train" for at in range(10)), "v,10,yes,much,train")
    code, _, err = run("src", "--out", "mine.arrow")
    assert code == 0
    assert err.splitlines()[-2:] == [
        'failed: v/10: label.csv, row 12: label is "much", not a number',
        "the failure in full: errors.csv",
    ]


def test_engine_is_the_one_that_was_asked_for(fake, corpus_of, run, monkeypatch):
    asked = []

    def run_tasks(work, tasks, **how):
        asked.append(how)
        for task in tasks:
            yield task, work(task, 1)

    monkeypatch.setattr(home, "run_tasks", run_tasks)
    corpus_of("a,1,yes no,1.5,train")
    code, out, _ = run("src", "--out", "mine.arrow", "--engine", "ray", "--workers", "3")
    printed = "mine.arrow: mine, regression, 1/0/0 clips, text 2, audio 2\n"
    assert (code, out) == (0, printed + account(1, 1))
    assert asked == [{"workers": 3, "engine": "ray"}]


def test_too_many_failures_end_it(fake, corpus_of, run):
    corpus_of("v,1,yes,1,train", "v,2,yes,4,train", "v,3,yes,x,train")
    assert run("src", "--out", "mine.arrow") == (
        1,
        "",
        "MediaError: 2 of 3 items failed, more than 10%: no corpus was written.\n"
        "  v/2: label.csv, row 3: label is 4, outside -3..3 (for another range: --label-range "
        "LOW HIGH; for classes: --task classes)\n"
        '  v/3: label.csv, row 4: label is "x", not a number\n'
        "  All of them: errors.csv\n"
        "  What is done is kept; the same command continues. To allow more: --max-failures 0.9\n",
    )
    assert not Path("mine.arrow").exists()


def test_classes_and_ranges(fake, corpus_of, run):
    corpus_of("v,1,yes,sad,train", "v,2,yes,happy,test")
    code, out, _ = run("src", "--out", "mine.arrow", "--task", "classes")
    printed = "mine.arrow: mine, classes, 1/0/1 clips, text 2, audio 2\n"
    assert (code, out) == (0, printed + account(2, 2))
    assert open_corpus("mine.arrow").card.task.names == ("happy", "sad")


def test_range_and_recipe_are_kept(fake, corpus_of, run):
    corpus_of("v,1,yes,9,train")
    words = ["--label-range", 0, 10, "--alignment", "native", "--frame-rate", 5, "--language", "en"]
    assert run("src", "--out", "mine.arrow", *words)[0] == 0
    card = open_corpus("mine.arrow").card
    assert (card.task.low, card.task.high, card.aligned) == (0, 10, False)
    made = card.recipe["extraction"]
    assert (made["alignment"], made["frame_rate"], made["language"]) == ("native", 5.0, "en")
    assert made["text_model"] == "starter"


@pytest.mark.parametrize(
    "words", [["--language", "en", "--text-model", "packaged"], ["--language", "es"], []]
)
def test_text_model_that_is_packaged(fake, corpus_of, run, words):
    corpus_of("v,1,yes,1,train")
    assert run("src", "--out", "mine.arrow", *words)[0] == 0
    assert open_corpus("mine.arrow").card.recipe["extraction"]["text_model"] is None


def test_timings(fake, corpus_of, run):
    corpus_of("v,1,yes,1,train", "v,2,yes,1,train")
    code, out, _ = run("src", "--out", "mine.arrow", "--timings", "--workers", 2)
    assert code == 0
    assert "seconds for 20.0 s of media" in out
    rows = [line.replace("│", " ").split() for line in out.splitlines()]
    for stage in STAGES:
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
        pytest.param(
            ["--label-range", "0", "5", "--task", "classes"],
            "UsageError: --label-range is the range of scores; --task classes has none\n",
            id="range-of-classes",
        ),
    ],
)
def test_wrong_usage(run, words, message):
    assert run("a.mp4", "--out", "mine.arrow", *words) == (2, "", message)


def test_what_was_not_used_is_printed_and_long_lists_are_in_errors(fake, corpus_of, run, folder):
    corpus_of(
        "a,1,yes no,1.5,train,x", "a,2,,-2,train,x", columns=f"{COLUMNS[8:]},mood".replace(" ", "")
    )
    for name in ("Raw/a/3.mp4", "Raw/a/4.mp4", "Raw/a/5.wav", "Raw/b/6.mp4", "Raw/a/1.jpg"):
        (folder / "src" / name).parent.mkdir(exist_ok=True)
        (folder / "src" / name).touch()
    (folder / "more").mkdir()
    (folder / "more/talk.mp4").write_text("so it is")
    code, out, err = run("src", "more", "--out", "mine.arrow")
    assert code == 0, err
    unnamed = "media files that no row of label.csv names"
    assert out.splitlines()[1:] == [
        f'in the source: 2 rows of label.csv, {COLUMNS}, mood; 1 media file in "more"; '
        "3 files became 3 clips",
        "left out: columns of label.csv that are not read: 1 (mood)",
        f"left out: {unnamed}: 4 (Raw/a/3.mp4, Raw/a/4.mp4, Raw/a/5.wav and 1 more, all in "
        "errors.csv)",
        "left out: files whose ending is of no video or sound: 1 (Raw/a/1.jpg)",
        "left out: 8.5 of 10.0 s of the files that were cut lie outside their utterances: "
        "no words were found there",
    ]
    assert Path("errors.csv").read_text().splitlines() == [
        "item,cause",
        *(
            f"{name},left out: {unnamed}"
            for name in ("Raw/a/3.mp4", "Raw/a/4.mp4", "Raw/a/5.wav", "Raw/b/6.mp4")
        ),
    ]
    assert main(["corpus", "check", "mine.arrow"]) == 0


@pytest.mark.parametrize("labels", [("happy", "sad"), ("positive", "negative")])
def test_words_are_no_scores(fake, corpus_of, run, labels):
    corpus_of(f"v,1,yes,{labels[0]},train", f"v,2,yes,{labels[1]},test")
    assert run("src", "--out", "mine.arrow") == (
        1,
        "",
        f'MediaError: "label.csv": column "label" holds no scores, but "{labels[0]}" (1), '
        f'"{labels[1]}" (1).\n'
        "  For classes: --task classes. For scores, write them as 1.5.\n",
    )


def test_guess_of_a_range_is_noted_until_an_option_settles_it(fake, corpus_of, run):
    corpus_of("v,1,yes,0,train", "v,2,yes,1,test", "v,3,yes,2,test")
    note = "note: the labels are whole numbers from 0 to 2, and are read as scores in -3..3; "
    assert note in run("src", "--out", "mine.arrow")[2]
    for words in (["--label-range", 0, 4], ["--task", "classes"]):
        assert note not in run("src", "--out", "mine.arrow", *words)[2]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_table_of_a_european_spreadsheet(fake, corpus_of, run, folder, encoding):
    corpus_of("v,1,yes,0,train", "v,2,yes,0,test")
    text = "video_id;clip_id;text;label;mode\r\nv;1;schön, so;1,5;train\r\nv;2;ja;-0,6;test\r\n"
    (folder / "src/label.csv").write_bytes(text.encode(encoding))
    code, _, err = run("src", "--out", "mine.arrow")
    assert (code, err.splitlines()[0]) == (
        0,
        'note: column "label" has decimal commas: "1,5" is read as 1.5',
    )
    clips = list(corpus_clips(open_corpus("mine.arrow")))
    assert [(clip.text, clip.label) for clip in clips] == [("schön, so", 1.5), ("ja", -0.6)]


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
        "MediaError: 4 of 4 items failed, more than 10%: no corpus was written.\n"
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


def test_recording_and_other_files_are_kept(fake, run, folder):
    for name in ("talk.mp4", "table.csv", "kept.arrow", "errors.csv"):
        (folder / name).write_text("mine")
    for name in ("talk.mp4", "table.csv"):
        better = Path(name).with_suffix(".arrow")
        assert run("talk.mp4", "--out", name) == (
            2,
            "",
            f"UsageError: {name}: a corpus is an Arrow file, so its name must end in .arrow.\n"
            f"  Give it such a name: {better}\n",
        )
    assert run("talk.mp4", "--out", "kept.arrow") == (
        2,
        "",
        "UsageError: kept.arrow: the file exists and is no corpus; it would be replaced.\n"
        "  Expected a new name, or a corpus to replace.\n",
    )
    assert run("talk.mp4", "--out", "new.arrow") == (
        2,
        "",
        "UsageError: errors.csv: mmcl did not make this file, and the list of failures would "
        "replace it.\n  Give a corpus in another folder: --out CORPUS\n",
    )
    assert {path.read_text() for path in folder.iterdir()} == {"mine"}
    assert len(list(folder.iterdir())) == 4
