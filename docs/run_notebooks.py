"""Run the notebooks of docs/notebooks and keep what they print: python docs/run_notebooks.py.

A test runs them too, and compares the words of their outputs.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

__all__ = ["NOTEBOOKS", "executed"]

COLOURS = re.compile(r"\x1b\[[\d;]*m")
NOTEBOOKS = sorted((Path(__file__).parent / "notebooks").glob("*.ipynb"))


def executed(path: Path, folder: Path) -> nbformat.NotebookNode:
    """Run a notebook in a folder; return it with its new outputs.

    Raises:
        CellExecutionError: If a cell raises.
    """
    notebook = nbformat.read(path, as_version=4)
    # The commands of this environment are found, whether or not it is activated.
    beside = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": beside, "COLUMNS": "90", "HF_HUB_OFFLINE": "1"}
    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        coalesce_streams=True,
    )
    client.execute(env=environment)
    for cell in notebook.cells:
        if cell.cell_type == "code":  # what stands in stderr is of this machine alone
            cell.outputs = [each for each in cell.outputs if each.get("name") != "stderr"]
            for output in cell.outputs:
                if "text" in output:
                    output.text = COLOURS.sub("", output.text)
    return notebook


def main() -> None:
    """Run all notebooks, each in a new folder, and write them."""
    for path in NOTEBOOKS:
        with tempfile.TemporaryDirectory() as folder:
            notebook = executed(path, Path(folder))
        nbformat.write(notebook, path)
        print(path)


if __name__ == "__main__":
    main()
