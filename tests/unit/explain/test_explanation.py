"""An explanation of tiny runs: what is in it, what it refuses, and how it is drawn."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from threadpoolctl import threadpool_limits
from torch import nn

from mmcl.corpus.check import corpus_clips
from mmcl.corpus.schema import Word
from mmcl.corpus.store import pack_corpus
from mmcl.errors import DatasetError, RunError
from mmcl.evaluation.protocol import judged_split
from mmcl.explain import explanation, gradients
from mmcl.explain.complementary import probes
from mmcl.explain.explanation import explain, write_explanation
from mmcl.explain.explanation_figures import (
    error_figure,
    explanation_section,
    histogram_figure,
    probe_figure,
    redundancy_figure,
)
from mmcl.runs.run import train

MODALITIES = ["text", "audio", "vision"]
HOSTILE = "</script><img src=x onerror=alert(1)>"
SCORES = ["actions", "moments", "integrated_gradients", "random"]


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Fewer orders and points, and no threads that wait for each other over tiny matrices."""
    with pytest.MonkeyPatch.context() as patch, threadpool_limits(1):
        patch.setattr(explanation, "NUM_ORDERS", 2)
        patch.setattr(gradients, "NUM_POINTS", 3)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_corpus, tiny_config):
    folder = tmp_path_factory.mktemp("explanation") / "run"
    return train(tiny_corpus, tiny_config(), out=folder, seeds=(3, 1))


@pytest.fixture(scope="module")
def content(run, tiny_corpus):
    return explain(run, tiny_corpus, num_clips=6, command="mmcl explain run planted.arrow")


def _changed(corpus, change):
    return pack_corpus(corpus.card, [change(clip) for clip in corpus_clips(corpus)])


# ---------------------------------------------------------------- content


def test_explanation_says_what_it_is_of(content, run):
    head = [content[key] for key in ("command", "run", "corpus", "split", "model", "seeds")]
    expected = ["mmcl explain run planted.arrow", str(run.folder), "planted", "test"]
    assert head == [*expected, "calibrated", [3, 1]]
    assert content["environment"]["versions"]["torch"]
    assert content["notes"][0] == (
        "curves, policies and single clips: the first 6 of 8 labelled clips of the test split; "
        "all else: every clip of it"
    )


def test_curves_start_and_end_where_they_must(content):
    curves = content["curves"]
    assert (curves["unit"], curves["clips"]) == ("absolute error", 6)
    learned = pytest.approx(content["policies"]["errors"]["learned"], abs=1e-5)  # float32 sums
    nothing = pytest.approx(curves["deletion"]["random"]["error"][-1])
    for score in SCORES:
        deletion, insertion = (curves[d][score]["error"] for d in ("deletion", "insertion"))
        assert (deletion[0], insertion[-1]) == (learned, learned)
        assert (deletion[-1], insertion[0]) == (nothing, nothing)
        assert curves["deletion"][score]["area"] == pytest.approx(
            np.trapezoid(deletion, curves["fractions"])
        )


def test_error_is_the_mean_of_the_seeds(content, run, tiny_corpus):
    split = judged_split(tiny_corpus, "test")
    errors = [
        np.abs(judged.scored.scores - split.labels())[:6]
        for _, judged in run.score(tiny_corpus)[1]
        if judged.split.name == "test"
    ]
    assert len(errors) == 2
    assert content["policies"]["errors"]["learned"] == pytest.approx(np.mean(errors), abs=1e-5)


def test_comparisons_are_those_of_the_areas(content):
    curves = content["curves"]
    rows = curves["comparisons"]
    assert len(rows) == 8
    for row in rows:
        own = curves[row["curve"]][row["score"]]["area"]
        other = curves[row["curve"]][row["against"]]["area"]
        assert (row["area"], row["other_area"]) == pytest.approx((own, other))
        sign = 1 if row["curve"] == "deletion" else -1
        assert row["gain"] == pytest.approx(sign * (own - other))
        assert row["low"] <= row["gain"] <= row["high"]
    errors = content["policies"]["errors"]
    for row in content["policies"]["comparisons"]:
        assert row["gain"] == pytest.approx(errors[row["against"]] - errors["learned"])


def test_random_shows_the_spread_of_its_orders(content):
    random = content["curves"]["deletion"]["random"]
    low, mean, high = (np.array(random[key]) for key in ("lowest", "error", "highest"))
    assert ((low <= mean + 1e-9) & (mean <= high + 1e-9)).all()
    assert random["area_std"] > 0
    assert "area_std" not in content["curves"]["deletion"]["actions"]


