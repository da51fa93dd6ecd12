"""How a run holds out when parts of its clips are missing.

Two ways of missing, both on a finished run and a split it never learnt from:

* step level: every real step of every modality is missing with the same chance, the rate,
  drawn once per mask seed. A step missing at one rate is missing at every higher one, the
  draws depend on the corpus alone and not on the network, and a clip keeps at least a step.
* modality level: every clip keeps one subset of the modalities.

A missing step is masked; for ``released``, which knows one length per clip, it is zeros. The
curves are to be read against what a constant scores: where a network falls to that line, it
has stopped listening.

:func:`robustness` returns, and ``mmcl robustness`` writes to DIR/robustness.json::

    command, run, model, corpus, split, preset, seeds, mask_seeds, modalities, environment
    rates        0, 0.1, ... 0.9
    steps        by metric a summary per rate: mean over mask seeds, then over seeds
    areas        by metric a summary of the mean over the rates
    subsets      a row per subset of the modalities: its modalities, and a summary by metric
    references   what the constant and the majority score on the same clips, by metric
    line         by metric the better of the two and its name; null where both are undefined
    no_better    by metric the rates, and the subsets, at which the mean is no better
    notes        what a reader should know

A summary is what :meth:`mmcl.evaluation.summary.Summary.as_dict` returns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import combinations, pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmcl.corpus.batches import Batch, batch_rows, collate, labelled_rows, move_batch
from mmcl.corpus.store import Corpus, Split
from mmcl.errors import DatasetError, UsageError
from mmcl.evaluation.metrics import Metrics, higher_is_better, task_metrics
from mmcl.evaluation.protocol import JudgedSplit, judged_split, reference_metrics
from mmcl.evaluation.summary import summarise_seeds
from mmcl.models.network import Network
from mmcl.runs.run import Run
from mmcl.runtime import environment
from mmcl.types import MODALITIES, Modality

__all__ = [
    "HEADLINE",
    "MASK_SEEDS",
    "RATES",
    "Condition",
    "conditions_of",
    "crossing_sentences",
    "draw_chances",
    "headline",
    "missing_steps",
    "robustness",
    "score_damaged",
]

RATES: tuple[float, ...] = tuple(tenths / 10 for tenths in range(10))
"""Chances that a step is missing: those of the field's tables."""

MASK_SEEDS: tuple[int, ...] = (1, 2, 3)

HEADLINE: tuple[str, ...] = (
    *("mae", "corr", "acc7", "acc2_has0", "f1_has0", "acc2_non0", "f1_non0"),
    *("acc2", "acc3", "acc5", "f1", "accuracy", "f1_weighted", "f1_macro", "uar"),
    *("accuracy_mean", "f1_mean", "accuracy_single", "f1_macro_single"),
)
"""The metrics that tables, figures and sentences show, of those the task has."""

_Chances = Mapping[Modality, NDArray[np.float64]]
_Values = dict[str, float]


class Condition(NamedTuple):
    """What is left of every clip.

    Attributes:
        kept: The modalities that stay.
        rate: Chance that a step of them is missing, 0 to below 1.
        mask_seed: Which draw of the missing steps; None where none are.
    """

    kept: tuple[Modality, ...]
    rate: float = 0.0
    mask_seed: int | None = None


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
    """Score every seed of a run with less and less of every clip.

    At rate 0, and with all modalities kept, the numbers are those of
    :meth:`~mmcl.runs.run.Run.evaluate`.

    Args:
        run: The run.
        corpus: Same task and feature widths as the run's own.
        split: ``test`` or ``valid``.
        rates: Chances that a step is missing, growing from 0.
        mask_seeds: Draws of the missing steps, averaged over.
        command: What was typed, for the record.
        progress: Called as ``progress(done, total)`` with clips times conditions.

    Returns:
        The layout this module's docstring names; numbers are finite or None.

    Raises:
        UsageError: If the rates do not grow from 0 to below 1, or a mask seed is negative or
            named twice.
        RunError: If the corpus does not fit the run.
        DatasetError: If the split has no clip with a label.
    """
    _check_sweep(rates, mask_seeds)
    run.check_fits(corpus)
    clips = judged_split(corpus, split)
    _check_labels(clips)
    used = tuple(m for m in run.model().modalities if m in corpus.card.dims)
    conditions = conditions_of(used, rates, mask_seeds)
    preset = run.config.evaluation.preset
    scored = _score_seeds(run, clips, conditions, progress)
    by_seed = [{each: m.values for each, m in found.items()} for found in scored]
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
        **_summarised(by_seed, used, rates, mask_seeds),
        "references": _references(corpus, split, preset),
    }
    content |= _against_the_line(content)
    content["notes"] = [*run.notes(corpus), *_absence_notes(clips, used), *_warnings(scored)]
    return content


