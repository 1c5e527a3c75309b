"""Changing the protection of a range (mm/mprotect.c, v6.6): for mprotect(2), and for NUMA hints.

All entries of the range first, then one range flush. In between, entries and TLBs differ.
"""

from __future__ import annotations

from collections.abc import Sequence

from emulator.hardware.operations import (
    CmpxchgPte,
    FindVma,
    FolioRmap,
    FolioTestFlag,
    FolioXchgAccessTime,
    Load,
    Lock,
    MappedRange,
    PmdRange,
    Series,
    Unlock,
    VmaProtect,
)
from emulator.hardware.pte import (
    DIRTY,
    EXCLUSIVE,
    MIGRATION_WRITE,
    NOACCESS,
    PRESENT,
    PROTNONE,
    PSE,
    RW,
    SOFT_DIRTY,
    UFFD_WP,
    ZERO_PFN,
    is_migration_entry,
    pte_pages,
    pte_pfn,
    pte_present,
    ptl,
)
from emulator.hardware.pte import mmap_lock as mmap_lock
from emulator.kernel.huge_memory import split_huge_pmd_if_needed
from emulator.kernel.mmap_lock import mmap_write_lock, mmap_write_unlock, vma_start_write
from emulator.kernel.mmu_gather import MmuGather, table_changed, tlb_finish_mmu, tlb_gather_mmu
from emulator.kernel.mmu_notifier import (
    mmu_notifier_invalidate_range_end,
    mmu_notifier_invalidate_range_start,
)
from emulator.kernel.mmzone import FAST_NODE
from emulator.kernel.percpu import PerCpu, mm_users_word
from emulator.kernel.pgtable_generic import PROTECT, set_pte_at
from emulator.kernel.rmap import flush_tlb_batched_pending
from emulator.memory.folios import PG_DIRTY
from emulator.memory.page_table import (
    VM_ACCESS_FLAGS,
    VM_EXEC,
    VM_PKEY_BIT0,
    VM_READ,
    VM_SHARED,
    VM_SOFT_TRACKED,
    VM_UFFD_WP,
    VM_WRITE,
    Vma,
)

# uapi/asm-generic/mman-common.h. Flags of an area have the same bits (calc_vm_prot_bits).
PROT_NONE = 0
PROT_READ = VM_READ
READ_WRITE = VM_READ | VM_WRITE
# What says it of an area says it in each entry: no execution, and the key.
_IN_EVERY_ENTRY = VM_EXEC | VM_PKEY_BIT0


async def change_prot_numa(cpu: PerCpu, mm: int, start: int, end: int) -> int:
    """change_prot_numa over pages [start, end): how many of them became PROT_NONE.

    With memory tiering only folios outside the top tier get hints (change_pte_range). The write bit
    goes: after migration such a page comes back read-only. A PMD is one entry, and its pages count.
    """
    nid = cpu.parameters.nid
    normal = cpu.parameters.numa_balancing_normal
    left_alone = await _local_node(cpu, mm, start) if normal else -1
    # change_pmd_range, for a part of a huge page.
    await split_huge_pmd_if_needed(cpu, mm, start)
    await split_huge_pmd_if_needed(cpu, mm, end)
    # Until the flush below is done, an inaccessible entry may still be cached. Whoever unmaps one meanwhile
    # has to see this (set_tlb_ubc_flush_pending).
    tlb = await tlb_gather_mmu(mm)
    pages = huge = 0
    for first, pmd in await PmdRange(mm, start, end):
        lock, mapped = await pte_offset_map_lock(cpu, mm, first, pmd, start, end)
        if normal:
            # change_huge_pmd does not ask how many threads there are.
            marked = [
                (vpn, entry)
                for vpn, entry in mapped
                if entry & PRESENT
                and (entry & PSE or nid(pte_pfn(entry)) != left_alone)
                and not await _prot_numa_skip(cpu, mm, vpn, entry)
            ]
        else:
            marked = [
                (vpn, entry) for vpn, entry in mapped if entry & PRESENT and nid(pte_pfn(entry)) != FAST_NODE
            ]
        if marked and cpu.parameters.numa_scan_pages:
            # folio_use_access_time: when a page was made inaccessible says how hot it is at the next access.
            await FolioXchgAccessTime(tuple([pte_pfn(entry) for _, entry in marked]), cpu.now)
        while marked:
            seen = await Series(tuple([CmpxchgPte(mm, vpn, old, protnone(old)) for vpn, old in marked]))
            again = []
            for (vpn, entry), was in zip(marked, seen, strict=True):
                if was != entry:
                    # A walker has set a bit meanwhile.
                    again.append((vpn, was))
                    continue
                covered = pte_pages(entry, cpu.parameters.hpage_order)
                tlb.adjust_range(vpn, covered, covered)
                pages += covered
                huge += entry & PSE != 0
            marked = again
        await table_changed(cpu, tlb, first)
        await Unlock(lock)
    if pages:
        cpu.count("numa_pte_updates", pages)
    if huge:
        # change_huge_pmd
        cpu.count("numa_huge_pte_updates", huge)
    await cpu.policy.gather_end(cpu, mm, Vma(start, end, 0, 0, 0))
    await tlb_finish_mmu(cpu, tlb)
    return pages


