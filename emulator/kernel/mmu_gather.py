"""Unmapping ranges (mm/mmu_gather.c, mm/memory.c: zap_pte_range, free_pgtables, v6.6): clear, flush, free.

A gather remembers what was cleared and which frames are to go. It spans page tables and areas until it is
full; only what it has flushed for is given back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from emulator.hardware.operations import (
    AtomicAdd,
    CmpxchgPte,
    FindVma,
    FolioMapping,
    FolioPut,
    FolioSetFlag,
    FreePgtables,
    Load,
    Lock,
    MappedRange,
    PgtableWithdraw,
    PmdRange,
    PutTable,
    RemoveRmap,
    Series,
    Unlock,
    VmaRemove,
    ZapPte,
)
from emulator.hardware.pte import EXCLUSIVE, PMD_ORDER, PSE, ZERO_PFN, pte_dirty, pte_pfn, pte_present, ptl
from emulator.kernel.huge_memory import split_huge_pmd
from emulator.kernel.mmu_notifier import (
    mmu_notifier_invalidate_range_end,
    mmu_notifier_invalidate_range_start,
)
from emulator.kernel.percpu import PerCpu, tlb_flush_pending_word
from emulator.kernel.rmap import flush_tlb_batched_pending
from emulator.kernel.smp import ipi_function, smp_call_function
from emulator.kernel.tlb import TLB_FLUSH_ALL
from emulator.memory.folios import PG_DIRTY
from emulator.memory.page_table import VM_PFNMAP, VM_SHARED, Vma

# Frames that a gather holds before it has to flush: 8 on the stack and 19 pages of pointers to 510 each.
MMU_GATHER_BUNDLE = 8
MAX_GATHER_BATCH = (4096 - 16) // 8
MAX_GATHER_BATCH_COUNT = 10_000 // MAX_GATHER_BATCH
MAX_GATHER_PAGES = MMU_GATHER_BUNDLE + MAX_GATHER_BATCH_COUNT * MAX_GATHER_BATCH


@dataclass(slots=True, eq=False)
class MmuGather:
    """struct mmu_gather of one task: pages [start, end) are to be flushed, then `folios` and `tables` freed.

    `stride` is the smallest that was cleared, in pages (tlb_get_unmap_shift): 0 for nothing. `fullmm`: the
    range is everything.
    """

    mm: int
    fullmm: bool = False
    start: int = 0
    end: int = 0
    stride: int = 0
    freed_tables: bool = False
    folios: list[int] = field(default_factory=list)
    tables: list[int] = field(default_factory=list)  # the upper entries that named them
    lazily: bool = False  # it may be flushed for and freed later, where the mmu does so
    put_off: bool = False  # and some of it is
    table_changed: bool = False  # some entry, since a page table's lock was taken
    defer_gen: int = 0  # a policy's: the mm's generation when a table was changed last

    def adjust_range(self, start: int, pages: int, stride: int) -> None:
        """__tlb_adjust_range, and the note of the level: entries of `stride` pages each."""
        self.start = min(self.start, start) if self.stride else start
        self.end = max(self.end, start + pages)
        self.stride = min(self.stride, stride) if self.stride else stride
        self.table_changed = True

    def reset_range(self) -> None:
        """__tlb_reset_range."""
        self.start = self.end = self.stride = 0
        self.freed_tables = self.table_changed = False


def gather_pages(cpu: PerCpu) -> int:
    """How many frames a gather holds before it is flushed (tlb_next_batch)."""
    return cpu.parameters.mmu_gather_pages or MAX_GATHER_PAGES


async def tlb_gather_mmu(mm: int, fullmm: bool = False, lazily: bool = False) -> MmuGather:
    """tlb_gather_mmu, tlb_gather_mmu_fullmm: from here on entries change whose flush is still to come."""
    await AtomicAdd(tlb_flush_pending_word(mm), 1)
    return MmuGather(mm, fullmm, lazily=lazily)


async def table_changed(cpu: PerCpu, tlb: MmuGather, vpn: int) -> None:
    """Before a page table's lock is dropped (arch_leave_lazy_mmu_mode): the policy hears of a change."""
    if tlb.table_changed:
        tlb.table_changed = False
        await cpu.policy.table_changed(cpu, tlb, vpn)


