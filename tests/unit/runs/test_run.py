"""A run: what its folder holds, what it predicts, and which corpora it refuses."""

import json
import math
import shutil
from importlib import metadata

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import mmcl
from mmcl.config import Config
from mmcl.corpus.plant import plant_card, plant_clips
from mmcl.corpus.schema import Card, Clip, Task
from mmcl.corpus.store import pack_corpus
from mmcl.errors import RunError, UsageError
from mmcl.runs.run import Run, train

SEEDS = (3, 1)
# Scores are float32 sums in another order; metrics are means of at most 8 of them.
TOLERANCE = 1e-6


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_corpus, tiny_config):
    folder = tmp_path_factory.mktemp("run") / "run"
    return train(tiny_corpus, tiny_config(), out=folder, seeds=SEEDS)


@pytest.fixture
def copied(run, tmp_path):
    return shutil.copytree(run.folder, tmp_path / "run")


def _changed(tiny_settings, change, **card):
    clips = [change(clip) for clip in plant_clips(tiny_settings)]
    return pack_corpus(plant_card(tiny_settings).model_copy(update=card), clips)


def _without_labels(tiny_settings):
    return _changed(tiny_settings, lambda clip: clip.model_copy(update={"label": None}))


# ---------------------------------------------------------------- metrics.json


def test_metrics_layout(run):
    report = json.loads((run.folder / "metrics.json").read_text())
    assert report == run.metrics
    assert list(report) == [
        "valid",
        "test",
        "references",
        "preset",
        "model",
        "corpus",
        "seeds",
        "training",
        "notes",
    ]
    metrics = [
        "mae",
        "corr",
        "acc7",
        "acc5",
        "acc3",
        "acc2_has0",
        "f1_has0",
        "acc2_non0",
        "f1_non0",
        "common_auroc",
        "action_auroc",
        "kept",
        "kept_precision",
        "kept_recall",
    ]
    for name in ("valid", "test"):
        assert list(report[name]) == metrics
        for summary in report[name].values():
            assert list(summary) == ["mean", "std", "low", "high", "values", "num_valid"]
            assert len(summary["values"]) == 2
    assert list(report["references"]) == ["constant", "majority", "ridge"]
    for row in report["references"].values():
        assert list(row) == ["valid", "test"]
        assert list(row["test"]) == metrics[:-5]
    assert report["references"]["constant"]["test"]["corr"] is None
    assert (report["preset"], report["model"]) == ("mmsa", "calibrated")
    assert (report["corpus"], report["seeds"], report["notes"]) == ("planted", [3, 1], [])
    training = report["training"]
    keys = ["clips_per_second", "best_epochs", "epochs", "seconds", "parameters"]
    assert list(training) == keys
    assert training["epochs"] == [2, 2]
    assert training["parameters"] == sum(p.numel() for p in run.model().parameters())


def test_metrics_are_mean_and_spread_of_the_saved_predictions(run):
    table = pq.read_table(run.folder / "predictions.parquet").to_pydict()
    seed, split = np.array(table["seed"]), np.array(table["split"])
    error = np.abs(np.array(table["truth"]) - np.array(table["prediction"]))
    for name in ("valid", "test"):
        each = [error[(seed == s) & (split == name)].mean() for s in SEEDS]
        found = run.metrics[name]["mae"]
        assert found["values"] == pytest.approx(each, abs=TOLERANCE)
        assert found["mean"] == pytest.approx(np.mean(each), abs=TOLERANCE)
        assert found["std"] == pytest.approx(abs(each[0] - each[1]) / math.sqrt(2), abs=TOLERANCE)
        # 95% of a t distribution with one degree of freedom lies within 12.706 s.d.
        half = 12.7062 * found["std"] / math.sqrt(2)
        assert found["high"] - found["mean"] == pytest.approx(half, rel=1e-5)


