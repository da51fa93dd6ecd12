"""Batches: what fails, what is kept, what is not done twice, and the corpus they become."""

import csv
import os
import re
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fakes.extractors import FakeExtractor
from mmcl import pool, pool_ray
from mmcl.corpus.check import corpus_clips, faults
from mmcl.corpus.schema import Account, Task, Word
from mmcl.corpus.store import open_corpus
from mmcl.errors import DatasetError, DiskError, MediaError, MissingExtraError
from mmcl.media import batch as home
from mmcl.media import merge
from mmcl.media.batch import extract_batch
from mmcl.media.folders.gather import gather
from mmcl.media.folders.items import Failure
from mmcl.media.recipe import Recipe
from mmcl.media.stages import STAGES
from mmcl.pool import Died


@pytest.fixture(autouse=True)
def fixed_versions(monkeypatch):
    monkeypatch.setattr(home, "with_versions", lambda recipe: recipe)


@pytest.fixture
def write(tmp_path):
    """Write fake recordings and gather them: ``write(one="yes no", two="bad")``."""
    folder = tmp_path / "src"
    folder.mkdir()

    def make(**texts):
        for name, text in texts.items():
            (folder / f"{name}.mp4").write_text(text)
        return gather([folder])

    return make


@pytest.fixture
def out(tmp_path):
    return tmp_path / "made" / "talks.arrow"


@pytest.fixture
def extract(out):
    def run(gathered, recipe=None, **options):
        return extract_batch(gathered, out, recipe or Recipe(), make=FakeExtractor, **options)

    return run


def calls(tmp_path):
    return sorted((tmp_path / "src" / "calls.log").read_text().split())


def errors(out):
    with out.with_name("errors.csv").open(newline="") as file:
        return list(csv.reader(file))


def test_files_become_a_corpus(write, extract, out):
    outcome = extract(write(one="yes no\nwell then so", two="text"))
    corpus = open_corpus(out)
    assert sorted(os.listdir(out.parent)) == ["talks.arrow"]
    assert faults(corpus) == []
    card = corpus.card
    assert card == outcome.card
    assert (card.name, card.counts, card.dims) == ("talks", {"test": 3}, {"text": 2, "audio": 2})
    assert (card.aligned, card.missing_as_zero, card.language) == (True, True, "en")
    assert card.task == Task(kind="regression", low=-3, high=3)
    assert card.recipe == {
        "extraction": Recipe().model_dump(mode="json"),
        "spans": {"one/0": [0.0, 1.5], "one/1": [2.0, 3.5], "two/0": [0.0, 1.5]},
    }
    assert card.notes == (
        "no label.csv: the clips have no labels and are all in the test split",
        '"one.mp4" and 1 more: no face in any picture: vision is left out',
    )
    clips = list(corpus_clips(corpus))
    assert [clip.id for clip in clips] == ["one/0", "one/1", "two/0"]
    assert [clip.text for clip in clips] == ["yes no", "well then so", "text"]
    assert clips[0].words == (
        Word(text="yes", start=0.0, end=0.5),
        Word(text="no", start=0.5, end=1.0),
    )
    assert list(clips[2].features) == ["text"]
    np.testing.assert_array_equal(clips[0].features["audio"], [[-1, -2], [-3, -4]])
    assert card.account == Account(
        source=('2 media files in "src"', "2 files became 3 clips"),
        left_out=(
            "15.5 of 20.0 s of the files that were cut lie outside their utterances: "
            "no words were found there",
        ),
    )
    assert outcome.failures == []
    assert outcome.duration == 20.0
    assert outcome.timings == dict.fromkeys(STAGES, 0.5)


def test_notes_of_one_kind_are_one_line(write, extract, out):
    lines = {f"f{count}": "\n".join(["so"] * count) for count in (2, 3, 4, 5)}
    notes = extract(write(**lines)).card.notes
    assert notes[1:] == (
        '"f2.mp4": no face in any picture: vision is left out',
        '"f3.mp4": 3 lines (the like in 2 more files: see errors.csv)',
    )
    assert out.with_name("errors.csv").read_text().splitlines() == [
        "item,cause",
        "f3.mp4,note: 3 lines",
        "f4.mp4,note: 4 lines",
        "f5.mp4,note: 5 lines",
    ]


