"""Copying an address space (kernel/fork.c: dup_mmap, mm/memory.c: copy_page_range, v6.6).

Parent and child map the same folios read-only, and the first write on either side copies. What other
threads of the parent have cached may still write until the one flush at the end: the child must not run
before that.
"""

from __future__ import annotations

from emulator.hardware.operations import (
    CmpxchgPte,
    FindVma,
    FolioGet,
    Lock,
    MappedRange,
    PmdRange,
    Series,
    SetPte,
    Unlock,
    VmaInsert,
)
from emulator.hardware.pte import (
    ACCESSED,
    EXCLUSIVE,
    MIGRATION_COPIED,
    MIGRATION_WRITE,
    RW,
    UFFD_WP,
    ZERO_PFN,
    is_migration_entry,
    is_swap_entry,
    pte_pfn,
    ptl,
)
from emulator.kernel.mprotect import mmap_lock
from emulator.kernel.percpu import PerCpu
from emulator.memory.page_table import VM_SHARED, VM_UFFD_WP, Vma


async def dup_mmap(cpu: PerCpu, mm: int, child: int, areas: tuple[tuple[int, int], ...]) -> None:
    """dup_mmap: give `child`, which is empty and runs nowhere, the areas [start, end) of `mm`, in pages.

    When this returns, nobody in the parent can write to what the child maps, and the child may run.
    """
    await Lock(mmap_lock(mm))
    for start, end in areas:
        at = start
        while at < end:
            found = await FindVma(mm, at)
            if not found:
                break
            vma = Vma(*found)
            await VmaInsert(child, *vma._replace(flags=vma.flags & ~VM_UFFD_WP))
            if not vma.flags & VM_SHARED:
                await copy_page_range(cpu, mm, child, vma)
            at = vma.end
    await cpu.policy.after_fork(cpu, mm)
    await Unlock(mmap_lock(mm))


async def copy_page_range(cpu: PerCpu, mm: int, child: int, vma: Vma) -> None:
    """copy_page_range, copy_pte_range: every entry of a private area, table by table under its lock.

    Shared areas are left to the child's faults (vma_needs_copy). So would be private ones of files that
    nobody has written to; which they are is not kept here, and they are copied.
    """
    for first, _ in await PmdRange(mm, vma.start, vma.end):
        lock = ptl(mm, first)
        asked = MappedRange(mm, max(first, vma.start), min(first + cpu.parameters.table_pages, vma.end))
        _, mapped = await Series((Lock(lock), asked))
        for vpn, entry in mapped:
            if is_swap_entry(entry):
                await copy_swap_pte(mm, child, vpn, entry)
            elif is_migration_entry(entry):
                cpu.count("fork_migration_entries")
                await copy_nonpresent_pte(mm, child, vpn, entry)
            else:
                await copy_present_pte(mm, child, vpn, entry)
        await Unlock(lock)


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


async def copy_present_pte(mm: int, child: int, vpn: int, entry: int) -> None:
    """copy_present_pte: a reference, both entries read-only, and the page nobody's own any more.

    The caller holds the page-table lock, so only walkers touch the entry; what they set is kept, as by
    ptep_set_wrprotect. A pinned page would be copied at once: pins are not told from references here.
    """
    if pte_pfn(entry) != ZERO_PFN:
        await FolioGet(pte_pfn(entry))
    while True:
        shared = entry & ~(RW | EXCLUSIVE)
        seen = entry if shared == entry else await CmpxchgPte(mm, vpn, entry, shared)
        if seen == entry:
            break
        entry = seen
    await SetPte(child, vpn, shared & ~(ACCESSED | UFFD_WP))
