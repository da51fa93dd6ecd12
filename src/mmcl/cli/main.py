"""The ``mmcl`` program: its commands, and short messages in place of tracebacks."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from mmcl.cli import corpus
from mmcl.cli.compare import ablate_command, compare_command
from mmcl.cli.demo import demo_command
from mmcl.cli.evaluate import evaluate_command
from mmcl.cli.explain import explain_command
from mmcl.cli.export import export_command
from mmcl.cli.extract import extract_command
from mmcl.cli.lint_table import lint_table_command
from mmcl.cli.predict import predict_command
from mmcl.cli.report import report_command
from mmcl.cli.robustness import robustness_command
from mmcl.cli.serve import serve_command
from mmcl.cli.train import train_command
from mmcl.cli.tune import tune_command
from mmcl.errors import MMCLError
from mmcl.files import disk_error

__all__ = ["app", "main"]

INTERRUPTED = 130  # exit code of typer after Ctrl-C
STOPPED = "To continue, give the same command again; mmcl train also needs --resume."

app = typer.Typer(
    name="mmcl",
    help=(
        "Predict sentiment from words, voice and face, and show what led to it.\n\n"
        "Start with: mmcl demo\n\n"
        "Exit codes: 0 done, 1 failed, 2 wrong usage. To see the traceback of an error:\n"
        "mmcl --debug COMMAND"
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
# In the order in which mmcl --help lists them.
app.command("demo")(demo_command)
app.command("train")(train_command)
app.command("evaluate")(evaluate_command)
app.command("predict")(predict_command)
app.command("extract")(extract_command)
app.command("compare")(compare_command)
app.command("ablate")(ablate_command)
app.command("explain")(explain_command)
app.command("robustness")(robustness_command)
app.command("export")(export_command)
app.command("serve")(serve_command)
app.command("tune")(tune_command)
app.command("report")(report_command)
app.command("lint-table")(lint_table_command)
app.add_typer(corpus.app, name="corpus")


@app.callback()
def _options(
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
) -> None:
    """Take the options that stand before the command; :func:`main` reads them."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line, by default the one of this process; return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    # typer does not pass on --debug, and the handler below needs it.
    debug = "--debug" in arguments[:1]
    try:
        app(arguments, prog_name="mmcl")
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


if __name__ == "__main__":
    sys.exit(main())
