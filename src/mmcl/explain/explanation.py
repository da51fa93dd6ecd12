"""Assess the complementary features of a run, for ``mmcl explain``, and write the results.

``explanation.json`` has the result of :func:`explain` without the clips; numbers are finite or
null::

    command, run, corpus, split, model, seeds, environment, notes
    conclusions       sentences in plain language
    curves            unit      absolute error, or cross-entropy
                      clips     their number
                      fractions shares of the steps, 0 to 1
                      deletion, insertion: by score (actions, moments,
                          integrated_gradients, random)
                              error    [11], mean over clips and seeds
                              area     under it
                          random also has area_std, lowest [11], highest [11] over its orders
                      comparisons: curve, score, against, area, other_area,
                          gain (above 0: the score ranks better), low, high, p
    policies          errors        by actions: learned, ones, random, none
                      keep_curve    kept [11], shares of the steps from none to all that are
                          kept, and error [11], while the others are dropped
                      comparisons: against, gain (above 0: learned errs less), low, high, p
    probes            null where no training clip has a label, else score (R² or accuracy),
                      clips, and modalities: without, increment, low, high, p
    redundancy        pair, common and complementary: value, floor
    actions           by group and modality: steps, histogram [10], mean_keep_probability,
                      kept_share
    planted           null, or common_auroc, action_auroc and share by modality

``clips.jsonl`` has a line per clip: id, truth, prediction, spread, probability; by modality
steps (their number), kept (their indices from 0) and share; word_share (by step of text), and
words_kept, null where the corpus does not name the word of each step.
"""

from __future__ import annotations

import itertools
import json
import math
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmcl.corpus.batches import labelled_rows
from mmcl.corpus.store import Corpus, Split
from mmcl.errors import DatasetError, RunError
from mmcl.evaluation.moments import Moments, in_words, moments_of
from mmcl.evaluation.protocol import JudgedSplit, judged_split
from mmcl.explain.complementary import (
    Labelled,
    Pooled,
    action_distribution,
    labelled,
    planted_answers,
    pool,
    probes,
    redundancy,
)
from mmcl.explain.curves import (
    FRACTIONS,
    areas,
    curves_along,
    importance_of,
    keep_curve,
    paired_bootstrap,
    policy_errors,
    rank_steps,
    real_steps,
)
from mmcl.explain.findings import conclusions
from mmcl.explain.gradients import NUM_POINTS, gradient_importance, load_captum
from mmcl.files import write_text
from mmcl.learning.inference import Scored, score_split
from mmcl.models.mmcl import MMCL
from mmcl.runs.run import Run
from mmcl.runtime import environment
from mmcl.types import Modality

__all__ = ["CLIPS", "EXPLANATION", "NUM_CLIPS", "explain", "write_explanation"]

EXPLANATION, CLIPS = "explanation.json", "clips.jsonl"

NUM_CLIPS = 200
"""Clips that curves and single clips are made of: the first labelled ones of the split."""

NUM_ORDERS = 5
"""Random orders that a ranking is compared with."""

_SCORES = ("actions", "moments", "integrated_gradients", "random")
_DIRECTIONS = ("deletion", "insertion")

_Errors = dict[str, NDArray[np.float64]]  # by score, [seeds, orders, clips, 11]


class _Assessed(NamedTuple):
    """A run and the clips it is assessed on."""

    models: list[MMCL]
    split: Split  # all clips of the split
    scored: list[Scored]  # outputs for all clips, per seed
    rows: NDArray[np.int64]  # rows of the clips for curves
    chosen: Split  # the clips for curves
    batch_size: int


