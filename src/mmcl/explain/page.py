"""Pages: one HTML file each, with everything in it.

A page embeds what it needs, asks the network for nothing, follows the reader's light or dark
setting, and can be printed. :func:`render_page` makes one from a template and
:func:`write_page` brings it to the disk whole or not at all; the rest gathers what the page
of ``mmcl demo`` shows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray
from plotly.offline import get_plotlyjs
from pyarrow import parquet

from mmcl.corpus.plant import ROLE_COMMON, ROLE_COMPLEMENTARY
from mmcl.corpus.store import Corpus, Split
from mmcl.errors import DatasetError, RunError
from mmcl.explain.figures import (
    COLOURS,
    Curve,
    curve_figure,
    figure_html,
    role_strip,
    scatter_figure,
    steps_figure,
    value_strip,
)
from mmcl.learning.checkpoints import replace_atomically
from mmcl.learning.inference import Scored, score_split
from mmcl.runs.run import PREDICTIONS, Run
from mmcl.types import Modality

__all__ = [
    "METRICS",
    "Metric",
    "comparison",
    "demo_page",
    "environment_facts",
    "pick_clips",
    "render_page",
    "render_section",
    "write_page",
]

NUM_CLIPS = 4


class Metric(NamedTuple):
    """A number of the comparison: its key in metrics.json, its name, and how to read it."""

    key: str
    name: str
    meaning: str
    decimals: int = 3


METRICS: tuple[Metric, ...] = (
    Metric("mae", "MAE", "mean absolute error of the score in −3…3; lower is better"),
    Metric("corr", "correlation", "Pearson, between prediction and truth; higher is better"),
    Metric("acc2_non0", "Acc-2", "right sign, clips with truth 0 left out"),
    Metric("acc7", "Acc-7", "right after rounding to −3, −2, … 3"),
    Metric("common_auroc", "common AUROC", "commonality finds the common steps; 0.5 is chance"),
    Metric("action_auroc", "action AUROC", "actions find the complementary steps; 0.5 is chance"),
    Metric("train_clips_per_second", "clips/s", "trained on per second, on this machine", 0),
)

_CURVES = (
    ("task_loss", "Training task loss"),
    ("valid_loss", "Validation loss"),
    ("mean_action", "Mean action"),
    ("reward", "Reward"),
)


class _Clip(NamedTuple):
    """A clip of the page: what was planted in it and what each network made of it."""

    id: str
    label: float
    roles: dict[Modality, NDArray[np.int8]]
    commonality: dict[str, dict[Modality, NDArray[np.float32]]]
    keep_probability: dict[str, dict[Modality, NDArray[np.float32]]]
    predictions: dict[str, float]


def comparison(runs: Mapping[str, Run]) -> dict[str, dict[str, float | None]]:
    """The numbers of :data:`METRICS` on the test split, a row per variant and reference.

    Args:
        runs: Finished runs on one corpus, by variant.

    Returns:
        By row, in the order of ``runs`` and then the references, metrics by key; None where
        one is undefined or does not apply.
    """
    rows: dict[str, dict[str, float | None]] = {}
    references: dict[str, Any] = {}
    for name, run in runs.items():
        report = run.metrics
        means = {key: summary["mean"] for key, summary in report["test"].items()}
        means["train_clips_per_second"] = report["training"]["clips_per_second"]["mean"]
        rows[name] = {metric.key: means.get(metric.key) for metric in METRICS}
        references |= report["references"]
    for name, splits in references.items():
        rows[name] = {metric.key: splits["test"].get(metric.key) for metric in METRICS}
    return rows


def pick_clips(labels: NDArray[np.float64], highest: float, *, count: int = NUM_CLIPS) -> list[int]:
    """Choose clips from weak to strong by a rule that knows nothing of any prediction.

    ``0..highest`` is cut into ``count`` equal bands, and the first clip whose absolute label
    lies in a band stands for it; a band without a clip is left out.

    Args:
        labels: float ``[clips]``; NaN where unknown.
        highest: Greatest absolute label there can be.
        count: Bands.

    Returns:
        Rows, weakest band first.

    Example:
        >>> pick_clips(np.array([2.9, -0.1, 0.2, -1.0]), 3.0)
        [1, 3, 0]
    """
    strength = np.abs(labels)
    band = np.minimum(np.nan_to_num(strength / highest, nan=-1.0) * count, count - 1)
    inside = [np.flatnonzero((band >= at) & (band < at + 1)) for at in range(count)]
    return [int(rows[0]) for rows in inside if len(rows)]


def render_page(template: str, **context: Any) -> str:
    """Fill a template; text is escaped, and only :class:`~markupsafe.Markup` is not.

    Args:
        template: Name of a file in ``explain/templates``.
        context: What it asks for; a name it does not find is an error.

    Returns:
        A whole page, with plotly.js in it once where the template has not left it out.
    """
    return _environment().get_template(template).render(plotly_js=_plotly_js, **context)


def render_section(template: str, **context: Any) -> Markup:
    """Fill a template that is a part of a page: the same rules, and no plotly.js.

    Args:
        template: Name of a file in ``explain/templates``.
        context: What it asks for; a name it does not find is an error.
    """
    return Markup(_environment().get_template(template).render(**context))


def environment_facts(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Versions, machine and commit of a result, named for a reader.

    Args:
        environment: As :func:`mmcl.runtime.environment` described it.
    """
    versions = {name: v for name, v in environment["versions"].items() if v is not None}
    return [
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
        ("python", str(environment["python"])),
        ("machine", str(environment["machine"])),
        ("commit", str(environment["commit"] or "not from a checkout")),
    ]


