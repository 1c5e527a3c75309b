"""How an operation's memory looks: the areas that CPU 0 maps, and who reads or writes which pages.

As in the recordings the pages lie in page tables that other pages keep in use, so that no table is freed: the
first is no table's first, and both neighbours are written.
"""

from __future__ import annotations

from emulator.kernel.mmap import do_mmap
from emulator.kernel.percpu import PerCpu
from emulator.kernel.user import user_read, user_write
from emulator.memory.page_table import VM_READ, VM_SHARED, VM_WRITE

MM = 1
OTHER = 2  # runs on CPU 2 in configuration mix
CALLER = 3  # a process of its own that calls on behalf of MM
CHILD = 4
ELSEWHERE = 5  # runs on CPU 3 where an operation says so
FILE = 1

START = (1 << 18) + 16
"""The first page: 1 GiB and 16 pages."""


async def nothing(cpu: PerCpu, pages: int) -> None:
    """Neither maps nor touches anything."""


async def map_pages(
    cpu: PerCpu, start: int, pages: int, flags: int = VM_READ | VM_WRITE, file: int = 0
) -> None:
    """An area of the process that runs."""
    if not await do_mmap(cpu, cpu.current.mm, start, start + pages, flags, file):
        raise ValueError(f"pages {start:#x} to {start + pages - 1:#x} are mapped already")


async def write_pages(cpu: PerCpu, pages: int, start: int = START) -> None:
    """A thread writes to each page."""
    for vpn in range(start, start + pages):
        await user_write(cpu, vpn, cpu.new_version())


async def read_pages(cpu: PerCpu, pages: int, start: int = START) -> None:
    """A thread reads each page."""
    for vpn in range(start, start + pages):
        await user_read(cpu, vpn)


async def neighbours(cpu: PerCpu, pages: int) -> None:
    """What keeps the page tables in use."""
    for vpn in (START - 1, START + pages):
        await map_pages(cpu, vpn, 1)
        await write_pages(cpu, 1, vpn)


async def unpopulated(cpu: PerCpu, pages: int) -> None:
    """Anonymous memory that nobody has touched."""
    await neighbours(cpu, pages)
    await map_pages(cpu, START, pages)


async def anonymous(cpu: PerCpu, pages: int) -> None:
    """Anonymous memory, written."""
    await unpopulated(cpu, pages)
    await write_pages(cpu, pages)


async def anonymous_read(cpu: PerCpu, pages: int) -> None:
    """Anonymous memory that has only been read."""
    await unpopulated(cpu, pages)
    await read_pages(cpu, pages)


async def shared_file(cpu: PerCpu, pages: int) -> None:
    """A file, mapped shared and read."""
    await neighbours(cpu, pages)
    await map_pages(cpu, START, pages, VM_READ | VM_WRITE | VM_SHARED, FILE)
    await read_pages(cpu, pages)


async def private_file(cpu: PerCpu, pages: int) -> None:
    """A file, mapped privately and read."""
    await neighbours(cpu, pages)
    await map_pages(cpu, START, pages, file=FILE)
    await read_pages(cpu, pages)


async def written_file(cpu: PerCpu, pages: int) -> None:
    """A file, mapped shared and written through the mapping."""
    await shared_file(cpu, pages)
    await write_pages(cpu, pages)
