"""Transcripts in json, in the forms of the usual tools."""

import json

import pytest

from mmcl.corpus.schema import Word
from mmcl.errors import MediaError
from mmcl.media.transcripts.json_files import is_json, read_json
from mmcl.media.utterances import Utterance


def read(content):
    utterances, notes = read_json("a.json", json.dumps(content))
    assert not notes
    return utterances


def test_whisper_x():
    words = [
        {"word": "So", "start": 0, "end": 0.4, "score": 0.9, "speaker": "SPEAKER_00"},
        {"word": "2"},  # numbers get no times
    ]
    segments = [
        {"start": 0, "end": 1, "text": " So 2", "words": words, "speaker": "SPEAKER_01"},
        {"start": 1, "end": 2, "text": "So 2", "words": words},
        {"start": 2, "end": 3, "text": "so"},
    ]
    spoken = (Word(text="So", start=0, end=0.4), Word(text="2"))
    assert read({"segments": segments, "word_segments": words, "language": "en"}) == [
        Utterance(0, 1, " So 2", spoken, "SPEAKER_01"),
        Utterance(1, 2, "So 2", spoken, "SPEAKER_00"),
        Utterance(2, 3, "so"),
    ]


def test_whisper_cpp():
    segment = {
        "timestamps": {"from": "00:00:00,500", "to": "00:00:02,000"},
        "offsets": {"from": 500, "to": 2000},
        "text": " so good",
    }
    assert read({"systeminfo": "", "transcription": [segment]}) == [Utterance(0.5, 2, " so good")]


def test_youtube():
    events = [
        {"tStartMs": 0, "dDurationMs": 9000, "id": 1, "wpWinPosId": 1},
        {
            "tStartMs": 800,
            "dDurationMs": 5900,
            "segs": [{"utf8": "this", "acAsrConf": 0}, {"utf8": " film", "tOffsetMs": 425}],
        },
        {"tStartMs": 3700, "dDurationMs": 10, "aAppend": 1, "segs": [{"utf8": "\n"}]},
        {
            "tStartMs": 3800,
            "dDurationMs": 2000,
            "segs": [{"utf8": "was so\n"}, {"utf8": "good", "tOffsetMs": 900}],
        },
    ]
    assert read({"wireMagic": "pb3", "events": events}) == [
        Utterance(
            0.8,
            3.8,
            "this film",
            (
                Word(text="this", start=0.8, end=1.225),
                Word(text=" film".strip(), start=1.225, end=1.65),
            ),
        ),
        Utterance(3.8, 5.8, "was so\ngood"),
    ]


def test_text_alone():
    assert read({"text": "so good"}) == [Utterance(None, None, "so good")]


def test_words_of_the_whole_text_are_pieces_of_their_own():
    """As OpenAI's interface writes them: the words lack the marks that the text has."""
    words = [{"word": "Hi", "start": 0, "end": 0.5}, {"word": "there", "start": 0.5, "end": 1}]
    assert read({"text": "Hi there.", "words": words, "duration": 2.0}) == [
        Utterance(0, 0.5, "Hi"),
        Utterance(0.5, 1, "there."),
    ]
    (whole,) = read({"text": "Hi you there.", "words": words})
    assert whole[:3] == (0, 1, "Hi you there.")


def test_words_of_vosk():
    words = [{"conf": 1, "start": 0.5, "end": 1.0, "word": "so"}]
    assert read({"text": "so", "result": words}) == [Utterance(0.5, 1.0, "so")]


def test_chunks_of_transformers():
    chunks = [{"text": " so", "timestamp": [0.5, 1.0]}, {"text": " no", "timestamp": [1.0, None]}]
    assert read({"text": " so no", "chunks": chunks}) == [
        Utterance(0.5, 1.0, " so"),
        Utterance(None, None, " no"),
    ]


def test_starts_and_durations():
    """As youtube-transcript-api writes them: captions last into the next one."""
    items = [
        {"text": "a", "start": 0.5, "duration": 3.0},
        {"text": "b", "start": 2.0, "duration": 1.5},
        {"text": "c", "start": 9, "duration": 1},
    ]
    assert read(items) == [
        Utterance(0.5, 2.0, "a"),
        Utterance(2.0, 3.5, "b"),
        Utterance(9, 10, "c"),
    ]


def test_whole_numbers_far_apart_are_milliseconds():
    """As AssemblyAI writes them."""
    words = [{"text": "so", "start": 250, "end": 650}]
    item = {"text": "so", "start": 250, "end": 1200, "speaker": "A", "words": words}
    content = {"status": "completed", "text": "so", "utterances": [item]}
    assert read_json("a.json", json.dumps(content)) == (
        [Utterance(0.25, 1.2, "so", (Word(text="so", start=0.25, end=0.65),), "A")],
        ["its times were read as milliseconds"],
    )


def test_youtube_without_times_is_refused():
    with pytest.raises(MediaError) as caught:
        read({"events": [{"segs": [{"utf8": "so"}]}]})
    assert str(caught.value) == (
        '"a.json", utterance 1: expected "tStartMs" and "dDurationMs" as numbers with every text.'
    )


def test_words_that_are_no_list_are_refused():
    with pytest.raises(MediaError) as caught:
        read([{"text": "so", "words": {"so": 1}}])
    assert str(caught.value) == (
        '"a.json", utterance 1: expected "words" to be a list, got {\'so\': 1}.'
    )


def test_times_of_the_words_that_have_some():
    words = [{"word": "2"}, {"word": "so", "start": 1, "end": 2}, {"word": "3"}]
    assert read([{"words": words}])[0][:3] == (1, 2, "2 so 3")


def test_deep_nesting_is_refused():
    with pytest.raises(MediaError) as caught:
        read_json("a.json", "[" * 100_000)
    assert str(caught.value) == '"a.json": its JSON is nested too deeply for a transcript.'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"text": "a"}', True),
        ('\n[{"text": "a"}]', True),
        ("[]", False),
        ("[1]", False),
        ("[Music]", False),
        ("{\\an8}so", False),
        ("[" * 100_000, False),
    ],
)
def test_is_json(text, expected):
    assert is_json(text) is expected
