"""Pages that a driver maps by their frames (VM_PFNMAP; mm/memory.c: unmap_mapping_range, v6.6).

The mapping holds no reference. A driver that wants a page back has it unmapped wherever its file is mapped,
and frees it: what is in no area of the file's list (i_mmap) any more must be in no TLB either.
"""

from __future__ import annotations

from collections.abc import Iterable

from emulator.hardware.operations import Load, Lock, Store, Unlock
from emulator.kernel.mmu_gather import zap_page_range_single
from emulator.kernel.percpu import PerCpu
from emulator.kernel.rmap import i_mmap_lock
from emulator.memory.page_table import VM_PFNMAP, VM_SHARED, Vma


def i_mmap_word(file: int, mm: int, start: int) -> str:
    """Whether the area that begins there is in the file's address_space->i_mmap; of drivers' areas only."""
    return f"i_mmap.{file}.{mm}.{start}"


async def unlink_file_vmas(mm: int, areas: Iterable[Vma]) -> None:
    """unlink_file_vma, from free_pgtables: from here on nobody finds these areas by their file."""
    for vma in areas:
        if vma.flags & VM_PFNMAP:
            await Lock(i_mmap_lock(vma.file))
            await Store(i_mmap_word(vma.file, mm, vma.start), 0)
            await Unlock(i_mmap_lock(vma.file))


async def revoke(cpu: PerCpu, file: int, mm: int, start: int) -> None:
    """unmap_mapping_range of a driver's page, mapped at `start`: when it returns, nobody reaches it there."""
    await Lock(i_mmap_lock(file))
    if await Load(i_mmap_word(file, mm, start)):
        vma = Vma(start, start + 1, VM_SHARED | VM_PFNMAP, file)
        await zap_page_range_single(cpu, mm, vma, start, start + 1)
    await Unlock(i_mmap_lock(file))
