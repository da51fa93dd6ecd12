"""The service on a socket: where it listens, who may ask, and how it ends."""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import re
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from mmcl.errors import UsageError
from mmcl.extras import load
from mmcl.runs.run import Run
from mmcl.serve.limits import Limits

__all__ = ["check_token", "default_state", "listen", "serve"]

_GRACE = 3  # seconds that answers under way have when the service is stopped
_TOKEN = re.compile(r"[A-Za-z0-9_.~-]{16,200}")
_MAKE_ONE = 'python -c "import secrets; print(secrets.token_urlsafe())"'


def check_token(host: str, token: str | None) -> None:
    """See that whoever lets other machines in asks them for a token.

    Raises:
        UsageError: If there is none and there must be, or it is too short to be one.
    """
    if token is None and not _is_near(host):
        raise UsageError(
            f"--host {host} lets other machines in, and there is no token that they must show.\n"
            f"  Make one: {_MAKE_ONE}\n"
            f"  Give it: mmcl serve RUN --host {host} --token TOKEN, or as MMCL_TOKEN"
        )
    if token is not None and not _TOKEN.fullmatch(token):
        raise UsageError(
            "a token has 16 to 200 letters, digits, -, _, . and ~; "
            f"got one of {len(token)} characters.\n  Make one: {_MAKE_ONE}"
        )


def listen(host: str, port: int) -> socket.socket:
    """A socket that nobody else listens at.

    Args:
        host: A name or an address of this machine.
        port: 0 takes a free one.

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
        raise UsageError(_cannot_listen(host, port, fault)) from None
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
    """Answer until Ctrl-C.

    Args:
        runs: To serve.
        listening: Where; see :func:`listen`.
        state: Folder of jobs and results.
        token: That clients must show.
        limits: Of everything.
        started: Called when the first request can come.

    Raises:
        MissingExtraError: If the extra ``serve`` is not installed.
        UsageError: If two runs have one name, or the state folder cannot be used.
    """
    for package in ("fastapi", "python_multipart", "prometheus_client"):
        load(package, "serving", extra="serve")
    uvicorn = load("uvicorn", "serving", extra="serve")
    from mmcl.serve.app import LOCAL_HOSTS, create_app

    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
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
        timeout_graceful_shutdown=_GRACE,
    )
    Server(config).run(sockets=[listening])


def default_state() -> Path:
    """Where jobs are kept unless somebody says otherwise."""
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "mmcl" / "serve"


def _is_near(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _cannot_listen(host: str, port: int, fault: OSError) -> str:
    if fault.errno == errno.EADDRINUSE:
        return (
            f"port {port} of {host} is taken, perhaps by another mmcl serve.\n"
            f"  Give another: --port {port + 1}"
        )
    if fault.errno == errno.EACCES:
        return (
            f"port {port} of {host} is not yours to take ({fault.strerror}).\n"
            "  Give one from 1024 on: --port 8760"
        )
    return f"{host}:{port} cannot be listened at ({fault.strerror}).\n  Try --host 127.0.0.1"
