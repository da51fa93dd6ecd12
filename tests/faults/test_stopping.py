"""Commands that are stopped or killed: no child outlives them, and what is done is kept."""

import signal
import sys

import pytest

from fakes.commands import LONGEST_WAIT, family, started, wait_for
from faults.inputs import EARLIER_RUN
from mmcl.cli.main import main
from mmcl.corpus.plant import PlantSettings, plant_card, plant_clips
from mmcl.corpus.store import write_corpus

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

# Every child must have ended so long after its command: 5 s are promised, and up to 2.4 s were
# measured. The rest is for machines that have other work.
SECONDS = 10
STOPPED = "Stopped. To continue, give the same command again; mmcl train also needs --resume.\n"
LONG = ["--set", "learning.epochs=100000"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    settings = PlantSettings(train=40, valid=10, test=10)
    path = tmp_path_factory.mktemp("stopping") / "planted.arrow"
    return write_corpus(path, plant_card(settings), plant_clips(settings))


def commands(corpus, out):
    """Long commands by their names, and the file that shows that they are under way."""
    return {
        "train": (["train", corpus, "--out", out, *LONG], "seed-1/history.csv"),
        "seeds": (
            ["train", corpus, "--out", out, "--seeds", "1,2", "--workers", "2", *LONG],
            "seed-2/history.csv",
        ),
        "together": (
            ["train", corpus, "--out", out, "--set", "runtime.devices=2", *LONG],
            "seed-1/history.csv",
        ),
        "tune": (
            ["tune", corpus, "--out", out, "--workers", "2", *LONG],
            "trials/1/history.csv",
        ),
        "compare": (
            ["compare", corpus, "--out", out, "--models", "text_only", "--workers", "2", *LONG],
            "models/text_only/seed-2/history.csv",
        ),
    }


@pytest.fixture
def hang_up_counts():
    """Let children notice SIGHUP, which these tests themselves may ignore (nohup)."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hang_up_counts")
@pytest.mark.parametrize(
    ("name", "signals"),
    [
        ("train", [signal.SIGHUP]),  # a terminal that hangs up
        ("seeds", [signal.SIGTERM, signal.SIGTERM]),  # the second must not disturb the first
        ("tune", [signal.SIGTERM]),
        ("compare", [signal.SIGTERM]),
    ],
)
def test_signal_ends_a_command_and_its_children_like_ctrl_c(corpus, tmp_path, name, signals):
    words, begun = commands(corpus, tmp_path / "out")[name]
    with started(*words) as process:
        wait_for((tmp_path / "out" / begun).exists, process)
        for number in signals:
            process.send_signal(number)
        process.wait(LONGEST_WAIT)
        wait_for(lambda: family(process) == [], seconds=SECONDS)
        code, said = process.returncode, process.stderr.read()
    assert (code, said[-len(STOPPED) :]) == (128 + signals[0], STOPPED)
    assert "Traceback" not in said
    assert list((tmp_path / "out").rglob("*history.csv"))


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("together", signal.SIGTERM),  # the others are above
        ("together", signal.SIGKILL),
        ("seeds", signal.SIGKILL),  # tune and compare have the same pool
    ],
)
def test_no_child_outlives_its_command(corpus, tmp_path, name, number):
    words, begun = commands(corpus, tmp_path / "out")[name]
    with started(*words) as process:
        wait_for((tmp_path / "out" / begun).exists, process)
        assert len(family(process)) > 1
        process.send_signal(number)
        process.wait(LONGEST_WAIT)
        wait_for(lambda: family(process) == [], seconds=SECONDS)


def test_handlers_are_as_before_when_a_command_has_ended(capsys):
    before = signal.getsignal(signal.SIGTERM)
    assert main(["--help"]) == 0
    assert signal.getsignal(signal.SIGTERM) == before


def test_terminal_that_lacks_a_letter_gets_another():
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii:strict"}
    with started("evaluate", EARLIER_RUN / "run", **ascii_only) as process:
        out, err = process.communicate(timeout=LONGEST_WAIT)
    assert (process.returncode, err) == (0, "")
    assert "(mean ? s.d.)" in out  # ±
