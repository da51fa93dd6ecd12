"""A service on a socket of this machine, in a thread of the test."""

import threading
import time
from contextlib import contextmanager

import httpx
import uvicorn

__all__ = ["TALK", "client_of", "serving"]

TALK = "what a wonderful film\nit was too long\n"
"""Two utterances to the fake reader."""


@contextmanager
def serving(app):
    """The address of an application, as long as the context lasts."""
    config = uvicorn.Config(app, port=0, log_config=None, access_log=False, lifespan="on")
    config.timeout_graceful_shutdown = 2
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the service did not start"
        time.sleep(0.01)
    try:
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive(), "the service did not stop"


@contextmanager
def client_of(app, seconds=60):
    """A client of an application on a socket, when it is ready."""
    with serving(app) as address, httpx.Client(base_url=address, timeout=30) as client:
        deadline = time.monotonic() + seconds
        while client.get("/readyz").status_code != 200:
            assert time.monotonic() < deadline, "the service did not get ready"
            time.sleep(0.05)
        yield client
