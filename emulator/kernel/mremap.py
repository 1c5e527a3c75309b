"""Moving pages to another address (mm/mremap.c, v6.6): entry by entry, under the locks of both page tables.

Who finds a page at its new address may unmap and free it there, and flushes that address only. So the old one
is flushed for before the locks are dropped.
"""

from __future__ import annotations

from collections.abc import Iterator

from emulator.hardware.operations import (
    FindVma,
    GetPmd,
    Lock,
    MappedRange,
    PmdRange,
    Series,
    Unlock,
    VmaInsert,
    VmaProtect,
    VmaRemove,
    XchgPmd,
    XchgPte,
)
from emulator.hardware.pte import PMD_ORDER, PSE, is_migration_entry, pmd_lock, pte_present, ptl
from emulator.kernel.huge_memory import split_huge_pmd, split_huge_pmd_if_needed
from emulator.kernel.ksm import break_ksm
from emulator.kernel.mmap import do_vmi_munmap
from emulator.kernel.mmap_lock import mmap_write_lock, mmap_write_unlock, vma_start_write
from emulator.kernel.mmu_gather import free_pgtables, tlb_finish_mmu, tlb_gather_mmu
from emulator.kernel.mmu_notifier import (
    mmu_notifier_invalidate_range_end,
    mmu_notifier_invalidate_range_start,
)
from emulator.kernel.percpu import PerCpu
from emulator.kernel.pgtable_generic import MREMAP, set_pte_at
from emulator.kernel.rmap import flush_tlb_batched_pending, i_mmap_lock, rmap_lock
from emulator.kernel.tlb import flush_tlb_range
from emulator.memory.page_table import VM_ACCESS_FLAGS, Vma
from emulator.memory.table_pages import pmd_of, table_of


async def mremap_to(
    cpu: PerCpu, mm: int, old: int, new: int, pages: int, new_pages: int = 0, dontunmap: bool = False
) -> bool:
    """mremap with MREMAP_MAYMOVE | MREMAP_FIXED: pages from `old` on move to `new`, where the area has as
    many, or `new_pages`.

    What was at `new` is gone, and so are pages that are too many. With `dontunmap` the old area stays, with
    no pages in it. False (-EINVAL, -EFAULT) if the two overlap, or no single area holds the old range.
    """
    new_pages = new_pages or pages
    if old < new + new_pages and new < old + pages:
        return False
    await mmap_write_lock(mm)
    await do_vmi_munmap(cpu, mm, new, new + new_pages)
    if new_pages < pages:
        await do_vmi_munmap(cpu, mm, old + new_pages, old + pages)
        pages = new_pages
    found = await FindVma(mm, old)
    fits = bool(found) and Vma(*found).end >= old + pages
    if fits:
        await move_vma(cpu, mm, Vma(*found).part(old, old + pages), new, new_pages, dontunmap)
    await mmap_write_unlock(cpu, mm)
    return fits


async def move_vma(cpu: PerCpu, mm: int, vma: Vma, new: int, new_pages: int, dontunmap: bool) -> None:
    """move_vma: the area and its pages to `new`, then what is left of the page tables.

    Both areas are locked until the pages have moved, and faults wait. Where they do not take locks here, they
    are refused meanwhile: the old area goes first, and the new one begins without any permission.
    """
    end = vma.end
    # __split_vma
    await split_huge_pmd_if_needed(cpu, mm, vma.start)
    await split_huge_pmd_if_needed(cpu, mm, end)
    moved = vma._replace(start=new, end=new + new_pages)
    locked = cpu.parameters.fault_locks
    if cpu.parameters.ksm:
        # ksm_madvise: merged pages do not move.
        await break_ksm(cpu, mm, vma.start, end)
    await vma_start_write(cpu, mm, vma.start, end)
    await vma_start_write(cpu, mm, new, moved.end)
    await VmaRemove(mm, vma.start, end)
    await VmaInsert(mm, *moved._replace(flags=vma.flags if locked else vma.flags & ~VM_ACCESS_FLAGS))
    tables = await move_page_tables(cpu, mm, vma, new)
    if not locked:
        await VmaProtect(mm, moved.start, moved.end, moved.flags)
    if dontunmap:
        await VmaInsert(mm, *vma)
        return
    # do_vmi_munmap of the old range, where nothing is mapped any more.
    tlb = await tlb_gather_mmu(mm)
    await free_pgtables(cpu, tlb, vma.start, end, tables)
    await tlb_finish_mmu(cpu, tlb)


