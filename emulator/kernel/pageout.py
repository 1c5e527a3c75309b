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
    FolioRefcount,
    FolioRmap,
    FolioSetFlag,
    FolioTestFlag,
    GetPte,
    Load,
    Lock,
    Series,
    SmpMb,
    SmpRmb,
    Unlock,
    WritePage,
    XchgPte,
)
from emulator.hardware.pte import pte_dirty, pte_pfn, pte_present, ptl
from emulator.kernel.percpu import PerCpu, cpumask_word, folio_lock
from emulator.kernel.pgtable_generic import RESTORED, pte_accessible, set_pte_at
from emulator.kernel.rmap import RECLAIM, set_tlb_ubc_flush_pending, try_to_unmap, try_to_unmap_flush
from emulator.kernel.swap_state import swap_out
from emulator.kernel.tlb import flush_tlb_mm_range
from emulator.memory.folios import PG_DIRTY, PG_LAZYFREE

# Isolation's reference and the page cache's: nobody else uses the folio.
FREEZABLE = 2


async def pageout(cpu: PerCpu, pfn: int, file: int, pgoff: int) -> None:
    """pageout: write the folio out, and wait for it, as with a RAM disk (PAGE_SUCCESS, no PG_writeback)."""
    # folio_clear_dirty_for_io: who dirties it from now on makes it dirty again.
    await FolioClearFlag(pfn, PG_DIRTY)
    await WritePage(file, pgoff, pfn)
    cpu.count("nr_vmscan_write")


async def shrink_file_folios(cpu: PerCpu, folios: list[int], writes: bool = True) -> list[int]:
    """shrink_folio_list of isolated folios that nobody has used lately; those that stay, still isolated.

    Anonymous folios stay where there is no swap, but for those of MADV_FREE that were not written since. Who
    `writes` is kswapd when it meets dirty folios a second time (PG_reclaim); others leave them to the flusher
    threads, unmapped.
    """
    kept: list[int] = []
    freed: list[int] = []
    for pfn in folios:
        slot = await FolioMapping(pfn)
        if slot:
            file, pgoff = slot
            gone = await _pageout_locked(cpu, pfn, file, pgoff, writes)
        else:
            lazyfree = await FolioTestFlag(pfn, PG_LAZYFREE)
            gone = await (discard_lazyfree(cpu, pfn) if lazyfree else _swap_out(cpu, pfn))
        if not gone:
            await cpu.policy.reclaim_failed(cpu, pfn)
            kept.append(pfn)
            continue
        freed.append(pfn)
        if len(freed) == cpu.parameters.reclaim_free_batch:
            await flush_and_free(cpu, freed)
    await flush_and_free(cpu, freed)
    return kept


async def _swap_out(cpu: PerCpu, pfn: int) -> bool:
    return cpu.parameters.swap and await swap_out(cpu, pfn)


async def flush_and_free(cpu: PerCpu, folios: list[int]) -> None:
    """Nobody may use the frames any more: then they go, and the list is empty."""
    await cpu.policy.reclaim_unmapped(cpu)
    await try_to_unmap_flush(cpu)
    for pfn in folios:
        await cpu.policy.free_folio(cpu, pfn)
    cpu.count("pgsteal_file", len(folios))
    folios.clear()


async def discard_lazyfree(cpu: PerCpu, pfn: int) -> bool:
    """try_to_unmap of an isolated folio that MADV_FREE has marked: whether it is mapped nowhere and may go.

    Its content goes with it. If it was written since, through an entry or through a pin (its own flag), or
    somebody uses it, it stays an ordinary one.
    """
    await cpu.policy.unmap_begin(cpu, pfn, RECLAIM)
    gone = await _discard_mappings(cpu, pfn)
    await cpu.policy.unmap_end(cpu, pfn, RECLAIM, gone)
    return gone


async def _discard_mappings(cpu: PerCpu, pfn: int) -> bool:
    for mm, vpn in await FolioRmap(pfn):
        lock = ptl(mm, vpn)
        _, mask, entry = await Series((Lock(lock), Load(cpumask_word(mm)), GetPte(mm, vpn)))
        if pte_present(entry) and pte_pfn(entry) == pfn:
            # Walkers may still set bits: what counts is what was there when it was cleared.
            entry = await XchgPte(mm, vpn, 0)
            if cpu.mmu.arch_tlbbatch_should_defer(cpu, mask):
                await set_tlb_ubc_flush_pending(cpu, mm, vpn, entry, pfn, RECLAIM)
            elif await pte_accessible(mm, vpn, entry):
                await flush_tlb_mm_range(cpu, mm, vpn, vpn + 1)
            if pte_dirty(entry):
                await FolioSetFlag(pfn, PG_DIRTY)
            if not await may_discard(pfn):
                await set_pte_at(cpu, XchgPte(mm, vpn, entry), RESTORED)
                await Series((FolioClearFlag(pfn, PG_LAZYFREE), Unlock(lock)))
                return False
            await FolioPut(pfn)
        await Unlock(lock)
    cpu.count("pglazyfreed")
    return not await FolioRmap(pfn)


async def may_discard(pfn: int) -> bool:
    """What try_to_unmap_one asks of a folio of MADV_FREE whose entry it has just cleared, since 6c8e2a256915
    (v5.18): nobody else has a reference, and then nobody has made it dirty.

    get_user_pages takes its reference, then looks at the entry again; who gives one back has made the folio
    dirty. So the entry is cleared before the count is read, and the count is read before the flag.
    """
    await SmpMb()
    # One reference for this mapping, one for each other, and the caller's.
    alone = await FolioRefcount(pfn) == len(await FolioRmap(pfn)) + 2
    await SmpRmb()
    return alone and not await FolioTestFlag(pfn, PG_DIRTY)


async def _pageout_locked(cpu: PerCpu, pfn: int, file: int, pgoff: int, writes: bool) -> bool:
    """What shrink_folio_list does with the folio's lock held, so that no fault maps it meanwhile: unmap,
    write out, take out of the page cache; whether it is to be freed. (The kernel leaves one whose lock is
    taken.)
    """
    lock = folio_lock(file, pgoff)
    _, slot = await Series((Lock(lock), FolioMapping(pfn)))
    gone = False
    # What is still mapped, somebody is about to flush for (nr_unmap_fail): another time.
    if slot == (file, pgoff) and await try_to_unmap(cpu, pfn):
        if (writes or file < 0) and await FolioTestFlag(pfn, PG_DIRTY):
            await cpu.policy.flush_before_io(cpu)
            if file < 0:
                # shmem_writepage: to swap; without any it is kept (AOP_WRITEPAGE_ACTIVATE).
                await Unlock(lock)
                return False
            await pageout(cpu, pfn, file, pgoff)
        # __remove_mapping: unless somebody has taken a reference or made it dirty again.
        gone = await FilemapRemove(file, pgoff, pfn, FREEZABLE)
    await Unlock(lock)
    return gone
