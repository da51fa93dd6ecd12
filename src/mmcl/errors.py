"""The exceptions that this package raises on purpose.

A message says what was found, what was expected, the nearest fix, and the command
that shows more. The command line prints it without a traceback and exits with
:attr:`MMCLError.exit_code`.

    MMCLError
    ├── UsageError            the command line was used wrongly          (exit 2)
    ├── ConfigError           a setting is unknown or out of range       (exit 2)
    ├── DatasetError          a corpus is missing, broken or inconsistent
    │   ├── UnsafePickleError   a pickle asks for something that is not data
    │   └── SealedSplitError    something other than the protocol asks for the test split
    ├── MediaError            a media file cannot be read, or holds nothing that can be used
    ├── ShapeError            a tensor does not fit the call it was given to
    ├── TrainingError         training cannot start or go on
    │   └── DivergedError       the loss stopped being finite
    ├── RunError              a run folder is missing, incomplete or of another kind
    ├── BusyError             another command writes the output now
    ├── DiskError             a file cannot be written: the disk is full, for example
    └── MissingExtraError     an optional dependency is not installed
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from mmcl.plain import plain

__all__ = [
    "BusyError",
    "ConfigError",
    "DatasetError",
    "DiskError",
    "DivergedError",
    "MMCLError",
    "MediaError",
    "MissingExtraError",
    "RunError",
    "SealedSplitError",
    "ShapeError",
    "TrainingError",
    "UnsafePickleError",
    "UsageError",
    "did_you_mean",
]


class MMCLError(Exception):
    """Base class of all errors that a user can cause.

    Its text is fit to be shown, whatever the file it is about holds: see :mod:`mmcl.plain`.
    """

    exit_code = 1
    is_said_elsewhere = False  # another process of the same training has raised it and says it

    def __str__(self) -> str:
        return plain(super().__str__())


class UsageError(MMCLError):
    """A command was called with arguments that do not fit together."""

    exit_code = 2


class ConfigError(MMCLError, ValueError):
    """One or more settings are unknown, of the wrong type or out of range."""

    exit_code = 2


class DatasetError(MMCLError):
    """A corpus is missing, unreadable or inconsistent."""


class UnsafePickleError(DatasetError):
    """A pickle asks for something that is not plain data; nothing of it was run."""


class SealedSplitError(DatasetError):
    """Something other than the evaluation protocol asked for the test split."""


class MediaError(MMCLError):
    """A media file or a transcript cannot be read, or holds nothing that can be used."""


class ShapeError(MMCLError, ValueError):
    """A tensor's shape does not fit the call it was given to."""


class TrainingError(MMCLError):
    """Training cannot start or go on: a batch does not fit into memory, for example."""


class DivergedError(TrainingError):
    """The loss of a training stopped being finite."""


class RunError(MMCLError):
    """A run folder is missing, incomplete or of another kind."""


class BusyError(MMCLError):
    """Another command is writing the same output at this moment."""


class DiskError(MMCLError):
    """A file cannot be written: the disk is full, or may not be written to.

    Attributes:
        problem: Which file it is, and why it cannot be written.
        kept: What is on the disk all the same. Whoever knows more of it says more.
        advice: How to go on.
    """

    def __init__(self, problem: str, advice: str) -> None:
        super().__init__(problem, advice)
        self.problem, self.advice = problem, advice
        self.kept = "Nothing was left behind of this file; all others are kept."

    def __str__(self) -> str:
        return plain(f"{self.problem}.\n  {self.kept}\n  {self.advice}")


class MissingExtraError(MMCLError, ImportError):
    """An optional dependency is needed and not installed."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Suggest the known name nearest to a misspelt one; an empty string if none is near.

    Example:
        >>> did_you_mean("visual", ["text", "audio", "vision"])
        '; did you mean "vision"?'
    """
    matches = get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f'; did you mean "{matches[0]}"?' if matches else ""
