"""Score a run when parts of its clips are missing.

Two kinds of damage are tried: steps are missing with a probability, the rate; or whole modalities
are missing. See :mod:`mmcl.runs.masking`. The scores are compared with those of a constant: a
network that is no better makes no use of what is left.

:func:`robustness` returns, and ``mmcl robustness`` writes to DIR/robustness.json::

    command, run, model, corpus, split, preset, seeds, mask_seeds, modalities, environment
    rates        0, 0.1, ... 0.9
    steps        by metric a summary per rate: mean over mask seeds, then over seeds
    areas        by metric a summary of the mean over the rates
    subsets      a row per subset of the modalities: its modalities, and a summary by metric
    references   scores of the constant and the majority on the same clips, by metric
    line         by metric the better of the two references; null if both are undefined
    no_better    by metric the rates and subsets at which the run's mean is no better than line
    notes        remarks for the reader

A summary is what :meth:`mmcl.evaluation.summary.Summary.as_dict` returns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from mmcl.corpus.batches import labelled_rows
from mmcl.corpus.store import Corpus, Split
from mmcl.errors import DatasetError, UsageError
from mmcl.evaluation.metrics import Metrics, higher_is_better, range_notes, task_metrics
from mmcl.evaluation.protocol import JudgedSplit, judged_split, reference_metrics
from mmcl.evaluation.summary import summarise_seeds
from mmcl.runs.masking import Condition, conditions_of, score_damaged, subsets_of
from mmcl.runs.run import Run
from mmcl.runtime import environment
from mmcl.types import Modality

__all__ = ["HEADLINE", "MASK_SEEDS", "RATES", "crossing_sentences", "headline", "robustness"]

RATES: tuple[float, ...] = tuple(tenths / 10 for tenths in range(10))
"""Probabilities that a step is missing, as in the tables of the field."""

MASK_SEEDS: tuple[int, ...] = (1, 2, 3)
"""Seeds of the masks: each is one draw of the missing steps."""

HEADLINE: tuple[str, ...] = (
    *("mae", "corr", "acc7", "acc2_has0", "f1_has0", "acc2_non0", "f1_non0"),
    *("acc2", "acc3", "acc5", "f1", "accuracy", "f1_weighted", "f1_macro", "uar"),
    *("accuracy_mean", "f1_mean", "accuracy_single", "f1_macro_single"),
)
"""Metrics that tables, figures and sentences show, if the task has them."""

_Values = Mapping[str, float]  # one network's metrics under one condition


def robustness(
    run: Run,
    corpus: Corpus,
    *,
    split: JudgedSplit = "test",
    rates: Sequence[float] = RATES,
    mask_seeds: Sequence[int] = MASK_SEEDS,
    command: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Score all seeds of a run while steps and modalities are missing.

    With nothing missing the scores are those of :meth:`~mmcl.runs.run.Run.evaluate`.

    Args:
        run: A finished run.
        corpus: Same task and feature widths as the run's own.
        split: Clips to score.
        rates: Probabilities that a step is missing, growing from 0 to below 1.
        mask_seeds: Seeds of the draws of missing steps; scores are averaged over them.
        command: The command line, for the record.
        progress: Called as ``progress(done, total)`` with clips times conditions.

    Returns:
        The layout above; all numbers are finite or None.

    Raises:
        UsageError: If the rates do not grow from 0, or a mask seed is negative or repeated.
        RunError: If the corpus does not fit the run.
        DatasetError: If the split has no clip with a label.
    """
    _check_sweep(rates, mask_seeds)
    corpus = run.prepared(corpus)
    clips = judged_split(corpus, split)
    _check_labels(clips)
    # A modality that the corpus lacks cannot be taken away.
    used = tuple(m for m in run.model().modalities if m in corpus.card.dims)
    metrics = _metrics_by_seed(run, clips, conditions_of(used, rates, mask_seeds), progress)
    preset = run.config.evaluation.preset
    content: dict[str, Any] = {
        "command": command,
        "run": str(run.folder),
        "model": run.config.model.name,
        "corpus": corpus.card.name,
        "split": split,
        "preset": preset if corpus.card.task.kind == "regression" else None,
        "seeds": list(run.seeds),
        "mask_seeds": list(mask_seeds),
        "modalities": list(used),
        "environment": environment(),
        "rates": list(rates),
        **_summaries(metrics, used, rates, mask_seeds),
        "references": _references(corpus, split, preset),
    }
    content |= _comparison_with_constant(content)
    notes = run.notes(corpus) + range_notes(corpus.card.task, preset=preset)
    content["notes"] = [*notes, *_absence_notes(clips, used), *_warnings(metrics)]
    return content


