"""A browser without a network, and a page of the service in it."""

import os
import shutil
from pathlib import Path
from urllib.parse import urlsplit

import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")
playwright_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from fakes.served import serving  # noqa: E402
from mmcl.serve.page_files import EXAMPLE_CLIP  # noqa: E402
from page.stub import Stub  # noqa: E402

QUIET = (
    *("--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--autoplay-policy=no-user-gesture-required"),
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


def _executable(playwright):
    """A Chromium of the system, or playwright's own."""
    own = playwright.chromium.executable_path
    found = shutil.which("chromium") or shutil.which("google-chrome")
    return found or (own if Path(own).exists() else None)


@pytest.fixture(scope="session")
def browser():
    with playwright_api.sync_playwright() as playwright:
        executable = _executable(playwright)
        if executable is None:
            # A submission must not pass because nobody looked at the page.
            give_up = pytest.fail if os.environ.get("CI") else pytest.skip
            give_up("no Chromium is installed: apt install chromium")
        browser = playwright.chromium.launch(executable_path=executable, args=list(QUIET))
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser):
    """Open an address: ``open_page(url, width=360, color_scheme="dark")``.

    At the end nothing may stand in the console, and nothing may have been asked for elsewhere.
    """
    contexts, said, hosts = [], [], set()

    def open_it(url, *, width=1280, height=900, expected=(), **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)

        def hear(text):
            if not any(each in text for each in expected):
                said.append(text)

        page.on("console", lambda m: hear(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda fault: said.append(str(fault)))
        page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
        page.goto(url)
        hosts.add(urlsplit(url).netloc)
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert said == []
    assert len(hosts - {""}) <= 1  # blob: and data: addresses have no host


@pytest.fixture(scope="session")
def clip():
    """The example clip as a file."""
    return EXAMPLE_CLIP


@pytest.fixture(scope="session")
def served_stub(clip):
    stub = Stub(clip.parent)
    with serving(stub.app) as address:
        stub.address = address
        yield stub


@pytest.fixture
def stub(served_stub):
    served_stub.reset()
    yield served_stub
    served_stub.gate.set()
