"""Reverse mapping: unmapping a folio for migration, mapping it again, and the flush this owes.

mm/rmap.c and the rmap parts of mm/migrate.c, v6.6. Flushes owed by unmapping gather in the task's
batch and are performed once, by `try_to_unmap_flush`.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from emulator.hardware.operations import (
    AtomicAdd,
    AtomicCmpxchg,
    CmpxchgPte,
    FolioGet,
    FolioMaybeDmaPinned,
    FolioOrder,
    FolioPut,
    FolioRmap,
    FolioSetFlag,
    GetPmd,
    GetPte,
    Load,
    Lock,
    Series,
    SetPte,
    SmpMb,
    TestAndClearYoung,
    TryToMigratePte,
    Unlock,
    XchgPte,
    XchgPteIn,
)
from emulator.hardware.pte import (
    ACCESSED,
    DIRTY,
    EXCLUSIVE,
    MIGRATION_WRITE,
    NOACCESS,
    PRESENT,
    PROTNONE,
    PSE,
    RW,
    UFFD_WP,
    is_migration_entry,
    make_migration_entry,
    mk_pte,
    pte_dirty,
    pte_pages,
    pte_pfn,
    pte_present,
    pte_write,
    ptl,
)
from emulator.kernel.mmu_notifier import (
    mmu_notifier_invalidate_range_end,
    mmu_notifier_invalidate_range_start,
)
from emulator.kernel.percpu import PerCpu, cpumask_word, tlb_flush_batched_word
from emulator.kernel.pgtable_generic import MIGRATED, RESTORED, pte_accessible, set_pte_at
from emulator.kernel.tlb import (
    PENDING,
    FlushScope,
    arch_tlbbatch_flush,
    flush_tlb_mm,
    flush_tlb_mm_range,
    flush_tlb_range,
)
from emulator.memory.folios import PG_DIRTY

# Who walks a folio's mappings, for a policy's unmap hooks.
MIGRATION: Final = "migration"
RECLAIM: Final = "reclaim"

# mm->tlb_flush_batched is one word with two counters. The kernel's have 15 bits each and are set back when
# they get large; these are wide enough to go without that.
TLB_FLUSH_BATCH_FLUSHED_SHIFT = 32
TLB_FLUSH_BATCH_PENDING_MASK = (1 << TLB_FLUSH_BATCH_FLUSHED_SHIFT) - 1


def i_mmap_lock(file: int) -> str:
    """address_space->i_mmap_rwsem: no mapping of the file moves while its mappings are walked.

    Migration and reclaim do without here: what they have missed still holds a reference.
    """
    return f"i_mmap_rwsem.{file}"


def rmap_lock(mm: int, file: int) -> str:
    """The lock that a walk over a folio's mappings takes: of its file, or its anon_vma, one for each mm."""
    return i_mmap_lock(file) if file else f"anon_vma.{mm}"


class MigrationEntry(NamedTuple):
    """Where a migration entry was left, and the entry itself."""

    mm: int
    vpn: int
    entry: int


async def set_tlb_ubc_flush_pending(cpu: PerCpu, mm: int, vpn: int, pte: int, pfn: int, reason: str) -> None:
    """set_tlb_ubc_flush_pending: note the flush owed for an unmapped entry, under its page-table lock.

    What no CPU can have cached owes nothing (4d4b6d66db63).
    """
    if not await pte_accessible(mm, vpn, pte):
        return
    cpu.count(
        "unmap_owed_writable"
        if pte_write(pte)
        else "unmap_owed_dirty"
        if pte_dirty(pte)
        else "unmap_owed_clean"
    )
    batch = await cpu.policy.unmapped(cpu, mm, vpn, pte, pfn, reason)
    await cpu.mmu.arch_tlbbatch_add_pending(cpu, batch, mm, vpn)
    batch.nr_flush_required += 1
    if cpu.parameters.tlb_flush_batched:
        await AtomicAdd(tlb_flush_batched_word(mm), 1)


async def flush_tlb_batched_pending(cpu: PerCpu, mm: int) -> None:
    """flush_tlb_batched_pending (mm/rmap.c): flush the whole mm if an unmap batch may still owe it a flush.

    Whoever decides from entries what is to be flushed asks first, once for every page table, whatever it
    holds, and with its lock held: zap_pte_range, change_pte_range (the NUMA scanner as well), move_ptes,
    madvise_cold_or_pageout_pte_range, madvise_free_pte_range. An unmap is counted under the same lock, so
    that who finds an entry gone finds it counted. Nobody tells the mm when a batch has been flushed, so the
    first caller after any unmap flushes, whoever was there before; that is also why a flush which a policy
    puts off is made up for here.
    """
    if not cpu.parameters.tlb_flush_batched:
        return
    word = tlb_flush_batched_word(mm)
    batch = await Load(word)
    pending = batch & TLB_FLUSH_BATCH_PENDING_MASK
    if pending != batch >> TLB_FLUSH_BATCH_FLUSHED_SHIFT:
        scope = FlushScope(PENDING, mm)
        token = await cpu.policy.flush_begin(cpu, scope)
        # It does not leave lazy CPUs out.
        await flush_tlb_mm(cpu, mm)
        await cpu.policy.flushed(cpu, scope, token)
        # If more was unmapped during the flush, that is not covered: leave it to the next one.
        await AtomicCmpxchg(word, batch, pending | pending << TLB_FLUSH_BATCH_FLUSHED_SHIFT)


