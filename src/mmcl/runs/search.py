"""The search for settings: many trainings, judged on the validation split alone.

It is given a corpus without test clips. Each trial trains once with the same seed, and its
value is the best validation loss; one that does worse than the median of the others so far is
pruned. All that is known lies in one folder, which several processes may share::

    FOLDER/search.json     what is searched: settings, space, seed, corpus
    FOLDER/study.log       every trial, as Optuna's journal
    FOLDER/trials/N/       history.csv of trial N; the network of the best trial alone

A value found so is the smallest of many, and so too good: train the settings again with other
seeds before you believe it (``mmcl.runs.tuning``).
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mmcl.config import Config
from mmcl.corpus.store import Corpus, open_corpus, write_corpus
from mmcl.errors import MissingExtraError, MMCLError, RunError, TrainingError
from mmcl.files import write_json
from mmcl.learning.loop import CHECKPOINT, MODEL, Progress, fit

if TYPE_CHECKING:
    from optuna import Study
    from optuna import Trial as OpenTrial

__all__ = [
    "SEARCH_SEED",
    "Setting",
    "Told",
    "Trial",
    "best_trial",
    "importance",
    "search",
    "space_for",
    "with_settings",
]

SEARCH, STUDY, TRIALS, SHARED = "search.json", "study.log", "trials", ".development.arrow"
SEARCH_SEED = 1
STARTUP_TRIALS = 5
"""Trials that end before any is pruned."""

ENOUGH_TO_RANK = 10
"""Completed trials from which on the settings' importance is estimated."""

_SEEDS_APART = 10_000  # more trials than a search has
_POLL_SECONDS = 0.2

Told = Callable[[int, int, float | None], None]
"""Called as ``told(trials done, trials asked for, best validation loss so far)``."""


class Setting(NamedTuple):
    """One setting that is searched.

    Attributes:
        key: As ``--set`` names it.
        low: Smallest value; unused with ``choices``.
        high: Largest value.
        log: Whether values are drawn evenly on a log scale.
        choices: The values to choose from, where it is no range.
    """

    key: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    choices: tuple[int, ...] = ()


class Trial(NamedTuple):
    """One training of the search.

    Attributes:
        number: Its number, and its folder's name.
        state: ``complete``, ``pruned``, or ``failed`` (its loss stopped being finite).
        value: Best validation loss; of a pruned trial the latest; None where it failed.
        params: The settings tried, by key.
        seconds: How long it took.
        fault: Why it failed.
    """

    number: int
    state: str
    value: float | None
    params: dict[str, float | int]
    seconds: float
    fault: str | None = None


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
    Setting("model.threshold", 0.3, 0.9),
    Setting("policy.sparsity", 0.0, 1.0),
)


def space_for(config: Config, fixed: Collection[str] = ()) -> tuple[Setting, ...]:
    """What is searched for a model.

    Args:
        config: Its settings; a width its heads do not divide is left out.
        fixed: Keys that are not to be searched.

    Example:
        >>> [setting.key for setting in space_for(Config(), fixed=["model.width"])][:2]
        ['learning.learning_rate', 'learning.weight_decay']
    """
    space = CALIBRATED if config.model.name == "calibrated" else EVERY_MODEL
    found = []
    for setting in space:
        if setting.key in fixed:
            continue
        if setting.key == "model.width":
            fitting = tuple(w for w in setting.choices if w % config.model.heads == 0)
            setting = setting._replace(choices=fitting)
            if not fitting:
                continue
        found.append(setting)
    return tuple(found)


def with_settings(config: Config, params: Mapping[str, Any]) -> Config:
    """The configuration with some settings changed.

    Example:
        >>> with_settings(Config(), {"model.width": 32}).model.width
        32
    """
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
    fixed: Collection[str] = (),
    seed: int = SEARCH_SEED,
    told: Told | None = None,
    progress: Progress | None = None,
) -> list[Trial]:
    """Search until so many trials have ended, counting those of earlier calls.

    The same call again goes on where an earlier one was stopped: a trial that was under way
    then is given up, and with one worker the trials after it are those that would have come.

    Args:
        development: The corpus without its test clips.
        config: The settings to start from; trial 0 tries them where they lie in the space.
        folder: Where to leave the files named above.
        trials: Trials in all; a failed or pruned one counts.
        workers: Processes that search together; they share the cores.
        fixed: Keys that are not searched.
        seed: Of every trial's training, and of the search.
        told: Told how far it is, after every trial.
        progress: Told how far each training is; with one worker only.

    Returns:
        Every trial that ended, by number.

    Raises:
        MissingExtraError: If Optuna is not installed.
        RunError: If the folder holds a search of other settings or another corpus.
        TrainingError: If a worker fails for a reason of its own.
    """
    space = space_for(config, fixed)
    _open_folder(folder, development, config, space, seed)
    study = _open_study(folder)
    _give_up_interrupted(study)
    plan = _Plan(folder, config, space, seed, workers)
    ended = len(_ended(study))
    if not ended and not any(trial.state.name == "WAITING" for trial in study.trials):
        _try_first(study, config, space)
    if told is not None:
        told(ended, trials, _best_value(study))
    if workers == 1:
        for ticket in range(ended, trials):
            _run_trial(study, development, plan, ticket, progress)
            if told is not None:
                told(len(_ended(study)), trials, _best_value(study))
    elif ended < trials:
        _share(study, development, plan, range(ended, trials), told)
    return _ended(study)


