"""The command `migrc`: its verbs, each in a file of its own.

Standard output carries the result and nothing else; progress and errors go to standard error. Whatever starts
processes is imported only by the verb that needs it, so that help and listings are quick.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

import click

from emulator.hardware.awaits import watch_coroutines
from scenarios.subjects.header import project_version
from scenarios.verbs.check import check
from scenarios.verbs.exits import exit_code, keep_interrupts
from scenarios.verbs.listing import listing
from scenarios.verbs.replay import replay
from scenarios.verbs.run import run
from scenarios.verbs.shrink import shrink
from scenarios.verbs.stress import stress
from scenarios.verbs.sweep import sweep
from scenarios.verbs.trace import trace

VERBS: Final = (run, check, stress, sweep, replay, shrink, trace, listing)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(
    project_version() or "(not installed, run from its source)",
    prog_name="migrc",
    message="%(prog)s %(version)s",
)
def migrc() -> None:
    """Emulate Linux TLB shootdowns on tiered memory, immediate and deferred (MIGRC)."""


for verb in VERBS:
    migrc.add_command(verb)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command with `arguments` (default: those of the process) and exit with its code."""
    if sys.stderr is None:
        # Started with standard error closed (2>&-): what would be said there is said to nobody.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.set_inheritable(nowhere, True)
        sys.stderr = os.fdopen(nowhere, "w")
    if sys.stdin is None:
        sys.stdin = open(os.devnull)  # noqa: SIM115
    watch_coroutines()
    keep_interrupts()
    sys.exit(exit_code(migrc, arguments))
