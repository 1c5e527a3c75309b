"""Making one huge page of small ones (mm/khugepaged.c: collapse_huge_page, v6.6), as MADV_COLLAPSE asks for.

No CPU may have a small translation and the huge one at the same time: all small ones go, one flush over the
range, then the copies, then the PMD.
"""

from __future__ import annotations

from emulator.hardware.operations import (
    CmpxchgPte,
    CollapsePmd,
    FindVma,
    FolioCopy,
    FolioIsolateLru,
    FolioMapping,
    FolioPut,
    FolioPutbackLru,
    FolioRefcount,
    FolioRmap,
    FolioZero,
    GetPmd,
    Lock,
    LruAdd,
    MappedRange,
    PgtableDeposit,
    PmdRange,
    PutTable,
    Series,
    TryToMigratePte,
    Unlock,
    XchgPmd,
    ZapPte,
)
from emulator.hardware.pte import (
    ACCESSED,
    DIRTY,
    EXCLUSIVE,
    PRESENT,
    PSE,
    RW,
    ZERO_PFN,
    make_migration_entry,
    mk_pte,
    pmd_lock,
    pte_pfn,
    ptl,
)
from emulator.kernel.migrate import folio_order
from emulator.kernel.mmap_lock import mmap_write_lock, mmap_write_unlock, vma_start_write
from emulator.kernel.mmu_gather import tlb_remove_table_sync_one
from emulator.kernel.mmu_notifier import (
    mmu_notifier_invalidate_range_end,
    mmu_notifier_invalidate_range_start,
)
from emulator.kernel.mmzone import FAST_NODE, alloc_pages_thisnode
from emulator.kernel.percpu import PerCpu
from emulator.kernel.pgtable_generic import HUGE, RESTORED, set_pte_at
from emulator.kernel.rmap import i_mmap_lock
from emulator.kernel.tlb import flush_tlb_range
from emulator.memory.page_table import VM_WRITE, Vma


async def madvise_collapse(cpu: PerCpu, mm: int, start: int, end: int) -> bool:
    """madvise_collapse (MADV_COLLAPSE): every huge page that lies in pages [start, end); whether all are."""
    size = cpu.parameters.hpage_nr
    done = [
        await collapse_huge_page(cpu, mm, vpn)
        for vpn in range(cpu.parameters.hpage_align(start), cpu.parameters.hpage_head(end), size)
    ]
    return all(done)


async def collapse_huge_page(cpu: PerCpu, mm: int, vpn: int) -> bool:
    """collapse_huge_page of the pages from `vpn` on, the first of a PMD; false if they stay as they are.

    They must be anonymous, in one area, and used by mappings only. Pages that are not there come as zeroes.
    The kernel keeps faults out by mmap_lock, and walkers of all kinds by a PMD that is none meanwhile. Here
    entries stand in for pages on their way, as in a migration, and the page-table lock is held throughout;
    where page tables are things, the PMD is none as well.
    """
    size = cpu.parameters.hpage_nr
    if size == 1:
        return False
    dst = await alloc_pages_thisnode(cpu, FAST_NODE, cpu.parameters.hpage_order)
    if dst < 0:
        cpu.count("thp_collapse_alloc_failed")
        return False
    await mmap_write_lock(mm)
    found = await FindVma(mm, vpn)
    vma = Vma(*found) if found else Vma(0, 0, 0, 0)
    collapsed = False
    if not vma.file and vma.start <= vpn and vpn + size <= vma.end:
        await vma_start_write(cpu, mm, vpn, vpn + size)
        if cpu.parameters.guests:
            await mmu_notifier_invalidate_range_start(cpu, mm, vpn, vpn + size)
        collapsed = await _collapse(cpu, mm, vpn, dst, vma.flags & VM_WRITE != 0)
        if cpu.parameters.guests:
            await mmu_notifier_invalidate_range_end(cpu, mm, vpn, vpn + size)
    await mmap_write_unlock(cpu, mm)
    if collapsed:
        cpu.count("thp_collapse_alloc")
    else:
        await FolioPut(dst)
    return collapsed


