"""Recognition of a foreign file's layout, and the call of the layout's reader."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmcl.corpus.readers.dict_of_splits import read_dict_of_splits, recognise_dict_of_splits
from mmcl.corpus.readers.magbert import read_magbert
from mmcl.corpus.readers.npz import read_npz
from mmcl.corpus.readers.source_file import LAYOUTS, SourceFile, named_splits
from mmcl.corpus.unpickle import load_pickle
from mmcl.errors import DatasetError

__all__ = ["read_source_file"]

ZIP_MAGIC = b"PK\x03\x04"


def read_source_file(path: Path) -> SourceFile:
    """Read a foreign file with the reader of its layout; nothing is checked yet.

    Raises:
        DatasetError: If the file is damaged, of an unknown layout, or a part of it cannot be
            read. The message begins with the path.
    """
    try:
        with path.open("rb") as file:
            is_zip = file.read(len(ZIP_MAGIC)) == ZIP_MAGIC
        return read_npz(path) if is_zip else _read_content(path, load_pickle(path))
    except DatasetError as error:
        # A reader of one layout names a part of the file; only here the path is known.
        if str(error).startswith(str(path)):
            raise
        raise type(error)(f"{path}, {error}") from None


def _read_content(path: Path, content: Any) -> SourceFile:
    splits = named_splits(content) if isinstance(content, Mapping) else {}
    if splits and all(isinstance(split, Mapping) for split in splits.values()):
        layout = recognise_dict_of_splits(splits)
        if layout is not None:
            return read_dict_of_splits(splits, layout)
    elif splits and all(_is_magbert_split(split) for split in splits.values()):
        return read_magbert(splits)
    raise DatasetError(
        f"{path}: unknown layout; it holds {_outline(content)}.\n"
        '  Expected a dict of splits "train", "valid" (or "dev", "val") and "test", each a dict '
        'with "text", "audio" or "vision", or a list of ((words, visual, acoustic), label, '
        f"segment).\n  {LAYOUTS}"
    )


def _is_magbert_split(split: Any) -> bool:
    """Tell whether a split is a list whose first clip, if any, has three parts."""
    return isinstance(split, list | tuple) and all(
        isinstance(clip, list | tuple) and len(clip) == 3 for clip in split[:1]
    )


def _outline(content: Any) -> str:
    if not isinstance(content, Mapping):
        kind = "ndarray" if isinstance(content, np.ndarray) else type(content).__name__
        return f"one {kind}"
    keys = [repr(str(key)) for key in content]
    more = ", ..." if len(keys) > 5 else ""
    inner = next((v for v in content.values() if isinstance(v, Mapping)), None)
    within = f", and in the first of them {_outline(inner)}" if inner else ""
    return f"a dict with {', '.join(keys[:5]) or 'no keys'}{more}{within}"
