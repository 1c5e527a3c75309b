"""What the command line says when the user, not the program, has to change something.

One line on standard error, `migrc: error: ...`, and exit code 2. It says what was wrong, where, and what
would be right; a traceback is for this project's own mistakes.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable
from typing import IO, Any

import click


class UsageProblem(click.ClickException):
    """A wrong argument, file or environment, told in one line. Exit code 2."""

    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        """Print `migrc: error: <message>` to `file`, which is standard error unless given."""
        click.echo(f"migrc: error: {self.format_message()}", file=sys.stderr if file is None else file)


class HostProblem(UsageProblem):
    """What the machine beneath has done: Ray that does not start, an actor that died, a host that is lost.

    Says nothing of what was run. Exit code 3.
    """

    exit_code = 3


class InternalProblem(UsageProblem):
    """A mistake of `migrc` itself that it has noticed; the text says what to report. Exit code 70."""

    exit_code = 70


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`did you mean X?` with the closest known word, if one is close, then all of them: `known: ...`."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1)
    return (f"did you mean {close[0]}? " if close else "") + f"known: {', '.join(names)}"
