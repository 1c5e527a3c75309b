"""The ways to carry out a flush that can be named."""

from __future__ import annotations

from emulator.kernel.mmu.arm64 import Arm64
from emulator.kernel.mmu.early_ack import EarlyAck
from emulator.kernel.mmu.latr import Latr
from emulator.kernel.mmu.mmu import Mmu
from emulator.kernel.mmu.x86 import X86
from emulator.kernel.mmu.x86_invlpgb import X86Invlpgb
from emulator.kernel.mmu.x86_rar import X86Rar

MMUS: dict[str, type[Mmu]] = {one.name: one for one in (X86, EarlyAck, X86Invlpgb, X86Rar, Latr, Arm64)}


def mmu_for(name: str, arch: str) -> str:
    """The one of this name, or the first of the architecture where that has no such instructions."""
    return name if arch in MMUS[name].archs else next(one for one in MMUS if arch in MMUS[one].archs)
