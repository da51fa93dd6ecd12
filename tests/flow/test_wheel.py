"""The wheel and the source distribution: what they hold, and that core dependencies are enough."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
TOP = ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in", "CHANGELOG.md", "CITATION.cff")
LARGEST = 8 * 2**20  # bytes: half of it is the starter
OF_EXTRAS = (
    "av",
    "captum",
    "fastapi",
    "mediapipe",
    "onnx",
    "optuna",
    "pandas",
    "ray",
    "transformers",
)
HOOK = "import setuptools.build_meta as backend; print(backend.build_{}('{}'))"


def call(*words, cwd=None, timeout=600):
    """Run a command as in a fresh shell, and return what it printed."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["OMP_NUM_THREADS"] = "1"  # other tests run beside this one
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Return the source distribution, and the wheel that was built from it, as `build` does."""
    folder = tmp_path_factory.mktemp("dist")
    shutil.copytree(
        ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
    )
    for name in TOP:
        shutil.copy(ROOT / name, folder)
    call(sys.executable, "-c", HOOK.format("sdist", folder), cwd=folder)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    call(sys.executable, "-c", HOOK.format("wheel", folder), cwd=unpacked)
    (wheel,) = folder.glob("*.whl")
    return sdist, wheel


def _package():
    """Return every file of the package in the checkout."""
    files = (path for path in (ROOT / "src/mmcl").rglob("*") if path.is_file())
    return {str(p.relative_to(ROOT / "src")) for p in files if "__pycache__" not in p.parts}


def test_wheel_holds_the_package_and_nothing_else(built):
    _, wheel = built
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    package = _package()
    assert {"mmcl/starter/encoder/adapter.safetensors", "mmcl/presets/mosi.toml"} <= package
    assert {name for name in names if ".dist-info/" not in name} == package
    assert wheel.stat().st_size < LARGEST


def test_source_distribution_holds_no_tests(built):
    sdist, _ = built
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {f"src/{name}" for name in _package()} <= names
    tops = {name.partition("/")[0] for name in names if name}
    assert tops == {*TOP, "PKG-INFO", "setup.cfg", "src"}
    assert sdist.stat().st_size < LARGEST


def _core_distributions(wheel):
    """Return what the metadata of a wheel asks for without an extra, and what that asks for."""
    (own,) = metadata.Distribution.discover(name="mmcl", path=[str(wheel)])
    found, asked = {}, [(line, frozenset({""})) for line in own.requires]
    while asked:
        line, extras = asked.pop()
        wanted = Requirement(line)
        if wanted.marker and not any(wanted.marker.evaluate({"extra": e}) for e in extras):
            continue
        key = (wanted.name, frozenset({"", *wanted.extras}))
        if key not in found:
            found[key] = metadata.distribution(wanted.name)
            assert wanted.specifier.contains(found[key].version, prereleases=True), line
            asked += [(line, key[1]) for line in found[key].requires or ()]
    return found.values()


@pytest.fixture(scope="module")
def core(built, tmp_path_factory):
    """Return a virtual environment with the wheel, which sees its core dependencies alone.

    They are links to the installed ones, so that nothing is downloaded.
    """
    environment = tmp_path_factory.mktemp("core") / "venv"
    call(sys.executable, "-m", "venv", "--without-pip", environment)
    (packages,) = environment.glob("lib/python*/site-packages")
    for distribution in _core_distributions(built[1]):
        tops = {file.parts[0] for file in distribution.files}
        for top in tops - {"..", "__pycache__"}:
            if not (packages / top).exists():
                (packages / top).symlink_to(distribution.locate_file(top))
    pip = (sys.executable, "-m", "pip", "--python", environment / "bin/python")
    call(*pip, "install", "--quiet", "--no-deps", "--no-index", "--no-compile", built[1])
    return environment


@pytest.mark.timeout(700)
def test_demo_runs_with_core_dependencies_alone(core, tmp_path):
    script = f"from importlib.util import find_spec; print(*filter(find_spec, {OF_EXTRAS}))"
    assert call(core / "bin/python", "-c", script).strip() == ""
    printed = call(core / "bin/mmcl", "demo", "--quick", "--out", "demo", cwd=tmp_path)
    assert "timeline.html is left out" in printed
    assert "Planted data: the right answer is known" in (tmp_path / "demo/report.html").read_text()
