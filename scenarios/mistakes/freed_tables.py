"""Kernels before a fix of how page-table pages are freed, moved and shared."""

from __future__ import annotations

from emulator.hardware.operations import PopulatePmd
from emulator.kernel.huge_memory import pmdp_invalidate, split_huge_pmd
from emulator.kernel.hugetlb import flush_unshared, huge_pmd_unshare
from emulator.kernel.instead import instead_of
from emulator.kernel.khugepaged import _collapse
from emulator.kernel.mmu_gather import (
    MmuGather,
    force_flush_all,
    tlb_remove_table,
    tlb_remove_table_sync_one,
    tlb_table_invalidate,
)
from emulator.kernel.mremap import drop_rmap_locks, no_table, take_rmap_locks
from emulator.kernel.percpu import PerCpu
from emulator.kernel.tlb import flush_tlb_mm_range, flush_tlb_range, no_address_reaches_tables
from emulator.policies.immediate import Immediate


class CollapseWithoutSync(Immediate):
    """mm/khugepaged.c, collapse_huge_page before 2ba99c5e0881: no `tlb_remove_table_sync_one()`.

    The table may be freed while somebody who walks it with interrupts off is inside.
    """

    name = "mistake:collapse-without-sync"

    @instead_of(tlb_remove_table_sync_one, within=_collapse)
    async def waits_for_nobody(self, cpu: PerCpu) -> None:
        """The flush has interrupted, or so it is thought."""


class UnshareWithoutSync(Immediate):
    """mm/hugetlb.c, huge_pmd_unshare before 1013af4f585f: no `tlb_remove_table_sync_one()` there.

    The table is another process' own while somebody still walks it for this one.
    """

    name = "mistake:unshare-without-sync"

    @instead_of(tlb_remove_table_sync_one, within=huge_pmd_unshare)
    async def waits_for_nobody(self, cpu: PerCpu) -> None:
        """Nothing is freed."""


class UnshareWithoutFlush(Immediate):
    """mm/hugetlb.c, __unmap_hugepage_range before a4a118f2eead: what it unshared it did not flush for.

    The other process frees the table and its pages, and the TLBs of this one still lead there.
    """

    name = "mistake:unshare-without-flush"

    @instead_of(flush_unshared)
    async def flushes_nothing(self, cpu: PerCpu, tlb: MmuGather, start: int, pages: int) -> None:
        """No entry was cleared."""


class CollapseSparesTheLazy(Immediate):
    """arch/x86/include/asm/tlbflush.h, flush_tlb_range before 3ef938c35035: `freed_tables` was false.

    Lazy CPUs were left out, though collapse takes a page table away by it.
    """

    name = "mistake:collapse-spares-the-lazy"

    @instead_of(flush_tlb_range)
    async def flushes_what_is_used(self, cpu: PerCpu, mm: int, start: int, end: int) -> None:
        """Entries have changed, that is all."""
        await flush_tlb_mm_range(cpu, mm, start, end, freed_tables=False)


class NestedGatherForgets(Immediate):
    """mm/mmu_gather.c, tlb_finish_mmu before 7a30df49f63a: who gathered beside another one flushed its range
    again, and no longer knew that it had freed tables."""

    name = "mistake:nested-gather-forgets"

    @instead_of(force_flush_all)
    def flushes_the_range(self, tlb: MmuGather) -> None:
        """The range again, by itself."""
        tlb.freed_tables = False


class TablesWithoutInvalidation(Immediate):
    """mm/memory.c, tlb_remove_table before d86564a2f085: without a page for a batch it waited for walkers
    with interrupts off, and freed; no TLB was told."""

    name = "mistake:tables-without-invalidation"

    @instead_of(tlb_table_invalidate, within=tlb_remove_table)
    async def invalidates_nothing(self, cpu: PerCpu, tlb: MmuGather) -> None:
        """The gather will, later."""


class TablesByAddress(Immediate):
    """arch/riscv/include/asm/tlb.h, tlb_flush before 97cf301fa42e: by address, though tables were freed.

    SFENCE.VMA with an address leaves what walkers have cached of the upper tables.
    """

    name = "mistake:tables-by-address"

    @instead_of(no_address_reaches_tables)
    def an_address_does(self, cpu: PerCpu) -> bool:
        """As on other architectures."""
        return False


class TableMovesUnlocked(Immediate):
    """mm/mremap.c, move_pgt_entry before 97113eb39fa7: without the rmap locks, where the new area is found
    after the old one anyway. Who has found the table at its old address flushes that one."""

    name = "mistake:table-moves-unlocked"

    @instead_of(take_rmap_locks)
    async def takes_none(self, cpu: PerCpu, mm: int, file: int) -> None:
        """A walk finds the page at one of the two."""

    @instead_of(drop_rmap_locks)
    async def drops_none(self, cpu: PerCpu, mm: int, file: int) -> None:
        """Nor these."""


class SplitsBeforeItFlushes(Immediate):
    """mm/huge_memory.c, __split_huge_pmd_locked: `pmdp_invalidate()`, which flushes, before the small entries
    are there. Here the flush comes after: a CPU may have both sizes for one address."""

    name = "mistake:splits-before-it-flushes"

    @instead_of(pmdp_invalidate, within=split_huge_pmd)
    async def leaves_it_valid(self, cpu: PerCpu, mm: int, vpn: int, pmd: int) -> int:
        """It names the same frames as the small ones will."""
        return pmd

    @instead_of(PopulatePmd, within=split_huge_pmd)
    async def flushes_after(self, mm: int, vpn: int, pmd: int) -> None:
        """Nobody misses in between."""
        await PopulatePmd(mm, vpn, pmd)


class CollapsesWithoutFlush(Immediate):
    """mm/khugepaged.c, collapse_huge_page: `pmdp_collapse_flush()`. Here entries go, and no TLB is told."""

    name = "mistake:collapses-without-flush"

    @instead_of(flush_tlb_range, within=_collapse)
    async def flushes_nothing(self, cpu: PerCpu, mm: int, start: int, end: int) -> None:
        """The huge page has what the small ones had."""


class TableMovesUnseen(Immediate):
    """mm/mremap.c, move_normal_pmd before 6fa1066fc5d0: what it had seen before it took the locks was moved.

    If the table has gone meanwhile, an entry made of an empty one is installed.
    """

    name = "mistake:table-moves-unseen"

    @instead_of(no_table)
    def is_one(self, pmd: int) -> bool:
        """It was, a moment ago."""
        return False
