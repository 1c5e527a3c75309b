"""ftruncate(2), pwrite(2), and holes that fallocate(2) makes, in a file mapped from its first page on."""

from __future__ import annotations

from emulator.kernel.filemap import ext4_buffered_write_iter
from emulator.kernel.percpu import PerCpu
from emulator.kernel.truncate import (
    ext4_block_truncate_page,
    ext4_punch_hole,
    truncate_pagecache,
    truncate_pagecache_range,
)
from scenarios.linux.areas import Area
from scenarios.linux.operation import Call


async def _truncate(cpu: PerCpu, area: Area) -> None:
    await truncate_pagecache(cpu, area.file, area.i_mmap, 0, area.pages)


async def _truncate_half(cpu: PerCpu, area: Area) -> None:
    await truncate_pagecache(cpu, area.file, area.i_mmap, area.pages // 2, area.pages)


async def _punch_hole(cpu: PerCpu, area: Area) -> None:
    await ext4_punch_hole(cpu, area.file, area.i_mmap, 0, area.pages)


async def _zero_range(cpu: PerCpu, area: Area) -> None:
    await truncate_pagecache_range(cpu, area.file, area.i_mmap, 0, area.pages)


async def _punch_half(cpu: PerCpu, area: Area) -> None:
    first = area.pages // 4
    await ext4_punch_hole(cpu, area.file, area.i_mmap, first, first + area.pages // 2)


async def _inside(cpu: PerCpu, area: Area) -> None:
    """The last page stays, and what is behind the end in it is cleared."""
    await truncate_pagecache(cpu, area.file, area.i_mmap, area.pages, area.pages, cut=True)
    if area.file > 0:
        await ext4_block_truncate_page(cpu, area.file, area.pages - 1)


async def _write(cpu: PerCpu, area: Area) -> None:
    """pwrite(2) of all pages."""
    for pgoff in range(area.pages):
        await ext4_buffered_write_iter(cpu, area.file, pgoff, cpu.new_version())


TRUNCATE_INSIDE = Call("truncate_inside", _inside)
PWRITE = Call("pwrite", _write)
TRUNCATE = Call("truncate", _truncate)
TRUNCATE_HALF = Call("truncate_half", _truncate_half)
PUNCH = Call("punch", _punch_hole)
PUNCH_HALF = Call("punch_half", _punch_half)
ZERO_RANGE = Call("zero_range", _zero_range)
MADV_REMOVE = Call("madv_remove", _punch_hole)
