"""What a person may have meant where a search found nothing: counters, and methods that nobody called."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Collection, Iterator, Sequence

from emulator.kernel.instead import Instead, was_called
from emulator.kernel.policy import Policy
from scenarios.subjects.hooks import own_and_base
from scenarios.subjects.kernel_functions import KernelFunction, kernel_functions, known_counters
from scenarios.subjects.policies import policy_factory


def instead_counted(wanted: Sequence[str], counted: Collection[str]) -> str:
    """What runs have counted, if not these: the closest, or all; empty if nothing is wanted."""
    if not wanted:
        return ""
    known = known_counters()
    close = [
        near
        for name in wanted
        for near in difflib.get_close_matches(name, counted if name in known else {*known, *counted}, 1)
    ]
    if close:
        return f"; did you mean {', '.join(dict.fromkeys(close))}?"
    return f"; counted were: {', '.join(sorted(counted)) or 'none'}"


def never_called(policy: str) -> str:
    """Which methods of a user's own policy have never been called here, and where the kernel would."""
    made = policy_factory(policy)
    if not isinstance(made, type):
        return ""
    return "".join(f"; {one}" for one in _uncalled(made))


def _uncalled(made: type[Policy]) -> Iterator[str]:
    own, base = own_and_base(made, Policy)
    for name in dict.fromkeys(name for one in own for name in vars(one)):
        method = inspect.getattr_static(made, name)
        mark = getattr(method, "instead_of", None)
        hook = inspect.isfunction(method) and inspect.isfunction(getattr(base, name, None)) and name[0] != "_"
        if inspect.isfunction(method) and (hook or mark is not None) and not was_called(method):
            yield f"{made.__name__}.{name} was never called: {_where(name, mark)}"


def _where(name: str, mark: Instead | None) -> str:
    """Where the kernel would call a hook, or what a method stands for."""
    if mark is None:
        return f"it is a hook{_of(name, True)}"
    if mark.within is not None:
        return f"{mark.function.__name__} within {mark.within.__name__}{_of(mark.within.__name__, False)}"
    return f"{mark.function.__name__}{_of(mark.function.__name__, False)}"


def _of(name: str, is_hook: bool) -> str:
    found: KernelFunction | None = next(
        (one for one in kernel_functions() if one.name == name and one.is_hook == is_hook), None
    )
    if found is None:
        return ""
    asked = f" of {', '.join(found.callers)}" if is_hook else f", called by {', '.join(found.callers)}"
    programs = ", ".join(found.programs) or "no helper of litmus tests"
    return f"{asked if found.callers else ''}; what gets there: {programs}"
