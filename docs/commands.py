"""Write docs/commands.md from the commands themselves: python docs/commands.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from mmcl.cli.main import app

TARGET = Path(__file__).with_suffix(".md")
HEADER = """# Commands

`mmcl --help` lists the commands, `mmcl COMMAND --help` says the same as this page.

Exit codes: 0 done, 1 failed, 2 wrong usage, 143 stopped by SIGTERM. `mmcl --debug COMMAND` shows
the traceback of an error.

This page is written by `python docs/commands.py`.
"""


def page() -> str:
    """Return the text of the page."""
    parts = [HEADER]
    for words, command in _commands(get_command(app), ("mmcl",)):
        context = command.make_context(words[-1], [], resilient_parsing=True)
        usage = " ".join([*words, *command.collect_usage_pieces(context)])
        parts += [f"## {' '.join(words)}\n", f"```text\n{usage}\n```\n", _help(command.help)]
        records = [parameter.get_help_record(context) for parameter in command.params]
        table = [f"| `{_escaped(name)}` | {_cell(said)} |" for name, said in filter(None, records)]
        if table:
            parts.append("\n".join(["| | |", "|---|---|", *table]) + "\n")
    return "\n".join(parts)


def _commands(group: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command with its words, in the order of ``mmcl --help``."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, (*words, name))
        else:
            yield (*words, name), command


def _help(text: str) -> str:
    """Return what a command says of itself, its examples as code."""
    said, _, examples = text.partition("Examples:")
    if not examples:
        return f"{said.strip()}\n"
    # A line that is no command goes on with the one before.
    code = " ".join(examples.split()).replace(" mmcl ", "\nmmcl ")
    return f"{said.strip()}\n\n```text\n{code}\n```\n"


def _cell(text: str) -> str:
    return _escaped(" ".join(text.split())).replace("[", "\\[").replace("<", "\\<")


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")  # a bare one would end the cell, also within code


if __name__ == "__main__":
    TARGET.write_text(page())
