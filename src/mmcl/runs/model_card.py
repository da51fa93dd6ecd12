"""The model card of a published run: a README.md that is written from the run alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from mmcl.config import Config, resolve_config
from mmcl.corpus.schema import Task
from mmcl.evaluation.metrics import metric_name
from mmcl.evaluation.summary import CONFIDENCE
from mmcl.media.text_vectors import recorded_text_model
from mmcl.plain import plain
from mmcl.runs.run import Run
from mmcl.types import SPLITS

__all__ = ["differing_settings", "model_card"]

# Names that the Hub has for the stems of our metrics; it knows the others by our own.
_HUB_METRICS = {
    "corr": "pearsonr",
    "uar": "recall",
    **dict.fromkeys(("acc2", "acc3", "acc5", "acc7"), "accuracy"),
}
_PIPELINES = {"vision": "video-classification", "audio": "audio-classification"}
_MARKS = re.compile(r"([\\`*_\[\]<>|#])")  # of Markdown


def model_card(run: Run, name: str, licence: str | None) -> str:
    """Write the card of a run: a header for the Hub, then what a reader must know.

    Every number and name is the run's own.

    Args:
        run: A run that was scored.
        name: What it is published as, ``owner/name`` or a folder.
        licence: Licence of the model by its name on the Hub; None if it is not known.

    Raises:
        RunError: If the run was not scored.
    """
    parts = {
        "How to use it": _usage(run, name),
        "What it learnt from": _list(_data(run)),
        "Settings": _settings(run.config),
        "Scores": _scores(run.metrics),
        "What it cannot do": _list(_limits(run)),
        "Licence": _licence(run, licence),
    }
    title = name.rstrip("/").rpartition("/")[2]
    sections = [f"## {heading}\n\n{text}" for heading, text in parts.items()]
    return "\n\n".join([_header(run, title, licence), f"# {title}", _summary(run), *sections, ""])


def differing_settings(config: Config) -> dict[str, tuple[Any, Any]]:
    """Return the settings that are not the defaults of their model: value and default, by key."""
    defaults = dict(_flat(resolve_config(model=config.model.name).model_dump(mode="json")))
    own = dict(_flat(config.model_dump(mode="json")))
    return {
        key: (value, defaults.get(key)) for key, value in own.items() if value != defaults.get(key)
    }


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _header(run: Run, title: str, licence: str | None) -> str:
    """Return the YAML that the Hub reads: licence, library, task, and metrics with values."""
    from huggingface_hub import EvalResult, ModelCardData

    report, task = run.metrics, _pipeline(run)
    split = "test" if report["test"] else "valid"
    results = [
        EvalResult(
            task_type=task,
            dataset_type=re.sub(r"[^\w.-]+", "-", run.card.name),
            dataset_name=run.card.name,
            dataset_split=split,
            metric_type=_hub_metric(key),
            metric_name=f"{metric_name(key)} ({split}, mean of {len(run.seeds)} seeds)",
            metric_value=summary["mean"],
        )
        for key, summary in report[split].items()
        if summary["mean"] is not None
    ]
    encoder = run.config.text.encoder or ""
    content = ModelCardData(
        model_name=title,
        license=licence,
        language=run.card.language,
        library_name="mmcl",
        pipeline_tag=task,
        base_model=encoder if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", encoder) else None,
        tags=["mmcl", "multimodal-sentiment-analysis", run.config.model.name],
        metrics=sorted({result.metric_type for result in results}),
        eval_results=results or None,
    )
    return f"---\n{content.to_yaml()}\n---"


def _pipeline(run: Run) -> str:
    """Return the Hub's name of what the model takes."""
    used = run.model().modalities
    return next((name for m, name in _PIPELINES.items() if m in used), "text-classification")


def _hub_metric(key: str) -> str:
    if key.endswith("_auroc"):
        return "roc_auc"
    stem = key.partition("_")[0]
    return _HUB_METRICS.get(stem, stem)


