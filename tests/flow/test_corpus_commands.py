"""``mmcl corpus`` as a user types it: what is printed where, the exit code, what is left."""

import errno
import gzip
import json
import os
import pickle

import h5py
import numpy as np
import pyarrow as pa
import pytest

from mmcl.cli.main import main
from mmcl.corpus.store import open_corpus

LAYOUTS = "  The layouts that can be read: mmcl corpus convert --help\n"


class Calls:
    def __init__(self, function, *values):
        self.call = (function, values)

    def __reduce__(self):
        return self.call


@pytest.fixture
def content():
    rng = np.random.default_rng(3)
    return {
        split: {
            "text": rng.uniform(0.5, 1.5, size=(count, 4, 3)).astype(np.float32),
            "audio": rng.uniform(0.5, 1.5, size=(count, 4, 2)).astype(np.float32),
            "regression_labels": np.linspace(-2, 2, count),
            "id": [f"{split}-{row}" for row in range(count)],
        }
        for split, count in (("train", 5), ("valid", 3), ("test", 2))
    }


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def save(content, name="mosi.pkl"):
    raw = pickle.dumps(content, protocol=4)
    with open(name, "wb") as file:
        file.write(gzip.compress(raw) if name.endswith(".gz") else raw)


def run(capsys, *words):
    code = main(["corpus", *words])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_convert_check_describe(content, capsys):
    save(content)
    code, out, err = run(capsys, "convert", "mosi.pkl", "mosi.arrow")
    assert (code, out) == (
        0,
        "mosi.arrow: mosi, regression, 5/3/2 clips, text 3, audio 2\n"
        "in the source: 10 clips, of which 10 were read (train 5, valid 3, test 2); "
        "fields audio, id, regression_labels, text\n"
        "left out: nothing\n",
    )
    assert err == (
        "note: regression_labels: taken as scores, but they are whole numbers -2..2; "
        "are they classes? Then: --task classes\n"
        "note: train has 5 clips; CMU-MOSI has 1284\n"
        "note: valid has 3 clips; CMU-MOSI has 229\n"
        "note: test has 2 clips; CMU-MOSI has 686\n"
    )
    assert sorted(os.listdir()) == ["mosi.arrow", "mosi.pkl"]

    code, out, _ = run(capsys, "check", "mosi.arrow")
    assert (code, out) == (0, "mosi.arrow: no faults in 10 clips\n")

    code, out, err = run(capsys, "describe", "mosi.arrow", "--json")
    summary = json.loads(out)
    assert (code, err) == (0, "")
    assert summary["constant"] == {
        "prediction": 0.0,
        "mae": {"valid": pytest.approx(4 / 3), "test": 2.0},
    }

    code, out, err = run(capsys, "describe", "mosi.pkl")
    assert (code, err) == (0, "")
    assert "a constant 0 scores: valid MAE 1.3333, test MAE 2.0000\n" in out


def test_convert_with_every_option(content, capsys):
    save(content, "x.pkl.gz")
    words = ["x.pkl.gz", "--out", "y.arrow", "--name", "mine", "--dtype", "float16"]
    words += ["--task", "regression", "--label-range", "-2.5", "2.5", "--padding", "none"]
    words += [
        "--align",
        "none",
        "--rename",
        "audio=vision",
        "--rename",
        "valid=",
        "--max-lost",
        "1",
    ]
    code, out, err = run(capsys, "convert", *words)
    assert code == 0
    assert 'note: no "valid" split in the file\n' in err
    assert out.startswith("y.arrow: mine, regression, 5/0/2 clips, text 3, vision 2\n")
    assert 'left out: "valid", as asked\n' in out
    corpus = open_corpus("y.arrow")
    assert (corpus.card.task.low, corpus.card.task.high) == (-2.5, 2.5)
    assert corpus.split("train").steps("text", 0).dtype == np.float16


