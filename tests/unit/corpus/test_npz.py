"""npz files that hold objects: nothing is run, and the advice fits the field."""

import numpy as np
import pytest

from mmcl.corpus.readers import read_corpus
from mmcl.errors import UnsafePickleError

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
