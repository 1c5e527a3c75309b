"""What the command line says when the user, not the program, has to change something.

One line on standard error, `migrc: error: ...`, and exit code 2. It says what was wrong, where, and what
would be right; a traceback is for this project's own mistakes.
"""

from __future__ import annotations

import sys
from typing import IO, Any

import click


class UsageProblem(click.ClickException):
    """A wrong argument, file or environment, told in one line. Exit code 2."""

    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        """Print `migrc: error: <message>` to `file`, which is standard error unless given."""
        click.echo(f"migrc: error: {self.format_message()}", file=sys.stderr if file is None else file)
