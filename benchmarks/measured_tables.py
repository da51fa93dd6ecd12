"""Tables of measurements that are no trainings: speed, memory, recordings, the service."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from mmcl.types import VARIANTS

HOURS = 1_000_000
DAYS = 30
CORES = 64
"""Cores of the machine for which the time of a great deal of video is computed."""

ONE_THREAD = {
    ("train", "default"): 11.0,
    ("train", "calibrated128"): 4.6,
    ("predict", "default"): 5.5,
    ("predict", "calibrated128"): 2.2,
}
"""The goal for each ratio of ``python benchmarks/speed.py --one-thread``."""
ONE_THREAD_NAMES = {"default": "default (width 64)", "calibrated128": "calibrated (width 128)"}
"""Names of the two configurations in the table of these ratios."""


def one_thread_lines(content: dict[str, Any]) -> list[str]:
    """How many times faster than plain torch on one thread, beside the goal."""
    lines = [
        "How many times less CPU time than the authors' loop, both on one thread; the tables "
        "above use all cores (`python benchmarks/speed.py --one-thread --json ratios.json`):",
        "",
        "| | goal | measured | |",
        "|---|---:|---:|---|",
    ]
    for (step, name), goal in ONE_THREAD.items():
        measured = content[step][f"{name}_over_plain"]
        verdict = "met" if measured >= goal else "**not met**"
        title = f"{step}, {ONE_THREAD_NAMES[name]}"
        lines.append(f"| {title} | {goal:g} times | {measured:g} times | {verdict} |")
    return lines


def speed_table(content: dict[str, Any]) -> str:
    """Clips per second beside the floor and beside plain torch."""
    rate, reference = content["matrix_product_flops_per_second"], content["reference"]
    plain = reference["predict_clips_per_second"]
    lines = [
        "Planted clips, 20 steps of 300/74/35 features, float32.",
        "",
        "- **Floor**: the counted operations over the rate of a large matrix product, measured in "
        f"the same round ({rate['median'] / 1e9:.0f} GFLOP/s, {rate['least'] / 1e9:.0f} to "
        f"{rate['most'] / 1e9:.0f}). Compare ratios: absolute rates drift.",
        "- **Steps kept** and **MFLOP/clip** change while the policies learn to drop steps: first "
        "round to last. The gate of `released` is soft: its mean action stands for the steps kept.",
        "- **Plain torch** is the authors' loop as `benchmarks/reference.py` writes it, width 128: "
        f"{reference['train_clips_per_second']['median']:.0f} clips/s in training, "
        + " and ".join(f"{rates['median']:.0f} in batches of {n}" for n, rates in plain.items())
        + " in prediction.",
        "",
        "| training | width, batch | clips/s | steps kept | MFLOP/clip | share of floor "
        "| times released | times plain torch |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    ratios = content["ratios"]
    for name, found in content["configurations"].items():
        each, over = found["train"], ratios["train"][name]
        kept = _from_to(each["share_kept"], "{:.0%}")
        counted = _from_to(each["mflop_per_clip"], "{:.1f}")
        lines.append(
            f"| {name} | {found['width']}, {found['batch_size']} | "
            f"{each['clips_per_second']['median']:.0f} | {kept} | {counted} | "
            f"{each['share_of_floor']['median']:.0%} | {over['released']['median']:.2f} | "
            f"{over['reference']['median']:.2f} |"
        )
    lines += [
        "",
        f"| prediction, batches of {content['settings']['predict_batch']} | clips/s | steps kept "
        "| MFLOP/clip | share of floor | times plain torch | one clip, one thread, ms |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, found in content["configurations"].items():
        for precision, over in ratios["predict"][name].items():
            each = found["predict"][precision]
            lines.append(
                f"| {name}, {precision} | {each['clips_per_second']['median']:.0f} | "
                f"{found['predict']['share_kept']:.0%} | {each['mflop_per_clip']:.1f} | "
                f"{each['share_of_floor']['median']:.0%} | {over['median']:.2f} | "
                f"{found['one_clip_ms']['median']:.2f} |"
            )
    if "one_thread" in content:  # not in a quick run
        lines += ["", *one_thread_lines(content["one_thread"])]
    return "\n".join(lines)


def _from_to(found: dict[str, float], form: str) -> str:
    first, last = form.format(found["first"]), form.format(found["last"])
    return first if first == last else f"{first} to {last}"


def media_table(content: dict[str, Any]) -> str:
    """Seconds of every stage of extraction, and how right it was."""
    results = content["results"]
    stages = [stage for stage in next(iter(results.values()))["stages"] if stage != "align"]
    lines = [
        "Seconds per second of recording, models loaded (load of the machine before: "
        f"{content['load'][0]}). Wall clock: the median of {content['rounds']} rounds; CPU time: "
        "all threads, least of the rounds.",
        "",
        f"| recording | {' | '.join(stages)} | wall clock | goal | CPU time | frames with a face |",
        "|---" * (len(stages) + 5) + "|",
    ]
    for name, r in results.items():
        cells = [f"{r['stages'][stage]:.3f}" for stage in stages]
        each = r["seconds"] / r["recordings"]
        lines.append(
            f"| {name}, {r['recordings']} × {each:.0f} s, {r['size']} | {' | '.join(cells)} | "
            f"**{r['wall']:.2f}** | {r['asked']:.2f} | {r['cpu']:.2f} | {r['face_share']:.0%} |"
        )
    return "\n".join([*lines, "", *_media_notes(content)])


def _media_notes(content: dict[str, Any]) -> list[str]:
    error = content["align_error"]
    lines = [
        "- Word error rate on GRID, a corpus of read sentences: "
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
        f"A run of {content['networks']} seeds, clips of 20 steps, clients on the same machine "
        f"(load before: {content['load']:.1f}). Medians of {len(rounds)} rounds.",
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
        f"- All clients together get {median(ratios):.1f} times as many answers per second as one "
        f"(median of the rounds, {min(ratios):.1f} to {max(ratios):.1f}).",
        f"- From the command to the first prediction: {start['features']:.1f} s for features, "
        f"{start['recording']:.1f} s for a recording. Memory at rest, all processes: "
        f"{start['memory_mib']:.0f} MiB.",
        f"- Memory of all processes after {held[0][0]} and {held[-1][0]} requests: "
        f"{held[0][1]:.0f} and {held[-1][1]:.0f} MiB.",
        f"- Malformed recordings: {refused}. Damaged ones that FFmpeg decodes without an error: "
        f"{harmless or 'none'}. The slowest `/healthz` meanwhile took "
        f"{malformed['slowest_health_seconds']:.2f} s.",
    ]
    return "\n".join(lines)


def _statuses(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} × {status}" for status, count in counts.items())


def hours_table(media: dict[str, Any], streaming: dict[str, Any]) -> str:
    """Time for a million hours of video, computed from the measurements."""
    results, cores = streaming["results"], int(streaming["machine"].split()[-2])
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
        f"{HOURS:,} hours are {clips / 1e9:.1f} billion utterances at the rate of the "
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
        f"Estimated from both, on {cores} cores, as if machines shared the work perfectly: read it "
        "as orders of magnitude.",
    ]
    return "\n".join(lines)


PHASES_HEAD = (
    "| part | ms a batch | of the time | MFLOP a batch | MB a batch | floor, ms | share of floor |",
    "|---|---:|---:|---:|---:|---:|---:|",
)


def phases_table(content: dict[str, Any]) -> str:
    """Every part of a step, and clips per second over lengths, widths and batches."""
    size, rates = content["size"], content["rates"]
    lines = [
        f"Width {size['width']}, {size['steps']} steps, batch {size['batch']}, features of "
        f"300/74/35, random; all on {content['threads']} thread, so that every part happens where "
        f"it is timed ({rates['flops_per_second'] / 1e9:.0f} GFLOP/s, "
        f"{rates['bytes_per_second'] / 1e9:.0f} GB/s). Median of "
        f"{content['settings']['rounds']} steps.",
        "",
    ]
    for variant, by_step in content["parts"].items():
        for step, rows in by_step.items():
            total = sum(row["seconds"] for row in rows.values())
            lines += [f"**{variant}, {step}**: {1e3 * total:.0f} ms a batch", "", *PHASES_HEAD]
            lines += [_part_row(name, row, total) for name, row in rows.items()]
            lines.append("")
    for name, points in content["curves"].items():
        lines += _curve_lines(name, points)
    return "\n".join([*lines, "![Cost against length](cost-by-length.svg)"])


def _part_row(name: str, row: dict[str, float], total: float) -> str:
    return (
        f"| {name} | {1e3 * row['seconds']:.1f} | {row['seconds'] / total:.0%} | "
        f"{row['operations'] / 1e6:,.0f} | {row['bytes'] / 1e6:,.0f} | "
        f"{1e3 * row['floor_seconds']:.1f} | {row['share_of_floor']:.0%} |"
    )


def _curve_lines(name: str, points: list[dict[str, Any]]) -> list[str]:
    key = {"length": "steps"}.get(name, name)
    series = [(v, step) for v in VARIANTS for step in ("train", "predict")]
    heads = " | ".join(f"{variant}, {step}" for variant, step in series)
    same = {k: points[0][k] for k in ("steps", "width", "batch") if k != key}
    lines = [
        "Clips per second, " + ", ".join(f"{k} {v}" for k, v in same.items()) + ":",
        "",
        f"| {key} | {heads} |",
        "|---:" * (len(series) + 1) + "|",
    ]
    for point in points:
        cells = " | ".join(f"{point[variant][step]:,.1f}" for variant, step in series)
        lines.append(f"| {point[key]} | {cells} |")
    return [*lines, ""]


def export_table(content: dict[str, Any]) -> str:
    """One clip through torch and through onnxruntime."""
    settings = content["settings"]
    lines = [
        f"One clip of {settings['steps']} steps, features of 768/74/35, one thread, medians of "
        f"{settings['rounds']} rounds.",
        "",
        "| corpus | width | torch, ms | onnxruntime, ms | times as fast (least to most) |",
        "|---|---:|---:|---:|---:|",
    ]
    for found in content["results"]:
        ratio = found["ratio"]
        lines.append(
            f"| {'aligned' if found['aligned'] else 'not aligned'} | {found['width']} | "
            f"{found['torch_ms']:.2f} | {found['onnxruntime_ms']:.2f} | "
            f"{ratio['median']:.1f} ({ratio['least']:.1f} to {ratio['most']:.1f}) |"
        )
    return "\n".join(lines)


def long_sequences_table(content: dict[str, Any]) -> str:
    """An epoch of long clips that are not aligned, and how a step grows with the length."""
    epoch = content["epoch"]
    text, audio, vision = epoch["steps"]
    lines = [
        f"One epoch with validation, text {text}, audio {audio}, vision {vision} steps, 32 clips a "
        f"batch: {epoch['resident_mib']['own']:,} MiB above the loaded libraries and the network "
        f"({epoch['resident_mib']['with_libraries']:,} MiB in all), "
        f"{epoch['clips_per_second']:.1f} clips/s. Steps of eight clips, all modalities of one "
        "length; an exponent of 1 is linear.",
        "",
        "| steps per modality | seconds | MiB | exponent of time | exponent of memory |",
        "|---:|---:|---:|---:|---:|",
    ]
    growth = content["exponents"]
    powers = [("", ""), *zip(growth["seconds"], growth["resident_mib"], strict=True)]
    for (length, found), (time, memory) in zip(content["by_length"].items(), powers, strict=True):
        lines.append(
            f"| {length} | {found['seconds']:.2f} | {found['resident_mib']:,} | {time} | {memory} |"
        )
    return "\n".join(lines)


def processes_table(content: dict[str, Any]) -> str:
    """One network by two processes, and four seeds at once."""
    losses, at_once = content["validation_loss"], content["seeds_at_once"]
    (few, slow), (many, fast) = sorted(at_once["seconds"].items())
    lines = [
        "| processes | best validation loss by seed | mean | seconds, all seeds |",
        "|---:|---|---:|---:|",
    ]
    for devices, values in losses["by_devices"].items():
        each = ", ".join(f"{value:.4f}" for value in values)
        mean = sum(values) / len(values)
        lines.append(f"| {devices} | {each} | {mean:.4f} | {losses['seconds'][devices]:.0f} |")
    lines += [
        "",
        f"- Two processes over one, mean validation loss: {losses['two_over_one']:.3f}.",
        f"- Four seeds, `--workers {many}` over `--workers {few}`: {fast:.0f} s over {slow:.0f} s, "
        f"{at_once['ratio']:.2f}.",
    ]
    return "\n".join(lines)


def streaming_table(content: dict[str, Any]) -> str:
    """Rate and memory of every stage on a corpus that is read from disk."""
    settings, results = content["settings"], content["results"]
    lines = [
        f"{settings['clips']:,} clips of 50 steps, features of 300/74/35, float16: "
        f"{results['plant']['gigabytes']:.1f} GB on disk. Memory is what a stage adds to the "
        "loaded libraries and the network: in all, and of its own (the rest is the mapped file).",
        "",
        "| stage | clips/s | MiB in all | MiB of its own |",
        "|---|---:|---:|---:|",
    ]
    for stage, found in results.items():
        memory = found["resident_mib"]
        lines.append(
            f"| {STAGES[stage]} | {found['clips_per_second']:,.0f} | {memory['total']:,} | "
            f"{memory['own']:,} |"
        )
    return "\n".join(lines)


STAGES = {
    "plant": "plant",
    "cold": "read one epoch, not in the system's cache",
    "warm": "read one epoch, in the cache",
    "train": "train",
    "predict": "predict",
}


def finetune_table(content: dict[str, Any]) -> str:
    """Clips per second of fine-tuning an encoder, beside plain loops."""
    rates, ratios = content["clips_per_second"], content["ratios"]
    lines = [
        f"{content['settings']['clips']} reviews of random words, batches of "
        f"{content['settings']['batch']}, the packaged encoder, medians of "
        f"{content['settings']['rounds']} rounds.",
        "",
        "| | reviews/s | mmcl over it |",
        "|---|---:|---:|",
        f"| mmcl | {rates['mmcl']:.1f} | |",
        f"| plain loop over sentences of like length | {rates['sorted']:.1f} | "
        f"{ratios['mmcl/sorted']:.2f} |",
        f"| plain loop, padded to {content['settings']['padded']} pieces | {rates['padded']:.1f} | "
        f"{ratios['mmcl/padded']:.2f} |",
    ]
    return "\n".join(lines)


MEASURED: dict[str, Callable[[dict[str, Any]], str]] = {
    "speed": speed_table,
    "phases": phases_table,
    "export": export_table,
    "long-sequences": long_sequences_table,
    "processes": processes_table,
    "streaming": streaming_table,
    "finetune": finetune_table,
    "media": media_table,
    "service": service_table,
}
"""Tables by the name of their step."""


def draw(points: list[dict[str, Any]], width: int, path: Path) -> None:
    """Milliseconds a clip against the number of steps, both axes logarithmic."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "mmcl"
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4.0))
    lengths = [p["steps"] for p in points]
    for name, colour in zip(VARIANTS, ("#0b7a5e", "#7b4fa3"), strict=True):
        for step, style in (("train", "-"), ("predict", "--")):
            cost = [1e3 / p[name][step] for p in points]
            axes.plot(lengths, cost, style, color=colour, marker="o", label=f"{name}, {step}")
    axes.set(xscale="log", yscale="log", xlabel="steps per modality", ylabel="ms per clip")
    axes.set_title(f"Cost against length, width {width}, one thread")
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
