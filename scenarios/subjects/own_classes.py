"""The one way from `module:Class` or `FILE.py:Class` to a user's own policy or mmu.

What is named is imported, and read before it runs: what is wrong with it in a way that Python lets pass
becomes one line.
"""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Collection
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NamedTuple

from scenarios.subjects.await_reader import check_awaits
from scenarios.subjects.hook_answers import hold_to_answers
from scenarios.subjects.hooks import check_hooks, own_and_base
from scenarios.subjects.modules import find_in, load, place, what, with_companions
from scenarios.usage import UsageProblem, did_you_mean

_OWN: Final = "or your own as module:Class or FILE.py:Class"
_OURS: Final = ("emulator", "scenarios", "actors")


class Kind(NamedTuple):
    """What a name may stand for: `a_noun` in words, a class derived from `base`, or one that is `shipped`."""

    a_noun: str
    base: type
    shipped: Collection[str]

    @property
    def noun(self) -> str:
        """What it is called, without an article."""
        return self.a_noun.partition(" ")[2]

    @property
    def known(self) -> str:
        """What is said of an unknown name, after what may have been meant."""
        return f"a .py file with a class derived from {self.base.__module__}.{self.base.__name__}"


def looks_own(name: str) -> bool:
    """It has the form of a class of somebody's own, which looking for it would import."""
    where, colon, _ = name.rpartition(":")
    return bool(where if colon else name.endswith(".py") or os.sep in name)


def own_class(kind: Kind, name: str, where: str) -> type[Any]:
    """The class that is named, looked at. UsageProblem, beginning with `where` it was named, if there is none
    of that name or it is wrong."""
    found = _named(kind, name, where)
    for module in with_companions(_module_of(found)):
        check_awaits(module)
    if missing := sorted(getattr(found, "__abstractmethods__", ())):
        first = inspect.getsourcelines(found)[1]
        raise wrong(where, name, f"line {first}: {found.__name__} has no {', '.join(missing)}")
    try:
        made = found()
    except (Exception, SystemExit) as problem:
        line = place(problem, getattr(_module_of(found), "__file__", ""))
        raise wrong(where, name, f"{line}making one raised {what(problem)}") from None
    check_hooks(made, kind.base)
    hold_to_answers(*own_and_base(found, kind.base))
    return found


def is_derived(name: str, base: type, where: str) -> bool:
    """The name of somebody's own means a class derived from `base`. UsageProblem if it imports nothing."""
    file, _, wanted = name.rpartition(":")
    module = _imported(Kind("a class", base, ()), name, file or name, where)
    found = vars(module).get(wanted)
    return isinstance(found, type) and issubclass(found, base)


def wrong(where: str, name: str, text: str) -> UsageProblem:
    """What is wrong with the class of that name."""
    return UsageProblem(f"{where} {name}: {text}")


def _named(kind: Kind, name: str, option: str) -> type[Any]:
    base = kind.base
    where, colon, wanted = name.rpartition(":")
    if not colon and looks_own(name):
        where = name
    elif not colon or where in ("", "migrc"):
        known = did_you_mean(name, kind.shipped)
        raise UsageProblem(f"{option}: unknown {kind.noun} {name!r}; {known}, {_OWN}")
    module = _imported(kind, name, where, option)
    found = vars(module).get(wanted)
    if isinstance(found, type) and issubclass(found, base):
        return found
    classes = [
        one
        for one, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, base) and value.__module__ == module.__name__
    ]
    known = did_you_mean(wanted, classes) if classes else f"it holds none; write class Mine({base.__name__})"
    if not colon or not wanted:
        raise wrong(option, name, f"which class of {where}? {known}")
    if isinstance(found, base):
        held = f"{wanted} is {kind.a_noun} object; name its class, {type(found).__name__}"
        raise wrong(option, name, held)
    if found is not None:
        thing = "a class" if isinstance(found, type) else f"a {type(found).__name__}"
        text = f"{wanted} is {thing}, not a class derived from {base.__name__}; {known}"
        raise wrong(option, name, text)
    file = getattr(module, "__file__", None)
    beside = Path(f"{where}.py")
    if beside.is_file() and str(beside.absolute()) != file:
        raise wrong(option, name, f"{where} is the module {file or where}; did you mean ./{beside}:{wanted}?")
    raise wrong(option, name, f"no class {wanted!r} there; {known}")


def _imported(kind: Kind, name: str, where: str, option: str) -> ModuleType:
    if where.endswith(".py") or os.sep in where:
        return load(str(Path(where).absolute()), kind.known)
    # Behind everything that is installed: a ray.py that happens to lie here is not Ray.
    find_in(os.getcwd())
    try:
        return importlib.import_module(where)
    except ModuleNotFoundError as problem:
        if problem.name != where.partition(".")[0]:
            raise wrong(option, name, f"{where} needs a module named {problem.name}; there is none") from None
        known = f"{did_you_mean(name, kind.shipped)}, {_OWN}"
        raise wrong(option, name, f"no module named {where} is installed or here; {known}") from None
    except (Exception, SystemExit) as problem:
        text = f"importing {where} raised {place(problem, '')}{what(problem)}"
        raise wrong(option, name, text) from None


def _module_of(found: Any) -> ModuleType:
    return importlib.import_module(found.__module__)


def modules_of_class(found: Any) -> list[ModuleType]:
    """The user's own modules that a class is made of: other processes cannot import them."""
    module = _module_of(found)
    return [] if module.__name__.partition(".")[0] in _OURS else with_companions(module)
