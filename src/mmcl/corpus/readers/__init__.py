"""Readers of the field's formats, one small module per layout.

In comes the path of a foreign file; out goes a corpus like any other, checked and
cleaned, or one error that lists everything that is wrong with the file.

Layouts: ``mmsa`` (MOSI, MOSEI, CH-SIMS as MMSA ships them, aligned and unaligned),
``mult`` (MulT's pickles, IEMOCAP among them), ``magbert`` (lists of clips), ``plain``
(the common dict of splits) and ``npz``. Pickles are read by a restricted unpickler.
"""

from mmcl.corpus.readers.reading import (
    check_file,
    convert_corpus,
    read_corpus,
    read_foreign,
)

__all__ = ["check_file", "convert_corpus", "read_corpus", "read_foreign"]
