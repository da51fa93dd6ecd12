"""Search for settings: many trainings with one seed, judged on the validation split alone.

The value of a trial is its best validation loss. A trial that does worse than the median of the
others is stopped early. The loss of the best of many trials is optimistic, so
:mod:`mmcl.runs.tuning` trains its settings again with other seeds.

The search keeps its state in one folder, which several processes may share::

    FOLDER/search.json     settings, searched space, seed and corpus
    FOLDER/study.log       all trials, as Optuna's journal
    FOLDER/trials/N/       history.csv of trial N; the network only of the best trial
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mmcl.config import Config
from mmcl.corpus.store import Corpus, open_corpus
from mmcl.errors import DiskError, RunError, TrainingError
from mmcl.extras import load
from mmcl.files import NO_ROOM, complete_file, disk_errors, read_json, write_json
from mmcl.learning.fitted import MODEL
from mmcl.learning.loop import CHECKPOINT, Progress, fit
from mmcl.outputs import LOCK
from mmcl.pool import Died, Engine, run_tasks
from mmcl.pool_ray import check_shared
from mmcl.runs.jobs import TRAINING, corpus_file, refuse_several_devices, with_threads
from mmcl.runs.run_folder import refuse_other, refuse_other_version
from mmcl.runtime import environment

if TYPE_CHECKING:
    from optuna import Study
    from optuna import Trial as OpenTrial

__all__ = [
    "SEARCH_SEED",
    "OnTrial",
    "Setting",
    "Trial",
    "best_trial",
    "importance",
    "search",
    "space_for",
    "with_settings",
]

SEARCH, STUDY, TRIALS = "search.json", "study.log", "trials"
SEARCH_SEED = 1
"""Seed of every trial of a search."""
STARTUP_TRIALS = 5  # trials that end before any is stopped early
ENOUGH_TO_RANK = 10  # completed trials needed to estimate the importance of settings
_SAMPLER_SEEDS_APART = 10_000  # larger than the number of trials in a search

OnTrial = Callable[[int, int, float | None], None]
"""Called as ``on_trial(trials done, trials asked for, best validation loss so far)``."""


class Setting(NamedTuple):
    """A setting to search: between ``low`` and ``high``, or one of ``choices``."""

    key: str  # as --set names it
    low: float = 0.0
    high: float = 0.0
    log: bool = False  # draw evenly on a log scale
    choices: tuple[int, ...] = ()

    def holds(self, value: Any) -> bool:
        """Return whether the search can draw a value."""
        return value in self.choices if self.choices else self.low <= value <= self.high


class Trial(NamedTuple):
    """A training of the search."""

    number: int  # also the name of its folder
    state: str  # complete, pruned (stopped early), or failed (loss not finite)
    value: float | None  # best validation loss; the latest if pruned; None if failed
    params: dict[str, float | int]  # settings tried, by key
    seconds: float
    fault: str | None = None  # why it failed


EVERY_MODEL: tuple[Setting, ...] = (
    Setting("learning.learning_rate", 1e-4, 1e-2, log=True),
    Setting("learning.weight_decay", 1e-4, 1e-1, log=True),
    Setting("learning.batch_size", choices=(16, 32, 64, 128)),
)
CALIBRATED: tuple[Setting, ...] = (
    *EVERY_MODEL,
    Setting("learning.alignment_weight", 1e-2, 3.0, log=True),
    Setting("model.width", choices=(32, 64, 128)),
    Setting("model.dropout", 0.0, 0.5),
    Setting("model.head_dropout", 0.0, 0.5),
    Setting("model.input_dropout", 0.0, 0.5),
    Setting("model.positions", choices=(0, 1)),
    Setting("model.threshold", 0.3, 0.9),
    Setting("policy.sparsity", 0.0, 1.0),
)


def space_for(config: Config, fixed: Collection[str] = ()) -> tuple[Setting, ...]:
    """Return the settings to search for a model, without the keys in ``fixed``."""
    space = []
    for setting in CALIBRATED if config.model.name == "calibrated" else EVERY_MODEL:
        if setting.key == "model.width":
            # A width must be a multiple of the number of heads.
            fitting = tuple(w for w in setting.choices if w % config.model.heads == 0)
            setting = setting._replace(choices=fitting)
            if not fitting:
                continue
        if setting.key not in fixed:
            space.append(setting)
    return tuple(space)


def with_settings(config: Config, params: Mapping[str, Any]) -> Config:
    """Return a configuration with changed settings."""
    tree = config.model_dump()
    for key, value in params.items():
        section, name = key.split(".")
        tree[section][name] = value
    return Config.model_validate(tree)


def search(
    development: Corpus,
    config: Config,
    *,
    folder: Path,
    trials: int,
    workers: int = 1,
    engine: Engine = "local",
    fixed: Collection[str] = (),
    seed: int = SEARCH_SEED,
    on_trial: OnTrial | None = None,
    progress: Progress | None = None,
) -> list[Trial]:
    """Search until a number of trials has ended, counting those of earlier calls.

    The same call continues a search that was stopped. The trial that was interrupted is given
    up. With one worker the next trials are the same as without the interruption.

    Args:
        development: The corpus without its test clips.
        config: Initial settings; trial 0 tries them if they lie in the space.
        folder: Folder for the files above; with Ray one that every machine sees.
        trials: Trials in all, with failed and pruned ones.
        workers: Trials at a time; they share the cores.
        engine: Where the processes run: on this machine, or on Ray.
        fixed: Keys that are not searched.
        seed: Seed of the search, and of the training of every trial.
        on_trial: Called after every trial.
        progress: Called as a training advances, if there is a single local worker.

    Raises:
        MissingExtraError: If Optuna is not installed.
        RunError: If the folder holds a search with other settings or another corpus.
        TrainingError: If processes died. The other trials are finished first.
        DiskError: If the disk takes no more. The trials that have ended are kept.
    """
    refuse_several_devices(config)
    space = space_for(config, fixed)
    _open_folder(folder, development, config, space, seed)
    plan = _Plan(folder, config, space, seed, workers)
    with _saying_what_is_kept(folder):
        _mend_journal(folder / STUDY)
        return _run_trials(development, plan, trials, engine, on_trial, progress)


def _run_trials(
    development: Corpus,
    plan: _Plan,
    trials: int,
    engine: Engine,
    on_trial: OnTrial | None,
    progress: Progress | None,
) -> list[Trial]:
    """Run the trials that are still to come; see :func:`search`."""
    folder, config, workers = plan.folder, plan.config, plan.workers
    study = _open_study(folder)
    # The sampler would wait for the trials of an earlier call that was killed.
    _give_up_interrupted(study)
    ended = len(_ended_trials(study))
    if not ended and not any(trial.state.name == "WAITING" for trial in study.trials):
        _enqueue_initial_settings(study, config, plan.space)

    def report() -> None:
        if on_trial is not None:
            on_trial(len(_ended_trials(study)), trials, _best_value(study))

    report()
    if workers == 1 and engine == "local":
        for ticket in range(ended, trials):
            _run_trial(study, development, plan, ticket, progress)
            report()
    else:
        with corpus_file(development, folder) as path:
            _run_in_workers(plan, path, range(ended, trials), engine, report)
        _give_up_interrupted(study)  # Ray may have restarted a trial in another process
    return _ended_trials(study)


def best_trial(trials: Sequence[Trial]) -> Trial:
    """Return the completed trial with the smallest validation loss.

    Raises:
        TrainingError: If none was completed.
    """
    completed = [trial for trial in trials if trial.state == "complete"]
    if not completed:
        faults = [f"  Trial {t.number}: {t.fault}" for t in trials if t.fault][:1]
        raise TrainingError(
            "\n".join([f"none of {len(trials)} trials was completed.", *faults])
            + "\n  Look for faults in the corpus: mmcl corpus check CORPUS"
        )
    return min(completed, key=lambda trial: (trial.value, trial.number))


def importance(folder: Path, seed: int = SEARCH_SEED) -> dict[str, float] | None:
    """Return the share of the variation of the losses that every setting explains.

    The shares sum to 1, the largest first. None with fewer than ten completed trials, or if all
    have the same value. Estimated by functional ANOVA over a random forest (Optuna).
    """
    import optuna

    study = _open_study(folder)
    values = [t.value for t in study.trials if t.state.name == "COMPLETE"]
    if len(values) < ENOUGH_TO_RANK or len(set(values)) == 1:
        return None
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
    shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {key: float(share) for key, share in shares.items()}


# ---------------------------------------------------------------- the study


class _Plan(NamedTuple):
    """Description of the search for its workers."""

    folder: Path
    config: Config
    space: tuple[Setting, ...]
    seed: int
    workers: int


def _open_study(folder: Path) -> Study:
    """Open the study of a folder; several processes may have it open."""
    optuna = load("optuna", "mmcl tune", extra="research")
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = JournalStorage(JournalFileBackend(str(folder / STUDY)))
    study: Study = optuna.create_study(study_name="mmcl", storage=storage, load_if_exists=True)
    return study


def _open_folder(
    folder: Path, development: Corpus, config: Config, space: tuple[Setting, ...], seed: int
) -> None:
    description = {
        "corpus": development.card.name,
        "corpus_checksum": development.checksum(),
        "config": config.model_dump(mode="json"),
        "space": [{**s._asdict(), "choices": list(s.choices)} for s in space],
        "seed": seed,
        "environment": environment(),
    }
    try:
        # A search continues only with the same settings and the same corpus.
        if (folder / SEARCH).exists():
            before = read_json(folder / SEARCH, otherwise="give a new folder: --out DIR")
            refuse_other_version(folder / SEARCH, before)
            refuse_other(before, description, folder, f"What it searches: {folder / SEARCH}")
            return
        if folder.exists() and any(path.name != LOCK for path in folder.iterdir()):
            raise RunError(
                f"{folder}: holds files, and none of a search; nothing was changed.\n"
                "  Give a new folder: --out DIR"
            )
        write_json(folder / SEARCH, description)
    except (OSError, ValueError) as fault:
        raise RunError(
            f"{folder}: no search can be kept here ({getattr(fault, 'strerror', None) or fault}).\n"
            "  Give a new folder where you may write: --out DIR"
        ) from None


@contextmanager
def _saying_what_is_kept(folder: Path) -> Iterator[None]:
    """Let a DiskError say how many trials are kept."""
    try:
        with disk_errors(folder / STUDY, codes=NO_ROOM):
            yield
    except DiskError as fault:
        fault.kept = f"The trials that have ended are kept in {folder}."
        raise


def _mend_journal(path: Path) -> None:
    """Remove lines of the study's journal that were cut short by a full disk.

    Optuna could not read the file any more. Whoever wrote such a line was told that it failed.
    """
    if not path.exists():
        return
    lines = path.read_bytes().splitlines(keepends=True)
    complete = [line for line in lines if line.endswith(b"\n") and _is_json(line)]
    if len(complete) < len(lines):
        with complete_file(path) as unfinished:
            unfinished.write_bytes(b"".join(complete))


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _give_up_interrupted(study: Study) -> None:
    """Close the trials whose process was killed, so that the sampler does not wait for them."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)


