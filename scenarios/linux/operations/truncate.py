"""ftruncate(2) and FALLOC_FL_PUNCH_HOLE on a file that is mapped shared, and on a private mapping of one."""

from __future__ import annotations

from emulator.kernel.percpu import PerCpu
from emulator.kernel.truncate import truncate_pagecache, truncate_pagecache_range
from scenarios.linux.areas import (
    FILE,
    MM,
    START,
    private_file,
    read_pages,
    shared_file,
    write_pages,
    written_file,
)
from scenarios.linux.operation import Operation

I_MMAP = ((MM, START),)


async def _truncate(cpu: PerCpu, pages: int) -> None:
    await truncate_pagecache(cpu, FILE, I_MMAP, 0, pages)


async def _punch_hole(cpu: PerCpu, pages: int) -> None:
    await truncate_pagecache_range(cpu, FILE, I_MMAP, 0, pages)


async def _private_copies(cpu: PerCpu, pages: int) -> None:
    await private_file(cpu, pages)
    await write_pages(cpu, pages)


CLEAN = Operation("truncate_clean_N", _truncate, shared_file, read_pages)
DIRTY = Operation("truncate_dirty_N", _truncate, written_file, write_pages)
TMPFS = Operation("truncate_tmpfs_N", _truncate, written_file, write_pages)
PRIVATE = Operation("truncate_private_N", _truncate, _private_copies, write_pages)
HOLE_CLEAN = Operation("punch_clean_N", _punch_hole, shared_file, read_pages)
HOLE_DIRTY = Operation("punch_dirty_N", _punch_hole, written_file, write_pages)
HOLE_TMPFS = Operation("punch_tmpfs_N", _punch_hole, written_file, write_pages)
