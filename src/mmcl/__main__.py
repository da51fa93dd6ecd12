"""``python -m mmcl``: the command, for those who start it by module, as ``torchrun`` does."""

import sys

from mmcl.cli.main import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
