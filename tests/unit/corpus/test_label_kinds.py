"""What labels are is decided by looking at them; a guess is asked about, an option settles it."""

import numpy as np
import pytest

from mmcl.corpus.check import corpus_clips
from mmcl.corpus.readers import read_corpus
from mmcl.errors import DatasetError

SIZES = {"train": 4, "valid": 3, "test": 2}


@pytest.fixture
def labelled(content, dump):
    """Return a function that writes the content with a field of labels."""

    def write(values, field="labels", name="toy.pkl"):
        values = list(values)
        for split, count in SIZES.items():
            content[split].pop("regression_labels", None)
            taken, values = values[:count], values[count:]
            content[split][field] = taken if isinstance(taken[0], str | None) else np.array(taken)
        return dump(content, name)

    return write


def labels_of(corpus):
    return [clip.label for clip in corpus_clips(corpus)]


def questions(corpus):
    return [note for note in corpus.card.notes if "--task" in note]


def refusal(path, **options):
    with pytest.raises(DatasetError) as caught:
        read_corpus(path, **options)
    return str(caught.value)


NAMES = ["sad", "hap", "neu", "hap", "sad", "hap", "ang", "neu", "sad"]


@pytest.mark.parametrize("field", ["labels", "label", "classification_labels", "annotations"])
def test_strings_are_classes_by_name(labelled, field):
    corpus = read_corpus(labelled(NAMES, field))
    assert corpus.card.task.names == ("ang", "hap", "neu", "sad")
    assert [corpus.card.task.names[label] for label in labels_of(corpus)] == NAMES
    assert questions(corpus) == []


def test_strings_that_are_numbers_are_numbers(labelled):
    corpus = read_corpus(labelled(["1.5", "-2", "0", "0.5", "1", "-1", "2", "-0.5", "0"]))
    assert corpus.card.task.score_range == (-2.0, 2.0)
    assert labels_of(corpus) == [1.5, -2.0, 0.0, 0.5, 1.0, -1.0, 2.0, -0.5, 0.0]


def test_label_that_is_none_is_unknown(labelled):
    corpus = read_corpus(labelled(["sad", None, "hap", "", *NAMES[4:]]))
    assert labels_of(corpus)[:4] == [3, None, 1, None]
    assert "train: 2 of 4 clips have no label" in corpus.card.notes


WHOLE = [0, 1, 2, 3, 0, 1, 2, 3, 0]


def test_whole_numbers_are_classes_where_the_type_says_so(labelled):
    path = labelled(WHOLE)
    corpus = read_corpus(path)
    assert corpus.card.task.names == ("class_0", "class_1", "class_2", "class_3")
    assert questions(corpus) == [
        "labels: taken as classes, but they are whole numbers 0..3; are they scores? "
        "Then: --task regression"
    ]
    scores = read_corpus(path, task="regression", label_range=(0.0, 3.0))
    assert scores.card.task.score_range == (0.0, 3.0)
    assert labels_of(scores) == labels_of(corpus) == WHOLE
    assert questions(scores) == []


@pytest.mark.parametrize("field", ["labels", "regression_labels"])
def test_whole_numbers_of_floats_are_scores(labelled, field):
    path = labelled([float(value) for value in WHOLE], field)
    corpus = read_corpus(path)
    assert corpus.card.task.kind == "regression"
    assert questions(corpus) == [
        f"{field}: taken as scores, but they are whole numbers 0..3; are they classes? "
        "Then: --task classes"
    ]
    assert labels_of(read_corpus(path, task="classes")) == WHOLE


def test_yes_or_no_is_settled_three_ways(labelled):
    path = labelled([0, 1, 1, 0, 1, 0, 0, 1, 1])
    assert read_corpus(path).card.task.kind == "classes"
    assert read_corpus(path, task="regression").card.task.score_range == (0.0, 1.0)
    emotions = read_corpus(path, task="emotions")
    assert emotions.card.task.names == ("emotion_0",)
    assert labels_of(emotions)[:3] == [(0,), (1,), (1,)]