async def tlb_flush_mmu_tlbonly(cpu: PerCpu, tlb: MmuGather) -> None:
    """tlb_flush_mmu_tlbonly, tlb_flush: flush what was changed since the last time, if anything was.

    A policy is asked whether frames or tables are about to go, or only entries have changed.
    """
    if not tlb.stride and not tlb.freed_tables:
        return
    start, end = (0, TLB_FLUSH_ALL) if tlb.fullmm else (tlb.start, tlb.end)
    stride, freed_tables = tlb.stride or 1, tlb.freed_tables
    tlb.reset_range()
    if tlb.fullmm and not freed_tables and cpu.mmu.leaves_dead_mms:
        return
    if tlb.folios or freed_tables:
        await cpu.policy.flush_zapped(cpu, tlb.mm, start, end, stride, freed_tables)
    else:
        await cpu.policy.flush_changed(cpu, tlb.mm, start, end, stride, freed_tables)


async def tlb_flush_mmu(cpu: PerCpu, tlb: MmuGather) -> None:
    """tlb_flush_mmu: flush, then free what was waiting for that."""
    if tlb.lazily and cpu.mmu.frees_lazily and tlb.folios and not tlb.freed_tables and not tlb.fullmm:
        await cpu.mmu.flush_zapped(cpu, tlb)
    else:
        await tlb_flush_mmu_tlbonly(cpu, tlb)
    if tlb.tables:
        await tlb_table_flush(cpu, tlb)
    folios, tlb.folios = tlb.folios, []
    for pfn in folios:
        await FolioPut(pfn)


def force_flush_all(tlb: MmuGather) -> None:
    """What tlb_finish_mmu makes of a gather that others gather beside, since 7a30df49f63a (v5.2)."""
    tlb.fullmm = True
    tlb.reset_range()
    tlb.freed_tables = True


async def tlb_finish_mmu(cpu: PerCpu, tlb: MmuGather) -> None:
    """tlb_finish_mmu: the last flush of the gather, and the end of it.

    If others gather on the mm at the same time, an entry that needed no flush here may be one whose flush
    they owe (mm_tlb_flush_nested): then everything goes.
    """
    pending = tlb_flush_pending_word(tlb.mm)
    if await Load(pending) > 1:
        force_flush_all(tlb)
    await tlb_flush_mmu(cpu, tlb)
    await AtomicAdd(pending, -1)


class ZapDetails(NamedTuple):
    """struct zap_details of a truncation: only what `file` has cached, whose page 0 would be at `first`.

    With `even_cows` private copies as well.
    """

    file: int
    first: int
    even_cows: bool

    async def should_zap(self, mm: int, vpn: int, pte: int) -> bool:
        """should_zap_folio. Areas are asked because i_mmap is not kept: another one may be here by now."""
        slot = await FolioMapping(pte_pfn(pte))
        if slot or not self.even_cows:
            return slot == (self.file, vpn - self.first)
        found = await FindVma(mm, vpn)
        return bool(found) and Vma(*found).file == self.file


async def unmap_vmas(cpu: PerCpu, tlb: MmuGather, areas: Iterable[Vma]) -> int:
    """unmap_vmas: clear all that is mapped in these areas; how many pages were.

    Pages of drivers have no references: once the area is in no file's list (unlink_file_vma) nobody finds it,
    and the driver takes them for unmapped. So they are flushed for here (tlb_end_vma, since b67fbebd4cf9).
    """
    zapped = 0
    for vma in areas:
        if cpu.parameters.guests:
            zapped += await _unmap_single_vma(cpu, tlb, vma)
        else:
            zapped += await unmap_page_range(cpu, tlb, vma, vma.start, vma.end)
        if vma.flags & VM_PFNMAP:
            await tlb_flush_mmu_tlbonly(cpu, tlb)
    return zapped


async def _unmap_single_vma(cpu: PerCpu, tlb: MmuGather, vma: Vma) -> int:
    await mmu_notifier_invalidate_range_start(cpu, tlb.mm, vma.start, vma.end)
    unmapped = await unmap_page_range(cpu, tlb, vma, vma.start, vma.end)
    await mmu_notifier_invalidate_range_end(cpu, tlb.mm, vma.start, vma.end)
    return unmapped


