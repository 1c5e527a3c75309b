"""msync(2), fsync(2) and clear_refs: entries lose their write permission or accessed bit; pages stay."""

from __future__ import annotations

from emulator.kernel.percpu import PerCpu
from emulator.kernel.task_mmu import CLEAR_REFS_ALL, CLEAR_REFS_SOFT_DIRTY, clear_refs_write
from emulator.kernel.writeback import filemap_write_and_wait_range
from scenarios.linux.areas import MM, Area, nothing, write_pages
from scenarios.linux.operation import Call


async def _sync(cpu: PerCpu, area: Area) -> None:
    await filemap_write_and_wait_range(cpu, area.file, 0, area.pages)


async def _clear_refs(cpu: PerCpu, area: Area) -> None:
    await clear_refs_write(cpu, MM, area.start - 1, area.end + 1, CLEAR_REFS_SOFT_DIRTY)


async def _clear_young(cpu: PerCpu, area: Area) -> None:
    await clear_refs_write(cpu, MM, area.start - 1, area.end + 1, CLEAR_REFS_ALL)


async def _write(cpu: PerCpu, area: Area) -> None:
    await write_pages(cpu, area)


MSYNC = Call("msync", _sync)
MSYNC_ASYNC = Call("msync_async", nothing)
FSYNC = Call("fsync", _sync)
SYNC_RANGE = Call("sync_range", _sync)
CLEAR_REFS = Call("clear_refs", _clear_refs)
CLEAR_YOUNG = Call("clear_young", _clear_young)
SOFT_DIRTY_WRITE = Call("soft_dirty_write", _write, _clear_refs)