def test_saved_predictions_are_of_every_seed_and_judged_clip(run, tiny_corpus):
    table = pq.read_table(run.folder / "predictions.parquet")
    assert table.column_names == ["seed", "id", "split", "truth", "prediction", "scores"]
    found = table.to_pydict()
    valid = [f"valid_{row:06d}" for row in range(8)]
    test = [f"test_{row:06d}" for row in range(8)]
    assert found["id"] == valid * 2 + test * 2
    assert found["seed"] == ([3] * 8 + [1] * 8) * 2
    assert found["split"] == ["valid"] * 16 + ["test"] * 16
    assert found["truth"][:8] == tiny_corpus.split("valid").labels().tolist()


def test_run_says_what_it_depends_on(run, tiny_corpus, tiny_config):
    description = json.loads((run.folder / "run.json").read_text())
    assert list(description) == ["config", "seeds", "corpus", "corpus_checksum", "environment"]
    assert Config.model_validate(description["config"]) == tiny_config()
    assert description["seeds"] == [3, 1]
    assert Card.model_validate(description["corpus"]) == tiny_corpus.card
    assert description["corpus_checksum"] == tiny_corpus.checksum()
    assert {"versions", "commit"} <= description["environment"].keys()


def test_every_seed_is_trained_apart(run, tiny_corpus, tiny_config, tmp_path):
    alone = train(tiny_corpus, tiny_config(), out=tmp_path / "alone", seeds=[1])
    for name, value in alone.model(1).state_dict().items():
        assert torch.equal(value, run.model(1).state_dict()[name])
    assert alone.metrics["test"]["mae"]["values"] == run.metrics["test"]["mae"]["values"][1:]
    assert alone.metrics["test"]["mae"]["std"] is None


# ---------------------------------------------------------------- a run comes back


def test_run_loads_as_it_was(run, tiny_config):
    again = mmcl.Run.load(run.folder)
    assert (again.config, again.card, again.seeds) == (tiny_config(), run.card, SEEDS)
    assert repr(again) == f"Run({str(run.folder)!r}, calibrated, 2 seeds)"
    assert not again.model().training
    assert again.model() is again.model(3)
    assert len(again.fitted(1).history) == 2


def test_evaluate_on_its_own_corpus_is_metrics_json(run, tiny_corpus):
    assert run.evaluate(tiny_corpus) == run.metrics


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(
            lambda folder: (folder / "run.json").unlink(),
            "{0}: not a run folder (no run.json in it).\n  Make one: mmcl train CORPUS --out {0}",
            id="no-run",
        ),
        pytest.param(
            lambda folder: (folder / "run.json").write_text("{"),
            "{0}/run.json: damaged or cut short (JSONDecodeError: Expecting property name enclosed "
            "in double quotes: line 1 column 2 (char 1)).\n"
            "  Copy it again from where it was made, or train again: mmcl train CORPUS --out NEW",
            id="damaged",
        ),
        pytest.param(
            lambda folder: (folder / "seed-1" / "done.json").unlink(),
            "{0}: seeds [1] of [3, 1] have not finished training.\n"
            "  Continue it: the same mmcl train command with --resume",
            id="unfinished",
        ),
    ],
)
def test_load_refuses(copied, spoil, message):
    spoil(copied)
    with pytest.raises(RunError) as caught:
        Run.load(copied)
    assert str(caught.value) == message.format(copied)


def test_metrics_of_a_run_that_was_not_scored(copied):
    (copied / "metrics.json").unlink()
    with pytest.raises(RunError) as caught:
        _ = Run.load(copied).metrics
    assert str(caught.value) == (
        f"{copied}: trained, but not scored yet (no metrics.json in it).\n"
        "  Continue it: the same mmcl train command with --resume"
    )


@pytest.mark.parametrize("seeds", [[], [1, 1], [-1]])
def test_seeds_that_make_no_sense_are_refused(tmp_path, tiny_corpus, seeds):
    with pytest.raises(UsageError) as caught:
        train(tiny_corpus, out=tmp_path / "run", seeds=seeds)
    assert str(caught.value) == f"seeds must be different whole numbers from 0 on, got {seeds}"
    assert not (tmp_path / "run").exists()


