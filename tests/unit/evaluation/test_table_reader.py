"""Tables of results as they stand in files: csv, markdown, and what is wrong with them."""

from fractions import Fraction
from pathlib import Path

import pytest

from mmcl.errors import ConfigError, DatasetError, UsageError
from mmcl.evaluation.table_linter import Counts, Printed
from mmcl.evaluation.table_reader import PublishedRow, read_published

HEADER = "model,dataset,metric,accuracy,f1\n"
EXPECTED = (
    "  Expected columns, in any order: model, dataset, metric, accuracy, f1; runs is welcome."
)


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def make(name, text):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return Path(name)

    return make


def row_of(path):
    (row,) = read_published(path).rows
    return row


def test_csv_row(write):
    path = write("t.csv", HEADER + '"A, B",mosi,has0,84.20,84\n')
    assert row_of(path) == PublishedRow(
        line=2,
        model="A, B",
        dataset="mosi",
        metric="has0",
        accuracy=Printed(Fraction(421, 5), 2),
        f1=Printed(Fraction(84), 0),
        runs=None,
    )
    assert row_of(path).counts == Counts(307, 379)
    assert (row_of(path).accuracy.text, row_of(path).f1.text) == ("84.20", "84")


def test_columns_in_any_order_and_case_beside_others(write):
    text = "\ufeffF1, Runs ,note,ACCURACY,Metric,Dataset,Model\n81.57,5,x,81.19,acc2,sims,ALMT\n"
    row = row_of(write("t.csv", text))
    assert (row.model, row.dataset, row.metric, row.runs) == ("ALMT", "sims", "acc2", 5)
    assert (row.accuracy.text, row.f1.text) == ("81.19", "81.57")


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("84.20", "84.20"),
        ("84.2%", "84.2"),
        ("84.2 %", "84.2"),
        ("**84.20**", "84.20"),
        ("*84.2*", "84.2"),
        ("_84.2_", "84.2"),
        ("`84.2`", "84.2"),
        ("84.20 ± .31", "84.20"),
        ("84.20±0.31%", "84.20"),
        ("84.2 +/- 1", "84.2"),
        ("84.20 (0.31)", "84.20"),
        ("**84.20** ± .31", "84.20"),
        ("84.", "84"),
        ("100", "100"),
        ("0", "0"),
    ],
)
def test_numbers_as_people_print_them(write, text, printed):
    assert row_of(write("t.csv", f"{HEADER}A,mosi,has0,{text},84\n")).accuracy.text == printed


@pytest.mark.parametrize("accuracy", ["", "-", "–", "—", "N/A"])
def test_rows_without_a_number_are_counted(write, accuracy):
    text = f"{HEADER}A,mosi,has0,{accuracy},84\nB,nothing,nothing,84,{accuracy}\nC,mosi,has0,84,84"
    found = read_published(write("t.csv", text))
    assert [row.model for row in found.rows] == ["C"]
    assert found.incomplete == 2


def test_short_and_empty_lines(write):
    found = read_published(write("t.csv", f"{HEADER}\nA,mosi,has0,84\n,,,,\nB,mosi,has0,84,84\n"))
    assert ([row.line for row in found.rows], found.incomplete) == ([5], 1)


@pytest.mark.parametrize(
    ("text", "dataset"),
    [
        ("MOSI", "mosi"),
        ("CMU-MOSI", "mosi"),
        ("cmu_mosei", "mosei"),
        ("CH-SIMS", "sims"),
        ("IEMOCAP", "iemocap"),
    ],
)
def test_names_of_data_sets(write, text, dataset):
    metric = {"sims": "ACC2", "iemocap": "Happy"}.get(dataset, "Non0")
    row = row_of(write("t.csv", f"{HEADER}A,{text},{metric},84,84\n"))
    assert (row.dataset, row.metric) == (dataset, metric.lower())


MARKDOWN = """# Results

| name | value |
|---|---|
| not | this |

Text with a | in it.

| Model | Dataset | Metric | Accuracy | F1 |
|:--|:-:|---|--:|---|
| **A** \\| B | MOSI | has0 | 84.20 | 84.1 |
| C | MOSI | non0 | - | 84.1 |

model | dataset | metric | accuracy | f1 | runs
--- | --- | --- | --- | --- | ---
D | MOSEI | non0 | 85 | 84.9 | 1
E | MOSEI | has0 | 83 | 82.9 |

```
| model | dataset | metric | accuracy | f1 |
|---|---|---|---|---|
| fenced | mosi | has0 | 1 | 99 |
```
"""


