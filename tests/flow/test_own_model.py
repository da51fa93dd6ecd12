"""A model of another package: the one of docs/models.md, registered, trained and loaded."""

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mmcl.cli.main import main
from mmcl.config import model_names
from mmcl.corpus.plant import PlantSettings, plant_card, plant_clips
from mmcl.corpus.store import write_corpus
from mmcl.errors import ConfigError
from mmcl.models.baselines.baseline import Baseline
from mmcl.models.registry import load_network, network_class

PAGE = (Path(__file__).parents[2] / "docs/models.md").read_text()
OWN = PAGE.split("## Your own model")[1]
CODE, TOML = (re.search(rf"```{kind}\n(.*?)```", OWN, re.S)[1] for kind in ("python", "toml"))
PREDICT = ("predict", "runs/mine", "planted.arrow", "--out", "new.csv")
SMALL = ("learning.epochs=2", "learning.batch_size=8", "runtime.threads=1")


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Put a package with entry points on the path, as an installer would leave it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "site")

    def write(entry):
        module = tmp_path / "site" / "my_package"
        module.mkdir(parents=True)
        (module / "__init__.py").touch()
        (module / "my_model.py").write_text(CODE)
        info = tmp_path / "site" / "my_package-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[mmcl.models]\n{entry}\n")
        importlib.invalidate_caches()

    yield write
    importlib.invalidate_caches()
    for loaded in [key for key in sys.modules if key.split(".")[0] == "my_package"]:
        del sys.modules[loaded]


@pytest.fixture
def installed(install):
    install(TOML.splitlines()[1].replace('"', ""))


@pytest.fixture
def corpus(tmp_path):
    settings = PlantSettings(train=24, valid=8, test=8)
    write_corpus(tmp_path / "planted.arrow", plant_card(settings), plant_clips(settings))


def words(*asked, model="my_model", out="runs/mine"):
    pairs = [word for pair in (*SMALL, *asked) for word in ("--set", pair)]
    return ["train", "planted.arrow", "--out", out, "--model", model, *pairs]


def refused(capsys, given):
    capsys.readouterr()
    code = main(given)
    printed = capsys.readouterr()
    assert printed.out == ""
    return code, printed.err


def test_page_names_the_group_and_shows_the_commands():
    assert TOML.splitlines()[0] == '[project.entry-points."mmcl.models"]'
    assert "mmcl train planted.arrow --out runs/mine --model my_model" in OWN
    assert "my_model" not in model_names()


@pytest.mark.usefixtures("corpus", "installed")
def test_own_model_is_trained_saved_and_loaded(capsys):
    assert "my_model" in model_names()
    assert main(words("model.options.width=16")) == 0
    assert capsys.readouterr().out.splitlines()[0].strip().startswith("my_model on planted, 1 seed")

    model = load_network("runs/mine/seed-1/model")
    assert type(model) is network_class("my_model")
    assert isinstance(model, Baseline)
    assert type(model).__module__ == "my_package.my_model"
    assert model.hidden.weight.shape == (16, 96 + 48 + 24)

    assert main(["evaluate", "runs/mine", "--corpus", "planted.arrow", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["model"] == "my_model"
    assert (
        report["test"]["mae"]
        == json.loads(Path("runs/mine/metrics.json").read_text())["test"]["mae"]
    )

    # And in a process of its own, which has imported nothing of it before.
    done = subprocess.run(
        [sys.executable, "-m", "mmcl.cli.main", *PREDICT],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(["site", *sys.path])},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert Path("new.csv").read_text().count("\n") == 41


@pytest.mark.usefixtures("corpus", "installed")
def test_misspelt_name_is_offered_the_nearest(capsys):
    assert refused(capsys, words(model="my_modle")) == (
        2,
        "ConfigError: preset planted has 1 problem\n"
        '  model.name: unknown model "my_modle"; did you mean "my_model"?\n',
    )
    assert not Path("runs").exists()


@pytest.mark.usefixtures("corpus", "installed")
def test_misspelt_option_is_offered_the_nearest(capsys):
    assert refused(capsys, words("model.options.widht=16", "model.options.sign=true")) == (
        2,
        "ConfigError: options of my_model have 2 problems\n"
        "  model.options.sign: unknown key\n"
        '  model.options.widht: unknown key; did you mean "width"?\n'
        "  Options of my_model: width\n",
    )


@pytest.mark.usefixtures("corpus")
def test_entry_point_that_is_no_network_is_refused(install, capsys):
    install("my_model = my_package.my_model:masked_mean")
    code, message = refused(capsys, words())
    assert code == 2
    assert message.startswith(
        'ConfigError: model "my_model" must be a class of mmcl\'s Network, got <function '
    )


@pytest.mark.usefixtures("corpus")
@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("my_package.mein_model:MyModel", "No module named 'my_package.mein_model'"),
        (
            "my_package.my_model:YourModel",
            "module 'my_package.my_model' has no attribute 'YourModel'",
        ),
    ],
)
def test_entry_point_that_leads_nowhere_is_refused(install, capsys, entry, reason):
    install(f"my_model = {entry}")
    assert refused(capsys, words()) == (
        2,
        f'ConfigError: model "my_model" cannot be imported from {entry} ({reason}).\n'
        "  my-package 1.0 registers it: mend its entry point, or remove the package\n",
    )


def test_name_that_was_never_registered_lists_all():
    with pytest.raises(ConfigError) as caught:
        network_class("my_model")
    assert str(caught.value) == (f'unknown model "my_model"\n  Models: {", ".join(model_names())}')