def _score_seeds(
    run: Run,
    clips: Split,
    conditions: Sequence[Condition],
    progress: Callable[[int, int], None] | None,
) -> list[dict[Condition, Metrics]]:
    """Metrics of every seed under every condition."""
    settings = run.config.evaluation
    advance = _count_to(progress, len(run.seeds) * len(conditions) * len(clips))
    truth = clips.labels()
    found = []
    for seed in run.seeds:
        scores = score_damaged(
            run.model(seed), clips, conditions, batch_size=settings.batch_size, advance=advance
        )
        found.append(
            {
                each: task_metrics(clips.card.task, truth, scores[each], preset=settings.preset)
                for each in conditions
            }
        )
    return found


def conditions_of(
    modalities: Sequence[Modality], rates: Sequence[float], mask_seeds: Sequence[int]
) -> list[Condition]:
    """Everything a network is put through, each once.

    Args:
        modalities: Those the network uses and the corpus has.
        rates: Chances that a step is missing.
        mask_seeds: Draws of them.

    Returns:
        The whole clip first, then every rate and draw, then every smaller subset.

    Example:
        >>> [len(each.kept) for each in conditions_of(("text", "audio"), [0, 0.5], [1, 2])]
        [2, 2, 2, 1, 1]
    """
    every = tuple(modalities)
    damaged = [Condition(every, rate, seed) for rate in rates if rate for seed in mask_seeds]
    smaller = [Condition(kept) for kept in _subsets(every) if kept != every]
    return [Condition(every), *damaged, *smaller]


def _subsets(modalities: tuple[Modality, ...]) -> list[tuple[Modality, ...]]:
    """Every subset but the empty one, the smallest first."""
    sizes = range(1, len(modalities) + 1)
    return [kept for size in sizes for kept in combinations(modalities, size)]


def draw_chances(split: Split, mask_seed: int) -> dict[Modality, NDArray[np.float64]]:
    """Draw a number in 0..1 for every step of a split: at a rate above it the step is missing.

    It depends on the seed, the modality's name and the steps of the split, and on nothing
    else: every network loses the same steps.

    Args:
        split: The clips.
        mask_seed: The draw.

    Returns:
        Per modality float64 ``[steps of all clips]``, clip after clip.
    """
    return {
        m: np.random.default_rng([mask_seed, MODALITIES.index(m)]).random(
            int(split.lengths(m).sum())
        )
        for m in split.modalities
    }


def missing_steps(
    real: Mapping[Modality, Tensor], chances: Mapping[Modality, Tensor], rate: float
) -> dict[Modality, Tensor]:
    """Say which real steps are missing at a rate.

    The step with the largest number of a clip is never missing, whatever the rate, so that
    something is left, and what is missing at one rate is missing at every higher one.

    Args:
        real: Per modality bool ``[b, n_m]``.
        chances: Per modality float ``[b, n_m]``: numbers of :func:`draw_chances`.
        rate: Chance that a step is missing.

    Returns:
        Per modality bool ``[b, n_m]``; False where no step is real.

    Example:
        >>> import torch
        >>> chances = {"text": torch.tensor([[0.4, 0.1, 0.2]])}
        >>> missing_steps({"text": torch.ones(1, 3) > 0}, chances, 0.9)["text"].tolist()
        [[False, True, True]]
    """
    ranked = torch.cat([chances[m].masked_fill(~mask, -1.0) for m, mask in real.items()], dim=1)
    missing = (ranked >= 0) & (ranked < rate)  # [b, sum of n_m]
    missing.scatter_(1, ranked.argmax(dim=1, keepdim=True), False)
    parts = torch.split(missing, [mask.shape[1] for mask in real.values()], dim=1)
    return dict(zip(real, parts, strict=True))