async def _collapse(cpu: PerCpu, mm: int, vpn: int, dst: int, writable: bool) -> bool:
    lock = ptl(mm, vpn)
    size = cpu.parameters.hpage_nr
    _, pmds, mapped = await Series(
        (Lock(lock), PmdRange(mm, vpn, vpn + size), MappedRange(mm, vpn, vpn + size))
    )
    if pmds != ((vpn, 0),) or not all([await _suitable(cpu, entry) for _, entry in mapped]):
        await Unlock(lock)
        return False
    pages = [(page, pte_pfn(entry)) for page, entry in mapped if pte_pfn(entry) != ZERO_PFN]
    # pmdp_collapse_flush. What walkers have set since the look above is in the answers.
    taken = await Series(tuple([TryToMigratePte(mm, page, pfn) for page, pfn in pages]))
    pmd = await XchgPmd(mm, vpn, 0) if cpu.parameters.walker_caches else 0
    await flush_tlb_range(cpu, mm, vpn, vpn + size)
    if pmd:
        await tlb_remove_table_sync_one(cpu)
    isolated = await _isolate([pfn for _, pfn in pages])
    # What is pinned was not taken.
    collapsed = all(taken) and len(isolated) == len(pages)
    if not collapsed:
        if pmd:
            await XchgPmd(mm, vpn, pmd)
        for (page, _), entry in zip(pages, taken, strict=True):
            if entry:
                back = CmpxchgPte(mm, page, make_migration_entry(entry), entry)
                await set_pte_at(cpu, back, RESTORED)
    else:
        # __collapse_huge_page_copy
        if len(pages) < size:
            await FolioZero(dst)
        for page, pfn in pages:
            await FolioCopy(pfn, dst + page - vpn)
        await LruAdd(dst, False)
        if pmd:
            await PgtableDeposit(mm, vpn, pmd)
        flags = PRESENT | ACCESSED | DIRTY | EXCLUSIVE | PSE | (RW if writable else 0)
        await set_pte_at(cpu, CollapsePmd(mm, vpn, mk_pte(dst, flags)), HUGE)
    await Unlock(lock)
    for pfn in isolated:
        await FolioPutbackLru(pfn, False)
    for _, pfn in pages if collapsed else ():
        await FolioPut(pfn)
    return collapsed


async def collapse_pte_mapped_thp(cpu: PerCpu, mm: int, vpn: int) -> None:
    """collapse_pte_mapped_thp: a table's pages of a file are unmapped, so that a fault can map the huge page
    that the page cache has by now, and the table goes (collapse_and_free_pmd).

    The notifier is called since f268f6cf875f (v6.1; CVE-2022-48991).
    """
    end = vpn + cpu.parameters.table_pages
    await notify_collapse_start(cpu, mm, vpn, end)
    lock = ptl(mm, vpn)
    _, mapped = await Series((Lock(lock), MappedRange(mm, vpn, end)))
    entries = await Series(tuple([ZapPte(mm, page, False) for page, _ in mapped]))
    # pmdp_collapse_flush
    await flush_tlb_range(cpu, mm, vpn, end)
    await Unlock(lock)
    await notify_collapse_end(cpu, mm, vpn, end)
    for entry in entries:
        await FolioPut(pte_pfn(entry))


async def notify_collapse_start(cpu: PerCpu, mm: int, start: int, end: int) -> None:
    """mmu_notifier_invalidate_range_start, where collapse zaps entries of a file."""
    await mmu_notifier_invalidate_range_start(cpu, mm, start, end)


async def notify_collapse_end(cpu: PerCpu, mm: int, start: int, end: int) -> None:
    """mmu_notifier_invalidate_range_end, likewise."""
    await mmu_notifier_invalidate_range_end(cpu, mm, start, end)


async def retract_page_tables(cpu: PerCpu, file: int, i_mmap: tuple[tuple[int, int], ...]) -> int:
    """retract_page_tables: the tables for a file's pages go, from each (mm, first page) that maps these; how
    many did. Their entries are empty by now.

    pte_free_defer frees after an RCU grace period, for which walkers with interrupts off count as readers;
    here that is waited for.
    """
    retracted = 0
    await Lock(i_mmap_lock(file))
    for mm, vpn in i_mmap:
        pmd = await GetPmd(mm, vpn)
        if not pmd or pmd & PSE:
            continue
        await Lock(pmd_lock(mm))
        # pmdp_collapse_flush
        pmd = await XchgPmd(mm, vpn, 0)
        await flush_tlb_range(cpu, mm, vpn, vpn + cpu.parameters.table_pages)
        await Unlock(pmd_lock(mm))
        if pmd:
            await tlb_remove_table_sync_one(cpu)
            await PutTable(pmd)
            retracted += 1
    await Unlock(i_mmap_lock(file))
    return retracted


async def _suitable(cpu: PerCpu, entry: int) -> bool:
    """What hpage_collapse_scan_pmd asks of an entry: a small anonymous page, accessible."""
    pfn = pte_pfn(entry)
    if not entry & PRESENT:
        return False
    return pfn == ZERO_PFN or not (await FolioMapping(pfn) or await folio_order(cpu, pfn))


async def _isolate(pfns: list[int]) -> list[int]:
    """__collapse_huge_page_isolate: off the LRU lists, up to the first that somebody uses otherwise."""
    isolated: list[int] = []
    for pfn in pfns:
        if await FolioRefcount(pfn) != len(await FolioRmap(pfn)) or not await FolioIsolateLru(pfn):
            break
        isolated.append(pfn)
    return isolated
