"""Awaits that were forgotten or in vain, told where the program is and not where it shows.

A coroutine that was called and never awaited goes away unseen. Python notices when it drops it, inside the
program's own line; the CPU that runs the program then raises what was noticed. What a search drops in the
middle of a run, and what is collected later, is nobody's mistake.
"""

from __future__ import annotations

import gc
import sys
import warnings
from collections import deque
from inspect import CORO_CREATED, getcoroutinestate
from types import CoroutineType, FrameType
from typing import Any, Final

_OURS: Final = frozenset({"emulator", "actors", "scenarios"})

FORGOTTEN: list[ForgottenAwait] = []
"""What has been noticed and not been raised yet."""

_CONTAINERS: Final = (list, tuple, dict, deque, set, frozenset)
_collects = False


class ForgottenAwait(Exception):
    """A program called a coroutine function and did not await it: at `line` of `file`, in `function`."""

    def __init__(self, called: str, file: str, line: int, function: str) -> None:
        super().__init__(f"{called}() is called and never awaited; put await in front of it")
        self.place = (file, line, function)


def check_kept(*owners: Any) -> None:
    """Raise ForgottenAwait if one of them holds on to a coroutine that was called and has not begun.

    Looked for in their attributes and the containers there; asked when a program is through. The line is that
    of the call where Python was told to remember it (`sys.set_coroutine_origin_tracking_depth`), else that of
    the function.
    """
    ahead = [*owners, *gc.get_referents(*owners)]
    seen: set[int] = set()
    for value in ahead:
        if isinstance(value, CoroutineType):
            if getcoroutinestate(value) == CORO_CREATED:
                code = value.cr_code
                place = (code.co_filename, code.co_firstlineno, code.co_name)
                raise ForgottenAwait(value.__qualname__, *(value.cr_origin or (place,))[0])
        elif isinstance(value, _CONTAINERS) and id(value) not in seen:
            seen.add(id(value))
            ahead += value.values() if isinstance(value, dict) else value


class NotAnOperation(TypeError):
    """A program awaits something that no engine can carry out."""


def watch_coroutines() -> None:
    """From now on, in this process: notice forgotten awaits, and say nothing of programs that are dropped.

    A search drops programs inside a `try` whose `finally` awaits something all the time, and nobody is left
    who could carry that out.
    """
    sys.unraisablehook = _unraisable
    warnings.filterwarnings("error", r"coroutine '.*' was never awaited", RuntimeWarning)
    if _note_collection not in gc.callbacks:
        gc.callbacks.append(_note_collection)


def _note_collection(phase: str, _info: dict[str, int]) -> None:
    global _collects
    _collects = phase == "start"


def _unraisable(problem: sys.UnraisableHookArgs) -> None:
    text = str(problem.exc_value)
    dropped = problem.object
    if isinstance(dropped, CoroutineType) and "' was never awaited" in text:
        if not _collects:
            _notice(dropped, sys._getframe(1))
    elif text != "coroutine ignored GeneratorExit":
        sys.__unraisablehook__(problem)


def _notice(dropped: CoroutineType[Any, Any, Any], innermost: FrameType) -> None:
    """Keep it, if it was dropped in a program that runs: below the CPU that resumes it on the stack."""
    frame: FrameType | None = innermost
    user = None
    while frame is not None and frame.f_globals.get("__name__") != "emulator.hardware.cpu":
        if user is None and frame.f_globals.get("__name__", "").partition(".")[0] not in _OURS:
            user = frame
        frame = frame.f_back
    if frame is None:
        return
    code = dropped.cr_code
    place = (code.co_filename, code.co_firstlineno, code.co_name)
    if user is not None:
        place = (user.f_code.co_filename, user.f_lineno, user.f_code.co_name)
    FORGOTTEN.append(ForgottenAwait(dropped.__qualname__, *place))