@pytest.mark.parametrize(
    ("numbers", "names"),
    [
        ([1, 2, 3, 4, 5, 1, 2, 3, 4], ("1", "2", "3", "4", "5")),
        ([-1, 0, 1, -1, 0, 1, 1, 0, -1], ("-1", "0", "1")),
        ([10, 20, 10, 20, 10, 20, 10, 20, 10], ("10", "20")),
    ],
)
def test_classes_that_do_not_count_from_zero_are_named_by_their_numbers(labelled, numbers, names):
    corpus = read_corpus(labelled(numbers, "classification_labels"))
    assert corpus.card.task.names == names
    assert [int(corpus.card.task.names[label]) for label in labels_of(corpus)] == numbers
    listed = ", ".join(names)
    hint = " (of a label that is unknown, write None)" if names[0] == "-1" else ""
    assert f"classification_labels: the classes are the numbers {listed}{hint}" in corpus.card.notes


def test_one_hot_rows_are_one_class(labelled):
    path = labelled(np.eye(6)[[5, 1, 2, 0, 4, 3, 2, 1, 0]])
    corpus = read_corpus(path)
    assert corpus.card.task.kind == "classes"
    assert len(corpus.card.task.names) == 6
    assert labels_of(corpus) == [5, 1, 2, 0, 4, 3, 2, 1, 0]
    assert questions(corpus) == [
        "labels: taken as classes, but every row of 6 has a single 1; are they yes or no per "
        "emotion? Then: --task emotions"
    ]
    assert labels_of(read_corpus(path, task="emotions"))[1] == (0, 1, 0, 0, 0, 0)


def test_rows_with_several_ones_are_judgements(labelled):
    rows = np.eye(6)[[5, 1, 2, 0, 4, 3, 2, 1, 0]]
    rows[0, 0] = 1
    corpus = read_corpus(labelled(rows))
    assert corpus.card.task.kind == "emotions"
    assert labels_of(corpus)[0] == (1, 0, 0, 0, 0, 1)
    assert questions(corpus) == []


def test_several_scores_per_clip_are_refused(labelled):
    rows = np.linspace(-3, 3, 63).reshape(9, 7)  # sentiment and six emotions, as in MOSEI
    path = labelled(rows)
    assert refusal(path) == (
        f'{path}, field "labels" has shape [9, 7] and holds -3..3: several labels per clip.\n'
        "  Expected one number or name per clip, one-hot rows, or 0 and 1 for every emotion.\n"
        "  Keep one of them in the file, for example the first: labels[:, 0]; to leave the field "
        'out: --rename "labels="\n'
        "  The layouts that can be read: mmcl corpus convert --help"
    )


def test_probabilities_per_class_are_refused(labelled):
    path = labelled(np.full((9, 4), 0.25))
    assert "several labels per clip" in refusal(path)


def test_task_that_the_labels_cannot_have_is_refused(labelled):
    path = labelled(NAMES)
    assert refusal(path, task="regression") == (
        f'{path}: no labels for the task "regression".\n'
        "  Its labels are: labels, 4 names (ang, hap, neu, sad): classes.\n"
        f"  Take one of these: mmcl corpus convert {path} DST --task classes"
    )


def test_one_class_is_none(labelled):
    path = labelled(["sad"] * 9)
    assert refusal(path) == (
        f'{path}, field "labels" holds 1 different classes, "sad" for example.\n'
        "  Expected 2 to 100.\n"
        "  Look at the labels: mmcl corpus convert --help says which kinds there are"
    )


def test_names_of_a_corpus_need_its_sizes(labelled):
    pairs = np.eye(2)[np.arange(36).reshape(9, 4) % 2]
    card = read_corpus(labelled(pairs, name="iemocap_own.pkl")).card
    assert card.name == "iemocap"
    assert card.task.names == ("emotion_0", "emotion_1", "emotion_2", "emotion_3")


