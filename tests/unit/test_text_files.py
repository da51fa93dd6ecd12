"""Text files: encodings that are certain are read, all others are shown and not guessed."""

import shutil
import subprocess

import pytest

from mmcl.errors import DatasetError, MediaError
from mmcl.text_files import CANDIDATES, decode_text, read_text_file

GERMAN = "1\n00:00:00,800 --> 00:00:02,500\nGrüße aus Köln\n"
CHINESE = "我很喜欢这部电影\n太糟糕了\n"


def refusal(content):
    with pytest.raises(MediaError) as caught:
        decode_text(content, "a.srt", MediaError)
    return str(caught.value)


@pytest.mark.parametrize("text", [GERMAN, CHINESE, "plain\n", ""])
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be"]
)
def test_certain_encodings_are_read(text, encoding):
    assert decode_text(text.encode(encoding), "a.srt", MediaError) == text


@pytest.mark.parametrize("mark", ["utf-16-be", "utf-32-be"])
def test_marks_of_the_other_byte_order_are_read(mark):
    content = "\ufeff".encode(mark) + GERMAN.encode(mark)
    assert decode_text(content, "a.srt", MediaError) == GERMAN


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_ends_of_lines_are_made_one(end):
    assert decode_text(GERMAN.replace("\n", end).encode(), "a.srt", MediaError) == GERMAN


def test_unknown_encoding_is_shown_in_all_that_are_possible():
    assert refusal("Yes.\r\nJa, schön\r\n".encode("cp1252")) == (
        '"a.srt" is not UTF-8 text (byte 13), and its encoding is not known.\n'
        "  Line 2 in each encoding that is possible:\n"
        "    cp1252, cp1250 Ja, schön\n"
        "    gb18030        Ja, sch鰊\n"
        "    big5           Ja, sch霵\n"
        "    cp1251         Ja, schцn\n"
        "    koi8-r         Ja, schЖn\n"
        "    cp1253         Ja, schφn\n"
        "    cp1256         Ja, schِn\n"
        "    macintosh      Ja, schˆn\n"
        "  Take the one that reads right, and convert the file with it:\n"
        '    iconv -f ENCODING -t utf8 "a.srt" > "utf8-a.srt"'
    )


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (CHINESE, "gb18030"),
        ("こんにちは世界\n", "shift_jis"),
        ("안녕하세요 여러분\n", "euc-kr"),
        ("Привет, мир\n", "cp1251"),
        ("Zażółć gęślą jaźń\n", "cp1250"),
    ],
)
def test_right_encoding_is_among_those_shown(text, encoding):
    lines = refusal(text.encode(encoding)).split("\n")
    readings = dict(line.split(maxsplit=1) for line in lines[2:-2])
    assert readings[encoding] == text.split("\n")[0]


def test_encoding_that_fails_on_another_line_is_not_shown():
    # 0x81 is no letter of cp1252, so the whole file cannot be in it.
    assert "cp1252" not in refusal(b"caf\xe9\n\x81\n")


def test_long_lines_are_cut_short():
    assert f" {'x' * 59}È...\n" in refusal(b"x" * 59 + b"\xe9" + b"y" * 20)


def test_all_names_are_known_to_iconv():
    iconv = shutil.which("iconv")
    if iconv is None:
        pytest.skip("iconv is not installed")
    for encoding in CANDIDATES:
        subprocess.run([iconv, "-f", encoding, "-t", "utf8"], input=b"a", check=True)


NO_TEXT = (
    '"a.srt" is no text file: no usual encoding decodes it.\n'
    '  Expected text in UTF-8. Look at what it is: file "a.srt"'
)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"PK\x03\x04\x14\x00\x00\x00\x08\x00\xff\x81abc", id="zip"),
        pytest.param(b"abc\0def", id="stray-zero"),
        pytest.param(b"abcdefg\0", id="stray-zero-of-even-length"),
        pytest.param(b"\x00\x01\x02\x03\x04\x05", id="numbers"),
        pytest.param(b"\xff\x81\x1b", id="no-letters"),
    ],
)
def test_what_is_no_text_is_refused(content):
    assert refusal(content) == NO_TEXT


def test_damaged_text_with_a_mark_is_refused():
    assert refusal("\ufeffabc".encode("utf-16-le")[:-1]) == (
        '"a.srt" begins as UTF-16 text and is cut short or damaged (byte 6).\n'
        "  Fetch or save the file again, as UTF-8."
    )
    assert refusal(b"\xef\xbb\xbfcaf\xe9").startswith('"a.srt" begins as UTF-8 text and is cut')


def test_errors_are_of_the_class_asked_for(tmp_path):
    with pytest.raises(DatasetError) as caught:
        read_text_file(tmp_path / "label.csv", DatasetError)
    assert str(caught.value) == f'"label.csv": no such file in "{tmp_path}".'
    with pytest.raises(MediaError) as caught:
        read_text_file(tmp_path, MediaError)
    assert str(caught.value) == f'"{tmp_path.name}" cannot be read: Is a directory.'


def test_read_text_file(tmp_path):
    path = tmp_path / "a.srt"
    path.write_bytes(GERMAN.encode("utf-16"))
    assert read_text_file(path, MediaError) == GERMAN
