"""Write-protection that a program asks for, to be told of writes (mm/userfaultfd.c, v6.6).

Entries lose their write permission and say why; one flush for the range ends it. Whoever writes after that
waits until the protection is taken back. Pages that are missing are filled in (but no fault waits for it).
"""

from __future__ import annotations

from emulator.hardware.operations import (
    CmpxchgPte,
    DownRead,
    FindVma,
    FolioCopy,
    FolioPut,
    GetPte,
    LruAdd,
    PmdRange,
    Unlock,
    UpRead,
    VmaProtect,
)
from emulator.hardware.pte import (
    ACCESSED,
    DIRTY,
    EXCLUSIVE,
    MIGRATION_WRITE,
    PRESENT,
    RW,
    UFFD_WP,
    ZERO_PFN,
    mk_pte,
    pte_pages,
    pte_pfn,
    pte_present,
)
from emulator.kernel.huge_memory import split_huge_pmd_if_needed
from emulator.kernel.mmap_lock import (
    mmap_read_lock,
    mmap_read_unlock,
    mmap_write_lock,
    mmap_write_unlock,
    vma_start_write,
)
from emulator.kernel.mmu_gather import MmuGather, table_changed, tlb_finish_mmu, tlb_gather_mmu
from emulator.kernel.mprotect import (
    can_change_pte_writable,
    mmap_lock,
    pte_needs_flush,
    pte_offset_map_lock,
    pte_wrprotect,
)
from emulator.kernel.page_alloc import alloc_pages
from emulator.kernel.percpu import PerCpu
from emulator.kernel.pgtable_generic import FAULT, PROTECT, set_pte_at
from emulator.memory.page_table import VM_UFFD_WP, Vma


async def userfaultfd_register(cpu: PerCpu, mm: int, start: int, end: int) -> bool:
    """UFFDIO_REGISTER, for write-protection, of pages [start, end) of one area; false if there is none."""
    await mmap_write_lock(mm)
    found = await FindVma(mm, start)
    fits = bool(found) and Vma(*found).end >= end
    if fits:
        # split_vma
        await split_huge_pmd_if_needed(cpu, mm, start)
        await split_huge_pmd_if_needed(cpu, mm, end)
        await vma_start_write(cpu, mm, start, end)
        await VmaProtect(mm, start, end, Vma(*found).flags | VM_UFFD_WP)
    await mmap_write_unlock(cpu, mm)
    return fits


async def userfaultfd_unregister(cpu: PerCpu, mm: int, start: int, end: int) -> bool:
    """UFFDIO_UNREGISTER of pages [start, end) of one area: protected no more; false if there is none."""
    await mmap_write_lock(mm)
    found = await FindVma(mm, start)
    fits = bool(found) and Vma(*found).end >= end
    if fits:
        vma = Vma(*found)
        await vma_start_write(cpu, mm, start, end)
        await uffd_wp_range(cpu, mm, vma.part(start, end), False)
        await VmaProtect(mm, start, end, vma.flags & ~VM_UFFD_WP)
    await mmap_write_unlock(cpu, mm)
    return fits


async def mwriteprotect_range(cpu: PerCpu, mm: int, start: int, end: int, enable_wp: bool) -> bool:
    """mwriteprotect_range (UFFDIO_WRITEPROTECT): protect pages [start, end), or take the protection back.

    A flush for each area. False (-ENOENT) for what is not registered; what lies before that is changed.
    """
    # mmap_read_lock: faults and another such call may go on meanwhile.
    await DownRead(mmap_lock(mm))
    while start < end:
        found = await FindVma(mm, start)
        if not found or not Vma(*found).flags & VM_UFFD_WP:
            break
        stop = min(Vma(*found).end, end)
        await uffd_wp_range(cpu, mm, Vma(*found).part(start, stop), enable_wp)
        start = stop
    await UpRead(mmap_lock(mm))
    return start >= end


async def mfill_atomic(cpu: PerCpu, mm: int, start: int, end: int, source: int | None) -> int:
    """mfill_atomic over pages [start, end) of anonymous memory: UFFDIO_COPY of what is at page `source` and
    behind it, UFFDIO_ZEROPAGE without.

    Nothing is flushed: there was no entry. Answers how many are there now; at one that is there already it
    ends (-EEXIST).
    """
    await mmap_read_lock(mm)
    done = 0
    while start + done < end and await _mfill(
        cpu, mm, start + done, None if source is None else source + done
    ):
        done += 1
    await mmap_read_unlock(mm)
    return done


async def _mfill(cpu: PerCpu, mm: int, vpn: int, source: int | None) -> bool:
    """mfill_atomic_pte_copy, mfill_atomic_pte_zeropage."""
    if source is None:
        return not await set_pte_at(cpu, CmpxchgPte(mm, vpn, 0, mk_pte(ZERO_PFN, PRESENT | ACCESSED)), FAULT)
    pfn = await alloc_pages(cpu, 0)
    # copy_from_user, of a page that is there
    await FolioCopy(pte_pfn(await GetPte(mm, source)), pfn)
    await LruAdd(pfn, False)
    entry = mk_pte(pfn, PRESENT | ACCESSED | RW | DIRTY | EXCLUSIVE)
    if await set_pte_at(cpu, CmpxchgPte(mm, vpn, 0, entry), FAULT):
        await FolioPut(pfn)
        return False
    return True


async def uffd_wp_range(cpu: PerCpu, mm: int, vma: Vma, enable_wp: bool) -> None:
    """uffd_wp_range: all of an area, or of a part of one. A huge page of which a part is meant is split."""
    tlb = await tlb_gather_mmu(mm)
    for border in (vma.start, vma.end):
        await split_huge_pmd_if_needed(cpu, mm, border)
    for first, pmd in await PmdRange(mm, vma.start, vma.end):
        await _change_pte_range(cpu, tlb, vma, first, pmd, enable_wp)
    await tlb_finish_mmu(cpu, tlb)


async def _change_pte_range(
    cpu: PerCpu, tlb: MmuGather, vma: Vma, first: int, pmd: int, enable_wp: bool
) -> None:
    """change_pte_range, change_huge_pmd with MM_CP_UFFD_WP or MM_CP_UFFD_WP_RESOLVE: one page table, under
    its lock."""
    lock, mapped = await pte_offset_map_lock(cpu, tlb.mm, first, pmd, vma.start, vma.end)
    for vpn, entry in mapped:
        if enable_wp or entry & UFFD_WP:
            await _change_pte(cpu, tlb, vma, vpn, entry, enable_wp)
    await table_changed(cpu, tlb, first)
    await Unlock(lock)


async def _change_pte(cpu: PerCpu, tlb: MmuGather, vma: Vma, vpn: int, entry: int, enable_wp: bool) -> None:
    old = entry
    while True:
        if enable_wp:
            new = (pte_wrprotect(vma, old) if pte_present(old) else old & ~MIGRATION_WRITE) | UFFD_WP
        else:
            new = old & ~UFFD_WP
        writable = cpu.parameters.uffd_gives_write_back and not enable_wp and pte_present(old)
        if writable and can_change_pte_writable(vma, vma.flags, new):
            await cpu.policy.mapped_writable(cpu, pte_pfn(old))
            new |= RW
        seen = await set_pte_at(cpu, CmpxchgPte(tlb.mm, vpn, old, new), PROTECT)
        if seen == old:
            break
        # A walker has set a bit.
        old = seen
    if pte_needs_flush(old, new):
        pages = pte_pages(old, cpu.parameters.hpage_order)
        tlb.adjust_range(vpn, pages, pages)
