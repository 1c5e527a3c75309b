"""Unmapping ranges (mm/mmu_gather.c, mm/memory.c: zap_pte_range, v6.6): clear, flush, then free.

Frames gather while their entries are cleared and are given back only after the flush.
"""

from __future__ import annotations

from collections.abc import Sequence

from emulator.hardware.operations import (
    AtomicAdd,
    FolioPut,
    FolioSetFlag,
    Load,
    MappedRange,
    Series,
    VmaRemove,
    XchgPte,
)
from emulator.hardware.pte import EXCLUSIVE, pte_dirty, pte_pages, pte_pfn, pte_present
from emulator.kernel.percpu import PerCpu, tlb_flush_pending_word
from emulator.kernel.rmap import flush_tlb_batched_pending
from emulator.kernel.tlb import TLB_FLUSH_ALL, flush_tlb_mm_range
from emulator.memory.folios import PG_DIRTY

MAX_GATHER_PAGES = 512


async def tlb_gather_mmu(mm: int) -> None:
    """tlb_gather_mmu: from here on entries change whose flush is still to come."""
    await AtomicAdd(tlb_flush_pending_word(mm), 1)


async def tlb_finish_mmu(cpu: PerCpu, mm: int, changed: Sequence[int]) -> None:
    """tlb_finish_mmu: flush the range of the `changed` pages, which are in order.

    If others gather on the mm at the same time, an entry that needed no flush here may be one whose flush
    they owe (mm_tlb_flush_nested): then everything goes.
    """
    pending = tlb_flush_pending_word(mm)
    if await Load(pending) > 1:
        await flush_tlb_mm_range(cpu, mm, 0, TLB_FLUSH_ALL, freed_tables=True)
    elif changed:
        await flush_tlb_mm_range(cpu, mm, changed[0], changed[-1] + 1)
    await AtomicAdd(pending, -1)


async def unmap_page_range(cpu: PerCpu, mm: int, start: int, end: int, full_mm: bool = False) -> int:
    """unmap_page_range, tlb_flush_mmu: clear [start, end) and free; how many pages were mapped.

    PROT_NONE entries map a page like any other. A migration entry holds no reference: it just goes, and
    who left it finds it gone (remove_migration_ptes).
    """
    mapped = [vpn for vpn, _ in await MappedRange(mm, start, end)]
    if mapped:
        await flush_tlb_batched_pending(cpu, mm)
    freed = 0
    for at in range(0, len(mapped), MAX_GATHER_PAGES):
        part = mapped[at : at + MAX_GATHER_PAGES]
        old = await Series(tuple(XchgPte(mm, vpn, 0) for vpn in part))
        sizes = [pte_pages(pte, cpu.parameters.hpage_order) for pte in old]
        frames = [pte_pfn(pte) for pte in old if pte_present(pte)]
        for pte in old:
            # Pages of files have to be written out some time. (Anonymous ones that are nobody's own are
            # marked as well, which nobody looks at.)
            if pte_present(pte) and pte_dirty(pte) and not pte & EXCLUSIVE:
                await FolioSetFlag(pte_pfn(pte), PG_DIRTY)
        # What stood where a migration entry is may be cached until the migration has flushed. The kernel
        # sees to that before it clears entries (flush_tlb_batched_pending), as here if it is turned on; but
        # here an entry may be cleared before its batch is counted. So the range's own flush covers it, which
        # therefore is due for migration entries, too.
        if not any(old):
            continue
        if full_mm:
            await flush_tlb_mm_range(cpu, mm, 0, TLB_FLUSH_ALL, freed_tables=True)
        else:
            await cpu.policy.flush_zapped(cpu, mm, part[0], part[-1] + sizes[-1])
        for pfn in frames:
            await FolioPut(pfn)
        freed += sum(size for pte, size in zip(old, sizes, strict=True) if pte_present(pte))
    return freed


async def exit_mmap(cpu: PerCpu, mm: int, areas: tuple[tuple[int, int], ...]) -> None:
    """exit_mmap: give up a whole address space, its areas [start, end) in pages."""
    for start, end in areas:
        await unmap_page_range(cpu, mm, start, end, full_mm=True)
        await VmaRemove(mm, start, end)
