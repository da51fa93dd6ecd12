"""The pages: written from the code where they can be, and naming only what exists."""

import importlib.util
import re
from pathlib import Path

import pytest

from mmcl import errors
from mmcl.models.baselines.baseline import Baseline
from mmcl.types import BASELINES, VARIANTS

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


@pytest.mark.parametrize("name", ["commands", "settings"])
def test_page_is_what_the_code_says(name):
    spec = importlib.util.spec_from_file_location(f"{name}_page", ROOT / f"docs/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = (ROOT / f"docs/{name}.md").read_text()
    assert page == module.page(), f"write it anew: python docs/{name}.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    """In a checkout; those of the site are looked at when it is built (make docs)."""
    links = re.findall(r"(?:\]\(|(?:src|srcset)=\")(?!https?:)([^)#\"]+)", page.read_text())
    missing = [link for link in links if not (page.parent / link).exists()]
    assert missing == []


def test_errors_page_has_every_kind_with_its_exit_code():
    rows = re.findall(r"^\| `(\w+)` \| (\d) \|", (ROOT / "docs/errors.md").read_text(), re.M)
    kinds = [getattr(errors, name) for name in errors.__all__ if name.endswith("Error")]
    expected = {(kind.__name__, str(kind.exit_code)) for kind in kinds}
    assert set(rows) == expected - {("MMCLError", "1")}


def test_method_page_names_files_that_exist():
    text = (ROOT / "docs/method.md").read_text()
    tests = set(re.findall(r"`(?:unit/\w+/)?(test_\w+\.py)`", text))
    sources = set(re.findall(r"`((?:models|learning|evaluation)/\w+\.py)`", text))
    known = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    assert len(tests) > 8
    assert tests <= known
    assert all((ROOT / "src/mmcl" / source).exists() for source in sources)


def test_models_page_has_a_row_for_every_model():
    text = (ROOT / "docs/models.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \|", text, re.M)
    assert sorted(rows) == sorted([*VARIANTS, *BASELINES])
    methods = set(re.findall(r"`(\w+)(?:\(|`)", text.split("## Your own model")[1]))
    assert {"predict", "auxiliary_loss", "training_state", "load_training_state"} <= methods
    assert all(hasattr(Baseline, name) for name in methods if "_" in name and "my" not in name)
