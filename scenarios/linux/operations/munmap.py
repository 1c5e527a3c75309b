"""munmap(2), mmap(2) with MAP_FIXED over what is there, brk(2) downwards, remap_file_pages(2)."""

from __future__ import annotations

from emulator.kernel.mlock import mm_populate
from emulator.kernel.mmap import do_munmap, mmap_region
from emulator.kernel.percpu import PerCpu
from emulator.kernel.writeback import filemap_write_and_wait_range
from emulator.memory.page_table import VM_SHARED
from scenarios.linux.areas import MM, READ_WRITE, Area, map_pages, nothing, write_pages
from scenarios.linux.operation import Call

HEAP = 5 << 30 - 12


async def _munmap(cpu: PerCpu, area: Area) -> None:
    await do_munmap(cpu, MM, area.start, area.end)


async def _mmap_fixed(cpu: PerCpu, area: Area) -> None:
    await mmap_region(cpu, MM, area.start, area.end, READ_WRITE)


async def _mmap_none(cpu: PerCpu, area: Area) -> None:
    await mmap_region(cpu, MM, area.start, area.end, 0)


async def _grow_heap(cpu: PerCpu, area: Area) -> None:
    heap = Area(HEAP, area.pages + 1)
    await map_pages(cpu, heap)
    await write_pages(cpu, heap)


async def _shrink_heap(cpu: PerCpu, area: Area) -> None:
    await do_munmap(cpu, MM, HEAP + 1, HEAP + 1 + area.pages)


async def _half(cpu: PerCpu, area: Area) -> None:
    await do_munmap(cpu, MM, area.start, area.start + area.pages // 2)


async def _remap_file_pages(cpu: PerCpu, area: Area) -> None:
    """The same pages of the file, in the same place, by a mapping of their own."""
    await mmap_region(cpu, MM, area.start, area.end, READ_WRITE | VM_SHARED, area.file)
    await mm_populate(cpu, MM, area.start, area.end)


async def _start_writing_out(cpu: PerCpu, area: Area) -> None:
    await filemap_write_and_wait_range(cpu, area.file, 0, area.pages)


NOTHING = Call("nothing", nothing)
MUNMAP = Call("munmap", _munmap)
HOLE = Call("munmap_hole", _munmap, _half)
MMAP_FIXED_SYNCED = Call("mmap_fixed_synced", _mmap_fixed, _start_writing_out)
MMAP_FIXED = Call("mmap_fixed", _mmap_fixed)
MMAP_NONE = Call("mmap_none", _mmap_none)
REMAP_FILE_PAGES = Call("remap_file_pages", _remap_file_pages)
BRK = Call("brk_shrink", _shrink_heap, _grow_heap)
