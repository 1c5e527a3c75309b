"""The command `migrc`: its verbs, each in a file of its own.

Standard output carries the result and nothing else; progress and errors go to standard error. A verb is
imported when it is called, and what starts processes when a verb needs it, so that each starts quickly.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

import click

from actors.leaving import leave
from actors.signals import unwind
from emulator.hardware.awaits import watch_coroutines
from scenarios.verbs.exits import exit_code, keep_interrupts

FILES: Final = {
    **{verb: verb for verb in ("run", "check", "stress", "sweep", "replay", "shrink", "trace", "compare")},
    "conformance": "conformance",
    "calibrate": "captures",
    "completion": "completion",
    "schema": "schema",
    "workload": "workload",
    "export": "export",
    "step": "step",
    "rerun": "rerun",
    "functions": "functions",
    "list": "listing",
    "show": "listing",
}
"""The file of each verb. The function there has the verb's name, but for `list`, which is Python's."""


class Verbs(click.Group):
    """Imports the file of a verb when somebody asks for that verb."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(FILES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if name := FILES.get(cmd_name):
            # Nothing that is imported is garbage, and looking for some takes a twentieth of the start.
            gc.disable()
            verb: click.Command = getattr(
                importlib.import_module(f"scenarios.verbs.{name}"),
                "listing" if cmd_name == "list" else cmd_name,
            )
            gc.enable()
            return verb
        return None


def _version(context: click.Context, option: click.Parameter, wanted: bool) -> None:
    if wanted:
        from scenarios.subjects.header import project_version

        click.echo(f"migrc {project_version() or '(not installed, run from its source)'}")
        context.exit()


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show the version and exit.",
)
def migrc() -> None:
    """Emulate Linux TLB shootdowns on tiered memory, immediate and deferred (MIGRC)."""


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
    with unwind():
        try:
            code = exit_code(migrc, arguments)
        except SystemExit as problem:
            if not isinstance(problem.code, int):
                raise
            code = problem.code
        leave(code)
