"""Ray: what is asked of it, and what is said where it cannot be had; itself it is in flow."""

import os
import socket
import threading
import time
from types import SimpleNamespace

import pytest

from fakes.tasks import scale
from mmcl import extras, pool_ray
from mmcl.cli.main import main
from mmcl.errors import ConfigError, DatasetError, MissingExtraError, UsageError
from mmcl.pool import Died, check_workers, run_tasks
from mmcl.pool_ray import await_shared, check_shared


class _Error(Exception):
    def __init__(self, cause=None):
        self.cause = cause


class FakeRay:
    """Ray as far as it is used, with answers that are there at once."""

    exceptions = SimpleNamespace(
        RayTaskError=type("RayTaskError", (_Error,), {}),
        WorkerCrashedError=type("WorkerCrashedError", (_Error,), {}),
        NodeDiedError=type("NodeDiedError", (_Error,), {}),
        OutOfMemoryError=type("OutOfMemoryError", (_Error,), {}),
        RayError=type("RayError", (_Error,), {}),
    )

    def __init__(self, *, cores=(4,), gpus=0, answers=None):
        self.cores, self.gpus, self.answers = cores, gpus, answers or {}
        self.begun = self.asked = None
        self.calls, self.most, self.cancelled, self.ended = [], 0, [], 0

    def is_initialized(self):
        return False

    def init(self, **asked):
        self.asked = asked

    def shutdown(self):
        self.ended += 1

    def nodes(self):
        alive = [{"Alive": True, "Resources": {"CPU": float(each)}} for each in self.cores]
        return [*alive, {"Alive": False, "Resources": {"CPU": 64.0}}, {"Alive": True} | NO_CORES]

    def cluster_resources(self):
        return {"CPU": sum(self.cores)} | ({"GPU": self.gpus} if self.gpus else {})

    def remote(self, **given):
        self.given = given

        def of(call):
            self.call = call
            return self

        return of

    def options(self, *, name):
        self.name = name
        return SimpleNamespace(remote=self._begin)

    def _begin(self, work, task, threads):
        self.calls.append(task)
        self.running = getattr(self, "running", 0) + 1
        self.most = max(self.most, self.running)
        return (work, task, threads)

    def wait(self, references, timeout):
        return references[-1:], references[:-1]

    def get(self, reference):
        self.running -= 1
        answer = self.answers.get(reference[1])
        if answer is not None:
            raise answer
        return self.call(*reference)

    def cancel(self, reference, *, force):
        assert force
        self.cancelled.append(reference[1])


NO_CORES = {"Resources": {}}


