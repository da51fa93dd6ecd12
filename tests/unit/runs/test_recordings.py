"""Recordings: predicted like the clips of a corpus, or refused."""

import json
from importlib.metadata import version
from types import SimpleNamespace

import numpy as np
import pytest

from fakes.words import FakeModels
from mmcl.corpus.plant import plant_card, plant_clips
from mmcl.corpus.store import pack_corpus
from mmcl.errors import MediaError, RunError
from mmcl.media.recipe import Recipe
from mmcl.runs import recordings
from mmcl.runs.recordings import predict_media, recipe_of
from mmcl.runs.run import Run, train


@pytest.fixture
def media(tmp_path):
    path = tmp_path / "a film.mp4"
    path.write_bytes(b"film")
    return path


class _Extractor:
    """Finds the first clips of the planted corpus in every file, none of which has a face."""

    models = FakeModels()

    def __init__(self, clips, versions=None):
        self.recipe = Recipe(versions=versions or {})
        self.clips, self.asked = clips, []

    def extract(self, path, *, transcript=None):
        self.asked.append((path, transcript))
        clips = [
            clip.model_copy(
                update={
                    "split": "test",
                    "features": {m: x for m, x in clip.features.items() if m != "vision"},
                }
            )
            for clip in self.clips
        ]
        spans = [(2.0 * at, 2.0 * at + 1.5) for at in range(len(clips))]
        return SimpleNamespace(clips=clips, spans=spans, notes=("no face", "no face"))


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_settings, tiny_config):
    recipe = {"extraction": Recipe(versions={"av": "1", "mmcl": "2"}).model_dump()}
    card = plant_card(tiny_settings).model_copy(update={"recipe": recipe})
    corpus = pack_corpus(card, list(plant_clips(tiny_settings)))
    folder = tmp_path_factory.mktemp("timeline") / "run"
    return train(corpus, tiny_config("learning.epochs=1"), out=folder, seeds=(1, 2))


@pytest.fixture
def clips(tiny_settings):
    return list(plant_clips(tiny_settings))[:3]


def test_recording_is_predicted_like_a_corpus(run, clips, media):
    extractor, told = _Extractor(clips), []
    timeline = predict_media(
        run, media, transcript="said", extractor=extractor, progress=told.append
    )
    assert extractor.asked == [(media, "said")]
    assert told == ["extracting words, voice and face", "predicting"]
    bare = [
        clip.model_copy(update={"features": {m: clip.features[m] for m in ("text", "audio")}})
        for clip in clips
    ]
    expected = run.predict(pack_corpus(run.card, bare)).column("prediction").to_pylist()
    assert [m.prediction for m in timeline.moments] == expected
    assert [m.present for m in timeline.moments] == [("text", "audio")] * 3
    assert timeline.spans == ((0.0, 1.5), (2.0, 3.5), (4.0, 5.5))
    assert (timeline.name, timeline.error) == ("a film.mp4", run.validation_error)
    assert timeline.notes == ("no face",)
    assert np.isfinite(timeline.moments[0].word_share).all()


def test_other_versions_are_noted(run, clips, media):
    extractor = _Extractor(clips, {"av": "1", "mmcl": "3"})
    assert predict_media(run, media, extractor=extractor).notes == (
        "no face",
        "extracted with mmcl 3, the corpus of the run with 2",
    )


def test_version_of_mmcl_is_not_noted_of_the_starter(run, clips, media, monkeypatch):
    monkeypatch.setattr(recordings, "STARTER", run.folder.parent)
    extractor = _Extractor(clips, {"av": "1", "mmcl": "3"})
    assert predict_media(run, media, extractor=extractor).notes == ("no face",)


def test_recording_without_an_utterance_is_refused(run, media):
    with pytest.raises(MediaError) as caught:
        predict_media(run, media, extractor=_Extractor([]))
    assert str(caught.value) == (
        '"a film.mp4": no words were heard, no voice was heard and no face was seen, so there is '
        "nothing to judge.\n  Expected a recording of someone who speaks."
    )


def test_recording_of_other_widths_is_refused(run, clips, media):
    text = clips[0].features["text"][:, :7]
    other = clips[0].model_copy(update={"features": {"text": text}})
    with pytest.raises(RunError) as caught:
        predict_media(run, media, extractor=_Extractor([other]))
    assert str(caught.value).splitlines()[:2] == [
        f"{run.folder}: the corpus 'a film.mp4' does not fit.",
        "  text: 7 features per step, the run was trained on 96",
    ]


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        pytest.param(
            {},
            "{}: was trained on features that mmcl did not extract, so it cannot read "
            '"a film.mp4".\n'
            "  Train on a corpus made by mmcl extract, or give a corpus with features like its own",
            id="foreign",
        ),
        pytest.param(
            {"extraction": {"frame_rate": -1, "colour": "red", "versions": {"mmcl": "9.1"}}},
            f"{{}}: its recipe of extraction: 2 values do not fit mmcl {version('mmcl')}; "
            "mmcl 9.1 wrote it.\n"
            "  colour: not known here\n"
            "  frame_rate: must be greater than 0, got -1\n"
            '  Install the version that wrote it: pip install "mmcl==9.1"\n'
            "  Or make its corpus again with mmcl extract, and train again",
            id="other-version",
        ),
    ],
)
def test_run_without_a_recipe_is_refused(run, media, tmp_path, recipe, message):
    description = json.loads((run.folder / "run.json").read_text())
    description["corpus"]["recipe"] = recipe
    with pytest.raises(RunError) as caught:
        recipe_of(Run(tmp_path, description), media)
    assert str(caught.value) == message.format(tmp_path)
