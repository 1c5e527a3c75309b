"""Reclaiming pages of files: unmap, write out what is dirty, take them out of the page cache, free.

The path of shrink_folio_list (mm/vmscan.c, v6.6) that tiering does not take. Two flushes matter: one before
a dirty folio is written out, or a CPU writes, through what it has cached, what nobody will write out; and one
for the whole batch before the frames are freed.
"""

from __future__ import annotations

from emulator.hardware.operations import (
    FilemapRemove,
    FolioClearFlag,
    FolioMapping,
    FolioPut,
    FolioTestFlag,
    WritePage,
)
from emulator.kernel.percpu import PerCpu
from emulator.kernel.rmap import try_to_unmap, try_to_unmap_flush
from emulator.memory.folios import PG_DIRTY

# Isolation's reference and the page cache's: nobody else uses the folio.
FREEZABLE = 2


async def pageout(cpu: PerCpu, pfn: int, file: int, pgoff: int) -> None:
    """pageout: write the folio out, and wait for it, as with a RAM disk (PAGE_SUCCESS, no PG_writeback)."""
    # folio_clear_dirty_for_io: who dirties it from now on makes it dirty again.
    await FolioClearFlag(pfn, PG_DIRTY)
    await WritePage(file, pgoff, pfn)
    cpu.count("nr_vmscan_write")


async def shrink_file_folios(cpu: PerCpu, folios: list[int]) -> list[int]:
    """shrink_folio_list of isolated folios that nobody has used lately; those that stay, still isolated.

    Anonymous folios stay, as there is no swap. Left out: kswapd leaves dirty folios to the flusher threads
    until it meets them a second time (PG_reclaim).
    """
    kept: list[int] = []
    freed: list[int] = []
    for pfn in folios:
        slot = await FolioMapping(pfn)
        if not slot:
            kept.append(pfn)
            continue
        file, pgoff = slot
        await try_to_unmap(cpu, pfn)
        if await FolioTestFlag(pfn, PG_DIRTY):
            await cpu.policy.flush_before_io(cpu)
            await pageout(cpu, pfn, file, pgoff)
        # __remove_mapping: unless somebody has taken a reference or made it dirty again.
        (freed if await FilemapRemove(file, pgoff, pfn, FREEZABLE) else kept).append(pfn)
    await try_to_unmap_flush(cpu)
    for pfn in freed:
        await FolioPut(pfn)
    cpu.count("pgsteal_file", len(freed))
    return kept