def _enqueue_initial_settings(study: Study, config: Config, space: Sequence[Setting]) -> None:
    """Let trial 0 try the initial settings, if they lie in the space."""
    tree = config.model_dump()
    initial = {}
    for setting in space:
        section, name = setting.key.split(".")
        initial[setting.key] = tree[section][name]
        if not setting.holds(initial[setting.key]):
            return
    study.enqueue_trial(initial)


def _ended_trials(study: Study) -> list[Trial]:
    """Return the trials that count: completed, pruned, or failed because of their loss."""
    states = {"COMPLETE": "complete", "PRUNED": "pruned"}
    ended = []
    for trial in study.get_trials(deepcopy=False):
        # Trials of a killed process fail without this note, and do not count.
        fault = trial.user_attrs.get("fault")
        if trial.state.name not in states and not (trial.state.name == "FAIL" and fault):
            continue
        state = states.get(trial.state.name, "failed")
        seconds = trial.duration.total_seconds() if trial.duration else 0.0
        value = None if state == "failed" else trial.value
        ended.append(Trial(trial.number, state, value, dict(trial.params), seconds, fault))
    return ended


def _best_value(study: Study) -> float | None:
    values = [
        t.value for t in _ended_trials(study) if t.state == "complete" and t.value is not None
    ]
    return min(values, default=None)