async def try_to_migrate(cpu: PerCpu, pfn: int, split: bool = False) -> list[MigrationEntry]:
    """try_to_migrate: replace every mapping of the folio by a migration entry."""
    left = []
    await cpu.policy.unmap_begin(cpu, pfn, MIGRATION)
    for mm, vpn in await FolioRmap(pfn):
        if cpu.parameters.guests:
            await mmu_notifier_invalidate_range_start(cpu, mm, vpn, vpn + 1)
        old = await try_to_migrate_one(cpu, mm, vpn, pfn, split)
        if cpu.parameters.guests:
            await mmu_notifier_invalidate_range_end(cpu, mm, vpn, vpn + 1)
        if old:
            left.append(MigrationEntry(mm, vpn, make_migration_entry(old)))
    await cpu.policy.unmap_end(cpu, pfn, MIGRATION, True)
    return left


async def try_to_migrate_one(cpu: PerCpu, mm: int, vpn: int, pfn: int, split: bool) -> int:
    """try_to_migrate_one: one mapping, under its page-table lock; what it was, 0 if it was none of the
    folio's.

    The flush is put off to the end of the batch where the mmu says so (should_defer_flush), and of no mm
    before v6.3 (ptep_clear_flush without TTU_BATCH_FLUSH; `migrate_batched`). A huge page never gets to the
    batch: set_pmd_migration_entry clears by pmdp_invalidate, which flushes the range. No policy is asked
    there, nor by __split_huge_pmd_locked, which does the same (`split`).
    """
    lock = ptl(mm, vpn)
    old: int
    _, mask, old = await Series((Lock(lock), Load(cpumask_word(mm)), TryToMigratePte(mm, vpn, pfn)))
    if not old:
        await Unlock(lock)
        return 0
    pages = pte_pages(old, cpu.parameters.hpage_order)
    if old & PSE and (split or not cpu.parameters.thp_batched_flush):
        await flush_tlb_range(cpu, mm, vpn, vpn + pages)
    elif cpu.parameters.migrate_batched and cpu.mmu.arch_tlbbatch_should_defer(cpu, mask):
        await set_tlb_ubc_flush_pending(cpu, mm, vpn, old, pfn, MIGRATION)
    elif await pte_accessible(mm, vpn, old):
        await flush_tlb_mm_range(cpu, mm, vpn, vpn + pages)
    await Series((FolioPut(pfn), Unlock(lock)))
    return old


async def try_to_unmap(cpu: PerCpu, pfn: int, to: int = 0) -> bool:
    """try_to_unmap of a folio in the page cache, with TTU_BATCH_FLUSH; whether it is mapped nowhere after
    that. Anonymous pages leave entries that say where they go `to`.

    It may still be: munmap keeps the reverse mapping of a dirty page until it has flushed (zap_pte_range).
    """
    await cpu.policy.unmap_begin(cpu, pfn, RECLAIM)
    mappings = await FolioRmap(pfn)
    for mm, vpn in mappings:
        if cpu.parameters.guests:
            await mmu_notifier_invalidate_range_start(cpu, mm, vpn, vpn + 1)
        await try_to_unmap_one(cpu, mm, vpn, pfn, to)
        if cpu.parameters.guests:
            await mmu_notifier_invalidate_range_end(cpu, mm, vpn, vpn + 1)
    gone = not mappings or not await FolioRmap(pfn)
    await cpu.policy.unmap_end(cpu, pfn, RECLAIM, gone)
    return gone


async def try_to_unmap_one(cpu: PerCpu, mm: int, vpn: int, pfn: int, to: int) -> None:
    """try_to_unmap_one: clear one mapping of the folio, if it is one, under its page-table lock.

    What the entry knew of being written goes to the folio. As in try_to_migrate_one the flush is put off
    where another CPU takes part; a writable entry that is cached may be written through until then.
    """
    lock = ptl(mm, vpn)
    # page_vma_mapped_walk looks before it takes the lock, and again after that.
    if not pte_present(await GetPte(mm, vpn)):
        return
    _, mask, entry = await Series((Lock(lock), Load(cpumask_word(mm)), GetPte(mm, vpn)))
    if not pte_present(entry) or pte_pfn(entry) != pfn:
        await Unlock(lock)
        return
    # Walkers may still set bits: what counts is what was there when it was cleared.
    entry = await XchgPte(mm, vpn, 0)
    if cpu.mmu.arch_tlbbatch_should_defer(cpu, mask):
        await set_tlb_ubc_flush_pending(cpu, mm, vpn, entry, pfn, RECLAIM)
    elif await pte_accessible(mm, vpn, entry):
        await flush_tlb_mm_range(cpu, mm, vpn, vpn + 1)
    if pte_dirty(entry):
        await FolioSetFlag(pfn, PG_DIRTY)
    if to and entry & EXCLUSIVE and not await page_try_share_anon_rmap(pfn):
        await set_pte_at(cpu, XchgPte(mm, vpn, entry), RESTORED)
        await Unlock(lock)
        return
    if to:
        await SetPte(mm, vpn, to | entry & (EXCLUSIVE | UFFD_WP))
    await Series((FolioPut(pfn), Unlock(lock)))


