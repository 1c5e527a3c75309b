"""The one way from a policy's name to its factory, for every verb and engine.

A name is a shipped policy, a shipped mistake, or the user's own class: `module:Class` or `FILE.py:Class`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Final

from emulator.kernel.policy import Policy
from emulator.policies.catalogue import POLICIES
from scenarios.mistakes import MISTAKES
from scenarios.subjects.own_classes import Kind, modules_of_class, own_class, wrong
from scenarios.usage import UsageProblem, did_you_mean

_OPTION: Final = "--policy"
_KIND: Final = Kind("a policy", Policy, POLICIES)


def is_shipped(name: str) -> bool:
    """It comes with this package, so that to look for it imports nothing of anybody's."""
    return name in POLICIES or name in MISTAKES or name.startswith("mistake:")


def policy_factory(name: str) -> Callable[[], Policy]:
    """What makes a policy's objects. UsageProblem if there is none of that name, or it is wrong."""
    factory = POLICIES.get(name) or MISTAKES.get(name)
    if factory is not None:
        return factory
    if name.startswith("mistake:"):
        raise UsageProblem(f"{_OPTION}: no mistake named {name}; {did_you_mean(name, MISTAKES)}")
    found: type[Policy] = own_class(_KIND, name, _OPTION)
    like = found().like
    if like and like not in POLICIES:
        where = f"line {inspect.getsourcelines(found)[1]}"
        known = did_you_mean(like, POLICIES)
        raise wrong(_OPTION, name, f"{where}: like = {like!r} is no shipped policy; {known}")
    return found


def modules_to_send(name: str) -> list[ModuleType]:
    """The user's own modules that a policy is made of: other processes cannot import them."""
    return modules_of_class(policy_factory(name))
