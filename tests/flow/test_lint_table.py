"""``mmcl lint-table`` as a user types it."""

import json
import re
import shlex
from pathlib import Path

import pytest

from mmcl.cli.main import main

CSV = """model,dataset,metric,accuracy,f1,runs
Self-MM,MOSI,has0,84.00,84.42,
Self-MM,MOSI,non0,85.98,85.95,
collapsed,SIMS,acc2,69.37,56.82,1
no step,MOSI,has0,81.24,81.20,1
[made up],MOSEI,non0,85.0,95.0,
later,MOSEI,non0,-,-,
"""
MARKDOWN = """| Model | Dataset | Metric | Accuracy | F1 |
|---|---|---|---|---|
| ALMT | CH-SIMS | acc2 | 81.19 | 81.57 |

| a | b |
|---|---|
| 1 | 2 |
"""
DOCS = (Path(__file__).parents[2] / "docs/protocol.md").read_text()


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text(CSV)
    (tmp_path / "t.md").write_text(MARKDOWN)

    def call(*words):
        capsys.readouterr()
        code = main(["lint-table", *words])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


def cells(out):
    return [
        [cell.strip() for cell in line[1:-1].split("│")] for line in out.split("\n") if "│" in line
    ]


def test_infeasible_rows_fail(run):
    code, out, err = run("t.csv")
    assert (code, err) == (1, "")
    assert out.splitlines()[0].strip() == "t.csv"
    assert cells(out) == [
        ["Self-MM", "mosi has0", "84.00", "84.42", "78.293–84.054", "infeasible"],
        ["Self-MM", "mosi non0", "85.98", "85.95", "80.832–86.075", "feasible"],
        ["collapsed", "sims acc2", "69.37", "56.82", "56.819–70.561", "feasible"],
        ["no step", "mosi has0", "81.24", "81.20", "none", "infeasible"],
        ["[made up]", "mosei non0", "85.0", "95.0", "79.13–85.31", "infeasible"],
    ]
    assert [line.strip() for line in out.splitlines()[-5:]] == [
        "feasible F1: least and largest before rounding, in percent",
        "line 2, Self-MM: possible only with the arguments of F1 swapped",
        "line 5, no step: no single run has this accuracy: one clip is 0.146 points",
        "line 6, [made up]: impossible with the arguments of F1 swapped, too",
        "t.csv: 3 of 5 rows infeasible, 1 without accuracy or F1",
    ]


def test_feasible_rows_pass(run):
    code, out, err = run("t.md")
    assert (code, err) == (0, "")
    assert cells(out) == [["ALMT", "sims acc2", "81.19", "81.57", "73.472–81.934", "feasible"]]
    assert out.splitlines()[-1] == "t.md: 0 of 1 row infeasible, 1 other table passed over"


def test_runs_of_the_rows_that_do_not_say(run):
    assert run("t.md", "--runs", "5") == run("t.md")
    code, out, _ = run("t.md", "--runs", "1")
    assert code == 1  # 371 of 457 is 81.18, 372 is 81.40
    assert out.splitlines()[-2:] == [
        "line 3, ALMT: no single run has this accuracy: one clip is 0.219 points",
        "t.md: 1 of 1 row infeasible, 1 other table passed over",
    ]
    report = json.loads(run("t.csv", "--runs", "3", "--json")[1])
    assert [row["runs"] for row in report["findings"]] == [3, 3, 1, 1, 3]
    assert [row["feasible"] for row in report["findings"]] == [False, True, True, False, False]


def test_json(run):
    code, out, err = run("t.csv", "--json")
    assert (code, err) == (1, "")
    report = json.loads(out)
    findings = report.pop("findings")
    assert report == {"rows": 5, "infeasible": 3, "incomplete": 1, "other_tables": 0}
    low, high = findings[0].pop("f1_interval")
    assert (f"{low:.3f}", f"{high:.3f}") == ("78.293", "84.054")
    assert findings[0] == {
        "line": 2,
        "model": "Self-MM",
        "dataset": "mosi",
        "metric": "has0",
        "runs": None,
        "accuracy": "84.00",
        "f1": "84.42",
        "feasible": False,
        "hint": "possible only with the arguments of F1 swapped",
    }
    assert findings[3]["f1_interval"] is None
    assert run("t.md", "--json")[0] == 0


def test_nothing_to_check_passes(run):
    Path("none.csv").write_text("model,dataset,metric,accuracy,f1\nA,mosi,has0,-,-\n")
    assert run("none.csv") == (
        0,
        "none.csv: 0 of 0 rows infeasible, 1 without accuracy or F1\n",
        "",
    )


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        pytest.param(["x.csv"], 1, 'DatasetError: x.csv: no such file; did you mean "t.csv"?\n'),
        pytest.param(
            ["t.txt"], 2, 'UsageError: FILE must end in .csv, .md, .markdown, got "t.txt"\n'
        ),
        pytest.param(
            ["bad.csv"],
            2,
            "ConfigError: bad.csv has 2 problems\n"
            '  line 2, dataset: unknown data set "semi"; known: mosei, mosi, sims, iemocap\n'
            '  line 3, metric: sims has no metric "has0"; it has: acc2\n',
        ),
    ],
    ids=["missing", "ending", "names"],
)
def test_mistakes_are_named(run, words, code, message):
    Path("bad.csv").write_text(
        "model,dataset,metric,accuracy,f1\nA,semi,has0,84,84\nB,sims,has0,84,84\n"
    )
    assert run(*words) == (code, "", message)


def test_example_of_the_docs(run):
    """The table in docs/protocol.md is printed by the command, to the letter."""
    section = DOCS.split("## Tables of others")[1].split("\n## ")[0]
    table, shown = re.findall(r"```\w*\n(.*?)```", section, re.S)
    Path("table.csv").write_text(table)
    command, _, expected = shown.partition("\n")
    words = shlex.split(command.removeprefix("$ "))
    assert words[:2] == ["mmcl", "lint-table"]
    code, out, _ = run(*words[2:])
    assert code == 1
    assert [line.rstrip() for line in out.splitlines()] == expected.splitlines()
