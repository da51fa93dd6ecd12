"""Accuracy of both variants: the experiments whose tables stand in the README.

Each experiment is an ``mmcl`` command; this script runs those asked for, gathers their
metrics.json into one file of benchmarks/results, and writes the README's tables (readme.py)
from the newest file of each experiment. Runs that were interrupted go on where they were.

    python benchmarks/accuracy.py planted planted-unaligned
    python benchmarks/accuracy.py ravdess mmmo mmmo-published      (needs MMCL_REAL_DATA)
    python benchmarks/accuracy.py --render
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from mmcl.cli.main import main as mmcl
from mmcl.runtime import environment
from mmcl.types import VARIANTS
from readme import render

HERE = Path(__file__).parent
ROOT = HERE.parent
REAL_DATA = "MMCL_REAL_DATA"


class Experiment(NamedTuple):
    """One corpus, both variants, several seeds.

    Attributes:
        title: Heading of the table.
        corpus: Path; ``$MMCL_REAL_DATA`` stands for the folder of real data.
        seeds: As ``mmcl train`` takes them.
        config: Preset or file.
        shown: Metrics of the table.
        plant: Arguments that plant the corpus first; empty where it exists.
    """

    title: str
    corpus: str
    seeds: str
    config: str
    shown: tuple[str, ...]
    plant: tuple[str, ...] = ()


TEN = ",".join(map(str, range(1, 11)))
PLANTED = ("mae", "corr", "acc2_non0", "acc7", "common_auroc", "action_auroc")
SCORES = ("mae", "corr", "acc2_has0", "acc2_non0")
EXPERIMENTS = {
    "planted": Experiment(
        "Planted, aligned (2000/400/600 clips)",
        "runs/bench/planted.arrow",
        "1,2,3",
        "planted",
        PLANTED,
        ("--aligned",),
    ),
    "planted-unaligned": Experiment(
        "Planted, not aligned (places and lengths differ between modalities)",
        "runs/bench/planted-unaligned.arrow",
        "1,2,3",
        "planted",
        PLANTED,
        ("--unaligned",),
    ),
    "ravdess": Experiment(
        "RAVDESS, 8 classes, unseen actors (960/180/300 clips)",
        "$MMCL_REAL_DATA/ravdess/ravdess_av.pkl.gz",
        "1,2,3,4,5",
        "benchmarks/configs/ravdess.toml",
        ("accuracy", "f1_weighted", "uar"),
    ),
    "mmmo": Experiment(
        "ICT-MMMO, three modalities (72/18/30 clips)",
        "$MMCL_REAL_DATA/mmmo/mmmo_3modal_resplit.pkl.gz",
        TEN,
        "benchmarks/configs/mmmo.toml",
        SCORES,
    ),
    "mmmo-published": Experiment(
        "ICT-MMMO, published split (220/40/80 clips; the training clips have no text)",
        "$MMCL_REAL_DATA/mmmo/mmmo_published_split.pkl.gz",
        TEN,
        "benchmarks/configs/mmmo.toml",
        SCORES,
    ),
}


def main() -> int:
    """Run the experiments asked for, then render the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="EXPERIMENT", help=", ".join(EXPERIMENTS))
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--render", action="store_true", help="Only write the README's tables.")
    chosen = parser.parse_args()
    os.chdir(ROOT)
    unknown = set(chosen.names) - set(EXPERIMENTS)
    if unknown:
        parser.error(f"unknown: {sorted(unknown)}; known: {', '.join(EXPERIMENTS)}")
    for name in chosen.names:
        run(name, EXPERIMENTS[name], chosen.variants.split(","))
    render()
    return 0


def run(name: str, experiment: Experiment, variants: list[str]) -> None:
    """Train every variant and save what it came to."""
    if "$" in experiment.corpus and REAL_DATA not in os.environ:
        sys.exit(f"{name} needs the folder of real data in {REAL_DATA}")
    corpus = os.path.expandvars(experiment.corpus)
    if experiment.plant:
        call("corpus", "plant", corpus, *experiment.plant)
    results: dict[str, Any] = {}
    commands: dict[str, str] = {}
    for variant in variants:
        out = f"runs/bench/{name}-{variant}"
        words = ("train", "{corpus}", "--out", out, "--model", variant)
        words = (*words, "--seeds", experiment.seeds, "--config", experiment.config)
        commands[variant] = "mmcl " + " ".join(words).format(corpus=experiment.corpus)
        call(*(corpus if word == "{corpus}" else word for word in words), "--resume")
        results[variant] = json.loads(Path(out, "metrics.json").read_text())
    save(name, commands, results)


def call(*words: str) -> None:
    """Call ``mmcl``; stop where it fails."""
    print("$ mmcl", *words, flush=True)
    code = mmcl(words)
    if code:
        sys.exit(code)


def save(name: str, commands: dict[str, str], results: dict[str, Any]) -> None:
    """Write the results of one experiment with the machine, replacing its older ones.

    A variant that was not run stays as it was, with the commit it was trained at.
    """
    about = environment()
    folder = HERE / "results"
    folder.mkdir(exist_ok=True)
    older = sorted(folder.glob(f"????-??-??-*-accuracy.{name}.json"))
    content = json.loads(older[-1].read_text()) if older else {"results": {}, "commands": {}}
    commits = content.get("commits") or dict.fromkeys(
        content["results"], content.get("environment", {}).get("commit")
    )
    for path in older:
        path.unlink()
    everything = {**content["results"], **results}
    content = {
        "title": EXPERIMENTS[name].title,
        "shown": EXPERIMENTS[name].shown,
        "commands": {**content["commands"], **commands},
        "commits": {**commits, **dict.fromkeys(results, about["commit"])},
        "results": {variant: everything[variant] for variant in VARIANTS if variant in everything},
        "environment": about,
    }
    path = folder / f"{datetime.now(UTC).date()}-{about['commit']}-accuracy.{name}.json"
    path.write_text(json.dumps(content, indent=2) + "\n")
    print(path)


if __name__ == "__main__":
    sys.exit(main())