def test_notes_beyond_the_most_are_listed_beside_the_corpus(write, extract, out, monkeypatch):
    monkeypatch.setattr(merge, "MOST_NOTES", 1)
    notes = extract(write(f2="so\nso", f3="so\nso\nso")).card.notes
    assert notes[2:] == ("and 1 more kind of notes on files: see errors.csv",)
    assert out.with_name("errors.csv").read_text().splitlines()[1:] == ["f3.mp4,note: 3 lines"]


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("transcript: 1 sound was left out: [a]", "transcript: 2 sounds were left out: (b)", True),
        ("transcript: speaker names: Anna", "transcript: speaker names: Ben, Anna", True),
        ("it ends at 3.1 of 9.0 s: the rest is missing", "it ends at 2.0 of 8.1 s: the", True),
        ('1 of 2 utterances of "a.srt" begin', '2 of 9 utterances of "b.srt" begin', True),
        ("no sound: audio is left out", "no pictures: vision is left out", False),
        ("audio is missing in 1 of 2 utterances", "vision is missing in 1 of 2 utterances", False),
    ],
)
def test_kind_of_a_note(one, other, is_same):
    assert (merge._kind(one) == merge._kind(other)) is is_same


def test_labels_come_from_the_table(tmp_path, extract, out):
    folder = tmp_path / "src"
    rows = ["a,1,yes no,1.5,test,1,Anna", "a,2,so,-1,train,,", "b,1,,,valid,0.5,"]
    (folder / "Raw" / "a").mkdir(parents=True)
    (folder / "Raw" / "b").mkdir()
    table = "video_id,clip_id,text,label,mode,label_V,speaker\n" + "\n".join(rows)
    (folder / "label.csv").write_text(table)
    for name in ("a/1", "a/2", "b/1"):
        (folder / "Raw" / f"{name}.mp4").write_text("heard it")
    extract(gather([folder]))
    corpus = open_corpus(out)
    assert corpus.card.counts == {"train": 1, "valid": 1, "test": 1}
    assert "spans" not in corpus.card.recipe
    clips = list(corpus_clips(corpus))
    assert [clip.id for clip in clips] == ["a/2", "b/1", "a/1"]
    assert [clip.split for clip in clips] == ["train", "valid", "test"]
    assert [clip.label for clip in clips] == [-1.0, None, 1.5]
    assert [clip.modality_labels for clip in clips] == [None, {"vision": 0.5}, {"vision": 1.0}]
    assert [clip.text for clip in clips] == ["so", "heard it", "yes no"]
    assert [clip.speaker for clip in clips] == [None, None, "Anna"]
    assert [(clip.video_id, clip.clip_id) for clip in clips] == [("a", "2"), ("b", "1"), ("a", "1")]


# ---------------------------------------------------------------- what fails


def test_failures_are_listed_and_the_rest_goes_on(write, extract, out):
    good = {f"good{at}": "yes" for at in range(6)}
    outcome = extract(write(**good, x="bad", y="bug", z="die", zz="quit"), max_failures=0.5)
    assert open_corpus(out).card.counts == {"test": 6}
    assert errors(out) == [
        ["item", "cause"],
        ["x.mp4", '"x.mp4" is bad. Make it good.'],
        ["y.mp4", "RuntimeError: a library has a fault"],
        ["z.mp4", "its process died (signal SIGKILL; memory may have run out)"],
        ["zz.mp4", "its process died (exit code 3)"],
    ]
    assert [failure.item for failure in outcome.failures] == ["x.mp4", "y.mp4", "z.mp4", "zz.mp4"]
    assert outcome.card.notes[-1] == "4 of 10 items failed and are not in it"
    assert not out.with_name("talks.arrow.parts").exists()


def test_process_that_dies_is_replaced_beside_others(write, extract, out):
    good = {f"good{at}": "yes" for at in range(5)}
    outcome = extract(write(a="die", b="die", **good), workers=2, max_failures=0.9)
    assert sorted(failure.item for failure in outcome.failures) == ["a.mp4", "b.mp4"]
    assert [clip.video_id for clip in corpus_clips(open_corpus(out))] == sorted(good)


def test_batch_is_given_up_when_too_many_fail(tmp_path, write, extract, out):
    bad = {f"b{at}": "bad" for at in range(2)}
    good = {f"c{at}": "yes" for at in range(20)}
    with pytest.raises(MediaError) as caught:
        extract(write(**bad, **good))
    assert str(caught.value) == (
        "2 of 10 files tried failed, more than 10%: stopped early.\n"
        '  b0.mp4: "b0.mp4" is bad.\n'
        '  b1.mp4: "b1.mp4" is bad.\n'
        f"  All of them: {out.with_name('errors.csv')}\n"
        "  What is done is kept; the same command continues. To allow more: --max-failures 0.9"
    )
    assert not out.exists()
    assert len(os.listdir(out.with_name("talks.arrow.parts"))) == 8
    assert len(errors(out)) == 3
    extract(write(), max_failures=0.5)
    assert open_corpus(out).card.counts == {"test": 20}
    assert all(calls(tmp_path).count(f"{name}.mp4") == 1 for name in good)


