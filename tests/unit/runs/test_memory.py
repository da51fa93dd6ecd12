"""How many trainings with a language model fit into memory."""

import pytest

from fakes.tiny_bert import tiny_bert
from mmcl.cli.train import fitting_workers
from mmcl.config import resolve_config
from mmcl.runs import memory
from mmcl.runs.memory import workers_that_fit

MIB = 1024  # of the file's kB


@pytest.fixture
def free(tmp_path, monkeypatch):
    """Return a function that sets the free memory, in MiB."""

    def set_free(mib):
        file = tmp_path / "meminfo"
        file.write_text(f"MemTotal:  99999999 kB\nMemAvailable:  {mib * MIB} kB\n")
        monkeypatch.setattr(memory, "MEMORY_FILE", file)

    return set_free


@pytest.fixture
def config(tmp_path):
    bert = tiny_bert(tmp_path / "bert")
    return resolve_config(overrides=[f"text.encoder={bert}", "text.max_tokens=24"])


def test_fewer_trainings_where_memory_is_short(free, config):
    free(2000)  # a process takes 717 MiB, and a tiny encoder next to nothing
    count, note = workers_that_fit(4, config)
    assert count == 2
    assert note == (
        "2 trainings at a time, not 4: with text.encoder each takes about 0.7 GiB, "
        "and 2.0 GiB are free"
    )


def test_one_training_always_runs(free, config):
    free(10)
    assert workers_that_fit(2, config)[0] == 1


def test_nothing_is_said_where_all_fit(free, config):
    free(4000)
    assert workers_that_fit(4, config) == (4, None)


def test_nothing_is_checked_without_an_encoder(free):
    free(10)
    assert workers_that_fit(4, resolve_config()) == (4, None)


def test_nothing_is_checked_where_memory_is_unknown(config, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "MEMORY_FILE", tmp_path / "absent")
    assert workers_that_fit(4, config) == (4, None)


def test_longer_batches_need_more(config):
    longer = resolve_config(
        overrides=[
            f"text.encoder={config.text.encoder}",
            "text.max_tokens=24",
            "learning.batch_size=4096",
        ]
    )
    assert memory._training_bytes(longer) > memory._training_bytes(config)


def test_command_says_so(free, config, capsys):
    free(10)
    assert fitting_workers(3, config) == 1
    assert capsys.readouterr().err.startswith("note: 1 training at a time, not 3")
