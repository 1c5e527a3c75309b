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
    Lock,
    LruAdd,
    MappedRange,
    PmdRange,
    Series,
    TryToMigratePte,
    Unlock,
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
    pte_pfn,
    ptl,
)
from emulator.kernel.migrate import folio_order
from emulator.kernel.mmzone import FAST_NODE, alloc_pages_thisnode
from emulator.kernel.mprotect import mmap_lock
from emulator.kernel.percpu import PerCpu
from emulator.kernel.tlb import flush_tlb_range
from emulator.memory.page_table import VM_WRITE, Vma


async def collapse_huge_page(cpu: PerCpu, mm: int, vpn: int) -> bool:
    """collapse_huge_page of the pages from `vpn` on, the first of a PMD; false if they stay as they are.

    They must be anonymous, in one area, and used by mappings only. Pages that are not there come as zeroes.
    The kernel keeps faults out by mmap_lock, and walkers of all kinds by a PMD that is none meanwhile; here
    entries stand in for pages on their way, as in a migration, and the page-table lock is held throughout.
    """
    size = cpu.parameters.hpage_nr
    if size == 1:
        return False
    dst = await alloc_pages_thisnode(cpu, FAST_NODE, cpu.parameters.hpage_order)
    if dst < 0:
        cpu.count("thp_collapse_alloc_failed")
        return False
    await Lock(mmap_lock(mm))
    found = await FindVma(mm, vpn)
    vma = Vma(*found) if found else Vma(0, 0, 0, 0)
    collapsed = False
    if not vma.file and vma.start <= vpn and vpn + size <= vma.end:
        collapsed = await _collapse(cpu, mm, vpn, dst, vma.flags & VM_WRITE != 0)
    await Unlock(mmap_lock(mm))
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
    await flush_tlb_range(cpu, mm, vpn, vpn + size)
    isolated = await _isolate([pfn for _, pfn in pages])
    if len(isolated) < len(pages):
        for (page, _), entry in zip(pages, taken, strict=True):
            await CmpxchgPte(mm, page, make_migration_entry(entry), entry)
    else:
        # __collapse_huge_page_copy
        if len(pages) < size:
            await FolioZero(dst)
        for page, pfn in pages:
            await FolioCopy(pfn, dst + page - vpn)
        await LruAdd(dst, False)
        flags = PRESENT | ACCESSED | DIRTY | EXCLUSIVE | PSE | (RW if writable else 0)
        await CollapsePmd(mm, vpn, mk_pte(dst, flags))
    await Unlock(lock)
    for pfn in isolated:
        await FolioPutbackLru(pfn, False)
    collapsed = len(isolated) == len(pages)
    for _, pfn in pages if collapsed else ():
        await FolioPut(pfn)
    return collapsed


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
