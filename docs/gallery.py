"""Make the pictures of docs/images (needs a Chromium): python docs/gallery.py [PART ...]

Every picture shows what a command wrote. The recording is the example clip of the package.
"""

from __future__ import annotations

import io
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from mmcl.serve.page_files import EXAMPLE_CLIP, EXAMPLE_TRANSCRIPT

IMAGES = Path(__file__).with_name("images")
QUALITY = 90  # of WebP: letters stay sharp, and a picture has less than 100 kB
MMCL = (sys.executable, "-m", "mmcl")


def main() -> None:
    """Run the commands of the parts in a new folder, and photograph what they wrote."""
    IMAGES.mkdir(exist_ok=True)
    parts = {"timeline": timeline, "reports": reports, "service": service}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        os.chdir(folder)
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for name in sys.argv[1:] or parts:
            parts[name](browser)
        browser.close()


def timeline(browser: Browser) -> None:
    """Pictures of the page of a recording, and the picture that the command draws."""
    shutil.copy(EXAMPLE_CLIP, "clip.mp4")
    Path("clip.txt").write_text(EXAMPLE_TRANSCRIPT + "\n")
    call("predict", "clip.mp4", "--transcript", "clip.txt", "--out", "clip.html", "--plot", "c.png")
    save(Path("c.png").read_bytes(), "plot")
    for scheme in ("light", "dark"):
        photograph(browser, "clip.html", f"timeline-{scheme}", scheme=scheme)
    photograph(browser, "clip.html", "timeline-phone", width=390, height=844)


def reports(browser: Browser) -> None:
    """Pictures of the reports of a comparison and of an explanation."""
    call("corpus", "plant", "planted.arrow", "--train", "400", "--valid", "100", "--test", "100")
    models = "calibrated,late_fusion,text_only"
    shorter = ("--set", "learning.epochs=6", "--seeds", "2")
    call("compare", "planted.arrow", "--models", models, *shorter, "--out", "compared")
    explained = ("--clips", "50", "--out", "explained")
    call("explain", "compared/models/calibrated", "planted.arrow", *explained)
    photograph(browser, "compared/report.html", "report", width=1200, height=1000)
    photograph(browser, "explained/report.html", "explanation", width=1200, height=1000)


def service(browser: Browser) -> None:
    """A picture of the page of the service with the example on it."""
    with serving() as address:
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.goto(address)
        page.get_by_role("button", name="Try the example").click()
        page.get_by_text("wonderful").first.wait_for(timeout=600_000)
        page.wait_for_timeout(1000)
        save(page.screenshot(), "service")
        page.close()


@contextmanager
def serving() -> Iterator[str]:
    """Run ``mmcl serve`` on a free port, and yield its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [*MMCL, "serve", "--port", port, "--state", "state"]
    process = subprocess.Popen(command)
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(120):
            try:
                urlopen(f"{address}/readyz").close()
                break
            except OSError:
                time.sleep(1)
        yield address
    finally:
        process.terminate()
        process.wait()


def call(*words: str) -> None:
    """Run a command; stop where it fails."""
    subprocess.run([*MMCL, *words], check=True)


def photograph(
    browser: Browser, file: str, name: str, *, width: int = 1000, height: int = 890, **options: Any
) -> None:
    """Save the picture of a page as a window of this size shows it."""
    scheme = options.get("scheme", "light")
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    page.goto(Path(file).resolve().as_uri())
    page.wait_for_timeout(1500)
    save(page.screenshot(), name)
    page.close()


def save(content: bytes, name: str) -> None:
    """Write a picture."""
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    picture.save(IMAGES / f"{name}.webp", quality=QUALITY, method=6)


if __name__ == "__main__":
    main()