async def move_page_tables(cpu: PerCpu, mm: int, vma: Vma, new: int) -> frozenset[int]:
    """move_page_tables: all that is mapped in the area, as much at a time as lies in one page table on both
    sides. Answers the first pages of what whole tables mapped that have gone to the new address.

    Where that is a whole one, the kernel moves the table (move_normal_pmd), with a flush of the same range.
    Where tables are no things here, its entries move one by one, and as nobody may use either address
    meanwhile that is the same.
    """
    if cpu.parameters.guests:
        await mmu_notifier_invalidate_range_start(cpu, mm, vma.start, vma.end)
    if cpu.parameters.walker_caches:
        for start, end in _extents(vma, new):
            await move_pgt_entry(cpu, mm, vma, start, end, new - vma.start)
    # take_rmap_locks: spared where the walk over the mappings comes to the new area after the old one, so
    # that it finds the page at one of them. Here a walk knows beforehand where it will go.
    lock = i_mmap_lock(vma.file)
    if vma.file:
        await Lock(lock)
    by = new - vma.start
    if by % cpu.parameters.hpage_nr:
        # No PMD at the new address maps what one at the old does.
        for first, pmd in await PmdRange(mm, vma.start, vma.end):
            if pmd:
                await split_huge_pmd(cpu, mm, first)
    tables = []
    for start, end in _extents(vma, new):
        whole = end - start == 1 << PMD_ORDER and not await PmdRange(mm, start + by, end + by)
        if whole:
            tables.append(start)
        await move_ptes(cpu, mm, start, end, by, whole)
    if vma.file:
        await Unlock(lock)
    if cpu.parameters.guests:
        await mmu_notifier_invalidate_range_end(cpu, mm, vma.start, vma.end)
    return frozenset(tables)


def _extents(vma: Vma, new: int) -> Iterator[tuple[int, int]]:
    """get_extent: the area's pages, cut where a page table begins at either address."""
    start = vma.start
    size = 1 << PMD_ORDER
    while start < vma.end:
        moved = start - vma.start + new
        stop = min(vma.end, start + size - start % size, start + size - moved % size)
        yield start, stop
        start = stop


async def move_pgt_entry(cpu: PerCpu, mm: int, vma: Vma, start: int, end: int, by: int) -> None:
    """move_pgt_entry with NORMAL_PMD, if pages [start, end) are all of a page table at both addresses.

    The upper entry is looked at without a lock (get_old_pmd). Since 97113eb39fa7 (v5.14) the rmap lock is
    taken in any case: who walks the mappings must not change entries of a table that is moving.
    """
    pages = cpu.parameters.table_pages
    pmd = await GetPmd(mm, start)
    if end - start < pages or start % pages or by % pages or not pmd or pmd & PSE:
        return
    await take_rmap_locks(cpu, mm, vma.file)
    await Lock(pmd_lock(mm))
    await move_normal_pmd(cpu, mm, start, start + by)
    await Unlock(pmd_lock(mm))
    await drop_rmap_locks(cpu, mm, vma.file)


async def take_rmap_locks(cpu: PerCpu, mm: int, file: int) -> None:
    """take_rmap_locks: nobody walks the mappings of the area's folios."""
    await Lock(rmap_lock(mm, file))


async def drop_rmap_locks(cpu: PerCpu, mm: int, file: int) -> None:
    """drop_rmap_locks."""
    await Unlock(rmap_lock(mm, file))


def no_table(pmd: int) -> bool:
    """!pmd_present(pmd) || pmd_leaf(pmd)."""
    return not pmd or bool(pmd & PSE)


async def move_normal_pmd(cpu: PerCpu, mm: int, old: int, new: int) -> bool:
    """move_normal_pmd: a page table with all its entries, to another address; false if it is none any more.

    It was seen before the locks were taken: collapse may have taken it away (retract_page_tables), which is
    looked for since 6fa1066fc5d0 (v6.12).
    """
    pmd = await GetPmd(mm, old)
    if no_table(pmd):
        return False
    await XchgPmd(mm, old, 0)
    cpu.count("mremap_moved_table")
    await XchgPmd(mm, new, pmd_of(table_of(pmd)))
    await flush_tlb_range(cpu, mm, old, old + cpu.parameters.table_pages)
    return True


async def move_ptes(cpu: PerCpu, mm: int, start: int, end: int, by: int, whole: bool = False) -> None:
    """move_ptes, move_huge_pmd: the entries of pages [start, end) to addresses `by` pages further.

    Both locks matter until the flush is done (since eb66ae030829, v4.19): the old one against who
    write-protects the page for writeback, the new one against who takes it away from there. A migration entry
    moves like any. Who moves a `whole` table or a huge page does not ask what others have unmapped.
    """
    locks = dict.fromkeys((ptl(mm, start), ptl(mm, start + by)))
    await Series(tuple(Lock(lock) for lock in locks))
    mapped = await MappedRange(mm, start, end)
    if not whole and not any(entry & PSE for _, entry in mapped):
        await flush_tlb_batched_pending(cpu, mm)
    force_flush = False
    for vpn, entry in mapped:
        if is_migration_entry(entry):
            # Whoever ends the migration looks for it without these locks, so it is never nowhere.
            await Series((XchgPte(mm, vpn + by, entry), XchgPte(mm, vpn, 0)))
        else:
            await set_pte_at(cpu, XchgPte(mm, vpn + by, await XchgPte(mm, vpn, 0)), MREMAP)
            # A page that is swapped out is in no TLB; whole tables are not looked into.
            force_flush = force_flush or whole or pte_present(entry)
    if force_flush:
        await cpu.policy.flush_moved(cpu, mm, start, end)
    await Series(tuple(Unlock(lock) for lock in reversed(locks)))
    if force_flush:
        await cpu.policy.move_unlocked(cpu, mm, start, end)
