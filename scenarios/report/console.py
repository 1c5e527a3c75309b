"""Where results are written: JSON, and rich's console, set for text that is pasted into mail."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Container, Iterable, Sequence
from typing import Final, TextIO

import click
from rich.console import Console
from rich.table import Table

from scenarios.drawing.columns import DEFAULT_WIDTH
from scenarios.drawing.phrases import shortened

DOCUMENT: Final = "scenarios.document"
"""In a context's `meta`: the stream that is kept for the document."""
# Wider than any table: a terminal may break a line, but no digit may be cut off to make a table fit.
_NEVER_WRAP: Final = 100_000
_VIOLATIONS_SHOWN: Final = 20


class _Report(Console):
    """A console that leaves it to its caller what happens when the reader has gone."""

    def on_broken_pipe(self) -> None:
        """Pass the error on; rich would end the program with an exit code of its own."""
        raise  # rich calls this where it has caught the error


def plain_console(file: TextIO) -> Console:
    """For reports: colours and rules if `file` is a terminal, plain text otherwise, never wrapped.

    Raises BrokenPipeError from `print` if nobody reads any more.
    """
    terminal = file.isatty()
    return _Report(
        file=file,
        width=_NEVER_WRAP,
        force_terminal=terminal,
        color_system="auto" if terminal else None,
        markup=False,
        emoji=False,
        highlight=False,
    )


def plain_table(columns: Iterable[str], left: Container[str] = ("",)) -> Table:
    """Columns without rules: those that are named `left` hold texts, the others figures."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in columns:
        table.add_column(name, justify="left" if name in left else "right", no_wrap=True)
    return table


def print_violations(say: Callable[[str], object], texts: Sequence[str]) -> None:
    """The first of them, each in a line that is not too long."""
    for text in texts[:_VIOLATIONS_SHOWN]:
        say(f"  {shortened(text)}")
    if len(texts) > _VIOLATIONS_SHOWN:
        say(f"  and {len(texts) - _VIOLATIONS_SHOWN} more; --json has them all")


def print_json(document: object) -> None:
    """One document on standard output, or where `--json` has put that aside."""
    context = click.get_current_context(silent=True)
    click.echo(json.dumps(document, indent=2), file=context.meta.get(DOCUMENT) if context else None)


def terminal_width() -> int:
    """How wide text may be: the terminal, or a fixed width where there is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else DEFAULT_WIDTH