def test_the_rest_is_there(content):
    assert list(content["probes"]["modalities"]) == MODALITIES
    assert (content["probes"]["score"], content["probes"]["clips"]) == ("R²", 8)
    assert len(content["redundancy"]) == 3
    assert [len(row["histogram"]) for row in content["actions"]["all"].values()] == [10] * 3
    assert content["actions"]["all"]["text"]["steps"] == 8 * 20
    assert list(content["planted"]["share"]) == MODALITIES
    curve = content["policies"]["keep_curve"]
    assert len(curve["kept"]) == len(curve["error"]) == 11
    assert curve["kept"][0] == 0.0
    assert curve["kept"] == sorted(curve["kept"])
    # Its ends are policies that are measured otherwise, too.
    errors = content["policies"]["errors"]
    assert curve["error"][0] == pytest.approx(errors["none"], abs=1e-6)
    assert curve["error"][-1] == pytest.approx(errors["learned"], abs=1e-6)
    assert len(content["conclusions"]) >= 8 + 3 + 3


def test_clips_are_told_one_by_one(content, run, tiny_corpus):
    rows = content["clips"]
    moments = {each.id: each for each in run.moments(tiny_corpus)}
    assert [row["id"] for row in rows] == judged_split(tiny_corpus, "test").ids[:6]
    labels = judged_split(tiny_corpus, "test").labels()
    for row, label in zip(rows, labels, strict=False):
        moment = moments[row["id"]]
        assert row["truth"] == label
        assert row["prediction"] == pytest.approx(moment.prediction, abs=1e-5)
        assert row["share"] == pytest.approx(moment.share, abs=1e-5)
        assert row["steps"] == dict.fromkeys(MODALITIES, 20)
        likely = {m: p > 0.5 for m, p in moment.keep_probability.items()}
        kept = {m: np.flatnonzero(likely[m]).tolist() for m in MODALITIES}
        assert row["kept"] == kept
        assert (row["words_kept"], len(row["word_share"])) == (None, 20)


def test_clips_without_a_label_are_passed_over(run, tiny_corpus):
    first = "test_000000"
    clips = list(corpus_clips(tiny_corpus))
    hidden = [c.model_copy(update={"label": None}) if c.id == first else c for c in clips]
    dropped = [c for c in clips if c.id != first]
    one, other = (
        explain(run, pack_corpus(tiny_corpus.card, each), num_clips=4) for each in (hidden, dropped)
    )
    assert [row["id"] for row in one["clips"]] == [f"test_{at:06d}" for at in (1, 2, 3, 4)]
    assert one["curves"]["deletion"] == other["curves"]["deletion"]


def test_step_counts_as_kept_where_it_likely_is_and_no_limit_drops_it(run, tiny_corpus):
    moment = run.moments(tiny_corpus)[0]._replace(
        keep_probability={"text": np.array([0.4, 0.6, 0.5, 0.9], dtype=np.float32)},
        action={"text": np.array([0.1, 0.2, 0.0, 0.0], dtype=np.float32)},
    )
    assert explanation._kept(moment, "text", 0.5) == [1]
    assert explanation._kept(moment, "text", 0.3) == [0, 1]


def test_words_that_were_kept_are_named(run, tiny_corpus):
    words = tuple(Word(text=f"word{at}") for at in range(20))
    corpus = _changed(tiny_corpus, lambda clip: clip.model_copy(update={"words": words}))
    (row,) = explain(run, corpus, num_clips=1)["clips"]
    assert row["words_kept"] == [f"word{at}" for at in row["kept"]["text"]]


def test_the_same_is_found_twice(content, run, tiny_corpus):
    again = explain(run, tiny_corpus, num_clips=6, command=content["command"])
    assert again == content


def test_progress_counts_to_the_end(run, tiny_corpus):
    told = []
    explain(run, tiny_corpus, num_clips=1, progress=lambda *each: told.append(each))
    assert [done for _, done, _ in told] == list(range(len(told)))
    assert {total for *_, total in told} == {len(told) - 1}


def test_validation_is_not_used_twice(run, tiny_corpus, monkeypatch):
    tuned_on = []

    def watched(task, modalities, train, test, valid):
        tuned_on.append(valid)
        return probes(task, modalities, train, test, valid)

    monkeypatch.setattr(explanation, "probes", watched)
    content = explain(run, tiny_corpus, split="valid", num_clips=2)
    explain(run, tiny_corpus, num_clips=1)
    assert tuned_on[0] is None
    assert len(tuned_on[1]) == 2  # one per seed
    assert content["clips"][0]["id"] == "valid_000000"
    assert content["notes"][-1] == (
        "probes: the penalty was not chosen on validation, which is judged here"
    )


def test_no_training_label_means_no_probes(run, tiny_corpus):
    def hide(clip):
        return clip.model_copy(update={"label": None}) if clip.split == "train" else clip

    content = explain(run, _changed(tiny_corpus, hide), num_clips=2)
    assert content["probes"] is None
    assert content["notes"][-1] == (
        "no probes: no training clip of the corpus has a label to fit them on"
    )
    assert "What each modality adds" not in explanation_section(content)


