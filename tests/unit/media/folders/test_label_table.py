"""The table of labels: encodings, separators, columns, and rows that do not fit the header."""

import pytest

from mmcl.errors import MediaError
from mmcl.media.folders.label_table import read_label_table

HEADER = "video_id,clip_id,text,label"


@pytest.fixture
def read(tmp_path):
    """Write ``label.csv`` and read it."""

    def make(text, encoding="utf-8"):
        path = tmp_path / "label.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
        return read_label_table(path)

    return make


def refusal(read, text, **how):
    with pytest.raises(MediaError) as caught:
        read(text, **how)
    return str(caught.value)


# ---------------------------------------------------------------- encodings and separators


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_every_encoding_and_separator_is_the_same_table(read, encoding, separator, ending):
    lines = [HEADER, 'v1,0001,"Grüße, du; und	ich | wir",1.5', "v2,7,so,-1"]
    rows = [lines[0].split(","), ["v1", "0001", '"Grüße, du; und\tich | wir"', "1.5"]]
    rows.append(lines[2].split(","))
    text = ending.join(separator.join(row) for row in rows) + ending
    table = read(text, encoding=encoding)
    assert [row.cells for row in table.rows] == [
        {"video_id": "v1", "clip_id": "0001", "text": "Grüße, du; und\tich | wir", "label": "1.5"},
        {"video_id": "v2", "clip_id": "7", "text": "so", "label": "-1"},
    ]
    assert [row.fault for row in table.rows] == [None, None]


def test_text_of_an_unknown_encoding_is_refused_with_its_readings(read):
    message = refusal(read, f"{HEADER}\nv,1,déjà,1\n", encoding="cp1252")
    assert message.startswith('"label.csv" is not UTF-8 text (byte 33), and its encoding is not')
    assert "déjà" in message


def test_line_of_excel_that_names_the_separator(read):
    table = read("sep=;\nvideo_id;clip_id;text;label\nv;1;so;1,5\n")
    assert table.rows[0].cells["label"] == "1,5"
    assert table.rows[0].place == "label.csv, row 3"


@pytest.mark.parametrize(
    ("start", "kind", "advice"),
    [
        pytest.param(
            b"PK\x03\x04",
            "an Excel workbook or another zip file",
            "Open it in its program and save it as CSV UTF-8.",
            id="xlsx",
        ),
        pytest.param(
            b"\xd0\xcf\x11\xe0",
            "an old Excel workbook (xls)",
            "Open it in its program and save it as CSV UTF-8.",
            id="xls",
        ),
        pytest.param(
            b"\n<!DOCTYPE html>",
            "a web page or another file of HTML or XML",
            "Download the table itself, as CSV.",
            id="html",
        ),
        pytest.param(
            b"\xef\xbb\xbf<table>",
            "a web page or another file of HTML or XML",
            "Download the table itself, as CSV.",
            id="html-of-a-spreadsheet",
        ),
        pytest.param(
            b"version https://git-lfs.github.com/spec/v1",
            "a pointer of Git LFS",
            "Fetch the table: git lfs pull",
            id="lfs",
        ),
        pytest.param(b'[{"a": 1}]', "a list in JSON", "Save it as CSV UTF-8.", id="json"),
        pytest.param(b'{"a": [1]}', "JSON", "Save it as CSV UTF-8.", id="json-of-columns"),
        pytest.param(
            b"PAR1",
            "a parquet file",
            "Open it in its program and save it as CSV UTF-8.",
            id="parquet",
        ),
        pytest.param(b"\x1f\x8b\x08", "compressed by gzip", "Unpack it with gunzip.", id="gzip"),
    ],
)
def test_file_of_another_kind_is_refused_by_what_it_is(read, start, kind, advice):
    assert refusal(read, start + bytes(100)) == (
        f'"label.csv" is no table of text, but {kind}, whatever its name says.\n'
        f"  Expected a header and a row per clip, with commas between cells. {advice}"
    )


# ---------------------------------------------------------------- columns


def test_names_of_columns_may_differ_in_case_and_spaces(read):
    table = read(" Video_ID,CLIP ID,Text ,label,Label_t,Mode,Age\nv,1,so,1,2,train,40\n")
    assert table.columns == ("video_id", "clip_id", "text", "label", "label_T", "mode", "Age")


