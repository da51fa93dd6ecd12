"""The law of the readers: what was written is read back, or it is asked or refused by name."""

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, event, given, settings

from fakes.foreign_files import NAMES, Truth, truths, write_file
from mmcl.corpus.check import corpus_clips
from mmcl.corpus.readers import read_corpus
from mmcl.errors import DatasetError


@settings(
    max_examples=1000,
    deadline=None,
    derandomize=True,  # the same examples on every machine
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(truths())
def test_corpus_is_read_as_it_was_written_or_asked_about(truth):
    with tempfile.TemporaryDirectory() as folder:
        path = write_file(truth, Path(folder))
        try:
            corpus = read_corpus(path)
        except DatasetError as refusal:
            event("refused")
            refused = str(refusal)
        else:
            refused = None
    if refused is not None:
        assert is_ambiguous(truth, refused), refused
        return
    differences = list(differences_of(truth, corpus))
    event("asked" if differences else "read")
    for subject, difference in differences:
        notes = [note for note in corpus.card.notes if subject in note and "--" in note]
        assert notes, f"{difference}, and no note asks about {subject}: {corpus.card.notes}"


def is_ambiguous(truth: Truth, refusal: str) -> bool:
    """Tell whether a refusal names something that the file does not say."""
    labels = [clip.label for clips in truth.clips.values() for clip in clips]
    if len(set(labels)) == 1 and "different classes" in refusal:
        return True  # one class is none
    # A score outside the range that the training labels suggest.
    return "--label-range" in refusal and truth.label_kind in ("scores", "whole scores")


def differences_of(truth: Truth, corpus):
    """Yield what was read differently: the words a note must contain, and a description."""
    read = list(corpus_clips(corpus))
    written = [(split, clip) for split, clips in truth.clips.items() for clip in clips]
    assert len(read) == len(written)
    for clip, (split, expected) in zip(read, written, strict=True):
        assert clip.split == split
        if truth.layout != "magbert":
            assert clip.text == expected.text
        for modality in set(clip.features) | set(expected.features):
            steps, own = clip.features.get(modality), expected.features.get(modality)
            if steps is None or own is None or not np.array_equal(steps, own):
                yield modality, f"{clip.id}: {modality} is {steps}, was {own}"
        if not is_label(truth, corpus.card.task, clip.label, expected.label):
            subject = "taken as"
            yield subject, f"{clip.id}: label is {clip.label}, was {expected.label}"


def is_label(truth: Truth, task, label, expected) -> bool:
    """Tell whether a label means what was written."""
    kind = truth.label_kind
    if kind in ("scores", "whole scores"):
        return task.kind == "regression" and label == expected
    if kind == "names":
        return task.kind == "classes" and task.names[label] == NAMES[expected]
    if kind == "classes":
        named = (f"class_{expected}", str(expected))
        return task.kind == "classes" and task.names[label] in named
    if kind == "one-hot":
        return task.kind == "classes" and label == expected
    return task.kind == "emotions" and label == expected
