"""A script that trains every model with the processes it was started with: CORPUS OUT."""

import sys
from pathlib import Path

import mmcl
from mmcl.cli.main import main

TESTS = Path(__file__).parents[1]

if __name__ == "__main__":
    sys.path.insert(0, str(TESTS))
    from laws.battery import NAMES, small_config

    corpus, out = mmcl.load_corpus(sys.argv[1]), Path(sys.argv[2])
    for name in NAMES:
        config = small_config(name, learning__epochs=1, learning__batch_size=6, runtime__devices=2)
        mmcl.train(corpus, config, out=out / name, seeds=(1, 2) if name == NAMES[0] else (1,))
    # What the first process refuses, all of them must hear of.
    settings = ("--set", "runtime.devices=2", "--set", "runtime.threads=1")
    sys.exit(main(["train", sys.argv[1], "--out", str(out / name), *settings]))
