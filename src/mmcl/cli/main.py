"""The ``mmcl`` program: its commands, and short messages in place of tracebacks."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from types import FrameType
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from mmcl.cli import corpus
from mmcl.cli.compare import ablate_command, compare_command
from mmcl.cli.demo import demo_command
from mmcl.cli.evaluate import evaluate_command
from mmcl.cli.explain import explain_command
from mmcl.cli.export import export_command
from mmcl.cli.extract import extract_command
from mmcl.cli.lint_table import lint_table_command
from mmcl.cli.options import releasing_outputs
from mmcl.cli.predict import predict_command
from mmcl.cli.push import push_command
from mmcl.cli.report import report_command
from mmcl.cli.robustness import robustness_command
from mmcl.cli.serve import serve_command
from mmcl.cli.starter import starter_command
from mmcl.cli.train import train_command
from mmcl.cli.tune import tune_command
from mmcl.errors import MMCLError
from mmcl.files import disk_error

__all__ = ["app", "main"]

INTERRUPTED = 130  # exit code of typer after Ctrl-C
STOPPED = "To continue, give the same command again; mmcl train also needs --resume."


class _Program(TyperGroup):
    """Group of all commands; it releases the outputs of a command that has ended."""

    def invoke(self, ctx: Any) -> Any:
        with releasing_outputs():
            return super().invoke(ctx)


app = typer.Typer(
    cls=_Program,
    name="mmcl",
    help=(
        "Predict sentiment from words, voice and face, and show what led to it.\n\n"
        "Start with: mmcl predict talk.mp4, or mmcl demo\n\n"
        "Exit codes: 0 done, 1 failed, 2 wrong usage, 143 stopped by SIGTERM.\n"
        "To see the traceback of an error: mmcl --debug COMMAND"
    ),
    no_args_is_help=True,
    context_settings={"help_option_names": ["--help", "-h"]},
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
# In the order in which mmcl --help lists them.
app.command("demo")(demo_command)
app.command("predict")(predict_command)
app.command("starter")(starter_command)
app.command("train")(train_command)
app.command("evaluate")(evaluate_command)
app.command("extract")(extract_command)
app.command("compare")(compare_command)
app.command("ablate")(ablate_command)
app.command("explain")(explain_command)
app.command("robustness")(robustness_command)
app.command("export")(export_command)
app.command("push")(push_command)
app.command("serve")(serve_command)
app.command("tune")(tune_command)
app.command("report")(report_command)
app.command("lint-table")(lint_table_command)
app.add_typer(corpus.app, name="corpus")


def _print_version(wanted: bool) -> None:
    """Print the version that is installed, and end."""
    if wanted:
        typer.echo(f"mmcl {metadata.version('mmcl')}")
        raise typer.Exit


@app.callback()
def _options(
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
    version: bool = typer.Option(
        False, "--version", help="Print the version.", is_eager=True, callback=_print_version
    ),
) -> None:
    """Take the options that stand before the command; :func:`main` reads them."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line, by default the one of this process; return the exit code."""
    # Threads that wait must not spin: another program may need their core. OpenMP reads this once,
    # when torch loads it, so it is set before any command runs.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    _replace_missing_letters()
    with _stop_signals() as received:
        code = _run(list(sys.argv[1:] if argv is None else argv))
    # A shell reports a program that a signal ended by this number.
    return 128 + received[0] if received and code else code


def _run(arguments: list[str]) -> int:
    """Run a command line, and return its exit code; see :func:`main`."""
    # typer does not pass on --debug, and the handler below needs it.
    debug = "--debug" in arguments[:1]
    try:
        _program()(arguments, prog_name="mmcl")
    except SystemExit as stop:  # typer always ends this way, and prints wrong usage itself
        if stop.code == INTERRUPTED:
            sys.stderr.write(f"Stopped. {STOPPED}\n")
            return 1
        return stop.code if isinstance(stop.code, int) else 0
    except Exception as fault:
        # The text is enough for ours and for a full disk; any other fault is a bug and keeps its
        # traceback.
        error = fault if isinstance(fault, MMCLError) else disk_error(fault)
        if debug or error is None:
            raise
        if not error.is_said_elsewhere:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return error.exit_code
    return 0


@cache
def _program() -> Any:
    """Return the command line, made once: making it takes longer than many a command."""
    return get_command(app)


def _replace_missing_letters() -> None:
    """Print ``?`` for a letter that the terminal's encoding lacks, in place of an error."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Let SIGTERM and SIGHUP stop a command as Ctrl-C does; yield those that have come.

    By default they would end this process at once, before it has ended its workers and removed
    half-written files.
    """
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)  # a second one would disturb the clean-up
        received.append(number)
        raise KeyboardInterrupt

    names = ("SIGTERM", "SIGHUP") if threading.current_thread() is threading.main_thread() else ()
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    # One that is ignored (nohup) or handled by somebody else stays as it is.
    numbers = [number for number in numbers if signal.getsignal(number) == signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, stop)
    try:
        yield received
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(main())
