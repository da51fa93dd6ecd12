"""Extraction with stand-ins for the models: cuts, missing modalities, and notes."""

import time
from types import SimpleNamespace

import numpy as np
import pytest

from mmcl.corpus.schema import Task, Word
from mmcl.errors import MediaError
from mmcl.media import extract as home
from mmcl.media import spoken
from mmcl.media.extract import Extractor, card_of
from mmcl.media.face import FACE_COLUMNS, FaceTrack
from mmcl.media.recipe import SAMPLE_RATE, Recipe
from mmcl.media.stages import StageClock
from mmcl.media.utterances import moved_words
from mmcl.media.voice import VOICE_COLUMNS

SAID = (("hello", 0.1, 0.4), ("there", 0.5, 0.8), ("bye", 2.0, 2.4))


class FakeText:
    """Encoder whose vector of a word is its length and its place in the sentence."""

    def encode(self, sentences):
        return [
            np.array([[len(w), at] for at, w in enumerate(words)], np.float32).reshape(-1, 2)
            for words in sentences
        ]


class FakeRecogniser:
    """Recogniser that hears the same words in every piece of sound."""

    def __init__(self, said, sure=0.9):
        self.said, self.sure = said, sure
        self.given = []

    def hears(self, language):
        return language in ("en", "de")

    def transcribe(self, audio, language=None):
        self.given.append((len(audio) / SAMPLE_RATE, language))
        words = tuple(Word(text=t, start=a, end=b) for t, a, b in self.said)
        return SimpleNamespace(
            words=words, language=language or "en", word_probabilities=(self.sure,) * len(words)
        )


class FakeTracker:
    """Tracker of a face whose columns all hold the time plus one, except where it is hidden."""

    def __init__(self, hidden=lambda time: False, note=None):
        self.hidden, self.note = hidden, note

    def track(self, frames, loudness):
        self.loudness = loudness
        times = np.array([frame.time for frame in frames], np.float64)
        found = np.array([not self.hidden(time) for time in times], bool)
        steps = np.ones((len(times), len(FACE_COLUMNS)), np.float32) * (times[:, None] + 1)
        steps = (steps * found[:, None]).astype(np.float32)
        return FaceTrack(times, steps, found, found.astype(np.int64), self.note)


@pytest.fixture
def make_extractor(monkeypatch):
    monkeypatch.setattr(home, "with_versions", lambda recipe: recipe)
    # The sounds are tones, in which no word can be searched for.
    monkeypatch.setattr(spoken, "refine_times", lambda audio, words: words)

    def make(said=SAID, *, tracker=None, **recipe):
        models = SimpleNamespace(
            text=FakeText(), recogniser=FakeRecogniser(said), tracker=tracker or FakeTracker()
        )
        return Extractor(Recipe(**recipe), models)

    return make


@pytest.fixture
def talk(make_media, grey_pictures, tone):
    """Three seconds of pictures, ten a second, and a tone."""
    pictures = [picture for picture in grey_pictures(6) for _ in range(5)]
    return make_media("talk.mp4", pictures=pictures, sound=[(0.0, tone(3.0))])