def best_trial(trials: Sequence[Trial]) -> Trial:
    """The completed trial with the smallest validation loss.

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
    """How much of the differences between completed trials each setting explains.

    Args:
        folder: Of a search.
        seed: Of the estimate.

    Returns:
        Shares by key that sum to 1, the largest first; None with fewer than ten completed
        trials, or where all have the same value.

    Source:
        Functional ANOVA over a random forest, as Optuna has it.
    """
    import optuna

    study = _open_study(folder)
    values = [t.value for t in study.trials if t.state.name == "COMPLETE"]
    if len(values) < ENOUGH_TO_RANK or len(set(values)) == 1:
        return None
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
    found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {key: float(share) for key, share in found.items()}


# ---------------------------------------------------------------- the study


class _Plan(NamedTuple):
    """What every worker must know."""

    folder: Path
    config: Config
    space: tuple[Setting, ...]
    seed: int
    workers: int


def _open_study(folder: Path) -> Study:
    """The folder's study, from whatever process."""
    try:
        import optuna
    except ModuleNotFoundError:
        raise MissingExtraError(
            "mmcl tune searches with Optuna, which is not installed.\n"
            '  Install it: pip install "mmcl[research]"'
        ) from None
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(
        study_name="mmcl",
        storage=JournalStorage(JournalFileBackend(str(folder / STUDY))),
        load_if_exists=True,
    )


def _open_folder(
    folder: Path, development: Corpus, config: Config, space: tuple[Setting, ...], seed: int
) -> None:
    description = {
        "corpus": development.card.name,
        "corpus_checksum": development.checksum(),
        "config": config.model_dump(mode="json"),
        "space": [{**s._asdict(), "choices": list(s.choices)} for s in space],
        "seed": seed,
    }
    try:
        if (folder / SEARCH).exists():
            _check_same(folder, json.loads((folder / SEARCH).read_text()), description)
            return
        if folder.exists() and any(folder.iterdir()):
            raise RunError(
                f"{folder}: holds files, and none of a search; nothing was changed.\n"
                "  Give a new folder: --out DIR"
            )
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / SEARCH, description)
    except (OSError, ValueError) as fault:
        raise RunError(
            f"{folder}: no search can be kept here ({getattr(fault, 'strerror', None) or fault}).\n"
            "  Give a new folder where you may write: --out DIR"
        ) from None


