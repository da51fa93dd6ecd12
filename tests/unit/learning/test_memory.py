"""Memory of a batch: an estimate that is never above what is kept, and a refusal that helps."""

import pytest
import torch

from mmcl.config import Config
from mmcl.corpus.batches import collate
from mmcl.errors import TrainingError
from mmcl.learning import memory
from mmcl.learning.inference import targets_of
from mmcl.learning.learner import make_learner
from mmcl.learning.loop import build_model, fit
from mmcl.runtime import make_fabric


def _kept(corpus, config):
    """Bytes that one training step keeps for its gradient, and their estimate."""
    model = build_model(corpus, config)
    learner = make_learner(model.train(), config, make_fabric(config.runtime))
    split = corpus.split("train")
    batch = collate(split, range(24), model.modalities, targets_of(split))
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    sizes = {}

    def note(x):
        storage = x.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        learner.joint(batch)
    lengths = {m: int(split.lengths(m).max()) for m in model.modalities}
    return sum(sizes.values()), memory.batch_bytes(model, lengths, 24)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("kind", ["rloo", "task", "ones"])
def test_estimate_is_near_and_not_above_what_is_kept(planted, tiny_config, aligned, kind):
    config = tiny_config(f"policy.kind={kind}", "model.width=32", "model.inner_width=64")
    kept, estimate = _kept(planted(aligned=aligned, train=24), config)
    # What rloo's second sample came to lies in the same memory as the first, which is kept.
    assert (0.5 if kind == "rloo" else 0.6) * kept < estimate < kept


@pytest.mark.parametrize("name", ["released", "late_fusion", "ef_lstm", "mult"])
def test_estimate_is_not_above_what_others_keep(planted, tiny_config, name):
    kept, estimate = _kept(planted(aligned=False), tiny_config(model=name))
    assert 0 < estimate < kept


@pytest.fixture
def refusal(tmp_path, tiny_corpus, monkeypatch):
    def run(config, available):
        monkeypatch.setattr(memory, "available_bytes", lambda: available)
        with pytest.raises(TrainingError) as caught:
            fit(tiny_corpus.development(), config, seed=1, folder=tmp_path)
        return str(caught.value)

    return run


def _needed(corpus, config, size):
    model = build_model(corpus, config)
    return memory.batch_bytes(model, dict.fromkeys(model.modalities, 20), size)


def test_batch_that_cannot_fit_is_refused(tiny_corpus, tiny_config, refusal):
    config = tiny_config()
    needed = _needed(tiny_corpus, config, 8)
    message = refusal(config, needed // 2 + 1)
    assert message == (
        f"a batch of 8 clips of up to 20 steps needs at least {needed / 2**30:.1f} GiB of memory, "
        "and 0.0 GiB are free.\n"
        "  Lower it: --set learning.batch_size=4\n"
        "  See how long the clips are: mmcl corpus describe CORPUS"
    )


def test_clip_that_cannot_fit_is_refused(tiny_corpus, tiny_config, refusal):
    config = tiny_config("learning.batch_size=1")
    message = refusal(config, 1000)
    assert message.startswith("a batch of 1 clip of up to 20 steps needs at least ")
    assert "\n  Lower it: --set model.width=4, or cut the clips\n" in message


def test_batch_that_just_fits_trains(tmp_path, tiny_corpus, tiny_config, monkeypatch):
    config = tiny_config()
    monkeypatch.setattr(memory, "available_bytes", lambda: _needed(tiny_corpus, config, 8))
    fit(tiny_corpus.development(), config, seed=1, folder=tmp_path)


def test_batch_larger_than_the_corpus_counts_as_the_corpus(tiny_corpus, tiny_config, monkeypatch):
    # 24 clips: a batch size of a million is no reason to refuse.
    config = tiny_config("learning.batch_size=1000000")
    model = build_model(tiny_corpus, config)
    monkeypatch.setattr(memory, "available_bytes", lambda: _needed(tiny_corpus, config, 24))
    memory.check_memory(model, tiny_corpus.split("train"), config.learning)


def test_what_is_not_known_refuses_nothing(tiny_corpus, tiny_config, monkeypatch):
    model = build_model(tiny_corpus, Config())
    monkeypatch.setattr(memory, "available_bytes", lambda: None)
    memory.check_memory(model, tiny_corpus.split("train"), Config().learning)


def test_memory_of_a_container_counts(tmp_path, monkeypatch):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 9000 kB\nMemAvailable:    4000 kB\n")
    monkeypatch.setattr(memory, "_MEMINFO", meminfo)
    monkeypatch.setattr(memory, "_CONTAINER", tmp_path)
    assert memory.available_bytes() == 4000 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 600\ninactive_file 50\nfile 80\n")
    assert memory.available_bytes() == 4000 * 1024
    (tmp_path / "memory.max").write_text("1000\n")
    assert memory.available_bytes() == 350
    meminfo.unlink()
    assert memory.available_bytes() is None