def test_names_of_a_corpus_need_as_many_classes(labelled):
    fewer = read_corpus(labelled(WHOLE, "classification_labels", "ravdess.pkl")).card.task
    assert fewer.names == ("class_0", "class_1", "class_2", "class_3")
    eight = [0, 1, 2, 3, 4, 5, 6, 7, 0]
    names = read_corpus(labelled(eight, "classification_labels", "ravdess.pkl")).card.task.names
    assert names[:3] == ("neutral", "calm", "happy")


@pytest.mark.parametrize(
    ("scores", "bounds"),
    [
        ([0.1, 0.9], (0.0, 1.0)),
        ([1.0, 5.0], (1.0, 5.0)),
        ([2.0, 7.0], (1.0, 7.0)),
        ([1.5, 4.5], (0.0, 5.0)),
        ([0.0, 85.5], (0.0, 100.0)),
        ([2.0, 85.0], (0.0, 100.0)),
        ([-0.5, 0.9], (-1.0, 1.0)),
        ([-2.0, 8.5], (-10.0, 10.0)),
    ],
)
def test_range_of_scores_is_the_usual_one_that_holds_them(labelled, scores, bounds):
    path = labelled((scores * 5)[:9], "regression_labels")
    corpus = read_corpus(path)
    assert corpus.card.task.score_range == bounds
    note = f"label range {bounds[0]:g}..{bounds[1]:g} inferred from the training split"
    asked = [n for n in corpus.card.notes if n.startswith(note) and "--label-range" in n]
    assert len(asked) == 1
    assert ("which has no negative label" in asked[0]) == (bounds[0] >= 0)
    settled = read_corpus(path, label_range=(-100.0, 100.0))
    assert settled.card.task.score_range == (-100.0, 100.0)
    assert not [n for n in settled.card.notes if "--label-range" in n]


def test_known_corpus_of_another_range_is_not_forced_into_its_own(content, dump):
    """Forty ratings 0..1 in a file called mosi are not scores of -3..3."""
    content["train"] = {
        m: np.repeat(content["train"][m], 10, axis=0) for m in ("text", "audio", "vision")
    }
    content["train"]["regression_labels"] = np.linspace(0.01, 0.99, 40)
    for split in ("valid", "test"):
        content[split]["regression_labels"] = np.full(len(content[split]["id"]), 0.5)
    corpus = read_corpus(dump(content, "mosi.pkl"))
    assert corpus.card.task.score_range == (0.0, 1.0)
    assert any("those of CMU-MOSI in -3..3" in note for note in corpus.card.notes)


@pytest.mark.parametrize("values", [[0.0, 1.0, 1.0] * 3, [False, True, True] * 3])
def test_yes_or_no_of_a_field_of_labels_is_two_classes(labelled, values):
    path = labelled(values, "label")
    corpus = read_corpus(path)
    assert corpus.card.task.names == ("class_0", "class_1")
    assert questions(corpus) == [
        "label: taken as classes, but they are whole numbers 0..1; are they scores? "
        "Then: --task regression"
    ]
    assert read_corpus(path, task="regression").card.task.score_range == (0.0, 1.0)


@pytest.mark.parametrize("odd", ["0,5", "8%", "1.234,5", "1/5"])
def test_numbers_that_cannot_be_read_are_no_classes(labelled, odd):
    path = labelled([odd, "1", "2", "0", "1", "2", "0", "1", "2"])
    assert refusal(path) == (
        f'{path}, field "labels" holds "{odd}": neither numbers nor names of classes.\n'
        "  Expected numbers with a decimal point, or names; nothing where a label is unknown. "
        "Correct them in the file.\n"
        "  The layouts that can be read: mmcl corpus convert --help"
    )


def test_numbers_with_a_mark_for_unknown_are_refused(labelled):
    path = labelled(["1", "?", "2", "0", "?", "2", "0", "1", "?"])
    assert 'holds numbers such as "0" and "?": neither numbers nor names' in refusal(path)


