"""The house itself: who may import whom, who may open the test split, and what stays light."""

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import mmcl

SOURCE = Path(mmcl.__file__).parent
ROOMS = ("corpus", "media", "models", "learning", "evaluation", "runs", "explain", "serve", "cli")
GROUND_FLOOR = {
    *("errors", "types", "config", "runtime", "files", "outputs", "extras", "pool", "pool_ray"),
    *("text_files", "other_version", "limits", "plain"),
}
LONGEST_MODULE = 500  # lines: longer ones want to be two
FILES = sorted(SOURCE.rglob("*.py"))
MODULES = sorted(m.name for m in pkgutil.walk_packages([str(SOURCE)], prefix="mmcl."))


def _room(path: Path) -> str | None:
    first = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    return first if first in ROOMS else None


def _imports(path: Path, *, all_packages: bool = False) -> set[str]:
    found = _names_of(ast.walk(ast.parse(path.read_text())))
    return {name for name in found if all_packages or name.split(".")[0] == "mmcl"}


def _names_of(nodes) -> set[str]:
    """Modules that some of these nodes import."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def test_every_file_has_its_place():
    names = {p.relative_to(SOURCE).parts[0].removesuffix(".py") for p in FILES}
    assert names <= {*ROOMS, *GROUND_FLOOR, "__init__", "__main__"}
    assert len(FILES) > 40


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_go_from_right_to_left_only(path):
    room = _room(path)
    if path in (SOURCE / "__init__.py", SOURCE / "__main__.py"):
        return  # The front doors: one names what every room offers, one is the command.
    allowed = {f"mmcl.{name}" for name in GROUND_FLOOR}
    if room is not None:
        allowed |= {f"mmcl.{name}" for name in ROOMS[: ROOMS.index(room) + 1]}
    for name in _imports(path):
        assert ".".join(name.split(".")[:2]) in allowed, f"{path} imports {name}"


def test_processes_are_begun_in_two_places_alone():
    """The pool, and the service's supervisor, which limits a worker's time and memory."""
    allowed = {"pool.py", "serve/supervisor.py"}
    libraries = {"multiprocessing", "concurrent.futures.process", "pebble", "torch.multiprocessing"}
    for path in FILES:
        if str(path.relative_to(SOURCE)) not in allowed:
            text = path.read_text()
            assert "ProcessPoolExecutor" not in text, path
            names = _imports(path, all_packages=True)
            used = {n for n in names for lib in libraries if f"{n}.".startswith(f"{lib}.")}
            assert not used, f"{path} imports {used}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_modules_stay_short_and_gradients_are_torchs(path):
    text = path.read_text()
    assert text.count("\n") <= LONGEST_MODULE
    assert "autograd.Function" not in text
    assert "torch._C" not in text
    assert "torch.ops.aten._" not in text


def test_libraries_that_load_slowly_are_imported_where_they_are_used():
    """Half a second or more each, for which every command and worker would wait."""
    slow = ("sklearn.", "scipy.stats.", "lightning_fabric.", "pandas.")
    for path in FILES:
        names = _names_of(ast.parse(path.read_text()).body)  # not those in a function
        assert not [name for name in names if f"{name}.".startswith(slow)], path


def test_only_the_protocol_opens_the_test_split():
    doors = {
        str(path.relative_to(SOURCE))
        for path in FILES
        if _room(path) != "corpus" and "open_test_split" in path.read_text()
    }
    assert doors == {"evaluation/protocol.py"}
    # A DataFrame holds the test labels too: it is for users, and no module makes one.
    assert not [path for path in FILES if ".to_pandas(" in path.read_text()]


@pytest.mark.parametrize("room", [r for r in ROOMS if (SOURCE / r).is_dir()])
def test_every_room_says_what_it_is_for(room):
    text = importlib.import_module(f"mmcl.{room}").__doc__ or ""
    assert len(text.split()) >= 20


def test_architecture_page_names_every_room():
    page = (SOURCE.parents[1] / "docs/architecture.md").read_text()
    rooms = [path.parent.name for path in SOURCE.glob("*/__init__.py")]
    folders = {path.name for path in SOURCE.iterdir() if path.is_dir() and path.name[0] != "_"}
    assert sorted(rooms) == sorted(ROOMS)
    # In the order of imports, after the ground floor.
    assert re.findall(r"^\| `(\w+)` \|", page.split("## Beside")[0], re.M) == list(ROOMS)
    assert [name for name in folders if f"`{name}`" not in page] == []


@pytest.mark.parametrize("name", MODULES)
def test_public_names_exist(name):
    module = importlib.import_module(name)
    public = getattr(module, "__all__", None)
    if hasattr(module, "__path__"):
        return
    assert public, f"{name} has no __all__"
    assert all(hasattr(module, each) for each in public)


def test_front_door_offers_what_it_names():
    assert sorted(mmcl.__all__) == sorted(mmcl._HOMES)
    assert all(getattr(mmcl, name) is not None for name in mmcl.__all__)
    assert mmcl.__version__ == metadata.version("mmcl")
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = mmcl.nothing


@pytest.mark.parametrize(
    ("statement", "unwanted"),
    [
        ("import mmcl", {"torch", "numpy", "pyarrow", "pydantic", "sklearn"}),
        ("import mmcl.cli.main", {"torch", "sklearn", "scipy", "plotly"}),
    ],
)
def test_import_stays_light(statement, unwanted):
    script = f"import sys; {statement}; print(*{{m.split('.')[0] for m in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert not unwanted & set(done.stdout.split())


def test_package_that_is_not_installed_has_no_version(monkeypatch):
    def unknown(name):
        raise metadata.PackageNotFoundError(name)

    assert mmcl.__version__
    monkeypatch.setattr("importlib.metadata.version", unknown)
    assert not hasattr(mmcl, "__version__")
