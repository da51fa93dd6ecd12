"""Refuse large files in a commit: python tools/large_files.py FILE...

Corpora and weights do not belong into the repository. The starter's weights are the exception.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

LARGEST = 1024  # KiB
ALLOWED = ("src/mmcl/starter/encoder/adapter.safetensors",)


def main(files: Sequence[str]) -> int:
    """Print every file that is too large, and return 1 if there is one."""
    sizes = {name: Path(name).stat().st_size / 1024 for name in files if Path(name).is_file()}
    large = {n: s for n, s in sizes.items() if s > LARGEST and n not in ALLOWED}
    for name, size in large.items():
        print(f"{name}: {size:,.0f} KiB; a file of the repository has at most {LARGEST:,} KiB")
    return int(bool(large))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
