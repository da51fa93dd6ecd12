"""Connections and uploads that come to a standstill, too many at once, and the service's log."""

import logging
import os
import shutil
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise

import httpx
import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")
import uvicorn

from fakes.loops import run_apart
from fakes.reader import FakeReader
from fakes.served import TALK
from mmcl.serve import connections, job_runner
from mmcl.serve import service as service_module
from mmcl.serve.app import create_app
from mmcl.serve.connections import OncePerMinute, guarded, room_for_connections
from mmcl.serve.limits import Limits
from mmcl.serve.supervisor import Worker, WorkerError

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # the usual one reads certificates, which is slow
LIMITS = Limits(
    idle_seconds=1.0, idle_bytes=1000, header_seconds=2.0, max_connections=12, max_jobs=4
)


class Serving:
    """A guarded service on a socket, in a thread."""

    def __init__(self, app, limits):
        config = uvicorn.Config(app, port=0, log_config=None, http=guarded(limits), lifespan="on")
        config.timeout_graceful_shutdown = 1
        self.opened = []
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        until(lambda: self.server.started)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def connect(self, sent=b"", client="127.0.0.1"):
        connection = socket.create_connection(
            ("127.0.0.1", self.port), timeout=10, source_address=(client, 0)
        )
        self.opened.append(connection)
        connection.sendall(sent)
        return connection

    def hang_up(self):
        while self.opened:
            self.opened.pop().close()
        until(lambda: not self.server.server_state.connections)

    def stop(self):
        self.hang_up()
        self.server.should_exit = True
        self.thread.join(30)


def until(true, seconds=90):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def serving(runs, tmp_path_factory):
    """The service, shared: to start its workers takes longest."""
    state = tmp_path_factory.mktemp("standstill") / "jobs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job_runner, "_RETRY_SECONDS", 0.2)
        patch.setattr(service_module, "_RETRY_SECONDS", 0.2)
        app = create_app([runs["talks"]], LIMITS, state, make_reader=FakeReader)
        serving = Serving(app, LIMITS)
        serving.service, serving.state = app.state.service, state
        yield serving
        serving.stop()


@pytest.fixture
def place(serving):
    """The service when it is ready, with no connection of an earlier test."""
    until(lambda: httpx.get(f"{serving.url}/readyz", verify=NO_TLS, timeout=60).status_code == 200)
    yield serving
    serving.hang_up()


def upload(place, **more):
    files = {"file": ("talk.mp4", TALK.encode())}
    url = f"{place.url}/v1/predict?wait=20"
    return httpx.post(url, files=files, timeout=60, verify=NO_TLS, **more)


def read_all(connection):
    content = b""
    while block := connection.recv(65536):
        content += block
    return content


def test_half_sent_headers_are_closed_in_time(place):
    connection = place.connect(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-")
    began = time.monotonic()
    for _ in range(3):  # a byte now and then changes nothing
        time.sleep(0.3)
        connection.sendall(b"a")
    assert read_all(connection) == b""
    assert 0.5 < time.monotonic() - began < 5


def test_second_request_of_a_connection_has_the_same_time(place):
    request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    connection = place.connect(request)
    until(lambda: b"ok" in connection.recv(65536))
    until(lambda: len(place.server.server_state.connections) == 1)
    (protocol,) = place.server.server_state.connections
    first = protocol._timer
    connection.sendall(request)
    until(lambda: b"ok" in connection.recv(65536))
    until(lambda: protocol._timer is not first)  # the time counts from the latest answer
    assert first.cancelled()
    connection.sendall(b"GET /hea")
    assert read_all(connection) == b""


def test_idle_upload_is_given_up_and_one_that_goes_on_is_not(place):
    head = (
        b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n"
        b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
    )
    connection = place.connect(head)
    until(lambda: place.service.receiving.total() == 1)
    answer = read_all(connection)
    assert b"408 Request Timeout" in answer
    assert b"fewer than 1,000 bytes came in 1 s" in answer
    until(lambda: place.service.receiving.total() == 0)

    def slowly():
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="talk.mp4"\r\n\r\n'
        for _ in range(4):
            time.sleep(0.5)
            yield b"and then one more thing\n" * 100
        yield b"\r\n--x--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = httpx.post(
        f"{place.url}/v1/predict?wait=0", content=slowly(), headers=headers, timeout=30
    )
    assert answer.status_code == 202


def test_upload_that_trickles_is_given_up(place):
    connection = place.connect(
        b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n"
        b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
    )
    connection.settimeout(0.2)
    answer = b""
    for _ in range(100):  # 1000 bytes would come in twenty seconds, one second is given
        with suppress(TimeoutError):
            answer = connection.recv(65536)
            break
        connection.sendall(b"abcdefghij")
    assert b"408 Request Timeout" in answer


def test_idle_json_is_given_up_too(place):
    connection = place.connect(
        b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n"
        b"Content-Type: application/json\r\n\r\n{"
    )
    assert b"408 Request Timeout" in connection.recv(65536)


