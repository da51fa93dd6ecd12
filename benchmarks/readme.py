"""Write the tables of the README and of docs from the newest files of benchmarks/results.

A table stands between ``<!-- table:NAME -->`` and ``<!-- end:NAME -->``; no number in it is
typed by hand. The benchmarks call this when they are done.
"""

from __future__ import annotations

import re
from pathlib import Path
from statistics import median
from typing import Any

from kept import kept
from mmcl.evaluation.comparison_tables import markdown_table

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
PAGES = (
    HERE.parent / "README.md",
    *(DOCS / name for name in ("your-own-video.md", "serving.md", "scaling.md")),
)
HOURS = 1_000_000
DAYS = 30
CORES = 64
"""Of the machine that a great deal of video is reckoned for."""
MARKED = re.compile(r"<!-- table:([\w-]+) -->\n(.*?)<!-- end:\1 -->", re.S)


def render() -> None:
    """Rewrite every table whose results there are."""
    for page in PAGES:
        page.write_text(MARKED.sub(_fresh, page.read_text()))


def _fresh(found: re.Match[str]) -> str:
    name = found[1]
    if name == "hours":
        media, streaming = kept("media"), kept("streaming")
        if media is None or streaming is None:
            return found[0]
        return f"<!-- table:hours -->\n{hours_table(media, streaming)}<!-- end:hours -->"
    tables = {"speed": speed_table, "media": media_table, "service": service_table}
    content = kept(name if name in tables else f"result.{name}")
    if content is None:
        return found[0]
    table = tables[name](content) if name in tables else result_table(name, content)
    return f"<!-- table:{name} -->\n{table}<!-- end:{name} -->"


def result_table(name: str, content: dict[str, Any]) -> str:
    """A comparison or an ablation, its command above it."""
    if content.get("kind") not in ("comparison", "ablation"):
        return explanation_table(name, content)
    counts = "/".join(str(count) for count in content["corpus"]["counts"].values())
    made = f"`python benchmarks/comparisons.py {name}`: `{content['command']}`"
    return f"{counts} clips. {made}\n\n{markdown_table(content)}\n"


def explanation_table(name: str, content: dict[str, Any]) -> str:
    """What an explanation found, in its own words."""
    made = f"`python benchmarks/comparisons.py {name}`: `{content['command']}`"
    lines = [made, "", *(f"- {sentence}" for sentence in content["conclusions"])]
    return "\n".join(lines) + "\n\n"


def speed_table(content: dict[str, Any]) -> str:
    """Clips per second beside the floor."""
    rate = content["matrix_product_flops_per_second"] / 1e9
    lines = [
        "Width 128, 20 steps, batch 128, features of 300/74/35, float32. The floor is the "
        "operations counted over the rate of a large matrix product in the same run "
        f"({rate:.0f} GFLOP/s, {content['environment']['machine']}); ratios count, absolute rates "
        "drift. `make bench`",
        "",
        "| | | clips/s | MFLOP/clip | floor, clips/s | share of floor |",
        "|---|---|---|---|---|---|",
    ]
    for variant, steps in content["results"].items():
        for step, r in steps.items():
            lines.append(
                f"| {variant} | {step} | {r['clips_per_second']:.0f} | {r['mflop_per_clip']:.1f} | "
                f"{r['floor_clips_per_second']:.0f} | {r['share_of_floor']:.0%} |"
            )
    ratios = content["ratios"]
    said = ", ".join(f"{step} {ratio:.2f}" for step, ratio in ratios.items())
    lines += ["", f"calibrated / released, median of rounds: {said}."]
    return "\n".join(lines) + "\n\n"


def media_table(content: dict[str, Any]) -> str:
    """Seconds of every stage of extraction, and how right it was."""
    results = content["results"]
    stages = [stage for stage in next(iter(results.values()))["stages"] if stage != "align"]
    lines = [
        f"Seconds per second of recording, models loaded, {content['environment']['machine']} "
        f"(load {content['load'][0]} by other work); `make bench-media`. Clock: the "
        f"median of {content['rounds']} rounds; processor: all threads, least of the rounds.",
        "",
        f"| recording | {' | '.join(stages)} | clock | asked | processor | pictures with a face |",
        "|---" * (len(stages) + 5) + "|",
    ]
    for name, r in results.items():
        cells = [f"{r['stages'][stage]:.3f}" for stage in stages]
        each = r["seconds"] / r["recordings"]
        lines.append(
            f"| {name}, {r['recordings']} × {each:.0f} s, {r['size']} | {' | '.join(cells)} | "
            f"**{r['wall']:.2f}** | {r['asked']:.2f} | {r['cpu']:.2f} | {r['face_share']:.0%} |"
        )
    return "\n".join([*lines, "", *_media_notes(content)]) + "\n\n"


