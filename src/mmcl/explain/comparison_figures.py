"""The section of a comparison or an ablation: forest plots, seeds, cost, tables, answers.

In comes the content of ``comparison.json`` as ``mmcl compare`` and ``mmcl ablate`` write it.
No number is computed here that is not in the file, but for positions on the screen.
"""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import plotly.graph_objects as go
from markupsafe import Markup

from mmcl.evaluation.published_results import (
    PublishedResult,
    published_datasets,
    published_results,
)
from mmcl.explain.comparison_words import (
    Answer,
    Verdict,
    answer,
    diverged_words,
    headline,
    is_higher_better,
    known_direction,
    metric_name,
    number,
    probability,
    signed,
    verdict,
)
from mmcl.explain.figures import COLOURS, NEUTRAL, figure_html, finish_figure
from mmcl.explain.page import environment_facts, render_section

__all__ = [
    "VERDICT_COLOURS",
    "comparison_section",
    "cost_figure",
    "forest_figure",
    "seeds_figure",
]

VERDICT_COLOURS: dict[Verdict, str] = {
    "better": COLOURS["common"],
    "worse": COLOURS["complementary"],
    "same": NEUTRAL,
    "untested": NEUTRAL,
}
"""Blue and orange, which the colour-blind tell apart; without colour the dot is also hollow."""

_SELECTIONS = {"V": "validation", "T": "test", "?": "not known", "-": "nothing to choose"}

_ROW_HEIGHT, _LINE_HEIGHT, _TOP, _TICKS, _TITLE = 25, 13, 4, 26, 20
_COST_HEIGHT = 380
_NAME_WIDTH = 20  # letters of a name before it is wrapped
_ROOM = 0.08  # of an axis, left free at its ends
_SMALLEST_DISC, _LARGEST_DISC = 9.0, 34.0  # pixels across
_PHONE_WIDTH, _COST_INSIDE = 280.0, 290.0  # of the plot itself, in pixels
_OUTSIDE = 8.0  # pixels that a name may reach beyond it
_LETTER = 6.2  # pixels


class _Cell(NamedTuple):
    """A number of a table: what is shown, what it is sorted by, and how it is set."""

    text: str
    spread: str = ""
    value: float | None = None
    is_best: bool = False
    verdict: Verdict = "untested"


class _Line(NamedTuple):
    """A row of the table."""

    name: str
    is_reference: bool
    cells: list[_Cell]
    seeds: str
    diverged: list[str]


def comparison_section(
    content: Mapping[str, Any], *, published: Sequence[PublishedResult] | None = None
) -> Markup:
    """A comparison or an ablation, as a part of a page.

    Args:
        content: What comparison.json holds.
        published: Numbers of the same data set that others reported, by default those we know
            of the corpus of that name. They stand beside ours in a colour of their own; they
            are never tested and never bold.
    """
    if published is None:
        name = content["corpus"]["name"]
        published = published_results(name) if name in published_datasets() else []
    metrics = list(content["metrics"])
    tests = _tests(content)
    rows = _ordered(content)
    shown = [each for each in published if each.metric in metrics]
    return render_section(
        "section_comparison.html.j2",
        content=content,
        headline=headline(content),
        summary=_summary(content),
        answers=_answers(content, tests),
        forests=_forests(content, rows, tests),
        seeds=[
            (
                metric_name(key),
                _arrow(key),
                figure_html(figure, name=f"seeds-{key.replace('_', '-')}"),
            )
            for key in metrics
            if (figure := seeds_figure(rows, key, seeds=content["seeds"], published=shown))
        ],
        cost=_cost(content, rows),
        primary=metric_name(metrics[0]),
        columns=[(metric_name(key), _arrow(key)) for key in metrics],
        lines=[_line(row, metrics, content, tests) for row in rows],
        every=_every_metric(content, rows),
        tests=_test_rows(content, rows, tests),
        selections=_SELECTIONS,
        published=[(each, metric_name(each.metric), number(each.value)) for each in shown],
        colours={**COLOURS, **VERDICT_COLOURS},
        notes=_notes(content),
        facts=_facts(content),
    )