async def pte_offset_map_lock(
    cpu: PerCpu, mm: int, first: int, pmd: int, start: int, end: int
) -> tuple[str, Sequence[tuple[int, int]]]:
    """pte_offset_map_lock, then what change_pte_range does first: the lock of the PMD's page table, held, and
    (page, entry) of what is mapped in pages [start, end) of it.

    A huge page (`pmd`, if it still is one) has no table and nothing to ask for: change_huge_pmd takes the
    lock. One that has come meanwhile and is only in part in the range is left alone.
    """
    lock = ptl(mm, first)
    last = first + cpu.parameters.table_pages
    order = cpu.parameters.hpage_order
    asked = MappedRange(mm, first, last) if order else MappedRange(mm, max(first, start), min(last, end))
    _, mapped = await Series((Lock(lock), asked))
    if order:
        mapped = tuple(
            [one for one in mapped if start <= one[0] and one[0] + pte_pages(one[1], order) <= end]
        )
    if not pmd or not mapped or not mapped[0][1] & PSE:
        await flush_tlb_batched_pending(cpu, mm)
    return lock, mapped


async def _local_node(cpu: PerCpu, mm: int, vpn: int) -> int:
    """change_pte_range's target_node: a single thread's private pages stay as they are on its own node.

    -1 if all are meant.
    """
    found = await FindVma(mm, vpn)
    private = bool(found) and not Vma(*found).flags & VM_SHARED
    return FAST_NODE if private and await Load(mm_users_word(mm)) == 1 else -1


async def _prot_numa_skip(cpu: PerCpu, mm: int, vpn: int, entry: int) -> bool:
    """What change_pte_range leaves out: the zero page, a shared copy-on-write page, a dirty one of a file."""
    pfn = pte_pfn(entry)
    found = await FindVma(mm, vpn)
    if pfn == ZERO_PFN or not found:
        return True
    vma = Vma(*found)
    if not vma.flags & VM_SHARED:
        return len(await FolioRmap(pfn)) > 1
    if vma.file < 0:
        return not cpu.parameters.numa_scans_shmem
    return vma.file > 0 and bool(await FolioTestFlag(pfn, PG_DIRTY))


def protnone(entry: int) -> int:
    """pte_modify(entry, PAGE_NONE)."""
    return entry & ~(PRESENT | RW) | PROTNONE


def vma_soft_dirty_enabled(vma: Vma) -> bool:
    """vma_soft_dirty_enabled (mm/internal.h): a page's first write since clear_refs has to fault."""
    return vma.flags & VM_SOFT_TRACKED != 0


def vma_wants_writenotify(vma: Vma) -> bool:
    """vma_wants_writenotify (mm/mmap.c): the first write to a clean page of a shared area has to fault.

    Shmem has nothing to write back, so nobody asks for it there, unless writes are tracked.
    """
    return vma.file > 0 or vma_soft_dirty_enabled(vma) or vma.flags & VM_UFFD_WP != 0


def pte_wrprotect(vma: Vma, entry: int) -> int:
    """pte_wrprotect: the entry without write permission; that it had it says that it was written."""
    written = SOFT_DIRTY if entry & RW and vma_soft_dirty_enabled(vma) else 0
    return entry & ~RW | written


def can_change_pte_writable(vma: Vma, flags: int, entry: int) -> bool:
    """can_change_pte_writable of an entry in an area that has `flags` now: a private page that is exclusive,
    or a shared one that is dirty already.

    Everything else stays read-only, and the first write faults, if it has to; where writes are tracked, that
    to each page which was not written yet (76aefad628aa, v6.0).
    """
    if not flags & VM_WRITE or entry & UFFD_WP:
        return False
    if vma_soft_dirty_enabled(vma) and not entry & SOFT_DIRTY:
        return False
    if not flags & VM_SHARED:
        return entry & EXCLUSIVE != 0
    return entry & DIRTY != 0 or not vma_wants_writenotify(vma)


def upgrades(cpu: PerCpu, entry: int) -> bool:
    """Whether mprotect makes an entry writable that might be: before v6.2 no PMD, and no clean one."""
    return not cpu.parameters.mprotect_needs_dirty or entry & (DIRTY | PSE) == DIRTY


