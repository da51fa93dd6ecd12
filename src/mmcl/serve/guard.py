"""Who may come in, what every answer carries, and how each is counted.

Without a token only pages of this machine may ask: the name a browser asks for must be the
service's own, so that a page of the web cannot reach it by a name of its own that leads here.
"""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Iterable, Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mmcl.serve.meters import Meters
from mmcl.serve.page_files import CONTENT_POLICY
from mmcl.serve.problems import (
    PROBLEM_TYPE,
    Problem,
    ServiceError,
    problem_of,
    unknown_problem,
)

__all__ = ["COOKIE", "Guard", "as_answer"]

COOKIE = "mmcl_token"
_COOKIE_SECONDS = 30 * 24 * 3600
_log = logging.getLogger("mmcl.serve")
_OPEN = ("/healthz", "/readyz")  # a proxy asks these, and they say nothing

_HEADERS = {
    "Content-Security-Policy": CONTENT_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def as_answer(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """A problem as an answer."""
    return JSONResponse(
        problem.model_dump(mode="json"),
        status_code=problem.status,
        headers=headers,
        media_type=PROBLEM_TYPE,
    )


class Guard:
    """The outermost layer of the service.

    Args:
        app: What it guards.
        meters: What is counted.
        token: That must be shown, or None.
        hosts: Names the service may be asked by where there is no token.
    """

    def __init__(
        self, app: ASGIApp, *, meters: Meters, token: str | None, hosts: Iterable[str]
    ) -> None:
        self.app, self.meters = app, meters
        self.token = token
        self.hosts = frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _add_headers(scope, message)
            await send(message)

        try:
            await (self._refused(scope) or self.app)(scope, receive, send_with_headers)
        except Exception:
            _log.exception("%s %s", scope["method"], scope["path"])
            if status:  # half an answer is out already
                raise
            await as_answer(unknown_problem())(scope, receive, send_with_headers)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.meters.requests.labels(scope["method"], route, str(status)).inc()
            self.meters.request_seconds.labels(route).observe(time.perf_counter() - began)

    def _refused(self, scope: Scope) -> Response | None:
        """The answer to whom may not come in; None lets him in."""
        headers = Headers(scope=scope)
        if self.token is None:
            if _hostname(f"//{headers.get('host', '')}") not in self.hosts:
                return as_answer(problem_of(_foreign_host(headers.get("host", ""))))
        elif scope["path"] not in _OPEN:
            if scope["path"] == "/" and (shown := _in_query(scope)) and self._fits(shown):
                return self._welcome(scope)
            if not any(self._fits(each) for each in _shown(headers)):
                return as_answer(problem_of(_no_token()), {"WWW-Authenticate": "Bearer"})
        if scope["method"] not in ("GET", "HEAD", "OPTIONS") and _is_foreign(headers):
            return as_answer(problem_of(_foreign_page(headers.get("origin", ""))))
        return None

    def _fits(self, shown: str) -> bool:
        return hmac.compare_digest(shown.encode(), (self.token or "").encode())

    def _welcome(self, scope: Scope) -> Response:
        """Keep the token in a cookie, and take it out of the address."""
        answer = RedirectResponse("/", status_code=303)
        answer.set_cookie(
            COOKIE,
            self.token or "",
            max_age=_COOKIE_SECONDS,
            httponly=True,
            samesite="strict",
            secure=scope.get("scheme") == "https",
        )
        return answer


def _add_headers(scope: Scope, message: Message) -> None:
    headers = MutableHeaders(scope=message)
    for name, value in _HEADERS.items():
        headers.setdefault(name, value)
    # Results and jobs are personal; the page's own files are asked for again each time.
    headers.setdefault(
        "Cache-Control", "no-store" if scope["path"].startswith("/v1") else "no-cache"
    )


def _shown(headers: Headers) -> list[str]:
    """Tokens that came with a request."""
    scheme, _, given = headers.get("authorization", "").partition(" ")
    shown = [given.strip()] if scheme.lower() == "bearer" else []
    try:
        cookies = SimpleCookie(headers.get("cookie", ""))
    except CookieError:
        return shown
    return [*shown, *(each.value for name, each in cookies.items() if name == COOKIE)]


def _in_query(scope: Scope) -> str:
    query: bytes = scope["query_string"]
    return parse_qs(query.decode("latin-1")).get("token", [""])[0]


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _is_foreign(headers: Headers) -> bool:
    """Whether a page of another origin asks: a browser says so."""
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != headers.get("host", "")


def _foreign_host(host: str) -> ServiceError:
    return ServiceError(
        f'the service is not called "{host[:100]}", so it does not answer.\n'
        "  Ask it by the address it printed; for other names give it a token: "
        "mmcl serve RUN --token TOKEN",
        status=403,
        kind="foreign-host",
    )


def _foreign_page(origin: str) -> ServiceError:
    return ServiceError(
        f'a page of "{origin[:100]}" asked, and only the service\'s own pages may.',
        status=403,
        kind="foreign-page",
    )


def _no_token() -> ServiceError:
    return ServiceError(
        "the service asks for its token.\n"
        "  Send it: -H 'Authorization: Bearer TOKEN'; in a browser open /?token=TOKEN once",
        status=401,
        kind="no-token",
    )
