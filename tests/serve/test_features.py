"""Features as JSON: what they become, and every fault in its own words."""

import json

import numpy as np
import pytest

from mmcl.errors import MMCLError
from mmcl.serve.features import Expected, read_features
from mmcl.serve.limits import Limits

EXPECTED = Expected("talks", {"text": 3, "audio": 2}, ("text", "audio"))
LIMITS = Limits(max_clips=2, max_steps=4)
STEP = [1, 2.5, -3]


def read(clips, expected=EXPECTED):
    return read_features(json.dumps({"clips": clips}).encode(), expected, LIMITS)


def test_clips_become_arrays_of_what_they_have():
    first, second = read(
        [
            {"id": "a", "text": [STEP, [4, 5, 6]], "audio": [[0.5, 1e-9]] * 3},
            {"text": None, "audio": [[7, 8]]},
        ]
    )
    assert (first.id, second.id) == ("a", "1")
    assert (list(first.steps), list(second.steps)) == (["text", "audio"], ["audio"])
    np.testing.assert_array_equal(first.steps["text"], np.array([STEP, [4, 5, 6]], np.float32))
    assert first.steps["audio"].dtype == np.float32
    assert (first.longest, second.longest) == (3, 1)


TWO_STEPS = '{"clips": [{"text": [[1, 2, 3], %s]}]}'
VALUE = '{"clips": [{"audio": [[1, 2], [3, @]]}]}'


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param(
            "nothing",
            "the request is not JSON: expected ident at line 1 column 2.",
            id="no-json",
        ),
        pytest.param(
            "[1]",
            'the request must be {"clips": [...]}, got a list.\n'
            '  A clip: {"id": "a", "text": [[0.1, ...], ...], "audio": null}',
            id="list",
        ),
        pytest.param(
            '{"clip": []}',
            'the request must be {"clips": [...]}, got an object with ["clip"].\n'
            '  A clip: {"id": "a", "text": [[0.1, ...], ...], "audio": null}',
            id="no-clips",
        ),
        pytest.param(
            '{"clips": [{}], "clip": 1}',
            'unknown key "clip"; did you mean "clips"?',
            id="another-key",
        ),
        pytest.param(
            '{"clips": []}', '"clips" is empty; expected one clip at least.', id="no-clip"
        ),
        pytest.param('{"clips": [7]}', "clip 0 must be an object, got the number 7.", id="number"),
        pytest.param(
            '{"clips": [{"txt": null}]}',
            'clip 0: unknown key "txt"; did you mean "text"?',
            id="misspelt",
        ),
        pytest.param(
            '{"clips": [{"id": 5}]}',
            "clip 0: id must be a text of at most 200 characters, got the number 5.",
            id="id",
        ),
        pytest.param(
            '{"clips": [{"id": "a", "text": null}]}',
            "clip 0 has none of ['text', 'audio'], which is what talks predicts from.",
            id="nothing",
        ),
        pytest.param(
            '{"clips": [{"vision": [[1]]}]}',
            "clip 0: talks was trained without vision.\n"
            "  It takes text (3 numbers), audio (2 numbers)",
            id="not-trained-with",
        ),
        pytest.param(
            '{"clips": [{"text": []}]}',
            "clip 0: text must be a list of steps, one at least, got an empty list.\n"
            "  Where there is no text: null",
            id="no-step",
        ),
        pytest.param(
            '{"clips": [{"text": "what a film"}]}',
            'clip 0: text must be a list of steps, one at least, got the text "what a film".\n'
            "  Where there is no text: null",
            id="words",
        ),
        pytest.param(
            TWO_STEPS % "[1, 2]",
            "clip 0: text must be a list of steps, each a list of 3 numbers; step 1 has 2.",
            id="ragged",
        ),
        pytest.param(
            TWO_STEPS % '[1, "2", 3]',
            "clip 0: text must be a list of steps, each a list of 3 numbers; "
            'step 1 holds the text "2".',
            id="text-number",
        ),
        pytest.param(
            TWO_STEPS % "[1, null, 3]",
            "clip 0: text must be a list of steps, each a list of 3 numbers; step 1 holds null.",
            id="null",
        ),
        pytest.param(
            TWO_STEPS % "7",
            "clip 0: text must be a list of steps, each a list of 3 numbers; "
            "step 1 is the number 7.",
            id="flat",
        ),
        pytest.param(
            '{"clips": [{"text": [[true, false, true]]}]}',
            "clip 0: text must be a list of steps, each a list of 3 numbers; step 0 holds true.",
            id="booleans",
        ),
        pytest.param(
            '{"clips": [{"text": [[[1, 2, 3]]]}]}',
            "clip 0: text must be a list of steps, each a list of 3 numbers; step 0 has 1.",
            id="too-deep",
        ),
        pytest.param(
            '{"clips": [{"text": [[1, 2]]}]}',
            "clip 0: text must have 3 features per step, got 2",
            id="width",
        ),
        *(
            pytest.param(
                VALUE.replace("@", value),
                "audio holds NaN or infinity in clip 0 of the batch.\n"
                "  Send zeros for a step that was not measured, null for a modality that was not.",
                id=f"value-{value}",
            )
            for value in ("NaN", "Infinity", "-Infinity", "1e400", "1e39")
        ),
        pytest.param(
            '{"clips": [{"text": [[1,2,3],[1,2,3],[1,2,3],[1,2,3],[1,2,3]]}]}',
            "clip 0: text has 5 steps; expected at most 4.\n  Send them in several requests.",
            id="steps",
        ),
        pytest.param(
            '{"clips": [{}, {}, {}]}',
            "the request has 3 clips; expected at most 2.\n  Send them in several requests.",
            id="clips",
        ),
    ],
)
def test_faults_are_named(body, message):
    with pytest.raises(MMCLError) as caught:
        read_features(body.encode(), EXPECTED, LIMITS)
    assert str(caught.value) == message


def test_equal_lengths_where_the_model_needs_them():
    clips = [{"text": [STEP], "audio": [[1, 2]]}, {"text": [STEP], "audio": [[1, 2]] * 2}]
    assert len(read(clips)) == 2
    with pytest.raises(MMCLError) as caught:
        read(clips, EXPECTED._replace(equal_lengths=True))
    assert str(caught.value) == (
        "clip 1: talks takes clips with as many steps in every modality, "
        "got {'text': 1, 'audio': 2}."
    )


@pytest.mark.parametrize("body", [b"\xff", b"[" * 100_000, b'{"clips": [' + b"[" * 5000])
def test_strange_bytes_are_refused(body):
    with pytest.raises(MMCLError, match="the request is not JSON"):
        read_features(body, EXPECTED, LIMITS)