def test_a_step_per_word_and_a_clip_per_utterance(talk, make_extractor):
    found = make_extractor().extract(talk)
    assert found.spans == [(0.1, 0.8), (2.0, 2.4)]
    first, second = found.clips
    assert [clip.id for clip in found.clips] == ["talk/0", "talk/1"]
    assert (first.text, second.text) == ("hello there", "bye")
    assert first.words == (
        Word(text="hello", start=0.0, end=0.3),
        Word(text="there", start=0.4, end=0.7),
    )
    assert {m: steps.shape for m, steps in first.features.items()} == {
        "text": (2, 2),
        "audio": (2, len(VOICE_COLUMNS)),
        "vision": (2, len(FACE_COLUMNS)),
    }
    # Pictures at .1, .2 and .3 lie in "hello"; the face is the time plus one.
    np.testing.assert_allclose(first.features["vision"][:, 0], [1.2, 1.6], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(second.features["text"], [[3, 0]])
    assert (found.notes, found.language) == ((), "en")
    assert found.duration == pytest.approx(3.0, abs=0.1)  # of a codec's frame
    assert list(found.timings) == list(home.STAGES)
    assert min(found.timings.values()) >= 0


def test_native_keeps_every_modality_at_its_rate(talk, make_extractor):
    found = make_extractor(alignment="native", audio_rate=20.0, frame_rate=5.0).extract(talk)
    shapes = {m: len(steps) for m, steps in found.clips[0].features.items()}
    assert shapes == {"text": 2, "audio": 14, "vision": 4}  # of .7 seconds


def test_egemaps_take_the_place_of_the_voice(talk, make_extractor, monkeypatch, tmp_path):
    path = tmp_path / "talk.json"
    path.write_text(
        '[{"text": "hello", "words": [{"word": "hello", "start": 0.1, "end": 0.4}]},'
        ' {"text": "bye", "words": [{"word": "bye", "start": 2.0, "end": 2.4}]}]'
    )

    def steps(audio):
        return np.arange(100 * len(audio) // SAMPLE_RATE, dtype=np.float32)[:, None] * np.ones(25)

    monkeypatch.setattr(home, "egemaps_steps", steps)
    monkeypatch.setattr(home, "EGEMAPS_PIECE", 2.0)  # two pieces
    extractor = make_extractor(voice="egemaps")
    first, second = extractor.extract(talk, transcript=path).clips
    # Steps .1 to .4 s, and those from 2 s on, which are the first of the second piece.
    assert first.features["audio"][0, 0] == pytest.approx(24.5, abs=1.0)
    assert second.features["audio"][0, 0] == pytest.approx(19.5, abs=1.0)
    card = home.card_of(
        extractor.recipe,
        {"audio": 25},
        task=Task(kind="regression", low=-3, high=3),
        counts={"test": 2},
        name="talk",
    )
    assert card.columns["audio"][0] == "Loudness_sma3"


def test_word_without_a_face_is_a_step_of_zeros(talk, make_extractor):
    tracker = FakeTracker(hidden=lambda time: time > 0.45)
    found = make_extractor(tracker=tracker).extract(talk)
    vision = found.clips[0].features["vision"]
    assert vision[0].all()
    assert not vision[1].any()
    assert "vision" not in found.clips[1].features
    assert found.notes == ("vision is missing in 1 of 2 utterances",)


def test_all_of_a_file_can_be_one_clip(talk, make_extractor):
    found = make_extractor().extract(talk, span=(0.0, float("inf")), video_id="v")
    (clip,) = found.clips
    assert (clip.id, clip.text, len(clip.words)) == ("v/0", "hello there bye", 3)
    assert clip.words[0] == Word(text="hello", start=0.1, end=0.4)
    assert found.spans[0][0] == 0.0


def test_a_stretch_has_a_clock_of_its_own(talk, make_extractor):
    extractor = make_extractor(said=(("late", 0.0, 0.4),))
    found = extractor.extract(talk, span=(1.5, 2.5))
    (clip,) = found.clips
    assert found.spans == [(1.5, 2.5)]
    assert clip.words == (Word(text="late", start=0.0, end=0.4),)
    np.testing.assert_allclose(clip.features["vision"][:, 0], [1.5 + 1.15], rtol=0, atol=1e-6)
    assert extractor.models.recogniser.given == [(1.0, None)]


def test_the_voice_of_a_stretch_is_the_one_heard_in_it(make_media, tone, make_extractor):
    sound = [(0.0, np.concatenate([0.01 * tone(1.5), tone(1.5)]))]
    path = make_media("louder.wav", sound=sound, sound_codec="pcm_s16le")
    found = make_extractor(said=(("low", 0.1, 0.3), ("high", 0.7, 0.9))).extract(path, span=(1, 3))
    loudness = found.clips[0].features["audio"][:, VOICE_COLUMNS.index("log_energy")]
    np.testing.assert_allclose(loudness, [-49.0, -9.0], rtol=0, atol=0.5)  # of sines, in decibels


def test_stretch_outside_the_file(make_media, tone, make_extractor):
    path = make_media("talk.wav", sound=[(0.0, tone(3.0))], sound_codec="pcm_s16le")
    with pytest.raises(MediaError) as caught:
        make_extractor().extract(path, span=(7.0, 8.0))
    assert str(caught.value) == (
        '"talk.wav" lasts 3.00 s; expected a stretch inside it, got 7..8 s.'
    )


def test_language_is_the_recipe_s_where_it_has_one(talk, make_extractor):
    extractor = make_extractor(language="de")
    assert extractor.extract(talk).language == "de"
    assert [language for _, language in extractor.models.recogniser.given] == ["de"]


def test_decoding_is_not_counted_twice():
    def slow():
        for at in range(3):
            time.sleep(0.03)
            yield at

    clock = StageClock()
    with clock.stage("vision"):
        assert list(clock.decoding(slow(), "vision")) == [0, 1, 2]
    assert clock.seconds["decode"] >= 0.09
    assert 0 <= clock.seconds["vision"] < 0.03


# ---------------------------------------------------------------- words that are recognised


@pytest.fixture
def refined(monkeypatch):
    """Record the sounds in which recognised words are searched for; each is found 0.1 s later."""
    searched = []

    def refine_times(audio, words):
        searched.append((len(audio) / SAMPLE_RATE, [word.text for word in words]))
        return moved_words(words, 0.1)

    def switch_on():
        monkeypatch.setattr(spoken, "refine_times", refine_times)
        return searched

    return switch_on


@pytest.mark.parametrize("language", [None, "en"])
def test_recognised_english_is_aligned_before_it_is_cut(talk, make_extractor, refined, language):
    extractor = make_extractor(language=language)
    searched = refined()
    found = extractor.extract(talk)
    assert [words for _, words in searched] == [["hello", "there", "bye"]]
    np.testing.assert_allclose(found.spans, [(0.2, 0.9), (2.1, 2.5)], rtol=0, atol=1e-6)
    assert found.clips[1].words == (Word(text="bye", start=0.0, end=0.4),)


def test_other_languages_keep_the_recogniser_s_times(talk, make_extractor, refined):
    extractor = make_extractor(language="de")
    searched = refined()
    assert extractor.extract(talk).spans == [(0.1, 0.8), (2.0, 2.4)]
    assert searched == []


def test_pieces_are_aligned_one_by_one_and_cut_at_the_aligned_pause(
    talk, make_extractor, refined, monkeypatch
):
    monkeypatch.setattr(spoken, "PIECE", 1.0)
    extractor = make_extractor(said=(("a", 0.0, 0.2), ("b", 0.6, 0.8)))
    searched = refined()
    found = extractor.extract(talk, span=(0, 9))
    assert searched[0] == (1.0, ["a", "b"])
    # Each piece starts at .5 s of the one before, in the middle of the pause that was aligned.
    starts = [word.start for word in found.clips[0].words]
    assert starts[:3] == pytest.approx([0.1, 0.6, 1.1])


# ---------------------------------------------------------------- words that are given


def test_text_without_times_is_aligned(talk, make_extractor, monkeypatch):
    asked = []

    def time_words(audio, text, *, language, recogniser):
        asked.append((len(audio) / SAMPLE_RATE, text, language))
        return tuple(
            Word(text=word, start=at + 0.5, end=at + 1.0) for at, word in enumerate(text.split())
        )

    monkeypatch.setattr(spoken, "time_words", time_words)
    found = make_extractor(language="de").extract(talk, transcript="ja nun", span=(0, 9))
    assert asked[0][1:] == ("ja nun", "de")
    assert found.clips[0].words[1] == Word(text="nun", start=1.5, end=2.0)
    assert found.language == "de"


def test_transcript_with_times_is_cut_as_it_is(talk, make_extractor, monkeypatch, tmp_path):
    path = tmp_path / "talk.srt"
    path.write_text(
        "1\n00:00:00,200 --> 00:00:01,000\nso it\n\n2\n00:00:01,500 --> 00:00:02,500\ngoes\n"
    )

    def time_words(audio, text, *, language, recogniser):
        words = text.split()
        step = len(audio) / SAMPLE_RATE / len(words)
        return tuple(
            Word(text=w, start=at * step, end=(at + 1) * step) for at, w in enumerate(words)
        )

    monkeypatch.setattr(spoken, "time_words", time_words)
    found = make_extractor().extract(talk, transcript=path)
    assert found.spans == [(0.2, 1.0), (1.5, 2.5)]
    assert [clip.text for clip in found.clips] == ["so it", "goes"]
    assert found.clips[0].words[1] == Word(text="it", start=0.4, end=0.8)
    assert found.clips[1].words == (Word(text="goes", start=0.0, end=1.0),)


def test_transcript_of_another_file_is_refused(talk, make_extractor, tmp_path):
    path = tmp_path / "talk.json"
    path.write_text(
        '[{"text": "so", "start": 1, "end": 2}, {"text": "late", "start": 8, "end": 9}]'
    )
    with pytest.raises(MediaError) as caught:
        make_extractor().extract(talk, transcript=path)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith('"talk.json" has 1 time that does not fit its clip of 3.0')
    assert lines[1].startswith("  utterance 2: ")
    assert lines[2:] == [
        "  Expected 0 <= start < end <= the clip's length. Is it of another file?",
        "  Correct it, or take it away: what is said is recognised then.",
    ]


def test_words_of_a_transcript_with_times_are_taken_as_they_are(talk, make_extractor, tmp_path):
    path = tmp_path / "talk.json"
    words = '[{"word": "so", "start": 1.0, "end": 1.2}, {"word": "it", "start": 1.5, "end": 1.6}]'
    path.write_text('[{"text": "So it", "words": ' + words + "}]")
    (clip,) = make_extractor().extract(talk, transcript=path).clips
    assert clip.text == "So it"
    assert clip.words == (Word(text="so", start=0.0, end=0.2), Word(text="it", start=0.5, end=0.6))


def test_transcript_without_times_is_aligned(talk, make_extractor, monkeypatch, tmp_path):
    path = tmp_path / "talk.txt"
    path.write_text("so it\ngoes\n")

    def time_words(audio, text, *, language, recogniser):
        assert text == "so it goes"
        return tuple(
            Word(text=w, start=float(at), end=at + 0.3) for at, w in enumerate(text.split())
        )

    monkeypatch.setattr(spoken, "time_words", time_words)
    found = make_extractor().extract(talk, transcript=path)
    assert [clip.text for clip in found.clips] == ["so", "it", "goes"]  # .7 s apart


def test_fragments_are_joined_and_cut_at_pauses(talk, make_extractor, monkeypatch, tmp_path):
    path = tmp_path / "talk.srt"
    pieces = ("0.1 0.3 so", "0.3 0.6 it", "0.6 0.8 goes", "1.6 2.0 and then", "2.0 2.4 on")
    cues = ("0:0{} --> 0:0{}\n{}\n".format(*piece.split(maxsplit=2)) for piece in pieces)
    path.write_text("\n".join(cues))

    def time_words(audio, text, *, language, recogniser):
        assert text == "and then"
        return (Word(text="and", start=0.0, end=0.2), Word(text="then", start=0.2, end=0.4))

    monkeypatch.setattr(spoken, "time_words", time_words)
    found = make_extractor().extract(talk, transcript=path)
    assert [clip.text for clip in found.clips] == ["so it goes", "and then on"]
    assert found.spans == [(0.1, 0.8), (1.6, 2.4)]
    assert [word.start for word in found.clips[0].words] == pytest.approx([0.0, 0.2, 0.5])
    assert found.notes == (
        "transcript: its 5 pieces have 1 to 3 words each: they were joined, and cut at their "
        "pauses",
    )
    (whole,) = make_extractor().extract(talk, transcript=path, span=(0, 1.5)).clips
    assert whole.text == "so it goes"


def test_language_asked_for_is_taken_of_two(talk, make_extractor, monkeypatch, tmp_path):
    path = tmp_path / "talk.srt"
    path.write_text("0:00 --> 0:01\n你好。\nSo it.\n\n0:01 --> 0:02\n好吗？\nGoes?\n")
    monkeypatch.setattr(spoken, "time_words", lambda *_, **__: (Word(text="so", start=0, end=1),))
    found = make_extractor(language="en").extract(talk, transcript=path)
    assert [clip.text for clip in found.clips] == ["So it.", "Goes?"]


def test_transcript_names_the_speakers(talk, make_extractor, monkeypatch, tmp_path):
    """With times; without them, where the words of one end those of the next begin."""
    subtitles, lines = tmp_path / "talk.srt", tmp_path / "talk.txt"
    subtitles.write_text(
        "1\n00:00:00,200 --> 00:00:01,000\nANNA: so it\n\n2\n00:00:01,500 --> 00:00:02,500\ngoes\n"
    )
    lines.write_text("[Anna]: so it\n[Ben]: goes on\n[Anna]: yes")

    def time_words(audio, text, *, language, recogniser):
        words = text.split()
        return tuple(Word(text=w, start=n / 4, end=n / 4 + 0.2) for n, w in enumerate(words))

    monkeypatch.setattr(spoken, "time_words", time_words)

    def speakers(path, span=None):
        found = make_extractor().extract(talk, transcript=path, span=span)
        assert "transcript: speaker names: " in " ".join(found.notes)
        return [(clip.text, clip.speaker) for clip in found.clips]

    assert speakers(subtitles) == [("so it", "ANNA"), ("goes", None)]
    assert speakers(lines) == [("so it", "Anna"), ("goes on", "Ben"), ("yes", "Anna")]
    assert speakers(subtitles, span=(0, 9)) == [("so it goes", "ANNA")]
    assert speakers(lines, span=(0, 9)) == [("so it goes on yes", "Anna, Ben")]


def test_subtitle_may_outlast_the_sound(talk, make_extractor, monkeypatch, tmp_path):
    path = tmp_path / "talk.vtt"
    path.write_text("WEBVTT\n\n00:01.000 --> 00:05.000\nso<00:00:02.000><c> it</c>\n")
    found = make_extractor().extract(talk, transcript=path)
    (span,) = found.spans
    assert span[0] == 1.0
    assert span[1] == found.duration
    assert found.clips[0].words[1] == Word(text="it", start=1.0, end=round(found.duration - 1, 6))
    assert "transcript: 1 utterance ended 2.0 s after the recording: cut at its end" in found.notes


def test_text_of_a_file_without_sound_is_spread_evenly(make_media, grey_pictures, make_extractor):
    path = make_media("mute.mp4", pictures=grey_pictures(10))
    found = make_extractor().extract(path, transcript="yes no", span=(0, 1))
    assert found.clips[0].words == (
        Word(text="yes", start=0.0, end=0.5),
        Word(text="no", start=0.5, end=1.0),
    )
    assert list(found.clips[0].features) == ["text", "vision"]
    assert found.notes == (
        "no sound: audio is left out",
        "the words have no times without sound: words are spread evenly over what was said",
    )


def test_text_in_a_language_the_model_does_not_hear_is_spread_evenly(talk, make_extractor):
    found = make_extractor(language="es").extract(talk, transcript="si no", span=(0, 1))
    assert found.clips[0].words == (
        Word(text="si", start=0.0, end=0.5),
        Word(text="no", start=0.5, end=1.0),
    )
    assert found.notes == (
        'the speech model does not hear "es": words are spread evenly over what was said',
    )


def test_doubtful_words_are_said_to_be(talk, make_extractor):
    extractor = make_extractor()
    extractor.models.recogniser.sure = 0.54
    assert extractor.extract(talk).notes == (
        "the words are doubtful (probability 0.54 on average): give a transcript, or a language "
        "and a speech model that hears it",
    )


# ---------------------------------------------------------------- what is not there


def test_file_without_words_has_steps_of_a_second(talk, make_extractor):
    found = make_extractor(said=()).extract(talk)
    (clip,) = found.clips
    assert list(clip.features) == ["audio", "vision"]
    assert len(clip.features["audio"]) == len(clip.features["vision"]) == len(clip.words)
    assert clip.words[:2] == (Word(text="", start=0.0, end=1.0), Word(text="", start=1.0, end=2.0))
    assert clip.text is None
    assert found.notes == ("no words: it is one utterance without text, its steps are seconds",)
    assert found.language is None


def test_file_without_words_at_its_own_rates(talk, make_extractor):
    found = make_extractor(said=(), alignment="native").extract(talk)
    assert list(found.clips[0].features) == ["audio", "vision"]
    assert found.clips[0].words is None
    assert found.notes == ("no words: it is one utterance without text",)


def test_sound_without_pictures(make_media, tone, make_extractor):
    path = make_media("talk.wav", sound=[(0.0, tone(3.0))], sound_codec="pcm_s16le")
    found = make_extractor().extract(path)
    assert list(found.clips[0].features) == ["text", "audio"]
    assert found.notes == ("no pictures: vision is left out",)


def test_fifty_milliseconds(make_media, tone, make_extractor):
    path = make_media("click.wav", sound=[(0.0, tone(0.05))], sound_codec="pcm_s16le")
    found = make_extractor(said=()).extract(path)
    assert found.clips[0].features["audio"].shape == (1, len(VOICE_COLUMNS))
    assert found.spans == [(0.0, 0.05)]
    assert found.notes == (
        "no pictures: vision is left out",
        "no words: it is one utterance without text, its steps are seconds",
    )


def test_silence_and_nobody(make_media, grey_pictures, make_extractor):
    path = make_media("room.mp4", pictures=grey_pictures(10), sound=[(0.0, np.zeros(16_000))])
    with pytest.raises(MediaError) as caught:
        make_extractor(tracker=FakeTracker(hidden=lambda time: True)).extract(path)
    assert str(caught.value) == (
        '"room.mp4" holds no words, no sound and no face, so nothing to learn from.\n'
        "  Expected a recording of someone who speaks."
    )


def test_silence_is_no_sound(make_media, grey_pictures, make_extractor):
    path = make_media("room.mp4", pictures=grey_pictures(10), sound=[(0.0, np.zeros(16_000))])
    extractor = make_extractor()
    found = extractor.extract(path)
    assert list(found.clips[0].features) == ["vision"]
    assert found.notes[0] == "its sound is silence: audio is left out"
    assert extractor.models.tracker.loudness is None


def test_no_face_and_the_tracker_s_own_words(talk, make_extractor):
    nobody = FakeTracker(hidden=lambda time: True, note="no face in any of the 30 pictures")
    found = make_extractor(tracker=nobody).extract(talk)
    assert found.notes == ("no face in any of the 30 pictures: vision is left out",)
    three = FakeTracker(note="3 faces; followed the largest, at the left")
    assert make_extractor(tracker=three).extract(talk).notes == (three.note,)
    assert three.loudness(1.0) == pytest.approx(-9.0, abs=0.5)  # half of full scale, a sine


# ---------------------------------------------------------------- ends that are missing


@pytest.fixture(params=[("talk.wav", "pcm_s16le"), ("talk.au", "pcm_s16be")], ids=["wav", "au"])
def cut_talk(make_media, tone, request):
    """A sound of three seconds by its header, of which 1.4 s are there.

    FFmpeg believes the header of au, and not that of wav.
    """
    name, codec = request.param
    path = make_media(name, sound=[(0.0, tone(3.0))], sound_codec=codec)
    path.write_bytes(path.read_bytes()[: 44 + 2 * int(1.4 * SAMPLE_RATE)])
    return path


def test_what_is_left_of_a_file_is_kept_and_said(cut_talk, make_extractor):
    found = make_extractor(said=SAID[:2]).extract(cut_talk)
    assert found.spans == [(0.1, 0.8)]
    assert found.notes == (
        "it ends at 1.4 of 3.0 s: the rest is missing",
        "no pictures: vision is left out",
    )
    assert found.duration == pytest.approx(1.4, abs=0.01)


def test_a_clip_of_a_file_that_is_cut_short_ends_where_the_file_does(cut_talk, make_extractor):
    found = make_extractor(said=()).extract(cut_talk, span=(0.0, float("inf")))
    (clip,) = found.clips
    assert found.spans[0][1] == pytest.approx(1.4, abs=0.01)
    assert len(clip.words) == 2  # steps of a second


def test_a_stretch_that_is_there_is_not_missing(cut_talk, make_extractor):
    found = make_extractor(said=(("hello", 0.1, 0.4),)).extract(cut_talk, span=(0.0, 1.0))
    assert found.notes == ("no pictures: vision is left out",)


def test_a_stretch_in_the_end_that_is_missing(cut_talk, make_extractor):
    with pytest.raises(MediaError) as caught:
        make_extractor().extract(cut_talk, span=(2.0, 3.0))
    assert str(caught.value) == (
        f'"{cut_talk.name}" ends at 1.40 s, although its header says 3.00 s; '
        "expected a stretch inside it, got 2..3 s."
    )


SUBTITLES = """1
00:00:00,100 --> 00:00:00,400
hello

2
00:00:01,000 --> 00:00:02,000
my dear

3
00:00:02,100 --> 00:00:02,900
goodbye
"""


@pytest.fixture
def subtitles(tmp_path, monkeypatch):
    """Subtitles of the talk, whose words are all found at once."""
    monkeypatch.setattr(
        spoken,
        "time_words",
        lambda audio, text, **_: tuple(Word(text=w, start=0.0, end=0.1) for w in text.split()),
    )
    path = tmp_path / "talk.srt"
    path.write_text(SUBTITLES)
    return path


def test_utterances_in_the_end_that_is_missing_are_said(cut_talk, make_extractor, subtitles):
    found = make_extractor().extract(cut_talk, transcript=subtitles)
    assert [clip.text for clip in found.clips] == ["hello", "my dear"]
    assert found.spans[1] == pytest.approx((1.0, 1.4), abs=0.01)
    assert found.notes[:3] == (
        "it ends at 1.4 of 3.0 s: the rest is missing",
        '1 of 3 utterances of "talk.srt" begin after 1.4 s, where the file ends, and are left out',
        'an utterance of "talk.srt" goes on after 1.4 s: it is cut off',
    )


def test_subtitles_of_a_whole_file_may_end_a_little_later(
    make_media, tone, make_extractor, subtitles
):
    path = make_media("talk.wav", sound=[(0.0, tone(2.8))], sound_codec="pcm_s16le")
    found = make_extractor().extract(path, transcript=subtitles)
    assert len(found.clips) == 3
    assert found.notes == ("no pictures: vision is left out",)


@pytest.mark.parametrize("as_file", [True, False])
def test_text_that_may_go_on_where_the_file_ends(
    cut_talk, make_extractor, subtitles, tmp_path, as_file
):
    text = tmp_path / "said.txt"
    text.write_text("hello my dear")
    found = make_extractor().extract(cut_talk, transcript=text if as_file else text.read_text())
    assert found.notes[-1] == "no pictures: vision is left out"
    note = "the text may go on where the file ends: the times of its last words are then wrong"
    assert note in found.notes


def test_sound_that_is_lost_leaves_the_pictures(make_media, grey_pictures, tone, make_extractor):
    """As in an mp4 that stores all pictures first, and was cut short."""
    path = make_media("talk.mkv", pictures=grey_pictures(20), sound=[(0.0, tone(2.0))])
    extractor = make_extractor()
    ends = home.ends_of(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(home, "ends_of", lambda path: ends._replace(audio=None))
        found = extractor.extract(path)
        assert found.notes[0] == "nothing of its sound is left: audio is left out"
        patch.setattr(home, "ends_of", lambda path: ends._replace(video=None))
        found = extractor.extract(path)
        assert found.notes[0] == "nothing of its pictures is left: vision is left out"


# ---------------------------------------------------------------- channels


@pytest.mark.parametrize("with_pictures", [True, False])
def test_channels_that_cancel_each_other_out(
    make_media, grey_pictures, tone, make_extractor, with_pictures
):
    path = make_media(
        "talk.mkv",
        pictures=grey_pictures(30) if with_pictures else None,
        sound=[(0.0, np.stack([tone(3.0), -tone(3.0)]))],
        sound_codec="flac",
        sound_layout="stereo",
    )
    found = make_extractor().extract(path)
    assert [clip.text for clip in found.clips] == ["hello there", "bye"]
    loudness = found.clips[0].features["audio"][:, VOICE_COLUMNS.index("log_energy")]
    np.testing.assert_allclose(loudness, -9.0, rtol=0, atol=0.5)  # half of full scale, a sine
    assert found.notes[0] == (
        "its two channels cancel each other out in 3.0 s (one of them is upside down): "
        "the left channel is read alone"
    )


# ---------------------------------------------------------------- what is in no utterance


def test_voice_outside_all_utterances_is_said(make_media, tone, make_extractor):
    sound = [(0.0, np.concatenate([tone(6.0), 0.01 * tone(2.0), tone(1.0)]))]
    path = make_media("talk.wav", sound=sound, sound_codec="pcm_s16le")
    found = make_extractor().extract(path)
    # Of 9 s, 1.1 are in utterances and 2 are too quiet.
    assert found.notes[-1] == (
        "7.9 of 9.0 s are in no utterance, the longest stretch from 2.4 to 9.0 s; "
        "5.9 s of these sound like a voice"
    )


def test_a_long_stretch_without_an_utterance_is_said(make_media, tone, make_extractor):
    sound = [(0.0, np.concatenate([tone(2.4), np.zeros(11 * SAMPLE_RATE)]))]
    path = make_media("talk.wav", sound=sound, sound_codec="pcm_s16le")
    found = make_extractor().extract(path)
    assert found.notes[-1] == (
        "12.3 of 13.4 s are in no utterance, the longest stretch from 2.4 to 13.4 s"
    )


def test_a_clip_that_is_one_utterance_has_nothing_outside(make_media, tone, make_extractor):
    path = make_media("talk.wav", sound=[(0.0, tone(9.0))], sound_codec="pcm_s16le")
    assert make_extractor().extract(path, span=(0.0, 9.0)).notes == (
        "no pictures: vision is left out",
    )


# ---------------------------------------------------------------- long files


def test_a_long_file_is_heard_in_pieces_that_end_at_a_pause(talk, make_extractor, monkeypatch):
    monkeypatch.setattr(spoken, "PIECE", 1.0)
    extractor = make_extractor(said=(("a", 0.0, 0.2), ("b", 0.6, 0.9)))
    found = extractor.extract(talk, span=(0, 9))
    # Pieces start at 0, .4 (the middle of the pause), .8 and so on; the last is whole.
    starts = [word.start for word in found.clips[0].words]
    assert starts[:3] == [0.0, 0.4, 0.8]
    assert extractor.models.recogniser.given[1] == (1.0, "en")


def test_pictures_are_not_kept(talk, make_extractor):
    class Watching(FakeTracker):
        def track(self, frames, loudness):
            assert iter(frames) is frames
            return super().track(frames, loudness)

    assert make_extractor(tracker=Watching()).extract(talk).clips


# ---------------------------------------------------------------- card


def test_card_says_how_it_was_made():
    from mmcl.corpus.schema import Task

    recipe = Recipe(alignment="native", versions={"av": "1"})
    card = card_of(
        recipe,
        {"vision": len(FACE_COLUMNS), "text": 2},
        task=Task(kind="regression", low=-3, high=3),
        counts={"test": 1},
        name="talks",
        language="en",
    )
    assert card.recipe == {"extraction": recipe.model_dump(mode="json")}
    assert list(card.dims) == ["text", "vision"]
    assert card.columns == {"text": ("text_0", "text_1"), "vision": FACE_COLUMNS}
    assert (card.aligned, card.missing_as_zero, card.language) == (False, True, "en")
