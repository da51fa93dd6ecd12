"""The comparisons, ablations and explanations whose tables stand in docs/results.

Each experiment is an ``mmcl`` command; this script runs those asked for, keeps their result in
benchmarks/results, and writes the tables (readme.py) from the newest file of each. A
command that was interrupted goes on where it was.

    python benchmarks/comparisons.py planted ablation            (an hour and a half on 2 cores)
    python benchmarks/comparisons.py ravdess mmmo mmmo-published  (needs MMCL_REAL_DATA)
    python benchmarks/comparisons.py --render
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import NamedTuple

from kept import keep
from mmcl.cli.main import main as mmcl
from readme import render

ROOT = Path(__file__).parents[1]
REAL_DATA = "MMCL_REAL_DATA"
MMMO = "$MMCL_REAL_DATA/mmmo/mmmo_{}.pkl.gz"


class Experiment(NamedTuple):
    """One command on one corpus.

    Attributes:
        command: ``compare``, ``ablate`` or ``explain``.
        corpus: Path; ``$MMCL_REAL_DATA`` stands for the folder of real data.
        words: What the command is given beside the corpus and the folder.
        run: Of the experiment whose ``calibrated`` is explained, or of another model of it.
    """

    command: str
    corpus: str
    words: tuple[str, ...] = ()
    run: str = ""


PLANTED = "runs/bench/planted.arrow"
UNALIGNED = "runs/bench/planted-unaligned.arrow"
RAVDESS = "$MMCL_REAL_DATA/ravdess/ravdess_av.pkl.gz"
_RAVDESS = ("--config", "benchmarks/configs/ravdess.toml", "--seeds", "5")
_MMMO = ("--config", "benchmarks/configs/mmmo.toml", "--seeds", "10")
EXPERIMENTS = {
    "planted": Experiment("compare", PLANTED, ("--seeds", "3")),
    "planted-unaligned": Experiment("compare", UNALIGNED, ("--seeds", "3")),
    "ablation": Experiment("ablate", PLANTED, ("--seeds", "3")),
    "ablation-unaligned": Experiment("ablate", UNALIGNED, ("--seeds", "3")),
    "ravdess": Experiment("compare", RAVDESS, _RAVDESS),
    "mmmo": Experiment("compare", MMMO.format("3modal_resplit"), _MMMO),
    "mmmo-published": Experiment(
        "compare", MMMO.format("published_split"), (*_MMMO, "--models", "calibrated,released")
    ),
    "explanation": Experiment("explain", PLANTED, run="planted/models/calibrated"),
    "explanation-released": Experiment("explain", PLANTED, run="planted/models/released"),
    "explanation-ravdess": Experiment("explain", RAVDESS, run="ravdess/models/calibrated"),
}
PLANT = {PLANTED: "--aligned", UNALIGNED: "--unaligned"}
RESULT = {"compare": "comparison.json", "ablate": "comparison.json", "explain": "explanation.json"}


def main() -> int:
    """Run the experiments asked for, then render the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="EXPERIMENT", help=", ".join(EXPERIMENTS))
    parser.add_argument("--render", action="store_true", help="Only write the tables.")
    chosen = parser.parse_args()
    os.chdir(ROOT)
    unknown = set(chosen.names) - set(EXPERIMENTS)
    if unknown:
        parser.error(f"unknown: {sorted(unknown)}; known: {', '.join(EXPERIMENTS)}")
    for name in chosen.names:
        run(name, EXPERIMENTS[name])
    render()
    return 0


def run(name: str, experiment: Experiment) -> None:
    """Run one experiment and keep its result, in place of its older ones."""
    if "$" in experiment.corpus and REAL_DATA not in os.environ:
        sys.exit(f"{name} needs the folder of real data in {REAL_DATA}")
    corpus = os.path.expandvars(experiment.corpus)
    if experiment.corpus in PLANT and not Path(corpus).exists():
        call("corpus", "plant", corpus, PLANT[experiment.corpus])
    out = Path("runs/bench") / name
    given = (f"runs/bench/{experiment.run}", corpus) if experiment.run else (corpus,)
    call(experiment.command, *given, "--out", str(out), *experiment.words)
    text = (out / RESULT[experiment.command]).read_text()
    keep(f"result.{name}", json.loads(without_place(text)))


def call(*words: str) -> None:
    """Call ``mmcl``; stop where it fails."""
    print("$ mmcl", *words, flush=True)
    sys.argv = ["mmcl", *words]  # what a result keeps as its command
    code = mmcl(words)
    if code:
        sys.exit(code)


def without_place(text: str) -> str:
    """A result without the place of the real data on this machine."""
    place = os.environ.get(REAL_DATA)
    return text.replace(place, f"${REAL_DATA}") if place else text


if __name__ == "__main__":
    sys.exit(main())
