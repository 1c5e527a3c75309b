"""Copying an address space (kernel/fork.c: dup_mmap, mm/memory.c: copy_page_range, v6.6).

Parent and child map the same folios read-only, and the first write on either side copies. What other
threads of the parent have cached may still write until the one flush at the end: the child must not run
before that. A pinned page is copied at once.
"""

from __future__ import annotations

from emulator.hardware.operations import (
    AtomicAdd,
    CmpxchgPte,
    FindVma,
    FolioCopy,
    FolioGet,
    FolioMaybeDmaPinned,
    FolioPut,
    Load,
    Lock,
    LruAdd,
    MappedRange,
    PmdRange,
    Series,
    SetPte,
    Unlock,
    VmaInsert,
)
from emulator.hardware.pte import (
    ACCESSED,
    DIRTY,
    EXCLUSIVE,
    MIGRATION_COPIED,
    MIGRATION_WRITE,
    NOACCESS,
    PRESENT,
    PROTNONE,
    PSE,
    RW,
    UFFD_WP,
    ZERO_PFN,
    is_migration_entry,
    is_swap_entry,
    mk_pte,
    pte_pfn,
    ptl,
)
from emulator.kernel.huge_memory import split_huge_pmd
from emulator.kernel.mmap_lock import mmap_write_lock, mmap_write_unlock, vma_start_write
from emulator.kernel.page_alloc import alloc_pages
from emulator.kernel.percpu import PerCpu, has_pinned_word, write_protect_seq_word
from emulator.kernel.pgtable_generic import FORK, set_pte_at
from emulator.memory.page_table import VM_SHARED, VM_UFFD_WP, VM_WRITE, Vma


async def dup_mmap(cpu: PerCpu, mm: int, child: int, areas: tuple[tuple[int, int], ...]) -> None:
    """dup_mmap: give `child`, which is empty and runs nowhere, the areas [start, end) of `mm`, in pages.

    When this returns, nobody in the parent can write to what the child maps, and the child may run.
    """
    await mmap_write_lock(mm)
    for start, end in areas:
        at = start
        while at < end:
            found = await FindVma(mm, at)
            if not found:
                break
            vma = Vma(*found)
            # Since fb49c455323f (v6.5).
            await vma_start_write(cpu, mm, vma.start, vma.end)
            await VmaInsert(child, *vma._replace(flags=vma.flags & ~VM_UFFD_WP))
            if not vma.flags & VM_SHARED:
                await copy_page_range(cpu, mm, child, vma)
            at = vma.end
    await cpu.policy.after_fork(cpu, mm)
    await mmap_write_unlock(cpu, mm)


async def copy_page_range(cpu: PerCpu, mm: int, child: int, vma: Vma) -> None:
    """copy_page_range: every entry of a private area, table by table.

    Shared areas are left to the child's faults (vma_needs_copy). So would be private ones of files that
    nobody has written to; which they are is not kept here, and they are copied.
    """
    await begin_write_protect(mm)
    for first, _ in await PmdRange(mm, vma.start, vma.end):
        end = min(first + cpu.parameters.table_pages, vma.end)
        await copy_pte_range(cpu, mm, child, vma, max(first, vma.start), end)
    await end_write_protect(mm)


async def begin_write_protect(mm: int) -> None:
    """raw_write_seqcount_begin of mm->write_protect_seq: who pins without locks has to see this.

    The page-table lock comes before anything is looked at, so its order is that of a locked operation here.
    """
    await AtomicAdd(write_protect_seq_word(mm), 1)


async def end_write_protect(mm: int) -> None:
    """raw_write_seqcount_end."""
    await AtomicAdd(write_protect_seq_word(mm), 1)


