"""Search for settings: many trainings with one seed, judged on the validation split alone.

This module runs the trials; :mod:`mmcl.runs.tuning` then trains the best settings again with
other seeds, since the loss of the best of many trials is too good to be believed.

The search is given a corpus without test clips. The value of a trial is its best validation
loss, and one that does worse than the median of the others is stopped early. All that is known
lies in one folder, which several processes may share::

    FOLDER/search.json     settings, searched space, seed and corpus
    FOLDER/study.log       every trial, as Optuna's journal
    FOLDER/trials/N/       history.csv of trial N; the network of the best trial alone
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mmcl.config import Config
from mmcl.corpus.store import Corpus, open_corpus
from mmcl.errors import RunError, TrainingError
from mmcl.extras import load
from mmcl.files import write_json
from mmcl.learning.loop import CHECKPOINT, MODEL, Progress, fit
from mmcl.pool import Died, Engine, run_tasks
from mmcl.pool_ray import check_shared
from mmcl.runs.jobs import corpus_file, refuse_several_devices, with_threads
from mmcl.runs.run_folder import refuse_other

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

SEARCH, STUDY, TRIALS = "search.json", "study.log", "trials"
SEARCH_SEED = 1
STARTUP_TRIALS = 5
"""Trials that end before any is pruned."""

ENOUGH_TO_RANK = 10
"""Completed trials from which on the settings' importance is estimated."""

_SEEDS_APART = 10_000  # more trials than a search has

Told = Callable[[int, int, float | None], None]
"""Called as ``told(trials done, trials asked for, best validation loss so far)``."""


class Setting(NamedTuple):
    """One setting that is searched: between ``low`` and ``high``, or one of ``choices``.

    The key is as ``--set`` names it; with ``log`` values are drawn evenly on a log scale.
    """

    key: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    choices: tuple[int, ...] = ()

    def holds(self, value: Any) -> bool:
        """Whether a value can be drawn."""
        return value in self.choices if self.choices else self.low <= value <= self.high


class Trial(NamedTuple):
    """One training of the search.

    Attributes:
        number: Its number, and its folder's name.
        state: ``complete``, ``pruned``, or ``failed`` (its loss stopped being finite).
        value: Best validation loss; of a pruned trial the latest; None where it failed.
        params: The settings tried, by key.
        seconds: Its duration.
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
    """Return the settings that are searched for a model, without the keys in ``fixed``.

    Widths that its heads do not divide are left out.

    Example:
        >>> [setting.key for setting in space_for(Config(), fixed=["model.width"])][:2]
        ['learning.learning_rate', 'learning.weight_decay']
    """
    space = []
    for setting in CALIBRATED if config.model.name == "calibrated" else EVERY_MODEL:
        if setting.key == "model.width":
            fitting = tuple(w for w in setting.choices if w % config.model.heads == 0)
            setting = setting._replace(choices=fitting)
            if not fitting:
                continue
        if setting.key not in fixed:
            space.append(setting)
    return tuple(space)


def with_settings(config: Config, params: Mapping[str, Any]) -> Config:
    """Return the configuration with some settings changed.

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
    engine: Engine = "local",
    fixed: Collection[str] = (),
    seed: int = SEARCH_SEED,
    told: Told | None = None,
    progress: Progress | None = None,
) -> list[Trial]:
    """Search until so many trials have ended, counting those of earlier calls.

    The same call again goes on where an earlier one was stopped. A trial that was under way
    then is given up; with one worker the trials after it are those that would have come.

    Args:
        development: The corpus without its test clips.
        config: The settings to start from; trial 0 tries them where they lie in the space.
        folder: Where to leave the files named above; with Ray one that every machine sees.
        trials: Trials in all; a failed or pruned one counts.
        workers: Processes that search together; they share the cores.
        engine: Whose processes: our own, or those of Ray.
        fixed: Keys that are not searched.
        seed: Seed of the search and of every trial's training.
        told: Called after every trial.
        progress: Called as a training advances; with one worker of our own only.

    Raises:
        MissingExtraError: If Optuna is not installed.
        RunError: If the folder holds a search of other settings or another corpus.
        TrainingError: If processes died, when all other trials have ended.
    """
    refuse_several_devices(config)
    space = space_for(config, fixed)
    _open_folder(folder, development, config, space, seed)
    study = _open_study(folder)
    # Trials of an earlier call that was killed would be waited for by the sampler.
    _give_up_interrupted(study)
    plan = _Plan(folder, config, space, seed, workers)
    ended = len(_ended(study))
    if not ended and not any(trial.state.name == "WAITING" for trial in study.trials):
        _try_first(study, config, space)

    def look() -> None:
        if told is not None:
            told(len(_ended(study)), trials, _best_value(study))

    look()
    if workers == 1 and engine == "local":
        for ticket in range(ended, trials):
            _run_trial(study, development, plan, ticket, progress)
            look()
    else:
        with corpus_file(development, folder) as path:
            _run_in_workers(plan, path, range(ended, trials), engine, look)
        _give_up_interrupted(study)  # where Ray began a trial once more in another process
    return _ended(study)


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
    """Return the share of the differences between completed trials that each setting explains.

    The shares sum to 1, the largest first; None with fewer than ten completed trials, or where
    all have the same value. Estimated by functional ANOVA over a random forest (Optuna).
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
    """All that a worker must know of the search."""

    folder: Path
    config: Config
    space: tuple[Setting, ...]
    seed: int
    workers: int


def _open_study(folder: Path) -> Study:
    """Open the folder's study, which several processes may have open."""
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
    }
    try:
        if (folder / SEARCH).exists():
            before = json.loads((folder / SEARCH).read_text())
            refuse_other(before, description, folder, f"What it searches: {folder / SEARCH}")
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
        given[setting.key] = tree[section][name]
        if not setting.holds(given[setting.key]):
            return
    study.enqueue_trial(given)