async def unmap_page_range(
    cpu: PerCpu, tlb: MmuGather, vma: Vma, start: int, end: int, details: ZapDetails | None = None
) -> int:
    """unmap_page_range, zap_pmd_range: clear pages [start, end) of the area; how many were mapped.

    A huge page of which only a part is meant is split first.
    """
    zapped = 0
    for first, pmd in await PmdRange(tlb.mm, start, end):
        last = first + cpu.parameters.table_pages
        if pmd and start <= first and last <= end:
            pages = await zap_huge_pmd(cpu, tlb, first, pmd)
            if pages >= 0:
                zapped += pages
                continue
        elif pmd:
            await split_huge_pmd(cpu, tlb.mm, first)
        zapped += await zap_pte_range(cpu, tlb, vma, max(first, start), min(last, end), details)
    await cpu.policy.gather_end(cpu, tlb.mm, vma)
    return zapped


async def zap_huge_pmd(cpu: PerCpu, tlb: MmuGather, vpn: int, pmd: int) -> int:
    """zap_huge_pmd: clear the one entry of a huge page; how many pages it mapped, -1 if it has been split."""
    pages = cpu.parameters.hpage_nr
    while (seen := await CmpxchgPte(tlb.mm, vpn, pmd, 0)) != pmd:
        if not seen & PSE:
            return -1
        pmd = seen
    tlb.adjust_range(vpn, pages, pages)
    await table_changed(cpu, tlb, vpn)
    if cpu.parameters.walker_caches and (table := await PgtableWithdraw(tlb.mm, vpn)):
        # zap_deposited_table: nobody has walked it since it was deposited.
        await PutTable(table)
    if not pte_present(pmd):
        return 0
    if pte_pfn(pmd) == ZERO_PFN:
        return pages
    tlb.folios.append(pte_pfn(pmd))
    if len(tlb.folios) == gather_pages(cpu):
        await tlb_flush_mmu(cpu, tlb)
    return pages


async def zap_pte_range(
    cpu: PerCpu, tlb: MmuGather, vma: Vma, start: int, end: int, details: ZapDetails | None
) -> int:
    """zap_pte_range: clear pages [start, end) of one page table, under its lock; how many were mapped."""
    zapped, most = 0, gather_pages(cpu)
    lock = ptl(tlb.mm, start)
    while start < end:
        _, mapped = await Series((Lock(lock), MappedRange(tlb.mm, start, end)))
        await flush_tlb_batched_pending(cpu, tlb.mm)
        if details is not None:
            mapped = tuple([(vpn, pte) for vpn, pte in mapped if await details.should_zap(tlb.mm, vpn, pte)])
        part = [vpn for vpn, _ in mapped[: most - len(tlb.folios)]]
        zapped += await zap_present_ptes(cpu, tlb, vma, part)
        full = len(tlb.folios) == most
        if full:
            # force_flush: before others can come by these entries.
            await tlb_flush_mmu_tlbonly(cpu, tlb)
        await Unlock(lock)
        if full:
            await tlb_flush_mmu(cpu, tlb)
        start = part[-1] + 1 if len(part) < len(mapped) else end
    return zapped


async def zap_present_ptes(cpu: PerCpu, tlb: MmuGather, vma: Vma, vpns: Sequence[int]) -> int:
    """The inner loop of zap_pte_range: clear these entries of one page table; how many mapped a page.

    PROT_NONE entries map a page like any other. A migration entry holds no reference and owes no flush: it
    just goes, and who left it finds it gone (remove_migration_ptes). Whoever leaves one flushes, or counts
    the unmap, before the lock is dropped.

    A dirty page of a file is flushed for before it leaves the reverse map, and both happen under the lock
    (`force_flush`, tlb_flush_rmaps; since 5df397dec7c4): who cleans it or writes it out meanwhile finds that
    it is mapped, and the last write to it comes before that.
    """
    if not vpns:
        return 0
    mm = tlb.mm
    delay_rmap = cpu.policy.delays_rmap and bool(vma.file) and bool(vma.flags & VM_SHARED)
    zapped = 0
    delayed: list[tuple[int, int]] = []
    entries = await Series(tuple([ZapPte(mm, vpn, delay_rmap) for vpn in vpns]))
    for vpn, pte in zip(vpns, entries, strict=True):
        if not pte_present(pte):
            continue
        tlb.adjust_range(vpn, 1, 1)
        zapped += 1
        pfn = pte_pfn(pte)
        if pfn == ZERO_PFN or vma.flags & VM_PFNMAP:
            continue
        if vma.file and pte_dirty(pte) and not pte & EXCLUSIVE:
            await FolioSetFlag(pfn, PG_DIRTY)
        if delay_rmap and pte_dirty(pte):
            delayed.append((vpn, pfn))
        tlb.folios.append(pfn)
    await table_changed(cpu, tlb, vpns[0])
    if delayed:
        await tlb_flush_mmu_tlbonly(cpu, tlb)
        for vpn, pfn in delayed:
            await RemoveRmap(mm, vpn, pfn)
    return zapped


