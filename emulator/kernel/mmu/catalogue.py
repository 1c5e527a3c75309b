"""The ways to carry out a flush that can be named."""

from __future__ import annotations

from emulator.kernel.mmu.early_ack import EarlyAck
from emulator.kernel.mmu.latr import Latr
from emulator.kernel.mmu.mmu import Mmu
from emulator.kernel.mmu.x86 import X86
from emulator.kernel.mmu.x86_invlpgb import X86Invlpgb
from emulator.kernel.mmu.x86_rar import X86Rar

MMUS: dict[str, type[Mmu]] = {one.name: one for one in (X86, EarlyAck, X86Invlpgb, X86Rar, Latr)}
