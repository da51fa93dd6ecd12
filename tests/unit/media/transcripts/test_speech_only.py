"""What is said, by whom, with the words that belong to it."""

from mmcl.corpus.schema import Word
from mmcl.media.transcripts.speech_only import speech_only
from mmcl.media.utterances import Utterance


def pieces(*texts):
    return [Utterance(float(n), n + 1.0, text) for n, text in enumerate(texts)]


def said(*texts):
    return [(utterance.text, utterance.speaker) for utterance in speech_only(pieces(*texts))[0]]


def test_voices_of_vtt():
    utterances, notes = speech_only(
        pieces("<v Anna Smith>Hello</v>", "<v.loud Ben>Hi</v> <v Anna Smith>again", "so")
    )
    assert [(u.text, u.speaker) for u in utterances] == [
        ("Hello", "Anna Smith"),
        ("Hi again", "Ben, Anna Smith"),
        ("so", None),
    ]
    assert notes == ["speaker names: Anna Smith, Ben", "1 utterance holds what several people say"]


def test_speaker_of_live_captions_goes_on_until_the_next():
    assert said("&gt;&gt; ANNA: one", "two", ">> three", "four >> BEN: five", "six") == [
        ("one", "ANNA"),
        ("two", "ANNA"),
        ("three", None),
        ("four five", "BEN"),
        ("six", "BEN"),
    ]


def test_speaker_on_a_line_of_its_own():
    assert said("ANNA:\nHello", "so")[0] == ("Hello", "ANNA")
    assert said("Anna:", "Hello.", "So.", "Ben:", "Yes.") == [
        ("Hello.", "Anna"),
        ("So.", "Anna"),
        ("Yes.", "Ben"),
    ]


def test_dialogue_in_one_cue():
    utterances, notes = speech_only(pieces("- No.\n- Yes.", "- Oh. - So.", "- One", "-5 and - x"))
    assert [u.text for u in utterances] == ["No. Yes.", "Oh. So.", "One", "-5 and - x"]
    assert notes == ["2 utterances hold what several people say"]


def test_credits_are_looked_for_at_both_ends_only():
    credit = "Subtitles by Ben"
    utterances, notes = speech_only(pieces(credit, "a", "b", credit, "c", "d", credit))
    assert [u.text for u in utterances] == ["a", "b", credit, "c", "d"]
    assert notes == [f"what is about the subtitles themselves was left out: {credit}"]


def test_notes_are_short():
    sounds = [f"[sound {n}] so" for n in range(6)]
    assert speech_only(pieces(*sounds))[1] == [
        "6 sounds were left out: [sound 0], [sound 1], [sound 2], [sound 3] and 2 more"
    ]


def test_given_speaker_wins_over_the_text():
    piece = Utterance(0.0, 1.0, "BEN: Yes.", speaker="SPEAKER_01")
    utterances, notes = speech_only([piece, *pieces("so")])
    assert utterances[0][2:] == ("Yes.", (), "SPEAKER_01")
    assert notes == ["speaker names: SPEAKER_01"]
    dialogue = Utterance(0.0, 1.0, "- Yes.\n- No.", speaker="SPEAKER_01")
    assert speech_only([dialogue])[1] == ["speaker names: SPEAKER_01"]


def words(*texts):
    return tuple(Word(text=text, start=n, end=n + 1) for n, text in enumerate(texts))


def test_words_follow_the_text():
    spoken = words("ANNA:", "oh", "[laughs]", "oh", "no")
    piece = Utterance(0.0, 5.0, "ANNA: oh [laughs] oh no", spoken)
    utterances, _ = speech_only([piece, *pieces("so")])
    assert utterances[0].words == (spoken[1], spoken[3], spoken[4])


def test_words_of_an_unchanged_text_stay_as_they_are():
    spoken = words("我", "很", "喜欢")
    assert speech_only([Utterance(0.0, 3.0, " 我很喜欢 ", spoken)])[0][0].words == spoken
    changed = Utterance(0.0, 3.0, "[音乐]我很喜欢", words("[音乐]", "我", "很", "喜欢"))
    assert [w.text for w in speech_only([changed])[0][0].words] == ["我", "很", "喜欢"]


def test_words_that_do_not_fit_the_text_are_found_anew():
    piece = Utterance(0.0, 3.0, "[Music] so good", words("so", "fine"))
    assert speech_only([piece])[0][0].words == ()


def test_song_that_goes_on_in_the_next_subtitle():
    assert said("\u266a la la", "and so on \u266a", "He said hi.") == [("He said hi.", None)]
    assert said("\u266a la la", "he said", "and so on \u266a")[0] == ("he said", None)
