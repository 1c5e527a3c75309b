"""Advice about memory (mm/madvise.c, v6.6): give pages up, now or when memory is short, or call them cold.

What is called cold or free goes on being mapped: its entries lose accessed and dirty bits, and one flush at
the end of the gather makes CPUs set them again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from emulator.hardware.operations import (
    CmpxchgPte,
    DownRead,
    FindVma,
    FolioClearFlag,
    FolioIsolateLru,
    FolioPutbackLru,
    FolioRmap,
    FolioSetFlag,
    FolioTestFlag,
    GetPte,
    Lock,
    MappedRange,
    PmdRange,
    Series,
    Unlock,
    UpRead,
)
from emulator.hardware.pte import (
    ACCESSED,
    DIRTY,
    ZERO_PFN,
    pte_huge,
    pte_pfn,
    pte_present,
    ptl,
)
from emulator.kernel.huge_memory import pmdp_clear_bits, split_huge_page
from emulator.kernel.mlock import populate_vma_page_range
from emulator.kernel.mmu_gather import (
    MmuGather,
    table_changed,
    tlb_finish_mmu,
    tlb_gather_mmu,
    zap_page_range_single,
)
from emulator.kernel.mmu_notifier import (
    mmu_notifier_invalidate_range_end,
    mmu_notifier_invalidate_range_start,
)
from emulator.kernel.mprotect import mmap_lock
from emulator.kernel.pageout import shrink_file_folios
from emulator.kernel.percpu import PerCpu
from emulator.kernel.rmap import flush_tlb_batched_pending
from emulator.memory.folios import PG_DIRTY, PG_LAZYFREE, PG_REFERENCED
from emulator.memory.page_table import VM_LOCKED, Vma

Advice = Callable[[PerCpu, int, Vma, int, int], Awaitable[object]]
"""What is done to pages [start, end) of one area of an mm."""


async def do_madvise(cpu: PerCpu, mm: int, start: int, end: int, advice: Advice) -> bool:
    """do_madvise over pages [start, end), `advice` being one of those below.

    False (-ENOMEM) if a part of the range is in no area; the rest is done all the same.
    """
    # mmap_read_lock: other advice and KSM may go on beside it, mmap, munmap and mprotect may not.
    await DownRead(mmap_lock(mm))
    whole = True
    while start < end:
        found = await FindVma(mm, start)
        if found:
            vma = Vma(*found)
            stop = min(vma.end, end)
            await advice(cpu, mm, vma, start, stop)
        else:
            whole = False
            stop = start + 1
        start = stop
    await UpRead(mmap_lock(mm))
    return whole


async def madvise_dontneed(cpu: PerCpu, mm: int, vma: Vma, start: int, end: int) -> int:
    """madvise_dontneed_single_vma (MADV_DONTNEED): the pages go, the area stays; how many were mapped."""
    if vma.flags & VM_LOCKED:
        # -EINVAL
        return 0
    return await zap_page_range_single(cpu, mm, vma, start, end, lazily=True)


async def madvise_dontneed_locked(cpu: PerCpu, mm: int, vma: Vma, start: int, end: int) -> int:
    """MADV_DONTNEED_LOCKED: locked memory as well."""
    return await zap_page_range_single(cpu, mm, vma, start, end)


async def madvise_willneed(cpu: PerCpu, mm: int, vma: Vma, start: int, end: int) -> int:
    """madvise_willneed (MADV_WILLNEED): a file is read ahead into the page cache; nothing is mapped."""
    return 0


async def madvise_populate_read(cpu: PerCpu, mm: int, vma: Vma, start: int, end: int) -> None:
    """madvise_populate (MADV_POPULATE_READ): as if every page were read."""
    await _madvise_populate(cpu, mm, start, end, write=False)


async def madvise_populate_write(cpu: PerCpu, mm: int, vma: Vma, start: int, end: int) -> None:
    """madvise_populate (MADV_POPULATE_WRITE): as if every page were written."""
    await _madvise_populate(cpu, mm, start, end, write=True)


async def _madvise_populate(cpu: PerCpu, mm: int, start: int, end: int, write: bool) -> None:
    """Its faults hold mmap_lock, as madvise does, and no area's lock; the area is looked up again if one gave
    mmap_lock up."""
    while start < end and (found := await FindVma(mm, start)):
        vma = Vma(*found)
        start = await populate_vma_page_range(cpu, mm, vma, start, min(vma.end, end), write)


async def madvise_free(cpu: PerCpu, mm: int, vma: Vma, start: int, end: int) -> int:
    """madvise_free_single_vma (MADV_FREE): anonymous pages may be dropped once memory is short; how many.

    Unless they are written again. A CPU sets the dirty bit of an entry once and then goes by what it has
    cached: only the flush makes that bit mean "written since".
    """
    if vma.file:
        # -EINVAL
        return 0
    tlb = await tlb_gather_mmu(mm)
    if cpu.parameters.guests:
        await mmu_notifier_invalidate_range_start(cpu, mm, start, end)
    marked = 0
    for first, last, whole in await _walk(cpu, mm, start, end):
        if whole:
            marked += await madvise_free_huge_pmd(cpu, tlb, first)
        else:
            marked += len(await madvise_free_pte_range(cpu, tlb, first, last))
    if cpu.parameters.guests:
        await mmu_notifier_invalidate_range_end(cpu, mm, start, end)
    await tlb_finish_mmu(cpu, tlb)
    cpu.count("pglazyfree", marked)
    return marked


async def madvise_cold(cpu: PerCpu, mm: int, vma: Vma, start: int, end: int) -> int:
    """madvise_cold (MADV_COLD): the pages count as unused for long and are inactive; how many."""
    tlb = await tlb_gather_mmu(mm)
    cold = 0
    for first, last, whole in await _walk(cpu, mm, start, end):
        if whole:
            folios = await madvise_cold_or_pageout_huge_pmd(cpu, tlb, first, True)
        else:
            folios = await madvise_cold_or_pageout_pte_range(cpu, tlb, first, last, True)
        for pfn in folios:
            # folio_deactivate
            await FolioPutbackLru(pfn, False)
        cold += len(folios)
    await tlb_finish_mmu(cpu, tlb)
    return cold


async def madvise_pageout(cpu: PerCpu, mm: int, vma: Vma, start: int, end: int) -> int:
    """madvise_pageout (MADV_PAGEOUT): reclaim the pages now; how many were freed.

    With one flush for what reclaim unmaps. Dirty pages of files are unmapped, but written by the flusher
    threads, and anonymous ones stay where there is no swap. Before v6.10 accessed bits go first, which is one
    more flush.
    """
    tlb = await tlb_gather_mmu(mm)
    freed = 0
    for first, last, whole in await _walk(cpu, mm, start, end):
        clears = cpu.parameters.pageout_clears_young
        if whole:
            folios = await madvise_cold_or_pageout_huge_pmd(cpu, tlb, first, clears)
        else:
            folios = await madvise_cold_or_pageout_pte_range(cpu, tlb, first, last, clears)
        # reclaim_pages
        if whole:
            # add_to_swap finds no room for so much at once (split_folio_to_list).
            folios = [page for pfn in folios for page in await _split_isolated(cpu, pfn)]
        kept = await shrink_file_folios(cpu, folios, writes=False)
        for pfn in kept:
            await FolioPutbackLru(pfn, True)
        freed += len(folios) - len(kept)
    await tlb_finish_mmu(cpu, tlb)
    return freed


async def _walk(cpu: PerCpu, mm: int, start: int, end: int) -> list[tuple[int, int, bool]]:
    """walk_page_range: (first page, end, whether that is one huge page) of each PMD's part of [start, end).

    A huge page of which only a part is meant is split, the folio as well, so that the advice is about its
    pages; one that cannot be, or is mapped elsewhere as well, is left alone.
    """
    found = []
    for first, pmd in await PmdRange(mm, start, end):
        last = first + cpu.parameters.table_pages
        whole = bool(pmd) and start <= first and last <= end
        if not pmd or whole or await _split_folio(cpu, mm, first):
            found.append((max(first, start), min(last, end), whole))
    return found


async def _split_isolated(cpu: PerCpu, pfn: int) -> range:
    """The folios that an isolated huge one is after split_huge_page."""
    return range(pfn, pfn + (cpu.parameters.hpage_nr if await split_huge_page(cpu, pfn) else 1))


async def _split_folio(cpu: PerCpu, mm: int, vpn: int) -> bool:
    """split_folio of one that is mapped here only (folio_likely_mapped_shared)."""
    pmd = await _lock_pmd(mm, vpn)
    await Unlock(ptl(mm, vpn))
    pfn = pte_pfn(pmd)
    if not pmd or not await FolioIsolateLru(pfn):
        return False
    split = await split_huge_page(cpu, pfn)
    for page in range(cpu.parameters.hpage_nr if split else 1):
        await FolioPutbackLru(pfn + page, False)
    return split


async def _lock_pmd(mm: int, vpn: int) -> int:
    """pmd_trans_huge_lock: the huge PMD, if it is mapped here only, else 0; the lock is held."""
    _, pmd = await Series((Lock(ptl(mm, vpn)), GetPte(mm, vpn)))
    mapped = pte_huge(pmd) and pte_present(pmd) and len(await FolioRmap(pte_pfn(pmd))) == 1
    return pmd if mapped else 0


async def madvise_free_huge_pmd(cpu: PerCpu, tlb: MmuGather, vpn: int) -> int:
    """madvise_free_huge_pmd of a whole one: how many pages were marked. It is flushed for twice: when it is
    made invalid, and with the gather."""
    pages = cpu.parameters.hpage_nr
    pmd = await _lock_pmd(tlb.mm, vpn)
    if pmd:
        pfn = pte_pfn(pmd)
        await FolioClearFlag(pfn, PG_DIRTY)
        if await pmdp_clear_bits(cpu, tlb.mm, vpn, pmd, ACCESSED | DIRTY):
            tlb.adjust_range(vpn, pages, pages)
        await Series((FolioClearFlag(pfn, PG_REFERENCED), FolioSetFlag(pfn, PG_LAZYFREE)))
    await table_changed(cpu, tlb, vpn)
    await Unlock(ptl(tlb.mm, vpn))
    return pages if pmd else 0


async def madvise_cold_or_pageout_huge_pmd(
    cpu: PerCpu, tlb: MmuGather, vpn: int, clear_young: bool
) -> list[int]:
    """What madvise_cold_or_pageout_pte_range does with a whole PMD: its frame, isolated, if it may be."""
    pages = cpu.parameters.hpage_nr
    isolated = []
    pmd = await _lock_pmd(tlb.mm, vpn)
    if pmd:
        if clear_young and await pmdp_clear_bits(cpu, tlb.mm, vpn, pmd, ACCESSED):
            tlb.adjust_range(vpn, pages, pages)
        await FolioClearFlag(pte_pfn(pmd), PG_REFERENCED)
        if await FolioIsolateLru(pte_pfn(pmd)):
            isolated.append(pte_pfn(pmd))
    await table_changed(cpu, tlb, vpn)
    await Unlock(ptl(tlb.mm, vpn))
    return isolated


async def madvise_free_pte_range(cpu: PerCpu, tlb: MmuGather, start: int, end: int) -> list[int]:
    """madvise_free_pte_range: pages [start, end) of one page table, under its lock; the frames marked.

    A dirty page that is mapped elsewhere as well is left alone.
    """
    marked = []
    lock = ptl(tlb.mm, start)
    for vpn, entry in await _lock_table(cpu, tlb.mm, start, end):
        pfn = pte_pfn(entry)
        if not pte_present(entry) or pfn == ZERO_PFN:
            continue
        if await FolioTestFlag(pfn, PG_DIRTY):
            if len(await FolioRmap(pfn)) != 1:
                continue
            await FolioClearFlag(pfn, PG_DIRTY)
        await _clear_bits(tlb, vpn, entry, ACCESSED | DIRTY)
        # folio_mark_lazyfree
        await Series((FolioClearFlag(pfn, PG_REFERENCED), FolioSetFlag(pfn, PG_LAZYFREE)))
        marked.append(pfn)
    await table_changed(cpu, tlb, start)
    await Unlock(lock)
    return marked


async def madvise_cold_or_pageout_pte_range(
    cpu: PerCpu, tlb: MmuGather, start: int, end: int, clear_young: bool
) -> list[int]:
    """madvise_cold_or_pageout_pte_range: pages [start, end) of one page table, under its lock; their frames,
    which are isolated from the LRU lists.

    A page that is mapped elsewhere as well is left alone.
    """
    isolated = []
    lock = ptl(tlb.mm, start)
    for vpn, entry in await _lock_table(cpu, tlb.mm, start, end):
        pfn = pte_pfn(entry)
        if not pte_present(entry) or pfn == ZERO_PFN or len(await FolioRmap(pfn)) != 1:
            continue
        if clear_young:
            await _clear_bits(tlb, vpn, entry, ACCESSED)
        await FolioClearFlag(pfn, PG_REFERENCED)
        if await FolioIsolateLru(pfn):
            isolated.append(pfn)
    await table_changed(cpu, tlb, start)
    await Unlock(lock)
    return isolated


async def _lock_table(cpu: PerCpu, mm: int, start: int, end: int) -> tuple[tuple[int, int], ...]:
    """pte_offset_map_lock, and the flush that is owed for what was unmapped before; what is mapped."""
    await Lock(ptl(mm, start))
    mapped = await MappedRange(mm, start, end)
    await flush_tlb_batched_pending(cpu, mm)
    return mapped


async def _clear_bits(tlb: MmuGather, vpn: int, entry: int, bits: int) -> None:
    """ptep_get_and_clear_full and set_pte_at without these bits; flushed for if there were any."""
    if not entry & bits:
        return
    while True:
        seen = await CmpxchgPte(tlb.mm, vpn, entry, entry & ~bits)
        if seen == entry:
            break
        entry = seen
    tlb.adjust_range(vpn, 1, 1)