# ---------------------------------------------------------------- one trial


def _run_trial(
    study: Study, development: Corpus, plan: _Plan, ticket: int, progress: Progress | None = None
) -> None:
    """Run a trial; ``ticket`` is its index among the trials that count."""
    from optuna.pruners import MedianPruner
    from optuna.samplers import TPESampler

    # Seeded by ticket, so that a continued search draws the trials it would have drawn.
    study.sampler = TPESampler(
        seed=plan.seed * _SAMPLER_SEEDS_APART + ticket, constant_liar=plan.workers > 1
    )
    # Epochs are counted from 1; no trial is stopped before the second.
    warmup = 1 + max(1, plan.config.learning.epochs // 5)
    study.pruner = MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=warmup)

    def objective(trial: OpenTrial) -> float:
        return _trial_loss(trial, development, plan, progress)

    with disk_errors(plan.folder / STUDY, codes=NO_ROOM):
        study.optimize(objective, n_trials=1, catch=(TrainingError,))
    _remove_large_files(study, plan.folder)


def _trial_loss(
    trial: OpenTrial, development: Corpus, plan: _Plan, progress: Progress | None
) -> float:
    """Train with the settings that a trial draws; return the best validation loss."""
    from optuna import TrialPruned

    drawn = {setting.key: _draw(trial, setting) for setting in plan.space}

    def watch(stage: str, done: int, total: int, numbers: dict[str, float]) -> None:
        if progress is not None:
            progress(f"trial {trial.number}, {stage}", done, total, numbers)
        if stage == "epochs":
            trial.report(numbers["valid_loss"], step=done)
            # After the last epoch there is nothing to stop.
            if done < total and trial.should_prune():
                raise TrialPruned

    try:
        fitted = fit(
            development,
            with_settings(plan.config, drawn),
            seed=plan.seed,
            folder=plan.folder / TRIALS / str(trial.number),
            progress=watch,
        )
    except TrainingError as fault:
        trial.set_user_attr("fault", str(fault).splitlines()[0])
        raise
    return min(row.valid_loss for row in fitted.history)


