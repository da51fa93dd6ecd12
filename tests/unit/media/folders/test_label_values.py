"""Labels decided by looking: decimal commas, scales, words, classes."""

import pytest

from mmcl.corpus.schema import Task
from mmcl.errors import MediaError
from mmcl.media.folders.label_values import decimal_comma_note, find_task, read_score

SCORES = Task(kind="regression", low=-3, high=3)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        *(("1", 1.0), ("-0.5", -0.5), ("+.5", 0.5), ("2.", 2.0), ("1E-1", 0.1), ("1,5", 1.5)),
        *(("-,5", -0.5), ("\N{MINUS SIGN}0,6", -0.6)),
        *((text, None) for text in ("", "1_5", "nan", "inf", "1,5,2", "1.234,5", "50%", "x", "１")),
    ],
)
def test_numbers(text, number):
    assert read_score(text) == number


# ---------------------------------------------------------------- decimal commas


def note(*cells):
    return decimal_comma_note("label", {f"row {n}": cell for n, cell in enumerate(cells, 2)})


def test_decimal_commas_are_noted_where_they_are_certain():
    assert note("0", "1,5", "-0,6") == 'column "label" has decimal commas: "1,5" is read as 1.5'
    assert note("0", "1.5", "so") is None
    # Three digits may be thousands, but not after a 0 or beside other commas.
    assert note("0,667", "-1,333") is not None
    assert note("1,333", "2,5") is not None


def test_decimal_commas_beside_points_are_refused():
    with pytest.raises(MediaError) as caught:
        note("0", "1.5", "-0,6")
    assert str(caught.value) == (
        '"label.csv": column "label" has both decimal commas and decimal points: '
        '"-0,6" (row 4) and "1.5" (row 3).\n'
        "  Expected one of them. Write every score with a point, as 1.5."
    )


@pytest.mark.parametrize("cells", [("1,234", "2"), ("-2,500", "1,000")])
def test_commas_that_may_be_those_of_thousands_are_refused(cells):
    with pytest.raises(MediaError) as caught:
        note(*cells)
    first = cells[0]
    assert str(caught.value) == (
        f'"label.csv": column "label" holds "{first}" (row 2), which may be '
        f"{first.replace(',', '.')} or {first.replace(',', '')}.\n"
        "  Write every score with a decimal point and without commas between thousands."
    )


# ---------------------------------------------------------------- scores


def refusal(labels, kind=None, label_range=None):
    with pytest.raises(MediaError) as caught:
        find_task(labels, kind, label_range)
    return str(caught.value)


@pytest.mark.parametrize("kind", [None, "regression"])
def test_words_are_refused_as_scores(kind):
    labels = ["happy", "sad", "happy", "angry", "calm", "neutral", "1"]
    assert refusal(labels, kind) == (
        '"label.csv": column "label" holds no scores, but "happy" (2), "sad" (1), "angry" (1) '
        "and 2 other values.\n"
        "  For classes: --task classes. For scores, write them as 1.5."
    )


@pytest.mark.parametrize("label", ["50%", "1.234,5", "01. Mai", "3/5"])
def test_scores_in_a_form_that_is_not_read_do_not_become_classes_lightly(label):
    assert refusal([label, label]) == (
        f'"label.csv": column "label" holds no scores, but "{label}" (2).\n'
        "  Expected scores as 1.5, or classes: --task classes"
    )


@pytest.mark.parametrize(
    ("labels", "outside", "described", "ways"),
    [
        pytest.param(
            ["1", "2", "3", "4", "5", "5", "4"],
            4,
            "whole numbers from 1 to 5",
            "\n  For classes: --task classes",
            id="1-to-5",
        ),
        pytest.param(
            ["1", "2", "3"] * 20 + ["4", "5"],
            2,
            "whole numbers from 1 to 5",
            "\n  For classes: --task classes",
            id="1-to-5-mostly-low",
        ),
        pytest.param(["12.5", "99.5", "0"], 2, "numbers from 0 to 99.5", "", id="0-to-100"),
        pytest.param(
            [str(n) for n in range(100)], 96, "whole numbers from 0 to 99", "", id="too-many"
        ),
    ],
)
def test_labels_of_another_scale_name_both_ways(labels, outside, described, ways):
    assert refusal(labels) == (
        f'"label.csv": {outside} of {len(labels)} labels lie outside -3..3, the range unless '
        f"another is given. They are {described}.\n"
        f"  For scores, give the ends of their scale: --label-range LOW HIGH{ways}"
    )


def test_a_slip_among_many_labels_is_left_to_its_row():
    labels = ["35", *["1.5", "-2"] * 20]
    assert find_task(labels, None, None) == (SCORES, [])


@pytest.mark.parametrize(
    ("labels", "described", "classes"),
    [
        (["0", "1", "2"], "whole numbers from 0 to 2", "; for classes: --task classes"),
        (["-1", "0", "1"], "whole numbers from -1 to 1", "; for classes: --task classes"),
        (["-0.8", "0.4"], "numbers from -0.8 to 0.4", ""),
        (["0.5", "2.5"], "numbers from 0.5 to 2.5", ""),
    ],
)
def test_labels_that_may_be_of_another_scale_are_noted(labels, described, classes):
    note = (
        f"the labels are {described}, and are read as scores in -3..3; "
        "for another scale: --label-range LOW HIGH"
    )
    assert find_task(labels, None, None) == (SCORES, [note + classes])
    # Who says that they are scores is still told about the range, but not about classes.
    assert find_task(labels, "regression", None) == (SCORES, [note])
    # Who gives the range has said all.
    assert find_task(labels, None, (-3, 3)) == (SCORES, [])


@pytest.mark.parametrize("labels", [[], ["1"], ["1", "1"], ["-2", "0", "1"], ["nan", "n/a"]])
def test_labels_of_which_nothing_is_to_be_said(labels):
    assert find_task(labels, None, None) == (SCORES, [])


def test_range_that_is_given_is_taken():
    task = Task(kind="regression", low=0, high=100)
    assert find_task(["0", "50", "100"], None, (0, 100)) == (task, [])


# ---------------------------------------------------------------- classes


def test_classes_are_sorted_numbers_first():
    task, notes = find_task(["10", "2", "b", "1", "a", "nan"], "classes", None)
    assert (task.names, notes) == (("1", "2", "10", "a", "b"), [])


def test_scores_asked_for_as_classes_are_noted():
    task, notes = find_task(["1.5", "-0.6", "0"], "classes", None)
    assert task.names == ("-0.6", "0", "1.5")
    assert notes == [
        'labels such as "-0.6" look like scores and are read as 3 classes '
        "(for scores: --task regression)"
    ]


@pytest.mark.parametrize("pair", [("Happy", "happy"), ("1", "1.0"), ("1", "01")])
def test_two_spellings_of_a_class_are_refused(pair):
    first, second = sorted(pair)
    assert refusal([*pair, "z"], "classes") == (
        f'"label.csv": the classes "{first}" and "{second}" are one class in two spellings.\n'
        "  Expected one spelling per class. Write it the same way in every row."
    )


@pytest.mark.parametrize("count", [1, 21])
def test_too_few_and_too_many_classes(count):
    assert refusal([f"c{n}" for n in range(count)], "classes") == (
        f'"label.csv": column "label" holds {count} different values; classes are 2 to 20.\n'
        "  For scores: --task regression"
    )
