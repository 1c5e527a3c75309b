"""Migration of a range of one mm, by its page table and not by the LRU (mm/migrate_device.c, v6.6).

Drivers of devices with memory of their own ask for it. The entries are collected table by table, and each
table is flushed for before its lock is dropped: nobody counts these unmaps, so whoever finds a migration
entry must be able to rely on it.
"""

from __future__ import annotations

from typing import NamedTuple

from emulator.hardware.operations import (
    FolioCopy,
    FolioGet,
    FolioIsolateLru,
    FolioMigrateMapping,
    FolioPut,
    FolioPutbackLru,
    FolioSetFlag,
    Lock,
    LruAdd,
    MappedRange,
    PmdRange,
    Series,
    TryToMigratePte,
    Unlock,
)
from emulator.hardware.pte import (
    EXCLUSIVE,
    make_migration_entry,
    pte_dirty,
    pte_pfn,
    pte_present,
    ptl,
)
from emulator.kernel.mmzone import alloc_pages_thisnode
from emulator.kernel.percpu import PerCpu
from emulator.kernel.rmap import MigrationEntry, remove_migration_ptes
from emulator.kernel.tlb import flush_tlb_mm_range
from emulator.memory.folios import PG_DIRTY


class Collected(NamedTuple):
    """One page between the two phases: its migration entry, and its frame, with a reference."""

    left: MigrationEntry
    pfn: int


async def migrate_vma_collect_pmd(cpu: PerCpu, mm: int, start: int, end: int) -> list[Collected]:
    """migrate_vma_collect_pmd over pages [start, end) of one page table.

    A page that is this mapping's own is flushed for at once (ptep_clear_flush), the others together. Huge
    pages are left out, as are other mappings of a page (migrate_device_unmap): a page that has any does not
    move.
    """
    lock = ptl(mm, start)
    found: list[Collected] = []
    owed = False
    _, mapped = await Series((Lock(lock), MappedRange(mm, start, end)))
    for vpn, entry in mapped:
        if not pte_present(entry):
            continue
        pfn = pte_pfn(entry)
        _, old = await Series((FolioGet(pfn), TryToMigratePte(mm, vpn, pfn)))
        if not old:
            # Pinned (page_try_share_anon_rmap): it stays mapped.
            await FolioPut(pfn)
            continue
        if old & EXCLUSIVE:
            await flush_tlb_mm_range(cpu, mm, vpn, vpn + 1)
        else:
            owed = True
        if pte_dirty(old):
            await FolioSetFlag(pfn, PG_DIRTY)
        await FolioPut(pfn)
        found.append(Collected(MigrationEntry(mm, vpn, make_migration_entry(old)), pfn))
    if owed:
        await cpu.policy.flush_collected(cpu, mm, start, end, lock)
    else:
        await Unlock(lock)
    return found


async def migrate_vma(cpu: PerCpu, mm: int, start: int, end: int, target: int) -> int:
    """migrate_vma_setup, migrate_vma_pages and migrate_vma_finalize of [start, end); how many pages moved.

    The caller holds the mmap_lock for reading: madvise may go on beside it, munmap may not.
    """
    moved = 0
    for first, pmd in await PmdRange(mm, start, end):
        if pmd:
            continue
        last = min(first + cpu.parameters.table_pages, end)
        for left, src in await migrate_vma_collect_pmd(cpu, mm, max(first, start), last):
            moved += await _move(cpu, left, src, target)
    return moved


async def _move(cpu: PerCpu, left: MigrationEntry, src: int, target: int) -> bool:
    # migrate_device_unmap: isolating takes a reference, and the one from collecting goes.
    isolated = await FolioIsolateLru(src)
    dst = -1
    if isolated:
        await FolioPut(src)
        dst = await alloc_pages_thisnode(cpu, target, 0)
    if dst >= 0:
        await FolioCopy(src, dst)
        if await FolioMigrateMapping(src, dst, 0):
            await LruAdd(dst, False)
            await remove_migration_ptes(cpu, [left], dst)
            await FolioPut(dst)
            await FolioPut(src)
            return True
        await FolioPut(dst)
    await remove_migration_ptes(cpu, [left], src)
    await (FolioPutbackLru(src, False) if isolated else FolioPut(src))
    return False