def test_names_that_differ_only_in_capitals_are_refused(labelled):
    path = labelled(["Sad", "sad", "hap", "ang", "sad ", "hap", "ang", "sad", "hap"])
    assert refusal(path) == (
        f'{path}, field "labels" holds "Sad" and "sad", which would be two classes.\n'
        "  Expected every class to be spelt in one way. Spell them alike in the file.\n"
        "  The layouts that can be read: mmcl corpus convert --help"
    )


def test_more_than_three_classes_beside_scores_are_said(content, dump):
    for split, count in SIZES.items():
        content[split]["classification_labels"] = np.arange(count) + 3
    path = dump(content)
    corpus = read_corpus(path)
    assert corpus.card.task.kind == "classes"
    assert questions(corpus) == [
        "classification_labels: taken, since they are more than three classes; "
        "regression_labels holds scores. To take these: --task regression"
    ]
    assert read_corpus(path, task="regression").card.task.kind == "regression"


def test_labels_by_name_of_the_modality_are_refused(content, dump):
    content["train"]["labels"] = {"M": np.zeros(4), "T": np.zeros(4)}
    path = dump(content)
    assert refusal(path) == (
        f'{path}, split "train": labels is a dict with M, T.\n'
        "  Expected one number per clip.\n"
        "  The layouts that can be read: mmcl corpus convert --help"
    )


def test_whole_scores_beyond_every_usual_range_are_asked_about(labelled):
    path = labelled([1, 500, 20, 300, 7, 8, 9, 400, 2], "regression_labels")
    assert "--label-range LOW HIGH" in refusal(path)
    assert read_corpus(path, label_range=(0.0, 500.0)).card.task.score_range == (0.0, 500.0)


def test_known_corpus_is_recognised_by_the_first_clip_that_has_a_modality(dump):
    steps = {"text": np.ones((2, 300)), "audio": np.ones((2, 74)), "vision": np.ones((2, 35))}
    fields = {m: [array] * 4 for m, array in steps.items()} | {
        "audio": [None, *[steps["audio"]] * 3]
    }
    fields["labels"] = np.eye(2)[np.arange(16).reshape(4, 4) % 2]
    card = read_corpus(dump({"train": fields}, "iemocap.pkl")).card
    assert card.task.names == ("neutral", "happy", "sad", "angry")


@pytest.mark.parametrize("odd", ["positive", "1"])
def test_annotations_that_are_not_taken_are_no_reason_to_refuse_a_file(content, dump, odd):
    for fields in content.values():
        fields["annotations"] = ["Positive"] * len(fields["id"])
    content["train"]["annotations"][0] = odd
    assert read_corpus(dump(content)).card.task.kind == "regression"
    for fields in content.values():
        del fields["regression_labels"]
    assert "annotations" in refusal(dump(content))


def test_many_whole_numbers_are_rather_scores(content, dump):
    steps = np.ones((40, 2, 3))
    path = dump({"train": {"text": steps, "label": np.arange(40) * 2}})
    corpus = read_corpus(path)
    assert corpus.card.task.score_range == (0.0, 100.0)
    assert questions(corpus) == [
        "label: taken as scores, but they are whole numbers 0..78; are they classes? "
        "Then: --task classes"
    ]
    assert read_corpus(path, task="classes").card.task.names[:2] == ("class_0", "class_1")


def test_range_that_is_given_says_that_labels_are_scores(labelled):
    path = labelled([1, 2, 3, 4, 5, 1, 2, 3, 4], "label")
    assert read_corpus(path).card.task.kind == "classes"
    corpus = read_corpus(path, label_range=(1.0, 5.0))
    assert corpus.card.task.score_range == (1.0, 5.0)
    assert questions(corpus) == []


@pytest.mark.parametrize("task", ["classes", "emotions"])
def test_classes_of_a_file_without_labels_are_not_known(content, dump, task):
    for fields in content.values():
        del fields["regression_labels"]
    path = dump(content)
    assert refusal(path, task=task) == (
        f"{path}: no labels, so that the {task} are not known.\n"
        "  Expected a field of labels, or no --task"
    )
    assert read_corpus(path, task="regression").card.task.kind == "regression"