def _metrics_by_seed(
    run: Run,
    clips: Split,
    conditions: Sequence[Condition],
    progress: Callable[[int, int], None] | None,
) -> list[dict[Condition, Metrics]]:
    """Return the metrics of every seed under every condition."""
    settings, task, truth = run.config.evaluation, clips.card.task, clips.labels()
    total, done = len(run.seeds) * len(conditions) * len(clips), 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    metrics = []
    for seed in run.seeds:
        scores = score_damaged(
            run.model(seed), clips, conditions, batch_size=settings.batch_size, advance=advance
        )
        metrics.append(
            {c: task_metrics(task, truth, scores[c], preset=settings.preset) for c in conditions}
        )
    return metrics


def _summaries(
    metrics: Sequence[Mapping[Condition, Metrics]],
    used: tuple[Modality, ...],
    rates: Sequence[float],
    mask_seeds: Sequence[int],
) -> dict[str, Any]:
    """Return the curves, areas and subsets, summarised over the seeds."""
    by_seed = [{condition: m.values for condition, m in row.items()} for row in metrics]
    curves = []  # [seed][rate], a mean over the mask seeds
    for values in by_seed:
        draws = [[Condition(used, rate, seed) for seed in mask_seeds] for rate in rates if rate]
        curves.append([_mean([values[c] for c in row]) for row in [[Condition(used)], *draws]])
    steps = [_summary(values) for values in zip(*curves, strict=True)]  # [rate]
    return {
        "steps": {key: [summary[key] for summary in steps] for key in steps[0]},
        "areas": _summary([_mean(curve) for curve in curves]),
        "subsets": [
            {
                "modalities": list(kept),
                "metrics": _summary([values[Condition(kept)] for values in by_seed]),
            }
            for kept in subsets_of(used)
        ],
    }


def _mean(values: Sequence[_Values]) -> _Values:
    """Return the mean by metric; it is nan if a value is nan."""
    return {key: float(np.mean([row[key] for row in values])) for key in values[0]}


def _summary(seeds: Sequence[_Values]) -> dict[str, Any]:
    """Return the summary over seeds by metric, for JSON."""
    return {key: summary.as_dict() for key, summary in summarise_seeds(seeds).items()}


def _references(
    corpus: Corpus, split: JudgedSplit, preset: str
) -> dict[str, dict[str, float | None]]:
    """Return the scores of constant and majority; empty if no training clip has a label."""
    if not len(labelled_rows(corpus.split("train"))):
        return {}
    rows = reference_metrics(corpus, split, preset=preset)
    return {
        name: {key: v if math.isfinite(v) else None for key, v in rows[name].values.items()}
        for name in ("constant", "majority")
        if name in rows
    }


