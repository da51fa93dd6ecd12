"""The assessment of complementary features: everything ``mmcl explain`` finds out, and its files.

::

    DIR/explanation.json      what :func:`explain` returns, without the clips
    DIR/clips.jsonl           a line per clip

``explanation.json`` holds numbers that are finite or null::

    command, run, corpus, split, model, seeds, environment, notes
    conclusions       sentences in plain language
    curves            unit      absolute error, or cross-entropy
                      clips     how many
                      fractions shares of the steps, 0 to 1
                      deletion, insertion: by score (actions, moments,
                          integrated_gradients, random)
                              error    [11], mean over clips and seeds
                              area     under it
                          random also has area_std, lowest [11], highest [11] over its orders
                      comparisons: curve, score, against, area, other_area,
                          gain (above 0: the score ranks better), low, high, p
    policies          errors        by actions: learned, ones, random, none
                      comparisons: against, gain (above 0: learned errs less), low, high, p
    probes            null where no training clip has a label, else
                      score (R² or accuracy), clips, and modalities: without, increment, low,
                      high, p
    redundancy        pair, common and complementary: value, floor
    actions           by group and modality: steps, histogram [10], mean_keep_probability,
                      kept_share
    planted           null, or common_auroc, action_auroc and share by modality

A line of ``clips.jsonl``: id, truth, prediction, spread, probability; by modality steps (their
number), kept (their indices from 0) and share; word_share (by step of text), and words_kept,
null where the words are not known step by step.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn

from mmcl.corpus.batches import labelled_rows
from mmcl.corpus.store import Corpus, Split
from mmcl.errors import DatasetError, RunError
from mmcl.evaluation.moments import Moments, in_words, moments_of
from mmcl.evaluation.protocol import JudgedSplit, judged_split
from mmcl.evaluation.tables import write_text
from mmcl.explain.complementary import (
    action_distribution,
    labelled,
    planted_answers,
    pool,
    probes,
    redundancy,
)
from mmcl.explain.curves import (
    FRACTIONS,
    Curves,
    areas,
    curves_along,
    importance_of,
    paired_bootstrap,
    policy_errors,
    rank_steps,
    real_steps,
)
from mmcl.explain.findings import conclusions
from mmcl.explain.gradients import NUM_POINTS, gradient_importance, load_captum
from mmcl.learning.inference import Scored, score_split
from mmcl.models.mmcl import MMCL
from mmcl.runs.run import Run
from mmcl.runtime import environment

__all__ = ["CLIPS", "EXPLANATION", "NUM_CLIPS", "explain", "write_explanation"]

EXPLANATION, CLIPS = "explanation.json", "clips.jsonl"

NUM_CLIPS = 200
"""Clips that curves and single clips are made of: the first labelled ones of the split."""

NUM_ORDERS = 5
"""Random orders that a ranking is compared with."""

KEPT = 0.5
"""Mean action over seeds from which on a step counts as kept in ``clips.jsonl``."""

_SCORES = ("actions", "moments", "integrated_gradients", "random")
_DIRECTIONS = ("deletion", "insertion")
_UNITS = {
    "regression": "absolute error",
    "classes": "cross-entropy",
    "emotions": "cross-entropy",
}

Progress = Callable[[str, int, int], None]
"""Told what is being done, how many parts of it all are done, and how many there are."""


class _Assessed(NamedTuple):
    """A run and the clips it is assessed on."""

    models: list[MMCL]
    split: Split  # all clips of the split
    scored: list[Scored]  # of all clips, per seed
    rows: NDArray[np.int64]  # of the clips for curves
    some: Split  # those clips
    batch_size: int


def explain(
    run: Run,
    corpus: Corpus,
    *,
    split: JudgedSplit = "test",
    num_clips: int = NUM_CLIPS,
    command: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Assess the complementary features of a run.

    Args:
        run: A finished run of ``calibrated`` or ``released``.
        corpus: Its own, or one that fits it.
        split: Clips to assess it on.
        num_clips: Most clips for curves and for :data:`CLIPS`; probes, redundancy and actions
            take all of the split.
        command: The command that asks for it, to be named in the result.
        progress: Told how far it is.

    Returns:
        The layout of :data:`EXPLANATION`, see this module, with a row per clip as ``clips``.

    Raises:
        RunError: If the run has no policies, or the corpus does not fit it.
        DatasetError: If no clip of the split has a label.
        MissingExtraError: If captum is not installed.
    """
    load_captum()
    models = _policy_models(run)
    run.check_fits(corpus)
    tell = _counted(progress, len(models) * (len(_SCORES) + NUM_ORDERS + 1) + 2)
    assessed = _assess(run, models, corpus, split, num_clips)
    errors = _curve_errors(assessed, tell)
    policies = _policies(assessed, tell)
    tell("probes")
    probed, pooled_redundancy = _probes(assessed, corpus)
    tell("clips")
    moments = moments_of(models, assessed.some, batch_size=assessed.batch_size)
    by_id = {each.id: each for each in moments}
    content = {
        "command": command,
        "run": str(run.folder),
        "corpus": corpus.card.name,
        "split": split,
        "model": run.config.model.name,
        "seeds": list(run.seeds),
        "environment": environment(),
        "curves": _curves(errors, _UNITS[corpus.card.task.kind]),
        "policies": policies,
        "probes": probed,
        "redundancy": pooled_redundancy,
        "actions": action_distribution(models, assessed.scored, assessed.split),
        "planted": planted_answers(models, assessed.scored, assessed.split, by_id),
        "notes": _notes(run, corpus, assessed, probed=probed is not None),
        "clips": _clip_rows(assessed.some, moments),
    }
    tell("conclusions")
    finite: dict[str, Any] = _finite(content)
    return finite | {"conclusions": conclusions(finite)}


