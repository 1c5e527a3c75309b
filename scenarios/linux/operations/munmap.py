"""munmap(2)."""

from __future__ import annotations

from emulator.kernel.mmap import do_munmap
from emulator.kernel.percpu import PerCpu
from scenarios.linux.areas import (
    MM,
    START,
    anonymous_read,
    map_pages,
    nothing,
    read_pages,
    shared_file,
    unpopulated,
    write_pages,
    written_file,
)
from scenarios.linux.operation import Operation

ALONE = 0x1001000
"""64 GiB and 16 MiB, in pages: there is nothing else in the same table of any level."""


async def munmap(cpu: PerCpu, pages: int) -> None:
    """All pages of the area."""
    await do_munmap(cpu, MM, START, START + pages)


async def _alone(cpu: PerCpu, pages: int) -> None:
    await map_pages(cpu, ALONE, pages)
    await write_pages(cpu, pages, ALONE)


async def _write_alone(cpu: PerCpu, pages: int) -> None:
    await write_pages(cpu, pages, ALONE)


async def _munmap_alone(cpu: PerCpu, pages: int) -> None:
    await do_munmap(cpu, MM, ALONE, ALONE + pages)


NOTHING = Operation("nothing", nothing)
MUNMAP = Operation("munmap_N", munmap)
UNPOPULATED = Operation("munmap_unpopulated_N", munmap, unpopulated, nothing)
TABLES = Operation("munmap_tables_N", _munmap_alone, _alone, _write_alone)
ZERO = Operation("munmap_zero_N", munmap, anonymous_read, read_pages)
FILE_CLEAN = Operation("munmap_file_clean_N", munmap, shared_file, read_pages)
TMPFS = Operation("munmap_tmpfs_N", munmap, written_file, write_pages)
FILE_DIRTY = Operation("munmap_file_dirty_N", munmap, written_file, write_pages)
