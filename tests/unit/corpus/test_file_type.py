"""Files of every other type: named by their content, with what to do, whatever their name is."""

import gzip
import hashlib
import io
import lzma
import pickle
import sqlite3
import tarfile
import zipfile
from collections import OrderedDict

import h5py
import numpy as np
import pytest
import scipy.io
import torch

from mmcl.corpus.readers import read_corpus
from mmcl.corpus.readers.file_type import csd_files, file_type
from mmcl.errors import DatasetError

EXPECTED = (
    "  Expected a pickle (plain or gzip'd), an npz file, a table (csv, Parquet, Arrow) or "
    ".csd files.\n"
)
LAYOUTS = "\n  The layouts that can be read: mmcl corpus convert --help"
NPZ = "save its arrays as npz with the names of their splits and fields"


def zipped(*names):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, "content")
    return buffer.getvalue()


def tarred(*names, mode="w"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 3
            archive.addfile(info, io.BytesIO(b"abc"))
    return buffer.getvalue()


def saved_by(save):
    buffer = io.BytesIO()
    save(buffer)
    return buffer.getvalue()


TENSORS = {"train": {"text": torch.zeros(2, 3)}}
TORCH = (
    "Nothing of it was run. Load it where it was made, by "
    'torch.load("{path}", weights_only=True), and save its arrays as npz.'
)
PAGE = (
    "The download stopped at a question or a login. Open the link in a browser, or for Google "
    "Drive: pip install gdown && gdown --fuzzy LINK"
)
UNPACK = "Unpack it first, then convert the file in it: "
MEDIA = "Make a corpus of recordings: mmcl extract {path} --out mine.arrow"


@pytest.mark.parametrize(
    ("content", "what", "advice"),
    [
        pytest.param(
            b"<!DOCTYPE html><html><head><title>Dropbox - Login</title></head></html>",
            'a web page "Dropbox - Login", not the file',
            PAGE,
            id="page",
        ),
        pytest.param(
            b"\xef\xbb\xbf\n  <!-- made by x --><HTML lang=en>",
            "a web page, not the file",
            PAGE,
            id="page-with-mark",
        ),
        pytest.param(
            b"<Error><Code>AccessDenied</Code></Error>",
            "XML, often the error of a server",
            'It begins: "<Error><Code>AccessDenied</Code></Error>". Fetch it again.',
            id="server-error",
        ),
        pytest.param(
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
            "a Git LFS pointer, not the file itself",
            "Fetch the file in the repository: git lfs install && git lfs pull",
            id="lfs",
        ),
        pytest.param(
            b"outs:\n- md5: 00\n  path: mosi.pkl\n",
            "a DVC pointer, not the file itself",
            "Fetch the file: dvc pull",
            id="dvc",
        ),
        pytest.param(
            b"/annex/objects/MD5E-s1--00.pkl\n",
            "a git-annex pointer, not the file itself",
            "Fetch the file: git annex get {path}",
            id="annex",
        ),
        pytest.param(
            saved_by(lambda file: np.save(file, np.zeros((2, 3)))),
            "a single array (npy)",
            "A corpus has several arrays: save them in one file with "
            'np.savez("mine.npz", **{"train/text": ..., "train/labels": ..., "test/text": ...}).',
            id="npy",
        ),
        pytest.param(saved_by(lambda f: torch.save(TENSORS, f)), "a torch file", TORCH, id="torch"),
        pytest.param(
            saved_by(lambda f: torch.save(TENSORS, f, _use_new_zipfile_serialization=False)),
            "a torch file of the old form",
            TORCH,
            id="torch-old",
        ),
        pytest.param(
            zipped("MOSI/", "MOSI/README", "MOSI/aligned_50.pkl"),
            "a zip archive with MOSI/aligned_50.pkl, MOSI/README",
            f"{UNPACK}unzip {{path}}",
            id="zip",
        ),
        pytest.param(
            zipped("feat/a.npy", "feat/label.csv"),
            "a zip archive with feat/label.csv, feat/a.npy",
            f"{UNPACK}unzip {{path}}",
            id="zip-of-arrays-and-labels",
        ),
        pytest.param(
            zipped("[Content_Types].xml", "xl/workbook.xml"),
            "an Excel file",
            "Save the table as csv (UTF-8), with the columns of docs/data.md.",
            id="excel",
        ),
        pytest.param(
            zipped("[Content_Types].xml", "word/document.xml"),
            "an Office document",
            "Save the table as csv (UTF-8), with the columns of docs/data.md.",
            id="word",
        ),
        pytest.param(
            zipped(), "an archive or npz file with nothing in it", "Write it again.", id="empty-zip"
        ),
        pytest.param(
            zipped("MOSI/a.pkl")[:-10],
            "a zip archive that is cut short or damaged",
            "Fetch it again; unzip -t {path}",
            id="damaged-zip",
        ),
        pytest.param(
            tarred("a/x.csd", "a/b.txt", "a/c.txt", "a/d.txt"),
            "a tar archive with a/x.csd, a/b.txt, a/c.txt, ...",
            f"{UNPACK}tar xf {{path}}",
            id="tar",
        ),
        pytest.param(
            tarred("sims.pkl", mode="w:gz"),
            "a tar archive, compressed by gzip with sims.pkl",
            f"{UNPACK}tar xzf {{path}}",
            id="tar-gz",
        ),
        pytest.param(
            b"7z\xbc\xaf\x27\x1c\x00", "a 7z archive", "Unpack it first: 7z x {path}", id="7z"
        ),
        pytest.param(
            b"Rar!\x1a\x07\x01\x00", "a rar archive", "Unpack it first: unrar x {path}", id="rar"
        ),
        pytest.param(
            lzma.compress(b"x"), "compressed by xz", "Decompress it first: xz -dk {path}", id="xz"
        ),
        pytest.param(
            gzip.compress(b"split,label\ntrain,1\n", mtime=0),
            "compressed by gzip, and no pickle",
            "Only pickles are read compressed. Decompress it first: gunzip -k {path}",
            id="csv-gz",
        ),
        pytest.param(
            saved_by(lambda file: scipy.io.savemat(file, {"a": np.zeros(3)})),
            "a MATLAB file (version 5)",
            f"Open it with scipy.io.loadmat and {NPZ}.",
            id="matlab",
        ),
        pytest.param(
            b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512) + b"\x89HDF\r\n\x1a\n",
            "a MATLAB file (version 7.3)",
            f"Open it with h5py (the axes are reversed) and {NPZ}.",
            id="matlab-7.3",
        ),
        pytest.param(
            b'{"train": {"text": [1]}}',
            "JSON",
            f'It begins: "{{"train": {{"text": [1]}}}}". If it is the data: {NPZ}, or save it as '
            "csv.",
            id="json",
        ),
        pytest.param(
            b"Too many users have viewed this file\n",
            "a text, not a table",
            'It begins: "Too many users have viewed this file". If it is the answer of a server, '
            "fetch the file again.",
            id="text",
        ),
        pytest.param(
            b"1\n00:00:01,000 --> 00:00:02,000\nHello\n",
            "subtitles",
            "Subtitles are read beside their recording, of the same name: mmcl extract FOLDER",
            id="srt",
        ),
        pytest.param(b"\x00\x00\x00\x18ftypmp42", "a video or recording (MP4)", MEDIA, id="mp4"),
        pytest.param(b"RIFF\x00\x00\x00\x00WAVEfmt ", "a recording (WAVE)", MEDIA, id="wav"),
        pytest.param(b"\x1a\x45\xdf\xa3\x01", "a video (Matroska or WebM)", MEDIA, id="mkv"),
        pytest.param(
            b"\x10\x00\x00\x00\x00\x00\x00\x00" + b'{"a":{}}        ',
            "a safetensors file",
            f"Load it and {NPZ}.",
            id="safetensors",
        ),
    ],
)
@pytest.mark.parametrize("name", ["x.pkl", "x.npz"])
def test_file_of_another_type_is_named(tmp_path, content, what, advice, name):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DatasetError) as caught:
        read_corpus(path)
    told = advice.replace("{path}", str(path))
    assert str(caught.value) == f"{path}: {what}.\n{EXPECTED}  {told}{LAYOUTS}"