def test_what_is_advised_would_let_it_pass(write, extract, out):
    row = Failure("v/1", "label.csv, row 2: no file")
    bad = {f"b{at}": "bad" for at in range(10)}
    gathered = write(**bad, c="yes")._replace(failures=[row])
    with pytest.raises(MediaError) as caught:
        extract(gathered, max_failures=0.9)
    assert str(caught.value) == (
        "10 of 10 files tried failed, more than 90%: stopped early.\n"
        + "".join(f'  b{at}.mp4: "b{at}.mp4" is bad.\n' for at in range(5))
        + "  and 5 more\n"
        f"  All of them: {out.with_name('errors.csv')}\n"
        "  What is done is kept; the same command continues. To allow more: --max-failures 1"
    )
    assert len(extract(gathered, max_failures=1.0).failures) == 11


def test_errors_are_a_table_of_one_line_each(write, extract, out):
    import pyarrow.csv as pc

    cause = 'it says:\r\n  one, "two"; three.\n  Mend  it.'
    failures = [Failure("Größe 1/日本", cause), Failure('@a, "b"; c', "=x\udce9")]
    extract(write(c="yes")._replace(failures=failures), max_failures=0.9)
    rows = [
        ["Größe 1/日本", 'it says: one, "two"; three. Mend it.'],
        ['\'@a, "b"; c', r"'=x\udce9"],  # no formulas
    ]
    assert errors(out) == [["item", "cause"], *rows]
    path = out.with_name("errors.csv")
    assert [list(row.values()) for row in pc.read_csv(path).to_pylist()] == rows
    assert len(path.read_text(encoding="utf-8").splitlines()) == 3


def test_one_bad_file_among_the_first_is_no_reason_to_stop(write, extract, out):
    good = {f"c{at}": "yes" for at in range(10)}
    assert len(extract(write(b="bad", **good)).failures) == 1
    assert open_corpus(out).card.account.left_out[0] == "items that failed: 1 (b.mp4)"


def test_too_many_failures_in_the_end(write, extract, out):
    with pytest.raises(MediaError) as caught:
        extract(write(a="yes", b="bad", c="yes"))
    assert str(caught.value) == (
        "1 of 3 items failed, more than 10%: no corpus was written.\n"
        '  b.mp4: "b.mp4" is bad.\n'
        f"  All of them: {out.with_name('errors.csv')}\n"
        "  What is done is kept; the same command continues. To allow more: --max-failures 0.9"
    )
    assert not out.exists()


def test_nothing_but_failures_is_no_success_whatever_is_allowed(write, extract, out):
    with pytest.raises(MediaError, match=r"^2 of 2 items failed: no corpus was written"):
        extract(write(a="bad", b="bad"), max_failures=1.0)
    assert os.listdir(out.parent) == ["errors.csv"]


def test_a_single_file_fails_in_its_own_words(write, extract, out):
    with pytest.raises(MediaError) as caught:
        extract(write(a="bad"))
    assert str(caught.value) == '"a.mp4" is bad.\n  Make it good.'
    assert errors(out) == [["item", "cause"], ["a.mp4", '"a.mp4" is bad. Make it good.']]


def test_rows_at_fault_count_before_anything_is_done(tmp_path, write, extract, out):
    gathered = write(a="yes", b="yes")
    gathered = gathered._replace(failures=[Failure("v/1", "label.csv, row 2: no file")])
    with pytest.raises(MediaError, match=r"1 of 3 items failed, more than 10%"):
        extract(gathered)
    assert errors(out) == [["item", "cause"], ["v/1", "label.csv, row 2: no file"]]
    assert not (tmp_path / "src" / "calls.log").exists()
    outcome = extract(gathered, max_failures=0.4)
    assert outcome.failures == gathered.failures


def test_missing_package_ends_the_batch(write, extract):
    with pytest.raises(MissingExtraError, match="hearing needs ears"):
        extract(write(a="lacking", b="yes"))


def test_full_disk_ends_the_batch_and_what_is_done_is_kept(tmp_path, write, extract, out):
    gathered = write(a="yes", b="full", c="no")
    with pytest.raises(DiskError) as caught:
        extract(gathered)
    assert str(caught.value) == (
        f"{tmp_path}/src/b.mp4: the disk is full (No space left on device).\n"
        f"  What is extracted is kept in {out}.parts: 1 of 3 files.\n"
        "  Free some space, then give the same command again."
    )
    assert not out.with_name("errors.csv").exists()
    write(b="maybe")
    extract(gathered)
    assert calls(tmp_path).count("a.mp4") == 1
    assert open_corpus(out).card.counts == {"test": 3}


