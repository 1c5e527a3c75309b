"""The one way from an mmu's name to its class, for every verb and engine.

A name is a shipped mmu or the user's own class, `module:Class` or `FILE.py:Class`, as for policies.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import ModuleType
from typing import Final

from emulator.kernel.mmu.arm64 import Arm64
from emulator.kernel.mmu.catalogue import MMUS, mmu_for
from emulator.kernel.mmu.mmu import Mmu
from emulator.kernel.mmu.x86 import X86
from scenarios.subjects.kernel_settings import wrong_setting
from scenarios.subjects.own_classes import Kind, looks_own, modules_of_class, own_class, wrong
from scenarios.usage import UsageProblem

DEFAULT_MMU: Final = X86.name
_OPTION: Final = "--mmu"
_KIND: Final = Kind("an mmu", Mmu, MMUS)


def with_mmu(name: str) -> str:
    """` with MMU`, where it is not the one that goes without saying."""
    return "" if goes_without_saying(name) else f" with {name}"


def goes_without_saying(name: str) -> bool:
    """It is the one that its architecture has if nobody asks for another."""
    return name in (DEFAULT_MMU, Arm64.name)


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


def mmu_on(arch: str, asked: str | None, own: str = DEFAULT_MMU) -> str:
    """The one that was asked for, else what a test names as its `own`, or what the architecture has in the
    place of that. UsageProblem if it has no such instructions."""
    if asked is None:
        return own if arch in mmu_class(own).archs else mmu_for(DEFAULT_MMU, arch)
    check_of(asked, arch)
    return asked


def check_of(name: str, arch: str, where: str = _OPTION) -> None:
    """UsageProblem for an mmu that is none of the architecture's."""
    archs = mmu_class(name, where).archs
    if arch not in archs:
        own = ", ".join(one for one, made in MMUS.items() if arch in made.archs)
        raise UsageProblem(f"{where}: {name} is of {', '.join(archs)}, not of {arch}, which has {own}")
