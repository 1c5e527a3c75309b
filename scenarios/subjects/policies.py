"""The one way from a policy's name to its factory, for every verb and engine.

A name is a shipped policy, a shipped mistake, or the user's own class: `module:Class` or `FILE.py:Class`.
The user's is read before it runs: what is wrong with it in a way that Python lets pass becomes one line.
"""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from emulator.kernel.policy import Policy
from emulator.policies.catalogue import POLICIES
from scenarios.mistakes import MISTAKES
from scenarios.subjects.await_reader import check_awaits
from scenarios.subjects.hook_answers import hold_to_answers
from scenarios.subjects.hooks import check_hooks, own_and_base
from scenarios.subjects.modules import find_in, load, place, what, with_companions
from scenarios.usage import UsageProblem, did_you_mean

_WANTED: Final = "a .py file with a class derived from emulator.kernel.policy.Policy"
_OWN: Final = "or your own as module:Class or FILE.py:Class"


def is_shipped(name: str) -> bool:
    """It comes with this package, so that to look for it imports nothing of anybody's."""
    return name in POLICIES or name in MISTAKES or name.startswith("mistake:")


def policy_factory(name: str) -> Callable[[], Policy]:
    """What makes a policy's objects. UsageProblem if there is none of that name, or it is wrong."""
    factory = POLICIES.get(name) or MISTAKES.get(name)
    if factory is not None:
        return factory
    found = _named(name)
    for module in with_companions(_module_of(found)):
        check_awaits(module)
    try:
        made = found()
    except (Exception, SystemExit) as problem:
        line = place(problem, getattr(_module_of(found), "__file__", ""))
        raise _wrong(name, f"{line}making one raised {what(problem)}") from None
    check_hooks(made)
    if made.like and made.like not in POLICIES:
        where = f"line {inspect.getsourcelines(found)[1]}"
        known = did_you_mean(made.like, POLICIES)
        raise _wrong(name, f"{where}: like = {made.like!r} is no shipped policy; {known}")
    hold_to_answers(*own_and_base(found))
    return found


def _named(name: str) -> type[Policy]:
    """The class that `module:Class` or `FILE.py:Class` names."""
    if name.startswith("mistake:"):
        raise UsageProblem(f"--policy: no mistake named {name}; {did_you_mean(name, MISTAKES)}")
    where, colon, wanted = name.rpartition(":")
    if not colon and (name.endswith(".py") or os.sep in name):
        where = name
    elif not colon or where in ("", "migrc"):
        raise UsageProblem(f"--policy: unknown policy {name!r}; {did_you_mean(name, POLICIES)}, {_OWN}")
    module = _imported(name, where)
    found = vars(module).get(wanted)
    if isinstance(found, type) and issubclass(found, Policy):
        return found
    classes = [
        one
        for one, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Policy) and value.__module__ == module.__name__
    ]
    known = did_you_mean(wanted, classes) if classes else "it holds none; write class Mine(Policy)"
    if not colon or not wanted:
        raise _wrong(name, f"which class of {where}? {known}")
    if isinstance(found, Policy):
        raise _wrong(name, f"{wanted} is a policy object; name its class, {type(found).__name__}")
    if found is not None:
        kind = "a class" if isinstance(found, type) else f"a {type(found).__name__}"
        raise _wrong(name, f"{wanted} is {kind}, not a class derived from Policy; {known}")
    file = getattr(module, "__file__", None)
    beside = Path(f"{where}.py")
    if beside.is_file() and str(beside.absolute()) != file:
        raise _wrong(name, f"{where} is the module {file or where}; did you mean ./{beside}:{wanted}?")
    raise _wrong(name, f"no class {wanted!r} there; {known}")


def _imported(name: str, where: str) -> ModuleType:
    if where.endswith(".py") or os.sep in where:
        return load(str(Path(where).absolute()), _WANTED)
    # Behind everything that is installed: a ray.py that happens to lie here is not Ray.
    find_in(os.getcwd())
    try:
        return importlib.import_module(where)
    except ModuleNotFoundError as problem:
        if problem.name != where.partition(".")[0]:
            raise _wrong(name, f"{where} needs a module named {problem.name}; there is none") from None
        known = f"{did_you_mean(name, POLICIES)}, {_OWN}"
        raise _wrong(name, f"no module named {where} is installed or here; {known}") from None
    except (Exception, SystemExit) as problem:
        raise _wrong(name, f"importing {where} raised {place(problem, '')}{what(problem)}") from None


def _wrong(name: str, text: str) -> UsageProblem:
    return UsageProblem(f"--policy {name}: {text}")


def _module_of(found: Any) -> ModuleType:
    return importlib.import_module(found.__module__)


def modules_to_send(name: str) -> list[ModuleType]:
    """The user's own modules that a policy is made of: other processes cannot import them."""
    module = _module_of(policy_factory(name))
    ours = module.__name__.partition(".")[0] in ("emulator", "scenarios", "actors")
    return [] if ours else with_companions(module)
