"""Mistakes of those whose TLBs are invalidated by TLBI (`--arch arm64`)."""

from __future__ import annotations

from emulator.hardware.operations import AtomicXchg, Dsb, Tlbi
from emulator.kernel.instead import instead_of
from emulator.kernel.mmu.arm64 import Arm64, active_asid_word
from emulator.kernel.percpu import PerCpu
from emulator.kernel.rmap import flush_tlb_batched_pending
from emulator.kernel.tlb import flush_tlb_mm
from emulator.policies.immediate import Immediate


class NoDsbAfterTlbi(Immediate):
    """arch/arm64/include/asm/tlbflush.h (v6.6), __flush_tlb_range: `dsb(ish)` at the end. Here the flush is
    taken for done when it has been asked for."""

    name = "mistake:no-dsb-after-tlbi"

    @instead_of(Arm64.dsb_ish, within=Arm64.flush_tlb_mm_range)
    async def waits_for_nothing(self, mmu: Arm64, cpu: PerCpu) -> None:
        """TLBI is an instruction."""


class TlbiNotBroadcast(Immediate):
    """arch/arm64/include/asm/tlbflush.h (v6.6), __flush_tlb_range: `vale1is`. Here `vale1`."""

    name = "mistake:tlbi-not-broadcast"

    @instead_of(Tlbi, within=Arm64.tlbi)
    async def here_alone(
        self, sender: int, mask: int, pcid: int, mm: int, start: int, end: int, stride: int, last_level: bool
    ) -> None:
        """Of this CPU's TLB alone."""
        await Tlbi(sender, 1 << sender, pcid, mm, start, end, stride, last_level)


class Before4b634918384c(Immediate):
    """arch/arm64/include/asm/tlbflush.h, arch_flush_tlb_batched_pending before 4b634918384c (v6.16): who
    comes upon TLBIs of a batch executes `dsb(ish)`, which completes those of its own CPU alone."""

    name = "mistake:before-4b634918384c"

    @instead_of(flush_tlb_mm, within=flush_tlb_batched_pending)
    async def dsb(self, cpu: PerCpu, mm: int) -> None:
        """They have been issued already."""
        await Dsb(cpu.number, cpu.parameters.all_cpus)


class RolloverUnflushed(Immediate):
    """arch/arm64/mm/context.c (v6.6), flush_context: `cpumask_setall(&tlb_flush_pending)`. Here numbers are
    given out again, and TLBs keep what they have under them."""

    name = "mistake:rollover-unflushed"

    @instead_of(Arm64.set_flush_pending)
    async def nothing_pending(self, mmu: Arm64, cpu: PerCpu) -> None:
        """Whoever had them runs no more."""


class RunningAsidsNotReserved(Immediate):
    """arch/arm64/mm/context.c (v6.6), flush_context: what CPUs run keeps its number. Here all are free."""

    name = "mistake:running-asids-not-reserved"

    @instead_of(Arm64.take_active)
    async def forgets(self, mmu: Arm64, cpu: PerCpu, other: int) -> int:
        """It is not noted."""
        await AtomicXchg(active_asid_word(other), 0)
        return 0