def _check_same(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    names = {
        "corpus_checksum": "another corpus",
        "config": "other settings",
        "space": "other settings to search",
        "seed": "another seed",
    }
    for key, what in names.items():
        if before.get(key) != now[key]:
            raise RunError(
                f"{folder}: was started with {what}; nothing was changed.\n"
                f"  What it searches: {folder / SEARCH}\n  Start another: --out with a new folder"
            )


def _give_up_interrupted(study: Study) -> None:
    """Close the trials of a process that was killed, so that nobody waits for them."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)


def _try_first(study: Study, config: Config, space: Sequence[Setting]) -> None:
    """Let trial 0 try the settings given, where they lie in the space."""
    tree = config.model_dump()
    given = {}
    for setting in space:
        section, name = setting.key.split(".")
        given[setting.key] = value = tree[section][name]
        if setting.choices:
            inside = value in setting.choices
        else:
            inside = setting.low <= value <= setting.high
        if not inside:
            return
    study.enqueue_trial(given)


def _ended(study: Study) -> list[Trial]:
    """Trials that count: completed, pruned, or failed by their own loss."""
    names = {"COMPLETE": "complete", "PRUNED": "pruned"}
    found = []
    for trial in study.get_trials(deepcopy=False):
        fault = trial.user_attrs.get("fault")
        if trial.state.name not in names and not (trial.state.name == "FAIL" and fault):
            continue
        state = names.get(trial.state.name, "failed")
        seconds = trial.duration.total_seconds() if trial.duration else 0.0
        value = None if state == "failed" else trial.value
        found.append(Trial(trial.number, state, value, dict(trial.params), seconds, fault))
    return found


def _best_value(study: Study) -> float | None:
    values = [t.value for t in _ended(study) if t.state == "complete" and t.value is not None]
    return min(values, default=None)


# ---------------------------------------------------------------- one trial


def _run_trial(
    study: Study, development: Corpus, plan: _Plan, ticket: int, progress: Progress | None = None
) -> None:
    """Run one trial; its draw depends on the search's seed, its ticket and what is known."""
    from optuna.pruners import MedianPruner
    from optuna.samplers import TPESampler

    study.sampler = TPESampler(
        seed=plan.seed * _SEEDS_APART + ticket, constant_liar=plan.workers > 1
    )
    # Epochs are counted from 1, and none is stopped before the second.
    warmup = 1 + max(1, plan.config.learning.epochs // 5)
    study.pruner = MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=warmup)

    def objective(trial: OpenTrial) -> float:
        return _train(trial, development, plan, progress)

    study.optimize(objective, n_trials=1, catch=(TrainingError,))
    _tidy(study, plan.folder)


def _train(trial: OpenTrial, development: Corpus, plan: _Plan, progress: Progress | None) -> float:
    """Train with the settings a trial draws; the best validation loss is its value."""
    from optuna import TrialPruned

    drawn = {setting.key: _draw(trial, setting) for setting in plan.space}

    def watch(stage: str, done: int, total: int, numbers: dict[str, float]) -> None:
        if progress is not None:
            progress(f"trial {trial.number}, {stage}", done, total, numbers)
        if stage == "epochs":
            trial.report(numbers["valid_loss"], step=done)
            # The last epoch is not stopped: the training is over anyway.
            if done < total and trial.should_prune():
                raise TrialPruned

    try:
        fitted = fit(
            development,
            with_settings(_for_worker(plan), drawn),
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
        chosen: int = trial.suggest_categorical(setting.key, setting.choices)
        return chosen
    return trial.suggest_float(setting.key, setting.low, setting.high, log=setting.log)


def _for_worker(plan: _Plan) -> Config:
    """The settings with the cores shared between the workers."""
    if plan.workers == 1:
        return plan.config
    threads = max(1, (os.cpu_count() or 1) // plan.workers)
    return with_settings(plan.config, {"runtime.threads": threads})


def _tidy(study: Study, folder: Path) -> None:
    """Remove what is large of every ended trial; the network of the best one stays."""
    ended = _ended(study)
    completed = [trial for trial in ended if trial.state == "complete"]
    best = best_trial(completed).number if completed else None
    for trial in ended:
        own = folder / TRIALS / str(trial.number)
        (own / CHECKPOINT).unlink(missing_ok=True)
        if trial.number != best:
            shutil.rmtree(own / MODEL, ignore_errors=True)


# ---------------------------------------------------------------- several processes


def _share(
    study: Study, development: Corpus, plan: _Plan, tickets: range, told: Told | None
) -> None:
    """Let several processes take the tickets, each as it is free."""
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    # Written once and mapped by all; it holds no test clip.
    shared = write_corpus(plan.folder / SHARED, development.card, _clips(development))
    following = context.Value("q", tickets.start)
    faults = context.SimpleQueue()
    processes = [
        context.Process(target=_work, args=(plan, following, tickets.stop, faults))
        for _ in range(min(plan.workers, len(tickets)))
    ]
    try:
        for process in processes:
            process.start()
        while any(process.is_alive() for process in processes):
            time.sleep(_POLL_SECONDS)
            if told is not None:
                told(len(_ended(study)), tickets.stop, _best_value(study))
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()
            process.join()
        shared.unlink(missing_ok=True)
    if not faults.empty():
        raise TrainingError(str(faults.get()))
    codes = [process.exitcode for process in processes if process.exitcode]
    if codes:
        raise TrainingError(
            f"a worker of the search ended with exit code {codes[0]}.\n"
            "  Go on with it: the same mmcl tune command, with --workers 1 to see its error"
        )


def _work(plan: _Plan, following: Synchronized[int], stop: int, faults: Any) -> None:
    """What a worker does: take the next ticket, run it, until there is none."""
    try:
        development = open_corpus(plan.folder / SHARED)
        study = _open_study(plan.folder)
        while (ticket := _take(following, stop)) is not None:
            _run_trial(study, development, plan, ticket)
    except MMCLError as fault:
        faults.put(str(fault))
    except KeyboardInterrupt:
        return  # the parent process says so


def _take(following: Synchronized[int], stop: int) -> int | None:
    with following.get_lock():
        ticket = int(following.value)
        if ticket >= stop:
            return None
        following.value = ticket + 1
    return ticket


def _clips(development: Corpus) -> Iterator[Any]:
    yield from development.split("train").clips()
    yield from development.split("valid").clips()
