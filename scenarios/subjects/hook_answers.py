"""What the hooks of a user's own policy or mmu answer, held against what is expected, when they answer it.

A wrong answer shows later, in a line of the kernel's, or nowhere: a way out without a `return` is None,
which is false, and a coroutine is true. So what overrides a shipped method that answers something is looked
at as it answers.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Final, get_args, get_origin

from emulator.kernel import percpu
from emulator.kernel.instead import note_call
from emulator.kernel.policy import WrongAnswer

_KINDS: Final[dict[str, Any]] = {}
"""What the annotations of shipped methods stand for."""


def hold_to_answers(own: list[type], base: type) -> None:
    """From now on these classes' methods that override one of `base` raise WrongAnswer for a wrong answer.

    That they have been called is noted (`was_called`).
    """
    for one in own:
        for name, function in vars(one).copy().items():
            shipped = None if name.startswith("_") else getattr(base, name, None)
            theirs = inspect.isfunction(function) and function.__globals__ is not globals()
            if theirs and inspect.isfunction(shipped):
                setattr(one, name, _held(name, function, answer_of(shipped)))


def answer_of(method: Any) -> str:
    """What a shipped method answers, as its annotation says; empty if nothing."""
    function = inspect.unwrap(method) if inspect.isfunction(method) else None
    wanted = getattr(function, "__annotations__", {}).get("return", "None")
    if function is None or wanted == "None":
        return ""
    if wanted not in _KINDS:
        # Ours, and some of its names are there for type checkers only.
        _KINDS[wanted] = eval(wanted, {**vars(percpu), **function.__globals__})
    return str(wanted)


def _held(name: str, function: Callable[..., Any], wanted: str) -> Callable[..., Any]:
    # Not in `look`: what runs in a search asks for no code.
    code = inspect.unwrap(function).__code__
    place = (code.co_filename, code.co_firstlineno, code.co_name)

    def look(answer: Any) -> Any:
        note_call(function)
        if wanted and not _fits(answer, _KINDS[wanted]):
            if inspect.iscoroutine(answer):
                answer.close()
            raise WrongAnswer(name, answer, wanted, place)
        return answer

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def later(*arguments: Any, **named: Any) -> Any:
            return look(await function(*arguments, **named))

        return later

    @functools.wraps(function)
    def now(*arguments: Any, **named: Any) -> Any:
        return look(function(*arguments, **named))

    return now


def _fits(answer: Any, kind: Any) -> bool:
    """Whether it is of that kind. A number will do for a truth value, but operations take no True for 1."""
    parts = get_args(kind)
    if get_origin(kind) is list:
        return isinstance(answer, list) and all(_fits(one, parts[0]) for one in answer)
    if get_origin(kind) is tuple:
        if not isinstance(answer, tuple):
            return False
        if parts[-1] is Ellipsis:
            parts = (parts[0],) * len(answer)
        return len(answer) == len(parts) and all(map(_fits, answer, parts))
    if kind is int and isinstance(answer, bool):
        return False
    return isinstance(answer, int if kind is bool else get_origin(kind) or kind)
