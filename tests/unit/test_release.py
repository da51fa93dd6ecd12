"""What a release is made of: one version, a changelog of known form, the container, the hooks."""

import json
import re
import tomllib
from datetime import date
from pathlib import Path

import large_files
import pytest
import yaml

from mmcl.cli.main import main
from mmcl.serve.http_server import default_state

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
CONTAINER = (ROOT / "Containerfile").read_text()
SECTIONS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
SECTIONS |= {"Upgrading from a checkout"}  # of the first release


def test_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    first, *_ = re.findall(r"^## \[(\d\S*)\] - (\S+)$", CHANGELOG, re.M)
    assert first == (PROJECT["version"], str(citation["date-released"]))
    assert citation["version"] == PROJECT["version"]


def test_changelog_has_the_form_of_keep_a_changelog():
    versions = re.findall(r"^## (.*)$", CHANGELOG, re.M)
    assert versions[0] == "[Unreleased]"
    dates = [re.fullmatch(r"\[\d+\.\d+\.\d+\] - (\S+)", line)[1] for line in versions[1:]]
    assert dates == sorted(dates, key=date.fromisoformat, reverse=True)
    assert set(re.findall(r"^### (.*)$", CHANGELOG, re.M)) <= SECTIONS


def test_container_copies_what_is_there_and_the_context_holds_it():
    sources = [
        name for line in re.findall(r"^COPY (.*) \S+$", CONTAINER, re.M) for name in line.split()
    ]
    kept = re.findall(r"^!(.*)$", (ROOT / ".dockerignore").read_text(), re.M)
    assert len(sources) > 5
    assert [name for name in sources if not (ROOT / name).exists()] == []
    assert sorted(sources) == sorted(kept)


def test_container_installs_extras_that_exist():
    (extras,) = re.findall(r'"/mmcl\[(.*)\]"', CONTAINER)
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])


def test_container_may_write_to_its_volume(monkeypatch):
    # Without its folder a volume is root's, and the service is refused every job.
    user, made, volume = re.search(
        r"^USER (.*)\n(?:#.*\n)*RUN mkdir -p (.*)\nVOLUME (.*)$", CONTAINER, re.M
    ).groups()
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", f"/home/{user}")
    assert made == volume == str(default_state().parent)


def test_container_serves_with_the_token_it_is_given(monkeypatch, tmp_path, capsys):
    (command,) = re.findall(r"^CMD (.*)$", CONTAINER, re.M)
    served = {}

    def serve(runs, listening, *, token, **_):
        served.update(token=token, host=listening.getsockname()[0], runs=[run.name for run in runs])

    monkeypatch.setattr("mmcl.serve.http_server.serve", serve)
    monkeypatch.setattr("mmcl.serve.supervisor.begin_imports", lambda: None)
    words = [*json.loads(command)[1:], "--port", "0", "--state", str(tmp_path)]
    assert main(words) == 2
    assert "MMCL_TOKEN" in capsys.readouterr().err
    (token,) = re.findall(r"--env MMCL_TOKEN=(\S+)", CONTAINER)
    monkeypatch.setenv("MMCL_TOKEN", token)
    assert main(words) == 0
    assert served == {"token": token, "host": "0.0.0.0", "runs": ["starter"]}


def test_hooks_need_no_network():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert [repository["repo"] for repository in config["repos"]] == ["local"]
    (hooks,) = [repository["hooks"] for repository in config["repos"]]
    assert {hook["language"] for hook in hooks} == {"system"}


@pytest.mark.parametrize(("kib", "code"), [(1024, 0), (1025, 1)])
def test_large_files_are_refused(tmp_path, capsys, kib, code):
    path = tmp_path / "corpus.arrow"
    path.write_bytes(bytes(kib * 1024))
    assert large_files.main([str(path), str(tmp_path / "removed")]) == code
    said = f"{path}: 1,025 KiB; a file of the repository has at most 1,024 KiB\n"
    assert capsys.readouterr().out == said * code
