"""The README's quick start, run line by line as it stands there."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mmcl.cli.main import main

README = (Path(__file__).parents[2] / "README.md").read_text()
QUICK_START = README.split("## Quick start")[1].split("\n## ")[0]
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", QUICK_START, re.S)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    return tmp_path_factory.mktemp("quick-start")


def test_quick_start_has_every_way():
    assert [language for language, _ in BLOCKS] == ["", "python", "python"]


def test_quick_start_runs(workplace, monkeypatch, capsys):
    monkeypatch.chdir(workplace)
    lines = [line for line in BLOCKS[0][1].splitlines() if line.startswith("mmcl ")]
    assert len(lines) >= 5
    for line in lines:
        assert main(shlex.split(line, comments=True)[1:]) == 0, capsys.readouterr().err
    assert (workplace / "predictions.csv").read_text().count("\n") == 601

    assert python(BLOCKS[1][1], workplace).startswith("{'mean': ")
    assert (workplace / "my-model/model.safetensors").exists()
    assert "prediction" in python(BLOCKS[2][1], workplace)


def python(script: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