def test_seeds_too_large_for_torch_are_refused(tmp_path, tiny_corpus):
    with pytest.raises(UsageError) as caught:
        train(tiny_corpus, out=tmp_path / "run", seeds=[1, 2**63])
    assert str(caught.value) == (
        "seeds must be at most 9,223,372,036,854,775,807, got 9223372036854775808"
    )
    assert not (tmp_path / "run").exists()


def test_folder_that_cannot_be_made_is_refused(tmp_path, tiny_corpus):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError) as caught:
        train(tiny_corpus, out=tmp_path / "file")
    assert str(caught.value) == (
        f"{tmp_path}/file: no run can be kept here (File exists).\n"
        "  Give a new folder where you may write: --out"
    )


def test_free_folder_is_found(tmp_path, monkeypatch, tiny_corpus, tiny_config):
    monkeypatch.chdir(tmp_path)
    config = tiny_config("learning.epochs=1")
    assert [str(train(tiny_corpus, config).folder) for _ in range(2)] == [
        "runs/planted-calibrated-1",
        "runs/planted-calibrated-2",
    ]


# ---------------------------------------------------------------- prediction


def test_predict_is_the_mean_of_the_seeds(run, tiny_corpus):
    table = run.predict(tiny_corpus).to_pydict()
    assert list(table) == ["id", "split", "prediction", "spread"]
    every = tiny_corpus.every_clip()
    assert table["id"] == every.ids
    assert table["split"] == ["train"] * 24 + ["valid"] * 8 + ["test"] * 8
    saved = pq.read_table(run.folder / "predictions.parquet").to_pydict()
    for at, clip in list(enumerate(table["id"]))[24:]:
        each = [p for i, p in zip(saved["id"], saved["prediction"], strict=True) if i == clip]
        assert table["prediction"][at] == pytest.approx(np.mean(each), abs=TOLERANCE)
        assert table["spread"][at] == pytest.approx(np.std(each, ddof=1), abs=TOLERANCE)


def test_labels_change_no_prediction(run, tiny_corpus, tiny_settings):
    hidden = _without_labels(tiny_settings)
    assert np.isnan(hidden.split("train").labels()).all()
    assert run.predict(hidden).equals(run.predict(tiny_corpus))


def test_predict_tells_how_far_it_is(run, tiny_corpus):
    told = []
    run.predict(tiny_corpus, advance=told.append)
    assert sum(told) == 2 * 40


@pytest.mark.parametrize("task", ["classes", "emotions"])
@pytest.mark.parametrize("seeds", [(1,), (1, 2)], ids=["one-seed", "two-seeds"])
def test_predictions_are_names(tmp_path, planted, tiny_config, task, seeds):
    corpus = planted(task=task)
    run = train(corpus, tiny_config(), out=tmp_path / "run", seeds=seeds)
    table = run.predict(corpus).to_pydict()
    names = corpus.card.task.names
    if task == "classes":
        assert set(table["prediction"]) <= set(names)
    else:
        assert all(set(held) <= set(names) for held in table["prediction"])
    if len(seeds) == 1:
        assert table["spread"] == [None] * 40
    else:
        assert all(0 <= spread <= 1 for spread in table["spread"])
    report = run.metrics
    assert list(report["references"]) == ["majority", "ridge"]
    assert report["preset"] is None
    key = "accuracy" if task == "classes" else f"accuracy_{names[0]}"
    assert key in report["test"], list(report["test"])


# ---------------------------------------------------------------- what does not fit


def _toy(dims, task):
    clip = Clip(
        id="0",
        split="test",
        features={m: np.ones((2, width), np.float32) for m, width in dims.items()},
    )
    card = Card(name="toy", task=task, dims=dims, counts={}, aligned=False)
    return pack_corpus(card, [clip])