@pytest.mark.parametrize("task", ["classes", "emotions"])
def test_other_tasks_are_explained(tmp_path, planted, tiny_config, task):
    corpus = planted(task=task, aligned=False)
    run = train(corpus, tiny_config("learning.epochs=1"), out=tmp_path / "run")
    content = explain(run, corpus, num_clips=3)
    assert content["curves"]["unit"] == "cross-entropy"
    assert content["probes"]["score"] == "accuracy"
    assert "share" not in content["planted"]
    names = corpus.card.task.names
    truth = content["clips"][0]["truth"]
    assert {truth} <= set(names) if task == "classes" else set(truth) <= set(names)
    json.dumps(content, allow_nan=False)


# ---------------------------------------------------------------- refusals


def test_unlabelled_split_is_refused(run, tiny_corpus):
    corpus = _changed(tiny_corpus, lambda clip: clip.model_copy(update={"label": None}))
    with pytest.raises(DatasetError) as caught:
        explain(run, corpus)
    assert str(caught.value) == (
        'planted: split "test" has no labelled clip, and errors are measured on labelled ones.\n'
        "  See what the corpus holds: mmcl corpus describe CORPUS"
    )


def test_corpus_that_does_not_fit_is_refused(run, planted):
    with pytest.raises(RunError, match="its task is classes"):
        explain(run, planted(task="classes"))


def test_run_without_policies_is_refused(tiny_corpus):
    config = SimpleNamespace(model=SimpleNamespace(name="lf_dnn"))
    run = SimpleNamespace(
        folder="runs/x",
        config=config,
        seeds=(1,),
        model=lambda seed: nn.Linear(1, 1),
        prepared=lambda corpus: corpus,
    )
    with pytest.raises(RunError) as caught:
        explain(run, tiny_corpus)
    assert str(caught.value) == (
        "runs/x: lf_dnn has no policies to explain; only calibrated and released have."
    )


# ---------------------------------------------------------------- files and figures


def test_files_hold_it_all(content, tmp_path):
    write_explanation(content, tmp_path / "new")
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == [
        "clips.jsonl",
        "explanation.json",
    ]
    whole = json.loads((tmp_path / "new" / "explanation.json").read_text())
    lines = (tmp_path / "new" / "clips.jsonl").read_text().splitlines()
    assert {**whole, "clips": [json.loads(line) for line in lines]} == content


def test_error_figure_draws_every_ranking(content):
    figure = error_figure(content["curves"], "insertion")
    band, *lines = figure.data
    assert [list(line.y) for line in lines] == [
        content["curves"]["insertion"][score]["error"] for score in SCORES
    ]
    assert list(band.y)[:11] == content["curves"]["insertion"]["random"]["highest"]
    assert list(band.y)[:10:-1] == content["curves"]["insertion"]["random"]["lowest"]
    assert figure.layout.xaxis.title.text == "% of the steps inserted"


def test_probe_figure_has_intervals():
    row = {"increment": 0.2, "low": 0.15, "high": 0.3}
    (bar,) = probe_figure({"score": "R²", "modalities": {"text": row}}).data
    assert (list(bar.x), list(bar.y)) == (["text"], [0.2])
    assert (bar.error_y.array[0], bar.error_y.arrayminus[0]) == pytest.approx((0.1, 0.05))


def test_redundancy_figure_shows_value_and_floor():
    row = {
        "pair": ["text", "audio"],
        "common": {"value": 0.5, "floor": 0.02},
        "complementary": {"value": 0.1, "floor": None},
    }
    figure = redundancy_figure([row])
    assert [list(bar.y) for bar in figure.data] == [[0.5], [0.02], [0.1], [None]]
    assert {bar.offsetgroup for bar in figure.data} == {None}  # side by side: none covers another


def test_histogram_figure_is_in_percent():
    rows = {"text": {"histogram": [0.25, 0.75]}}
    (line,) = histogram_figure(rows).data
    assert (list(line.x), list(line.y)) == ([0.25, 0.75], [25.0, 75.0])


def test_section_needs_no_second_plotly_and_trusts_no_text(content):
    hostile = {
        **content,
        "corpus": HOSTILE,
        "notes": [HOSTILE],
        "actions": {HOSTILE: content["actions"]["all"]},
    }
    section = explanation_section(hostile, name="second")
    assert "<img" not in section
    assert section.startswith("\n") is False
    assert len(section) < 200_000
    ids = [part.split('"')[0] for part in section.split('id="')[1:]]
    assert len(ids) == len(set(ids))
    assert all(each.startswith("second") for each in ids)
    assert all(sentence.split(":")[0] in section for sentence in content["conclusions"])