async def zap_page_range_single(
    cpu: PerCpu,
    mm: int,
    vma: Vma,
    start: int,
    end: int,
    details: ZapDetails | None = None,
    lazily: bool = False,
) -> int:
    """zap_page_range_single: clear pages [start, end) of one area, which stays; how many were mapped."""
    tlb = await tlb_gather_mmu(mm, lazily=lazily)
    if cpu.parameters.guests:
        await mmu_notifier_invalidate_range_start(cpu, mm, start, end)
    zapped = await unmap_page_range(cpu, tlb, vma, start, end, details)
    if cpu.parameters.guests:
        await mmu_notifier_invalidate_range_end(cpu, mm, start, end)
    await tlb_finish_mmu(cpu, tlb)
    return zapped


@ipi_function
async def tlb_remove_table_smp_sync(cpu: PerCpu, arguments: tuple[int, ...]) -> None:
    """tlb_remove_table_smp_sync: that it runs is all."""


async def tlb_remove_table_sync_one(cpu: PerCpu) -> None:
    """tlb_remove_table_sync_one: whoever walks page tables with interrupts off is through when it returns."""
    cpu.count("tlb_remove_table_sync")
    await smp_call_function(cpu, tlb_remove_table_smp_sync)


async def tlb_table_invalidate(cpu: PerCpu, tlb: MmuGather) -> None:
    """tlb_table_invalidate: what walkers have cached of tables goes before they do; d86564a2f085 (v4.19)."""
    await tlb_flush_mmu_tlbonly(cpu, tlb)


async def tlb_remove_table(cpu: PerCpu, tlb: MmuGather, pmd: int) -> None:
    """tlb_remove_table: the table goes when nobody walks it any more, after the flush of the gather.

    If there is no page for a batch of tables, it goes at once, by itself.
    """
    if cpu.parameters.table_batches or not cpu.parameters.paravirt_flush:
        tlb.tables.append(pmd)
        return
    await tlb_table_invalidate(cpu, tlb)
    await tlb_remove_table_sync_one(cpu)
    await PutTable(pmd)


async def tlb_table_flush(cpu: PerCpu, tlb: MmuGather) -> None:
    """tlb_table_flush: free the tables that have been flushed for.

    Where every flush interrupts, nobody walks them by then (x86 without paravirtual flushes and broadcasts:
    tlb_remove_page). Else an RCU grace period comes first, which whoever has interrupts off holds up
    (MMU_GATHER_RCU_TABLE_FREE). Here it is waited for, by an interrupt to every CPU.
    """
    if cpu.parameters.paravirt_flush or cpu.mmu.broadcasts:
        await tlb_remove_table_sync_one(cpu)
    for pmd in tlb.tables:
        await PutTable(pmd)
    tlb.tables.clear()


async def free_pgtables(
    cpu: PerCpu, tlb: MmuGather, start: int, end: int, moved: frozenset[int] = frozenset()
) -> None:
    """free_pgtables over pages [start, end), which are in no area any more: what nobody else uses goes.

    As by pte_free_tlb and those above it: the first page of what the table maps joins the range, which makes
    it long where the table is a large one.
    """
    for first, order, pmd in await FreePgtables(tlb.mm, start, end):
        if first in moved and order == PMD_ORDER:
            # move_normal_pmd has taken it away.
            continue
        tlb.adjust_range(first, 1, 1 << order)
        tlb.freed_tables = True
        if pmd:
            await tlb_remove_table(cpu, tlb, pmd)


async def exit_mmap(cpu: PerCpu, mm: int, areas: tuple[tuple[int, int], ...]) -> None:
    """exit_mmap: give up a whole address space, its areas [start, end) in pages, with one flush."""
    if not areas:
        return
    start, end = min(first for first, _ in areas), max(last for _, last in areas)
    tlb = await tlb_gather_mmu(mm, fullmm=True)
    await unmap_vmas(cpu, tlb, [Vma(*area) for area in await VmaRemove(mm, start, end)])
    await free_pgtables(cpu, tlb, start, end)
    await tlb_finish_mmu(cpu, tlb)
