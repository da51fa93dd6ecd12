"""Write the model card of the starter from what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from starter_clips import GRIEF, SMILE

from mmcl.evaluation.tables import write_result

CARD = """\
# The starter

A small model that comes with mmcl and needs no training. It reads English words and the face of
a speaker, and gives a score from -3 (very negative) to +3 (very positive).

    mmcl predict talk.mp4
    mmcl predict reviews.csv --out scores.csv
    mmcl train CORPUS --from starter

It is MMCL (`calibrated`) over words and face, behind all-MiniLM-L6-v2 (Apache-2.0, extra
`media-offline`), of which the starter carries only what fine-tuning changed (LoRA). Made by
`tools/starter.py` when mmcl had the version {version}; later versions carry it unchanged.

## What it learnt from

- Words: {sentences} English sentences of VADER's ground truth (Hutto and Gilbert, 2014; MIT):
  tweets, reviews of products and films, newspaper editorials, each rated by some 20 people from
  -4 to 4 (here times 3/4). Documents are split 80/10/10; the starter never saw a sentence of the
  last part.
  Three in five are written as recognisers write: small letters, no punctuation. The texts are not
  part of the package.
- Face: 52 blendshapes of 13,349 photographs (muxspace/facial_expressions, Apache-2.0), measured by
  MediaPipe's landmarker. The people of one split are in no other. Mouth, head and eyes were moved
  at random, so that speaking says nothing.
- Words with a face are made pairs. A neutral face changes nothing. A smile adds {smile:g} to a
  neutral sentence, and less the closer the words are to an end. A negative face adds {grief:g}.

No clip of CMU-MOSI, CMU-MOSEI or any other corpus of the field was used.

## How wrong it is

Held-out sentences ({held} by documents that were held out):

{sentence_table}

Validation error of the fine-tuned encoder: {word_seeds}. Of the networks over words and face by
seed, on sentences, faces and pairs: {network_seeds}. The starter is the mean of the networks of
seeds {chosen}.
{reviews}
Of {count} short sentences written for this test ("not bad at all", "it could have been better"),
{right} come out on the right side ({share:.0%}).{wrong}

Faces of people who were held out, score or change of score:

{face_table}

## What it cannot do

- Another language than English. Sarcasm. Who or what is meant.
- The voice: what can be had under a free licence did not carry over to other microphones. It is
  not heard at all.
- Negative faces: photographs of them could hardly be told from neutral ones, so the face says
  little but "a smile". A grimace may pass for a smile.
- A clip without words is judged from the face alone. Take that as a hint.
- It says how a sentence sounds to raters on average, not what a person feels. Do not use it to
  judge people.
"""


def write_card(results: Mapping[str, Any], path: Path) -> None:
    """Fill in the card with the results of ``tools/starter.py``."""
    rows = results["sentences"]
    names = {"starter": "the starter", "ridge": "ridge on the same vectors"}
    hand = results["hand_written"]
    counts = results["counts"]
    card = CARD.format(
        version=metadata.version("mmcl"),
        sentences=f"{counts['train'] + counts['valid']:,}",
        held=f"{counts['test']:,}",
        smile=SMILE,
        grief=GRIEF,
        sentence_table=_table({names[key]: rows[key] for key in names}),
        word_seeds=_seeds(results["words"]),
        network_seeds=_seeds(results["network"]),
        chosen=", ".join(map(str, results["chosen"])),
        reviews=_reviews(results.get("reviews")),
        count=hand["count"],
        right=hand["right"],
        share=hand["right"] / hand["count"],
        wrong=" The others: " + "; ".join(hand["wrong"]) + "." if hand["wrong"] else "",
        face_table="\n".join(
            ["| | |", "|---|---|"] + [f"| {k} | {v:+.2f} |" for k, v in results["faces"].items()]
        ),
    )
    write_result(path, card)


def _table(rows: Mapping[str, Mapping[str, float]]) -> str:
    lines = ["| | MAE | Corr | Acc-2 non-zero | Acc-7 |", "|---|---|---|---|---|"]
    for name, row in rows.items():
        cells = [f"{row['mae']:.3f}", f"{row['corr']:.3f}"]
        cells += [f"{100 * row[key]:.1f}" for key in ("acc2_non0", "acc7")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _seeds(losses: Mapping[str, float]) -> str:
    return ", ".join(f"{loss:.3f}" for loss in losses.values())


def _reviews(reviews: Mapping[str, Any] | None) -> str:
    if reviews is None:
        return ""
    return (
        f"\nSpoken reviews ({reviews['clips']:,} utterances of CMU-MOSI's training and validation "
        f"splits, from none of which it learnt; of two sets of dropout rates, and of these seeds, "
        f"the best on them were taken):\n\n{_table(reviews['rows'])}\n"
    )