def test_errors_of_an_earlier_batch_go_when_there_are_none(write, extract, out):
    out.parent.mkdir()
    out.with_name("errors.csv").write_text("item,cause\nold.mp4,old\n")
    extract(write(a="yes"))
    assert not out.with_name("errors.csv").exists()
    out.with_name("errors.csv").write_text("of,someone,else\n")
    extract(write(a="yes"))
    assert out.with_name("errors.csv").exists()


def test_target_that_cannot_be_written(tmp_path, write):
    (tmp_path / "made").write_text("a file")
    with pytest.raises(DatasetError) as caught:
        extract_batch(write(a="yes"), tmp_path / "made" / "x.arrow", Recipe(), make=FakeExtractor)
    assert str(caught.value) == (
        f"{tmp_path}/made/x.arrow.parts: cannot be made (Not a directory).\n"
        "  Give a corpus in a folder you may write to: --out CORPUS"
    )


# ---------------------------------------------------------------- going on


def test_what_is_done_is_not_done_again(tmp_path, write, extract, out):
    gathered = write(a="yes", b="bad", c="no")
    for _ in range(2):
        with pytest.raises(MediaError):
            extract(gathered)
    assert calls(tmp_path) == ["a.mp4", "b.mp4", "b.mp4", "c.mp4"]
    seen = []
    extract(gathered, max_failures=0.5, progress=lambda *numbers: seen.append(numbers))
    assert calls(tmp_path).count("a.mp4") == 1
    assert seen == [(2, 3, 0), (3, 3, 1)]


@pytest.mark.parametrize("change", ["recipe", "file", "text"])
def test_what_has_changed_is_done_again(tmp_path, write, extract, change):
    gathered = write(a="yes", b="bad", c="no")
    with pytest.raises(MediaError):
        extract(gathered)
    recipe = Recipe(frame_rate=5) if change == "recipe" else Recipe()
    if change == "file":
        (tmp_path / "src" / "a.mp4").write_text("yes yes")
    if change == "text":
        items = [gathered.items[0]._replace(text="said"), *gathered.items[1:]]
        gathered = gathered._replace(items=items)
    with pytest.raises(MediaError):
        extract(gathered, recipe)
    assert calls(tmp_path).count("a.mp4") == 2
    assert calls(tmp_path).count("c.mp4") == (2 if change == "recipe" else 1)


def test_transcript_beside_a_file_is_used_and_its_change_noticed(tmp_path, write, extract, out):
    gathered = write(a="yes", b="bad")
    beside = tmp_path / "src" / "a.txt"
    for said in ("one", "one or two"):
        beside.write_text(said)
        with pytest.raises(MediaError):
            extract(gathered)
    assert calls(tmp_path).count("a.mp4") == 2
    tasks = home._Batch(gathered, out, Recipe(), 0.2, None).tasks()
    assert [task.transcript for task in tasks] == [beside, None]


def test_a_killed_batch_goes_on(tmp_path, write, extract, out):
    gathered = write(a="yes", b="no", c="wait")
    script = (
        "from pathlib import Path\n"
        "from fakes.extractors import FakeExtractor\n"
        "from mmcl.media import batch\n"
        "from mmcl.media.folders.gather import gather\n"
        "from mmcl.media.recipe import Recipe\n"
        "batch.with_versions = lambda recipe: recipe\n"
        "if __name__ == '__main__':\n"
        f"    batch.extract_batch(gather([Path({str(tmp_path / 'src')!r})]), Path({str(out)!r}),"
        " Recipe(), make=FakeExtractor)\n"
    )
    (tmp_path / "killed.py").write_text(script)
    path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, sys.path)])
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "killed.py")], env={**os.environ, "PYTHONPATH": path}
    )
    log, deadline = tmp_path / "src" / "calls.log", time.monotonic() + 60
    while "c.mp4" not in (log.read_text() if log.exists() else ""):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()

    (tmp_path / "src" / "c.mp4").write_text("well")
    extract(gathered)
    assert calls(tmp_path) == ["a.mp4", "b.mp4", "c.mp4", "c.mp4"]
    assert [clip.text for clip in corpus_clips(open_corpus(out))] == ["yes", "no", "well"]


# ---------------------------------------------------------------- over Ray


