"""Prediction of recordings (video or sound files) by a trained run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pydantic import ValidationError

from mmcl.corpus.schema import Clip, Task
from mmcl.corpus.store import Corpus, pack_corpus
from mmcl.errors import MediaError, RunError
from mmcl.evaluation.moments import Encode, Moments
from mmcl.media.recipe import Recipe
from mmcl.media.transcripts.languages import foreign_language
from mmcl.media.weights import STARTER
from mmcl.other_version import does_not_fit, misfits
from mmcl.runs.fitting import check_language
from mmcl.runs.run import Run
from mmcl.types import Modality

if TYPE_CHECKING:
    from mmcl.media.extract import Extractor

__all__ = ["Timeline", "predict_media", "recipe_of"]

_SENSES: dict[Modality, str] = {"text": "words", "audio": "voice", "vision": "face"}
_ABSENT: dict[Modality, str] = {
    "text": "no words were heard",
    "audio": "no voice was heard",
    "vision": "no face was seen",
}


class Timeline(NamedTuple):
    """Predictions for the utterances of a recording."""

    name: str  # of the file
    task: Task
    clips: tuple[Clip, ...]  # the utterances
    spans: tuple[tuple[float, float], ...]  # start and end of every utterance, in seconds
    moments: tuple[Moments, ...]  # their predictions and what drove them
    error: float | None  # mean absolute error of the run on validation, if it predicts scores
    notes: tuple[str, ...]


def predict_media(
    run: Run,
    path: Path,
    *,
    transcript: Path | str | None = None,
    language: str | None = None,
    extractor: Extractor | None = None,
    progress: Callable[[str], None] | None = None,
) -> Timeline:
    """Extract a file with the recipe of the run's corpus, and predict its utterances.

    Args:
        run: A run whose corpus ``mmcl extract`` made.
        path: A video or sound file.
        transcript: A transcript file, or the spoken text; without it speech is recognised.
        language: Two letters. Default: the language of the run.
        extractor: A loaded extractor with the recipe of the run.
        progress: Called with the name of every stage.

    Raises:
        RunError: If the run's features were not extracted by this package, or the words are in
            a language that its text model does not know.
        MediaError: If the file cannot be read or holds nothing that the run judges by.
        MissingExtraError: If the extra ``media`` is not installed.
    """
    tell = progress or (lambda stage: None)
    recipe = recipe_of(run, path)
    if language is not None:
        recipe = recipe.model_copy(update={"language": language})
    if extractor is None:
        from mmcl.media.extract import Extractor

        extractor = Extractor(recipe)
    check_language(run.where, recipe.text_model, extractor.recipe.language, path.name)
    tell("extracting words, voice and face")
    extracted = extractor.extract(path, transcript=transcript)
    text = " ".join(clip.text or "" for clip in extracted.clips)
    check_language(run.where, recipe.text_model, foreign_language(text), path.name)
    clips, spans, doubts = _judgeable(run, path, extracted.clips, extracted.spans)
    tell("predicting")
    corpus = _pack_clips(run, path, clips)
    moments = tuple(run.moments(corpus, encode=_encoder_of_words(run, extractor)))
    notes = (*doubts, *extracted.notes, *_version_notes(run, extractor), *run.notes(corpus))
    return Timeline(
        path.name,
        run.card.task,
        tuple(clips),
        tuple(spans),
        moments,
        run.validation_error,
        tuple(dict.fromkeys(notes)),
    )


def _encoder_of_words(run: Run, extractor: Extractor) -> Encode | None:
    """Return what encodes words for a run of frozen vectors; one that learnt masks by itself."""
    model = run.model()
    if "text" not in model.modalities or model.words is not None:
        return None
    return extractor.models.text.encode


def _judgeable(
    run: Run, path: Path, clips: Sequence[Clip], spans: Sequence[tuple[float, float]]
) -> tuple[list[Clip], list[tuple[float, float]], list[str]]:
    """Return the clips that hold something the run judges by, their times, and notes of doubt.

    Raises:
        MediaError: If there is none.
    """
    used = run.model().modalities
    kept, notes = [], []
    for number, (clip, span) in enumerate(zip(clips, spans, strict=True), start=1):
        place = "" if len(clips) == 1 else f"utterance {number} ({span[0]:.1f} s): "
        present = [m for m in used if m in clip.features]
        if not present:
            notes.append(f"{place}{_nothing(used)}: it gets no score")
            continue
        if "text" in used and "text" not in present:
            notes.append(f"{place}judged from the {_listed(present)} alone: doubtful")
        kept.append((clip, span))
    if not kept:
        raise MediaError(
            f'"{path.name}": {_nothing(used)}, so there is nothing to judge.\n'
            "  Expected a recording of someone who speaks."
        )
    return [clip for clip, _ in kept], [span for _, span in kept], notes


def _nothing(used: Sequence[Modality]) -> str:
    """Return in words that none of some modalities is there."""
    *others, last = (_ABSENT[m] for m in used)
    return " and ".join(filter(None, (", ".join(others), last)))


def _listed(modalities: Sequence[Modality]) -> str:
    return " and ".join(_SENSES[m] for m in modalities)


def recipe_of(run: Run, path: Path) -> Recipe:
    """Return the recipe that extracted the corpus of a run.

    Raises:
        RunError: If there is none, so ``path`` cannot be read, or another version wrote it.
    """
    if "extraction" not in run.card.recipe:
        raise RunError(
            f"{run.where}: was trained on features that mmcl did not extract, so it cannot "
            f'read "{path.name}".\n'
            "  Train on a corpus made by mmcl extract, or give a corpus with features like its own"
        )
    try:
        return Recipe.model_validate(run.card.recipe["extraction"])
    except ValidationError as fault:
        # The recipe names the version that extracted the corpus, before that of the training.
        recorded = run.card.recipe["extraction"]
        versions = recorded.get("versions") if isinstance(recorded, dict) else None
        written_by = versions.get("mmcl") if isinstance(versions, dict) else None
        again = "make its corpus again with mmcl extract, and train again"
        where = f"{run.where}: its recipe of extraction"
        raise RunError(does_not_fit(where, misfits(fault), written_by, again)) from None


def _pack_clips(run: Run, path: Path, clips: Sequence[Clip]) -> Corpus:
    """Pack the clips as a corpus with the task and settings of the run's corpus."""
    # Widths are taken from the clips, so that Run.prepared finds differences.
    widths = {m: steps.shape[1] for clip in clips for m, steps in clip.features.items()}
    changes = {
        "name": path.name,
        "dims": {m: widths.get(m, width) for m, width in run.card.dims.items()},
        "counts": {},
        "notes": (),
    }
    return pack_corpus(run.card.model_copy(update=changes), clips)


def _version_notes(run: Run, extractor: Extractor) -> list[str]:
    """Return a note for every tool with another version than at the extraction of the corpus."""
    # Other versions may give other features, and so other predictions.
    before = dict(run.card.recipe["extraction"].get("versions", {}))
    if run.folder.parent == STARTER:  # it comes with mmcl, whose tests look at its predictions
        before.pop("mmcl", None)
    here = extractor.recipe.versions
    return [
        f"extracted with {name} {here[name]}, the corpus of the run with {before[name]}"
        for name in sorted(before.keys() & here.keys())
        if before[name] != here[name]
    ]
