"""Search for the padding of features: found by its zeros, checked against the lengths.

Arrays are padded at the right (the field's usual way), at the left (MulT, MMSA-FET with
``padding_location="start"``) or at both ends. Nothing in a file says which, so the steps that
hold nothing are looked at in all splits together.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmcl.corpus.readers.options import Padding

__all__ = ["FEW", "Edges", "Place", "find_edges", "find_place", "leave_out", "spans_of"]

FEW = 0.1
"""Share of clips that may contradict what all others show."""
MANY = 0.5  # share of clips with empty steps at an end that makes this end one of padding

_Ints = NDArray[np.int64]


class Edges(NamedTuple):
    """Steps of clips; all ``[clips]``. A clip that holds nothing has ``start == stop``."""

    total: _Ints  # steps of its array
    start: _Ints  # first step that holds something
    stop: _Ints  # the step after the last one that does
    lengths: _Ints | None = None  # real steps, as the file says

    def joined(self, other: Edges) -> Edges:
        """Append the clips of another split."""
        lengths = None
        if self.lengths is not None and other.lengths is not None:
            lengths = np.concatenate([self.lengths, other.lengths])
        return Edges(
            np.concatenate([self.total, other.total]),
            np.concatenate([self.start, other.start]),
            np.concatenate([self.stop, other.stop]),
            lengths,
        )


class Place(NamedTuple):
    """Side on which a modality is padded, and the evidence for it.

    Attributes:
        side: Where the padding is.
        evidence: What shows it: the fields of its lengths, or ``steps of zeros``; empty if there
            is no padding.
        notes: What could be wrong, without the modality.
        contradicting: Rows of the clips whose lengths contradict the side that fits the others.
    """

    side: Padding
    evidence: str = ""
    notes: tuple[str, ...] = ()
    contradicting: tuple[int, ...] = ()


def find_edges(nonzero: NDArray[np.bool_], total: _Ints, lengths: _Ints | None) -> Edges:
    """Return the first and last steps ``[clips]`` of a mask ``[clips, steps]``."""
    num_steps = nonzero.shape[1]
    if num_steps == 0:
        zeros = np.zeros(len(nonzero), dtype=np.int64)
        return Edges(total, zeros, zeros, lengths)
    has_any = nonzero.any(axis=1)
    start = np.where(has_any, nonzero.argmax(axis=1), 0)
    stop = np.where(has_any, num_steps - nonzero[:, ::-1].argmax(axis=1), 0)
    return Edges(total, start, stop, lengths)


def find_place(
    edges: Edges, wanted: Padding | None, *, lengths_field: str = "", both_ends: bool = False
) -> Place:
    """Find where the padding of a modality is.

    Args:
        edges: All clips of the file.
        wanted: The user's choice.
        lengths_field: Fields of the lengths, divided by commas, for messages.
        both_ends: Whether empty steps at either end are padding, whatever other clips show:
            steps that are empty in every modality of an aligned file.
    """
    if edges.lengths is not None:
        return _place_by_lengths(edges, edges.lengths, wanted, lengths_field)
    held = edges.stop > edges.start
    before = held & (edges.start > 0)
    after = held & (edges.stop < edges.total)
    if wanted is not None:
        return Place(wanted, "as asked")
    if not (before.any() or after.any()):
        return Place("none")
    if both_ends:
        side: Padding = "both" if before.any() and after.any() else _side(before.any())
        return Place(side, "steps of zeros")
    return _place_by_zeros(int(before.sum()), int(after.sum()), int(held.sum()))


def _side(is_left: bool | np.bool_) -> Padding:
    return "left" if is_left else "right"


def _place_by_zeros(before: int, after: int, clips: int) -> Place:
    """Choose by the numbers of clips that begin and that end with empty steps."""
    side, fewer = _side(before > after), min(before, after)
    if not fewer:
        return Place(side, "steps of zeros")
    found = f"{before} of {clips} clips begin with steps of zeros and {after} end with them"
    if fewer >= MANY * clips:
        note = f"{found}; both were cut (or: --padding left, right or none)"
        return Place("both", "steps of zeros", (note,))
    other = _side(before <= after)
    end = "beginning" if other == "left" else "end"
    note = f"{found}; those at the {end} were kept as measured (or: --padding both or {other})"
    return Place(side, "steps of zeros", (note,))


def _place_by_lengths(edges: Edges, lengths: _Ints, wanted: Padding | None, field: str) -> Place:
    held = edges.stop > edges.start
    padded = held & (lengths < edges.total)
    fits: dict[Padding, NDArray[np.bool_]] = {
        "right": edges.stop <= lengths,
        "left": edges.start >= edges.total - lengths,
        "both": edges.stop - edges.start <= lengths,
    }
    full = held & (edges.start == 0) & (edges.stop == edges.total)
    if padded.any() and full.sum() >= (1 - FEW) * held.sum() and wanted != "none":
        note = (
            "no step is empty, so its lengths could not be checked; the first steps were taken "
            "(if the last ones are real: --padding left)"
        )
        return Place(wanted or "right", field, () if wanted else (note,))
    if not padded.any():
        return Place("none", notes=_unexplained_zeros(edges, held, field))
    if wanted == "none":
        return Place("none", "as asked")
    counts = {side: int((padded & ~fit).sum()) for side, fit in fits.items()}
    side: Padding = wanted or ("left" if counts["left"] < counts["right"] else "right")
    if wanted is None and counts[side] > FEW * padded.sum() and counts["both"] == 0:
        side = "both"
    misfits = np.flatnonzero(padded & ~fits[side])
    notes = []
    if not wanted and counts["right"] == counts["left"] == 0:
        notes.append(
            "its lengths fit padding at the right and at the left; taken as right "
            "(if it is not: --padding left)"
        )
    if 0 < len(misfits) <= FEW * padded.sum():
        notes.append(
            f"in {len(misfits)} of {int(held.sum())} clips steps outside the length hold "
            "something; the lengths were believed"
        )
        misfits = misfits[:0]
    shorter = padded & (edges.stop - edges.start < lengths)
    if shorter.sum() > MANY * padded.sum():
        notes.append(
            f"in {int(shorter.sum())} of {int(held.sum())} clips fewer steps hold something than "
            "the length says; the lengths were believed"
        )
    return Place(side, field, tuple(notes), tuple(misfits.tolist()))


def _unexplained_zeros(edges: Edges, held: NDArray[np.bool_], field: str) -> tuple[str, ...]:
    """Say that lengths count every step although many clips begin or end with empty ones."""
    for verb, is_empty in (("begin", edges.start > 0), ("end", edges.stop < edges.total)):
        count = int((held & is_empty).sum())
        if count > MANY * held.sum():
            return (
                f"its lengths count every step, but {count} of {int(held.sum())} clips {verb} with "
                "steps of zeros; these were kept (to look for padding instead, leave the lengths "
                f"out: {leave_out(field)})",
            )
    return ()


def leave_out(fields: str) -> str:
    """Return the options that leave out fields, which are divided by commas."""
    return " ".join(f'--rename "{field}="' for field in fields.split(", "))


def spans_of(edges: Edges, side: Padding) -> list[tuple[int, int]]:
    """Return first step and step after the last of every clip, for padding at a side."""
    begin, end = np.zeros_like(edges.total), edges.total
    if edges.lengths is not None:
        lengths = np.clip(edges.lengths, 0, edges.total)
        if side == "left":
            begin = edges.total - lengths
        elif side == "both":
            begin, end = edges.start, np.minimum(edges.start + lengths, edges.total)
        elif side == "right":
            end = lengths
    else:
        begin = edges.start if side in ("left", "both") else begin
        end = edges.stop if side in ("right", "both") else end
    held = edges.stop > edges.start
    pairs = zip(np.where(held, begin, 0).tolist(), np.where(held, end, 0).tolist(), strict=True)
    return list(pairs)