def write_page(path: Path, page: str) -> None:
    """Write a page, complete or not at all.

    Raises:
        RunError: If it cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        unfinished.write_text(page, encoding="utf-8")
        replace_atomically(unfinished, path)
    except OSError as fault:
        unfinished.unlink(missing_ok=True)
        raise RunError(
            f"{path}: cannot be written ({fault.strerror or fault}); nothing was left behind.\n"
            "  Give a folder you may write to: --out DIR"
        ) from None


def demo_page(corpus: Corpus, runs: Mapping[str, Run], *, command: str) -> str:
    """The page of ``mmcl demo``: what was done, how it went, what the networks saw.

    Args:
        corpus: The planted corpus that all runs were trained on.
        runs: Finished runs by variant, ``released`` and ``calibrated`` in this order.
        command: The command that made it, as typed.

    Raises:
        DatasetError: If the corpus is not one of scores.
    """
    low, high = _score_range(corpus)
    clips = _clips(corpus, runs)
    seeds = sorted({seed for run in runs.values() for seed in run.seeds})
    return render_page(
        "demo.html.j2",
        colours=COLOURS,
        counts=corpus.card.counts,
        rows=comparison(runs),
        metrics=METRICS,
        curves=_curves(runs),
        reward_scales={name: run.config.policy.reward_scale for name, run in runs.items()},
        clips=[(clip, _clip_figure(clip, at)) for at, clip in enumerate(clips, start=1)],
        num_bands=NUM_CLIPS,
        highest=max(abs(low), abs(high)),
        scatters=_scatters(corpus, runs),
        notes=_notes(runs),
        num_seeds=len(seeds),
        command=command,
        facts=_facts(corpus, runs, seeds),
    )


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("mmcl.explain"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _plotly_js() -> Markup:
    return Markup(get_plotlyjs())


def _score_range(corpus: Corpus) -> tuple[float, float]:
    task = corpus.card.task
    if task.low is None or task.high is None:
        raise DatasetError(
            f"{corpus.card.name}: the demo's page shows predicted scores, "
            f"and this corpus has {task.kind}"
        )
    return task.low, task.high


def _curves(runs: Mapping[str, Run]) -> list[tuple[str, str, Markup]]:
    """Column, title and figure of every curve that any run has numbers for."""
    fitted = {name: run.fitted(run.seeds[0]) for name, run in runs.items()}
    drawn = []
    for column, title in _CURVES:
        curves = {
            name: Curve([getattr(row, column) for row in each.history], each.best_epoch)
            for name, each in fitted.items()
        }
        if any(math.isfinite(value) for curve in curves.values() for value in curve.values):
            figure = figure_html(curve_figure(curves), name=f"curve-{column.replace('_', '-')}")
            drawn.append((column, title, figure))
    return drawn


def _clips(corpus: Corpus, runs: Mapping[str, Run]) -> list[_Clip]:
    split = corpus.split("valid")
    labels = split.labels()
    highest = max(abs(end) for end in _score_range(corpus))
    # The whole split is scored, in the batches the run's own numbers come from.
    scored = {
        name: score_split(run.model(), split, batch_size=run.config.evaluation.batch_size)
        for name, run in runs.items()
    }
    modalities = {name: run.model().modalities for name, run in runs.items()}
    return [
        _Clip(
            id=split.ids[row],
            label=float(labels[row]),
            roles=_roles(split, row),
            commonality={
                name: _by_modality(each.commonality[row], split, row, modalities[name])
                for name, each in scored.items()
            },
            keep_probability={
                name: _by_modality(each.keep_probability[row], split, row, modalities[name])
                for name, each in scored.items()
            },
            predictions=_predictions_of(scored, row),
        )
        for row in pick_clips(labels, highest)
    ]


def _predictions_of(scored: Mapping[str, Scored], row: int) -> dict[str, float]:
    return {name: float(each.scores[row]) for name, each in scored.items()}


def _roles(split: Split, row: int) -> dict[Modality, NDArray[np.int8]]:
    found = {modality: split.roles(modality, row) for modality in split.modalities}
    return {modality: roles for modality, roles in found.items() if roles is not None}


def _by_modality(
    values: NDArray[np.float32], split: Split, row: int, modalities: Sequence[Modality]
) -> dict[Modality, NDArray[np.float32]]:
    """The real steps of ``[m, n]``, by modality."""
    return {m: values[at, : split.lengths(m)[row]] for at, m in enumerate(modalities)}


def _clip_figure(clip: _Clip, at: int) -> Markup:
    common = {m: roles == ROLE_COMMON for m, roles in clip.roles.items()}
    complementary = {m: roles == ROLE_COMPLEMENTARY for m, roles in clip.roles.items()}
    strips = [role_strip("planted roles", clip.roles)]
    for name in reversed(clip.commonality):  # the repaired one stands next to the answer
        strips += [
            value_strip(f"{name}: commonality", clip.commonality[name], common, colour="common"),
            value_strip(
                f"{name}: keep probability",
                clip.keep_probability[name],
                complementary,
                colour="complementary",
            ),
        ]
    return figure_html(steps_figure(strips), name=f"clip-{at}")


def _scatters(corpus: Corpus, runs: Mapping[str, Run]) -> list[tuple[str, Markup]]:
    """Predictions against truth of the test split, all on the same axes."""
    columns = ["id", "split", "truth", "prediction"]
    known = {
        name: [
            row
            for row in parquet.read_table(run.folder / PREDICTIONS, columns=columns).to_pylist()
            if row["split"] == "test" and row["truth"] is not None
        ]
        for name, run in runs.items()
    }
    predicted = [row["prediction"] for rows in known.values() for row in rows]
    low, high = _score_range(corpus)
    ends = {"low": min([low, *predicted]), "high": max([high, *predicted])}
    drawn = []
    for name, rows in known.items():
        truth, prediction = [r["truth"] for r in rows], [r["prediction"] for r in rows]
        ids = [r["id"] for r in rows]
        figure = scatter_figure(truth, prediction, ids=ids, name=name, **ends)
        drawn.append((name, figure_html(figure, name=f"scatter-{name}")))
    return drawn


def _notes(runs: Mapping[str, Run]) -> list[str]:
    notes = [f"{name}: {note}" for name, run in runs.items() for note in run.metrics["notes"]]
    epochs = {name: run.config.learning.epochs for name, run in runs.items()}
    if len(set(epochs.values())) > 1:
        each = ", ".join(f"{name} at most {count}" for name, count in epochs.items())
        notes.append(
            f"Epochs are fewer than the preset's, so that the demo stays short: {each}. "
            "All of them: mmcl train CORPUS --out RUN"
        )
    return notes


def _facts(corpus: Corpus, runs: Mapping[str, Run], seeds: Sequence[int]) -> list[tuple[str, str]]:
    """What the page depends on, named for a reader who wants to make it again."""
    first = next(iter(runs.values()))
    recipe = corpus.card.recipe["planted"]
    epochs = {name: run.metrics["training"]["epochs"] for name, run in runs.items()}
    return [
        ("seed", ", ".join(map(str, seeds))),
        ("corpus", ", ".join(f"{key} {value}" for key, value in recipe.items())),
        ("corpus checksum", str(first.description["corpus_checksum"])[:16]),
        ("epochs", ", ".join(f"{name} {each[0]}" for name, each in epochs.items())),
        *environment_facts(first.description["environment"]),
    ]