def test_check_prints_every_fault_and_fails(content, capsys):
    content["valid"]["audio"] = content["valid"]["audio"][:2]
    content["train"]["id"] = ["a"] * 5
    content["test"]["regression_labels"] = [4.0, np.nan]
    save(content)
    code, out, _ = run(capsys, "check", "mosi.pkl")
    assert code == 1
    assert out == (
        'split "valid": audio has 2 clips, text has 3\n'
        "  Every modality must list the same clips in the same order.\n"
        '  First clip without audio: "valid-2".\n'
        'split "train": id "a" is listed 5 times\n'
        "  Every clip needs an id of its own.\n"
        'split "test", clip "test-0": label is 4\n'
        "  A label must be a number from -3 to 3 "
        "(of another range: convert with --label-range LOW HIGH).\n"
        'split "test", clip "test-1": label is nan\n'
        "  A label must be a number from -3 to 3 "
        "(of another range: convert with --label-range LOW HIGH).\n"
        "mosi.pkl: 4 faults\n"
    )


@pytest.mark.parametrize("options", [(), ("--unaligned", "--task", "emotions", "--seed", "7")])
def test_plant_is_sound_and_the_same_again(capsys, options):
    sizes = ("--train", "8", "--valid", "4", "--test", "3", "--heterogeneity", "0.5")
    for name in ("one.arrow", "two.arrow"):
        code, out, err = run(capsys, "plant", name, *sizes, *options)
        task = "emotions" if options else "regression"
        expected = f"{name}: planted, {task}, 8/4/3 clips, text 96, audio 48, vision 24\n"
        assert (code, out, err) == (0, expected, "")
    assert run(capsys, "check", "one.arrow")[:2] == (0, "one.arrow: no faults in 15 clips\n")
    with open("one.arrow", "rb") as one, open("two.arrow", "rb") as two:
        assert one.read() == two.read()
    assert open_corpus("one.arrow").card.aligned is not bool(options)


def test_plant_of_another_shape(capsys):
    shape = ("--steps", "15", "--widths", "5", "2", "7", "--dtype", "float16")
    code, out, _ = run(capsys, "plant", "x.arrow", "--train", "3", *shape)
    assert (code, out) == (
        0,
        "x.arrow: planted, regression, 3/400/600 clips, text 5, audio 2, vision 7\n",
    )
    steps = open_corpus("x.arrow").split("train").steps("vision", 2)
    assert (steps.shape, steps.dtype) == ((15, 7), np.float16)


# --- bad input: the whole message, exit code 1, and nothing left behind -------------------


def broken(capsys, *words):
    before = sorted(os.listdir())
    code, out, err = run(capsys, *words)
    assert (code, out) == (1, "")
    assert sorted(os.listdir()) == before
    return err


@pytest.mark.parametrize("command", [("convert", "no.pkl", "x.arrow"), ("check", "no.pkl")])
def test_missing_file(capsys, command):
    assert broken(capsys, *command) == (
        "DatasetError: no.pkl: no such file.\n"
        "  Expected a corpus written by mmcl, a pickle (plain or gzip'd), an npz file, "
        "a table (csv, Parquet, Arrow) or .csd files.\n"
        "  Make one to try things on: mmcl corpus plant planted.arrow\n"
    )


def test_empty_file(capsys):
    open("mosi.pkl", "wb").close()
    assert broken(capsys, "convert", "mosi.pkl", "x.arrow") == (
        "DatasetError: mosi.pkl: the file is empty.\n"
        "  Expected a corpus written by mmcl, a pickle (plain or gzip'd), an npz file, "
        "a table (csv, Parquet, Arrow) or .csd files; "
        "fetch or copy it again.\n" + LAYOUTS
    )


