"""Changing the protection of a range (mm/mprotect.c, v6.6): for mprotect(2), and for NUMA hints.

All entries of the range first, then one range flush. In between, entries and TLBs differ.
"""

from __future__ import annotations

from emulator.hardware.operations import (
    CmpxchgPte,
    FindVma,
    Lock,
    MappedRange,
    Series,
    Unlock,
    VmaProtect,
    WaitPte,
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
    UFFD_WP,
    is_migration_entry,
    pte_pages,
    pte_pfn,
    pte_present,
)
from emulator.kernel.huge_memory import split_huge_pmd_if_needed
from emulator.kernel.mmu_gather import MmuGather, tlb_finish_mmu, tlb_gather_mmu
from emulator.kernel.mmzone import FAST_NODE
from emulator.kernel.percpu import PerCpu
from emulator.kernel.rmap import flush_tlb_batched_pending
from emulator.memory.page_table import VM_ACCESS_FLAGS, VM_READ, VM_SHARED, VM_WRITE, Vma

# uapi/asm-generic/mman-common.h. Flags of an area have the same bits (calc_vm_prot_bits).
PROT_NONE = 0
PROT_READ = VM_READ
READ_WRITE = VM_READ | VM_WRITE


def mmap_lock(mm: int) -> str:
    """mm->mmap_lock, as far as mmap, munmap and mprotect exclude each other by it.

    Page faults do not take it here: they install an entry only where the one they looked at still is, and
    none where there is no area any more. A fault that has seen its area writable may still install a
    writable entry after mprotect has been there: programs must not write to what they are protecting.
    """
    return f"mmap_lock.{mm}"


async def change_prot_numa(cpu: PerCpu, mm: int, start: int, end: int) -> int:
    """change_prot_numa over pages [start, end): how many of them became PROT_NONE.

    With memory tiering only folios outside the top tier get hints (change_pte_range). The write bit
    goes: after migration such a page comes back read-only. A PMD is one entry, and its pages count.
    """
    nid = cpu.parameters.nid
    # change_pmd_range, for a part of a huge page.
    await split_huge_pmd_if_needed(cpu, mm, start)
    await split_huge_pmd_if_needed(cpu, mm, end)
    mapped = await MappedRange(mm, start, end)
    if mapped:
        await flush_tlb_batched_pending(cpu, mm)
    marked = [(vpn, entry) for vpn, entry in mapped if entry & PRESENT and nid(pte_pfn(entry)) != FAST_NODE]
    if not marked:
        return 0
    # Until the flush below is done, an inaccessible entry may still be cached. Whoever unmaps one meanwhile
    # has to see this (set_tlb_ubc_flush_pending).
    tlb = await tlb_gather_mmu(mm)
    seen = await Series(
        tuple(CmpxchgPte(mm, vpn, entry, entry & ~(PRESENT | RW) | PROTNONE) for vpn, entry in marked)
    )
    pages = huge = 0
    for (vpn, entry), was in zip(marked, seen, strict=True):
        if was == entry:
            covered = pte_pages(entry, cpu.parameters.hpage_order)
            tlb.adjust_range(vpn, covered, covered)
            pages += covered
            huge += entry & PSE != 0
    if pages:
        cpu.count("numa_pte_updates", pages)
    if huge:
        # change_huge_pmd
        cpu.count("numa_huge_pte_updates", huge)
    await tlb_finish_mmu(cpu, tlb)
    return pages


def can_change_pte_writable(flags: int, entry: int) -> bool:
    """can_change_pte_writable: a private page that is exclusive, or a shared one that is dirty already.

    Everything else stays read-only, and the first write faults.
    """
    if not flags & VM_WRITE or entry & UFFD_WP:
        return False
    return entry & DIRTY != 0 if flags & VM_SHARED else entry & EXCLUSIVE != 0


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


async def change_pte_range(cpu: PerCpu, tlb: MmuGather, start: int, end: int, flags: int) -> None:
    """change_pte_range, change_huge_pmd: give every entry of pages [start, end) the area's protection.

    Whether other CPUs still read a source folio through an older translation the postings do not ask here:
    they look in the write fault (do_wp_page) only, and an entry that becomes writable here never gets there.
    What keeps one CPU from reading the source while another already writes the
    destination is flush_tlb_batched_pending, if it is turned on: it flushes for every unmap that was
    counted, deferred or not. Without it, until the caller's flush, nothing does.
    """
    mm = tlb.mm
    mapped = await MappedRange(mm, start, end)
    if mapped:
        await flush_tlb_batched_pending(cpu, mm)
    accessible = flags & VM_ACCESS_FLAGS != 0
    for vpn, entry in mapped:
        old = entry
        while True:
            if is_migration_entry(old) and (old & MIGRATION_WRITE or accessible == (old & NOACCESS != 0)):
                # The kernel makes such an entry readable, and asks the area when it becomes a mapping again.
                # Here remove_migration_ptes resolves exactly the entry that was left, so the migration has to
                # end first.
                old = await WaitPte(mm, vpn, old)
                await flush_tlb_batched_pending(cpu, mm)
                continue
            new = old
            if pte_present(old):
                # pte_modify: a NUMA hint is lost with the protection that it was made of.
                new = old & ~(RW | PRESENT | PROTNONE | NOACCESS)
                new |= PRESENT if accessible else PROTNONE | NOACCESS
                if can_change_pte_writable(flags, new):
                    await cpu.policy.mapped_writable(cpu, pte_pfn(old))
                    new |= RW
            seen = old if new == old else await CmpxchgPte(mm, vpn, old, new)
            if seen == old:
                break
            # A walker has set a bit, or somebody else has replaced the entry.
            if pte_pfn(seen) != pte_pfn(old):
                await flush_tlb_batched_pending(cpu, mm)
            old = seen
        if pte_needs_flush(old, new):
            pages = pte_pages(old, cpu.parameters.hpage_order)
            tlb.adjust_range(vpn, pages, pages)


async def mprotect_fixup(cpu: PerCpu, tlb: MmuGather, vma: Vma, start: int, end: int, prot: int) -> None:
    """mprotect_fixup, change_protection: the area's flags first, then its entries."""
    flags = vma.flags & ~VM_ACCESS_FLAGS | prot
    if flags != vma.flags:
        # split_vma
        await split_huge_pmd_if_needed(cpu, tlb.mm, start)
        await split_huge_pmd_if_needed(cpu, tlb.mm, end)
        await VmaProtect(tlb.mm, start, end, flags)
        await change_pte_range(cpu, tlb, start, end, flags)


async def do_mprotect_pkey(cpu: PerCpu, mm: int, start: int, end: int, prot: int) -> bool:
    """do_mprotect_pkey over pages [start, end) with PROT_NONE, PROT_READ or READ_WRITE; one flush for all
    areas in it.

    False (-ENOMEM) if a part of the range is in no area; what lies before that part is changed.
    """
    await Lock(mmap_lock(mm))
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
    await Unlock(mmap_lock(mm))
    return at >= end
