"""What verbs tell while they work, on standard error: bars on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Bars:
    """A bar for each name. `drawn`: there is a terminal to draw them on."""

    def __init__(self, progress: Progress | None, quiet: bool) -> None:
        self.drawn = progress is not None
        self._progress = progress
        self._quiet = quiet
        self._tasks: dict[str, TaskID] = {}
        self._finished: set[str] = set()

    def show(self, name: str, share: float | None, text: str, row: str | None = None) -> None:
        """How much is done, between 0 and 1 (None: nobody knows), and a few words.

        Names that are shown in the same `row` are one bar.
        """
        if self._progress is None:
            return
        key = name if row is None else row
        if key != "wait" and (waited := self._tasks.pop("wait", None)) is not None:
            self._progress.remove_task(waited)
        if key not in self._tasks:
            self._tasks[key] = self._progress.add_task("", total=None if share is None else 1.0, text="")
        self._progress.update(self._tasks[key], completed=share or 0.0, description=name, text=text)

    def wait_for(self, what: str) -> None:
        """Something takes a while of which nothing can be shown; the next bar ends it."""
        self.show(what, None, "", row="wait")

    def follow(self, name: str, share: float, text: str) -> None:
        """As `show`, but without a terminal a line when all is done."""
        self.show(name, share, text)
        if share >= 1 and not self.drawn and name not in self._finished:
            self._finished.add(name)
            self.line(f"migrc: {name}: {text}")

    def line(self, text: str) -> None:
        """News that stay."""
        if self._progress is not None:
            self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)
        elif not self._quiet:
            click.echo(text, err=True)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Take the bars away for as long as something else is printed."""
        if self._progress is not None:
            self._progress.stop()
        try:
            yield
        finally:
            if self._progress is not None:
                self._progress.start()


@contextmanager
def bars(quiet: bool = False) -> Iterator[Bars]:
    """Bars that are gone when the block ends."""
    if quiet or not sys.stderr.isatty():
        yield Bars(None, quiet)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[text]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield Bars(progress, quiet)