def _comparison_with_constant(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the better reference by metric, and the rates and subsets that do not beat it."""
    lines: dict[str, Any] = dict.fromkeys(content["steps"])
    no_better: dict[str, Any] = {}
    for key, curve in content["steps"].items():
        sign = 1 if higher_is_better(key) else -1  # larger is better from here on
        rows = content["references"].items()
        known = {name: sign * row[key] for name, row in rows if row.get(key) is not None}
        if not known:
            continue
        name = max(known, key=known.__getitem__)
        lines[key] = {"row": name, "value": sign * known[name]}
        rates = [(rate, s["mean"]) for rate, s in zip(content["rates"], curve, strict=True)]
        subsets = [(s["modalities"], s["metrics"][key]["mean"]) for s in content["subsets"]]
        no_better[key] = {
            place: [x for x, mean in means if mean is None or sign * mean <= known[name]]
            for place, means in (("rates", rates), ("subsets", subsets))
        }
    return {"line": lines, "no_better": no_better}


def headline(content: Mapping[str, Any]) -> list[str]:
    """Return the metrics of :data:`HEADLINE` that the task has."""
    # Only sims has acc2, and only there are acc3 and acc5 headlines.
    hidden = set() if "acc2" in content["steps"] else {"acc3", "acc5"}
    return [key for key in HEADLINE if key in content["steps"] and key not in hidden]


def crossing_sentences(content: Mapping[str, Any]) -> list[str]:
    """Return sentences on where the metrics are no better than a constant.

    Returns:
        A sentence per metric, such as ``mae: no better than the constant (1.250) from rate 0.5
        on; nor with audio alone``.
    """
    sentences = []
    for key in headline(content):
        line = content["line"][key]
        if line is None:
            continue
        worse = content["no_better"][key]
        name = f"the {line['row']} ({line['value']:.3f})"
        sentence = f"{key}: {_rates_in_words(worse['rates'], content['rates'], name)}"
        kept = [f"{s[0]} alone" if len(s) == 1 else " and ".join(s) for s in worse["subsets"]]
        if kept:
            sentence += f"; {'nor' if worse['rates'] else 'not'} with {', '.join(kept)}"
        sentences.append(sentence)
    return sentences


def _rates_in_words(worse: Sequence[float], rates: Sequence[float], line: str) -> str:
    if not worse:
        return f"better than {line} at every rate"
    if list(worse) == list(rates):
        return f"no better than {line} at any rate"
    if list(worse) == list(rates[-len(worse) :]):
        return f"no better than {line} from rate {worse[0]:g} on"
    return f"no better than {line} at {', '.join(f'{rate:g}' for rate in worse)}"


def _absence_notes(split: Split, used: Sequence[Modality]) -> list[str]:
    """Return a note on every modality that some clips lack: alone, it leaves them nothing."""
    absent = {m: int((split.lengths(m) == 0).sum()) for m in used if len(used) > 1}
    return [
        f"{count} of {len(split)} clips have no {modality}: "
        f"kept alone, it leaves them nothing to predict from"
        for modality, count in absent.items()
        if count
    ]


def _warnings(metrics: Sequence[Mapping[Condition, Metrics]]) -> list[str]:
    """Return every warning once, with its conditions unless all have it."""
    conditions: dict[str, dict[Condition, None]] = {}
    for by_condition in metrics:
        for condition, judged in by_condition.items():
            for warning in judged.warnings:
                conditions.setdefault(warning, {})[condition] = None
    notes = []
    for warning, where in conditions.items():
        names = dict.fromkeys(f"rate {c.rate:g}" if c.rate else "+".join(c.kept) for c in where)
        everywhere = len(where) == len(metrics[0])
        notes.append(warning if everywhere else f"{', '.join(names)}: {warning}")
    return notes


def _check_sweep(rates: Sequence[float], mask_seeds: Sequence[int]) -> None:
    grows = all(low < high for low, high in pairwise(rates))
    if not rates or rates[0] != 0 or rates[-1] >= 1 or not grows:
        raise UsageError(f"rates must grow from 0 to below 1, got {list(rates)}")
    if not mask_seeds or len(set(mask_seeds)) < len(mask_seeds) or min(mask_seeds) < 0:
        raise UsageError(
            f"mask seeds must be different whole numbers from 0 on, got {list(mask_seeds)}"
        )


def _check_labels(split: Split) -> None:
    if not len(labelled_rows(split)):
        alternative = "valid" if split.name == "test" else "test"
        raise DatasetError(
            f'{split.card.name}, split "{split.name}": no clip with a label ({len(split)} clips), '
            "and robustness is measured against labels.\n"
            f"  Use the other split: --split {alternative}\n"
            "  See what there is: mmcl corpus describe CORPUS"
        )
