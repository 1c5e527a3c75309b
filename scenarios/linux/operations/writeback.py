"""msync(2) and clear_refs: entries lose their write permission or accessed bit, and their pages stay."""

from __future__ import annotations

from emulator.kernel.percpu import PerCpu
from emulator.kernel.task_mmu import CLEAR_REFS_ALL, CLEAR_REFS_SOFT_DIRTY, clear_refs_write
from emulator.kernel.writeback import filemap_write_and_wait_range
from scenarios.linux.areas import FILE, MM, START, write_pages, written_file
from scenarios.linux.operation import Operation


async def _msync(cpu: PerCpu, pages: int) -> None:
    await filemap_write_and_wait_range(cpu, FILE, 0, pages)


async def _clear_refs(cpu: PerCpu, pages: int) -> None:
    await clear_refs_write(cpu, MM, START - 1, START + pages + 1, CLEAR_REFS_SOFT_DIRTY)


async def _clear_young(cpu: PerCpu, pages: int) -> None:
    await clear_refs_write(cpu, MM, START - 1, START + pages + 1, CLEAR_REFS_ALL)


MSYNC = Operation("msync_N", _msync, written_file, write_pages)
CLEAR_REFS = Operation("clear_refs_N", _clear_refs)
CLEAR_YOUNG = Operation("clear_young_N", _clear_young)
