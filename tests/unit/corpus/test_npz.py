"""npz files that hold objects: nothing is run, and the advice fits the field."""

import numpy as np
import pytest

from mmcl.corpus.readers import read_corpus
from mmcl.errors import DatasetError, UnsafePickleError

RAGGED = np.array([np.zeros((2, 3)), np.zeros((4, 3))], dtype=object)


@pytest.mark.parametrize(
    ("field", "value", "advice"),
    [
        (
            field,
            RAGGED,
            "Clips of different lengths: pad them with zeros to one array [clips, steps, width], "
            f"and save how many steps each has as {field}_lengths.",
        )
        for field in ("text", "audio", "vision")
    ]
    + [
        (
            field,
            np.array(["a", None], dtype=object),
            f'Save it as strings: np.asarray({field}, "U")',
        )
        for field in ("ids", "raw_text", "speaker")
    ]
    + [
        (
            "labels",
            np.array([1.0, None], dtype=object),
            'Save it as numbers or strings: np.asarray(labels, "float64") or '
            'np.asarray(labels, "U")',
        )
    ],
)
def test_objects_are_refused_with_the_fix(tmp_path, field, value, advice):
    path = tmp_path / "x.npz"
    np.savez(path, **{f"train/{field}": value})
    with pytest.raises(UnsafePickleError) as caught:
        read_corpus(path)
    assert str(caught.value) == (
        f'{path}: array "train/{field}" is a pickle of objects; nothing of it was run.\n'
        "  Expected arrays of numbers or strings only.\n"
        f"  {advice}"
    )


@pytest.mark.parametrize(
    ("labels", "names", "count"),
    [
        ([0, 1, 2, 2], ["a", "b"], 3),
        (np.eye(3)[[0, 1, 2, 2]], ["a", "b"], 3),
        ([[0, 1, 1], [1, 1, 0], [1, 0, 0], [0, 0, 1]], ["a", "b", "c", "d"], 3),
    ],
)
def test_names_that_do_not_fit_the_labels_are_refused(tmp_path, labels, names, count):
    path = tmp_path / "own.npz"
    np.savez(path, **{"train/text": np.ones((4, 2)), "train/labels": labels, "names": names})
    with pytest.raises(DatasetError) as caught:
        read_corpus(path)
    assert str(caught.value) == (
        f'{path}, field "labels" holds {count} classes or emotions, but "names" has '
        f"{len(names)}: {', '.join(names)}.\n"
        "  Expected a name for each, in the order of the labels.\n"
        "  The layouts that can be read: mmcl corpus convert --help"
    )


def test_class_that_no_clip_has_keeps_its_name(tmp_path):
    path = tmp_path / "own.npz"
    arrays = {"train_text": np.ones((4, 2)), "train_labels": [0, 1, 1, 0], "names": list("abc")}
    np.savez(path, **arrays)
    assert read_corpus(path).card.task.names == ("a", "b", "c")
