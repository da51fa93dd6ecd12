"""The corpora of the steps, as files that several trainings can share."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from mmcl.corpus.plant import PlantSettings, plant_card, plant_clips
from mmcl.corpus.readers import convert_corpus
from mmcl.corpus.schema import Card, Clip
from mmcl.corpus.store import open_corpus, write_corpus

REAL_DATA = "MMCL_REAL_DATA"
"""Environment variable with the folder of real corpora."""
FEW = {"train": 40, "valid": 16, "test": 16}
"""Clips of every split where a step is only tried."""


class Place(NamedTuple):
    """Where the steps of one call work, and whether they are only tried."""

    folder: Path  # trainings and corpora
    results: Path  # kept results
    is_try: bool = False


class Source(NamedTuple):
    """A real corpus: its file below :data:`REAL_DATA`, and how it is read."""

    path: str
    options: Mapping[str, Any] = MappingProxyType({})
    text_model: str | None = None  # makes vectors of the words


SOURCES = {
    "ravdess": Source("ravdess/ravdess_av.pkl.gz"),
    "mmmo": Source("mmmo/mmmo_3modal_resplit.pkl.gz"),
    "mmmo-published": Source("mmmo/mmmo_published_split.pkl.gz"),
    "pom": Source("pom/pom_audio_vision.pkl.gz", {"name": "pom", "label_range": (1.0, 7.0)}),
    "mosi": Source(
        "mosi_words/words_audio.pkl.gz", {"name": "mosi", "label_range": (-3.0, 3.0)}, "packaged"
    ),
    "mosi-words": Source("mosi_words/reviews.csv", {"name": "mosi", "label_range": (-3.0, 3.0)}),
    "meld": Source("meld"),
    "meld-vectors": Source("meld", text_model="packaged"),
    "grid": Source("grid"),
    "ravdess-clips": Source("ravdess"),
    "moud": Source("moud"),
}


def is_here(name: str) -> bool:
    """Return whether the files of a real corpus are on this machine."""
    root = os.environ.get(REAL_DATA)
    return root is not None and (Path(root) / SOURCES[name].path).exists()


def planted_corpus(place: Place, *, aligned: bool) -> Path:
    """Return the planted corpus of the tables, or a small one."""
    settings = PlantSettings(aligned=aligned, **(FEW if place.is_try else {}))
    path = place.folder / f"corpora/planted-{'aligned' if aligned else 'unaligned'}.arrow"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_corpus(path, plant_card(settings), plant_clips(settings))
    return path


def real_corpus(place: Place, name: str) -> Path:
    """Return a real corpus, converted once; only the first clips of it if it is only tried."""
    path = place.folder / f"corpora/{name}.arrow"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        source = SOURCES[name]
        change = partial(_changed, few=place.is_try, text_model=source.text_model)
        convert_corpus(
            Path(os.environ[REAL_DATA]) / source.path, path, change=change, **source.options
        )
    return path


def _changed(
    card: Card, clips: Iterable[Clip], *, few: bool, text_model: str | None
) -> tuple[Card, Iterable[Clip]]:
    if few:
        counts = {split: min(count, FEW[split]) for split, count in card.counts.items()}
        card, clips = card.model_copy(update={"counts": counts}), _first(clips, counts)
    if text_model is not None:
        from mmcl.media.text_vectors import with_text_vectors

        card, clips = with_text_vectors(card, clips, text_model)
    return card, clips


def _first(clips: Iterable[Clip], counts: dict[Any, int]) -> Iterator[Clip]:
    left = dict(counts)
    for clip in clips:
        if left[clip.split]:
            left[clip.split] -= 1
            yield clip


GROUPS: dict[str, Callable[[str], str]] = {
    "ravdess": lambda clip_id: clip_id[-2:],  # the actor
    "mmmo": lambda clip_id: clip_id,
}
"""Corpora with too few validation clips to compare models on, and what their folds keep whole."""


def development_corpora(place: Place, name: str, count: int) -> list[Path]:
    """Return the training and validation clips of a corpus, as they are or in folds.

    Every fold validates on a part of all these clips, and trains on the others. The test clips
    are in none of them.
    """
    corpus = open_corpus(real_corpus(place, name)).development()
    clips = [clip for split in ("train", "valid") for clip in corpus.split(split).clips()]
    folder = place.folder / f"corpora/{name}-development"
    folder.mkdir(exist_ok=True)
    if name not in GROUPS:
        return [_write(folder / "all.arrow", corpus.card, clips)]
    group = GROUPS[name]
    groups = sorted({group(clip.id) for clip in clips}, key=_order)
    count = min(2 if place.is_try else count, len(groups))
    places = {key: index % count for index, key in enumerate(groups)}
    paths = []
    for fold in range(count):
        chosen = [
            c.model_copy(update={"split": "valid" if places[group(c.id)] == fold else "train"})
            for c in clips
        ]
        paths.append(_write(folder / f"fold-{fold}.arrow", corpus.card, chosen))
    return paths


def _order(key: str) -> tuple[list[int], str]:
    return [int(number) for number in re.findall(r"\d+", key)], key


def _write(path: Path, card: Card, clips: list[Clip]) -> Path:
    if not path.exists():
        ordered = sorted(clips, key=lambda clip: clip.split)  # "train" stands before "valid"
        counts = {split: sum(c.split == split for c in clips) for split in ("train", "valid")}
        write_corpus(path, card.model_copy(update={"counts": counts}), ordered)
    return path