def forest_figure(
    rows: Sequence[Mapping[str, Any]],
    tests: Mapping[tuple[str, str], Mapping[str, Any]],
    metric: str,
) -> go.Figure | None:
    """Differences to the reference with their intervals, a row each, and a line at none.

    Reference rows (a constant, the majority) can be far off; the axis is that of the models,
    and a row beyond it is a triangle at the end.

    Args:
        rows: Rows of the comparison, from top to bottom.
        tests: By row and metric.
        metric: The one to draw.

    Returns:
        The figure; None where no row was tested.
    """
    found = [(row, tests[row["name"], metric]) for row in rows if (row["name"], metric) in tests]
    found = [(row, test) for row, test in found if verdict(test) != "untested"]
    if not found:
        return None
    low, high = _forest_range(found)
    figure = go.Figure()
    for at, (row, test) in enumerate(found):
        _draw_difference(figure, at, test, low, high, kind=row["kind"])
    figure.add_vline(x=0, line={"width": 1, "color": NEUTRAL})
    _name_rows(figure, [row["name"] for row, _ in found], below=_TICKS + _TITLE)
    sides = ("worse", "better") if is_higher_better(metric) else ("better", "worse")
    figure.update_xaxes(
        range=[low, high],
        title={"text": f"← {sides[0]} &nbsp; {sides[1]} →", "standoff": 6},
    )
    return figure


def seeds_figure(
    rows: Sequence[Mapping[str, Any]],
    metric: str,
    *,
    seeds: Sequence[int],
    published: Sequence[Any] = (),
) -> go.Figure | None:
    """Every seed of every row as a dot, and their mean as a bar.

    Args:
        rows: Rows of the comparison, from top to bottom.
        metric: The one to draw.
        seeds: Of the comparison, in the order of the values.
        published: Drawn as diamonds on the row of the same model.

    Returns:
        The figure; None where the metric is undefined in every row.
    """
    found = [row for row in rows if (row["test"].get(metric) or {}).get("mean") is not None]
    if not found:
        return None
    figure = go.Figure()
    for at, row in enumerate(found):
        _draw_seeds(figure, at, row, metric, seeds)
    _draw_published(figure, [row["name"] for row in found], metric, published)
    _name_rows(figure, [row["name"] for row in found], below=_TICKS)
    return figure


def cost_figure(rows: Sequence[Mapping[str, Any]], metric: str) -> go.Figure | None:
    """What a result costs: the metric over seconds of training, parameters as area.

    Args:
        rows: Rows of the comparison.
        metric: The one to draw.

    Returns:
        The figure; None where no row has both a cost and a score.
    """
    priced = [row for row in rows if _has_cost(row, metric)]
    if not priced:
        return None
    most = max(row["cost"]["parameters"] for row in priced) or 1
    points = [_Point(row, metric, most) for row in priced]
    spread = [math.log10(point.seconds) for point in points]
    room = max(0.3, 0.14 * (max(spread) - min(spread)))
    low, high = min(spread) - room, max(spread) + room
    figure = go.Figure()
    for point, place in zip(points, _label_places(points, low, high), strict=True):
        figure.add_scatter(
            x=[point.seconds],
            y=[point.score],
            mode="markers+text",
            marker={
                "size": point.size,
                "color": COLOURS.get(point.name, NEUTRAL),
                "opacity": 0.7,
                "line": {"width": 0},
            },
            text=[html.escape(point.name) if place else ""],
            textposition=place or "top center",
            textfont={"size": 11},
            cliponaxis=False,
            hovertemplate=(
                f"{html.escape(point.name)}<br>{metric_name(metric)} {number(point.score)}<br>"
                f"{_count(point.seconds)} s of training<br>"
                f"{_count(point.parameters)} parameters<extra></extra>"
            ),
        )
    finish_figure(figure, height=_COST_HEIGHT)
    ticks = _log_ticks(low, high)
    figure.update_xaxes(
        type="log",
        range=[low, high],
        title={"text": "seconds of training per seed", "standoff": 6},
        tickvals=ticks,
        ticktext=[_count(each) for each in ticks],
    )
    figure.update_yaxes(title={"text": metric_name(metric), "standoff": 6}, nticks=7)
    figure.update_layout(margin={"l": 52, "t": 14})
    return figure


