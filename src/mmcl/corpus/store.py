"""A corpus on disk: one Arrow IPC file, memory-mapped, with its card in the schema.

Each row is a clip. Features are ``list<fixed_size_list<float>>`` columns, ragged over
steps, null where the modality is absent. Reading copies nothing: a split hands out
views into the mapped file, and the file may be larger than memory.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import ValidationError

from mmcl.corpus.mapped import MappedFile
from mmcl.corpus.schema import Card, Clip, Planted, Word
from mmcl.errors import DatasetError, SealedSplitError
from mmcl.types import MODALITIES, SPLITS, Modality, SplitName

__all__ = ["Corpus", "Split", "is_corpus_file", "open_corpus", "pack_corpus", "write_corpus"]

CARD_KEY = b"mmcl.card"
CLIPS_PER_BATCH = 4096
_ARROW_MAGIC = b"ARROW1"
_LABEL_TYPES = {
    "regression": pa.float64(),
    "classes": pa.int32(),
    "emotions": pa.list_(pa.int8()),
}
_WORD = pa.struct([("text", pa.string()), ("start", pa.float64()), ("end", pa.float64())])


class _Column(NamedTuple):
    """A ragged column: clip i is ``chunks[which[i]][begins[i] : begins[i] + lengths[i]]``."""

    chunks: list[NDArray[Any]]  # per record batch [steps of all its clips, d_m]
    which: NDArray[np.int64]  # [clips]
    begins: NDArray[np.int64]  # [clips]
    lengths: NDArray[np.int64]  # [clips]


class Split:
    """The clips of one split, read-only, in the order they lie on disk.

    Args:
        name: Its name.
        card: Of the corpus.
        table: Its rows.
        mapped: The file they lie in, where they lie in one.
    """

    def __init__(
        self, name: str, card: Card, table: pa.Table, mapped: MappedFile | None = None
    ) -> None:
        self.name = name
        self.card = card
        self.table = table
        self.mapped = mapped
        self._columns: dict[str, _Column] = {}

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def ids(self) -> list[str]:
        """Ids of the clips."""
        ids: list[str] = self.table.column("id").to_pylist()
        return ids

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """The modalities the corpus has, always text, audio, vision in this order."""
        return tuple(m for m in MODALITIES if m in self.card.dims)

    def labels(self, *, modality: Modality | None = None) -> NDArray[Any]:
        """Labels of every clip.

        Args:
            modality: Ask for the labels of one modality (CH-SIMS) in place of the clip's.

        Returns:
            Regression: float64 ``[clips]``, NaN where unknown. Classes: int64 ``[clips]``,
            -1 where unknown. Emotions: int64 ``[clips, emotions]``, -1 where unknown.
        """
        if modality is not None:
            if f"label_{modality}" not in self.table.column_names:
                return np.full(len(self), np.nan)
            column = self.table.column(f"label_{modality}").to_pylist()
            return np.array([np.nan if v is None else v for v in column], dtype=np.float64)
        column = self.table.column("label").to_pylist()
        task = self.card.task
        if task.kind == "regression":
            return np.array([np.nan if v is None else v for v in column], dtype=np.float64)
        if task.kind == "classes":
            return np.array([-1 if v is None else v for v in column], dtype=np.int64)
        unknown = [-1] * len(task.names)
        known = [unknown if v is None else v for v in column]
        return np.array(known, dtype=np.int64).reshape(len(self), len(task.names))

    def lengths(self, modality: Modality) -> NDArray[np.int64]:
        """Steps of every clip, ``[clips]``; 0 where the modality is absent."""
        if modality not in self.card.dims:
            return np.zeros(len(self), dtype=np.int64)
        return self._column(f"features_{modality}").lengths.copy()

    def feature_bytes(self) -> int:
        """Bytes that the features of all clips take on disk."""
        total = 0
        for modality in self.modalities:
            kind = self.table.schema.field(f"features_{modality}").type.value_type
            width = kind.list_size * kind.value_type.bit_width // 8
            total += width * int(self._column(f"features_{modality}").lengths.sum())
        return total

    def steps(self, modality: Modality, row: int) -> NDArray[Any]:
        """Features of one clip, ``[n, d_m]``: a view into the file, not a copy."""
        return self._cut(f"features_{modality}", row)

    def padded(
        self, modality: Modality, rows: Sequence[int] | NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Features of some clips side by side, in the precision of the file.

        Returns:
            Features ``[b, n, d_m]``, n of the longest of them and at least 1, zero beyond a
            clip's own end; and the clips' lengths, ``[b]``.
        """
        column = self._column(f"features_{modality}")
        at = np.asarray(rows, dtype=np.int64)
        lengths = column.lengths[at]
        longest = max(int(lengths.max(initial=0)), 1)
        kind = column.chunks[0].dtype if column.chunks else np.dtype(np.float32)
        padded = np.zeros((len(at), longest, self.card.dims[modality]), dtype=kind)
        places = (column.which[at].tolist(), column.begins[at].tolist(), lengths.tolist())
        for clip, which, begin, length in zip(padded, *places, strict=True):
            clip[:length] = column.chunks[which][begin : begin + length]
        self._count(column, len(at), int(lengths.sum()))
        return padded, lengths

    def roles(self, modality: Modality, row: int) -> NDArray[np.int8] | None:
        """Planted role of every step of one clip, ``[n]``; None in a real corpus."""
        if f"role_{modality}" not in self.table.column_names:
            return None
        return self._cut(f"role_{modality}", row)

    def clips(self) -> Iterator[Clip]:
        """Every clip as a :class:`~mmcl.corpus.schema.Clip`."""
        for row in range(len(self)):
            yield self._clip(row)

    def select(self, rows: Sequence[int] | NDArray[Any]) -> Split:
        """A split of the given rows, in the given order (copies their features)."""
        return Split(self.name, self.card, self.table.take(pa.array(rows, type=pa.int64())))

    def between(self, start: int, stop: int) -> Split:
        """The clips from row ``start`` on and before row ``stop`` (copies nothing)."""
        return Split(self.name, self.card, self.table.slice(start, stop - start), self.mapped)

    def _column(self, name: str) -> _Column:
        if name not in self._columns:
            chunks = [chunk for chunk in self.table.column(name).chunks if len(chunk)]
            self._columns[name] = _view(chunks)
        return self._columns[name]

    def _cut(self, name: str, row: int) -> NDArray[Any]:
        column = self._column(name)
        begin, length = int(column.begins[row]), int(column.lengths[row])
        self._count(column, 1, length)
        cut: NDArray[Any] = column.chunks[column.which[row]][begin : begin + length]
        return cut

    def _count(self, column: _Column, num_clips: int, num_steps: int) -> None:
        """Tell the mapped file how much of it is read."""
        if self.mapped is not None and column.chunks:
            self.mapped.count(num_steps * column.chunks[0][:1].nbytes, places=num_clips)

    def _clip(self, row: int) -> Clip:
        fields = {
            name: self.table.column(name)[row].as_py()
            for name in ("id", "split", "label", "video_id", "clip_id", "text", "words")
        }
        if fields["words"] is not None:
            fields["words"] = tuple(Word(**word) for word in fields["words"])
        if isinstance(fields["label"], list):
            fields["label"] = tuple(fields["label"])
        present = [m for m in self.modalities if self.table.column(f"features_{m}")[row].is_valid]
        by_modality = {
            m: self.table.column(f"label_{m}")[row].as_py()
            for m in MODALITIES
            if f"label_{m}" in self.table.column_names
        }
        known = {m: v for m, v in by_modality.items() if v is not None}
        return Clip(
            features={m: self.steps(m, row) for m in present},
            modality_labels=known or None,
            planted=self._planted(row),
            **fields,
        )

    def _planted(self, row: int) -> Planted | None:
        if "planted" not in self.table.column_names:
            return None
        roles = {m: self._cut(f"role_{m}", row) for m in self.modalities}
        return Planted(roles=roles, scores=dict(self.table.column("planted")[row].as_py()))