def score_damaged(
    model: Network,
    split: Split,
    conditions: Sequence[Condition],
    *,
    batch_size: int = 256,
    advance: Callable[[int], None] | None = None,
) -> dict[Condition, NDArray[np.float64]]:
    """Predict every clip of a split under every condition.

    Args:
        model: Any network; its mode is restored afterwards.
        split: The clips; labels are not looked at.
        conditions: What is left of them.
        batch_size: Clips per step; changes nothing but the speed.
        advance: Called with the number of clips done.

    Returns:
        By condition float64 scores of every clip, in order.
    """
    drawn = {
        seed: draw_chances(split, seed)
        for seed in sorted({c.mask_seed for c in conditions if c.mask_seed is not None})
    }
    starts = {m: np.cumsum([0, *split.lengths(m)]) for m in split.modalities}
    held = [m for m in model.modalities if m in split.card.dims]
    device = next(model.parameters()).device
    scores: dict[Condition, list[NDArray[np.float64]]] = {each: [] for each in conditions}
    with _evaluating(model), torch.inference_mode():
        for rows in batch_rows(np.arange(len(split)), batch_size):
            whole = collate(split, rows, held, keep_missing=model.released)
            real = _real_steps(whole, split)
            chances = {s: _padded(each, starts, rows, real) for s, each in drawn.items()}
            for each in conditions:
                missing = _missing(each, real, chances)
                batch = move_batch(_without(whole, missing, keep_mask=model.released), device)
                output = model(batch.features, batch.masks)
                scores[each].append(output.scores.double().cpu().numpy())
                if advance is not None:
                    advance(len(rows))
    return {each: np.concatenate(parts) for each, parts in scores.items()}


@contextmanager
def _evaluating(model: Network) -> Iterator[None]:
    was_training = model.training
    model.train(False)
    try:
        yield
    finally:
        model.train(was_training)


def _real_steps(batch: Batch, split: Split) -> dict[Modality, Tensor]:
    """Steps that are there at all, whatever the network makes of those that are not."""
    if not split.card.missing_as_zero:
        return batch.masks
    return {m: mask & batch.features[m].any(dim=-1) for m, mask in batch.masks.items()}


def _padded(
    chances: _Chances,
    starts: Mapping[Modality, NDArray[np.int64]],
    rows: NDArray[np.int64],
    real: Mapping[Modality, Tensor],
) -> dict[Modality, Tensor]:
    """The numbers of a batch's steps, laid out as the batch is."""
    padded = {}
    for modality, mask in real.items():
        numbers = np.zeros(tuple(mask.shape))
        for at, row in enumerate(rows):
            start, end = starts[modality][row : row + 2]
            numbers[at, : end - start] = chances[modality][start:end]
        padded[modality] = torch.from_numpy(numbers)
    return padded


def _missing(
    condition: Condition,
    real: Mapping[Modality, Tensor],
    chances: Mapping[int, Mapping[Modality, Tensor]],
) -> dict[Modality, Tensor]:
    """What a condition takes away, per modality bool ``[b, n_m]``."""
    kept = {m: mask for m, mask in real.items() if m in condition.kept}
    gone = {m: torch.ones_like(mask) for m, mask in real.items() if m not in condition.kept}
    if condition.mask_seed is None or not kept:
        return gone
    drawn = chances[condition.mask_seed]
    return gone | missing_steps(kept, drawn, condition.rate)


