"""What /proc/PID/clear_refs takes away (fs/proc/task_mmu.c, v6.6): accessed bits, or write permissions.

With the permissions gone the next write to each page faults, which is how soft-dirty tracking learns of it.
"""

from __future__ import annotations

from emulator.hardware.operations import (
    AtomicAdd,
    CmpxchgPte,
    FindVma,
    FolioClearFlag,
    FolioMaybeDmaPinned,
    GetPte,
    Load,
    Lock,
    MappedRange,
    PmdRange,
    Series,
    SetPte,
    TestAndClearYoung,
    Unlock,
    VmaProtect,
)
from emulator.hardware.pte import RW, SOFT_DIRTY, ZERO_PFN, pte_huge, pte_pfn, pte_present, ptl
from emulator.kernel.huge_memory import pmdp_invalidate
from emulator.kernel.mmap_lock import mmap_write_lock, mmap_write_unlock, vma_start_write
from emulator.kernel.mprotect import vma_soft_dirty_enabled
from emulator.kernel.percpu import PerCpu, has_pinned_word, tlb_flush_pending_word
from emulator.kernel.pgtable_generic import PROTECT, set_pte_at
from emulator.kernel.tlb import TLB_FLUSH_ALL
from emulator.memory.folios import PG_REFERENCED
from emulator.memory.page_table import VM_SHARED, VM_SOFT_TRACKED, Vma

CLEAR_REFS_ALL = 1
CLEAR_REFS_SOFT_DIRTY = 4


async def clear_refs_write(cpu: PerCpu, mm: int, start: int, end: int, what: int) -> None:
    """clear_refs_write of CLEAR_REFS_ALL or CLEAR_REFS_SOFT_DIRTY, over the mm's pages [start, end).

    Accessed bits are cleared without a flush, as everywhere on x86. Soft-dirty tracking flushes everything at
    the end (since v5.12: before, an empty gather flushed nothing), and says that it is about to: who
    gathers meanwhile knows that entries and TLBs differ.
    """
    await mmap_write_lock(mm)
    # walk_page_range with PGWALK_WRLOCK, since 49b0638502da (v6.6).
    await vma_start_write(cpu, mm, start, end)
    if what == CLEAR_REFS_SOFT_DIRTY:
        await track_writes(mm, start, end)
        await AtomicAdd(tlb_flush_pending_word(mm), 1)
    for first, pmd in await PmdRange(mm, start, end):
        last = first + cpu.parameters.table_pages
        if pmd and start <= first and last <= end:
            await clear_refs_huge_pmd(cpu, mm, first, what)
        else:
            await clear_refs_pte_range(mm, max(first, start), min(last, end), what)
    if what == CLEAR_REFS_SOFT_DIRTY:
        await cpu.policy.flush_changed(cpu, mm, 0, TLB_FLUSH_ALL, 1, True)
        await AtomicAdd(tlb_flush_pending_word(mm), -1)
    await mmap_write_unlock(cpu, mm)


async def track_writes(mm: int, start: int, end: int) -> None:
    """What clear_refs_write does to areas: they lose VM_SOFTDIRTY, and what is mapped in them from now on is
    not writable before it is written (vma_set_page_prot; 64e455079e1b, v3.18)."""
    while start < end:
        found = await FindVma(mm, start)
        if not found:
            start += 1
            continue
        vma = Vma(*found)
        if not vma_soft_dirty_enabled(vma):
            await VmaProtect(mm, vma.start, vma.end, vma.flags | VM_SOFT_TRACKED)
        start = vma.end


async def clear_refs_huge_pmd(cpu: PerCpu, mm: int, vpn: int, what: int) -> None:
    """The same of a PMD (clear_soft_dirty_pmd): it is invalid, and flushed for, before it comes back."""
    lock = ptl(mm, vpn)
    _, pmd = await Series((Lock(lock), GetPte(mm, vpn)))
    if pte_huge(pmd) and pte_present(pmd):
        if what == CLEAR_REFS_SOFT_DIRTY:
            pmd = await pmdp_invalidate(cpu, mm, vpn, pmd)
            await set_pte_at(cpu, SetPte(mm, vpn, pmd & ~(RW | SOFT_DIRTY)), PROTECT)
        elif pte_pfn(pmd) != ZERO_PFN:
            await Series((TestAndClearYoung(mm, vpn), FolioClearFlag(pte_pfn(pmd), PG_REFERENCED)))
    await Unlock(lock)


async def clear_refs_pte_range(mm: int, start: int, end: int, what: int) -> None:
    """clear_refs_pte_range: pages [start, end) of one page table, under its lock."""
    lock = ptl(mm, start)
    _, mapped = await Series((Lock(lock), MappedRange(mm, start, end)))
    for vpn, entry in mapped:
        if not pte_present(entry):
            continue
        if what == CLEAR_REFS_SOFT_DIRTY:
            if not await pte_is_pinned(mm, vpn, entry):
                await clear_soft_dirty(mm, vpn, entry)
        elif pte_pfn(entry) != ZERO_PFN:
            await Series((TestAndClearYoung(mm, vpn), FolioClearFlag(pte_pfn(entry), PG_REFERENCED)))
    await Unlock(lock)


async def pte_is_pinned(mm: int, vpn: int, entry: int) -> bool:
    """pte_is_pinned: a page that somebody writes through a pin stays writable and counts as written, since
    9348b73c2e1b (v5.11): a fault on it would copy it away from the pin. No fault does in a shared area
    (is_cow_mapping).
    """
    if not (entry & RW and await Load(has_pinned_word(mm)) and await FolioMaybeDmaPinned(pte_pfn(entry))):
        return False
    return not Vma(*await FindVma(mm, vpn)).flags & VM_SHARED


async def clear_soft_dirty(mm: int, vpn: int, entry: int) -> None:
    """clear_soft_dirty: the entry loses its write permission; only walkers touch it meanwhile."""
    while entry & (RW | SOFT_DIRTY):
        seen = await CmpxchgPte(mm, vpn, entry, entry & ~(RW | SOFT_DIRTY))
        if seen == entry:
            break
        entry = seen