async def copy_pte_range(cpu: PerCpu, mm: int, child: int, vma: Vma, start: int, end: int) -> None:
    """copy_pte_range: pages [start, end) of one page table, under its lock.

    A copy of a pinned page needs a frame, for which the lock is dropped (-EAGAIN); a huge one is split first
    (copy_huge_pmd).
    """
    lock = ptl(mm, start)
    prealloc = -1
    while start < end:
        _, mapped = await Series((Lock(lock), MappedRange(mm, start, end)))
        start, huge = end, False
        for vpn, entry in mapped:
            if is_swap_entry(entry):
                await copy_swap_pte(mm, child, vpn, entry)
            elif is_migration_entry(entry):
                cpu.count("fork_migration_entries")
                await copy_nonpresent_pte(mm, child, vpn, entry)
            elif await copy_present_pte(cpu, mm, child, vpn, entry):
                pass
            elif prealloc >= 0 and not entry & PSE:
                await copy_present_page(cpu, child, vma, vpn, entry, prealloc)
                prealloc = -1
            else:
                start, huge = vpn, entry & PSE != 0
                break
        await Unlock(lock)
        if huge:
            await split_huge_pmd(cpu, mm, start)
        elif start < end:
            prealloc = await alloc_pages(cpu, 0)
    if prealloc >= 0:
        await FolioPut(prealloc)


async def mmdrop(cpu: PerCpu, mm: int) -> None:
    """__mmdrop of an address space that has been torn down and that no CPU has loaded."""
    await cpu.mmu.destroy_context(cpu, mm)
    await cpu.policy.mm_dropped(cpu, mm)


async def copy_nonpresent_pte(mm: int, child: int, vpn: int, entry: int) -> None:
    """copy_nonpresent_pte of a migration entry: made readable on both sides, and without a reference.

    The walk over the folio's mappings that ends the migration finds them (rmap.py: remove_migration_ptes).
    """
    shared = entry & ~(MIGRATION_WRITE | EXCLUSIVE) | MIGRATION_COPIED
    await CmpxchgPte(mm, vpn, entry, shared)
    await SetPte(child, vpn, shared & ~UFFD_WP)


async def copy_swap_pte(mm: int, child: int, vpn: int, entry: int) -> None:
    """copy_nonpresent_pte of a swap entry (swap_duplicate): the page is nobody's own any more."""
    shared = entry & ~EXCLUSIVE
    await CmpxchgPte(mm, vpn, entry, shared)
    await SetPte(child, vpn, shared & ~UFFD_WP)


async def copy_present_pte(cpu: PerCpu, mm: int, child: int, vpn: int, entry: int) -> bool:
    """copy_present_pte: a reference, both entries read-only, and the page nobody's own any more.

    False for a page that may be pinned: whoever writes through the pin means this mapping. The caller holds
    the page-table lock, so only walkers touch the entry; what they set is kept, as by ptep_set_wrprotect.
    """
    if pte_pfn(entry) != ZERO_PFN:
        await FolioGet(pte_pfn(entry))
        if await page_needs_cow_for_dma(mm, entry):
            await FolioPut(pte_pfn(entry))
            return False
    while True:
        shared = entry & ~(RW | EXCLUSIVE)
        seen = entry if shared == entry else await CmpxchgPte(mm, vpn, entry, shared)
        if seen == entry:
            break
        entry = seen
    await set_pte_at(cpu, SetPte(child, vpn, shared & ~(ACCESSED | UFFD_WP)), FORK)
    return True


async def page_needs_cow_for_dma(mm: int, entry: int) -> bool:
    """What page_try_dup_anon_rmap asks of a page that is this mapping's own (page_needs_cow_for_dma)."""
    return bool(
        entry & EXCLUSIVE and await Load(has_pinned_word(mm)) and await FolioMaybeDmaPinned(pte_pfn(entry))
    )


async def copy_present_page(cpu: PerCpu, child: int, vma: Vma, vpn: int, entry: int, copy: int) -> None:
    """copy_present_page: the child gets a copy of its own, writable at once; the parent keeps its page."""
    await FolioCopy(pte_pfn(entry), copy)
    await LruAdd(copy, False)
    flags = PROTNONE | NOACCESS if entry & NOACCESS else PRESENT | ACCESSED
    flags |= DIRTY | EXCLUSIVE | (RW if vma.flags & VM_WRITE else 0)
    await set_pte_at(cpu, SetPte(child, vpn, mk_pte(copy, flags)), FORK)
    cpu.count("fork_copied")
