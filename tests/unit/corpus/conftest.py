"""A small foreign file in the common layout, with a different size on every axis."""

import gzip
import pickle

import numpy as np
import pytest

COUNTS = {"train": 4, "valid": 3, "test": 2}
WIDTHS = {"text": 3, "audio": 2, "vision": 5}
STEPS = 6


def make_content(seed=0):
    rng = np.random.default_rng(seed)
    content = {}
    for split, count in COUNTS.items():
        fields = {
            modality: rng.uniform(0.5, 1.5, size=(count, STEPS, width)).astype(np.float32)
            for modality, width in WIDTHS.items()
        }
        fields["regression_labels"] = rng.uniform(-1.9, 1.9, size=count)
        fields["id"] = [f"{split}-{row}" for row in range(count)]
        content[split] = fields
    return content


@pytest.fixture
def content():
    return make_content()


@pytest.fixture
def dump(tmp_path):
    def write(content, name="toy.pkl", protocol=4):
        path = tmp_path / name
        raw = pickle.dumps(content, protocol=protocol)
        path.write_bytes(gzip.compress(raw, mtime=0) if name.endswith(".gz") else raw)
        return path

    return write


@pytest.fixture
def same_clip():
    """Assert that two clips are equal, their features bit for bit."""

    def compare(original, restored):
        plain = {"features", "planted"}
        assert original.model_dump(exclude=plain) == restored.model_dump(exclude=plain)
        assert list(original.features) == list(restored.features)
        for modality, steps in original.features.items():
            np.testing.assert_array_equal(steps, restored.features[modality], strict=True)
        assert (original.planted is None) == (restored.planted is None)
        if original.planted is not None:
            assert original.planted.scores == restored.planted.scores
            for modality, roles in original.planted.roles.items():
                np.testing.assert_array_equal(roles, restored.planted.roles[modality], strict=True)

    return compare
