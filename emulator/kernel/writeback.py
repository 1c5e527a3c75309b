"""Writing out pages of files that stay mapped (mm/page-writeback.c, mm/rmap.c: folio_mkclean, v6.6).

Before a page is written every mapping of it loses its write permission, and CPUs the translation that had it:
whoever writes after that faults and makes the page dirty again.
"""

from __future__ import annotations

from emulator.hardware.operations import (
    FilemapGet,
    FolioClearFlag,
    FolioMapping,
    FolioPut,
    FolioRmap,
    FolioSetFlag,
    FolioTestFlag,
    GetPte,
    Lock,
    Series,
    Unlock,
    WaitPte,
    WritePage,
    XchgPte,
)
from emulator.hardware.pte import DIRTY, RW, is_migration_entry, pte_pfn, pte_present, ptl
from emulator.kernel.percpu import PerCpu, folio_lock
from emulator.kernel.pgtable_generic import PROTECT, ptep_clear_flush, set_pte_at
from emulator.kernel.rmap import i_mmap_lock
from emulator.memory.folios import PG_DIRTY


async def filemap_write_and_wait_range(cpu: PerCpu, file: int, start: int, end: int) -> int:
    """filemap_write_and_wait_range, write_cache_pages over the file's pages [start, end); how many were.

    msync(MS_SYNC), fsync and the flusher threads come to this. I/O is one step (no PG_writeback), and every
    cached page is looked at: which of them are dirty the kernel's tags say.
    """
    if file < 0:
        # mapping_can_writeback: tmpfs has nowhere to write to.
        return 0
    written = 0
    for pgoff in range(start, end):
        pfn = await FilemapGet(file, pgoff)
        if pfn < 0:
            continue
        lock = folio_lock(file, pgoff)
        await Lock(lock)
        if await FolioMapping(pfn) == (file, pgoff) and await folio_clear_dirty_for_io(cpu, pfn, file):
            await WritePage(file, pgoff, pfn)
            written += 1
        await Series((Unlock(lock), FolioPut(pfn)))
    cpu.count("nr_written", written)
    return written


async def folio_clear_dirty_for_io(cpu: PerCpu, pfn: int, file: int) -> bool:
    """folio_clear_dirty_for_io of a locked folio: whether it is to be written, and clean from now on."""
    if await folio_mkclean(cpu, pfn, file):
        await FolioSetFlag(pfn, PG_DIRTY)
    if not await FolioTestFlag(pfn, PG_DIRTY):
        return False
    await FolioClearFlag(pfn, PG_DIRTY)
    return True


async def folio_mkclean(cpu: PerCpu, pfn: int, file: int) -> int:
    """folio_mkclean: how many mappings of the file's page could be written or had been."""
    lock = i_mmap_lock(file)
    await Lock(lock)
    cleaned = 0
    for mm, vpn in await FolioRmap(pfn):
        cleaned += await page_mkclean_one(cpu, mm, vpn, pfn)
    await Unlock(lock)
    await cpu.policy.page_cache_changed(cpu, file)
    return cleaned


async def page_mkclean_one(cpu: PerCpu, mm: int, vpn: int, pfn: int) -> bool:
    """page_mkclean_one: one mapping, under its page-table lock, with a flush of its own."""
    lock = ptl(mm, vpn)
    while True:
        _, entry = await Series((Lock(lock), GetPte(mm, vpn)))
        if not is_migration_entry(entry):
            break
        # A migration holds the folio's lock from before it unmaps until everything is mapped again.
        await Unlock(lock)
        await WaitPte(mm, vpn, entry)
    changes = pte_present(entry) and pte_pfn(entry) == pfn and entry & (RW | DIRTY) != 0
    if changes:
        entry = await ptep_clear_flush(cpu, mm, vpn)
        await set_pte_at(cpu, XchgPte(mm, vpn, entry & ~(RW | DIRTY)), PROTECT)
    await Unlock(lock)
    return changes