def test_truncated_gzip(content, capsys):
    save(content, "mosi.pkl.gz")
    with open("mosi.pkl.gz", "r+b") as file:
        file.truncate(200)
    assert broken(capsys, "convert", "mosi.pkl.gz", "x.arrow") == (
        "DatasetError: mosi.pkl.gz: the gzip stream is cut short or damaged "
        "(Compressed file ended before the end-of-stream marker was reached).\n"
        "  Expected a whole gzip'd pickle. Fetch or copy the file again.\n"
        "  Test the copy: gzip -t mosi.pkl.gz\n"
    )


@pytest.mark.parametrize("command", ["convert", "check", "describe"])
def test_malicious_pickle_does_not_run(content, capsys, command):
    content["train"]["id"] = Calls(os.system, "touch canary")
    save(content)
    words = ["mosi.pkl", "x.arrow"] if command == "convert" else ["mosi.pkl"]
    assert broken(capsys, command, *words) == (
        'UnsafePickleError: mosi.pkl: this pickle asks for "posix.system", '
        "which is not plain data; nothing of it was run.\n"
        "  Expected only numpy arrays, dicts, lists, tuples, strings and numbers.\n"
        "  If you trust its maker, load it where it was made and save its arrays as npz.\n"
        + LAYOUTS
    )
    assert not os.path.exists("canary")


def spoil_clips(content):
    content["valid"]["audio"] = content["valid"]["audio"][:2]
    return (
        ', split "valid": audio has 2 clips, text has 3.\n'
        "  Every modality must list the same clips in the same order.\n"
        '  First clip without audio: "valid-2".\n'
    )


def spoil_ids(content):
    content["train"]["id"][3] = "train-0"
    return (
        ', split "train": id "train-0" is listed 2 times.\n  Every clip needs an id of its own.\n'
    )


def spoil_splits(content):
    content["test"]["id"][1] = "valid-0"
    return (
        ', splits "valid" and "test": id "valid-0" is in more than one.\n'
        "  A clip belongs to one split only.\n"
    )


def spoil_label(content):
    content["test"]["regression_labels"][1] = 3.25
    return (
        ', split "test", clip "test-1": label is 3.25.\n'
        "  A label must be a number from -3 to 3 "
        "(of another range: convert with --label-range LOW HIGH).\n"
    )


def spoil_label_with_nan(content):
    content["train"]["regression_labels"][4] = np.nan
    return (
        ', split "train", clip "train-4": label is nan.\n'
        "  A label must be a number from -3 to 3 "
        "(of another range: convert with --label-range LOW HIGH).\n"
    )


def spoil_length(content):
    content["train"]["text"][1] = 0
    content["train"]["audio"][1] = 0
    return (
        ', split "train", clip "train-1": it has no steps in any modality.\n'
        "  A clip needs one step of one modality at least.\n"
    )


def spoil_width(content):
    content["valid"]["text"] = [np.ones((4, 3)), np.ones((4, 2)), np.ones((4, 3))]
    return (
        ', split "valid", clip "valid-1": text is 2 wide, 3 in the clips before it.\n'
        "  A modality must have one width throughout the corpus.\n"
    )


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_clips,
        spoil_ids,
        spoil_splits,
        spoil_label,
        spoil_label_with_nan,
        spoil_length,
        spoil_width,
    ],
)
def test_inconsistent_file(content, capsys, spoil):
    message = spoil(content)
    save(content)
    assert broken(capsys, "convert", "mosi.pkl", "x.arrow") == (
        f"DatasetError: mosi.pkl{message}  See them all: mmcl corpus check mosi.pkl\n"
    )


def test_unknown_layout(capsys):
    save({"features": 1})
    assert broken(capsys, "convert", "mosi.pkl", "x.arrow") == (
        "DatasetError: mosi.pkl: unknown layout; it holds a dict with 'features'.\n"
        '  Expected a dict of splits "train", "valid" (or "dev", "val") and "test", each a dict '
        'with "text", "audio" or "vision", or a list of ((words, visual, acoustic), label, '
        "segment).\n" + LAYOUTS
    )


