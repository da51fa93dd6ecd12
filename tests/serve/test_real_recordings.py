"""The service with its real models: a recording, files that are none, and a kill in the middle."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from fakes.malformed import is_harmless, malformed
from fakes.served import client_of
from fakes.talking import NEEDED, train_talking, write_recording
from mmcl.serve.app import create_app
from mmcl.serve.limits import Limits

pytestmark = pytest.mark.slow
for package in NEEDED:
    pytest.importorskip(package)

PAGE = (Path(__file__).parents[2] / "docs/serving.md").read_text()
SHELL = re.findall(r"^```sh\n(.*?)^```", PAGE, re.S | re.M)
JOBS = 5
HEALTH = 1.0
"""Seconds in which the service must say that it is there, whatever it works on."""


@pytest.fixture(scope="module")
def talking(tmp_path_factory, tiny_config):
    return train_talking(tmp_path_factory.mktemp("runs") / "talking", tiny_config())


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    return write_recording(tmp_path_factory.mktemp("media") / "tone.mp4").read_bytes()


@pytest.fixture(scope="module")
def client(talking, tmp_path_factory):
    state = tmp_path_factory.mktemp("state") / "jobs"
    with client_of(create_app([talking], Limits(), state), seconds=120) as client:
        yield client


def send(client, content, *, name="tone.mp4", wait=30):
    return client.post(f"/v1/predict?wait={wait}", files={"file": (name, content)}, timeout=60)


def test_recording_is_predicted_as_by_the_command(client, talking, recording, tmp_path):
    from mmcl.runs.recordings import predict_media

    (tmp_path / "tone.mp4").write_bytes(recording)
    expected = predict_media(talking, tmp_path / "tone.mp4")
    answer = send(client, recording, name="a name without ending")
    assert answer.status_code == 200, answer.text
    result = answer.json()
    assert result["name"] == "a name without ending"
    assert result["notes"] == list(expected.notes)
    assert result["duration"] == pytest.approx(2.0, abs=0.1)
    (utterance,) = result["utterances"]
    assert utterance["prediction"] == pytest.approx(expected.moments[0].prediction, abs=1e-6)
    assert [utterance["start"], utterance["end"]] == list(expected.spans[0])
    job = client.get(f"/v1/jobs/{answer.headers['x-job']}").json()
    assert job["stages"][:2] == ["opening the file", "measuring the voice"]
    assert job["stages"][-2:] == ["predicting", "writing the result"]


def test_text_that_is_called_a_film(client):
    answer = send(client, b"these are words\n" * 50, name="text.mp4")
    assert (answer.status_code, answer.json()["detail"]) == (
        422,
        '"text.mp4" is neither a video nor a sound, whatever its name says.\n'
        "  Expected mp4, webm, mkv, mov, wav, mp3 or the like. "
        'See what it is: file "text.mp4"',
    )


def test_malformed_files_are_refused_and_the_service_goes_on(client, recording):
    slowest, stop = [0.0], threading.Event()

    def watch():
        with httpx.Client(base_url=client.base_url) as mine:
            while not stop.wait(0.05):
                began = time.monotonic()
                assert mine.get("/healthz").status_code == 200
                slowest[0] = max(slowest[0], time.monotonic() - began)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for what, content in malformed(recording, 24):
            answer = send(client, content, name=f"{what}.mp4")
            if is_harmless(content, recording):
                assert answer.status_code == 200, (what, answer.text)
                continue
            assert 400 <= answer.status_code < 500, (what, answer.text)
            detail = answer.json()["detail"]
            assert f'"{what}.mp4"' in detail
            assert "/" not in detail.replace("ffmpeg -i", ""), detail  # no path of this machine
    finally:
        stop.set()
        watcher.join()
    assert slowest[0] < HEALTH
    assert send(client, recording).status_code == 200


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("at", range(len(SHELL)))
def test_page_of_the_service_runs_as_it_stands(client, recording, tmp_path, at):
    """docs/serving.md: its commands, but for the address and the name of the run."""
    (tmp_path / "talk.mp4").write_bytes(recording)
    script = SHELL[at].replace("http://127.0.0.1:8760", str(client.base_url).rstrip("/"))
    script = script.replace("model=talks", "model=talking").replace("python ", f"{sys.executable} ")
    done = subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert ('"prediction":' in done.stdout) == (at == 0 or "wait=30" in script)


@contextmanager
def command(run, state):
    """``mmcl serve`` in a process of its own, and a client of it."""
    words = ["serve", str(run.folder), "--port", "0", "--state", str(state)]
    process = subprocess.Popen(
        [sys.executable, "-m", "mmcl.cli.main", *words],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        process.stdout.readline()
        address = re.search(r"http://\S+", process.stdout.readline())[0]
        with httpx.Client(base_url=address, timeout=30) as client:
            yield process, client
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_killed_in_the_middle_of_its_jobs_and_begun_again(talking, recording, client, tmp_path):
    undisturbed = send(client, recording)
    with command(talking, tmp_path / "jobs") as (process, to_be_killed):
        ids = [send(to_be_killed, recording, wait=0).json()["id"] for _ in range(JOBS)]
        deadline = time.monotonic() + 120
        while True:
            statuses = [to_be_killed.get(f"/v1/jobs/{each}").json()["status"] for each in ids]
            if "done" in statuses and "running" in statuses:
                break
            assert time.monotonic() < deadline, statuses
            time.sleep(0.2)  # the service needs the cores
        time.sleep(random.Random(4).uniform(0, 1))
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = [at for at, status in enumerate(statuses) if status == "done"]
    with command(talking, tmp_path / "jobs") as (_, again):
        deadline = time.monotonic() + 120
        while True:
            jobs = [again.get(f"/v1/jobs/{each}").json() for each in ids]
            if all(job["status"] in ("done", "failed") for job in jobs):
                break
            assert time.monotonic() < deadline, jobs
            time.sleep(0.2)
        for at, job in enumerate(jobs):
            if job["status"] == "failed":
                assert job["problem"]["detail"]
            else:
                answer = again.get(f"/v1/jobs/{job['id']}/result")
                assert answer.json() == undisturbed.json()
            assert at not in done or job["status"] == "done"
        assert [job["status"] for job in jobs] == ["done"] * JOBS
    assert list((tmp_path / "jobs" / "uploads").iterdir()) == []