class _Point:
    """A row as a disc of the cost figure; ``size`` is its diameter in pixels."""

    def __init__(self, row: Mapping[str, Any], metric: str, most_parameters: int) -> None:
        self.name: str = row["name"]
        self.seconds: float = row["cost"]["train_seconds"]
        self.parameters: int = row["cost"]["parameters"]
        self.score: float = row["test"][metric]["mean"]
        share = math.sqrt(self.parameters / most_parameters)
        self.size = _SMALLEST_DISC + (_LARGEST_DISC - _SMALLEST_DISC) * share


def _has_cost(row: Mapping[str, Any], metric: str) -> bool:
    cost, summary = row["cost"], row["test"].get(metric)
    return bool(cost and cost["train_seconds"] and summary and summary["mean"] is not None)


def _label_places(points: Sequence[_Point], low: float, high: float) -> list[str | None]:
    """Where to write each name so that it covers no other, on a screen as narrow as a phone's.

    None where there is no room: pointing at the disc and the table below tell its name.

    Args:
        points: In the order in which they may choose.
        low: Lower end of the axis of seconds, as a power of ten.
        high: Its upper end.
    """
    heights = _unit([point.score for point in points])
    centres = [
        (_PHONE_WIDTH * (math.log10(point.seconds) - low) / (high - low), _COST_INSIDE * height)
        for point, height in zip(points, heights, strict=True)
    ]
    discs = [
        (x - r, y - r, x + r, y + r)
        for (x, y), r in zip(centres, (point.size / 2 for point in points), strict=True)
    ]
    written: list[_Box] = []
    places: list[str | None] = []
    for point, (x, y) in zip(points, centres, strict=True):
        boxes = _name_boxes(point, x, y)
        free = {
            place: box
            for place, box in boxes.items()
            if box[0] >= -_OUTSIDE
            and box[2] <= _PHONE_WIDTH + _OUTSIDE
            and not any(_overlap(box, other) for other in written)
        }
        if not free:
            places.append(None)
            continue
        chosen = min(free, key=lambda place: math.fsum(_overlap(free[place], d) for d in discs))
        written.append(free[chosen])
        places.append(chosen)
    return places


def _name_boxes(point: _Point, x: float, y: float) -> dict[str, _Box]:
    """The four places of a name around its disc, in pixels from the lower left."""
    width, half, away = _LETTER * len(point.name), _LINE_HEIGHT / 2, point.size / 2 + 2
    return {
        "top center": (x - width / 2, y + away, x + width / 2, y + away + 2 * half),
        "bottom center": (x - width / 2, y - away - 2 * half, x + width / 2, y - away),
        "middle right": (x + away, y - half, x + away + width, y + half),
        "middle left": (x - away - width, y - half, x - away, y + half),
    }


def _log_ticks(low: float, high: float) -> list[float]:
    """Round numbers between two powers of ten: 1, 2, 5, 10, ... or only the powers."""
    steps = (1, 2, 5) if high - low < 2.5 else (1,)
    every = [step * 10.0**power for power in range(-9, 12) for step in steps]
    return [each for each in every if low <= math.log10(each) <= high]


_Box = tuple[float, float, float, float]


def _overlap(one: _Box, other: _Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, width) * max(0.0, height)


def _unit(values: Sequence[float]) -> list[float]:
    low, high = min(values), max(values)
    return [(value - low) / (high - low) if high > low else 0.5 for value in values]


def _forest_range(
    found: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]],
) -> tuple[float, float]:
    models = [test for row, test in found if row["kind"] == "model"] or [test for _, test in found]
    low = min(0.0, *(test["low"] for test in models))
    high = max(0.0, *(test["high"] for test in models))
    room = _ROOM * (high - low or 1.0)
    return low - room, high + room