@pytest.mark.parametrize("command", [("convert", "mosi.pkl"), ("plant",)])
def test_full_disk(content, capsys, monkeypatch, command):
    save(content)

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("mmcl.files.os.fsync", full)
    err = broken(capsys, *command, "x.arrow")
    assert err == (
        "DiskError: x.arrow: the disk is full (No space left on device).\n"
        "  Nothing was left behind of this file; all others are kept.\n"
        "  Free some space, then give the same command again.\n"
    )


def test_read_only_target(content, capsys, monkeypatch):
    save(content)

    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("mmcl.files.tempfile.mkstemp", refuse)
    assert broken(capsys, "convert", "mosi.pkl", "x.arrow") == (
        "DatasetError: x.arrow: cannot be written (Read-only file system); "
        "nothing was left behind.\n"
        "  Give a file in a folder you may write to.\n"
    )


def test_target_below_a_file(content, capsys):
    save(content)
    assert broken(capsys, "convert", "mosi.pkl", "mosi.pkl/x.arrow") == (
        "DiskError: mosi.pkl/x.arrow: nothing can be written there (File exists).\n"
        "  Nothing was left behind of this file; all others are kept.\n"
        "  Give a place where you may write.\n"
    )


# --- wrong usage: exit code 2 ------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("convert", "a", "b", "--dtype", "float64"), "--dtype"),
        (("convert", "a", "b", "--task", "sentiment"), "--task"),
        (("plant", "x.arrow", "--train", "0"), "--train"),
        (("plant", "x.arrow", "--heterogeneity", "-1"), "--heterogeneity"),
        (("plant", "x.arrow", "--widths", "3", "0", "2"), "--widths"),
        (("plant", "x.arrow", "--steps", "13"), "--steps"),
        (("chekc", "x"), "check"),
    ],
)
def test_wrong_usage(capsys, folder, words, named):
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "")
    assert err.startswith("Usage: mmcl corpus ")
    assert named in err.splitlines()[-1]
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("a.pkl",),
            "one path without --out: it is not certain which file to write.\n"
            "  Expected SRC DST, or one or more SRC and --out DST: "
            "mmcl corpus convert a.pkl --out corpus.arrow",
        ),
        (
            ("a.csd", "b.csd", "x.arrow"),
            "3 paths without --out: it is not certain which file to write.\n"
            "  Expected SRC DST, or one or more SRC and --out DST: "
            "mmcl corpus convert a.csd b.csd x.arrow --out corpus.arrow",
        ),
        (
            ("a.pkl", "kept.csd"),
            "2 paths without --out: it is not certain which file to write.\n"
            "  Expected SRC DST, or one or more SRC and --out DST: "
            "mmcl corpus convert a.pkl kept.csd --out corpus.arrow",
        ),
        (
            ("a.pkl", "x.arrow", "--rename", "video"),
            '--rename: "video" is not KEY=NAME.\n'
            "  Expected a name of the file and ours for it: --rename video=vision",
        ),
        (
            ("a.pkl", "x.arrow", "--rename", "a=b", "--rename", "a=c"),
            '--rename: "a" is renamed twice.\n'
            "  Expected a name of the file and ours for it: --rename video=vision",
        ),
    ],
)
def test_paths_and_names_that_are_not_certain(capsys, folder, words, message):
    (folder / "kept.csd").write_bytes(b"content")
    assert run(capsys, "convert", *words) == (2, "", f"UsageError: {message}\n")
    assert (folder / "kept.csd").read_bytes() == b"content"
    assert os.listdir(folder) == ["kept.csd"]


