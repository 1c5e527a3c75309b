"""How `migrc` ends: its exit codes, and every error in one line on standard error.

`MEANINGS` is the one table of them; none means two things, and no verb has another.
"""

from __future__ import annotations

import _thread
import errno
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final, NoReturn

import click

from actors.signals import Terminated
from scenarios.usage import HostProblem, InternalProblem, UsageProblem

_AGAIN_S: Final = 0.05
VIOLATION: Final = 1
BAD_INPUT: Final = UsageProblem.exit_code
INTERRUPTED: Final = 128 + signal.SIGINT
READER_GONE: Final = 128 + signal.SIGPIPE

MEANINGS: Final = {
    0: "all is well",
    VIOLATION: "a check found a violation or a verdict is not the expected one",
    BAD_INPUT: "bad input",
    HostProblem.exit_code: "the machine beneath failed",
    InternalProblem.exit_code: "a mistake of `migrc` itself",  # EX_SOFTWARE
    # 128 and the signal's number, as a shell reports it.
    128 + signal.SIGHUP: "hung up",
    INTERRUPTED: "interrupted",
    128 + signal.SIGTERM: "terminated",
    READER_GONE: "the reader of the output has gone",
}
_OF_OUTPUT: Final = (errno.EPIPE, errno.ENOSPC, errno.EIO, errno.EBADF, errno.EDQUOT, errno.EFBIG)


def interrupted(what: str = "") -> NoReturn:
    """Ctrl-C came, and what there is has been told."""
    click.echo(f"migrc: interrupted{what}", err=True)
    click.get_current_context().exit(INTERRUPTED)


@contextmanager
def told(tell: Callable[[str], None], done: Callable[[], str] = str) -> Iterator[None]:
    """What is through is told, whatever ends the block: `tell` gets what did, empty if it came to its end.

    `done` says after a Ctrl-C how much was through.
    """
    try:
        yield
    except KeyboardInterrupt:
        tell("interrupted")
        sys.stdout.flush()
        interrupted(done())
    except BaseException as problem:
        tell(_reason(problem))
        sys.stdout.flush()
        raise
    tell("")
    sys.stdout.flush()


def _reason(problem: BaseException) -> str:
    if isinstance(problem, click.ClickException):
        return problem.format_message()
    if isinstance(problem, SystemExit) and isinstance(problem.code, int) and problem.code > 128:
        return signal.Signals(problem.code - 128).name
    return f"{type(problem).__name__}: {problem}"


def exit_code(command: click.Command, arguments: Sequence[str] | None) -> int:
    """Run a command; its exit code, its errors told."""
    if sys.stdout is None:
        UsageProblem("standard output is closed; there is nowhere to put the result").show()
        return BAD_INPUT
    output = sys.stdout
    try:
        code = int(command.main(arguments, prog_name="migrc", standalone_mode=False) or 0)
        sys.stdout.flush()
        return code
    except click.exceptions.NoArgsIsHelpError as problem:
        problem.show()
        return BAD_INPUT
    except click.ClickException as problem:
        # click shows its own errors with two lines of usage above them; ours are one line, all alike.
        UsageProblem(" ".join(problem.format_message().split())).show()
        return problem.exit_code if isinstance(problem, UsageProblem) else BAD_INPUT
    except SystemExit:
        # click's own answer to a reader that has gone: another standard output, and exit code 1.
        if sys.stdout is output:
            raise
        return READER_GONE
    except click.Abort:
        click.echo("migrc: interrupted", err=True)
        return INTERRUPTED
    except OSError as problem:
        if problem.errno not in _OF_OUTPUT or problem.filename is not None:
            HostProblem(f"{problem.filename or 'the system'}: {problem.strerror or problem}").show()
            return HostProblem.exit_code
        # What is still buffered would fail again when the interpreter ends.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if problem.errno == errno.EPIPE:
            return READER_GONE
        UsageProblem(f"the result cannot be written: {problem.strerror}").show()
        return BAD_INPUT
    except Exception as problem:
        traceback.print_exc()
        what = f"{type(problem).__name__}: {problem}".splitlines()[0]
        click.echo(f"migrc: internal error: {what}; please report it with the lines above", err=True)
        return InternalProblem.exit_code


def keep_interrupts() -> None:
    """From now on: a Ctrl-C, SIGTERM or SIGHUP that Python swallows comes again.

    It does that while a program is dropped, and while garbage is collected that somebody wants to know of.
    """
    others = sys.unraisablehook

    def heard(problem: sys.UnraisableHookArgs) -> None:
        number = int(signal.SIGINT)
        if isinstance(problem.exc_value, Terminated):
            number = int(str(problem.exc_value.code)) - 128
        elif not issubclass(problem.exc_type, KeyboardInterrupt):
            others(problem)
            return
        # Not at once: it would be swallowed here. So it is where others keep this thread until it comes.
        while True:
            try:
                threading.Timer(_AGAIN_S, _thread.interrupt_main, (number,)).start()
                return
            except (KeyboardInterrupt, Terminated):
                continue

    sys.unraisablehook = heard
