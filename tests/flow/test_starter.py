"""The starter as a user types it, with a stand-in that is trained here."""

import csv
from types import SimpleNamespace

import pytest

from fakes.starters import clip_of, make_starter, use_starter
from fakes.tiny_bert import tiny_bert
from fakes.words import FakeModels
from mmcl.runs.starter import load_starter, starter_notice
from mmcl.serve.service import _by_name


class FakeExtractor:
    """Finds one utterance in every file: its content, or a face if the file is empty."""

    models = FakeModels()

    def __init__(self, recipe):
        self.recipe = recipe

    def extract(self, path, *, transcript=None):
        text = path.read_text()
        present = ("text", "vision") if text else ("vision",)
        return SimpleNamespace(clips=[clip_of(text, *present)], spans=[(0.0, 2.0)], notes=())


@pytest.fixture(scope="module")
def shared(tmp_path_factory, tiny_config):
    folder = tmp_path_factory.mktemp("stand-in")
    make_starter(folder / "package", tiny_config())
    tiny_bert(folder / "bert")
    return folder


@pytest.fixture
def folder(shared, tmp_path, monkeypatch):
    use_starter(monkeypatch, shared / "package", shared / "bert")
    monkeypatch.setattr("mmcl.media.extract.Extractor", FakeExtractor)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    (tmp_path / "talk.mp4").write_text("the film was good")
    (tmp_path / "mute.mp4").write_text("")
    (tmp_path / "reviews.csv").write_text('text\nthe film was good\n"bad, bad film"\n')
    return tmp_path


def test_recording_without_a_run(folder, run):
    code, out, err = run("predict", "talk.mp4", "--out", "talk.csv")
    assert (code, err) == (0, "")
    # A narrow terminal breaks the line.
    words, notice = " ".join(out.split()), f"note: {starter_notice(load_starter())}"
    assert words.index("note: ") == words.index(notice)
    assert "doubtful" not in out
    (row,) = csv.DictReader((folder / "talk.csv").read_text().splitlines())
    assert row["text"] == "the film was good"


def test_named_starter_needs_no_notice(folder, run):
    code, out, err = run("predict", "starter", "talk.mp4")
    assert (code, err) == (0, "")
    assert "no run was given" not in out


def test_recording_without_words_is_doubtful(folder, run):
    code, out, _ = run("predict", "mute.mp4")
    assert code == 0
    assert "note: judged from the face alone: doubtful" in " ".join(out.split())


def test_reviews_without_a_run(folder, run):
    code, out, err = run("predict", "reviews.csv", "--out", "scores.csv")
    assert (code, out) == (0, "2 predictions in scores.csv\n")
    notice, ids, vectors, unseen = err.splitlines()
    assert notice == starter_notice(load_starter())
    assert ids == 'note: test: no ids in the file; made from the row, as in "test_0000"'
    assert vectors.startswith("note: text: a vector per word by starter")
    assert unseen == "note: the corpus has no vision: predicted without it"
    rows = list(csv.DictReader((folder / "scores.csv").read_text().splitlines()))
    assert [row["split"] for row in rows] == ["test", "test"]
    assert rows[0]["prediction"] != rows[1]["prediction"]
    assert [row["text"] for row in rows] == ["the film was good", "bad, bad film"]


def test_spanish_reviews_are_refused_and_nothing_is_left(folder, run):
    text = "la pelicula es muy buena, pero lo que me gusta es el final y los actores"
    (folder / "spanish.csv").write_text(f'text\n"{text}"\n')
    code, out, err = run("predict", "starter", "spanish.csv", "--out", "scores.csv")
    assert (code, out) == (1, "")
    assert err == (
        'RunError: starter: the starter knows English only, and the words of "spanish" are in '
        "another language (es): its scores of them would mean nothing.\n"
        "  Train a run on rated clips in that language: docs/your-own-video.md\n"
    )
    assert not (folder / "scores.csv").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param(
            [],
            "expected a recording or a corpus, with or without a run before it, got nothing.\n"
            "  With the starter: mmcl predict SRC\n  With a run: mmcl predict RUN SRC",
            id="nothing",
        ),
        pytest.param(
            ["a", "b.mp4", "c.mp4"],
            "expected a recording or a corpus, with or without a run before it, got "
            '"a" "b.mp4" "c.mp4".\n'
            "  With the starter: mmcl predict SRC\n  With a run: mmcl predict RUN SRC",
            id="three",
        ),
        pytest.param(
            ["talks"],
            '"talks" is a run, and a recording or a corpus is missing.\n'
            "  Give it after the run: mmcl predict talks SRC",
            id="run-alone",
        ),
        pytest.param(
            ["starter"],
            '"starter" is a run, and a recording or a corpus is missing.\n'
            "  Give it after the run: mmcl predict starter SRC",
            id="starter-alone",
        ),
    ],
)
def test_other_numbers_of_sources_are_refused(folder, run, words, message):
    (folder / "talks").mkdir()
    (folder / "talks/run.json").write_text("{}")
    assert run("predict", *words) == (2, "", f"UsageError: {message}\n")


def test_card_is_printed(folder, run):
    assert run("starter") == (0, "# Starter\n\nIts *data*, errors and limits.\n", "")


def test_scores_of_the_starter(folder, run):
    code, out, _ = run("evaluate", "starter")
    assert code == 0
    assert "mae" in out.lower()


def test_service_without_a_run_serves_the_starter(folder, run, monkeypatch):
    served = []

    def serve(runs, listening, *, started, **_):
        served.extend(_by_name(runs))
        started()

    monkeypatch.setattr("mmcl.serve.http_server.serve", serve)
    monkeypatch.setattr("mmcl.serve.supervisor.begin_imports", lambda: None)
    code, out, err = run("serve", "--port", "0", "--state", folder / "state")
    assert (code, err) == (0, "")
    assert out.splitlines()[:2] == [starter_notice(load_starter()), "Serving starter"]
    assert served == ["starter"]
    assert "Serving starter" in run("serve", "starter", "--port", "0")[1]


@pytest.mark.parametrize(
    ("source", "out"),
    [
        ("reviews.csv", "reviews.csv"),
        ("reviews.csv", "linked.csv"),
        ("tables", "tables/train.csv"),
    ],
)
def test_reviews_are_kept(folder, run, source, out):
    (folder / "linked.csv").symlink_to("reviews.csv")
    (folder / "tables").mkdir()
    for name in ("train.csv", "test.csv"):
        (folder / "tables" / name).write_text("text,label\nthe film was good,1.0\n")
    before = (folder / out).read_text()
    assert run("predict", source, "--out", out) == (
        2,
        "",
        f"UsageError: {out}: the command reads this, so it cannot write it as well; "
        "nothing was changed.\n  Give the output another name.\n",
    )
    assert (folder / out).read_text() == before
    (folder / "scores.csv").write_text("of last week")
    assert run("predict", source, "--out", "scores.csv")[0] == 0


def test_predictions_of_a_run_are_kept(folder, run):
    path = load_starter().folder / "predictions.parquet"
    before = path.read_bytes()
    code, _, err = run("predict", "reviews.csv", "--out", path)
    assert code == 2
    assert "cannot write it as well" in err
    assert path.read_bytes() == before
