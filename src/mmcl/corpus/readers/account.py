"""The account of a conversion: contents of a foreign file, and its parts that were left out."""

from __future__ import annotations

from collections.abc import Mapping

from mmcl.corpus.readers.choose_task import Chosen
from mmcl.corpus.readers.dict_of_splits import LABEL_FIELDS
from mmcl.corpus.readers.real_steps import Cut
from mmcl.corpus.readers.source_file import SourceFile
from mmcl.corpus.schema import Account
from mmcl.plain import without_controls
from mmcl.types import SplitName

__all__ = ["account_of"]


def account_of(
    source: SourceFile, counts: Mapping[SplitName, int], chosen: Chosen, cut: Cut
) -> Account:
    """Say what was in a file and what was left out.

    Args:
        source: The file.
        counts: Clips per split that are in the corpus.
        chosen: The labels that were taken.
        cut: Where the padding was.
    """
    kept, lost = sum(counts.values()), sum(part.clips for part in source.left_out)
    by_split = ", ".join(f"{source.split_keys.get(n, n)} {count}" for n, count in counts.items())
    clips = f"{kept + lost} clips, of which {kept} were read ({by_split})"
    fields = [f"fields {', '.join(source.fields)}"] if source.fields else []
    left_out = [part.what + (f"; {part.fix}" if part.fix else "") for part in source.left_out]
    other_labels = {field for split in source.splits for field in split.labels}
    for field in sorted(other_labels - {chosen.field, "annotations"} & set(LABEL_FIELDS)):
        left_out.append(f"field {field}, since {chosen.field} was taken (--task chooses another)")
    found = (clips, *fields, *cut.found)
    # Names of files and fields may hold what cannot be stored.
    return Account(
        source=tuple(map(without_controls, found)), left_out=tuple(map(without_controls, left_out))
    )