def _media_notes(content: dict[str, Any]) -> list[str]:
    error = content["align_error"]
    lines = [
        "- Recognised words of GRID that are wrong: "
        + ", ".join(f"{r:.1%} ({model})" for model, r in content["word_error_rates"].items())
        + ".",
        f"- Aligned words: their starts and ends are {1000 * error['mean']:.0f} ms off on average, "
        f"{1000 * error['largest']:.0f} ms at most (one sentence of GRID).",
    ]
    if "memory" in content:
        peaks = (f"{name} {each['peak_mib']} MiB" for name, each in content["memory"].items())
        lines.append(f"- Peak memory by length of the recording: {', '.join(peaks)}.")
    return lines


def service_table(content: dict[str, Any]) -> str:
    """Requests of many clients, how the service begins, and files that are none."""
    rounds, start, malformed = content["rounds"], content["start"], content["malformed"]
    lines = [
        f"A run of {content['seeds']} seeds, clips of 20 steps, clients on the same machine, "
        f"{content['environment']['machine']} (load {content['load']:.1f} by other work); "
        f"`{content['command']}`. Medians of {len(rounds)} rounds.",
        "",
        "| clients | requests | errors | requests per second | p50, ms | p99, ms |",
        "|---|---|---|---|---|---|",
    ]
    for kind, clients in (("alone", "1"), ("together", "32")):
        each = [one[kind] for one in rounds]
        errors = sum(one["errors"] for one in each)
        middle = {key: median(one[key] for one in each) for key in each[0]}
        lines.append(
            f"| {clients} | {sum(one['requests'] for one in each)} | {errors} | "
            f"{middle['per_second']:.0f} | {middle['p50_ms']:.0f} | {middle['p99_ms']:.0f} |"
        )
    ratios = [one["ratio"] for one in rounds]
    held = list(content["memory"].items())
    refused, harmless = (_statuses(malformed[kind]) for kind in ("statuses", "harmless"))
    lines += [
        "",
        f"- Together over alone: {median(ratios):.1f} times as many ({min(ratios):.1f} to "
        f"{max(ratios):.1f}).",
        f"- From the command to the first prediction: {start['features']:.1f} s for features, "
        f"{start['recording']:.1f} s for a recording. Memory at rest, all processes: "
        f"{start['memory_mib']:.0f} MiB.",
        f"- Memory of all processes after {held[0][0]} and {held[-1][0]} requests: "
        f"{held[0][1]:.0f} and {held[-1][1]:.0f} MiB.",
        f"- Malformed recordings: {refused}. Changed ones that FFmpeg decodes without a word: "
        f"{harmless or 'none'}. The slowest `/healthz` meanwhile took "
        f"{malformed['slowest_health_seconds']:.2f} s.",
    ]
    return "\n".join(lines) + "\n\n"


def _statuses(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} × {status}" for status, count in counts.items())


def hours_table(media: dict[str, Any], streaming: dict[str, Any]) -> str:
    """What a million hours of video would take, reckoned from what was measured."""
    results, cores = streaming["results"], int(streaming["environment"]["machine"].split()[-2])
    long = media["memory"]["30 min"]
    heavy = max(r["cpu"] for r in media["results"].values())
    clips = HOURS * 3600 * long["utterances"] / long["seconds"]
    stages = [
        ("extract, small pictures (352x288)", HOURS * long["cpu"] / long["seconds"]),
        ("extract, large pictures (1280x720)", HOURS * heavy),
        ("train, one epoch", clips / results["train"]["clips_per_second"] * cores / 3600),
        ("predict, one seed", clips / results["predict"]["clips_per_second"] * cores / 3600),
        ("read once, cold", clips / results["cold"]["clips_per_second"] * cores / 3600),
    ]
    terabytes = clips * results["plant"]["gigabytes"] / streaming["settings"]["clips"] / 1e3
    lines = [
        f"{HOURS:,} hours are {clips / 1e9:.1f} thousand million utterances at the rate of the "
        f"half-hour recording ({long['utterances']} in {long['seconds'] / 60:.0f} minutes), and "
        f"{terabytes:.0f} TB of features in MOSEI's widths as float16, 50 steps each.",
        "",
        f"| stage | core-hours | machines of {CORES} cores for {DAYS} days |",
        "|---|---:|---:|",
    ]
    for name, hours in stages:
        machines = -(-hours // (CORES * 24 * DAYS))
        lines.append(f"| {name} | {hours:,.0f} | {machines:,.0f} |")
    lines += [
        "",
        f"Reckoned from `{media['command']}` and `{streaming['command']}`, on {cores} cores that "
        "did other work meanwhile, and as if machines shared the work perfectly: orders of size.",
    ]
    return "\n".join(lines) + "\n\n"


if __name__ == "__main__":
    render()
