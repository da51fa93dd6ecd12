"""Results on the disk: one file of each kind in benchmarks/results, named by date and commit."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mmcl.runtime import environment

FOLDER = Path(__file__).parent / "results"


def keep(kind: str, content: dict[str, Any]) -> Path:
    """Write a result with the machine it is from, in place of the older one of its kind."""
    about = environment()
    FOLDER.mkdir(exist_ok=True)
    for older in _files(kind):
        older.unlink()
    path = FOLDER / f"{datetime.now(UTC).date()}-{about['commit']}-{kind}.json"
    path.write_text(json.dumps({"environment": about, **content}, indent=2) + "\n")
    print(path)
    return path


def kept(kind: str) -> dict[str, Any] | None:
    """The result of a kind, or None."""
    found = _files(kind)
    if len(found) > 1:
        raise RuntimeError(f"more than one result of {kind}: {', '.join(map(str, found))}")
    content: dict[str, Any] | None = json.loads(found[0].read_text()) if found else None
    return content


def _files(kind: str) -> list[Path]:
    return list(FOLDER.glob(f"????-??-??-*-{kind}.json"))
