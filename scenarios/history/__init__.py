"""Bugs that the kernel had, each with a litmus test: with the fix nothing breaks, before it a rule does.

What a file of this folder holds at its top is in the history. The code before a fix is a mistake
(`scenarios/mistakes`).
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from emulator.machine.litmus import Litmus
from scenarios.history.bug import Bug

_MODULES = [import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__)]

BUGS: dict[str, Bug] = {
    value.name: value for module in _MODULES for value in vars(module).values() if isinstance(value, Bug)
}
TESTS: dict[str, Litmus] = {bug.test.name: bug.test for bug in BUGS.values()}