@pytest.mark.parametrize(
    ("dims", "task", "faults"),
    [
        pytest.param(
            {"text": 96, "audio": 7, "vision": 5},
            Task(kind="regression", low=-3, high=3),
            "  audio: 7 features per step, the run was trained on 48\n"
            "  vision: 5 features per step, the run was trained on 24\n",
            id="widths",
        ),
        pytest.param(
            {"text": 96},
            Task(kind="classes", names=("calm", "cross")),
            "  its task is classes of calm, cross, the run's is regression\n",
            id="task",
        ),
        pytest.param(
            {"text": 3},
            Task(kind="classes", names=("calm", "cross")),
            "  text: 3 features per step, the run was trained on 96\n"
            "  its task is classes of calm, cross, the run's is regression\n",
            id="both",
        ),
    ],
)
@pytest.mark.parametrize("ask", ["predict", "evaluate"])
def test_corpus_that_does_not_fit_is_refused(run, dims, task, faults, ask):
    with pytest.raises(RunError) as caught:
        getattr(run, ask)(_toy(dims, task))
    assert str(caught.value) == (
        f"{run.folder}: the corpus 'toy' does not fit.\n{faults}"
        "  See what the corpus holds: mmcl corpus describe CORPUS"
    )


def test_corpus_without_any_modality_of_the_run_is_refused(tmp_path, tiny_corpus, tiny_config):
    config = tiny_config('model.modalities=["text"]', "learning.epochs=1")
    run = train(tiny_corpus, config, out=tmp_path / "run")
    with pytest.raises(RunError) as caught:
        run.predict(_toy({"audio": 48}, Task(kind="regression", low=-3, high=3)))
    assert str(caught.value) == (
        f"{run.folder}: the corpus 'toy' does not fit.\n"
        "  it has audio, the run was trained on text\n"
        "  See what the corpus holds: mmcl corpus describe CORPUS"
    )


def test_corpus_with_fewer_modalities_fits(run):
    found = run.predict(_toy({"text": 96}, Task(kind="regression", low=-3, high=3)))
    assert math.isfinite(found.column("prediction")[0].as_py())


# ---------------------------------------------------------------- what is noted


def test_corpus_without_split_or_labels_is_scored_as_far_as_it_goes(run):
    report = run.evaluate(_toy({"text": 96}, Task(kind="regression", low=-3, high=3)))
    assert report["valid"] == report["references"] == {}
    assert report["test"]["mae"]["mean"] is None
    assert report["notes"] == [
        "the corpus has no audio: predicted without it",
        "the corpus has no vision: predicted without it",
        'the corpus has no split "valid"',
        "test: 1 of 1 items have no truth and were left out",
        "test: no item is left to score: every metric is undefined",
    ]


def test_corpus_of_another_range_is_told_from_the_runs(run):
    report = run.evaluate(_toy({"text": 96}, Task(kind="regression", low=1, high=5)))
    assert report["notes"][0] == (
        "predictions lie in the run's range, -3..3; the corpus says 1..5 of its labels: "
        "do not compare the two as they are"
    )
    assert any(note.startswith("scores lie in 1..5: Acc-2 and F1 ask") for note in report["notes"])
    assert "acc7" not in report["test"]


def test_released_on_unaligned_says_what_it_was_given(tmp_path, planted, tiny_config):
    config = tiny_config("model.steps=12", model="released")
    run = train(planted(aligned=False), config, out=tmp_path / "run")
    note = (
        "released needs equal lengths: every modality was brought to 12 steps (longer ones "
        "averaged in segments, shorter ones repeated, absent ones zero)"
    )
    assert note in run.metrics["notes"]
    # What the network does, it does to any corpus: the note goes with the network.
    assert note in run.evaluate(planted(aligned=True))["notes"]


