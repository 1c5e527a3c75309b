"""Taking pages away from a file (mm/truncate.c, v6.6): unmap wherever they are mapped, then out of the cache.

The slot may be filled again as soon as it is empty, so by then nobody may read the old page any more.
"""

from __future__ import annotations

from emulator.hardware.operations import (
    CmpxchgPte,
    FilemapGet,
    FilemapRemove,
    FolioPut,
    GetPte,
    Lock,
    Unlock,
    WaitPte,
)
from emulator.hardware.pte import is_migration_entry, pte_pfn
from emulator.kernel.memory import folio_lock
from emulator.kernel.mmu_gather import tlb_finish_mmu, tlb_gather_mmu
from emulator.kernel.percpu import PerCpu
from emulator.kernel.rmap import flush_tlb_batched_pending

# address_space->i_mmap: where files are mapped, as (mm, page that the file's first page is or would be at).
Mappings = tuple[tuple[int, int], ...]


async def truncate_inode_pages(cpu: PerCpu, file: int, i_mmap: Mappings, start: int, end: int) -> int:
    """truncate_inode_pages_range: pages [start, end) of the file are no more; how many the cache had.

    What a private mapping has copied from them stays (the kernel takes that as well, by unmap_mapping_range
    over the whole range before and after).
    """
    gone = 0
    for pgoff in range(start, end):
        while True:
            pfn = await FilemapGet(file, pgoff)
            if pfn < 0:
                break
            if await truncate_inode_folio(cpu, file, i_mmap, pgoff, pfn):
                gone += 1
                break
    return gone


async def truncate_inode_folio(cpu: PerCpu, file: int, i_mmap: Mappings, pgoff: int, pfn: int) -> bool:
    """truncate_inode_folio: false if the folio has been moved meanwhile. Drops the caller's reference."""
    lock = folio_lock(file, pgoff)
    await Lock(lock)
    for mm, first in i_mmap:
        await unmap_mapping_folio(cpu, mm, first + pgoff, pfn)
    removed = await FilemapRemove(file, pgoff, pfn, 0)
    await Unlock(lock)
    await FolioPut(pfn)
    return removed


async def unmap_mapping_folio(cpu: PerCpu, mm: int, vpn: int, pfn: int) -> None:
    """unmap_mapping_folio, zap_page_range_single: clear one mapping of the folio, if it is one, and flush.

    A migration holds the folio's lock from before it unmaps until everything is mapped again, so truncation
    comes before or after it.
    """
    await tlb_gather_mmu(mm)
    await flush_tlb_batched_pending(cpu, mm)
    entry = await GetPte(mm, vpn)
    while True:
        if is_migration_entry(entry):
            entry = await WaitPte(mm, vpn, entry)
            await flush_tlb_batched_pending(cpu, mm)
            continue
        if not entry or pte_pfn(entry) != pfn:
            break
        seen = await CmpxchgPte(mm, vpn, entry, 0)
        if seen == entry:
            await cpu.policy.flush_zapped(cpu, mm, vpn, vpn + 1)
            await FolioPut(pfn)
            break
        entry = seen
    await tlb_finish_mmu(cpu, mm, ())
