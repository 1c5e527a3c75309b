"""Mistakes of those whose instructions drop entries of other CPUs (`--mmu x86-invlpgb`)."""

from __future__ import annotations

from emulator.hardware.operations import Load, Store, Tlbsync, WaitWhile
from emulator.kernel.instead import instead_of
from emulator.kernel.mmu.x86_invlpgb import GLOBAL_ASID_FREED, GLOBAL_ASID_USED, X86Invlpgb
from emulator.kernel.percpu import PerCpu
from emulator.kernel.tlb import FlushTlbInfo
from emulator.policies.immediate import Immediate


class TransitionUnfinished(Immediate):
    """arch/x86/mm/tlb.c (v6.15), broadcast_tlb_flush: `finish_asid_transition()` before it waits. Here CPUs
    that still run the mm under numbers of their own keep what they have cached under them."""

    name = "mistake:transition-unfinished"

    @instead_of(X86Invlpgb.finish_asid_transition)
    async def leaves_it(self, mmu: X86Invlpgb, cpu: PerCpu, info: FlushTlbInfo, freed_tables: bool) -> None:
        """They will take the number when they switch."""


class SwitchNotAwaited(Immediate):
    """arch/x86/mm/tlb.c (v6.15), finish_asid_transition: `while (loaded_mm == LOADED_MM_SWITCHING)` before it
    asks what a CPU runs. Here one that is just loading the mm under a number of its own is left out."""

    name = "mistake:switch-not-awaited"

    @instead_of(WaitWhile, within=X86Invlpgb.finish_asid_transition)
    async def looks_at_once(self, word: str, value: int) -> None:
        """It runs something else."""


class NoTlbsync(Immediate):
    """arch/x86/mm/tlb.c (v6.15), broadcast_tlb_flush: `__tlbsync()` at the end. Here the flush is taken for
    done when it has been asked for."""

    name = "mistake:no-tlbsync"

    @instead_of(Tlbsync, within=X86Invlpgb.broadcast_tlb_flush)
    async def waits_for_nothing(self, sender: int) -> None:
        """INVLPGB is an instruction."""


class TlbsyncElsewhere(Immediate):
    """arch/x86/include/asm/tlb.h (v6.15), __tlbsync: `cant_migrate()`, as TLBSYNC waits for the INVLPGBs of
    its own CPU. Here the task has moved in between."""

    name = "mistake:tlbsync-elsewhere"

    @instead_of(Tlbsync, within=X86Invlpgb.broadcast_tlb_flush)
    async def on_another_cpu(self, sender: int) -> None:
        """On the next, or the one before."""
        await Tlbsync(sender ^ 1)


class AsidReusedUnflushed(Immediate):
    """arch/x86/mm/tlb.c (v6.15), reset_global_asid_space: `invlpgb_flush_all_nonglobals()` makes numbers that
    were freed safe to use again. Here they are just used."""

    name = "mistake:asid-reused-unflushed"

    @instead_of(X86Invlpgb.reset_global_asid_space)
    async def flushes_nothing(self, mmu: X86Invlpgb, cpu: PerCpu) -> None:
        """Whoever had them is gone."""
        used = await Load(GLOBAL_ASID_USED)
        await Store(GLOBAL_ASID_USED, used & ~await Load(GLOBAL_ASID_FREED))
        await Store(GLOBAL_ASID_FREED, 0)