def test_one_client_takes_neither_all_places_nor_all_connections(place):
    head = (
        b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n"
        b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
    )
    held = [place.connect(head) for _ in range(3)]
    until(lambda: place.service.receiving.total() == 3)
    answer = upload(place)
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "5")
    assert answer.json()["detail"] == (
        "3 recordings are being received from you already, which is the most that may.\n"
        "  Try again when one of them is complete."
    )
    held += [place.connect() for _ in range(8)]
    assert b"503 Service Unavailable" in read_all(held[-1])
    until(lambda: place.service.receiving.total() == 0)
    until(lambda: upload(place).status_code == 200)


def test_many_clients_take_no_more_connections_than_there_may_be(place):
    def is_refused():  # before the others are closed, since they send no headers
        for client in (2, 3):
            for _ in range(LIMITS.max_connections // 2):
                place.connect(client=f"127.0.0.{client}")
        return b"503 Service Unavailable" in read_all(place.connect(client="127.0.0.4"))

    until(is_refused)


def test_connections_leave_files_to_others(monkeypatch):
    monkeypatch.setattr(connections.resource, "getrlimit", lambda _: (256, 256))
    assert room_for_connections(Limits()) == 64
    for open_files in (65536, connections.resource.RLIM_INFINITY):
        monkeypatch.setattr(connections.resource, "getrlimit", lambda _, n=open_files: (n, n))
        assert room_for_connections(Limits()) == 512


def test_log_does_not_repeat_itself(monkeypatch):
    clock, own, real = iter([0.0, 1.0, 2.0, 3.0, 61.0]), threading.get_ident(), time.monotonic

    def monotonic():  # a service of another test still looks at its own clock
        return next(clock) if threading.get_ident() == own else real()

    monkeypatch.setattr(connections.time, "monotonic", monotonic)
    once, written = OncePerMinute(), []
    for text in ("socket 1 failed", "socket 2 failed", "another", "socket 3 failed", "socket 4"):
        text = "socket 9 failed" if text == "socket 4" else text
        record = logging.LogRecord("asyncio", logging.ERROR, "", 0, "%s", (text,), None)
        if once.filter(record):
            written.append(record.getMessage())
    assert written == ["socket 1 failed", "another", "socket 9 failed (2 more like it)"]


def test_log_of_many_kinds_fills_no_memory(monkeypatch):
    monkeypatch.setattr(OncePerMinute, "_MOST_KINDS", 5)
    once = OncePerMinute()
    for letter in "abcdefghijklmn":
        record = logging.LogRecord("asyncio", logging.ERROR, "", 0, f"host {letter}", (), None)
        assert once.filter(record)
        assert len(once._kinds) <= 5


# ---------------------------------------------------------------- the supervisor


def test_process_that_cannot_be_started_is_a_fault_of_the_worker(monkeypatch):
    async def begin(fault):
        worker = Worker(dict)

        def refuse(_):
            raise fault

        monkeypatch.setattr("multiprocessing.context.ForkServerProcess.start", refuse)
        with pytest.raises(WorkerError, match=type(fault).__name__):
            await worker.start()
        assert (worker.is_ready, worker.process_id) == (False, None)
        worker.kill()
        await worker.stop()

    for fault in (EOFError(), ConnectionRefusedError(111, "refused")):
        run_apart(begin(fault))


def test_uploads_are_refused_while_no_worker_starts_and_taken_when_one_does(place, monkeypatch):
    original, broken, tries = Worker.start, threading.Event(), []
    broken.set()

    async def start(worker):
        if broken.is_set():
            tries.append(time.monotonic())
            raise EOFError  # as when the fork server has just been restarted
        await original(worker)

    monkeypatch.setattr(Worker, "start", start)
    os.kill(place.service.job_runner.worker.process_id, 9)
    until(lambda: upload(place).status_code == 503)
    answer = upload(place)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    until(lambda: len(tries) > 3)
    assert all(after - before > 0.15 for before, after in pairwise(tries))  # it rests
    broken.clear()
    until(lambda: upload(place).status_code == 200)


def test_state_folder_that_is_removed_is_made_again(place):
    assert upload(place).status_code == 200
    shutil.rmtree(place.state)
    statuses = []
    until(lambda: statuses.append(upload(place).status_code) or statuses[-1] == 200)
    assert set(statuses) <= {200, 503}  # no fault of the service


def test_state_folder_that_cannot_be_made_again_refuses_uploads_until_it_can(place):
    def put_a_file_there():  # the service may be faster at making it again
        shutil.rmtree(place.state, ignore_errors=True)
        place.state.touch()
        return place.state.is_file()

    until(put_a_file_there)
    answer = upload(place)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    place.state.unlink()
    until(lambda: upload(place).status_code == 200)


def test_working_folder_that_is_removed_stops_nobody(place, tmp_path, monkeypatch):
    (tmp_path / "away").mkdir()
    monkeypatch.chdir(tmp_path / "away")
    shutil.rmtree(tmp_path / "away")
    os.kill(place.service.job_runner.worker.process_id, 9)
    until(lambda: not place.service.job_runner.worker.is_ready)
    until(lambda: upload(place).status_code == 200)


def test_many_idle_uploads_shut_nobody_out_for_long(place):
    head = (
        b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
        b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--"
    )
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: place.connect(head), range(40)))
    began = time.monotonic()
    until(lambda: any_works(place))
    assert time.monotonic() - began < 30


def any_works(place):
    try:
        return upload(place).status_code == 200
    except httpx.HTTPError:
        return False
