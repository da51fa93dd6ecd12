"""Connections of the service: how many there may be, and how long one may send no request.

uvicorn limits neither, so a few clients could hold every open file of the process. Its log is kept
from repeating itself, as it does when connections come faster than they can be refused.
"""

from __future__ import annotations

import asyncio
import logging
import re
import resource
import time
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from mmcl.serve.limits import Limits

__all__ = ["BACKLOG", "OncePerMinute", "guarded", "room_for_connections"]

BACKLOG = 64
"""Connections that the system accepts before we look at them."""
_OTHER_FILES = 64  # open files of the process that are no connections
_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\nconnection: close\r\n"
    b"content-length: 0\r\n\r\n"
)
_log = logging.getLogger("mmcl.serve")


def room_for_connections(limits: Limits) -> int:
    """Return how many connections there may be; a request may open a file of its own."""
    open_files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if open_files == resource.RLIM_INFINITY:
        return limits.max_connections
    others = BACKLOG + _OTHER_FILES
    return min(limits.max_connections, max(8, (open_files - others) // 2))


def guarded(limits: Limits) -> type[asyncio.Protocol]:
    """Return uvicorn's protocol with limits of time and number."""
    most = room_for_connections(limits)

    class Guarded(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
        """A connection, closed if it is one too many or sends no request in time."""

        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            host = self.client and self.client[0]
            of_client = sum(1 for other in self.connections if other.client[:1] == (host,))
            if len(self.connections) > most or of_client > max(1, most // 2):
                _log.warning("a connection was refused: %s has too many, or all have", host)
                transport.write(_REFUSAL)
                transport.close()
            else:
                self._expect_request()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._expect_request()

        def connection_lost(self, exc: Exception | None) -> None:
            if self._timer is not None:
                self._timer.cancel()
            super().connection_lost(exc)

        def _expect_request(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self.loop.call_later(limits.header_seconds, self._close_if_none_came)

        def _close_if_none_came(self) -> None:
            # The cycle is that of the latest request whose headers are complete.
            if self.cycle is None or self.cycle.response_complete:
                self.transport.close()

    return Guarded


class OncePerMinute(logging.Filter):
    """Let a message through once a minute, and say then how often it came meanwhile.

    Messages that differ in numbers only count as the same.
    """

    _SECONDS = 60.0
    _MOST_KINDS = 1000  # so that hostile messages fill no memory

    def __init__(self) -> None:
        super().__init__()
        self._kinds: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to write a record; count it if not."""
        kind = record.name, re.sub(r"\d+", "#", record.getMessage())
        now = time.monotonic()
        written, held_back = self._kinds.get(kind, (now - self._SECONDS, 0))
        if now - written < self._SECONDS:
            self._kinds[kind] = written, held_back + 1
            return False
        if len(self._kinds) >= self._MOST_KINDS:
            self._kinds.clear()
        self._kinds[kind] = now, 0
        if held_back:
            record.msg, record.args = f"{record.getMessage()} ({held_back} more like it)", ()
        return True
