"""The section on a planted corpus: its variants side by side, and what they found in its clips.

Only here the right answer is known of every step. The section appears where a planted corpus
lies beside runs that were trained on it, as in the folder of ``mmcl demo``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
from markupsafe import Markup
from numpy.typing import NDArray

from mmcl.corpus.plant import ROLE_COMMON, ROLE_COMPLEMENTARY
from mmcl.corpus.schema import Clip
from mmcl.corpus.store import Corpus, Split, open_corpus, pack_corpus
from mmcl.evaluation.moments import Moments
from mmcl.explain.figures import COLOURS, figure_html, role_strip, steps_figure, value_strip
from mmcl.explain.page import render_section
from mmcl.explain.run_figures import history_figures, read_history
from mmcl.explain.sentences import signed
from mmcl.runs.run import METRICS, Run
from mmcl.runs.run_folder import RUN
from mmcl.types import VARIANTS

__all__ = ["SHOWN", "Metric", "metric_rows", "pick_clips", "planted_section", "read_planted"]

NUM_CLIPS = 4


class Metric(NamedTuple):
    """A metric of the demo: its key in metrics.json, its name, and how to read it."""

    key: str
    name: str
    meaning: str
    decimals: int = 3


SHOWN: tuple[Metric, ...] = (
    Metric("mae", "MAE", "mean absolute error of the score in −3…3; lower is better"),
    Metric("corr", "correlation", "Pearson, between prediction and truth; higher is better"),
    Metric("acc2_non0", "Acc-2", "right sign, clips with truth 0 left out"),
    Metric("acc7", "Acc-7", "right after rounding to −3, −2, … 3"),
    Metric("common_auroc", "common AUROC", "commonality finds the common steps; 0.5 is chance"),
    Metric("action_auroc", "action AUROC", "actions find the complementary steps; 0.5 is chance"),
    Metric("kept", "kept", "share of the steps that the policies keep"),
    Metric("kept_precision", "precision", "share of the kept steps that are complementary"),
    Metric("kept_recall", "recall", "share of the complementary steps that are kept"),
    Metric("train_clips_per_second", "clips/s", "trained on per second, on this machine", 0),
)
"""Metrics of a planted corpus that figures and tables show."""


def metric_rows(runs: Mapping[str, Run]) -> dict[str, dict[str, float | None]]:
    """Return the metrics in :data:`SHOWN` of the test split, for each run and each reference.

    A metric is None where it is undefined or does not apply.
    """
    rows: dict[str, dict[str, float | None]] = {}
    references: dict[str, Any] = {}
    for name, run in runs.items():
        report = run.metrics
        means = {key: summary["mean"] for key, summary in report["test"].items()}
        means["train_clips_per_second"] = report["training"]["clips_per_second"]["mean"]
        rows[name] = {metric.key: means.get(metric.key) for metric in SHOWN}
        references |= report["references"]
    for name, splits in references.items():
        rows[name] = {metric.key: splits["test"].get(metric.key) for metric in SHOWN}
    return rows


def pick_clips(labels: NDArray[np.float64], highest: float, *, count: int = NUM_CLIPS) -> list[int]:
    """Choose clips from weak to strong by a rule that knows nothing of any prediction.

    ``0..highest`` is cut into ``count`` equal bands. The first clip whose absolute label lies
    in a band stands for it; a band without a clip is left out. Unknown labels are NaN.

    Example:
        >>> pick_clips(np.array([2.9, -0.1, 0.2, -1.0]), 3.0)
        [1, 3, 0]
    """
    strength = np.abs(labels)
    band = np.minimum(np.nan_to_num(strength / highest, nan=-1.0) * count, count - 1)
    inside = [np.flatnonzero((band >= at) & (band < at + 1)) for at in range(count)]
    return [int(rows[0]) for rows in inside if len(rows)]


def read_planted(path: Path) -> dict[str, Any]:
    """Gather what the section shows of a planted corpus and the runs beside it.

    Returns:
        ``corpus``; ``runs`` by variant, of those that were trained on exactly this corpus;
        ``clips``, a split of a few validation clips; and ``moments`` of these clips by variant.
    """
    corpus = open_corpus(path)
    runs = _runs_on(corpus, path.parent)
    clips = _chosen_clips(corpus)
    # The clips become a corpus of their own, so that the networks predict no others.
    few = pack_corpus(corpus.card.model_copy(update={"counts": {}}), clips.clips())
    moments = {name: run.moments(few) for name, run in runs.items()}
    return {"corpus": corpus, "runs": runs, "clips": clips, "moments": moments}


def planted_section(content: Mapping[str, Any]) -> Markup:
    """Return the section on a planted corpus from what :func:`read_planted` gathered."""
    card, runs = content["corpus"].card, content["runs"]
    rows = metric_rows(runs)
    known = {key for row in rows.values() for key, value in row.items() if value is not None}
    histories = {name: read_history(run.folder, run.seeds[0]) for name, run in runs.items()}
    chosen = {name: run.metrics["training"]["best_epochs"][0] for name, run in runs.items()}
    epochs = {name: run.config.learning.epochs for name, run in runs.items()}
    return render_section(
        "section_planted.html.j2",
        card=card,
        rows=rows,
        variants=list(runs),
        metrics=[metric for metric in SHOWN if metric.key in known],
        curves=history_figures(histories, chosen, colours=COLOURS),
        reward_scales={name: run.config.policy.reward_scale for name, run in runs.items()},
        clips=_clips(content),
        num_bands=NUM_CLIPS,
        epochs=epochs if len(set(epochs.values())) > 1 else {},
        one_seed=all(len(run.seeds) == 1 for run in runs.values()),
        colours=COLOURS,
    )


def _runs_on(corpus: Corpus, folder: Path) -> dict[str, Run]:
    """Open a run of each variant in a folder, if it was trained on exactly this corpus."""
    runs: dict[str, Run] = {}
    if "planted" not in corpus.card.recipe:
        return runs
    checksum = corpus.checksum()
    for path in sorted(folder.glob(f"*/{RUN}")):
        if (path.parent / METRICS).is_file():
            run = Run.load(path.parent)
            if run.description["corpus_checksum"] == checksum:
                runs.setdefault(run.config.model.name, run)
    return {variant: runs[variant] for variant in VARIANTS if variant in runs}


def _chosen_clips(corpus: Corpus) -> Split:
    split, task = corpus.split("valid"), corpus.card.task
    if task.low is None or task.high is None:  # classes and emotions have no strength
        return split.select(range(min(NUM_CLIPS, len(split))))
    return split.select(pick_clips(split.labels(), max(abs(task.low), abs(task.high))))


def _clips(content: Mapping[str, Any]) -> list[tuple[str, str, Markup]]:
    """Return id, caption and figure of every clip; the caption states scores, if there are any."""
    drawn = []
    for row, clip in enumerate(content["clips"].clips()):
        seen = {name: moments[row] for name, moments in content["moments"].items()}
        scores = {"truth": clip.label, **{name: m.prediction for name, m in seen.items()}}
        known = [(name, score) for name, score in scores.items() if isinstance(score, float)]
        caption = ", ".join(f"{name} {signed(score, 2)}" for name, score in known)
        drawn.append((clip.id, caption, figure_html(_figure(clip, seen), name=f"clip-{row + 1}")))
    return drawn


def _figure(clip: Clip, moments: dict[str, Moments]) -> go.Figure:
    """Draw the planted roles of a clip, and below them what each variant made of its steps."""
    roles = clip.planted.roles if clip.planted is not None else {}
    common = {m: steps == ROLE_COMMON for m, steps in roles.items()}
    complementary = {m: steps == ROLE_COMPLEMENTARY for m, steps in roles.items()}
    strips = [role_strip("planted roles", roles)]
    for name, seen in reversed(moments.items()):  # calibrated stands next to the answer
        strips += [
            value_strip(f"{name}: commonality", seen.commonality, common, "common"),
            value_strip(f"{name}: action", seen.action, complementary, "complementary"),
        ]
    return steps_figure(strips)
