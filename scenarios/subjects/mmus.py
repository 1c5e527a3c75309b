"""The one way from an mmu's name to its class, for every verb and engine.

A name is a shipped mmu or the user's own class, `module:Class` or `FILE.py:Class`, as for policies.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import ModuleType
from typing import Final

from emulator.kernel.mmu.catalogue import MMUS
from emulator.kernel.mmu.mmu import Mmu
from emulator.kernel.mmu.x86 import X86
from scenarios.subjects.kernel_settings import wrong_setting
from scenarios.subjects.own_classes import Kind, looks_own, modules_of_class, own_class, wrong

DEFAULT_MMU: Final = X86.name
_OPTION: Final = "--mmu"
_KIND: Final = Kind("an mmu", Mmu, MMUS)


def with_mmu(name: str) -> str:
    """` with MMU`, where it is not the one that goes without saying."""
    return "" if name == DEFAULT_MMU else f" with {name}"


def is_own_mmu(name: str) -> bool:
    """It does not come with this package: to look for it imports somebody's code."""
    return name not in MMUS and looks_own(name)


def check_mmu(name: str, where: str) -> None:
    """UsageProblem for a name in the file `where` that means nothing. Somebody's own is not looked for: a
    file from a stranger is data."""
    if not is_own_mmu(name):
        mmu_class(name, where)


def mmu_class(name: str, where: str = _OPTION) -> type[Mmu]:
    """How a machine's CPUs carry out flushes. UsageProblem, beginning with `where` it
    was named, if there is none of that name, or it is wrong."""
    found = MMUS.get(name)
    if found is not None:
        return found
    found = own_class(_KIND, name, where)
    line = f"line {inspect.getsourcelines(found)[1]}"
    if not isinstance(found.settings, Mapping):
        raise wrong(where, name, f"{line}: settings is {found.settings!r:.60}; names and values")
    for setting, value in found.settings.items():
        for problem in wrong_setting(setting, value):
            raise wrong(where, name, f"{line}: {problem}")
    return found


def mmu_modules_to_send(name: str) -> list[ModuleType]:
    """The user's own modules that an mmu is made of: other processes cannot import them."""
    return modules_of_class(mmu_class(name))