def test_released_on_aligned_says_nothing_and_takes_no_other(
    tmp_path, tiny_corpus, planted, tiny_config
):
    run = train(tiny_corpus, tiny_config(model="released"), out=tmp_path / "run")
    assert not [note for note in run.metrics["notes"] if "released" in note]
    with pytest.raises(RunError) as caught:
        run.evaluate(planted(aligned=False))
    assert str(caught.value) == (
        f"{run.folder}: the corpus 'planted' does not fit.\n"
        "  it is not aligned, and released was trained on a corpus that is\n"
        "  See what the corpus holds: mmcl corpus describe CORPUS"
    )


def test_calibrated_on_aligned_takes_unaligned_too(run, planted):
    assert run.evaluate(planted(aligned=False))["notes"] == []


def test_calibrated_on_unaligned_says_nothing(tmp_path, planted, tiny_config):
    run = train(planted(aligned=False), tiny_config(), out=tmp_path / "run")
    assert not [note for note in run.metrics["notes"] if "equal lengths" in note]


@pytest.mark.parametrize("variant", ["calibrated", "released"])
def test_modality_never_seen_in_training_is_noted_and_ignored(
    tmp_path, tiny_corpus, tiny_settings, tiny_config, variant
):
    def take_text(clip):
        if clip.split != "train":
            return clip
        rest = {m: steps for m, steps in clip.features.items() if m != "text"}
        return clip.model_copy(update={"features": rest})

    corpus = _changed(tiny_settings, take_text, recipe={})
    run = train(corpus, tiny_config(model=variant), out=tmp_path / "run")
    note = "text was never seen in training: no training clip has it, so prediction ignores it"
    assert run.metrics["notes"][0] == note
    assert run.model().never_seen == ("text",)

    def change_text(clip):
        features = {m: -5 * x if m == "text" else x for m, x in clip.features.items()}
        return clip.model_copy(update={"features": features})

    other = _changed(tiny_settings, change_text, recipe={})
    assert run.predict(other).equals(run.predict(tiny_corpus))


@pytest.mark.parametrize("task", ["classes", "emotions"])
def test_test_clips_alone_are_scored(tmp_path, planted, tiny_config, task):
    corpus = planted(task=task)
    run = train(corpus.development(), tiny_config("learning.epochs=1"), out=tmp_path / "run")
    test = pack_corpus(corpus.card, corpus.open_test_split().clips())
    report = run.evaluate(test)
    assert (report["valid"], report["references"]) == ({}, {})
    assert next(iter(report["test"].values()))["num_valid"] == 1


def test_evaluate_without_a_label_says_so(run, tiny_settings):
    report = run.evaluate(_without_labels(tiny_settings))
    assert report["test"]["mae"]["mean"] is None
    assert "test: 8 of 8 items have no truth and were left out" in report["notes"]


def test_notes_of_the_corpus_come_along(tmp_path, tiny_settings, tiny_config):
    corpus = _changed(tiny_settings, lambda clip: clip, notes=("found by its reader",))
    run = train(corpus, tiny_config("learning.epochs=1"), out=tmp_path / "run")
    assert run.metrics["notes"][0] == "found by its reader"


@pytest.mark.parametrize("variant", ["calibrated", "released"])
def test_released_says_that_missing_steps_are_zeros_to_it(
    tmp_path, tiny_settings, tiny_config, variant
):
    corpus = _changed(tiny_settings, lambda clip: clip, missing_as_zero=True)
    config = tiny_config("learning.epochs=1", model=variant)
    run = train(corpus, config, out=tmp_path / "run")
    note = (
        "released knows one length per clip: steps that are missing are zeros to it, "
        "and not left out"
    )
    assert (note in run.metrics["notes"]) == (variant == "released")


def test_without_test_clips_validation_alone_is_scored(tmp_path, tiny_corpus, tiny_config):
    run = train(tiny_corpus.development(), tiny_config(), out=tmp_path / "run")
    assert run.metrics["test"] == {}
    assert run.metrics["valid"]["mae"]["num_valid"] == 1
    assert 'the corpus has no split "test"' in run.metrics["notes"]
    assert set(run.metrics["references"]["ridge"]) == {"valid"}