def _summary(run: Run) -> str:
    used = _listed(run.model().modalities)
    count = len(run.seeds)
    networks = "One network" if count == 1 else f"{count} networks, whose mean is the prediction,"
    return (
        f"{networks} of mmcl's model `{run.config.model.name}`: from {used} of a clip to "
        f"{_target(run.card.task)}. {_origin(run)}mmcl wrote this card from the run."
    )


def _origin(run: Run) -> str:
    environment = run.description.get("environment", {})
    versions = environment.get("versions", {})
    made = [f"{name} {versions[name]}" for name in ("mmcl", "torch") if versions.get(name)]
    commit = environment.get("commit")
    if not made:
        return ""
    return f"Trained with {_listed(made)}{f' (commit {commit})' if commit else ''}. "


def _target(task: Task) -> str:
    if task.kind == "regression":
        return f"a score from {task.low:g} to {task.high:g}"
    names = ", ".join(_plain(name) for name in task.names)
    return f"one of {names}" if task.kind == "classes" else f"any of {names}"


def _usage(run: Run, name: str) -> str:
    """Return six lines of Python, for the kind of source that the run reads."""
    extra = _extra(run)
    install = f'pip install "mmcl[{extra}]"' if extra else "pip install mmcl"
    lines = ["import mmcl", "", f'run = mmcl.from_pretrained("{name}")']
    if "extraction" in run.card.recipe:
        lines[0] = (
            "import mmcl\nfrom pathlib import Path\nfrom mmcl.runs.recordings import predict_media"
        )
        lines += ['timeline = predict_media(run, Path("talk.mp4"))']
        lines += ["print([moments.prediction for moments in timeline.moments])"]
        takes = "A recording, or a corpus that `mmcl extract` made in the same way."
    elif run.model().words is not None or recorded_text_model(run.card).name:
        lines += ['print(run.predict("reviews.csv").to_pylist())']
        takes = "A table with a column `text`, or a corpus of mmcl with words."
    else:
        lines += ['print(run.predict("clips.arrow").to_pylist())']
        takes = "A corpus of mmcl with the features below, in the same columns."
    return f"```\n{install}\n```\n\n```python\n" + "\n".join(lines) + f"\n```\n\n{takes}"


def _extra(run: Run) -> str | None:
    """Return the extra of mmcl that the run needs to read its sources."""
    packaged = recorded_text_model(run.card).name in ("packaged", "starter")
    if "extraction" in run.card.recipe:
        return "media-offline" if packaged else "media"
    if run.model().words is not None:
        return "text"
    return "media-offline" if packaged else None


def _data(run: Run) -> Iterator[str]:
    card = run.card
    counts = ", ".join(f"{split} {card.counts.get(split, 0):,}" for split in SPLITS)
    yield f"Corpus: {_plain(card.name)}; clips: {counts}; to predict: {_target(card.task)}."
    if card.dims:
        widths = ", ".join(f"{modality} {width}" for modality, width in card.dims.items())
        steps = "the same steps in all of them" if card.aligned else "each with steps of its own"
        yield f"Features per step: {widths}; {steps}."
    yield f"Language: {card.language or 'not recorded'}."
    if card.source is not None:
        source = card.source
        yield f"Read from {_plain(source.name)} ({source.layout}), SHA-256 {source.sha256}."
    if "planted" in card.recipe:
        yield "The clips are planted: random numbers with a known answer, no recordings."
    text = recorded_text_model(card)
    if text.label or text.name:
        yield f"Vectors of the words: {_plain(text.label or text.name or '')}."
    extraction = card.recipe.get("extraction")
    if isinstance(extraction, dict):
        yield f"Extracted by mmcl from recordings; settings: {_plain(_inline(extraction))}."
    start = run.description.get("start")
    if isinstance(start, dict):
        yield f"The training began with the weights of another run: {_plain(start['run'])}."


