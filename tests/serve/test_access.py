"""Who may come in: by token, by the service's own name, and from its own pages."""

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from fakes.loops import run_apart
from mmcl.serve.access import AccessControl
from mmcl.serve.counters import Counters
from mmcl.serve.page_files import CONTENT_POLICY

TOKEN = "a-token-of-some-length"
WITHOUT = {
    "type": "urn:mmcl:no-token",
    "title": "Unauthorized",
    "status": 401,
    "detail": "the service needs its token.\n"
    "  Send it: -H 'Authorization: Bearer TOKEN'; in a browser open /?token=TOKEN once",
}


async def hello(request):
    return PlainTextResponse("in")


async def broken(request):
    raise RuntimeError("/srv/secret")


def guarded(token=None, counters=None):
    paths = ("/", "/v1/models", "/healthz", "/readyz", "/metrics", "/page/page.js")
    routes = [Route(path, hello, methods=["GET", "POST"]) for path in paths]
    guard = Middleware(
        AccessControl,
        counters=counters or Counters(),
        token=token,
        hosts=("localhost", "127.0.0.1"),
    )
    return Starlette(routes=[*routes, Route("/broken", broken)], middleware=[guard])


def ask(path, *, token=None, method="GET", base="http://localhost:8760", counters=None, **given):
    """One request: ``ask("/", token=TOKEN, headers={...})``; ``token`` is the service's."""

    async def send():
        transport = httpx.ASGITransport(guarded(token, counters))
        async with httpx.AsyncClient(transport=transport, base_url=base) as client:
            return await client.request(method, path, **given)

    return run_apart(send())


def test_without_a_token_everyone_here_comes_in():
    for path in ("/", "/v1/models", "/metrics"):
        assert ask(path).text == "in"
    assert ask("/", base="http://127.0.0.1").text == "in"


@pytest.mark.parametrize("path", ["/", "/v1/models", "/metrics", "/page/page.js"])
@pytest.mark.parametrize(
    "given",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"headers": {"Authorization": f"Bearer {TOKEN}x"}}, id="longer"),
        pytest.param({"headers": {"Authorization": f"Bearer {TOKEN[:-1]}"}}, id="shorter"),
        pytest.param({"headers": {"Authorization": f"Basic {TOKEN}"}}, id="another-scheme"),
        pytest.param({"headers": {"Authorization": "Bearer"}}, id="empty"),
        pytest.param({"headers": {"Cookie": f"other={TOKEN}"}}, id="another-cookie"),
        pytest.param({"headers": {"Cookie": "mmcl_token=tökén".encode()}}, id="odd-cookie"),
        pytest.param({"params": {"token": "wrong"}}, id="wrong-address"),
    ],
)
def test_without_the_token_nobody_comes_in(path, given):
    answer = ask(path, token=TOKEN, **given)
    assert answer.status_code == 401
    assert answer.json() == WITHOUT
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "headers", [{"Authorization": f"Bearer {TOKEN}"}, {"Cookie": f"a=b; mmcl_token={TOKEN}"}]
)
def test_with_the_token_one_comes_in_by_any_name(headers):
    assert ask("/v1/models", token=TOKEN, headers=headers, base="http://talks.example").text == "in"


def test_address_with_the_token_leaves_a_cookie():
    answer = ask("/", token=TOKEN, params={"token": TOKEN})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"mmcl_token={TOKEN};")
    assert {"HttpOnly", "SameSite=strict"} <= set(cookie.split("; "))
    assert "Secure" not in cookie
    safe = ask("/", token=TOKEN, params={"token": TOKEN}, base="https://talks.example")
    assert "Secure" in safe.headers["set-cookie"]


def test_only_the_page_takes_the_token_from_the_address():
    assert ask("/v1/models", token=TOKEN, params={"token": TOKEN}).status_code == 401


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_is_told_to_everyone(path):
    assert ask(path, token=TOKEN).text == "in"


def test_a_name_that_somebody_else_gave_is_refused():
    answer = ask("/v1/models", base="http://evil.example:8760")
    assert answer.status_code == 403
    assert answer.json()["detail"] == (
        '"evil.example:8760" is no name of this service, so it does not answer.\n'
        "  Use the address that it printed; for other names give it a token: "
        "mmcl serve RUN --token TOKEN"
    )


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:8760", 200),
        ("http://localhost:9000", 403),
        ("http://evil.example", 403),
        ("null", 403),
        ("http://[::1", 403),
        ("http://[localhost:8760", 403),
    ],
)
def test_pages_of_others_change_nothing(origin, status):
    headers = {"Origin": origin, "Authorization": f"Bearer {TOKEN}"}
    for token in (None, TOKEN):
        answer = ask("/v1/models", method="POST", token=token, headers=headers)
        assert answer.status_code == status
    if status == 403:
        assert answer.json()["detail"] == (
            f'a page of "{origin}" sent the request; only the service\'s own page may.'
        )
    assert ask("/v1/models", headers={"Origin": origin}).status_code == 200


def test_every_answer_is_guarded():
    for given in ({}, {"token": TOKEN}, {"base": "http://evil.example"}):
        headers = ask("/v1/models", **given).headers
        assert headers["content-security-policy"] == CONTENT_POLICY
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
    assert ask("/page/page.js").headers["cache-control"] == "no-cache"


def test_a_fault_of_ours_says_nothing(caplog):
    answer = ask("/broken")
    assert answer.status_code == 500
    assert answer.json() == {
        "type": "about:blank",
        "title": "Internal Server Error",
        "status": 500,
        "detail": None,
    }
    assert "secret" not in answer.text
    assert "RuntimeError: /srv/secret" in caplog.text


def test_requests_are_counted_by_route():
    counters = Counters()
    ask("/v1/models", counters=counters)
    ask("/nothing", counters=counters)
    ask("/broken", counters=counters)
    text = counters.text().decode()
    for line in (
        'mmcl_requests_total{method="GET",route="/v1/models",status="200"} 1.0',
        'mmcl_requests_total{method="GET",route="other",status="404"} 1.0',
        'mmcl_requests_total{method="GET",route="/broken",status="500"} 1.0',
    ):
        assert line in text
