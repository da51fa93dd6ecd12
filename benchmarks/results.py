"""Make every kept result again that is older than the code: ``make results``.

A result is one file in ``benchmarks/results``. A step whose result is of this code is skipped, and
one that was stopped goes on where it was; its trainings are in ``runs/results``, one folder for
every commit of the code. Then the pages are written (``benchmarks/pages.py``). Steps on real
corpora need the folder of them in MMCL_REAL_DATA, and are skipped without it.

    python benchmarks/results.py                  (all that are not made by name alone)
    python benchmarks/results.py ravdess speed    (these, and what they need)
    python benchmarks/results.py --list
    python benchmarks/results.py --try ravdess    (few clips, one seed, one epoch; nothing is kept)
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from corpora import REAL_DATA, Place
from kept import FOLDER, ROOT, has_history, is_of_this_code, keep, kept, last_commit, uncommitted
from pages import as_table, write_pages
from steps import STEPS


def main() -> int:
    """Make the results asked for; return 1 if a step failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="STEP")
    parser.add_argument("--list", action="store_true", help="Show the steps and their results.")
    parser.add_argument("--again", action="store_true", help="Also those that are of this code.")
    parser.add_argument("--try", action="store_true", dest="is_try", help="A few clips; keep none.")
    parser.add_argument(
        "--dirty", action="store_true", help="Allow uncommitted changes; keep nothing."
    )
    chosen = parser.parse_args()
    unknown = set(chosen.names) - set(STEPS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(STEPS)}")
    os.chdir(ROOT)
    if chosen.list:
        show()
        return 0
    changed = uncommitted()
    if changed and not (chosen.is_try or chosen.dirty):
        parser.error(
            "uncommitted changes, so no commit made the results:\n"
            + "\n".join(changed)
            + "\ncommit them, or see the numbers without keeping them: --dirty"
        )
    started = time.monotonic()
    with working_place(is_try=chosen.is_try, is_dirty=chosen.dirty) as place:
        failed = [
            name for name in ordered(chosen.names) if not done(name, place, again=chosen.again)
        ]
    if place.results == FOLDER:
        write_pages()
    print(f"all: {minutes_since(started)}")
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


@contextmanager
def working_place(*, is_try: bool, is_dirty: bool) -> Iterator[Place]:
    """Yield where the steps work: a folder of this commit, or one that goes away."""
    if not (is_try or is_dirty):
        commit = last_commit("src", "benchmarks/*.py")
        yield Place(Path("runs/results") / commit[:12], FOLDER)
        return
    with TemporaryDirectory() as folder:
        yield Place(Path(folder), Path(folder) / "kept", is_try)


def ordered(names: list[str]) -> list[str]:
    """Return steps in the order of the table, with those that they need."""
    wanted = set(names or [name for name, step in STEPS.items() if not step.by_name])
    for name in reversed(STEPS):
        if name in wanted:
            wanted |= set(STEPS[name].after)
    return [name for name in STEPS if name in wanted]


def done(name: str, place: Place, *, again: bool) -> bool:
    """Make one result, unless there is one of this code; return False if that failed."""
    step = STEPS[name]
    if missing := step.missing():
        print(f"{name}: skipped, not in {REAL_DATA}: {', '.join(missing)}", flush=True)
        return True
    if not again and state(name, place.results) == "of this code":
        print(f"{name}: skipped, its result is of this code", flush=True)
        return True
    print(f"{name}: {step.about} (about {step.minutes:g} min)", flush=True)
    started = time.monotonic()
    try:
        content = step.make(place)
    except (
        Exception
    ):  # the other steps are made all the same, and the exit code says that one failed
        traceback.print_exc()
        print(f"{name}: failed after {minutes_since(started)}", flush=True)
        return False
    finally:
        spent = seconds_spent(name, place, time.monotonic() - started)
    keep(
        name,
        content,
        seconds=spent,
        seeds=range(1, step.seeds + 1),
        folder=place.results,
    )
    if place.results != FOLDER:  # the only sight of it
        print(as_table(name, content))
    print(f"{name}: done in {minutes_since(started)}", flush=True)
    return True


def seconds_spent(name: str, place: Place, seconds: float) -> float:
    """Return the seconds of all calls that worked on a step, this one included."""
    path = place.folder / f"{name}.seconds"
    path.parent.mkdir(parents=True, exist_ok=True)
    total = seconds + (float(path.read_text()) if path.exists() else 0.0)
    path.write_text(f"{total:.1f}")
    return total


def minutes_since(started: float) -> str:
    """Return the time since as minutes."""
    return f"{(time.monotonic() - started) / 60:.1f} min"


def state(name: str, folder: Path = FOLDER) -> str:
    """Return whether there is a result of a step, and if it is of this code."""
    content = kept(name, folder)
    if content is None:
        return "none"
    if not has_history(content["commit"]):
        return "of a commit that git does not have"
    of_this_code = is_of_this_code(content, STEPS[name].depends)
    return "of this code" if of_this_code else "older than the code"


def show() -> None:
    """Print every step: what it is, what it needs, its result, and how long it takes."""
    for name, step in STEPS.items():
        needs = [
            *["to be named"] * step.by_name,
            *step.after,
            *(f"${REAL_DATA}/{path}" for path in step.missing()),
        ]
        print(f"{name:22} {step.minutes:4g} min  {state(name):20}  {step.about}")
        if needs:
            print(f"{'':33}needs {', '.join(needs)}")
    minutes = sum(STEPS[name].minutes for name in ordered([]))
    print(f"{'those not to be named':22} {minutes:4g} min on two quiet cores")


if __name__ == "__main__":
    sys.exit(main())