def _draw_difference(
    figure: go.Figure, at: int, test: Mapping[str, Any], low: float, high: float, *, kind: str
) -> None:
    found, difference = verdict(test), test["difference"]
    inside = low <= difference <= high
    edge = 0.03 * (high - low)  # so that a triangle at the end covers no name
    symbol = "circle" if found in ("better", "worse") else "circle-open"
    if not inside:
        symbol = "triangle-right" if difference > high else "triangle-left"
    figure.add_scatter(
        x=[difference if inside else min(max(difference, low + edge), high - edge)],
        y=[at],
        mode="markers",
        marker={
            "size": 10,
            "color": VERDICT_COLOURS[found],
            "symbol": symbol,
            "line": {"width": 2, "color": VERDICT_COLOURS[found]},
        },
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [test["high"] - difference],
            "arrayminus": [difference - test["low"]],
            "color": VERDICT_COLOURS[found],
            "thickness": 2,
            "width": 4,
            "visible": inside,
        },
        hovertemplate=f"{html.escape(_in_words(test))}<extra></extra>",
        opacity=1.0 if kind == "model" else 0.75,
    )


def _in_words(test: Mapping[str, Any]) -> str:
    interval = f"[{signed(test['low'])}, {signed(test['high'])}]"
    return f"{test['name']}: {signed(test['difference'])} {interval}, {probability(test['p_holm'])}"


def _draw_seeds(
    figure: go.Figure, at: int, row: Mapping[str, Any], metric: str, seeds: Sequence[int]
) -> None:
    summary = row["test"][metric]
    colour = COLOURS.get(row["name"], NEUTRAL)
    named = zip(_seed_names(row, summary["values"], seeds), summary["values"], strict=True)
    known = [(name, value) for name, value in named if value is not None]
    title = html.escape(row["name"])
    figure.add_scatter(
        x=[value for _, value in known],
        y=[at] * len(known),
        mode="markers",
        marker={"size": 9, "color": colour, "opacity": 0.6, "line": {"width": 0}},
        text=[f"{title}, {name}: {number(value)}" for name, value in known],
        hovertemplate="%{text}<extra></extra>",
    )
    figure.add_scatter(
        x=[summary["mean"]],
        y=[at],
        mode="markers",
        marker={"size": 15, "symbol": "line-ns", "line": {"width": 2.5, "color": colour}},
        hovertemplate=f"{title}, mean: {number(summary['mean'])}<extra></extra>",
    )


def _seed_names(row: Mapping[str, Any], values: Sequence[Any], seeds: Sequence[int]) -> list[str]:
    """What to call each value: its seed, where it is known which of them it is from."""
    finished = [seed for seed in seeds if str(seed) not in row["diverged"]]
    for each in (seeds, finished):
        if len(each) == len(values):
            return [f"seed {seed}" for seed in each]
    return ["every seed" if len(values) == 1 else f"value {at}" for at in range(1, len(values) + 1)]


def _draw_published(
    figure: go.Figure, names: Sequence[str], metric: str, published: Sequence[Any]
) -> None:
    place = {_bare(name): at for at, name in enumerate(names)}
    found = [p for p in published if p.metric == metric and _bare(p.model) in place]
    if not found:
        return
    figure.add_scatter(
        x=[each.value for each in found],
        y=[place[_bare(each.model)] for each in found],
        mode="markers",
        marker={
            "size": 9,
            "symbol": "diamond-open",
            "color": COLOURS["published"],
            "line": {"width": 2},
        },
        text=[html.escape(f"{p.model}, published: {number(p.value)} ({p.source})") for p in found],
        hovertemplate="%{text}<extra></extra>",
    )


