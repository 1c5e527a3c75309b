"""Mistakes of those who leave flushes to the ticks of others (`--mmu latr`)."""

from __future__ import annotations

from emulator.hardware.operations import FolioPut, Load
from emulator.kernel.instead import instead_of
from emulator.kernel.mmu.latr import Kept, Latr, ticks_word
from emulator.kernel.percpu import PerCpu
from emulator.kernel.smp import cpus_of
from emulator.kernel.tlb import FlushTlbInfo
from emulator.policies.immediate import Immediate


class LatrOneTick(Immediate):
    """sslab-gatech/latr, __process_lazy_pages: "free the entries after 2 HZ (1 extra buffer)". Here after
    one: who was sweeping when the state was saved has ticked, and has not seen it."""

    name = "mistake:latr-one-tick"

    @instead_of(Latr.is_over)
    async def after_one(self, mmu: Latr, cpu: PerCpu, kept: Kept) -> bool:
        """Everybody has had a tick."""
        return all([await Load(ticks_word(other)) > 0 for other in cpus_of(kept.mask)])


class LatrFreesAtOnce(Immediate):
    """sslab-gatech/latr, arch/Kconfig: `LAZY_MEM_FREE` is `def_bool n`, so that states are saved and frames
    freed at once."""

    name = "mistake:latr-frees-at-once"

    @instead_of(Latr.keep)
    async def keeps_nothing(self, mmu: Latr, cpu: PerCpu, kept: Kept) -> None:
        """The state says what is to be flushed."""
        for pfn in kept.folios:
            await FolioPut(pfn)


class LatrForgetsWhenFull(Immediate):
    """sslab-gatech/latr, native_flush_tlb_others: "No free entries available, fall back". Here that is not
    noticed, and frames are freed for which nothing was saved.

    (To write over the oldest state instead breaks nothing since v4.14: who sweeps for the newer one finds
    that it has missed a generation, and flushes everything.)
    """

    name = "mistake:latr-forgets-when-full"

    @instead_of(Latr.fall_back)
    async def takes_it_for_saved(self, mmu: Latr, cpu: PerCpu, info: FlushTlbInfo) -> None:
        """There are 64."""


class LatrKnowsNoNohz(Immediate):
    """sslab-gatech/latr, native_flush_save_state: whom it names has a tick; nobody looks whether."""

    name = "mistake:latr-knows-no-nohz"

    @instead_of(Latr.interrupt_tickless)
    async def they_have_one(self, mmu: Latr, cpu: PerCpu, others: int, info: FlushTlbInfo) -> None:
        """Every millisecond."""


class LatrRangeAtOnce(Immediate):
    """sslab-gatech/latr, do_munmap: `detach_vmas_to_be_unmapped()` before the areas are put on the lazy list,
    so that the next mmap finds the range free."""

    name = "mistake:latr-range-at-once"

    @instead_of(Latr.keep_range)
    async def lets_it_go(self, mmu: Latr, cpu: PerCpu, mm: int, start: int, end: int) -> None:
        """The frames are kept."""
