"""Mapping and unmapping ranges of an address space (mm/mmap.c, v6.6).

The area changes first, the entries follow: a fault that comes later waits, finds no area and is refused.
"""

from __future__ import annotations

from emulator.hardware.operations import VmaInsert, VmaRemove
from emulator.kernel.huge_memory import split_huge_pmd_if_needed
from emulator.kernel.mmap_lock import (
    mmap_read_unlock,
    mmap_write_downgrade,
    mmap_write_lock,
    mmap_write_unlock,
    vma_start_write,
)
from emulator.kernel.mmu_gather import free_pgtables, tlb_finish_mmu, tlb_gather_mmu, unmap_vmas
from emulator.kernel.percpu import PerCpu
from emulator.kernel.pfnmap import unlink_file_vmas
from emulator.kernel.policy import MMAP, MUNMAP
from emulator.kernel.tlb import flush_tlb_mm_range
from emulator.memory.page_table import Vma


async def do_mmap(
    cpu: PerCpu, mm: int, start: int, end: int, flags: int, file: int = 0, pgoff: int = 0
) -> bool:
    """do_mmap with MAP_FIXED_NOREPLACE: an area over pages [start, end); false if there is one already.

    `flags` are VM_*; `file` 0 is anonymous, of another one the area shows pages from `pgoff` on. Pages come
    with the first fault on each.
    """
    await mmap_write_lock(mm)
    await cpu.policy.area_changing(cpu, mm, start, end, flags)
    if cpu.mmu.frees_lazily and await cpu.mmu.range_is_kept(cpu, mm, start, end):
        await mmap_write_unlock(cpu, mm)
        return False
    inserted = await VmaInsert(mm, start, end, flags, file, pgoff)
    if inserted:
        await cpu.policy.area_changed(cpu, mm, start, end, MMAP)
    await mmap_write_unlock(cpu, mm)
    return inserted


async def mmap_region(
    cpu: PerCpu, mm: int, start: int, end: int, flags: int, file: int = 0, pgoff: int = 0
) -> int:
    """mmap_region, as for MAP_FIXED: an area over pages [start, end) in place of what is there.

    Returns how many pages were mapped before.
    """
    await mmap_write_lock(mm)
    await cpu.policy.area_changing(cpu, mm, start, end, flags)
    freed = await do_vmi_munmap(cpu, mm, start, end)
    if cpu.mmu.frees_lazily and await cpu.mmu.range_is_kept(cpu, mm, start, end):
        await flush_tlb_mm_range(cpu, mm, start, end)
    await VmaInsert(mm, start, end, flags, file, pgoff)
    await cpu.policy.area_changed(cpu, mm, start, end, MMAP)
    await mmap_write_unlock(cpu, mm)
    return freed


async def do_munmap(cpu: PerCpu, mm: int, start: int, end: int) -> int:
    """munmap, and what brk and mremap take away at an end: give up pages [start, end); how many of them were
    mapped."""
    await mmap_write_lock(mm)
    return await do_vmi_munmap(cpu, mm, start, end, True)


async def do_vmi_munmap(cpu: PerCpu, mm: int, start: int, end: int, unlock: bool = False) -> int:
    """do_vmi_munmap, do_vmi_align_munmap, unmap_region: as do_munmap, with mmap_lock held for writing.

    It is held until the frames are back, so that no new area takes the range over before. Who wants it to be
    given up (`unlock`) reads under it only, once the areas have gone: others may do so then, too,
    and an mmu may put its flush off. (Before v6.5 not beside a stack that grows towards the range.)
    """
    # __split_vma
    await split_huge_pmd_if_needed(cpu, mm, start)
    await split_huge_pmd_if_needed(cpu, mm, end)
    await vma_start_write(cpu, mm, start, end)
    areas = [Vma(*area) for area in await VmaRemove(mm, start, end)]
    if not areas:
        if unlock:
            await mmap_write_unlock(cpu, mm)
        return 0
    if unlock:
        await mmap_write_downgrade(cpu, mm)
    tlb = await tlb_gather_mmu(mm, lazily=unlock)
    freed = await unmap_vmas(cpu, tlb, areas)
    await unlink_file_vmas(mm, areas)
    await free_pgtables(cpu, tlb, areas[0].start, areas[-1].end)
    await tlb_finish_mmu(cpu, tlb)
    if tlb.put_off:
        await cpu.mmu.keep_range(cpu, mm, areas[0].start, areas[-1].end)
    await cpu.policy.area_changed(cpu, mm, start, end, MUNMAP)
    if unlock:
        await mmap_read_unlock(mm)
    return freed
