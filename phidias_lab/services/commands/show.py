"""How answers look: tables, JSON, sizes, durations, and progress on stderr."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Sequence
from typing import Any

import click


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


#: Columns of a text where stdout tells no width, as in a pipe; and the most that is comfortable to read.
NARROW, WIDE = 80, 120


def text_width() -> int:
    """Columns to which running text is broken: those of the terminal (or COLUMNS), within what is comfortable."""
    return max(40, min(shutil.get_terminal_size((NARROW, 24)).columns, WIDE))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, wrap: bool = False) -> None:
    """A table for people; when stdout is no terminal it is as wide as its content, so that no cell is cut.

    With `wrap` its last column is running text, broken to `text_width()` also where stdout is no terminal.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, leading=int(wrap))
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=wrap and column == columns[0])
    for row in rows:
        # As Text, because a square bracket in a message is no markup.
        table.add_row(*(Text(str(cell)) for cell in row))
    width = text_width() if wrap else None if sys.stdout.isatty() else 10_000
    console = Console(width=width, highlight=False)
    with console.capture() as captured:
        console.print(table)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def duration(seconds: float | None) -> str:
    """'2 h 05 min', '3 min 20 s' or '4.2 s'."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"


class ProgressLine:
    """Progress on stderr: a bar on a terminal, a plain line every few seconds in a file or a batch log."""

    EVERY = 5.0

    def __init__(self, title: str, quiet: bool = False):
        self.title, self.quiet = title, quiet
        self.bar = None
        self.last: float | None = None
        self.said = ""

    def __enter__(self) -> ProgressLine:
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}", markup=False))
            self.bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self.task = self.bar.add_task(self.title, total=1.0, note="")
            self.bar.start()
        return self

    def __exit__(self, *exc: Any) -> None:
        if self.bar is not None:
            self.bar.stop()

    def say(self, text: str) -> None:
        """A line of its own above the bar."""
        if self.bar is not None:
            self.bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        elif not self.quiet:
            click.echo(text, err=True)

    def update(self, fraction: float | None, message: str = "", seconds_left: float | None = None) -> None:
        if self.quiet:
            return
        fraction = min(max(fraction or 0.0, 0.0), 1.0)
        note = f"{fraction:4.0%} {message or ''}".rstrip()
        note += f", about {duration(seconds_left)} left" if seconds_left else ""
        if self.bar is not None:
            self.bar.update(self.task, completed=fraction, note=note)
            return
        now = time.monotonic()
        if note != self.said and (self.last is None or now - self.last >= self.EVERY):
            click.echo(f"{self.title}: {note}", err=True)
            self.last, self.said = now, note