async def page_try_share_anon_rmap(pfn: int) -> bool:
    """page_try_share_anon_rmap: whether an anonymous page may cease to be its mapping's own, whose entry has
    been cleared. False for one that may be pinned: who pins looks at the entry again after that.
    """
    await SmpMb()
    return not await FolioMaybeDmaPinned(pfn)


async def unmap_walked(cpu: PerCpu, mm: int, vpn: int, file: int) -> bool:
    """try_to_unmap_one of a page of a file at `vpn`, with its walk (page_vma_mapped_walk) as one that holds a
    pointer to the table: between reading the upper entry and taking the table's lock nothing but the rmap
    lock keeps the table where it is. Whether it was mapped; flushed at once (ptep_clear_flush).
    """
    lock = rmap_lock(mm, file)
    _, pmd = await Series((Lock(lock), GetPmd(mm, vpn)))
    entry = 0
    if pmd:
        await Lock(ptl(mm, vpn))
        entry = await XchgPteIn(mm, vpn, 0, pmd)
        if await pte_accessible(mm, vpn, entry):
            await flush_tlb_mm_range(cpu, mm, vpn, vpn + 1)
        await Unlock(ptl(mm, vpn))
    await Unlock(lock)
    if entry:
        await FolioPut(pte_pfn(entry))
    return bool(entry)


async def remove_migration_ptes(cpu: PerCpu, left: list[MigrationEntry], pfn: int) -> None:
    """remove_migration_ptes: let the mappings name frame `pfn`, with what the entry carried along.

    The kernel walks the folio's mappings. They are the entries that were left, unless one of those has
    changed: fork may have been there (it leaves MIGRATION_COPIED), and only then they are looked for.
    """
    source = 0
    for mm, vpn, entry in left:
        if await remove_migration_pte(cpu, mm, vpn, entry, pfn) != entry:
            source = pte_pfn(entry)
    while source:
        again = False
        for mm, vpn in await FolioRmap(source):
            entry = await GetPte(mm, vpn)
            if is_migration_entry(entry) and pte_pfn(entry) == source:
                # It may be copied once more before it goes. (The kernel's walk comes to children last.)
                again = True
                await remove_migration_pte(cpu, mm, vpn, entry, pfn)
        if not again:
            break


async def remove_migration_pte(cpu: PerCpu, mm: int, vpn: int, entry: int, pfn: int) -> int:
    """remove_migration_pte of one mapping; what was there."""
    # mk_pte with vm_page_prot: what was only a NUMA hint is accessible again.
    flags = (PROTNONE if entry & NOACCESS else PRESENT) | entry & (EXCLUSIVE | PSE | NOACCESS | UFFD_WP)
    if entry & MIGRATION_WRITE:
        flags |= RW
    if cpu.parameters.migration_entry_ad:
        flags |= entry & (ACCESSED | DIRTY)
    await FolioGet(pfn)
    seen: int = await set_pte_at(cpu, CmpxchgPte(mm, vpn, entry, mk_pte(pfn, flags)), MIGRATED)
    if seen != entry:
        await FolioPut(pfn)
    return seen


async def folio_referenced(cpu: PerCpu, pfn: int) -> int:
    """folio_referenced: how many mappings were used since the last look; their bits are cleared.

    x86 does not flush for this, unless it is a PMD's (pmdp_clear_flush_young): a set bit lost to a cached
    entry only costs accuracy.
    """
    mappings = await FolioRmap(pfn)
    young = await Series(tuple(TestAndClearYoung(mm, vpn) for mm, vpn in mappings))
    if cpu.parameters.hpage_order and any(young) and await FolioOrder(pfn):
        for (mm, vpn), used in zip(mappings, young, strict=True):
            if used:
                await flush_tlb_range(cpu, mm, vpn, vpn + cpu.parameters.hpage_nr)
    return sum(young)


async def try_to_unmap_flush(cpu: PerCpu) -> None:
    """try_to_unmap_flush: perform what this task's batch owes."""
    task = cpu.current
    await cpu.policy.unmap_flush_wanted(cpu)
    if not task.tlb_ubc.nr_flush_required:
        return
    mask = task.tlb_ubc.cpumask
    await cpu.policy.unmap_flush_begin(cpu)
    await arch_tlbbatch_flush(cpu, task.tlb_ubc)
    await cpu.policy.unmap_flush_end(cpu, mask)
    task.tlb_ubc.clear()


async def try_to_unmap_flush_dirty(cpu: PerCpu) -> None:
    """try_to_unmap_flush_dirty: before I/O starts, if something that was unmapped may still be written."""
    if cpu.current.tlb_ubc.writable:
        await try_to_unmap_flush(cpu)
