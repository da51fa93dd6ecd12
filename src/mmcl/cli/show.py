"""Output that several commands share: progress bars, and tables of metrics."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.table import Table

from mmcl.plain import plain
from mmcl.types import SPLITS

if TYPE_CHECKING:
    from mmcl.corpus.schema import Card
    from mmcl.learning.loop import Progress as Tell

__all__ = [
    "PlainConsole",
    "console",
    "count_of_seeds",
    "format_summary",
    "metrics_table",
    "print_card",
    "print_notes",
    "say",
    "training_progress",
]


class PlainConsole(Console):
    """A console on which the content of a file can neither move the cursor nor fill the screen."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        """Render as rich does; every text of it passes through :func:`mmcl.plain.plain`."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=plain(segment.text))


def say(text: str, *, err: bool = False) -> None:
    """Print text that may hold parts of a file."""
    typer.echo(plain(text), err=err)


console = PlainConsole()
_SHOWN = ("loss", "reward", "mean_action", "valid_loss", "clips_per_second")
_SHORT = {"mean_action": "action", "valid_loss": "valid", "clips_per_second": "clips/s"}


@contextmanager
def training_progress() -> Iterator[Tell]:
    """Show bars for epochs and steps on stderr, with losses, reward and clips per second."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[numbers]}"),
        TimeRemainingColumn(),
    )
    console = Console(file=sys.stderr)
    # Without a terminal a bar would only leave an empty line behind.
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        tasks: dict[str, Any] = {}

        def tell(stage: str, done: int, total: int, numbers: Mapping[str, float]) -> None:
            label, _, inner = stage.rpartition(", ")
            # One bar for the epochs, one for the steps within an epoch.
            kind = "epochs" if inner == "epochs" else "steps"
            text = "  ".join(f"{_SHORT.get(k, k)} {numbers[k]:.3g}" for k in _SHOWN if k in numbers)
            state: dict[str, Any] = {"description": f"{label} {inner}".strip(), "numbers": text}
            if kind not in tasks:
                tasks[kind] = bar.add_task(**state, total=total)
            bar.update(tasks[kind], completed=done, total=total, **state)

        yield tell


def count_of_seeds(report: Mapping[str, Any]) -> str:
    """Return ``1 seed`` or ``3 seeds (mean ± s.d.)``, as the title of a table ends."""
    count = len(report["seeds"])
    return "1 seed" if count == 1 else f"{count} seeds (mean ± s.d.)"


def format_summary(summary: Mapping[str, Any] | None) -> str:
    """Return mean and s.d. over seeds as ``0.312 ± 0.008``, or a dash if there is no mean."""
    if not summary or summary.get("mean") is None:
        return "-"
    mean, std = summary["mean"], summary.get("std")
    return f"{mean:.3f}" if std is None else f"{mean:.3f} ± {std:.3f}"


def print_notes(card: Card) -> None:
    """Print the notes of a corpus as messages."""
    for note in card.notes:
        say(f"note: {note}", err=True)


def print_card(card: Card, path: Path) -> None:
    """Print what was written: file, name, task, clips per split, widths, and the account."""
    counts = "/".join(str(card.counts.get(split, 0)) for split in SPLITS)
    dims = ", ".join(f"{modality} {width}" for modality, width in card.dims.items())
    say(f"{path}: {card.name}, {card.task.kind}, {counts} clips, {dims or 'text alone'}")
    if card.account is not None:
        say(f"in the source: {'; '.join(card.account.source)}")
        for part in card.account.left_out or ("nothing",):
            say(f"left out: {part}")


def metrics_table(report: Mapping[str, Any]) -> Table:
    """Return a table of every metric on validation and test, and of the reference rows."""
    # A corpus may have no test clips; then the reference rows are shown on validation.
    split = "test" if report["test"] else "valid"
    references = report["references"]
    title = f"{report['model']} on {report['corpus']}, {count_of_seeds(report)}"
    table = Table(title=title, caption=f"{', '.join(references)}: {split} split")
    table.add_column("metric", no_wrap=True)
    for name in ("valid", "test", *references):
        # In a narrow terminal numbers are broken into two lines, and never cut.
        table.add_column(name, justify="right", overflow="fold")
    for key in report[split]:
        cells = [format_summary(report[part].get(key)) for part in ("valid", "test")]
        for row in references.values():
            value = row[split].get(key)
            cells.append("-" if value is None else f"{value:.3f}")
        table.add_row(key, *cells)
    return table
