"""Kept results: one summary per step in ``benchmarks/results``, and whether it is of this code."""

from __future__ import annotations

import ast
import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mmcl.runtime import environment

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "benchmarks/results"
DIGITS = 6
"""Significant digits of a kept number: more than a table prints."""


def keep(
    name: str,
    content: dict[str, Any],
    *,
    seconds: float,
    seeds: Sequence[int] = (),
    folder: Path = FOLDER,
) -> Path:
    """Write the result of a step, in place of the older one, with what it was made by.

    Args:
        name: Name of the step and of the file.
        content: What was measured.
        seconds: Time it took.
        seeds: Seeds of the trainings, if there are any.
        folder: Where to write to.
    """
    about = environment()
    head = {
        "command": f"python benchmarks/results.py {name}",
        "commit": source_commit(),
        "date": str(datetime.now(UTC).date()),
        **{key: about[key] for key in ("machine", "python", "versions")},
        "seconds": round(seconds),
        "seeds": list(seeds),
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(as_text({**head, **content}))
    return path


def kept(name: str, folder: Path = FOLDER) -> dict[str, Any] | None:
    """Return the result of a step, or None."""
    path = folder / f"{name}.json"
    content: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
    return content


def as_text(content: dict[str, Any]) -> str:
    """Return a result as JSON: numbers with :data:`DIGITS` digits, a list of them on one line."""
    text = json.dumps(_rounded(content), indent=1)
    flat = re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", lambda m: f"[{' '.join(m[1].split())}]", text)
    return flat + "\n"


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    return value


def source_commit() -> str:
    """Return the last commit that changed ``src``."""
    return last_commit("src")


def last_commit(*paths: str) -> str:
    """Return the last commit that changed some files."""
    return _git("log", "-1", "--format=%H", "--", *paths)


def uncommitted() -> list[str]:
    """Return the files of the code that differ from their commit; kept results do not count."""
    paths = ("src", "benchmarks", "constraints.txt", ":!benchmarks/results")
    return _git("status", "--porcelain", "--", *paths).splitlines()


def has_history(commit: str) -> bool:
    """Return whether git knows a commit; a shallow clone lacks older ones."""
    command = ["git", "cat-file", "-e", f"{commit}^{{commit}}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0


def is_of_this_code(content: Mapping[str, Any], depends: Sequence[str]) -> bool:
    """Return whether the code that a result depends on does the same as at its commit.

    The files of its commit are compared with those of the working tree, so that a change counts
    before it is committed, and one that was taken back does not. Comments, docstrings and
    formatting do not count.
    """
    if content.get("uncommitted"):
        return False
    if not has_history(content["commit"]):
        raise RuntimeError(f"git does not know commit {content['commit']}: fetch the history")
    changed = _git("diff", "--name-only", "--no-renames", content["commit"], "--", *depends)
    return all(_does_the_same(path, content["commit"]) for path in changed.splitlines())


def _does_the_same(path: str, commit: str) -> bool:
    """Return whether a file that has changed since a commit is Python code that does the same."""
    now = ROOT / path
    if not path.endswith(".py") or not now.exists() or not _git("ls-tree", commit, "--", path):
        return False
    return code_alone(now.read_text()) == code_alone(_git("show", f"{commit}:{path}"))


def code_alone(source: str) -> str:
    """Return a form of Python code to compare it by, without comments and docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            # A string that stands alone, also below a constant or a field, is a docstring.
            node.body = [line for line in node.body if not _is_prose(line)]
    return ast.dump(tree)


def _is_prose(line: ast.stmt) -> bool:
    return (
        isinstance(line, ast.Expr)
        and isinstance(line.value, ast.Constant)
        and isinstance(line.value.value, str)
    )


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()