def write_explanation(content: dict[str, Any], folder: Path) -> None:
    """Write both files of an explanation, each whole or not at all.

    Args:
        content: What :func:`explain` returned.
        folder: Where to; made where it is not.

    Raises:
        DatasetError: If a file cannot be written.
    """
    whole = {key: value for key, value in content.items() if key != "clips"}
    lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) for row in content["clips"]]
    write_text("".join(f"{line}\n" for line in lines), folder / CLIPS)
    text = json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(f"{text}\n", folder / EXPLANATION)


def _policy_models(run: Run) -> list[MMCL]:
    models: list[nn.Module] = [run.model(seed) for seed in run.seeds]
    found = [model for model in models if isinstance(model, MMCL)]
    if len(found) < len(models):
        raise RunError(
            f"{run.folder}: {run.config.model.name} has no policies to explain; "
            "only calibrated and released have."
        )
    return found


def _counted(progress: Progress | None, total: int) -> Callable[[str], None]:
    """Count the parts that are done, and say which is next."""
    done = -1

    def tell(part: str) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(part, done, total)

    return tell


def _assess(
    run: Run, models: list[MMCL], corpus: Corpus, name: JudgedSplit, num_clips: int
) -> _Assessed:
    split = judged_split(corpus, name)
    rows = labelled_rows(split)[:num_clips]
    if not len(rows):
        raise DatasetError(
            f'{corpus.card.name}: split "{name}" has no labelled clip, and errors are measured '
            "on labelled ones.\n  See what the corpus holds: mmcl corpus describe CORPUS"
        )
    size = run.config.evaluation.batch_size
    scored = [score_split(model, split, batch_size=size) for model in models]
    return _Assessed(models, split, scored, rows, split.select(rows), size)


# ---------------------------------------------------------------- curves


def _curve_errors(
    assessed: _Assessed, tell: Callable[[str], None]
) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Errors ``[seeds, orders, clips, 11]`` by direction and score."""
    found: dict[str, list[list[Curves]]] = {score: [] for score in _SCORES}
    for at, model in enumerate(assessed.models):
        for score, orders in _orders(assessed, at, tell).items():
            each = []
            for ranks in orders:
                tell("curves")
                size = assessed.batch_size
                each.append(curves_along(model, assessed.some, ranks, batch_size=size))
            found[score].append(each)
    return {
        direction: {
            score: np.array([[getattr(each, direction) for each in seed] for seed in seeds])
            for score, seeds in found.items()
        }
        for direction in _DIRECTIONS
    }


def _orders(
    assessed: _Assessed, at: int, tell: Callable[[str], None]
) -> dict[str, list[list[NDArray[np.int64]]]]:
    """Rankings of the clips' steps by score for one seed; several of ``random``."""
    model, scored = assessed.models[at], assessed.scored[at]
    real = real_steps(model, assessed.some)
    own = importance_of(scored)
    importance: dict[str, Sequence[NDArray[Any]]] = {
        score: [values[row] for row in assessed.rows.tolist()] for score, values in own.items()
    }
    tell("integrated gradients")
    importance["integrated_gradients"] = gradient_importance(model, assessed.some)
    orders = {score: [rank_steps(values, real, seed=at)] for score, values in importance.items()}
    nothing = [np.zeros(steps.shape) for steps in real]
    first = 1 + at * NUM_ORDERS
    seeds = range(first, first + NUM_ORDERS)
    return orders | {"random": [rank_steps(nothing, real, seed=seed) for seed in seeds]}


def _curves(errors: dict[str, dict[str, NDArray[np.float64]]], unit: str) -> dict[str, Any]:
    drawn = {
        direction: {score: _curve(values) for score, values in by_score.items()}
        for direction, by_score in errors.items()
    }
    comparisons = [
        _compared(direction, score, other, errors[direction])
        for direction in _DIRECTIONS
        for score in ("actions", "moments")
        for other in ("random", "integrated_gradients")
    ]
    count = errors["deletion"]["actions"].shape[2]
    return {
        "unit": unit,
        "clips": count,
        "fractions": list(FRACTIONS),
        **drawn,
        "comparisons": comparisons,
    }


def _curve(errors: NDArray[np.float64]) -> dict[str, Any]:
    """One curve of ``[seeds, orders, clips, 11]``; with the spread of several orders."""
    by_order = errors.mean(axis=(0, 2))  # [orders, 11]
    curve = {
        "error": by_order.mean(axis=0).tolist(),
        "area": float(areas(by_order.mean(axis=0))),
    }
    if len(by_order) > 1:
        curve |= {
            "area_std": float(areas(by_order).std(ddof=1)),
            "lowest": by_order.min(axis=0).tolist(),
            "highest": by_order.max(axis=0).tolist(),
        }
    return curve