def test_csd_files_become_a_corpus(capsys):
    """Two videos of MOSI, each one segment of two words at half a second."""
    rng = np.random.default_rng(4)
    frames = np.arange(0, 1, 0.1)
    features = {
        "glove": ([[0, 0.5], [0.5, 1]], rng.normal(size=(2, 3))),
        "covarep": (np.stack([frames, frames + 0.1], axis=1), rng.normal(size=(10, 2))),
        "labels": ([[0, 1]], [[1.5]]),
    }
    for name, (intervals, values) in features.items():
        with h5py.File(f"{name}.csd", "w") as file:
            for video in ("03bSnISJMiM", "tmZoasNr4rU"):
                file[f"{name}/data/{video}/intervals"] = np.array(intervals, dtype=float)
                file[f"{name}/data/{video}/features"] = np.array(values)
    sources = ["labels.csd", "audio=covarep.csd", "glove.csd"]
    code, out, err = run(capsys, "convert", *sources, "--out", "mosi.arrow", "--align", "word")
    assert (code, out) == (
        0,
        "mosi.arrow: mosi, regression, 1/0/1 clips, text 3, audio 2\n"
        "in the source: 2 clips, of which 2 were read (train 1, test 1); "
        "fields labels: labels.csd, audio: covarep.csd, text: glove.csd\n"
        "left out: nothing\n",
    )
    assert "note: splits: the standard folds of mosi, 1/0/1 clips\n" in err
    steps = open_corpus("mosi.arrow").split("train").steps("audio", 0)
    expected = features["covarep"][1].reshape(2, 5, 2).mean(axis=1)
    np.testing.assert_allclose(steps, expected, rtol=1e-6)  # rounded to float32 once


@pytest.mark.parametrize("command", ["convert", "check", "describe", "plant"])
def test_help_shows_examples(capsys, command):
    code, out, err = run(capsys, command, "--help")
    assert (code, err) == (0, "")
    assert f"Examples:\n    mmcl corpus {command} " in out


@pytest.mark.parametrize(
    "words", [("convert", "mosi.pkl"), ("convert", "mosi.pkl", "--out"), ("plant",)]
)
@pytest.mark.parametrize("table", [True, False])
def test_corpus_replaces_no_other_file(content, capsys, folder, words, table):
    save(content)
    target = "kept.arrow"
    # The first is an Arrow file that another program wrote.
    if table:
        arrow = pa.table({"text": ["mine"]})
        with pa.ipc.new_file(target, arrow.schema) as file:
            file.write_table(arrow)
    else:
        (folder / target).write_text("mine")
    before = (folder / target).read_bytes()
    assert run(capsys, *words, target) == (
        2,
        "",
        "UsageError: kept.arrow: the file exists and is no corpus; it would be replaced.\n"
        "  Expected a new name, or a corpus to replace.\n",
    )
    assert (folder / target).read_bytes() == before


@pytest.mark.parametrize("words", [("convert", "mosi.pkl"), ("plant",)])
@pytest.mark.parametrize(("target", "better"), [("new/x.csv", "new/x.arrow"), ("x", "x.arrow")])
def test_corpus_is_written_under_the_name_of_a_corpus_alone(
    content, capsys, folder, words, target, better
):
    save(content)
    assert run(capsys, *words, target) == (
        2,
        "",
        f"UsageError: {target}: a corpus is an Arrow file, so its name must end in .arrow.\n"
        f"  Give it such a name: {better}\n",
    )
    assert os.listdir(folder) == ["mosi.pkl"]


def test_corpus_is_not_converted_into_itself(content, capsys, folder):
    save(content)
    assert run(capsys, "convert", "mosi.pkl", "mosi.arrow")[0] == 0
    os.symlink("mosi.arrow", "other.arrow")
    before = (folder / "mosi.arrow").read_bytes()
    for target in ("mosi.arrow", "other.arrow"):
        assert run(capsys, "convert", "mosi.arrow", target, "--dtype", "float16") == (
            2,
            "",
            f"UsageError: {target}: the command reads this, so it cannot write it as well; "
            "nothing was changed.\n  Give the output another name.\n",
        )
    assert (folder / "mosi.arrow").read_bytes() == before
    assert run(capsys, "plant", "mosi.arrow", "--train", "8")[0] == 0  # another corpus