def _draw(trial: OpenTrial, setting: Setting) -> float | int:
    if setting.choices:
        return int(trial.suggest_categorical(setting.key, setting.choices))
    return trial.suggest_float(setting.key, setting.low, setting.high, log=setting.log)


def _remove_large_files(study: Study, folder: Path) -> None:
    """Remove the checkpoints of ended trials, and all networks but that of the best."""
    ended = _ended_trials(study)
    completed = [trial for trial in ended if trial.state == "complete"]
    best = best_trial(completed).number if completed else None
    for trial in ended:
        own = folder / TRIALS / str(trial.number)
        (own / CHECKPOINT).unlink(missing_ok=True)
        if trial.number != best:
            shutil.rmtree(own / MODEL, ignore_errors=True)


# ---------------------------------------------------------------- several processes


def _run_in_workers(
    plan: _Plan, corpus: Path, tickets: range, engine: Engine, report: Callable[[], None]
) -> None:
    """Run the trials in several processes."""
    plan = plan._replace(folder=plan.folder.absolute())
    work = partial(_run_ticket, corpus, plan)
    gpus = int(plan.config.runtime.accelerator == "gpu")
    answers = run_tasks(
        work,
        tickets,
        workers=plan.workers,
        engine=engine,
        gpus=gpus,
        preload=("optuna", *TRAINING),
        look=report,
    )
    with closing(answers):
        died = [answer.cause for _, answer in answers if isinstance(answer, Died)]
    if died:
        raise TrainingError(
            f"{len(died)} of {len(tickets)} trials died before they ended: {died[0]}.\n"
            "  Continue with fewer at a time: the same mmcl tune command with --workers 1"
        )


def _run_ticket(corpus: Path, plan: _Plan, ticket: int, threads: int) -> None:
    """Run a trial in a worker."""
    plan = plan._replace(config=with_threads(plan.config, threads))
    _run_trial(*_open_once(plan.folder, corpus), plan, ticket)


@lru_cache(maxsize=1)
def _open_once(folder: Path, corpus: Path) -> tuple[Study, Corpus]:
    """Open study and corpus; a process keeps them for its next trials."""
    check_shared(folder / SEARCH, corpus)
    return _open_study(folder), open_corpus(corpus).development()
