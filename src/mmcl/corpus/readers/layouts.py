"""Choose the reader for a foreign file by its first bytes, and call it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmcl.corpus.readers.content import read_content
from mmcl.corpus.readers.csd import CsdSource, read_csd
from mmcl.corpus.readers.file_type import file_type
from mmcl.corpus.readers.npz import read_npz
from mmcl.corpus.readers.options import ReadOptions
from mmcl.corpus.readers.source_file import SourceFile
from mmcl.corpus.readers.table import read_table
from mmcl.corpus.readers.table_per_split import read_tables
from mmcl.corpus.unpickle import load_pickle
from mmcl.errors import DatasetError

__all__ = ["read_source_file", "read_source_files"]


def read_source_files(sources: Sequence[CsdSource], options: ReadOptions) -> SourceFile:
    """Read a foreign file, or those of one corpus: ``.csd`` files, or a table per split.

    Nothing is checked yet.

    Raises:
        DatasetError: As :func:`read_source_file` does, or if one of several is no HDF5 file.
    """
    if len(sources) == 1 and sources[0].role is None:
        return read_source_file(sources[0].path, options)
    if all(s.role is None and file_type(s.path) == "text table" for s in sources):
        return read_tables([source.path for source in sources], options)
    for source in sources:
        if file_type(source.path) != "hdf5":
            raise DatasetError(
                f"{source.path}: no .csd file (HDF5). Read together are only those, or a csv "
                "table per split.\n"
                "  Expected one file, or the .csd files of CMU-MultimodalSDK of one corpus:\n"
                "  mmcl corpus convert text.csd audio.csd vision.csd labels.csd --out DST"
            )
    return read_csd(sources, options)


def read_source_file(path: Path, options: ReadOptions) -> SourceFile:
    """Read a foreign file with the reader of its type and layout; nothing is checked yet.

    Raises:
        DatasetError: If the file is damaged, of a type or layout that is not read, or a part of
            it cannot be read. The message begins with the path.
    """
    try:
        kind = file_type(path)
        if kind == "npz":
            return read_npz(path, options)
        if kind == "hdf5":
            return read_csd([CsdSource(path)], options)
        if kind == "pickle":
            return read_content(load_pickle(path), options)
        return read_table(path, kind, options)
    except DatasetError as error:
        # A reader of one layout names a part of the file; only here the path is known.
        if str(error).startswith(str(path)):
            raise
        names_a_part = str(error).startswith(("split ", "field ", "key ", "column ", "array "))
        raise type(error)(f"{path}{', ' if names_a_part else ': '}{error}") from None
