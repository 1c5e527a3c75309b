"""Write-protection that a program asks for, to be told of writes (mm/userfaultfd.c, v6.6).

Entries lose their write permission and say why; one flush for the range ends it. Whoever writes after that
waits until the protection is taken back.
"""

from __future__ import annotations

from emulator.hardware.operations import (
    CmpxchgPte,
    DownRead,
    FindVma,
    Lock,
    MappedRange,
    Series,
    Unlock,
    UpRead,
    VmaProtect,
)
from emulator.hardware.pte import (
    MIGRATION_WRITE,
    RW,
    UFFD_WP,
    page_tables,
    pte_huge,
    pte_pfn,
    pte_present,
    ptl,
)
from emulator.kernel.mmu_gather import MmuGather, tlb_finish_mmu, tlb_gather_mmu
from emulator.kernel.mprotect import can_change_pte_writable, mmap_lock, pte_needs_flush
from emulator.kernel.percpu import PerCpu
from emulator.kernel.rmap import flush_tlb_batched_pending
from emulator.memory.page_table import VM_UFFD_WP, HugePageSplit, Vma


async def userfaultfd_register(cpu: PerCpu, mm: int, start: int, end: int) -> bool:
    """UFFDIO_REGISTER, for write-protection, of pages [start, end) of one area; false if there is none."""
    await Lock(mmap_lock(mm))
    found = await FindVma(mm, start)
    fits = bool(found) and Vma(*found).end >= end
    if fits:
        await VmaProtect(mm, start, end, Vma(*found).flags | VM_UFFD_WP)
    await Unlock(mmap_lock(mm))
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


async def uffd_wp_range(cpu: PerCpu, mm: int, vma: Vma, enable_wp: bool) -> None:
    """uffd_wp_range: all of an area, or of a part of one."""
    tlb = await tlb_gather_mmu(mm)
    for start, end in page_tables(vma.start, vma.end):
        await _change_pte_range(cpu, tlb, start, end, vma.flags, enable_wp)
    await tlb_finish_mmu(cpu, tlb)


async def _change_pte_range(
    cpu: PerCpu, tlb: MmuGather, start: int, end: int, flags: int, enable_wp: bool
) -> None:
    """change_pte_range with MM_CP_UFFD_WP or MM_CP_UFFD_WP_RESOLVE: one page table, under its lock."""
    mm = tlb.mm
    lock = ptl(mm, start)
    _, mapped = await Series((Lock(lock), MappedRange(mm, start, end)))
    await flush_tlb_batched_pending(cpu, mm)
    for vpn, entry in mapped:
        if pte_huge(entry):
            raise HugePageSplit(f"write-protection of the huge page at {vpn:#x} of mm {mm}: left out")
        if enable_wp or entry & UFFD_WP:
            await _change_pte(cpu, tlb, vpn, entry, flags, enable_wp)
    await Unlock(lock)


async def _change_pte(cpu: PerCpu, tlb: MmuGather, vpn: int, entry: int, flags: int, enable_wp: bool) -> None:
    old = entry
    while True:
        new = old & ~(RW if pte_present(old) else MIGRATION_WRITE) | UFFD_WP if enable_wp else old & ~UFFD_WP
        writable = cpu.parameters.uffd_gives_write_back and not enable_wp and pte_present(old)
        if writable and can_change_pte_writable(flags, new):
            await cpu.policy.mapped_writable(cpu, pte_pfn(old))
            new |= RW
        seen = await CmpxchgPte(tlb.mm, vpn, old, new)
        if seen == old:
            break
        # A walker has set a bit.
        old = seen
    if pte_needs_flush(old, new):
        tlb.adjust_range(vpn, 1, 1)