def _bare(name: str) -> str:
    """A name as it is compared: Self-MM, self_mm and SelfMM are one model."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _name_rows(figure: go.Figure, names: Sequence[str], *, below: int) -> None:
    """A line of the figure per name, from top to bottom, long names wrapped; and its size."""
    wrapped = [textwrap.wrap(name, _NAME_WIDTH) or [""] for name in names]
    most = max(len(lines) for lines in wrapped)
    height = len(names) * (_ROW_HEIGHT + _LINE_HEIGHT * (most - 1)) + _TOP + below
    finish_figure(figure, height=height)
    figure.update_yaxes(
        tickvals=list(range(len(names))),
        ticktext=["<br>".join(html.escape(line) for line in lines) for lines in wrapped],
        range=[len(names) - 0.4, -0.6],
        automargin=True,
        ticklabelstandoff=6,
    )
    figure.update_xaxes(nticks=6, tickangle=0)
    figure.update_layout(margin={"l": 10, "r": 14, "t": _TOP, "b": below})


# ---------------------------------------------------------------- what the template is given


def _tests(content: Mapping[str, Any]) -> dict[tuple[str, str], Mapping[str, Any]]:
    return {(test["name"], test["metric"]): test for test in content["tests"]}


def _ordered(content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """An ablation as it was asked, its reference first; a comparison best first.

    Reference rows come last, and before them what has no score.
    """
    rows: list[Mapping[str, Any]] = list(content["rows"])
    if content["kind"] == "ablation":
        return sorted(rows, key=lambda row: row["name"] != content["reference"])
    metric = content["metrics"][0]
    sign = -1.0 if is_higher_better(metric) else 1.0

    def rank(row: Mapping[str, Any]) -> tuple[bool, float]:
        mean = (row["test"].get(metric) or {}).get("mean")
        return row["kind"] == "reference", math.inf if mean is None else sign * mean

    return sorted(rows, key=rank)


def _summary(content: Mapping[str, Any]) -> str:
    corpus, count = content["corpus"], len(content["seeds"])
    clips = "/".join(f"{corpus['counts'].get(part, 0):,}" for part in ("train", "valid", "test"))
    aligned = "aligned" if corpus["aligned"] else "unaligned"
    return (
        f"{len(content['rows'])} rows, {count} seed{'s' * (count != 1)} each, on {corpus['name']} "
        f"({clips} clips, {aligned}). Every network was chosen on validation and judged once on "
        f"{content['test_clips']:,} test clips."
    )


def _answers(
    content: Mapping[str, Any], tests: Mapping[tuple[str, str], Mapping[str, Any]]
) -> list[tuple[str, list[Answer]]]:
    """The questions of an ablation in their order, an answer per row."""
    metric = content["metrics"][0]
    found: dict[str, list[Answer]] = {}
    for row in content["rows"]:
        if content["kind"] == "ablation" and row["question"] is not None:
            each = answer(row["name"], metric, tests.get((row["name"], metric)))
            found.setdefault(row["question"], []).append(each)
    return list(found.items())


def _forests(
    content: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    tests: Mapping[tuple[str, str], Mapping[str, Any]],
) -> list[tuple[str, str, Markup]]:
    """Name of a metric, how far chance alone reaches, and its figure."""
    drawn = []
    for key in content["metrics"]:
        figure = forest_figure(rows, tests, key)
        floor = (content["floor"] or {}).get(key)
        chance = "" if floor is None else f"chance alone, for so many clips: ±{number(floor)}"
        if figure is not None:
            name = f"forest-{key.replace('_', '-')}"
            drawn.append((metric_name(key), chance, figure_html(figure, name=name)))
    return drawn


def _cost(content: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    figure = cost_figure(rows, content["metrics"][0])
    lines = [(row["name"], _cost_cells(row["cost"])) for row in rows if row["cost"]]
    if not lines:
        return None
    return {
        "figure": None if figure is None else figure_html(figure, name="cost"),
        "lines": lines,
    }


def _cost_cells(cost: Mapping[str, Any]) -> list[_Cell]:
    keys = ("parameters", "train_seconds", "predict_clips_per_second", "peak_memory_mib")
    return [_Cell(_count(cost[key]), value=cost[key]) for key in keys]


def _count(value: float | None) -> str:
    """A quantity of any size, three digits of it where it is small.

    Example:
        >>> _count(1234567), _count(12.34), _count(0.0312), _count(None)
        ('1,234,567', '12.3', '0.0312', '–')
    """
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def _arrow(key: str) -> str:
    return {True: "↑", False: "↓", None: ""}[known_direction([key])[key]]


def _line(
    row: Mapping[str, Any],
    metrics: Sequence[str],
    content: Mapping[str, Any],
    tests: Mapping[tuple[str, str], Mapping[str, Any]],
) -> _Line:
    test = tests.get((row["name"], metrics[0]))
    p = None if test is None else test["p_holm"]
    cells = [
        _cell(row["test"].get(key))._replace(
            is_best=content["best"].get(key) == row["name"],
            verdict=verdict(tests.get((row["name"], key))),
        )
        for key in metrics
    ]
    p_text = probability(p).removeprefix("p ").removeprefix("= ") if p is not None else "–"
    return _Line(
        name=row["name"],
        is_reference=row["name"] == content["reference"],
        cells=[*cells, _Cell(p_text, value=p)],
        seeds=_seeds_done(row, content),
        diverged=diverged_words(row),
    )


def _seeds_done(row: Mapping[str, Any], content: Mapping[str, Any]) -> str:
    if row["diverged"]:
        return f"{row['seeds_done']} of {len(content['seeds'])} seeds"
    return ""


def _cell(summary: Mapping[str, Any] | None) -> _Cell:
    if not summary or summary["mean"] is None:
        return _Cell("–")
    spread = "" if summary["std"] is None else f"± {number(summary['std'])}"
    return _Cell(number(summary["mean"]), spread, summary["mean"])


def _every_metric(
    content: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The tables of all metrics, by split."""
    tables = []
    for split in ("test", "valid"):
        keys = list(dict.fromkeys(key for row in rows for key in row[split] or {}))
        lines = [(row["name"], [_cell((row[split] or {}).get(k)) for k in keys]) for row in rows]
        if keys:
            columns = [(metric_name(key), _arrow(key)) for key in keys]
            tables.append({"split": split, "columns": columns, "lines": lines})
    return tables


