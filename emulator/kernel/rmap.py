"""Reverse mapping: unmapping a folio for migration, mapping it again, and the flush this owes.

mm/rmap.c and the rmap parts of mm/migrate.c, v6.6. Flushes owed by unmapping gather in the task's
batch and are performed once, by `try_to_unmap_flush`.
"""

from __future__ import annotations

from typing import NamedTuple

from emulator.hardware.operations import (
    CmpxchgPte,
    FolioGet,
    FolioPut,
    FolioRmap,
    Load,
    Series,
    TestAndClearYoung,
    TryToMigratePte,
)
from emulator.hardware.pte import (
    ACCESSED,
    DIRTY,
    EXCLUSIVE,
    MIGRATION_WRITE,
    PRESENT,
    RW,
    make_migration_entry,
    mk_pte,
    pte_accessible,
)
from emulator.kernel.percpu import PerCpu, cpumask_word, tlb_flush_pending_word
from emulator.kernel.tlb import arch_tlbbatch_flush, flush_tlb_mm_range, inc_mm_tlb_gen


class MigrationEntry(NamedTuple):
    """Where a migration entry was left, and the entry itself."""

    mm: int
    vpn: int
    entry: int


async def set_tlb_ubc_flush_pending(cpu: PerCpu, mm: int, pte: int) -> None:
    """set_tlb_ubc_flush_pending: note the flush owed for an unmapped entry.

    An inaccessible entry (PROT_NONE) cannot be cached and owes nothing (4d4b6d66db63), unless the flush
    of whoever made it inaccessible is still to come (arch/x86/include/asm/pgtable.h: pte_accessible).
    """
    if not pte_accessible(pte) and not await Load(tlb_flush_pending_word(mm)):
        return
    batch = cpu.policy.batch_for(cpu.current, pte)
    # arch_tlbbatch_add_mm: the generation first, so that a CPU which loads the mm after the mask was
    # read flushes by itself.
    await inc_mm_tlb_gen(mm)
    batch.cpumask |= await Load(cpumask_word(mm))
    batch.nr_flush_required += 1


async def try_to_migrate(cpu: PerCpu, pfn: int) -> list[MigrationEntry]:
    """try_to_migrate: replace every mapping of the folio by a migration entry.

    The flush is put off to the end of the batch only where another CPU takes part in it; an mm that
    runs here alone is flushed page by page at once (should_defer_flush).
    """
    left = []
    for mm, vpn in await FolioRmap(pfn):
        mask, old = await Series((Load(cpumask_word(mm)), TryToMigratePte(mm, vpn, pfn)))
        if not old:
            continue
        if mask & ~cpu.bit:
            await set_tlb_ubc_flush_pending(cpu, mm, old)
        elif pte_accessible(old):
            await flush_tlb_mm_range(cpu, mm, vpn, vpn + 1)
        await FolioPut(pfn)
        left.append(MigrationEntry(mm, vpn, make_migration_entry(old)))
    return left


async def remove_migration_ptes(cpu: PerCpu, left: list[MigrationEntry], pfn: int) -> None:
    """remove_migration_ptes: let the mappings name frame `pfn`, with what the entry carried along."""
    for mm, vpn, entry in left:
        flags = PRESENT | entry & EXCLUSIVE
        if entry & MIGRATION_WRITE:
            flags |= RW
        if cpu.parameters.migration_entry_ad:
            flags |= entry & (ACCESSED | DIRTY)
        await FolioGet(pfn)
        if await CmpxchgPte(mm, vpn, entry, mk_pte(pfn, flags)) != entry:
            await FolioPut(pfn)


async def folio_referenced(pfn: int) -> int:
    """folio_referenced: how many mappings were used since the last look; their bits are cleared.

    x86 does not flush for this: a set bit lost to a cached entry only costs accuracy.
    """
    mappings = await FolioRmap(pfn)
    young = await Series(tuple(TestAndClearYoung(mm, vpn) for mm, vpn in mappings))
    return sum(young)


async def try_to_unmap_flush(cpu: PerCpu) -> None:
    """try_to_unmap_flush: perform what this task's batches owe."""
    task = cpu.current
    task.tlb_ubc.fold(task.tlb_ubc_ro)
    if not task.tlb_ubc.nr_flush_required:
        return
    mask = task.tlb_ubc.cpumask
    await cpu.policy.unmap_flush_begin(cpu)
    await arch_tlbbatch_flush(cpu, task.tlb_ubc)
    await cpu.policy.unmap_flush_end(cpu, mask)
    task.tlb_ubc.clear()
