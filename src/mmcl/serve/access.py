"""Access control of every request, headers of every answer, and their counts.

Without a token only this machine may ask. The host that a browser names must then be one of the
service's own names: a page of the web could otherwise reach it by a domain that points here.
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

from mmcl.serve.counters import Counters
from mmcl.serve.page_files import CONTENT_POLICY
from mmcl.serve.problems import PROBLEM_TYPE, Problem, ServiceError, problem_of, unknown_problem

__all__ = ["AccessControl", "as_answer"]

_COOKIE = "mmcl_token"
_COOKIE_SECONDS = 30 * 24 * 3600
_log = logging.getLogger("mmcl.serve")
_OPEN = ("/healthz", "/readyz")  # for proxies, without a token; they tell nothing else

_HEADERS = {
    "Content-Security-Policy": CONTENT_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def as_answer(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """Return a problem as an HTTP answer."""
    return JSONResponse(
        problem.model_dump(mode="json"),
        status_code=problem.status,
        headers=headers,
        media_type=PROBLEM_TYPE,
    )


class AccessControl:
    """The outermost layer of the service, in front of ``app``.

    Clients must send the token; where there is none, they must call the service by one of
    ``hosts``.
    """

    def __init__(
        self, app: ASGIApp, *, counters: Counters, token: str | None, hosts: Iterable[str]
    ) -> None:
        self.app, self.counters = app, counters
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
            await (self._refusal(scope) or self.app)(scope, receive, send_with_headers)
        except Exception:
            _log.exception("%s %s", scope["method"], scope["path"])
            if status:  # half an answer is out already
                raise
            await as_answer(unknown_problem())(scope, receive, send_with_headers)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.counters.requests.labels(scope["method"], route, str(status)).inc()
            self.counters.request_seconds.labels(route).observe(time.perf_counter() - began)

    def _refusal(self, scope: Scope) -> Response | None:
        """Return the answer to a request that is refused, None for one that is allowed."""
        headers = Headers(scope=scope)
        if self.token is None:
            host = headers.get("host", "")
            if _hostname(f"//{host}") not in self.hosts:
                return _refuse(
                    403,
                    "foreign-host",
                    f'"{host[:100]}" is no name of this service, so it does not answer.\n'
                    "  Use the address that it printed; for other names give it a token: "
                    "mmcl serve RUN --token TOKEN",
                )
        elif scope["path"] not in _OPEN:
            if scope["path"] == "/" and self._is_token(_token_in_query(scope)):
                return self._set_cookie(scope)
            if not any(map(self._is_token, _tokens_in_headers(headers))):
                return _refuse(
                    401,
                    "no-token",
                    "the service needs its token.\n"
                    "  Send it: -H 'Authorization: Bearer TOKEN'; in a browser open /?token=TOKEN "
                    "once",
                    {"WWW-Authenticate": "Bearer"},
                )
        # A browser names the origin of the page that asks.
        origin = headers.get("origin")
        is_foreign = origin is not None and _netloc(origin) != headers.get("host", "")
        if is_foreign and scope["method"] not in ("GET", "HEAD", "OPTIONS"):
            return _refuse(
                403,
                "foreign-page",
                f'a page of "{str(origin)[:100]}" sent the request; only the service\'s own page '
                "may.",
            )
        return None

    def _is_token(self, sent: str) -> bool:
        return hmac.compare_digest(sent.encode(), (self.token or "").encode())

    def _set_cookie(self, scope: Scope) -> Response:
        """Return the redirection that moves the token from the address to a cookie."""
        answer = RedirectResponse("/", status_code=303)
        answer.set_cookie(
            _COOKIE,
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
    # Results and jobs are private. Files of the page may be kept, but are checked each time.
    is_private = scope["path"].startswith("/v1")
    headers.setdefault("Cache-Control", "no-store" if is_private else "no-cache")


def _tokens_in_headers(headers: Headers) -> list[str]:
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    tokens = [credentials.strip()] if scheme.lower() == "bearer" else []
    try:
        cookies = SimpleCookie(headers.get("cookie", ""))
    except CookieError:
        return tokens
    return [*tokens, *(morsel.value for name, morsel in cookies.items() if name == _COOKIE)]


def _token_in_query(scope: Scope) -> str:
    query: bytes = scope["query_string"]
    return parse_qs(query.decode("latin-1")).get("token", [""])[0]


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _netloc(url: str) -> str | None:
    try:
        return urlsplit(url).netloc
    except ValueError:
        return None


def _refuse(
    status: int, kind: str, text: str, headers: Mapping[str, str] | None = None
) -> Response:
    return as_answer(problem_of(ServiceError(text, status=status, kind=kind)), headers)