def _ended(study: Study) -> list[Trial]:
    """Return the trials that count: completed, pruned, or failed by their own loss."""
    states = {"COMPLETE": "complete", "PRUNED": "pruned"}
    ended = []
    for trial in study.get_trials(deepcopy=False):
        fault = trial.user_attrs.get("fault")
        if trial.state.name not in states and not (trial.state.name == "FAIL" and fault):
            continue
        state = states.get(trial.state.name, "failed")
        seconds = trial.duration.total_seconds() if trial.duration else 0.0
        value = None if state == "failed" else trial.value
        ended.append(Trial(trial.number, state, value, dict(trial.params), seconds, fault))
    return ended


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

    # A sampler per ticket: a search that was stopped draws the same trials when it goes on.
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


def _run_in_workers(
    plan: _Plan, corpus: Path, tickets: range, engine: Engine, look: Callable[[], None]
) -> None:
    """Let several processes run the trials, one each at a time."""
    plan = plan._replace(folder=plan.folder.absolute())
    work = partial(_run_ticket, corpus, plan)
    gpus = int(plan.config.runtime.accelerator == "gpu")
    answers = run_tasks(work, tickets, workers=plan.workers, engine=engine, gpus=gpus, look=look)
    with closing(answers):
        died = [answer.cause for _, answer in answers if isinstance(answer, Died)]
    if died:
        raise TrainingError(
            f"{len(died)} of {len(tickets)} trials died before they ended: {died[0]}.\n"
            "  Go on with fewer at a time: the same mmcl tune command with --workers 1"
        )


def _run_ticket(corpus: Path, plan: _Plan, ticket: int, threads: int) -> None:
    """Run one trial in a worker."""
    plan = plan._replace(config=with_threads(plan.config, threads))
    _run_trial(*_opened(plan.folder, corpus), plan, ticket)


@lru_cache(maxsize=1)
def _opened(folder: Path, corpus: Path) -> tuple[Study, Corpus]:
    """Open study and corpus; a process keeps them from one trial to the next."""
    check_shared(folder / SEARCH, corpus)
    return _open_study(folder), open_corpus(corpus).development()