@pytest.mark.parametrize("name", ["t.md", "t.markdown", "T.MD"])
def test_markdown_with_several_tables(write, name):
    found = read_published(write(name, MARKDOWN))
    assert [(row.line, row.model, row.accuracy.text, row.runs) for row in found.rows] == [
        (11, "A | B", "84.20", None),
        (16, "D", "85", 1),
        (17, "E", "83", None),
    ]
    assert (found.incomplete, found.other_tables) == (1, 1)


def test_markdown_table_that_ends_with_the_file(write):
    text = "|model|dataset|metric|accuracy|f1|\n|-|-|-|-|-|\n|A|mosi|has0|84|84|"
    assert row_of(write("t.md", text)).model == "A"


# ---------------------------------------------------------------- what is wrong


@pytest.mark.parametrize(
    ("name", "text", "error", "message"),
    [
        pytest.param(
            "t.txt",
            HEADER,
            UsageError,
            'FILE must end in .csv, .md, .markdown, got "t.txt"',
            id="ending",
        ),
        pytest.param("t.csv", "", DatasetError, f"t.csv: no table in it.\n{EXPECTED}", id="empty"),
        pytest.param(
            "t.md", "# Words\n", DatasetError, f"t.md: no table in it.\n{EXPECTED}", id="words"
        ),
        pytest.param(
            "t.csv",
            "model,data_set,metric,acc,f1,f1\nA,mosi,has0,84,84,84\n",
            DatasetError,
            "t.csv: no table in it can be checked.\n"
            '  no column "dataset"; did you mean "data_set"?\n'
            '  no column "accuracy"; did you mean "acc"?\n'
            f'  more than one column "f1"\n{EXPECTED}',
            id="columns",
        ),
        pytest.param(
            "t.md",
            "|a|b|\n|-|-|\n\n|model|dataset|metric|accuracy|\n|-|-|-|-|\n",
            DatasetError,
            f't.md: no table in it can be checked.\n  no column "f1"\n{EXPECTED}',
            id="nearest-table",
        ),
        pytest.param(
            "t.csv",
            HEADER + 'A,mosi,has0,84,"84\n',
            DatasetError,
            "t.csv, line 2: not csv (unexpected end of data).",
            id="quote",
        ),
        pytest.param(
            "t.csv",
            HEADER + "A,mosy,has0,84,84\n",
            ConfigError,
            "t.csv has 1 problem\n"
            '  line 2, dataset: unknown data set "mosy"; known: mosi, mosei, sims, iemocap',
            id="dataset",
        ),
        pytest.param(
            "t.csv",
            HEADER + "A,CH-SIMS v2,acc2,84,84\n",
            ConfigError,
            "t.csv has 1 problem\n"
            '  line 2, dataset: no label counts are known of "CH-SIMS v2"; '
            "known: sims, mosi, mosei, iemocap",
            id="no-counts",
        ),
        pytest.param(
            "t.csv",
            "runs," + HEADER + "x,A,mosi,acc2,0.842,much\n0,A,iemocap,happy,101,-1\n",
            ConfigError,
            "t.csv has 7 problems\n"
            '  line 2, metric: mosi has no metric "acc2"; it has: has0, non0\n'
            '  line 2, accuracy: expected a percentage above 1 and up to 100, got "0.842"\n'
            '  line 2, f1: expected a percentage such as 84.25, got "much"\n'
            '  line 2, runs: expected a whole number from 1 on, got "x"\n'
            '  line 3, accuracy: expected a percentage above 1 and up to 100, got "101"\n'
            '  line 3, f1: expected a percentage such as 84.25, got "-1"\n'
            '  line 3, runs: expected a whole number from 1 on, got "0"',
            id="all-at-once",
        ),
    ],
)
def test_what_is_wrong_is_named(write, name, text, error, message):
    with pytest.raises(error) as caught:
        read_published(write(name, text))
    assert str(caught.value) == message


def test_file_that_is_not_there(write):
    there = write("results.csv", HEADER)
    with pytest.raises(DatasetError) as caught:
        read_published(there.with_name("result.csv"))
    assert str(caught.value) == 'result.csv: no such file; did you mean "results.csv"?'


def test_file_that_is_a_folder_or_no_text(write, tmp_path):
    (tmp_path / "folder.csv").mkdir()
    binary = write("binary.csv", "")
    binary.write_bytes(b"model\xff")
    for name, message in (
        ("folder.csv", "folder.csv: cannot be read (Is a directory)."),
        ("binary.csv", "binary.csv: not UTF-8 text (byte 5)."),
    ):
        with pytest.raises(DatasetError) as caught:
            read_published(binary.with_name(name))
        assert str(caught.value) == message
