"""move_pages(2) and mbind(2) to node 1."""

from __future__ import annotations

from emulator.hardware.operations import FolioIsolateLru, FolioPutbackLru, GetPte
from emulator.hardware.pte import pte_pfn
from emulator.kernel.migrate import migrate_pages
from emulator.kernel.percpu import PerCpu
from emulator.memory.page_table import VM_READ, VM_SHARED, VM_WRITE
from scenarios.linux.areas import (
    CALLER,
    FILE,
    MM,
    START,
    map_pages,
    neighbours,
    write_pages,
)
from scenarios.linux.operation import Operation
from scenarios.linux.operations.madvise import dontneed
from scenarios.linux.operations.mprotect import inaccessible, read_only
from scenarios.linux.operations.munmap import munmap

NODE = 1
OTHERS = START + 0x400
MOVED_BEFORE = 32


async def move_pages(cpu: PerCpu, pages: int, start: int = START) -> None:
    """do_pages_move: the folios behind these pages go in one list."""
    folios = []
    for vpn in range(start, start + pages):
        pfn = pte_pfn(await GetPte(MM, vpn))
        if await FolioIsolateLru(pfn):
            folios.append(pfn)
    _, failed = await migrate_pages(cpu, folios, NODE, "syscall")
    for pfn in failed:
        await FolioPutbackLru(pfn, False)


async def _with_others(cpu: PerCpu, pages: int) -> None:
    """The area, and 32 pages of another."""
    await neighbours(cpu, pages)
    await map_pages(cpu, START, pages)
    await write_pages(cpu, pages)
    await map_pages(cpu, OTHERS, MOVED_BEFORE)
    await write_pages(cpu, MOVED_BEFORE, OTHERS)


async def _write_both(cpu: PerCpu, pages: int) -> None:
    await write_pages(cpu, pages)
    await write_pages(cpu, MOVED_BEFORE, OTHERS)


async def _move_others(cpu: PerCpu, pages: int) -> None:
    await move_pages(cpu, MOVED_BEFORE, OTHERS)


async def _shared(cpu: PerCpu, pages: int) -> None:
    await map_pages(cpu, START, pages, VM_READ | VM_WRITE | VM_SHARED, FILE)
    await write_pages(cpu, pages)


MOVE = Operation("move_N", move_pages)
MBIND = Operation("mbind_N", move_pages)
REMOTE = Operation("move_remote_N", move_pages, caller=CALLER)
RO = Operation("move_ro_N", move_pages, prepare=read_only)
NONE = Operation("move_none_N", move_pages, prepare=inaccessible)
SHARED = Operation("move_shared_N", move_pages, _shared, elsewhere=_shared)
THEN_RO = Operation("moved_then_ro_N", read_only, _with_others, _write_both, _move_others)
THEN_NONE = Operation("moved_then_none_N", inaccessible, _with_others, _write_both, _move_others)
THEN_MUNMAP = Operation("moved_then_munmap_N", munmap, _with_others, _write_both, _move_others)
THEN_DONTNEED = Operation("moved_then_dontneed_N", dontneed, _with_others, _write_both, _move_others)
THEN_WRITE = Operation("moved_then_write_N", write_pages, _with_others, _write_both, _move_others)
