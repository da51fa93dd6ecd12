"""A script that trains every model with the processes it was started with: CORPUS OUT."""

import sys

import mmcl
from mmcl.config import model_names, resolve_config

SETTINGS = (
    "learning.epochs=1",
    "learning.batch_size=6",
    "runtime.threads=1",
    "runtime.devices=2",
)

if __name__ == "__main__":
    corpus = mmcl.load_corpus(sys.argv[1])
    for name in model_names():
        config = resolve_config(model=name, overrides=SETTINGS)
        mmcl.train(corpus, config, out=f"{sys.argv[2]}/{name}")
