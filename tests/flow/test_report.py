"""``mmcl report`` on a run, and on folders that it must leave as they are."""

import pytest
import typer
from typer.testing import CliRunner

from mmcl.cli.options import releasing_outputs
from mmcl.cli.report import report_command
from mmcl.errors import RunError
from mmcl.explain.report import is_report
from mmcl.runs.run import train


@pytest.fixture(scope="module")
def folder(tiny_corpus, tiny_config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    train(tiny_corpus, tiny_config(), out=folder / "run")
    return folder


@pytest.fixture
def call():
    """Call the command as the terminal would; an error of ours is raised."""
    app = typer.Typer(rich_markup_mode=None)
    app.command()(report_command)

    def run(*words):
        with releasing_outputs():  # as the program does
            return CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)

    return run


def test_report_writes_one_page(folder, call):
    done = call(folder)
    target = folder / "report.html"
    assert (done.exit_code, done.output) == (0, f"{target}: run/metrics.json\n")
    assert is_report(target)
    assert f"mmcl report {folder}" in target.read_text(encoding="utf-8")

    target.write_text(target.read_text(encoding="utf-8") + "<!-- old -->")
    call(folder)
    assert "<!-- old -->" not in target.read_text(encoding="utf-8")


def test_report_writes_where_it_is_told(folder, call, tmp_path):
    out = tmp_path / "my page.html"
    call(folder / "run", "--out", out)
    page = out.read_text(encoding="utf-8")
    assert f"mmcl report {folder / 'run'} --out &#39;{out}&#39;" in page
    assert not (folder / "run" / "report.html").exists()


def test_report_replaces_no_other_page(folder, call, tmp_path):
    out = tmp_path / "mine.html"
    out.write_text("mine")
    with pytest.raises(RunError) as caught:
        call(folder, "--out", out)
    assert str(caught.value) == (
        f"{out}: exists, and mmcl report did not make it; nothing was changed.\n"
        "  Give another: --out FILE"
    )
    assert out.read_text() == "mine"


def test_report_of_nothing_writes_nothing(call, tmp_path):
    with pytest.raises(RunError, match="holds no result"):
        call(tmp_path)
    assert list(tmp_path.iterdir()) == []
