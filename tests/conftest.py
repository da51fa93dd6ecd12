"""Conditions of every test: quiet threads, no network, and a planted corpus of forty clips."""

import os
import socket
import sys
from multiprocessing import forkserver

import pytest

# Read when torch is imported, so set before any test module can import it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
os.environ["HF_HUB_OFFLINE"] = "1"

OF_WORKERS = (
    *("mmcl.runs.jobs", "mmcl.runs.search", "mmcl.runs.prediction_blocks", "mmcl.media.batch"),
    *("mmcl.serve.feature_worker", "mmcl.serve.recording_worker"),
    *("lightning_fabric", "optuna", "pandas"),
)
LOOPBACK = ("127.", "::1", "localhost")


class NetworkError(RuntimeError):
    """A test tried to reach another machine."""


def _is_near(address):
    return not isinstance(address, tuple) or str(address[0]).startswith(LOOPBACK)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Put the files that start processes first, whatever order the plugins have chosen.

    They take longest: otherwise one worker is still at one of them when the others have ended.
    """
    items.sort(key=lambda item: "flow" not in item.path.parts)


@pytest.fixture(scope="session", autouse=True)
def no_network():
    """Let a test reach this machine alone."""

    def guarded(original):
        def connect(self, address):
            if not _is_near(address):
                raise NetworkError(f"a test may not reach {address!r}")
            return original(self, address)

        return connect

    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, guarded(getattr(socket.socket, name)))
        yield


@pytest.fixture(scope="session", autouse=True)
def one_fork_server():
    """Let the fork server of this process import what any of its workers will need, once.

    The first worker of a process starts the server. If that was a stand-in's, every worker of a
    training or a service would import torch itself: five seconds each.
    """
    original = forkserver.set_forkserver_preload
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            forkserver, "set_forkserver_preload", lambda names: original([*names, *OF_WORKERS])
        )
        yield


@pytest.fixture(autouse=True)
def torch_as_before():
    """One thread, since the tensors are tiny, and no setting that outlives its test."""
    torch = sys.modules.get("torch")
    if torch is None:  # a test that imports it itself, or needs it not
        yield
        return
    strict = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(strict, warn_only=warn_only)


@pytest.fixture(scope="session")
def tiny_settings():
    """How :func:`tiny_corpus` is planted."""
    from mmcl.corpus.plant import PlantSettings

    return PlantSettings(train=24, valid=8, test=8)


@pytest.fixture(scope="session")
def tiny_corpus(tiny_settings):
    """A planted corpus of 24, 8 and 8 clips with a score."""
    from mmcl.corpus.plant import plant_corpus

    return plant_corpus(tiny_settings)


TINY = (
    "model.width=8",
    "model.heads=2",
    "model.inner_width=8",
    "learning.epochs=2",
    "learning.batch_size=8",
    "runtime.threads=1",
)


@pytest.fixture(scope="session")
def tiny_overrides():
    """The ``--set`` of a network that trains in a fraction of a second."""
    return TINY


@pytest.fixture(scope="session")
def tiny_config():
    """Make the settings of such a network: ``tiny_config("policy.kind=task")``."""
    from mmcl.config import resolve_config

    def make(*overrides, model="calibrated"):
        return resolve_config(model=model, overrides=[*TINY, *overrides])

    return make


@pytest.fixture
def planted():
    """Plant another tiny corpus: ``planted(task="emotions", aligned=False)``."""
    from mmcl.corpus.plant import PlantSettings, plant_corpus

    def plant(**changes):
        return plant_corpus(PlantSettings(**{"train": 24, "valid": 8, "test": 8, **changes}))

    return plant
