"""Tables as files: what each format holds, and that a file is whole or absent."""

import csv
import json
import os

import pyarrow as pa
import pytest
from pyarrow import parquet

from mmcl.errors import DatasetError, DiskError
from mmcl.evaluation.tables import write_table


@pytest.fixture
def table():
    return pa.table(
        {
            "id": ["one", "zwei, drei", "né"],
            "prediction": [0.1, -3.0, None],
            "emotions": pa.array([["happy", "sad"], [], None], pa.list_(pa.string())),
            "judged": pa.array([[0, 1], [1, 1], [0, 0]], pa.list_(pa.int64())),
        }
    )


def test_csv_has_lists_as_words(tmp_path, table):
    write_table(table, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == (
        '"id","prediction","emotions","judged"\n'
        '"one",0.1,"happy sad","0 1"\n'
        '"zwei, drei",-3,"","1 1"\n'
        '"né",,,"0 0"\n'
    )


def test_jsonl_has_a_line_per_row(tmp_path, table):
    write_table(table, tmp_path / "out.jsonl")
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == table.to_pylist()
    assert lines[2] == '{"id": "né", "prediction": null, "emotions": null, "judged": [0, 0]}'


def test_parquet_comes_back(tmp_path, table):
    write_table(table, tmp_path / "out.parquet")
    assert parquet.read_table(tmp_path / "out.parquet").equals(table)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_table_is_replaced_whole_and_nothing_is_left_beside(tmp_path, table, ending):
    path = tmp_path / "deep" / f"out.{ending}"
    write_table(table.slice(0, 1), path)
    first = path.read_bytes()
    write_table(table, path)
    assert path.read_bytes() != first
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_empty_table_has_its_columns(tmp_path, table, ending):
    path = tmp_path / f"out.{ending}"
    write_table(table.slice(0, 0), path)
    if ending == "csv":
        assert path.read_text() == '"id","prediction","emotions","judged"\n'
    elif ending == "jsonl":
        assert path.read_text() == ""
    else:
        assert parquet.read_table(path).schema == table.schema


def test_failure_leaves_the_old_file(tmp_path, table, monkeypatch):
    path = tmp_path / "out.csv"
    write_table(table, path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskError) as caught:
        write_table(table.slice(0, 1), path)
    assert str(caught.value) == (
        f"{path}: the disk is full (No space left on device).\n"
        "  Nothing was left behind of this file; all others are kept.\n"
        "  Free some space, then give the same command again."
    )
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["out.csv"]


def test_target_that_cannot_be_written(tmp_path, table):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "out.csv"
    with pytest.raises(DatasetError) as caught:
        write_table(table, path)
    assert str(caught.value) == f"{path}: cannot be written (File exists)."


def test_csv_runs_no_formula_and_numbers_stay_numbers(tmp_path):
    texts = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1"]
    texts += ["-0.5", "a=b", None]
    numbers = [-1.5, *[2.0] * (len(texts) - 1)]
    lists = [["=x", "y"], [-0.5, 0.25], *[None] * (len(texts) - 2)]
    columns = {"text": texts, "number": numbers, "words": [v and list(map(str, v)) for v in lists]}
    write_table(pa.table(columns), tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    assert [row[0] for row in rows] == [
        *("'=1+1", "'+cmd|' /C calc'!A0", "'-2+3", "'@SUM(A1)", "'\t=1", "'\r=1", "'\n=1"),
        *("-0.5", "a=b", ""),
    ]
    assert [row[2] for row in rows[:3]] == ["'=x y", "-0.5 0.25", ""]
    assert rows[0][1] == "-1.5"
    write_table(pa.table(columns), tmp_path / "t.jsonl")
    assert "'=1+1" not in (tmp_path / "t.jsonl").read_text()