@pytest.fixture
def ray(monkeypatch):
    """In place of Ray: the tasks at home, the last one first; ``ray.asked`` is how."""
    seen = SimpleNamespace(asked=None, died=())

    def run_tasks(work, tasks, **asked):
        seen.asked = asked
        for task in reversed(tasks):
            died = task.item.name in seen.died
            yield task, Died("it died") if died else work(task, 1)

    def choose(work, tasks, *, engine, **asked):
        return (run_tasks if engine == "ray" else pool.run_tasks)(work, tasks, **asked)

    monkeypatch.setattr(home, "run_tasks", choose)
    home._extractor.cache_clear()
    return seen


def test_batch_over_ray_is_the_batch_at_home(write, extract, out, ray):
    gathered = write(a="yes", b="bad", c="no", d="so", e="bug")
    alone = extract(gathered, max_failures=0.8)
    corpus, listed = open_corpus(out).checksum(), errors(out)
    ray.died = ("d.mp4",)
    with pytest.raises(MediaError, match="3 of 5 items failed"):
        extract(gathered, workers=3, engine="ray", max_failures=0.5)
    assert ray.asked == {"workers": 3}
    assert sorted(errors(out)[1:]) == sorted([*listed[1:], ["d.mp4", "it died"]])
    ray.died = ()
    again = extract(gathered, workers=3, engine="ray", max_failures=0.8)
    assert again.card == alone.card
    assert open_corpus(out).checksum() == corpus


def test_extractor_is_kept_for_the_next_task(tmp_path, write, out, ray):
    made = []

    def make(recipe):
        made.append(recipe)
        return FakeExtractor(recipe)

    extract_batch(write(a="yes", b="no"), out, Recipe(pause=0.7), engine="ray", make=make)
    assert made == [Recipe(pause=0.7)]


def test_versions_must_be_the_same_everywhere(write, extract, ray, monkeypatch):
    where = Recipe(versions={"av": "14.0", "mmcl": "0.1"})
    here = {"versions": {"av": "18.1", "mmcl": "0.1"}}
    monkeypatch.setattr(home, "with_versions", lambda recipe: recipe)
    extract(write(a="yes"), where, engine="ray")

    def elsewhere(recipe, seen=[]):  # noqa: B006
        seen.append(recipe)
        return recipe if len(seen) == 1 else recipe.model_copy(update=here)

    monkeypatch.setattr(home, "with_versions", elsewhere)
    home._extractor.cache_clear()
    with pytest.raises(DatasetError) as caught:
        extract(write(a="yes"), where, engine="ray")
    assert str(caught.value) == (
        f"av is 18.1 on {socket.gethostname()}, and 14.0 where the extraction was begun.\n"
        "  Install the same on every machine, or name one: --text-model, --speech-model, "
        "--face-model"
    )


def test_recording_that_a_machine_does_not_see_ends_the_batch(tmp_path, write, extract, ray):
    gathered = write(a="yes", b="no")
    (tmp_path / "src" / "b.mp4").unlink()
    with pytest.raises(DatasetError, match=r"b\.mp4: not found on .*, where a task needed it"):
        extract(gathered, engine="ray")


def test_corpus_that_a_machine_cannot_reach_ends_the_batch(
    write, extract, out, ray, monkeypatch, tmp_path
):
    nowhere = tmp_path / "no"
    monkeypatch.setattr(home, "_absolute", lambda task: task._replace(part=nowhere / "x.arrow"))
    with pytest.raises(
        DatasetError, match=rf"^{re.escape(str(nowhere))}: not found on .*, where a task needed it"
    ):
        extract(write(a="yes"), engine="ray")
    assert not out.exists()


def test_part_that_is_not_seen_here_is_not_left_out_in_silence(write, extract, ray, monkeypatch):
    monkeypatch.setattr(home, "_extract_part", lambda task, extractor: None)
    wait = partial(pool_ray.await_shared, seconds=0.1)
    monkeypatch.setattr(home, "await_shared", wait)
    with pytest.raises(DatasetError, match=r"\.arrow: was written by a task, and is not seen on"):
        extract(write(a="yes"), engine="ray")


def test_paths_are_whole_wherever_a_task_goes(tmp_path, write, ray, monkeypatch):
    write(a="yes")
    (tmp_path / "src" / "a.txt").write_text("yes")
    monkeypatch.chdir(tmp_path)
    task = home._Batch(gather([Path("src")]), Path("x.arrow"), Recipe(), 0.2, None).tasks()[0]
    whole = home._absolute(task)
    assert whole.item.path == tmp_path / "src" / "a.mp4"
    assert whole.transcript == tmp_path / "src" / "a.txt"
    assert whole.part == tmp_path / "x.arrow.parts" / task.part.name
    assert home._absolute(task._replace(transcript="said")).transcript == "said"
