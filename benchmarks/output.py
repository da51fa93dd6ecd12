"""The option ``--out`` of every measurement: where its result goes.

``benchmarks/results.py`` keeps it (with ``kept.py``) beside the commit, the machine and the date.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def add_out(parser: argparse.ArgumentParser) -> None:
    """Add the option."""
    parser.add_argument("--out", type=Path, help="write the result to this file")


def write(content: dict[str, Any], path: Path | None) -> None:
    """Write a result, if a file was named for it."""
    if path is not None:
        path.write_text(json.dumps(content, indent=1) + "\n")
