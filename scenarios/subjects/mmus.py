"""The one way from an mmu's name to its class, for every verb and engine."""

from __future__ import annotations

from typing import Final

from emulator.kernel.mmu.catalogue import MMUS
from emulator.kernel.mmu.mmu import Mmu
from emulator.kernel.mmu.x86 import X86
from scenarios.usage import UsageProblem, did_you_mean

DEFAULT_MMU: Final = X86.name


def with_mmu(name: str) -> str:
    """` with MMU`, where it is not the one that goes without saying."""
    return "" if name == DEFAULT_MMU else f" with {name}"


def mmu_class(name: str, where: str = "--mmu") -> type[Mmu]:
    """How a machine's CPUs carry out flushes. UsageProblem, beginning with `where` it
    was named, if there is none of that name."""
    found = MMUS.get(name)
    if found is None:
        raise UsageProblem(f"{where}: unknown mmu {name!r}; {did_you_mean(name, MMUS)}")
    return found