def _without(batch: Batch, missing: Mapping[Modality, Tensor], *, keep_mask: bool) -> Batch:
    """Take steps away: zeros where they were, and no real step unless ``keep_mask``."""
    features = {
        m: x.masked_fill(missing[m].unsqueeze(-1), 0.0) if m in missing else x
        for m, x in batch.features.items()
    }
    if keep_mask:
        return batch._replace(features=features)
    masks = {m: mask & ~missing[m] if m in missing else mask for m, mask in batch.masks.items()}
    return batch._replace(features=features, masks=masks)


# ---------------------------------------------------------------- from scores to the report


def _summarised(
    by_seed: Sequence[Mapping[Condition, _Values]],
    used: tuple[Modality, ...],
    rates: Sequence[float],
    mask_seeds: Sequence[int],
) -> dict[str, Any]:
    """Curves, areas and subsets, each summarised over the seeds."""
    curves = [_curve(values, used, rates, mask_seeds) for values in by_seed]  # [seed][rate]
    per_rate = [summarise_seeds([curve[at] for curve in curves]) for at in range(len(rates))]
    areas = summarise_seeds([_mean_values(curve) for curve in curves])
    subsets = [
        {
            "modalities": list(kept),
            "metrics": {
                key: summary.as_dict()
                for key, summary in summarise_seeds([v[Condition(kept)] for v in by_seed]).items()
            },
        }
        for kept in _subsets(used)
    ]
    return {
        "steps": {key: [each[key].as_dict() for each in per_rate] for key in per_rate[0]},
        "areas": {key: summary.as_dict() for key, summary in areas.items()},
        "subsets": subsets,
    }


def _curve(
    values: Mapping[Condition, _Values],
    used: tuple[Modality, ...],
    rates: Sequence[float],
    mask_seeds: Sequence[int],
) -> list[_Values]:
    """Metrics of one seed at every rate, averaged over the mask seeds."""
    return [
        _mean_values([values[Condition(used, rate, seed)] for seed in mask_seeds])
        if rate
        else values[Condition(used)]
        for rate in rates
    ]


def _mean_values(each: Sequence[_Values]) -> _Values:
    """Mean of every metric; one that is undefined anywhere is undefined."""
    return {key: float(np.mean([values[key] for values in each])) for key in each[0]}


def _references(
    corpus: Corpus, split: JudgedSplit, preset: str
) -> dict[str, dict[str, float | None]]:
    if not len(labelled_rows(corpus.split("train"))):
        return {}
    rows = reference_metrics(corpus, split, preset=preset)
    return {
        name: {key: v if math.isfinite(v) else None for key, v in rows[name].values.items()}
        for name in ("constant", "majority")
        if name in rows
    }


def _against_the_line(content: Mapping[str, Any]) -> dict[str, Any]:
    """The line of every metric, and where the means are no better than it."""
    lines: dict[str, Any] = {}
    no_better: dict[str, Any] = {}
    for key, curve in content["steps"].items():
        lines[key] = line = _line(key, content["references"])
        if line is None:
            continue
        subsets = [(each["modalities"], each["metrics"][key]) for each in content["subsets"]]
        no_better[key] = {
            "rates": [
                rate
                for rate, summary in zip(content["rates"], curve, strict=True)
                if not _is_better(key, summary["mean"], line["value"])
            ],
            "subsets": [
                kept
                for kept, summary in subsets
                if not _is_better(key, summary["mean"], line["value"])
            ],
        }
    return {"line": lines, "no_better": no_better}


def _line(key: str, references: Mapping[str, Mapping[str, float | None]]) -> dict[str, Any] | None:
    """The better of the rows that look at no feature."""
    known = {name: v for name, row in references.items() if (v := row.get(key)) is not None}
    if not known:
        return None
    choose = max if higher_is_better(key) else min
    name = choose(known, key=lambda each: known[each])
    return {"row": name, "value": known[name]}


def _is_better(key: str, value: float | None, line: float) -> bool:
    if value is None:
        return False
    return value > line if higher_is_better(key) else value < line


