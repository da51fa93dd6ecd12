"""Readers of the field's formats.

In comes the path of a foreign file; out goes a corpus like any other, checked and cleaned,
or one error that lists all faults of the file. A file passes through these modules in order:

1. ``open_or_convert``: the public functions; tell a corpus file from a foreign one.
2. ``layouts``: find the type of the file by its first bytes (``file_type``) and call its reader.
3. ``npz``, ``table`` and ``content`` (``dict_of_splits`` or ``magbert``): read the arrays into
   the classes of ``source_file``, unchecked. Pickles go through ``mmcl.corpus.unpickle``.
   ``csd`` makes the same of several files of CMU-MultimodalSDK.
4. ``check_source``: list the faults that are lost once clips are made of the arrays.
5. ``build_corpus``: choose name and task (``choose_task``), replace values that are not
   finite and cut padding (``real_steps``), make clips and card, and check the clips.
"""

from mmcl.corpus.readers.open_or_convert import check_file, convert_corpus, read_corpus
from mmcl.corpus.readers.options import ReadOptions

__all__ = ["ReadOptions", "check_file", "convert_corpus", "read_corpus"]