class _HashSink(io.RawIOBase):
    """A file that only remembers the hash of what is written to it."""

    def __init__(self, digest: Any) -> None:
        self.digest = digest

    def writable(self) -> bool:
        return True

    def write(self, block: Any) -> int:
        self.digest.update(block)
        return len(memoryview(block))


class Corpus:
    """A corpus: its card and its splits. The test split has one door.

    ``split("test")`` is refused: everything that trains, selects or tunes works on
    ``split("train")`` and ``split("valid")``. Only ``mmcl.evaluation.protocol`` calls
    :meth:`open_test_split`, and a test of this project proves that.
    """

    def __init__(self, card: Card, table: pa.Table, mapped: MappedFile | None = None) -> None:
        self.card = card
        self._table = table
        self.mapped = mapped
        self._splits: dict[str, Split] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process maps the same file, and is sent the clips only where there is none."""
        if self.mapped is not None:
            return _map_again, (self.mapped.path.absolute(), self.card)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self._table.schema) as stream:
            stream.write_table(self._table)
        return _unpack, (self.card, sink.getvalue().to_pybytes())

    def __repr__(self) -> str:
        counts = "/".join(str(self.card.counts.get(name, 0)) for name in SPLITS)
        return f"Corpus({self.card.name!r}, {self.card.task.kind}, {counts} clips)"

    def split(self, name: SplitName) -> Split:
        """The training or validation split.

        Raises:
            SealedSplitError: If asked for ``test``.
        """
        if name == "test":
            raise SealedSplitError(
                "the test split is sealed: training, selection and tuning use "
                '"train" and "valid".\n'
                "  To score a run on it: mmcl evaluate RUN"
            )
        return self._rows(name)

    def open_test_split(self) -> Split:
        """The test split, for ``mmcl.evaluation.protocol`` and for nothing else."""
        return self._rows("test")

    def every_clip(self) -> Split:
        """All clips of all splits with their labels hidden, for prediction."""
        table = self._table
        for name in [n for n in table.column_names if n.startswith("label")]:
            field = table.schema.field(name)
            hidden = pa.nulls(table.num_rows, type=field.type)
            table = table.set_column(table.column_names.index(name), field, hidden)
        return Split("all", self.card, table, self.mapped)

    def development(self) -> Corpus:
        """The same corpus without its test clips: all that training is given."""
        counts = {name: count for name, count in self.card.counts.items() if name != "test"}
        card = self.card.model_copy(update={"counts": counts})
        return Corpus(card, self._table.slice(0, sum(counts.values())), self.mapped)

    def checksum(self) -> str:
        """Sha256 of all rows: equal for equal clips, wherever they are read from."""
        digest = hashlib.sha256(self.card.task.model_dump_json().encode())
        bare = self._table.replace_schema_metadata(None)
        with pa.ipc.new_stream(pa.PythonFile(_HashSink(digest), mode="w"), bare.schema) as stream:
            for batch in bare.to_batches():
                stream.write_batch(batch)
                if self.mapped is not None:
                    self.mapped.count(batch.nbytes)
        return digest.hexdigest()

    def _rows(self, name: SplitName) -> Split:
        if name not in self._splits:
            before = SPLITS[: SPLITS.index(name)]
            start = sum(self.card.counts.get(earlier, 0) for earlier in before)
            table = self._table.slice(start, self.card.counts.get(name, 0))
            self._splits[name] = Split(name, self.card, table, self.mapped)
        return self._splits[name]


def is_corpus_file(path: Path) -> bool:
    """Whether a file is an Arrow IPC file (which says nothing of its content)."""
    with path.open("rb") as file:
        return file.read(len(_ARROW_MAGIC)) == _ARROW_MAGIC


def open_corpus(path: str | os.PathLike[str]) -> Corpus:
    """Map a corpus file into memory.

    Raises:
        DatasetError: If the file is missing, empty, cut short, or holds no corpus card.
    """
    path = Path(path)
    try:
        mapped = MappedFile(path)
        table = pa.ipc.open_file(pa.BufferReader(mapped.buffer)).read_all()
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such file.\n  Make one: mmcl corpus plant {path}") from None
    except (ValueError, OSError) as fault:  # pyarrow's own among the first
        raise DatasetError(
            f"{path}: not a readable corpus file ({str(fault).splitlines()[0]}).\n"
            "  Expected an Arrow IPC file written by mmcl. "
            f"Convert it again: mmcl corpus convert SRC {path}"
        ) from None
    text = (table.schema.metadata or {}).get(CARD_KEY)
    if text is None:
        raise DatasetError(
            f"{path}: an Arrow file without a corpus card, so not written by mmcl.\n"
            f"  Convert the file it came from: mmcl corpus convert SRC {path}"
        )
    try:
        card = Card.model_validate_json(text)
    except ValidationError as fault:
        raise DatasetError(
            f"{path}: its card has {fault.error_count()} problems, so another version wrote it.\n"
            f"  Convert the file it came from again: mmcl corpus convert SRC {path}"
        ) from None
    return Corpus(card, table, mapped)


def _map_again(path: Path, card: Card) -> Corpus:
    corpus = open_corpus(path)
    return corpus if corpus.card == card else corpus.development()


def _unpack(card: Card, stream: bytes) -> Corpus:
    return Corpus(card, pa.ipc.open_stream(stream).read_all())


def pack_corpus(card: Card, clips: Iterable[Clip], *, dtype: str = "float32") -> Corpus:
    """Build a corpus in memory; ``card.counts`` is replaced by what was counted.

    Args:
        card: Its card.
        clips: Clips in the order train, valid, test.
        dtype: ``float32`` or ``float16``, the type features are kept in.
    """
    schema = _schema(card, dtype)
    batches, counts = [], dict.fromkeys(SPLITS, 0)
    for batch in _record_batches(schema, card, clips, counts):
        batches.append(batch)
    counted = card.model_copy(update={"counts": {k: v for k, v in counts.items() if v}})
    return Corpus(counted, pa.Table.from_batches(batches, schema))


def write_corpus(
    path: str | os.PathLike[str], card: Card, clips: Iterable[Clip], *, dtype: str = "float32"
) -> Path:
    """Write a corpus to disk, whole or not at all.

    It is written beside the target under another name and moved there when complete.

    Args:
        path: Target file; an existing one is replaced.
        card: Its card; ``counts`` must be right, since it is written first.
        clips: Clips in the order train, valid, test; streamed, never all in memory.
        dtype: ``float32`` or ``float16``, the type features are kept in.

    Raises:
        DatasetError: If the disk is full, the target cannot be written, the clips come in
            another order than train, valid, test, or their counts differ from the card's.
    """
    path = Path(path)
    schema = _schema(card, dtype).with_metadata({CARD_KEY: card.model_dump_json().encode()})
    counts = dict.fromkeys(SPLITS, 0)
    unfinished = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        unfinished = Path(name)
        with os.fdopen(handle, "wb") as file:
            with pa.ipc.new_file(file, schema) as writer:
                for batch in _record_batches(schema, card, clips, counts):
                    writer.write_batch(batch)
            file.flush()
            os.fsync(file.fileno())
        if {k: v for k, v in counts.items() if v} != {k: v for k, v in card.counts.items() if v}:
            raise DatasetError(f"{path}: the card says {card.counts} clips, {counts} came.")
        unfinished.chmod(0o644)
        unfinished.replace(path)
    except OSError as fault:
        raise DatasetError(_cannot_write(path, fault)) from fault
    finally:
        if unfinished is not None:
            unfinished.unlink(missing_ok=True)
    return path


def _cannot_write(path: Path, fault: OSError) -> str:
    if fault.errno == errno.ENOSPC:
        return (
            f"{path}: the disk is full; nothing was left behind.\n"
            "  Free some space, or halve the size: --dtype float16"
        )
    reason = os.strerror(fault.errno) if fault.errno else str(fault)
    return (
        f"{path}: cannot be written ({reason}); nothing was left behind.\n"
        "  Give a file in a folder you may write to."
    )


def _schema(card: Card, dtype: str) -> pa.Schema:
    width = {"float32": pa.float32(), "float16": pa.float16()}
    if dtype not in width:
        raise DatasetError(f'dtype must be "float32" or "float16", got {dtype!r}')
    present = [m for m in MODALITIES if m in card.dims]
    fields = [
        ("id", pa.string()),
        ("split", pa.dictionary(pa.int8(), pa.string())),
        ("label", _LABEL_TYPES[card.task.kind]),
        *((f"label_{m}", pa.float64()) for m in MODALITIES),
        ("video_id", pa.string()),
        ("clip_id", pa.string()),
        ("text", pa.string()),
        ("words", pa.list_(_WORD)),
        *((f"features_{m}", pa.list_(pa.list_(width[dtype], card.dims[m]))) for m in present),
    ]
    if "planted" in card.recipe:
        fields += [("planted", pa.map_(pa.string(), pa.float64()))]
        fields += [(f"role_{m}", pa.list_(pa.int8())) for m in present]
    return pa.schema(fields)


def _record_batches(
    schema: pa.Schema, card: Card, clips: Iterable[Clip], counts: dict[SplitName, int]
) -> Iterator[pa.RecordBatch]:
    remaining = iter(clips)
    latest = 0
    while block := list(islice(remaining, CLIPS_PER_BATCH)):
        for clip in block:
            at = SPLITS.index(clip.split)
            if at < latest:
                raise DatasetError(f'clip "{clip.id}": clips must come as train, valid, test')
            latest = at
            counts[clip.split] += 1
        columns = [_column(field, card, block) for field in schema]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


def _column(field: pa.Field, card: Card, block: list[Clip]) -> pa.Array:
    name = field.name
    if name.startswith("features_"):
        modality = name.removeprefix("features_")
        return _ragged([clip.features.get(modality) for clip in block], field.type)
    if name.startswith("role_"):
        modality = name.removeprefix("role_")
        roles = [clip.planted.roles.get(modality) if clip.planted else None for clip in block]
        return _ragged(roles, field.type)
    if name.startswith("label_"):
        modality = name.removeprefix("label_")
        return pa.array([(c.modality_labels or {}).get(modality) for c in block], field.type)
    if name == "planted":
        scores = [list(c.planted.scores.items()) if c.planted else None for c in block]
        return pa.array(scores, field.type)
    if name == "words":
        words = [None if c.words is None else [w.model_dump() for w in c.words] for c in block]
        return pa.array(words, field.type)
    if name == "split":
        # One dictionary for all batches: an Arrow file cannot hold a second one.
        numbers = pa.array([SPLITS.index(clip.split) for clip in block], pa.int8())
        return pa.DictionaryArray.from_arrays(numbers, pa.array(SPLITS))
    return pa.array([getattr(clip, name) for clip in block], field.type)


def _ragged(sequences: list[NDArray[Any] | None], kind: pa.ListType) -> pa.Array:
    """Pack sequences ``[n]`` or ``[n, d]`` into one list array; None becomes null."""
    inner = kind.value_type
    fixed = pa.types.is_fixed_size_list(inner)
    leaf = (inner.value_type if fixed else inner).to_pandas_dtype()
    present = [np.asarray(s).reshape(-1) for s in sequences if s is not None]
    flat = np.concatenate([*present, np.zeros(0, dtype=leaf)], dtype=leaf, casting="unsafe")
    values = pa.array(flat, type=inner.value_type if fixed else inner)
    if fixed:
        values = pa.FixedSizeListArray.from_arrays(values, type=inner)
    lengths = [0 if s is None else len(s) for s in sequences]
    offsets = pa.array(np.cumsum([0, *lengths]).astype(np.int32))
    missing = pa.array([s is None for s in sequences])
    return pa.ListArray.from_arrays(offsets, values, type=kind, mask=missing)


def _view(chunks: list[pa.ListArray]) -> _Column:
    """Views of the chunks of a ragged column, ``[n]`` or ``[n, d]``, and where each clip is."""
    offsets = [chunk.offsets.to_numpy(zero_copy_only=True) for chunk in chunks]
    none = np.zeros(0, dtype=np.int64)
    return _Column(
        [_values(chunk.values) for chunk in chunks],
        np.repeat(np.arange(len(chunks)), [len(chunk) for chunk in chunks]),
        np.concatenate([none, *(each[:-1] for each in offsets)]),
        np.concatenate([none, *(np.diff(each) for each in offsets)]),
    )


def _values(values: pa.Array) -> NDArray[Any]:
    if not pa.types.is_fixed_size_list(values.type):
        return np.asarray(values.to_numpy(zero_copy_only=True))
    width = values.type.list_size
    return np.asarray(values.values.to_numpy(zero_copy_only=True).reshape(-1, width))
