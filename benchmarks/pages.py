"""Write the tables of docs/results, and the summary in README.md, from benchmarks/results.

A table stands between ``<!-- table:NAME -->`` and ``<!-- end:NAME -->``; no number in it is typed
by hand. Above it stand the command, the date, the commit of ``src``, the machine and the seeds,
and a sentence where the code has changed since. ``benchmarks/results.py`` calls this when its
steps are done; after another change of the code: python benchmarks/pages.py
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kept import ROOT, is_of_this_code, kept
from measured_tables import MEASURED, draw, hours_table
from mmcl.evaluation.metrics import metric_name
from mmcl.runs.comparison_tables import column_title, format_metric, markdown_table
from steps import STEPS

RESULTS = ROOT / "docs/results"
README = ROOT / "README.md"
PICTURE = RESULTS / "cost-by-length.svg"
MARKED = re.compile(r"<!-- table:([\w-]+) -->\n(.*?)<!-- end:\1 -->", re.S)
OF_THE_FILE = re.compile(r'no "test" split|test has 0 clips| of this kind |sha256 begins with')
"""Notes that compare a file with the published one, of which a table of validation has a part."""
SUMMARY = re.compile(r"(<!-- results:summary -->\n).*?(<!-- /results:summary -->)", re.S)


def write_pages() -> None:
    """Write every page and the picture again."""
    for path, text in pages().items():
        path.write_text(text)
    phases = kept("phases")
    if phases is not None:
        draw(phases["curves"]["length"], phases["size"]["width"], PICTURE)


def pages() -> dict[Path, str]:
    """Return the text of every page as it should be."""
    texts = {
        path: MARKED.sub(_table_between_marks, path.read_text())
        for path in sorted(RESULTS.glob("*.md"))
    }
    readme = README.read_text()
    return {**texts, README: SUMMARY.sub(lambda m: f"{m[1]}{summary_table()}{m[2]}", readme)}


def _table_between_marks(marked: re.Match[str]) -> str:
    name = marked[1]
    return f"<!-- table:{name} -->\n{table(name)}\n\n<!-- end:{name} -->"


def table(name: str) -> str:
    """Return the table of a step with what it was made by, or how to make it."""
    contents = {step: kept(step) for step in SEVERAL.get(name, (name,))}
    missing = [step for step, content in contents.items() if content is None]
    if missing:
        return f"Not measured yet: `python benchmarks/results.py {' '.join(missing)}`"
    found = {step: content for step, content in contents.items() if content is not None}
    heads = [made_by(step, content) for step, content in found.items()]
    if name in SEVERAL:
        return "\n\n".join([*heads, hours_table(found["media"], found["streaming"])])
    return "\n\n".join([*heads, as_table(name, found[name])])


def as_table(name: str, content: dict[str, Any]) -> str:
    """Return a result as a table with its notes."""
    make = MEASURED.get(name) or TRAINED[content["kind"]]
    return make(content).strip()


SEVERAL = {"hours": ("media", "streaming")}
"""Tables that are computed from the results of several steps."""


def made_by(name: str, content: Mapping[str, Any]) -> str:
    """Return what a result was made by, and a sentence if the code has changed since."""
    seeds = content["seeds"]
    minutes = max(1, round(content["seconds"] / 60)) if content["seconds"] else None
    parts = [
        f"`{content['command']}`",
        content["date"],
        f"`src` of {content['commit'][:12]}",
        content["machine"],
        *([f"seeds {seeds[0]} to {seeds[-1]}"] if len(seeds) > 1 else []),
        *([f"seed {seeds[0]}"] if len(seeds) == 1 else []),
        *([f"{minutes} min"] if minutes else []),
    ]
    line = f"{', '.join(parts)}."
    if content.get("uncommitted"):
        line += " It was made with changes of the code that were not committed."
    if not is_of_this_code(content, STEPS[name].depends):
        line += f" {OLDER}"
    return line


OLDER = "**Older than the code**, which has changed since: a new run may give other numbers."

SUMMARY_OF = {
    "planted": "[planted](docs/results/planted.md), aligned",
    "planted-unaligned": "[planted](docs/results/planted.md), not aligned",
    "ravdess": "[RAVDESS](docs/results/ravdess.md)",
    "mmmo": "[ICT-MMMO](docs/results/mmmo.md)",
    "pom": "[POM](docs/results/pom.md)",
}
"""Rows of the summary in README.md."""
SUMMARY_MODELS = ("calibrated", "late_fusion", "released", "ridge")


def summary_table() -> str:
    """Return the first metric of some models on every corpus that was measured."""
    lines = [
        "| corpus | metric | " + " | ".join(f"`{name}`" for name in SUMMARY_MODELS) + " |",
        "|---|---|" + "---:|" * len(SUMMARY_MODELS),
    ]
    older = []
    for name, title in SUMMARY_OF.items():
        content = kept(name)
        if content is None:
            continue
        key = content["metrics"][0]
        cells = [_summary_cell(content, model, key) for model in SUMMARY_MODELS]
        lines.append(f"| {title} | {column_title(key)} | {' | '.join(cells)} |")
        if not is_of_this_code(content, STEPS[name].depends):
            older.append(name)
    lines += [
        "",
        "Test clips, mean ± s.d. over seeds (trainings that begin at random); ↓ lower is better.",
        "MAE: mean absolute error. † differs significantly from `calibrated`.",
    ]
    if older:
        lines[-1] += f" Older than the code, so that a new run may differ: {', '.join(older)}."
    return "\n".join(lines) + "\n"


def _summary_cell(content: Mapping[str, Any], model: str, key: str) -> str:
    row = next((row for row in content["rows"] if row["name"] == model), None)
    if row is None or not row["test"].get(key):
        return "–"
    differs = any(
        test["better"]
        for test in content["tests"]
        if (test["name"], test["metric"]) == (model, key)
    )
    return _mean(key, row["test"][key]) + "†" * differs


def _mean(key: str, summary: Mapping[str, Any]) -> str:
    spread = "" if summary["std"] is None else f" ± {format_metric(key, summary['std'])}"
    return format_metric(key, summary["mean"]) + spread


def result_table(content: dict[str, Any]) -> str:
    """A comparison or an ablation, and which rows differ from its reference."""
    counts = content["corpus"]["counts"]
    uses = {"train": "training", "valid": "validation", "test": "the test"}
    clips = ", ".join(f"{counts.get(name, 0):,} for {use}" for name, use in uses.items())
    table = markdown_table(content)
    if table.startswith("| model | question |"):  # a column of words, not of numbers
        table = table.replace("| --- | ---: |", "| --- | --- |", 1)
    return "\n".join([f"Clips: {clips}.", "", table, *verdicts(content)])


def verdicts(content: Mapping[str, Any]) -> list[str]:
    """Return which rows are significantly better or worse than the reference, and which neither.

    By the first metric, which is the one that a task is judged by.
    """
    key, reference = content["metrics"][0], content["reference"]
    found: dict[str, list[str]] = {"worse": [], "better": [], "neither": []}
    for test in content["tests"]:
        if test["metric"] == key and test["name"] != reference:
            kind = {None: "neither", reference: "worse"}.get(test["better"], "better")
            found[kind].append(f"`{test['name']}`")
    words = {
        "worse": f"Significantly worse than `{reference}`",
        "better": f"Significantly better than `{reference}`",
        "neither": "No significant difference",
    }
    lines = [f"- {words[kind]}: {', '.join(names)}." for kind, names in found.items() if names]
    return [f"By {metric_name(key)}:", "", *lines] if lines else []


def validation_table(content: dict[str, Any]) -> str:
    """Variants on validation clips, and how far each is from the first."""
    metrics, reference = content["metrics"], content["reference"]
    counts = content["corpus"]["counts"]
    clips = sum(counts.values())
    where = (
        f"{counts['train']:,} training and {counts['valid']:,} validation clips"
        if content["folds"] == 1
        else f"{clips:,} clips in {content['folds']} folds, each of which is held out once"
    )
    over = "seeds" if content["folds"] == 1 else "folds and seeds, as if these were independent"
    first = column_title(metrics[0]).rstrip(" ↑↓")
    lines = [
        f"{where}. **No test clip was used.** The epoch is chosen on the same validation clips, as "
        "were the settings that were searched for (those of `calibrated` serve its variants, too), "
        f"so that all numbers are optimistic. ± and intervals are over {over}; the intervals are "
        "not corrected for their number.",
        "",
        f"| | {' | '.join(map(column_title, metrics))} | {first}, less `{reference}`'s "
        "(95% interval) | settings |",
        "|---" + "|---:" * (len(metrics) + 1) + "|---|",
    ]
    for row in content["rows"]:
        cells = [_mean(key, row["valid"][key]) for key in metrics]
        away = row["difference"][metrics[0]]
        ends = [format_metric(metrics[0], away[end]) for end in ("mean", "low", "high")]
        apart = "" if row["name"] == reference else f"{ends[0]} ({ends[1]} to {ends[2]})"
        settings = ", ".join(f"`{setting}`" for setting in row["settings"])
        lines.append(f"| {row['name']} | {' | '.join(cells)} | {apart} | {settings} |")
    notes = [note for note in content["notes"] if not OF_THE_FILE.search(note)]
    return "\n".join([*lines, "", *(f"- {note}" for note in notes)])


def search_table(content: dict[str, Any]) -> str:
    """What a search found for every model."""
    lines = [
        f"{content['trials']} trials for every model, the first with the default settings, one "
        "seed, judged by validation loss; trials that do worse than the median so far are stopped "
        "early.",
        "",
        "| model | loss, default settings | loss, chosen | chosen settings |",
        "|---|---:|---:|---|",
    ]
    for model, found in content["models"].items():
        chosen = ", ".join(f"{key}={value:.3g}" for key, value in found["params"].items())
        before = found["loss_of_defaults"]
        first = "–" if before is None else f"{before:.3f}"
        lines.append(f"| {model} | {first} | {found['loss']:.3f} | {chosen} |")
    return "\n".join(lines)


def explanation_table(content: dict[str, Any]) -> str:
    """Findings of an explanation, in its own words, and how they were obtained."""
    notes = [f"Note: {note}" for note in content["notes"]]
    return "\n".join(f"- {sentence}" for sentence in [*content["conclusions"], *notes])


TRAINED: dict[str, Callable[[dict[str, Any]], str]] = {
    "comparison": result_table,
    "ablation": result_table,
    "validation": validation_table,
    "search": search_table,
    "explanation": explanation_table,
}
"""Tables by the kind of a result; all others have a table of their own."""

if __name__ == "__main__":
    write_pages()
