"""The service on a socket: its address, its token and its end."""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import re
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmcl.errors import UsageError
from mmcl.extras import load
from mmcl.serve.limits import Limits

if TYPE_CHECKING:  # the command line imports this module before it starts its workers' imports
    from mmcl.runs.run import Run

__all__ = ["check_token", "default_state", "listen", "serve"]

_GRACE_SECONDS = 3  # for answers under way when the service is stopped
_TOKEN = re.compile(r"[A-Za-z0-9_.~-]{16,200}")
_MAKE_ONE = 'python -c "import secrets; print(secrets.token_urlsafe())"'


def check_token(host: str, token: str | None) -> None:
    """Check that a service that other machines can reach has a token.

    Raises:
        UsageError: If a token is missing or malformed.
    """
    if token is None and not _is_loopback(host):
        raise UsageError(
            f"--host {host} lets other machines in, so the service needs a token.\n"
            f"  Make one: {_MAKE_ONE}\n"
            f"  Give it: mmcl serve RUN --host {host} --token TOKEN, or as MMCL_TOKEN"
        )
    if token is not None and not _TOKEN.fullmatch(token):
        raise UsageError(
            "a token has 16 to 200 letters, digits, -, _, . and ~; "
            f"got one of {len(token)} characters.\n  Make one: {_MAKE_ONE}"
        )


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Args:
        host: A name or an address of this machine.
        port: Port number; 0 takes a free one.

    Raises:
        UsageError: If the host is unknown, or the port is taken or not allowed.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError:
        raise UsageError(
            f'--host "{host}" is no name or address of this machine.\n  Try --host 127.0.0.1'
        ) from None
    listening = socket.socket(family, kind, protocol)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(address)
        listening.listen(256)
    except OSError as fault:
        listening.close()
        reason, advice = f"cannot listen at {host}:{port} ({fault.strerror})", "--host 127.0.0.1"
        if fault.errno == errno.EADDRINUSE:
            reason = f"port {port} of {host} is taken, perhaps by another mmcl serve"
            advice = f"--port {port + 1}"
        elif fault.errno == errno.EACCES:
            reason, advice = f"port {port} of {host} may not be used", "--port 8760"
        raise UsageError(f"{reason}.\n  Use another: {advice}") from None
    return listening


def serve(
    runs: Sequence[Run],
    listening: socket.socket,
    *,
    state: Path,
    token: str | None = None,
    limits: Limits | None = None,
    started: Callable[[], None] | None = None,
) -> None:
    """Answer requests until Ctrl-C.

    Args:
        runs: Runs to serve.
        listening: The socket; see :func:`listen`.
        state: Folder of jobs and results.
        token: Token that clients must send.
        limits: Limits of requests, recordings and workers.
        started: Called when the service can be reached.

    Raises:
        MissingExtraError: If the extra ``serve`` is not installed.
        UsageError: If two runs have one name, or the state folder cannot be used.
    """
    for package in ("fastapi", "python_multipart", "prometheus_client"):
        load(package, "serving", extra="serve")
    uvicorn = load("uvicorn", "serving", extra="serve")
    from mmcl.serve.app import LOCAL_HOSTS, create_app
    from mmcl.serve.connections import BACKLOG, OncePerMinute, guarded

    handler = logging.StreamHandler()
    handler.addFilter(OncePerMinute())
    layout = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(format=layout, handlers=[handler])
    limits = limits or Limits()
    address = listening.getsockname()[0]
    app = create_app(runs, limits, state, token=token, hosts=(*LOCAL_HOSTS, address))

    class Server(uvicorn.Server):  # type: ignore[misc, name-defined]
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if started is not None and not self.should_exit:
                started()

    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        http=guarded(limits),
        backlog=BACKLOG,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    Server(config).run(sockets=[listening])


def default_state() -> Path:
    """Return the default folder of jobs and results."""
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "mmcl" / "serve"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
