"""Pages that stay in memory (mm/mlock.c, mm/gup.c: populate_vma_page_range, v6.6).

They are there at once, by faults that are no program's; nothing else is flushed for it.
"""

from __future__ import annotations

from emulator.hardware.operations import FindVma, GetPte, VmaProtect
from emulator.hardware.pte import RW, pte_present
from emulator.kernel.memory import BusError, handle_mm_fault
from emulator.kernel.mmap_lock import (
    mmap_read_lock,
    mmap_read_unlock,
    mmap_write_lock,
    mmap_write_unlock,
    vma_start_write,
)
from emulator.kernel.percpu import PerCpu
from emulator.memory.page_table import VM_LOCKED, VM_SHARED, VM_WRITE, Vma


async def do_mlock(cpu: PerCpu, mm: int, start: int, end: int) -> bool:
    """do_mlock over pages [start, end); false (-ENOMEM) if a part is in no area, and then none is faulted in.

    Nothing is flushed for it, but for what its faults replace: zero pages, and what fork shares.
    """
    whole = await _apply_vma_lock_flags(cpu, mm, start, end, VM_LOCKED)
    return whole and await mm_populate(cpu, mm, start, end)


async def mm_populate(cpu: PerCpu, mm: int, start: int, end: int) -> bool:
    """__mm_populate of pages [start, end): by who holds no lock, and under mmap_lock, also over its faults.

    With the area's lock alone nobody gets here, since v6.4 too. False at a page behind the end of a file.
    """
    await mmap_read_lock(mm)
    while start < end and (found := await FindVma(mm, start)):
        vma = Vma(*found)
        # Private memory that may be written is made so now.
        write = vma.flags & (VM_WRITE | VM_SHARED) == VM_WRITE
        try:
            start = await populate_vma_page_range(cpu, mm, vma, start, min(vma.end, end), write)
        except BusError:
            return False
    await mmap_read_unlock(mm)
    return True


async def do_munlock(cpu: PerCpu, mm: int, start: int, end: int) -> bool:
    """munlock over pages [start, end)."""
    return await _apply_vma_lock_flags(cpu, mm, start, end, 0)


async def _apply_vma_lock_flags(cpu: PerCpu, mm: int, start: int, end: int, flags: int) -> bool:
    await mmap_write_lock(mm)
    while start < end and (found := await FindVma(mm, start)):
        vma = Vma(*found)
        stop = min(vma.end, end)
        await vma_start_write(cpu, mm, start, stop)
        await VmaProtect(mm, start, stop, vma.flags & ~VM_LOCKED | flags)
        start = stop
    await mmap_write_unlock(cpu, mm)
    return start >= end


async def populate_vma_page_range(cpu: PerCpu, mm: int, vma: Vma, start: int, end: int, write: bool) -> int:
    """populate_vma_page_range of an area's pages [start, end): fault in what a read or a write would.

    The caller holds mmap_lock for reading. Answers where to go on: `end`, or an earlier page if the lock was
    given up and taken again, so that the area may be another by now.
    Raises BusError for a page behind the end of a file, without the lock.
    """
    if not vma.accessible:
        return end
    for vpn in range(start, end):
        while not pte_present(entry := await GetPte(mm, vpn)) or (write and not entry & RW):
            if not await handle_mm_fault(cpu, mm, vpn, write, mmap_locked=True):
                await mmap_read_lock(mm)
                return vpn
    return end