def test_database_is_named(tmp_path):
    path = tmp_path / "x.pkl"
    with sqlite3.connect(path) as database:
        database.execute("create table a (b)")
    database.close()
    with pytest.raises(DatasetError, match=r"x\.pkl: an SQLite database\."):
        file_type(path)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        *((pickle.dumps({"a": [1, 2]}, protocol=p), "pickle") for p in range(6)),
        *((pickle.dumps([("a", 1.5)], protocol=p), "pickle") for p in range(6)),
        *((pickle.dumps(OrderedDict(a=1), protocol=p), "pickle") for p in range(6)),
        *((pickle.dumps(np.zeros(3), protocol=p), "pickle") for p in range(6)),
        (gzip.compress(pickle.dumps({"a": 1}), mtime=0), "pickle"),
        (gzip.compress(pickle.dumps({"a": 1}), mtime=0)[:12], "pickle"),
        (b"\x00\x01\x02\x03 no known type", "pickle"),
        (b"\x00" * 600, "pickle"),
        (saved_by(lambda f: np.savez(f, a=np.zeros(2))), "npz"),
        (saved_by(lambda f: np.savez(f, a=np.zeros(2)))[:-8], "npz"),
        (b"PAR1 and so on", "parquet"),
        (b"ARROW1\x00\x00", "arrow"),
        (b"split,label\ntrain,1", "text table"),
        (b"clip\tlabel\r\n1\t2", "text table"),
        ("split;label\nträin;1".encode("utf-16"), "text table"),
        (b"\xef\xbb\xbfsplit;label", "text table"),
        (b"\x89HDF\r\n\x1a\n", "hdf5"),
        (b"of the owner".ljust(512) + b"\x89HDF\r\n\x1a\n", "hdf5"),
    ],
    ids=lambda value: value if isinstance(value, str) else hashlib.sha256(value).hexdigest()[:8],
)
def test_types_that_are_read(tmp_path, content, kind):
    path = tmp_path / "file.mp4"  # the name says nothing
    path.write_bytes(content)
    assert file_type(path) == kind


