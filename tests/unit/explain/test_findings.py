"""Conclusions: every verdict in words, and no more than the numbers say."""

import pytest

from mmcl.explain.findings import conclusions


def _row(curve, score, against, gain, p):
    numbers = {"area": 0.41, "other_area": 0.36, "gain": gain, "low": 0.0, "high": 0.0, "p": p}
    return {"curve": curve, "score": score, "against": against, **numbers}


@pytest.fixture
def content():
    """Make content of one comparison each, with the same sign and p."""

    def make(gain, p, *, probes=True, deletion=(0.2, 0.3, 0.9)):
        probe = {"without": 0.5, "increment": gain, "low": -0.01, "high": 0.25, "p": p}
        return {
            "curves": {
                "comparisons": [
                    _row("deletion", "actions", "random", gain, p),
                    _row("insertion", "moments", "integrated_gradients", gain, p),
                ],
                "deletion": {"actions": {"error": list(deletion)}},
            },
            "policies": {
                "errors": {"learned": 0.25, "ones": 0.3},
                "comparisons": [{"against": "ones", "gain": gain, "p": p}],
            },
            "probes": {"score": "R²", "modalities": {"audio": probe}} if probes else None,
            "planted": None,
            "redundancy": [
                {"common": {"value": 0.5}, "complementary": {"value": 0.1}},
                {"common": {"value": 0.7}, "complementary": {"value": 0.2}},
                {"common": {"value": None}, "complementary": {"value": None}},
            ],
        }

    return make


def test_what_was_found_is_said(content):
    assert conclusions(content(0.05, 0.0005)) == [
        "Deleting what the policies keep hurts more than deleting at random: "
        "area under the error 0.410 against 0.360, larger is better, p < 0.001.",
        "Inserting what is common or kept first helps more than inserting by integrated "
        "gradients: area under the error 0.410 against 0.360, smaller is better, p < 0.001.",
        "The learned actions err less than keeping every step: error 0.250 against 0.300, "
        "p < 0.001.",
        "The complementary features of audio add to a linear model that has the rest: "
        "R² +0.050 (−0.010 to +0.250), p < 0.001.",
        "The common parts of the modalities are more alike than the complementary ones: "
        "CKA 0.600 against 0.150, mean over pairs.",
    ]


@pytest.mark.parametrize(
    ("gain", "p", "verbs"),
    [
        (
            0.05,
            0.05,
            ["does not hurt more than", "does not help more than", "are not better than"],
        ),
        (-0.05, 0.0499, ["hurts less than", "helps less than", "err more than"]),
        (0.05, 0.0499, ["hurts more than", "helps more than", "err less than"]),
    ],
    ids=["chance", "worse", "better"],
)
def test_verdicts(content, gain, p, verbs):
    found = conclusions(content(gain, p))
    assert all(verb in sentence for verb, sentence in zip(verbs, found, strict=False))
    probed = {0.05: "add nothing to", -0.05: "harm"}[gain] if p >= 0.05 or gain < 0 else "add to"
    assert f"features of audio {probed} a linear model" in found[3]


def test_no_probe_is_not_mentioned(content):
    assert not any("linear model" in each for each in conclusions(content(1.0, 0.0, probes=False)))


def test_a_network_that_is_thrown_off_is_told_of(content):
    found = conclusions(content(1.0, 0.0, deletion=(0.2, 1.2, 1.0)))
    assert found[2] == (
        "With a part of the steps deleted the error reaches 1.200, above the 1.000 with none "
        "left: the network is also thrown off by what is missing, so a large area under "
        "deletion is not all due to what the steps tell."
    )
    quiet = conclusions(content(1.0, 0.0, deletion=(0.2, 1.04, 1.0)))
    assert not any("thrown off" in each for each in quiet)


def test_like_common_parts_are_not_claimed(content):
    changed = content(1.0, 0.0)
    changed["redundancy"][0]["complementary"]["value"] = 5.0
    assert "are not more alike" in conclusions(changed)[-1]
    assert "CKA" not in conclusions({**changed, "redundancy": []})[-1]


def test_planted_steps_that_were_kept_are_counted(content):
    planted = {
        "kept": {"mean": 0.14},
        "kept_precision": {"mean": 0.61},
        "kept_recall": {"mean": 0.893},
    }
    assert conclusions({**content(0.05, 0.0005), "planted": planted})[-1] == (
        "The policies keep 14% of the steps. Of these 61% are planted complementary steps, and "
        "89% of the planted ones are kept."
    )


def test_nothing_is_said_of_planted_steps_where_none_is_kept(content):
    planted = {key: {"mean": None} for key in ("kept", "kept_precision", "kept_recall")}
    found = content(0.05, 0.0005)
    assert conclusions({**found, "planted": planted}) == conclusions(found)
