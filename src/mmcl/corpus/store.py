"""A corpus on disk: one Arrow IPC file, memory-mapped, with its card in the schema.

Each row is a clip. Reading copies nothing: a split returns views into the mapped file, and
the file may be larger than memory.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import ValidationError

from mmcl.corpus.arrow_checks import check_batches, check_columns
from mmcl.corpus.arrow_columns import RaggedColumn, corpus_schema, record_batch, view_ragged
from mmcl.corpus.memory_mapped import MappedFile
from mmcl.corpus.schema import Card, Clip, Planted, Word
from mmcl.errors import DatasetError, SealedSplitError
from mmcl.extras import load
from mmcl.files import complete_file
from mmcl.limits import check_regular
from mmcl.other_version import does_not_fit, misfits
from mmcl.types import MODALITIES, SPLITS, Modality, SplitName, TaskKind

__all__ = ["Corpus", "Split", "is_corpus_file", "open_corpus", "pack_corpus", "write_corpus"]

CARD_KEY = b"mmcl.card"
VERSION_KEY = b"mmcl.version"  # of mmcl that wrote the file; earlier ones did not write it
CLIPS_PER_BATCH = 4096
_ARROW_MAGIC = b"ARROW1"
# pyarrow's errors are ValueErrors or KeyErrors, or of one class of their own.
_DAMAGED = (ValueError, OSError, KeyError, OverflowError, MemoryError, pa.ArrowException)


class Split:
    """The clips of one split, read-only, in their order on disk.

    ``card`` is the corpus's; ``mapped`` is the file of the rows, None where they are in memory.
    """

    def __init__(
        self, name: str, card: Card, table: pa.Table, mapped: MappedFile | None = None
    ) -> None:
        self.name = name
        self.card = card
        self.table = table
        self.mapped = mapped
        self._columns: dict[str, RaggedColumn] = {}

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def ids(self) -> list[str]:
        """Ids of the clips."""
        ids: list[str] = self.table.column("id").to_pylist()
        return ids

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """The modalities of the corpus, in the order text, audio, vision."""
        return tuple(m for m in MODALITIES if m in self.card.dims)

    def labels(self, *, modality: Modality | None = None) -> NDArray[Any]:
        """Return the label of every clip, or the score of one of its modalities (CH-SIMS).

        Returns:
            Regression: float64 ``[clips]``, NaN where unknown. Classes: int64 ``[clips]``,
            -1 where unknown. Emotions: int64 ``[clips, emotions]``, -1 where unknown.
        """
        name = "label" if modality is None else f"label_{modality}"
        if name not in self.table.column_names:
            return np.full(len(self), np.nan)
        column = self.table.column(name).to_pylist()
        task = self.card.task
        if modality is not None or task.kind == "regression":
            return np.array([np.nan if v is None else v for v in column], dtype=np.float64)
        is_class = task.kind == "classes"
        unknown = -1 if is_class else [-1] * len(task.names)
        labels = np.array([unknown if v is None else v for v in column], dtype=np.int64)
        most = len(task.names) if is_class else 2
        if ((labels < -1) | (labels >= most)).any():
            raise DatasetError(
                f"corpus {self.card.name!r}: a label is none of the {most} numbers from 0 to "
                f"{most - 1} (-1: unknown).\n"
                "  Look for it: mmcl corpus check CORPUS"
            )
        return labels if is_class else labels.reshape(len(self), len(task.names))

    def lengths(self, modality: Modality) -> NDArray[np.int64]:
        """Return the steps of every clip, ``[clips]``; 0 where the modality is absent."""
        if modality not in self.card.dims:
            return np.zeros(len(self), dtype=np.int64)
        return self._ragged(f"features_{modality}").length.copy()

    def feature_bytes(self) -> int:
        """Return how many bytes the features of all clips take on disk."""
        total = 0
        for modality in self.modalities:
            step = self.table.schema.field(f"features_{modality}").type.value_type
            step_bytes = step.list_size * step.value_type.bit_width // 8
            total += step_bytes * int(self.lengths(modality).sum())
        return total

    def steps(self, modality: Modality, row: int) -> NDArray[Any]:
        """Return the features of one clip, ``[n, d_m]``: a view into the file, not a copy."""
        return self._sequence(f"features_{modality}", row)

    def padded(
        self, modality: Modality, rows: Sequence[int] | NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return the features of several clips as one array, and the lengths of the clips.

        Returns:
            Features ``[b, n, d_m]`` in the precision of the file, zero beyond the end of a
            clip, where n is the longest length and at least 1; and lengths ``[b]``.
        """
        column = self._ragged(f"features_{modality}")
        rows = np.asarray(rows, dtype=np.int64)
        lengths = column.length[rows]
        longest = max(int(lengths.max(initial=0)), 1)
        dtype = column.chunks[0].dtype if column.chunks else np.dtype(np.float32)
        padded = np.zeros((len(rows), longest, self.card.dims[modality]), dtype=dtype)
        # Lists, since numpy's own integers would make the slices of this loop slow.
        places = (column.chunk[rows].tolist(), column.start[rows].tolist(), lengths.tolist())
        for clip, chunk, start, length in zip(padded, *places, strict=True):
            clip[:length] = column.chunks[chunk][start : start + length]
        self._count_reading(column, len(rows), int(lengths.sum()))
        return padded, lengths

    def roles(self, modality: Modality, row: int) -> NDArray[np.int8] | None:
        """Return the planted role of every step of a clip, ``[n]``; None in a real corpus."""
        name = f"role_{modality}"
        return self._sequence(name, row) if name in self.table.column_names else None

    def clips(self) -> Iterator[Clip]:
        """Yield every clip."""
        for row in range(len(self)):
            yield self._clip(row)

    def select(self, rows: Sequence[int] | NDArray[Any]) -> Split:
        """Return a split of the given rows in the given order (copies their features)."""
        return Split(self.name, self.card, self.table.take(pa.array(rows, type=pa.int64())))

    def between(self, start: int, stop: int) -> Split:
        """Return the clips of rows ``start`` to ``stop - 1`` (copies nothing)."""
        return Split(self.name, self.card, self.table.slice(start, stop - start), self.mapped)

    def _ragged(self, name: str) -> RaggedColumn:
        if name not in self._columns:
            self._columns[name] = view_ragged(self.table.column(name))
        return self._columns[name]

    def _sequence(self, name: str, row: int) -> NDArray[Any]:
        column = self._ragged(name)
        start, length = int(column.start[row]), int(column.length[row])
        self._count_reading(column, 1, length)
        sequence: NDArray[Any] = column.chunks[column.chunk[row]][start : start + length]
        return sequence

    def _count_reading(self, column: RaggedColumn, num_clips: int, num_steps: int) -> None:
        """Tell the mapped file how much of it was read, so that it can give pages back."""
        if self.mapped is not None and column.chunks:
            self.mapped.count(num_steps * column.chunks[0][:1].nbytes, places=num_clips)

    def _clip(self, row: int) -> Clip:
        cells = {name: self.table.column(name)[row] for name in self.table.column_names}
        plain = ("id", "split", "label", "video_id", "clip_id", "text", "words", "speaker")
        # Corpora of earlier versions have no speakers.
        fields = {name: cells[name].as_py() for name in plain if name in cells}
        if fields["words"] is not None:
            fields["words"] = tuple(Word(**word) for word in fields["words"])
        if isinstance(fields["label"], list):
            fields["label"] = tuple(fields["label"])
        present = [m for m in self.modalities if cells[f"features_{m}"].is_valid]
        scores = {m: cells[f"label_{m}"].as_py() for m in MODALITIES if f"label_{m}" in cells}
        planted = None
        if "planted" in cells:
            roles = {m: self._sequence(f"role_{m}", row) for m in self.modalities}
            planted = Planted(roles=roles, scores=dict(cells["planted"].as_py()))
        return Clip(
            features={m: self.steps(m, row) for m in present},
            modality_labels={m: v for m, v in scores.items() if v is not None} or None,
            planted=planted,
            **fields,
        )