EXPECTED = (
    "Expected: video_id, clip_id, text, label; "
    "with them, if wanted: label_T, label_A, label_V, mode, annotation, speaker."
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            "video_id,clipid,text,labels\nv,1,a,1\n",
            '"label.csv" lacks 2 columns.\n'
            '  clip_id: not there; did you mean "clipid"? Then rename it.\n'
            '  label: not there; did you mean "labels"? Then rename it.\n'
            "  Found: video_id, clipid, text, labels, with commas between them. ",
            id="misspelt",
        ),
        pytest.param(
            "videoid;clip_id;text;label\nv;1;a;1\n",
            '"label.csv" lacks 1 column.\n'
            '  video_id: not there; did you mean "videoid"? Then rename it.\n'
            "  Found: videoid, clip_id, text, label, with semicolons between them. ",
            id="misspelt-under-semicolons",
        ),
        pytest.param(
            "",
            '"label.csv" lacks 4 columns.\n'
            "  video_id: not there\n  clip_id: not there\n  text: not there\n"
            "  label: not there\n"
            "  Found: nothing. ",
            id="empty",
        ),
        pytest.param(
            f'"{HEADER}"\n"v,1,so,1"\n',
            '"label.csv" lacks 4 columns.\n'
            "  video_id: not there\n  clip_id: not there\n  text: not there\n"
            "  label: not there\n"
            "  Found: video_id,clip_id,text,label "
            "(the whole header is in quotes: take them away). ",
            id="header-in-quotes",
        ),
        pytest.param(
            "video_id clip_id text label\nv 1 so 1\n",
            '"label.csv" lacks 4 columns.\n'
            "  video_id: not there\n  clip_id: not there\n  text: not there\n  label: not there\n"
            "  Found: video_id clip_id text label. ",
            id="spaces-between",
        ),
    ],
)
def test_missing_columns(read, text, message):
    assert refusal(read, text) == message + EXPECTED


@pytest.mark.parametrize("rows", ["", "\n\n", ",,,\n"])
def test_no_rows(read, rows):
    assert refusal(read, f"{HEADER}\n{rows}") == (
        '"label.csv" has no rows.\n  Expected one per clip.'
    )


@pytest.mark.parametrize("name", ["label", "Label ", "LABEL"])
def test_column_that_is_there_twice(read, name):
    assert refusal(read, f"{HEADER},mode,{name}\nv,1,a,1,train,2\n") == (
        '"label.csv" has the column "label" 2 times: columns 4, 6.\n'
        "  It is not known which one is meant. Take the others away, or rename them."
    )


@pytest.mark.parametrize("name", ["split", "Subset", "fold"])
def test_another_name_of_mode_is_taken_with_a_note(read, name):
    table = read(f"{HEADER},{name}\nv,1,a,1,Training\nv,2,a,1,dev\n")
    assert [row.cells["mode"] for row in table.rows] == ["Training", "dev"]
    assert table.notes == (
        f'label.csv has no column "mode": the splits are those of its column "{name}" '
        "(if that is wrong, rename it)",
    )


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"{HEADER},fold\nv,1,a,1,1\nv,2,a,1,2\n", id="numbers-of-folds"),
        pytest.param(f"{HEADER},split,mode\nv,1,a,1,test,train\n", id="mode-is-there"),
    ],
)
def test_another_name_of_mode_is_not_taken_without_splits_or_beside_mode(read, text):
    table = read(text)
    assert table.notes == ()
    assert table.rows[0].cells.get("mode", "train") == "train"


# ---------------------------------------------------------------- rows


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        pytest.param(
            f"{HEADER}\nv,1,so,1,5\n",
            '5 cells where the header has 4 columns (a decimal comma? Write 1.5, or "1,5" in '
            'quotes): "v,1,so,1,5"',
            id="decimal-comma",
        ),
        pytest.param(
            f"{HEADER},mode\nv,1,so,-0,6,train\n",
            "6 cells where the header has 5 columns (a decimal comma? Write -0.6, or "
            '"-0,6" in quotes): "v,1,so,-0,6,train"',
            id="decimal-comma-inside",
        ),
        pytest.param(
            f"{HEADER},label_T\nv,1,so,-0,6,1\n",
            "6 cells where the header has 5 columns (decimal commas? Write scores as 1.5, or as "
            '"1,5" in quotes): "v,1,so,-0,6,1"',
            id="decimal-comma-of-some-column",
        ),
        pytest.param(
            "video_id,clip_id,label,text\nv,1,1.5,well, yes\n",
            "5 cells where the header has 4 columns (a comma inside a text? Put such a text in "
            'quotes): "v,1,1.5,well, yes"',
            id="comma-in-text",
        ),
        pytest.param(
            "video_id;clip_id;label;text\nv;1;1,5;well; yes\n",
            "5 cells where the header has 4 columns (a semicolon inside a text? Put such a text "
            'in quotes): "v;1;1,5;well; yes"',
            id="semicolon-in-text",
        ),
        pytest.param(
            f"{HEADER},mode\nv,1,so\n",
            "3 cells where the header has 5 columns (nothing for label, mode: an empty cell "
            'needs its comma, too): "v,1,so"',
            id="fewer",
        ),
        pytest.param(
            f"{HEADER},mode\nv,1,so,1\n",
            "4 cells where the header has 5 columns (nothing for mode: an empty cell needs its "
            'comma, too): "v,1,so,1"',
            id="fewer-by-an-optional-one",
        ),
        pytest.param(
            f"{HEADER}\nv;1;so;1,5\n",
            "2 cells where the header has 4 columns (its cells have semicolons between them, the "
            'header commas): "v;1;so;1,5"',
            id="another-separator",
        ),
        pytest.param(
            f'{HEADER}\n"v,1,so,1"\n',
            "1 cell where the header has 4 columns (the whole row is in quotes: take them away): "
            '""v,1,so,1""',
            id="row-in-quotes",
        ),
    ],
)
def test_row_with_another_number_of_cells_than_the_header(read, text, fault):
    row = read(text).rows[0]
    assert (row.place, row.fault) == ("label.csv, row 2", fault)