def _test_rows(
    content: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    tests: Mapping[tuple[str, str], Mapping[str, Any]],
) -> list[tuple[str, str, list[_Cell], Verdict]]:
    """Every test with all its p values."""
    keys = ("p_bootstrap", "p_wilcoxon", "p_mcnemar", "p_holm")
    found = []
    for key in content["metrics"]:
        for row in rows:
            test = tests.get((row["name"], key))
            if test is None:
                continue
            interval = f"[{signed(test['low'])}, {signed(test['high'])}]"
            cells = [
                _Cell(signed(test["difference"]), interval, test["difference"]),
                *(_Cell(_p_value(test[p]), value=test[p]) for p in keys),
            ]
            found.append((metric_name(key), row["name"], cells, verdict(test)))
    return found


def _p_value(p: float | None) -> str:
    return "–" if p is None else probability(p).removeprefix("p ").removeprefix("= ")


def _notes(content: Mapping[str, Any]) -> list[str]:
    """What the file notes, and what its tests do, each once."""
    of_tests: dict[str, list[str]] = {}
    for test in content["tests"]:
        for note in test["notes"]:
            names = of_tests.setdefault(note, [])
            if test["name"] not in names:
                names.append(test["name"])
    everyone = len({test["name"] for test in content["tests"]})
    return [
        *content["notes"],
        *(
            note if len(names) == everyone else f"{', '.join(names)}: {note}"
            for note, names in of_tests.items()
        ),
    ]


def _facts(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    corpus = content["corpus"]
    return [
        ("corpus", f"{corpus['name']}, checksum {str(corpus['checksum'])[:16]}"),
        ("seeds", ", ".join(map(str, content["seeds"]))),
        *([("metrics as in", content["preset"])] if content["preset"] else []),
        ("processes", str(content["workers"])),
        *environment_facts(content["environment"]),
    ]