def _settings(config: Config) -> str:
    differing = differing_settings(config)
    if not differing:
        return f"All settings are the defaults of `{config.model.name}`."
    rows = [
        f"| `{key}` | {_value(value)} | {_value(default)} |"
        for key, (value, default) in differing.items()
    ]
    first = f"Those that differ from the defaults of `{config.model.name}`; all are in `run.json`."
    return "\n".join([first, "", "| setting | value | default |", "|---|---|---|", *rows])


def _scores(report: Mapping[str, Any]) -> str:
    """Return mean, s.d. and interval of every metric, with the reference rows."""
    split = "test" if report["test"] else "valid"
    references = report["references"]
    count = len(report["seeds"])
    over = f"Mean ± s.d. over {count} seeds, and the {CONFIDENCE:.0%} t interval of the mean."
    first = over if count > 1 else "One seed: there is no spread and no interval."
    preset = report["preset"]
    if preset:
        first += f" Metrics are defined as by `{preset}`."
    first += " The epoch was chosen on validation."
    if references:
        first += (
            f" On {split}, simple rules that learnt from the same clips: {', '.join(references)}."
        )
    lines = [f"| metric | {' | '.join(('valid', 'test', *references))} |"]
    lines.append("|---" * (3 + len(references)) + "|")
    for key in report[split]:
        cells = [_interval(report[part].get(key)) for part in ("valid", "test")]
        cells += [_number(row.get(split, {}).get(key)) for row in references.values()]
        lines.append(f"| {metric_name(key)} | {' | '.join(cells)} |")
    return "\n".join([first, "", *lines])


def _interval(summary: Mapping[str, Any] | None) -> str:
    if not summary or summary["mean"] is None:
        return "-"
    if summary["std"] is None:
        return _number(summary["mean"])
    low, high = _number(summary["low"]), _number(summary["high"])
    return f"{_number(summary['mean'])} ± {_number(summary['std'])} ({low} to {high})"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _limits(run: Run) -> Iterator[str]:
    card, model = run.card, run.model()
    if "planted" in card.recipe:
        yield "It says nothing of people: it has seen no recording."
    if card.language:
        yield f"Another language than {card.language}."
    unseen = [m for m in ("text", "audio", "vision") if m not in model.modalities]
    unseen += [*model.never_seen]
    if unseen:
        yield f"It does not use {_listed(unseen)}."
    if "extraction" not in card.recipe:
        yield "It reads no recordings: its features were not made by `mmcl extract`."
    if model.needs_equal_lengths:
        yield "Every modality of a clip must have the same number of steps."
    name = _plain(card.name)
    yield f"It was scored on clips of {name} alone. How wrong it is elsewhere is not known."
    yield "The intervals are over seeds: they do not cover which clips were drawn."
    yield "It gives what raters would say of a clip on average. Do not use it to judge people."


def _licence(run: Run, licence: str | None) -> str:
    lines = [f"The model: {licence}." if licence else "None was given: ask who made the model."]
    lines.append(
        "The run does not record the licence of its data: whoever publishes it must know it."
    )
    if run.model().words is not None:
        encoder = _plain(run.config.text.encoder)
        lines.append(
            f"It contains weights of a language model ({encoder}), whose licence holds too."
        )
    extraction = run.card.recipe.get("extraction")
    if isinstance(extraction, dict) and extraction.get("voice") == "egemaps":
        lines.append("The voice is measured by openSMILE, whose licence is for research.")
    return "\n".join(lines)


def _plain(value: object) -> str:
    """Return text of a run so that Markdown shows it as it is, on one line."""
    return _MARKS.sub(r"\\\1", " ".join(plain(str(value)).split()))


def _value(value: object) -> str:
    return _plain(json.dumps(value, ensure_ascii=False))


def _inline(tree: Mapping[str, Any]) -> str:
    """Return the settings of an extraction on one line, without versions and defaults of None."""
    return ", ".join(
        f"{key} {value}" for key, value in tree.items() if key != "versions" and value is not None
    )


def _list(lines: Iterator[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _listed(words: Any) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else str(last)