def pte_needs_flush(old: int, new: int) -> bool:
    """pte_needs_flush (arch/x86/include/asm/tlbflush.h, v6.6): whether a change of an entry asks for a flush.

    What was not present is in no TLB. Losing PRESENT or DIRTY asks for one; a lost ACCESSED only costs
    accuracy. The write bit does both ways: without a flush for the added right, CPUs would fault for
    nothing.
    """
    if not old & PRESENT:
        return False
    if pte_pfn(old) != pte_pfn(new):
        return True
    return old & ~new & (PRESENT | DIRTY) != 0 or (old ^ new) & RW != 0


async def change_pte_range(cpu: PerCpu, tlb: MmuGather, vma: Vma, start: int, end: int, flags: int) -> None:
    """change_pte_range, change_huge_pmd: give every entry of pages [start, end) the area's new `flags`.

    Table by table, each under its lock. A writable migration entry becomes readable, so its page comes back
    read-only; nothing is flushed for it. (The kernel asks the area whether a page that comes back is
    accessible; here the entry says so.)

    Whether other CPUs still read a source folio through an older translation the postings do not ask here:
    they look in the write fault (do_wp_page) only, and an entry that becomes writable here never gets there.
    What keeps one CPU from reading the source while another already writes the destination is
    flush_tlb_batched_pending: it flushes for every unmap that was counted, deferred or not. Without it, until
    the caller's flush, nothing does.
    """
    mm = tlb.mm
    accessible = flags & VM_ACCESS_FLAGS != 0
    for first, pmd in await PmdRange(mm, start, end):
        lock, mapped = await pte_offset_map_lock(cpu, mm, first, pmd, start, end)
        for vpn, entry in mapped:
            old = entry
            while True:
                new = old
                if pte_present(old):
                    # pte_modify: a NUMA hint is lost with the protection that it was made of.
                    new = pte_wrprotect(vma, old) & ~(PRESENT | PROTNONE | NOACCESS)
                    new |= PRESENT if accessible else PROTNONE | NOACCESS
                    if can_change_pte_writable(vma, flags, new) and upgrades(cpu, new):
                        await cpu.policy.mapped_writable(cpu, pte_pfn(old))
                        new |= RW
                elif is_migration_entry(old):
                    new = old & ~(MIGRATION_WRITE | NOACCESS) | (0 if accessible else NOACCESS)
                seen = old if new == old else await set_pte_at(cpu, CmpxchgPte(mm, vpn, old, new), PROTECT)
                if seen == old:
                    break
                old = seen  # a walker has set a bit
            if pte_needs_flush(old, new) or (old & PRESENT and (vma.flags ^ flags) & _IN_EVERY_ENTRY):
                pages = pte_pages(old, cpu.parameters.hpage_order)
                tlb.adjust_range(vpn, pages, pages)
        await table_changed(cpu, tlb, first)
        await Unlock(lock)


async def mprotect_fixup(cpu: PerCpu, tlb: MmuGather, vma: Vma, start: int, end: int, prot: int) -> None:
    """mprotect_fixup, change_protection: the area's flags first, then its entries."""
    flags = vma.flags & ~VM_ACCESS_FLAGS | prot
    if flags != vma.flags:
        # split_vma
        await split_huge_pmd_if_needed(cpu, tlb.mm, start)
        await split_huge_pmd_if_needed(cpu, tlb.mm, end)
        await vma_start_write(cpu, tlb.mm, start, end)
        await VmaProtect(tlb.mm, start, end, flags)
        if cpu.parameters.guests:
            await mmu_notifier_invalidate_range_start(cpu, tlb.mm, start, end)
        await change_pte_range(cpu, tlb, vma, start, end, flags)
        await cpu.policy.gather_end(cpu, tlb.mm, vma)
        if cpu.parameters.guests:
            await mmu_notifier_invalidate_range_end(cpu, tlb.mm, start, end)


async def do_mprotect_pkey(cpu: PerCpu, mm: int, start: int, end: int, prot: int) -> bool:
    """do_mprotect_pkey over pages [start, end) with PROT_NONE, PROT_READ or READ_WRITE, with VM_EXEC or
    VM_PKEY_BIT0 if so wanted; one flush for all areas in it.

    False (-ENOMEM) if a part of the range is in no area; what lies before that part is changed.
    """
    await mmap_write_lock(mm)
    tlb = await tlb_gather_mmu(mm)
    at = start
    while at < end:
        found = await FindVma(mm, at)
        if not found:
            break
        vma = Vma(*found)
        stop = min(vma.end, end)
        await mprotect_fixup(cpu, tlb, vma, at, stop, prot)
        at = stop
    await tlb_finish_mmu(cpu, tlb)
    await mmap_write_unlock(cpu, mm)
    return at >= end