def _compared(
    direction: str, score: str, other: str, errors: dict[str, NDArray[np.float64]]
) -> dict[str, Any]:
    """Areas of one score against another's, clip by clip."""
    own, others = (areas(errors[name].mean(axis=(0, 1))) for name in (score, other))
    gain = own - others if direction == "deletion" else others - own
    estimate = paired_bootstrap(gain)
    return {
        "curve": direction,
        "score": score,
        "against": other,
        "area": float(own.mean()),
        "other_area": float(others.mean()),
        "gain": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "p": estimate.p,
    }


def _policies(assessed: _Assessed, tell: Callable[[str], None]) -> dict[str, Any]:
    each = []
    for at, model in enumerate(assessed.models):
        tell("policies")
        size = assessed.batch_size
        each.append(policy_errors(model, assessed.some, seed=at, batch_size=size))
    errors = {name: np.mean([seed[name] for seed in each], axis=0) for name in each[0]}
    comparisons = []
    for other in ("ones", "random", "none"):
        estimate = paired_bootstrap(errors[other] - errors["learned"])
        gain, low, high, p = estimate
        comparisons.append({"against": other, "gain": gain, "low": low, "high": high, "p": p})
    means = {name: float(values.mean()) for name, values in errors.items()}
    return {"errors": means, "comparisons": comparisons}


# ---------------------------------------------------------------- probes


def _probes(
    assessed: _Assessed, corpus: Corpus
) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """Probes, or None where there is nothing to fit them on; and redundancy."""
    models, size = assessed.models, assessed.batch_size
    modalities = models[0].modalities
    test = [pool(model, assessed.split, batch_size=size) for model in models]
    alike = redundancy(modalities, test)
    train, valid = corpus.split("train"), corpus.split("valid")
    if not len(labelled_rows(train)):
        return None, alike
    # On the split that is judged nothing may be chosen, the penalty of a probe included.
    choose = assessed.split.name != "valid" and len(labelled_rows(valid)) > 0
    task = corpus.card.task
    found = probes(
        task,
        modalities,
        [labelled(train, pool(model, train, batch_size=size)) for model in models],
        [labelled(assessed.split, pooled) for pooled in test],
        [labelled(valid, pool(model, valid, batch_size=size)) for model in models]
        if choose
        else None,
    )
    rows = {
        modality: {
            "without": probe.without,
            "increment": probe.increment.value,
            "low": probe.increment.low,
            "high": probe.increment.high,
            "p": probe.increment.p,
        }
        for modality, probe in found.items()
    }
    score = "R²" if task.kind == "regression" else "accuracy"
    count = len(labelled_rows(assessed.split))
    return {"score": score, "clips": count, "modalities": rows}, alike


# ---------------------------------------------------------------- clips and notes


def _clip_rows(split: Split, moments: Sequence[Moments]) -> list[dict[str, Any]]:
    truth = in_words(split.card.task, split.labels().tolist())
    words = split.table.column("words").to_pylist()
    return [
        {
            "id": each.id,
            "truth": truth[row],
            "prediction": each.prediction,
            "spread": each.spread,
            "probability": each.probability,
            "steps": {m: len(values) for m, values in each.action.items()},
            "kept": {m: _kept(values) for m, values in each.action.items()},
            "share": dict(each.share),
            "words_kept": _words_kept(words[row], each),
            "word_share": each.word_share.tolist(),
        }
        for row, each in enumerate(moments)
    ]


def _kept(action: NDArray[np.float32]) -> list[int]:
    kept: list[int] = np.flatnonzero(action >= KEPT).tolist()
    return kept


def _words_kept(words: list[dict[str, Any]] | None, moments: Moments) -> list[str] | None:
    action = moments.action.get("text")
    if words is None or action is None or len(words) != len(action):
        return None
    return [words[at]["text"] for at in _kept(action)]


def _notes(run: Run, corpus: Corpus, assessed: _Assessed, *, probed: bool) -> list[str]:
    known, used = len(labelled_rows(assessed.split)), len(assessed.rows)
    notes = list(run.notes(corpus))
    if used < known:
        notes.append(
            f"curves, policies and single clips: the first {used} of {known} labelled clips "
            f"of the {assessed.split.name} split; all else: every clip of it"
        )
    notes.append(
        f"random is the mean of {NUM_ORDERS} orders, integrated gradients have {NUM_POINTS} "
        "points; p and intervals resample clips, and are not corrected for their number"
    )
    if run.config.policy.kind in ("ones", "random"):
        notes.append(f"this run's policies learn nothing: policy.kind is {run.config.policy.kind}")
    if not probed:
        notes.append("no probes: no training clip of the corpus has a label to fit them on")
    elif assessed.split.name == "valid":
        notes.append("probes: the penalty was not chosen on validation, which is judged here")
    return notes


def _finite(value: Any) -> Any:
    """The same, with None for every number that JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