def test_a_fault_stays_with_its_row_and_long_rows_are_shortened(read):
    table = read(f"{HEADER}\nv,1,so,1\nv,2,{'so, ' * 40},1\n\nv,3,so,2\n")
    assert [row.place[-5:] for row in table.rows] == ["row 2", "row 3", "row 5"]
    assert [row.fault is None for row in table.rows] == [True, False, True]
    assert table.rows[1].fault.endswith(f'"v,2,{"so, " * 19}..."')


def test_rows_count_as_in_a_spreadsheet_and_lines_as_in_the_file(read):
    table = read(f'{HEADER}\nv,1,"two\nlines",1\nv,2,so\n')
    assert table.rows[0].cells["text"] == "two\nlines"
    assert table.rows[1].place == "label.csv, row 3 (line 4)"


def test_empty_cells_beyond_the_header_are_nothing_if_all_rows_have_them(read):
    table = read(f"{HEADER}\nv,1,so,1,,\nv,2,so,2,,\n")
    assert [row.fault for row in table.rows] == [None, None]
    # Where only some rows have them, they may be the end of a row that is shifted.
    for row in ("v,1,so, so,1,", "v,1,so, so,", "v,1,so,1,"):
        table = read(f"{HEADER}\n{row}\nv,2,so,2\n")
        assert [row.fault is None for row in table.rows] == [False, True]


def test_empty_rows_and_columns_without_names(read):
    table = read(f",{HEADER},\n0,v,1,so,1,\n,,,,,\n\n1,v,2,so,2,\n")
    assert table.empty_rows == ("row 3",)
    assert [row.cells["clip_id"] for row in table.rows] == ["1", "2"]


@pytest.mark.parametrize(
    ("text", "place", "found"),
    [
        pytest.param('v,1,"so,1\nv,2,yes,1\n', "row 2 (line 2)", 'v,1,"so,1', id="never-closed"),
        pytest.param(
            'v,1,a,1\nv,2,"he said "so" to me",1\n',
            "row 3 (line 3)",
            'v,2,"he said "so" to me",1',
            id="quotes-in-quotes",
        ),
    ],
)
def test_quotes_that_do_not_fit_are_refused(read, text, place, found):
    message = refusal(read, f"{HEADER}\n{text}")
    assert message.startswith(f'"label.csv", {place}: its quotes (") do not fit: ')
    assert message.endswith(
        f'.\n  Found: "{found}"\n'
        '  A text in quotes must end with a quote. Write a quote inside it twice: "".'
    )


def test_quote_that_swallows_the_next_rows_is_a_fault(read):
    table = read(f'{HEADER}\nv,1,"so,1\nw,2,yes,1\nw,3,he said no",1\nw,4,so,1\n')
    assert [row.fault for row in table.rows] == [
        'a quote (") is not closed, so that a cell goes on over the next row: "w,2,yes,1"',
        None,
    ]


def test_space_before_a_quote_and_quotes_written_twice(read):
    table = read(f'{HEADER}\nv, 1, "he said ""so"", twice", 1\n')
    assert list(table.rows[0].cells.values()) == ["v", "1", 'he said "so", twice', "1"]


@pytest.mark.parametrize("first", ["My study,,,", "# my labels", "My study;;;"])
def test_columns_below_a_title(read, first):
    with pytest.raises(MediaError) as caught:
        read(f"{first}\n\n{HEADER}\nv,1,so,1\n")
    assert str(caught.value) == (
        f'"label.csv": its columns are named in row 3, below "{first}".\n'
        "  Expected them in the first row. Take the rows above away."
    )
