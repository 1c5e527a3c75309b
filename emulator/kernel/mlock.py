"""Pages that stay in memory (mm/mlock.c, mm/gup.c: populate_vma_page_range, v6.6).

They are there at once, by faults that are no program's; nothing else is flushed for it.
"""

from __future__ import annotations

from emulator.hardware.operations import FindVma, GetPte, VmaProtect
from emulator.hardware.pte import RW, pte_present
from emulator.kernel.memory import handle_mm_fault
from emulator.kernel.mmap_lock import mmap_write_lock, mmap_write_unlock, vma_start_write
from emulator.kernel.percpu import PerCpu
from emulator.memory.page_table import VM_LOCKED, VM_SHARED, VM_WRITE, Vma


async def do_mlock(cpu: PerCpu, mm: int, start: int, end: int) -> bool:
    """do_mlock, mm_populate over pages [start, end); false (-ENOMEM) if a part is in no area.

    Nothing is flushed for it, but for what its faults replace: zero pages, and what fork shares.
    """
    whole = await _apply_vma_lock_flags(cpu, mm, start, end, VM_LOCKED)
    at = start
    while at < end and (found := await FindVma(mm, at)):
        vma = Vma(*found)
        # Private memory that may be written is made so now.
        write = vma.flags & (VM_WRITE | VM_SHARED) == VM_WRITE
        await populate_vma_page_range(cpu, mm, vma, at, min(vma.end, end), write)
        at = vma.end
    return whole


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


async def populate_vma_page_range(cpu: PerCpu, mm: int, vma: Vma, start: int, end: int, write: bool) -> None:
    """populate_vma_page_range of an area's pages [start, end): fault in what a read or a write would."""
    if not vma.accessible:
        return
    for vpn in range(start, end):
        while not pte_present(entry := await GetPte(mm, vpn)) or (write and not entry & RW):
            await handle_mm_fault(cpu, mm, vpn, write)