@pytest.mark.parametrize(
    ("files", "what", "advice"),
    [
        (
            ["run.json", "0/model.safetensors"],
            "a folder of a run",
            "What it can be used for: mmcl evaluate {path}",
        ),
        (
            ["label.csv", "Raw/a/1.mp4"],
            "a folder of recordings with label.csv",
            "Make a corpus of them: mmcl extract {path} --out corpus.arrow",
        ),
        (["README", "a.pkl", "b.pkl"], "a folder", "Name a file in it: {path}/a.pkl"),
        (["README"], "a folder", "Name a file in it: {path}/FILE"),
    ],
)
def test_folder_is_named(tmp_path, files, what, advice):
    folder = tmp_path / "corpus"
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    with pytest.raises(DatasetError) as caught:
        read_corpus(folder)
    told = advice.replace("{path}", str(folder))
    assert str(caught.value) == f"{folder}: {what}.\n{EXPECTED}  {told}{LAYOUTS}"


def test_folder_of_csd_files(tmp_path):
    for name in ("b.csd", "a.h5"):
        h5py.File(tmp_path / name, "w").close()
    (tmp_path / "readme.csd").write_text("no HDF5")
    assert csd_files(tmp_path) == [tmp_path / "a.h5", tmp_path / "b.csd"]


def test_file_of_no_known_type_is_no_pickle(tmp_path):
    path = tmp_path / "x.pkl"
    path.write_bytes(b"\x00\x01\x02\x03")
    with pytest.raises(DatasetError, match="not a readable pickle"):
        read_corpus(path)


@pytest.mark.parametrize("column", ["PK", "PARENT", "ORCID", "ID3 tag", "BZh"])
def test_table_whose_first_column_has_the_letters_of_another_type(tmp_path, column):
    path = tmp_path / "x.csv"
    path.write_text(f"{column},split,label\n1,train,0.5\n")
    assert file_type(path) == "text table"