@pytest.fixture
def changed_run(tmp_path, tiny_corpus, tiny_config):
    """Return a function that changes the run.json of a run of version 9.1, and its folder."""
    folder = tmp_path / "run"
    train(tiny_corpus, tiny_config("learning.epochs=1"), out=folder)

    def change(alter):
        description = json.loads((folder / "run.json").read_text())
        description["environment"]["versions"]["mmcl"] = "9.1"
        alter(description)
        (folder / "run.json").write_text(json.dumps(description))
        return folder

    return change


def test_run_of_a_model_that_is_not_installed_is_refused(changed_run):
    folder = changed_run(lambda run: run["config"]["model"].update(name="gone"))
    with pytest.raises(RunError) as caught:
        Run.load(folder)
    assert str(caught.value) == (
        f'{folder}/run.json: cannot be opened: no model "gone" is installed here.\n'
        "  Install what it was trained with, or train it again: mmcl train CORPUS --out NEW"
    )


@pytest.mark.parametrize(
    ("alter", "line"),
    [
        pytest.param(
            lambda run: run["config"]["learning"].update(warmup=3),
            "learning.warmup: not known here",
            id="unknown-setting",
        ),
        pytest.param(
            lambda run: run["config"].update(tracking={"server": "x"}),
            "tracking: not known here",
            id="unknown-section",
        ),
        pytest.param(
            lambda run: run["config"]["learning"].pop("patience"),
            "learning.patience: missing",
            id="missing-setting",
        ),
        pytest.param(
            lambda run: run["config"].pop("policy"), "policy: missing", id="missing-section"
        ),
        pytest.param(
            lambda run: run["config"]["model"].update(positions="learned"),
            "model.positions: must be a valid boolean, unable to interpret input, got 'learned'",
            id="other-type",
        ),
        pytest.param(
            lambda run: run.update(config=[]),
            "config: must be a table, got []",
            id="no-table",
        ),
        pytest.param(lambda run: run.pop("corpus"), "corpus: missing", id="no-card"),
        pytest.param(
            lambda run: run["corpus"].update(licence="CC"),
            "corpus.licence: not known here",
            id="card",
        ),
        pytest.param(
            lambda run: run.update(seeds="1"),
            "seeds: must be different whole numbers, one at least, got '1'",
            id="seeds",
        ),
    ],
)
def test_run_of_another_version_is_refused_by_its_names(changed_run, alter, line):
    folder = changed_run(alter)
    with pytest.raises(RunError) as caught:
        Run.load(folder)
    assert str(caught.value) == (
        f"{folder}/run.json: 1 value does not fit mmcl {metadata.version('mmcl')}; "
        "mmcl 9.1 wrote it.\n"
        f"  {line}\n"
        '  Install the version that wrote it: pip install "mmcl==9.1"\n'
        "  Or train it again: mmcl train CORPUS --out NEW"
    )


def test_run_of_another_version_is_not_continued(changed_run, tiny_corpus, tiny_config):
    folder = changed_run(lambda run: run["config"]["learning"].update(warmup=3))
    with pytest.raises(RunError, match=r"learning\.warmup: not known here"):
        train(tiny_corpus, tiny_config("learning.epochs=1"), out=folder, resume=True)


def test_network_of_another_version_is_refused_by_its_names(changed_run):
    folder = changed_run(lambda _: None)
    path = folder / "seed-1" / "model" / "config.json"
    content = json.loads(path.read_text())
    content["model"]["rotary"] = True
    path.write_text(json.dumps(content))
    with pytest.raises(RunError) as caught:
        Run.load(folder).model()
    assert str(caught.value) == (
        f"{path}: 1 value does not fit mmcl {metadata.version('mmcl')}; "
        "it does not say which version wrote it.\n"
        "  rotary: not known here\n"
        "  Train it again: mmcl train CORPUS --out NEW"
    )