@pytest.fixture
def fake(monkeypatch):
    """Put a fake in Ray's place: ``fake(cores=(2, 2))``."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def make(**settings):
        ray = FakeRay(**settings)
        monkeypatch.setattr(pool_ray, "_load_ray", lambda: ray)
        return ray

    return make


def test_every_task_comes_once_with_its_answer(fake):
    ray = fake(cores=(4,))
    ended = list(run_tasks(scale, [5, 7, 11, 13], workers=2, engine="ray"))
    assert sorted(ended) == [(5, 10), (7, 14), (11, 22), (13, 26)]
    assert ray.calls == [5, 7, 11, 13]
    assert (ray.most, ray.cancelled, ray.ended) == (2, [], 1)
    assert ray.name == "scale"
    assert ray.given == {
        "num_cpus": 2,
        "num_gpus": 0,
        "max_retries": 3,
        "max_calls": 0,
    }


def test_nothing_to_do_needs_no_ray(monkeypatch):
    monkeypatch.setattr(pool_ray, "_load_ray", None)
    assert list(run_tasks(scale, [], workers=2, engine="ray")) == []


def test_ray_is_asked_for_little(fake):
    ray = fake()
    list(run_tasks(scale, [1], workers=70, engine="ray"))
    assert ray.asked.pop("object_store_memory") <= 1 << 27
    assert ray.asked == {
        "address": "local",
        "num_cpus": max(70, os.cpu_count()),
        "include_dashboard": False,
        "_node_ip_address": "127.0.0.1",
        "log_to_driver": False,
        "logging_level": 40,
    }


def test_cluster_of_the_user_is_asked_for_nothing(fake, monkeypatch):
    ray = fake()
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        list(run_tasks(scale, [1], workers=2, engine="ray"))
    assert ray.asked == {"address": address, "log_to_driver": False, "logging_level": 40}
    assert (ray.calls, ray.ended) == ([1], 1)


@pytest.mark.parametrize("address", ["ray://10.0.0.1:10001", "auto", "10.0.0.1"])
def test_other_addresses_are_for_ray_to_read(fake, monkeypatch, address):
    ray = fake()
    monkeypatch.setenv("RAY_ADDRESS", address)
    list(run_tasks(scale, [1], workers=2, engine="ray"))
    assert ray.asked["address"] == address


def test_ray_of_the_caller_is_not_ended(fake, monkeypatch):
    ray = fake()
    ray.is_initialized = lambda: True
    assert list(run_tasks(scale, [3], workers=4, engine="ray")) == [(3, 3)]
    assert (ray.asked, ray.ended) == (None, 0)


def test_what_is_in_work_is_ended_by_closing(fake):
    ray = fake()
    ended = run_tasks(scale, [1, 2, 3, 4], workers=3, engine="ray")
    assert next(ended) == (3, 3)
    ended.close()
    assert (ray.cancelled, ray.ended) == ([1, 2], 1)


def test_fresh_process_and_gpu_are_asked_for(fake):
    ray = fake(gpus=1)
    list(run_tasks(scale, [1], workers=1, gpus=1, fresh=True, engine="ray"))
    assert (ray.given["max_calls"], ray.given["num_gpus"]) == (1, 1)


def test_look_is_called_at_every_turn(fake):
    fake()
    looks = []
    list(run_tasks(scale, [1, 2, 3], workers=1, look=lambda: looks.append(1), engine="ray"))
    assert len(looks) == 3


@pytest.mark.parametrize(
    ("cores", "workers", "share"),
    [
        pytest.param([16, 8], 1, 16, id="one-takes-the-largest"),
        pytest.param([16, 8], 2, 8, id="two-on-unequal-machines"),
        pytest.param([16, 8], 3, 8, id="three-thirds"),
        pytest.param([16, 8], 4, 5, id="none-across-machines"),
        pytest.param([2], 2, 1, id="one-each"),
        pytest.param([2], 9, 1, id="more-than-cores"),
        pytest.param([0], 1, 1, id="no-cores"),
        pytest.param([], 1, 1, id="no-machine"),
    ],
)
def test_share_is_the_most_with_which_all_run_at_once(cores, workers, share):
    assert pool_ray._threads_per_task(cores, workers) == share


# ---------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("WorkerCrashedError", "its process died 4 times; memory may have run out"),
        ("NodeDiedError", "its process died 4 times; memory may have run out"),
        ("OutOfMemoryError", "its process ran out of memory 4 times"),
    ],
)
def test_task_that_is_given_up_stops_no_other(fake, fault, cause):
    fake(cores=(1,), answers={2: getattr(FakeRay.exceptions, fault)()})
    assert sorted(
        run_tasks(scale, [1, 2, 3], workers=1, engine="ray"), key=lambda pair: pair[0]
    ) == [
        (1, 1),
        (2, Died(cause)),
        (3, 3),
    ]


def test_gpu_that_nobody_has(fake):
    ray = fake()
    with pytest.raises(ConfigError) as caught:
        list(run_tasks(scale, [1], workers=1, gpus=1, engine="ray"))
    assert str(caught.value) == (
        'runtime.accelerator is "gpu", but Ray knows of no GPU\n'
        "  Use the CPU: --set runtime.accelerator=cpu"
    )
    assert (ray.calls, ray.ended) == ([], 1)


def test_cluster_that_does_not_answer(fake, monkeypatch):
    ray = fake()
    monkeypatch.setenv("RAY_ADDRESS", "auto")

    def init(**_):
        raise ConnectionError("Could not find any running Ray instance.\nMore of it.")

    ray.init = init
    with pytest.raises(UsageError) as caught:
        list(run_tasks(scale, [1], workers=1, engine="ray"))
    assert str(caught.value) == (
        '--engine ray: no cluster answers at RAY_ADDRESS="auto" '
        "(Could not find any running Ray instance).\n"
        "  Start one: ray start --head; one that is there may want a token: "
        "RAY_AUTH_MODE=token\n"
        "  Work on this machine alone: unset RAY_ADDRESS"
    )


def test_machine_that_does_not_answer_is_not_waited_for(fake, monkeypatch):
    ray = fake()
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(UsageError) as caught:
        list(run_tasks(scale, [1], workers=1, engine="ray"))
    first = f'--engine ray: no cluster answers at RAY_ADDRESS="{address}" '
    assert str(caught.value).splitlines()[0] == f"{first}([Errno 111] Connection refused)."
    assert ray.asked is None


def test_ray_that_is_not_installed(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(extras, "import_module", missing)
    with pytest.raises(MissingExtraError) as caught:
        list(run_tasks(scale, [1], workers=1, engine="ray"))
    assert str(caught.value) == (
        '--engine ray needs ray, which is not installed.\n  Install it: pip install "mmcl[scale]"'
    )


SHARED = (
    "  With --engine ray what is read and written must lie where every machine sees it under one "
    "path.\n  Work on this machine alone: --engine local"
)


def test_file_that_a_machine_does_not_see(tmp_path):
    check_shared(tmp_path)
    with pytest.raises(DatasetError) as caught:
        check_shared(tmp_path / "a.arrow")
    where = socket.gethostname()
    assert str(caught.value) == (
        f"{tmp_path}/a.arrow: not found on {where}, where a task needed it.\n{SHARED}"
    )


def test_file_that_another_machine_wrote_is_waited_for(tmp_path):
    late = threading.Timer(0.3, (tmp_path / "b").touch)
    late.start()
    started = time.monotonic()
    await_shared(tmp_path / "a", tmp_path / "b", seconds=30)
    assert time.monotonic() - started > 0.2
    late.join()


def test_file_that_never_comes(tmp_path):
    with pytest.raises(DatasetError) as caught:
        await_shared(tmp_path / "a", tmp_path / "b", seconds=0.2)
    assert str(caught.value) == (
        f"{tmp_path}/a: was written by a task, and is not seen on {socket.gethostname()}.\n{SHARED}"
    )


@pytest.mark.parametrize(("cores", "found"), [(1, "1 core"), (2, "2 cores")])
def test_more_workers_than_cores_are_refused_where_they_would_share_them(monkeypatch, cores, found):
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    check_workers(cores)
    check_workers(cores + 1, "ray")  # Ray counts the cores of all machines
    with pytest.raises(UsageError) as caught:
        check_workers(cores + 1)
    assert str(caught.value) == (
        f"--workers is {cores + 1}, but this machine has {found}: each process needs one\n"
        f"  Use: --workers {cores}"
    )


@pytest.mark.parametrize("command", ["compare", "ablate", "extract", "train", "tune"])
def test_commands_refuse_more_workers_than_cores(monkeypatch, tmp_path, capsys, command):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    planted = tmp_path / "planted.arrow"
    sizes = ["--train", "4", "--valid", "2", "--test", "2"]
    assert main(["corpus", "plant", str(planted), *sizes]) == 0
    capsys.readouterr()
    sources = tmp_path if command == "extract" else planted
    assert main([command, str(sources), "--out", str(tmp_path / "out"), "--workers", "3"]) == 2
    assert "--workers is 3, but this machine has 2 cores" in capsys.readouterr().err
