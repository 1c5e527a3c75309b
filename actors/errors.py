"""What can end a live run early, as the driver sees it.

One line for the user each. Both travel: an actor describes what went wrong as plain values, and the
driver raises it. Nothing here is raised for a mistake of our own; that stays a traceback.
"""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path
from typing import Final, NamedTuple

from emulator.checks.violation import Violation
from emulator.hardware.awaits import ForgottenAwait
from emulator.kernel.instead import WrongCall
from emulator.kernel.policy import WrongAnswer
from emulator.machine.progress import asked

_HERE: Final = Path(__file__).resolve().parents[1]
_LIBRARIES: Final = (
    "<frozen",
    *(f"{_HERE / package}/" for package in ("emulator", "actors", "scenarios")),
    *(f"{sysconfig.get_path(kind)}/" for kind in ("stdlib", "purelib", "platlib")),
)


class SessionError(Exception):
    """The machine itself failed: no cluster, an actor died, or nothing moves any more."""


class LostActor(SessionError):
    """An actor died, or nothing has been heard of it although it has nothing to do but say that it is there:
    its host has stalled, or the way to it is cut. Says nothing of what was run."""


class Silence(SessionError):
    """Nobody has sent word for a long time."""

    def __init__(self, violation: Violation) -> None:
        super().__init__(violation.text)
        self.violation = violation


class Fault(NamedTuple):
    """An exception in an actor, in plain values: where its innermost frame was."""

    kind: str
    message: str
    file: str
    line: int
    function: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line} in {self.function}" if self.file else "unknown place"
        return f"{self.kind}: {self.message} ({place})"


class ProgramError(Exception):
    """A program raised while CPU `cpu` ran it (-1: while the machine was put together)."""

    def __init__(self, cpu: int, fault: Fault) -> None:
        super().__init__(f"{f'CPU {cpu}' if cpu >= 0 else 'the machine'}: {fault}")
        self.cpu = cpu
        self.fault = fault


def fault_of(problem: BaseException) -> Fault:
    """Describe `problem` by the innermost frame of a user's own code, or the innermost of all."""
    frames = traceback.extract_tb(problem.__traceback__)
    places = [(frame.filename, frame.lineno or 0, frame.name) for frame in frames]
    place = next(
        (one for one in reversed(places) if is_users_file(one[0])), places[-1] if places else ("", 0, "")
    )
    if isinstance(problem, (ForgottenAwait, WrongAnswer, WrongCall)):
        place = problem.place
    message = str(problem) or "(no message)"
    if isinstance(problem, TypeError) and "in 'await' expression" in message:
        message += "; a program awaits operations and kernel functions, nothing else"
    if operation := asked(problem):
        message += f", asked for by {operation}"
    return Fault(type(problem).__name__, message, *place)


def is_users_file(file: str) -> bool:
    """Neither this project's code nor Python's nor an installed package's."""
    return not file.startswith(_LIBRARIES)
