"""``mmcl serve`` as it is called: who may listen where, and what is said when it cannot be."""

import asyncio
import logging
import os
import re
import signal
import socket
import subprocess
import sys

import httpx
import pytest

from mmcl.cli.main import main
from mmcl.errors import UsageError
from mmcl.serve.http_server import check_token, default_state, listen, serve
from mmcl.serve.limits import Limits

MAKE_ONE = '  Make one: python -c "import secrets; print(secrets.token_urlsafe())"'


@pytest.fixture
def call(capsys):
    def run(*words):
        code = main([str(word) for word in words])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture
def taken():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.9"])
def test_this_machine_needs_no_token(host):
    check_token(host, None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "talks.example"])
def test_other_machines_need_one(call, host):
    message = (
        f"--host {host} lets other machines in, so the service needs a token.\n"
        f"{MAKE_ONE}\n"
        f"  Give it: mmcl serve RUN --host {host} --token TOKEN, or as MMCL_TOKEN"
    )
    assert call("serve", "run", "--host", host) == (2, "", f"UsageError: {message}\n")
    check_token(host, "a-token-of-some-length")


@pytest.mark.parametrize("token", ["short", "", "with spaces in all of it", "a" * 201, 'a;"b' * 8])
def test_token_that_is_none(token):
    with pytest.raises(UsageError) as caught:
        check_token("127.0.0.1", token)
    assert str(caught.value) == (
        "a token has 16 to 200 letters, digits, -, _, . and ~; "
        f"got one of {len(token)} characters.\n{MAKE_ONE}"
    )


def test_port_that_is_taken(call, taken):
    assert call("serve", "run", "--port", taken) == (
        2,
        "",
        f"UsageError: port {taken} of 127.0.0.1 is taken, perhaps by another mmcl serve.\n"
        f"  Use another: --port {taken + 1}\n",
    )


def test_host_that_is_none(call):
    assert call("serve", "run", "--host", "no such host", "--token", "a" * 16) == (
        2,
        "",
        'UsageError: --host "no such host" is no name or address of this machine.\n'
        "  Try --host 127.0.0.1\n",
    )


def test_folder_that_is_no_run(call, tmp_path):
    assert call("serve", tmp_path, "--port", 0) == (
        1,
        "",
        f"RunError: {tmp_path}: not a run folder (no run.json in it).\n"
        f"  Make one: mmcl train CORPUS --out {tmp_path}\n",
    )


def test_two_runs_of_one_name(call, runs, tmp_path):
    folder = runs["talks"].folder
    (tmp_path / "talks").symlink_to(folder)
    code, _, err = call("serve", folder, tmp_path / "talks", "--port", 0, "--state", tmp_path / "s")
    assert (code, err) == (
        2,
        f'UsageError: two runs are called "talks": {folder} and {tmp_path / "talks"}.\n'
        "  Rename one of the folders: a model is called by its folder's name\n",
    )


def test_missing_extra(call, runs, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert call("serve", runs["planted"].folder, "--port", 0) == (
        1,
        "",
        "MissingExtraError: serving needs uvicorn, which is not installed.\n"
        '  Install it: pip install "mmcl[serve]"\n',
    )


def test_jobs_are_kept_at_home(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_state() == tmp_path / "mmcl" / "serve"


def test_workers_can_start_their_imports_before_ours():
    """The first imports of ``mmcl serve`` must be light, or both import one after the other."""
    modules = ("http_server", "limits", "supervisor")
    lines = "; ".join(f"import mmcl.serve.{module}" for module in modules)
    script = f"import sys; {lines}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "False\n"


def test_free_port_is_found():
    with listen("127.0.0.1", 0) as listening:
        assert listening.getsockname()[1] > 0


def test_connections_are_guarded_and_the_log_does_not_repeat_itself(runs, tmp_path, monkeypatch):
    uvicorn = pytest.importorskip("uvicorn", reason="the extra serve is not installed")
    from mmcl.serve import connections

    limits, given = Limits(header_seconds=3), {}

    class Guarded(asyncio.Protocol):
        pass

    def guarded(theirs):
        assert theirs == limits
        return Guarded

    monkeypatch.setattr(connections, "guarded", guarded)
    monkeypatch.setattr(logging, "basicConfig", lambda **options: given.update(options))
    monkeypatch.setattr(
        uvicorn.Server, "run", lambda self, sockets: given.update(is_run=self.config)
    )
    with listen("127.0.0.1", 0) as listening:
        serve([runs["planted"]], listening, state=tmp_path / "jobs", limits=limits)
    config = given["is_run"]
    config.app.state.service.store.close()
    assert (config.http, config.backlog) == (Guarded, connections.BACKLOG)
    (handler,) = given["handlers"]
    assert [type(each) for each in handler.filters] == [connections.OncePerMinute]


def test_command_serves_and_stops(runs, tmp_path):
    """Begun by a shell, asked with a token, and stopped by Ctrl-C: no traceback, nothing left."""
    command = [sys.executable, "-m", "mmcl.cli.main", "serve", str(runs["planted"].folder)]
    command += ["--port", "0", "--state", str(tmp_path / "jobs")]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "MMCL_TOKEN": "a-token-of-some-length", "PYTHONUNBUFFERED": "1"},
    )
    try:
        first, second, third = (process.stdout.readline() for _ in range(3))
        assert (first, third) == ("Serving planted\n", "Stop it with Ctrl-C\n")
        found = re.fullmatch(
            r"Open (http://127\.0\.0\.1:\d+/)\?token=TOKEN, with your token for TOKEN\n", second
        )
        assert found, second
        assert httpx.get(f"{found[1]}v1/models").status_code == 401
        headers = {"Authorization": "Bearer a-token-of-some-length"}
        models = httpx.get(f"{found[1]}v1/models", headers=headers, timeout=60).json()["models"]
        assert [each["name"] for each in models] == ["planted"]
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        assert (process.returncode, err) == (0, "")
        assert out == "Stopped. Unfinished jobs are run when it is started again.\n"
    finally:
        process.kill()
        process.wait()