class _HashSink(io.RawIOBase):
    """A file that passes what is written to it to a hash and keeps nothing."""

    def __init__(self, digest: Any) -> None:
        self.digest = digest

    def writable(self) -> bool:
        return True

    def write(self, block: Any) -> int:
        self.digest.update(block)
        return len(memoryview(block))


class Corpus:
    """A card and the splits it describes.

    ``split("test")`` is refused: whatever trains, selects or tunes works on the other two.
    Only ``mmcl.evaluation.protocol`` calls :meth:`open_test_split`; a test checks that.
    """

    def __init__(self, card: Card, table: pa.Table, mapped: MappedFile | None = None) -> None:
        self.card = card
        self._table = table
        self.mapped = mapped
        self._splits: dict[str, Split] = {}
        self._has_own_column = False  # one that the mapped file does not have

    @classmethod
    def from_arrays(
        cls,
        data: Any,
        *,
        name: str | None = None,
        task: TaskKind | None = None,
        label_range: tuple[float, float] | None = None,
        **options: Any,
    ) -> Corpus:
        """Make a corpus of arrays in memory, checked like a file; the arrays are not changed.

        Args:
            data: Fields by split, ``{"train": {"text": ..., "audio": ..., "labels": ...}}``, or
                fields of all clips with a field ``split``, or a DataFrame with a column
                ``split``. Features are arrays ``[clips, steps, d]`` or ``[clips, d]``, or lists
                of arrays ``[n, d]``, one per clip. docs/data.md lists the fields.
            name: Name of the corpus; "arrays" by default.
            task: What the labels are, where they can be several things.
            label_range: Lowest and highest score.
            options: The other choices of :class:`~mmcl.corpus.readers.ReadOptions`.

        Raises:
            DatasetError: If the data are inconsistent; it lists every fault.

        Example:
            >>> rng = np.random.default_rng(0)
            >>> data = {
            ...     split: {"audio": rng.normal(size=(4, 5, 3)), "labels": [-1.5, 0.2, 2.5, 1.0]}
            ...     for split in ("train", "valid", "test")
            ... }
            >>> Corpus.from_arrays(data, name="mine", label_range=(-3, 3))
            Corpus('mine', regression, 4/4/4 clips)
        """
        from mmcl.corpus.readers.arrays import corpus_of_arrays
        from mmcl.corpus.readers.options import ReadOptions

        return corpus_of_arrays(data, ReadOptions(name, task, label_range, **options))

    def to_pandas(self) -> Any:
        """Return a DataFrame with a row per clip of all splits, in the order of the corpus.

        The columns are ``id``, ``split``, ``label`` (of classes their names), ``video_id``,
        ``clip_id``, ``text``, ``speaker``, and ``features_<modality>`` with a list of n arrays
        ``[d]`` or None. :meth:`from_arrays` reads it back. The labels of the test split are in
        it: look at them only when all choices are made.

        Raises:
            MissingExtraError: If pandas is not installed.
        """
        pandas = load("pandas", "a DataFrame", extra="pandas")
        clips = list(Split("all", self.card, self._table, self.mapped).clips())
        rows: dict[str, list[Any]] = {
            key: [getattr(clip, key) for clip in clips]
            for key in ("id", "split", "label", "video_id", "clip_id", "text", "speaker")
        }
        if self.card.task.kind == "classes":
            names = self.card.task.names
            rows["label"] = [None if label is None else names[label] for label in rows["label"]]
        for modality in self.card.dims:
            # A list of steps, not one array, since only that can be written as Parquet.
            sequences = [clip.features.get(modality) for clip in clips]
            rows[f"features_{modality}"] = [None if s is None else list(s) for s in sequences]
        return pandas.DataFrame(rows)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the path of a mapped corpus, which is mapped again, or else its clips."""
        if self.mapped is not None and not self._has_own_column:
            return _map_again, (self.mapped.path.absolute(), self.card)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self._table.schema) as stream:
            stream.write_table(self._table)
        return _from_stream, (self.card, sink.getvalue().to_pybytes())

    def __repr__(self) -> str:
        counts = "/".join(str(self.card.counts.get(name, 0)) for name in SPLITS)
        return f"Corpus({self.card.name!r}, {self.card.task.kind}, {counts} clips)"

    def split(self, name: SplitName) -> Split:
        """Return the training or validation split.

        Raises:
            SealedSplitError: If asked for ``test``.
        """
        if name == "test":
            raise SealedSplitError(
                "the test split is sealed: training, selection and tuning use "
                '"train" and "valid".\n'
                "  To score a run on it: mmcl evaluate RUN"
            )
        return self._split(name)

    def open_test_split(self) -> Split:
        """Return the test split; for ``mmcl.evaluation.protocol`` and nothing else."""
        return self._split("test")

    def every_clip(self) -> Split:
        """Return all clips of all splits with their labels hidden, for prediction."""
        table = self._table
        for index, field in enumerate(table.schema):
            if field.name.startswith("label"):
                hidden = pa.nulls(table.num_rows, type=field.type)
                table = table.set_column(index, field, hidden)
        return Split("all", self.card, table, self.mapped)

    def with_column(self, name: str, column: pa.Array | pa.ChunkedArray, card: Card) -> Corpus:
        """Return a corpus with one column added or replaced, ``[clips]``, and its card."""
        table = self._table
        if name in table.column_names:
            table = table.set_column(table.column_names.index(name), name, column)
        else:
            table = table.append_column(name, column)
        corpus = Corpus(card, table, self.mapped)
        corpus._has_own_column = True
        return corpus

    def development(self) -> Corpus:
        """Return the corpus without its test clips, which training must not see."""
        counts = {name: count for name, count in self.card.counts.items() if name != "test"}
        card = self.card.model_copy(update={"counts": counts})
        corpus = Corpus(card, self._table.slice(0, sum(counts.values())), self.mapped)
        corpus._has_own_column = self._has_own_column
        return corpus

    def checksum(self) -> str:
        """Return the sha256 of all rows: equal for equal clips, from whatever file."""
        digest = hashlib.sha256(self.card.task.model_dump_json().encode())
        table = self._table.replace_schema_metadata(None)
        # Without speakers it is the checksum that earlier versions gave.
        if "speaker" in table.column_names and table["speaker"].null_count == len(table):
            table = table.drop_columns(["speaker"])
        with pa.ipc.new_stream(pa.PythonFile(_HashSink(digest), mode="w"), table.schema) as stream:
            for batch in table.to_batches():
                stream.write_batch(batch)
                if self.mapped is not None:
                    self.mapped.count(batch.nbytes)
        return digest.hexdigest()

    def _split(self, name: SplitName) -> Split:
        if name not in self._splits:
            # Clips lie on disk in the order of the splits.
            before = SPLITS[: SPLITS.index(name)]
            start = sum(self.card.counts.get(earlier, 0) for earlier in before)
            table = self._table.slice(start, self.card.counts.get(name, 0))
            self._splits[name] = Split(name, self.card, table, self.mapped)
        return self._splits[name]


def is_corpus_file(path: Path) -> bool:
    """Tell whether a file is an Arrow IPC file (its content is not looked at)."""
    with path.open("rb") as file:
        return file.read(len(_ARROW_MAGIC)) == _ARROW_MAGIC


def open_corpus(path: str | os.PathLike[str]) -> Corpus:
    """Map a corpus file into memory, and look for damage in all but the numbers of features.

    Looking takes about 0.2 ms for a thousand clips: less than a checksum that would say that
    the file is the one that was looked at before.

    Raises:
        DatasetError: If the file is missing, empty, cut short or damaged, or holds no corpus
            card.
    """
    path = Path(path)
    again = f"convert the file it came from again: mmcl corpus convert SRC {path}"
    advice = f"  C{again[1:]}"
    check_regular(path, DatasetError)

    def damaged(error: Exception) -> DatasetError:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return DatasetError(
            f"{path}: not a readable corpus file ({reason}).\n"
            f"  Expected an Arrow IPC file written by mmcl.\n{advice}"
        )

    try:
        mapped = MappedFile(path)
        reader = pa.ipc.open_file(pa.BufferReader(mapped.buffer))
        recorded = reader.schema.metadata or {}
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such file.\n  Make one: mmcl corpus plant {path}") from None
    except _DAMAGED as error:
        raise damaged(error) from None
    text = recorded.get(CARD_KEY)
    if text is None:
        problem = "an Arrow file without a corpus card, so not written by mmcl"
        raise DatasetError(f"{path}: {problem}.\n{advice}")
    try:
        card = Card.model_validate_json(text)
    except ValidationError as error:
        where = f"{path}: its card"
        version = recorded.get(VERSION_KEY)
        written_by = None if version is None else version.decode(errors="replace")
        fault = does_not_fit(where, misfits(error), written_by, again)
        raise DatasetError(fault) from None
    try:
        check_columns(reader.schema, card)
        check_batches(reader, card, mapped)
        return Corpus(card, reader.read_all(), mapped)
    except _DAMAGED as error:
        raise damaged(error) from None


def _map_again(path: Path, card: Card) -> Corpus:
    """Rebuild a pickled corpus, with the clips that its card counts."""
    corpus = open_corpus(path)
    return Corpus(card, corpus._table.slice(0, sum(card.counts.values())), corpus.mapped)


def _from_stream(card: Card, stream: bytes) -> Corpus:
    return Corpus(card, pa.ipc.open_stream(stream).read_all())


def pack_corpus(card: Card, clips: Iterable[Clip], *, dtype: str = "float32") -> Corpus:
    """Build a corpus in memory; ``card.counts`` is replaced by the clips that were counted.

    The clips come in the order train, valid, test; ``dtype`` is ``float32`` or ``float16``.
    """
    schema = corpus_schema(card, dtype)
    counts: dict[SplitName, int] = {}
    batches = list(_record_batches(schema, clips, counts))
    counted = card.model_copy(update={"counts": counts})
    return Corpus(counted, pa.Table.from_batches(batches, schema))


def write_corpus(
    path: str | os.PathLike[str], card: Card, clips: Iterable[Clip], *, dtype: str = "float32"
) -> Path:
    """Write a corpus to disk, complete or not at all; an existing file is replaced.

    The card is written first, so its ``counts`` must be right. The clips come in the order
    train, valid, test and are never all in memory; ``dtype`` is ``float32`` or ``float16``.

    Raises:
        DatasetError: If the target cannot be written, the clips come in another order than
            train, valid, test, or their counts differ from the card's.
        DiskError: If the disk has no room for it.
    """
    path = Path(path)
    recorded = {CARD_KEY: card.model_dump_json(), VERSION_KEY: metadata.version("mmcl")}
    schema = corpus_schema(card, dtype).with_metadata(recorded)
    counts: dict[SplitName, int] = {}
    try:
        with complete_file(path) as unfinished:
            with unfinished.open("wb") as file, pa.ipc.new_file(file, schema) as writer:
                for batch in _record_batches(schema, clips, counts):
                    writer.write_batch(batch)
            if counts != {name: count for name, count in card.counts.items() if count}:
                raise DatasetError(f"{path}: the card says {card.counts} clips, {counts} came.")
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise DatasetError(
            f"{path}: cannot be written ({reason}); nothing was left behind.\n"
            "  Give a file in a folder you may write to."
        ) from error
    return path


def _record_batches(
    schema: pa.Schema, clips: Iterable[Clip], counts: dict[SplitName, int]
) -> Iterator[pa.RecordBatch]:
    """Yield clips batch by batch and count them in ``counts``; refuse a wrong order."""
    remaining = iter(clips)
    latest_split = 0
    while block := list(islice(remaining, CLIPS_PER_BATCH)):
        for clip in block:
            split = SPLITS.index(clip.split)
            if split < latest_split:
                raise DatasetError(f'clip "{clip.id}": clips must come as train, valid, test')
            latest_split = split
            counts[clip.split] = counts.get(clip.split, 0) + 1
        yield record_batch(schema, block)
