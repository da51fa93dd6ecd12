"""A damaged corpus file is refused when it is opened, in words, whatever its bytes are."""

from random import Random

import numpy as np
import pyarrow as pa
import pytest

from mmcl.corpus.check import corpus_clips, faults
from mmcl.corpus.plant import PlantSettings, plant_card, plant_clips
from mmcl.corpus.store import CARD_KEY, open_corpus, write_corpus
from mmcl.errors import DatasetError

SETTINGS = PlantSettings(train=4, valid=2, test=2, steps=14, widths=(4, 3, 2))


@pytest.fixture
def path(tmp_path):
    return write_corpus(tmp_path / "x.arrow", plant_card(SETTINGS), plant_clips(SETTINGS))


def rewritten(path, change, card=None):
    """Write the file again with a changed table, and perhaps another card."""
    table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    metadata = dict(table.schema.metadata)
    if card is not None:
        metadata[CARD_KEY] = card.model_dump_json()
    table = change(table)
    other = path.with_name("changed.arrow")
    with pa.ipc.new_file(other, table.schema.with_metadata(metadata)) as writer:
        writer.write_table(table)
    return other


def with_column(name, make):
    def change(table):
        index = table.column_names.index(name)
        column = make(table.column(name).combine_chunks())
        return table.set_column(index, name, column)

    return change


def reason(path):
    with pytest.raises(DatasetError) as caught:
        open_corpus(path)
    first, expected, advice = str(caught.value).splitlines()
    assert expected == "  Expected an Arrow IPC file written by mmcl."
    assert advice == f"  Convert the file it came from again: mmcl corpus convert SRC {path}"
    return first.removeprefix(f"{path}: not a readable corpus file ")


def reordered(column):
    return column.take(pa.array([7, *range(7)]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.drop_columns(["label"]), "(the column 'label' is missing)."),
        (
            lambda t: t.append_column("more", pa.nulls(8)),
            "(the column 'more' is not in its card).",
        ),
        (
            with_column("label", lambda c: c.cast(pa.float32())),
            "(the column 'label' holds float, its card says double).",
        ),
        (
            with_column("id", lambda c: pa.array([None, *c.to_pylist()[1:]], pa.string())),
            "(column 'id': a clip has none).",
        ),
        (
            with_column("split", reordered),
            "(column 'split': the clips are not in the order train, valid, test).",
        ),
        (
            with_column("role_text", lambda c: pa.array([[None] * 14] * 8, c.type)),
            "(column 'role_text': a step or value is missing).",
        ),
        (
            with_column("words", lambda c: pa.array([[{"text": None}]] * 8, c.type)),
            "(column 'words': a word without text).",
        ),
        (
            lambda t: pa.concat_tables([t.select(["id"])] * 1).append_column("id", t["id"]),
            "(a column is there twice).",
        ),
    ],
    ids=["missing", "unknown", "type", "no-id", "order", "gap", "word", "twice"],
)
def test_columns_that_do_not_fit_the_card(path, change, said):
    assert reason(rewritten(path, change)) == said


def test_places_beyond_a_column(path):
    content = bytearray(path.read_bytes())
    lengths = np.arange(0, 15 * 8, 14, dtype=np.int32).tobytes()
    place = content.index(lengths)
    content[place + 4 : place + 8] = (2**30).to_bytes(4, "little")
    path.write_bytes(content)
    assert "Offset invariant failure" in reason(path)


def test_text_that_is_no_utf8(path):
    content = path.read_bytes()
    name = open_corpus(path).split("train").ids[0].encode()
    path.write_bytes(content.replace(name, b"\xff" * len(name)))
    assert reason(path) == "(column 'id': Invalid UTF8 sequence at string index 0)."


def test_counts_below_zero(path):
    card = plant_card(SETTINGS)
    card = card.model_copy(update={"counts": {**card.counts, "train": -1}})
    assert reason(rewritten(path, lambda t: t, card)) == "(its card counts less than no clips)."


@pytest.mark.timeout(120)
def test_any_damage_is_read_or_refused(path):
    """In this process: a file that gets past the checks must not end it."""
    content = path.read_bytes()
    random, refused = Random(7), 0
    for _ in range(150):
        damaged = bytearray(content)
        for _ in range(3):
            damaged[random.randrange(len(damaged))] = random.choice((0, 255, 128, 7))
        path.write_bytes(damaged)
        try:
            corpus = open_corpus(path)
            faults(corpus)
            assert len(list(corpus_clips(corpus))) <= 8
        except DatasetError:
            refused += 1
    assert 0 < refused < 150


def test_a_class_that_the_card_does_not_have(tmp_path):
    settings = (
        SETTINGS._replace(task="classes")
        if hasattr(SETTINGS, "_replace")
        else (SETTINGS.model_copy(update={"task": "classes"}))
    )
    path = write_corpus(tmp_path / "c.arrow", plant_card(settings), plant_clips(settings))
    changed = rewritten(path, with_column("label", lambda c: pa.array([9] * 8, c.type)))
    with pytest.raises(DatasetError, match=r"a label is none of the \d+ numbers from 0 to"):
        open_corpus(changed).split("train").labels()


def test_compressed_file_is_bounded(path, monkeypatch):
    table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    index = table.column_names.index("text")
    table = table.set_column(index, table.field("text"), pa.chunked_array([["x" * 10_000] * 8]))
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    other = path.with_name("compressed.arrow")
    with pa.ipc.new_file(other, table.schema, options=options) as writer:
        writer.write_table(table)
    assert len(list(corpus_clips(open_corpus(other)))) == 8
    monkeypatch.setattr("mmcl.limits.FREE_BYTES", 1)
    monkeypatch.setenv("MMCL_MAX_UNPACKED", "1")
    with pytest.raises(DatasetError, match="export MMCL_MAX_UNPACKED="):
        open_corpus(other)
    assert len(list(corpus_clips(open_corpus(path)))) == 8