def headline(content: Mapping[str, Any]) -> list[str]:
    """The metrics to show: those of :data:`HEADLINE` that this task has."""
    in_short = "acc2" not in content["steps"]  # acc3 and acc5 are headlines of sims alone
    hidden = {"acc3", "acc5"} if in_short else set()
    return [key for key in HEADLINE if key in content["steps"] and key not in hidden]


def crossing_sentences(content: Mapping[str, Any]) -> list[str]:
    """Say in words where every curve meets the line, a sentence per metric.

    Args:
        content: What :func:`robustness` returned.

    Example:
        >>> crossing_sentences(
        ...     {
        ...         "rates": [0.0, 0.5, 0.9],
        ...         "steps": {"mae": [], "corr": []},
        ...         "line": {"mae": {"row": "constant", "value": 1.25}, "corr": None},
        ...         "no_better": {"mae": {"rates": [0.5, 0.9], "subsets": [["audio"]]}},
        ...     }
        ... )
        ['mae: no better than the constant (1.250) from rate 0.5 on; nor with audio alone']
    """
    sentences = []
    for key in headline(content):
        line = content["line"][key]
        if line is None:
            continue
        worse = content["no_better"][key]
        name = f"the {line['row']} ({line['value']:.3f})"
        sentence = f"{key}: {_where(worse['rates'], content['rates'], name)}"
        kept = [_subset_name(each) for each in worse["subsets"]]
        if kept:
            sentence += f"; {'nor' if worse['rates'] else 'not'} with {', '.join(kept)}"
        sentences.append(sentence)
    return sentences


def _where(worse: Sequence[float], rates: Sequence[float], line: str) -> str:
    if not worse:
        return f"better than {line} at every rate"
    if list(worse) == list(rates):
        return f"no better than {line} at any rate"
    if list(worse) == list(rates[-len(worse) :]):
        return f"no better than {line} from rate {worse[0]:g} on"
    return f"no better than {line} at {', '.join(f'{rate:g}' for rate in worse)}"


def _subset_name(kept: Sequence[str]) -> str:
    return f"{kept[0]} alone" if len(kept) == 1 else " and ".join(kept)


def _absence_notes(split: Split, used: Sequence[Modality]) -> list[str]:
    """Clips that have nothing left when one modality is all that is kept."""
    notes = []
    for modality in used:
        absent = int((split.lengths(modality) == 0).sum())
        if absent and len(used) > 1:
            notes.append(
                f"{absent} of {len(split)} clips have no {modality}: "
                f"kept alone, it leaves them nothing to predict from"
            )
    return notes


def _warnings(scored: Sequence[Mapping[Condition, Metrics]]) -> list[str]:
    """Every warning once, with the conditions it is of unless it is of all."""
    where: dict[str, dict[Condition, None]] = {}
    for found in scored:
        for condition, metrics in found.items():
            for warning in metrics.warnings:
                where.setdefault(warning, {})[condition] = None
    notes = []
    for warning, conditions in where.items():
        names = dict.fromkeys(_condition_name(condition) for condition in conditions)
        everywhere = len(conditions) == len(scored[0])
        notes.append(warning if everywhere else f"{', '.join(names)}: {warning}")
    return notes


def _condition_name(condition: Condition) -> str:
    if condition.rate:
        return f"rate {condition.rate:g}"
    return "+".join(condition.kept)


# ---------------------------------------------------------------- checks


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
        other = "valid" if split.name == "test" else "test"
        raise DatasetError(
            f'{split.card.name}, split "{split.name}": no clip with a label ({len(split)} clips), '
            "and robustness is measured against labels.\n"
            f"  Measure it on the other one: --split {other}\n"
            "  See what there is: mmcl corpus describe CORPUS"
        )


def _count_to(
    progress: Callable[[int, int], None] | None, total: int
) -> Callable[[int], None] | None:
    if progress is None:
        return None
    told, done = progress, 0

    def advance(clips: int) -> None:
        nonlocal done
        done += clips
        told(done, total)

    return advance