def explain(
    run: Run,
    corpus: Corpus,
    *,
    split: JudgedSplit = "test",
    num_clips: int = NUM_CLIPS,
    command: str | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Assess the complementary features of a run.

    Args:
        run: A finished run of ``calibrated`` or ``released``.
        corpus: Its own, or one that fits it.
        split: Clips to assess it on.
        num_clips: Most clips for curves and for :data:`CLIPS`; probes, redundancy and actions
            take all of the split.
        command: The command line, for the record.
        progress: Called as ``progress(part, done, total)`` as each part begins.

    Returns:
        The layout of :data:`EXPLANATION`, see this module, with a row per clip as ``clips``.

    Raises:
        RunError: If the run has no policies, or the corpus does not fit it.
        DatasetError: If no clip of the split has a label.
        MissingExtraError: If captum is not installed.
    """
    load_captum()  # fail at once, not after minutes of curves
    corpus = run.prepared(corpus)
    assessed = _assess(run, corpus, split, num_clips)
    models, size = assessed.models, assessed.batch_size
    done, total = itertools.count(), len(models) * (len(_SCORES) + NUM_ORDERS + 1) + 2

    def tell(part: str) -> None:
        if progress is not None:
            progress(part, next(done), total)

    errors = _curve_errors(assessed, tell)
    policies = _policies(assessed, tell)
    tell("probes")
    pooled = [pool(model, assessed.split, batch_size=size) for model in models]
    probed = _probes(assessed, corpus, pooled)
    tell("clips")
    moments = moments_of(models, assessed.chosen, batch_size=size)
    by_id = {clip.id: clip for clip in moments}
    score = corpus.card.task.kind == "regression"
    content = {
        "command": command,
        "run": str(run.folder),
        "corpus": corpus.card.name,
        "split": split,
        "model": run.config.model.name,
        "seeds": list(run.seeds),
        "environment": environment(),
        "curves": {"unit": "absolute error" if score else "cross-entropy", **_curves(errors)},
        "policies": policies,
        "probes": probed,
        "redundancy": redundancy(models[0].modalities, pooled),
        "actions": action_distribution(models, assessed.scored, assessed.split),
        "planted": planted_answers(models, assessed.scored, assessed.split, by_id),
        "notes": _notes(run, corpus, assessed, probed=probed is not None),
        "clips": _clip_rows(assessed, moments),
    }
    tell("conclusions")
    finite: dict[str, Any] = _finite(content)
    return finite | {"conclusions": conclusions(finite)}


def write_explanation(content: dict[str, Any], folder: Path) -> None:
    """Write both files of the result of :func:`explain`, each complete or not at all.

    Raises:
        DatasetError: If a file cannot be written.
    """
    rest = {key: value for key, value in content.items() if key != "clips"}
    rows = [json.dumps(row, ensure_ascii=False, allow_nan=False) for row in content["clips"]]
    texts = {
        CLIPS: "".join(f"{row}\n" for row in rows),
        EXPLANATION: json.dumps(rest, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
    }
    for path, text in ((folder / name, text) for name, text in texts.items()):
        try:
            write_text(path, text)
        except OSError as fault:
            raise DatasetError(f"{path}: cannot be written ({fault.strerror or fault}).") from None


def _assess(run: Run, corpus: Corpus, name: JudgedSplit, num_clips: int) -> _Assessed:
    """Load the networks, score the split and choose the clips, or say why that cannot be."""
    networks = [run.model(seed) for seed in run.seeds]
    models = [network for network in networks if isinstance(network, MMCL)]
    if len(models) < len(networks):
        raise RunError(
            f"{run.folder}: {run.config.model.name} has no policies to explain; "
            "only calibrated and released have."
        )
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


def _curve_errors(assessed: _Assessed, tell: Callable[[str], None]) -> dict[str, _Errors]:
    """Errors by direction and score, ``[seeds, orders, clips, 11]``."""
    errors: dict[str, dict[str, list[Any]]] = {way: defaultdict(list) for way in _DIRECTIONS}
    for index, model in enumerate(assessed.models):
        for score, orders in _orders(assessed, index, tell).items():
            curves = []
            for ranks in orders:
                tell("curves")
                size = assessed.batch_size
                curves.append(curves_along(model, assessed.chosen, ranks, batch_size=size))
            for way in _DIRECTIONS:
                errors[way][score].append([getattr(curve, way) for curve in curves])
    return {way: {s: np.array(e) for s, e in by_score.items()} for way, by_score in errors.items()}


def _orders(
    assessed: _Assessed, index: int, tell: Callable[[str], None]
) -> dict[str, list[list[NDArray[np.int64]]]]:
    """Rankings of the clips' steps by score for one seed; several of ``random``."""
    model, clips = assessed.models[index], assessed.chosen
    real = real_steps(model, clips)
    orders = {}
    for score, values in importance_of(assessed.scored[index]).items():
        own = [values[row] for row in assessed.rows.tolist()]
        orders[score] = [rank_steps(own, real, seed=index)]
    tell("integrated gradients")
    gradients = gradient_importance(model, clips)
    orders["integrated_gradients"] = [rank_steps(gradients, real, seed=index)]
    # Where all steps are equally important, the random order of ties is the ranking.
    equal = [np.zeros(steps.shape) for steps in real]
    seeds = range(1 + index * NUM_ORDERS, 1 + (index + 1) * NUM_ORDERS)
    orders["random"] = [rank_steps(equal, real, seed=seed) for seed in seeds]
    return orders


def _curves(errors: dict[str, _Errors]) -> dict[str, Any]:
    """Mean curves and the comparisons between them, as the file has them."""
    return {
        "clips": errors["deletion"]["actions"].shape[2],
        "fractions": list(FRACTIONS),
        **{way: {s: _mean_curve(e) for s, e in errors[way].items()} for way in _DIRECTIONS},
        "comparisons": [
            _comparison(way, score, rival, errors[way])
            for way in _DIRECTIONS
            for score in ("actions", "moments")
            for rival in ("random", "integrated_gradients")
        ],
    }


def _mean_curve(errors: NDArray[np.float64]) -> dict[str, Any]:
    """Mean of ``[seeds, orders, clips, 11]``, with the spread where there are several orders."""
    by_order = errors.mean(axis=(0, 2))  # [orders, 11]
    mean = by_order.mean(axis=0)
    curve = {"error": mean.tolist(), "area": float(areas(mean))}
    if len(by_order) > 1:
        curve |= {
            "area_std": float(areas(by_order).std(ddof=1)),
            "lowest": by_order.min(axis=0).tolist(),
            "highest": by_order.max(axis=0).tolist(),
        }
    return curve


def _comparison(direction: str, score: str, rival: str, errors: _Errors) -> dict[str, Any]:
    """Areas of one score against another's, clip by clip."""
    own, others = (areas(errors[name].mean(axis=(0, 1))) for name in (score, rival))
    gain = own - others if direction == "deletion" else others - own
    return {
        "curve": direction,
        "score": score,
        "against": rival,
        "area": float(own.mean()),
        "other_area": float(others.mean()),
        **paired_bootstrap(gain).as_row("gain"),
    }


def _policies(assessed: _Assessed, tell: Callable[[str], None]) -> dict[str, Any]:
    """Errors under the learned and under other actions, and the comparisons between them."""
    seeds, curves = [], []
    for index, model in enumerate(assessed.models):
        tell("policies")
        size = assessed.batch_size
        seeds.append(policy_errors(model, assessed.chosen, seed=index, batch_size=size))
        curves.append(keep_curve(model, assessed.chosen, batch_size=size))
    kept, along = np.mean(curves, axis=(0, 2))  # over seeds and clips
    errors = {name: np.mean([seed[name] for seed in seeds], axis=0) for name in seeds[0]}
    return {
        "errors": {name: float(values.mean()) for name, values in errors.items()},
        "keep_curve": {"kept": kept.tolist(), "error": along.tolist()},
        "comparisons": [
            {"against": rival} | paired_bootstrap(errors[rival] - errors["learned"]).as_row("gain")
            for rival in ("ones", "random", "none")
        ],
    }


def _probes(assessed: _Assessed, corpus: Corpus, pooled: list[Pooled]) -> dict[str, Any] | None:
    """Probes of the assessed split, or None where no training clip has a label to fit them."""
    train, valid, judged = corpus.split("train"), corpus.split("valid"), assessed.split
    if not len(labelled_rows(train)):
        return None

    def features(split: Split) -> list[Labelled]:
        size = assessed.batch_size
        return [labelled(split, pool(model, split, batch_size=size)) for model in assessed.models]

    # On the split that is judged nothing may be chosen, the penalty of a probe included.
    choose = judged.name != "valid" and len(labelled_rows(valid)) > 0
    probed = probes(
        corpus.card.task,
        assessed.models[0].modalities,
        features(train),
        [labelled(judged, seed) for seed in pooled],
        features(valid) if choose else None,
    )
    return {
        "score": "R²" if corpus.card.task.kind == "regression" else "accuracy",
        "clips": len(labelled_rows(judged)),
        "modalities": {
            modality: {"without": probe.without, **probe.increment.as_row("increment")}
            for modality, probe in probed.items()
        },
    }


def _clip_rows(assessed: _Assessed, moments: list[Moments]) -> list[dict[str, Any]]:
    split = assessed.chosen
    # Action and keep probability are means over seeds, so this is one, too.
    least = float(np.mean([model.policy.least_kept for model in assessed.models]))
    truth = in_words(split.card.task, split.labels().tolist())
    words = split.table.column("words").to_pylist()
    return [
        {
            "id": clip.id,
            "truth": truth[row],
            "prediction": clip.prediction,
            "spread": clip.spread,
            "probability": clip.probability,
            "steps": {m: len(values) for m, values in clip.action.items()},
            "kept": {m: _kept(clip, m, least) for m in clip.action},
            "share": dict(clip.share),
            "words_kept": _words_kept(words[row], clip, least),
            "word_share": clip.word_share.tolist(),
        }
        for row, clip in enumerate(moments)
    ]


def _kept(clip: Moments, modality: Modality, least: float) -> list[int]:
    is_kept = (clip.keep_probability[modality] > least) & (clip.action[modality] > 0)
    return list(np.flatnonzero(is_kept).tolist())


def _words_kept(
    words: list[dict[str, Any]] | None, moments: Moments, least: float
) -> list[str] | None:
    action = moments.action.get("text")
    if words is None or action is None or len(words) != len(action):
        return None
    return [words[index]["text"] for index in _kept(moments, "text", least)]


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
    """Replace every number that JSON does not have by None."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
