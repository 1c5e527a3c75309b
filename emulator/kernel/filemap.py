"""Writing to a file by a system call (mm/filemap.c, v6.6): the page cache changes, mappings do not."""

from __future__ import annotations

from emulator.hardware.operations import (
    FolioMapping,
    FolioPut,
    FolioSetFlag,
    Lock,
    Series,
    Unlock,
    WriteFrame,
)
from emulator.kernel.memory import filemap_fault
from emulator.kernel.percpu import INIT_MM, PerCpu, folio_lock
from emulator.memory.folios import PG_DIRTY


async def generic_perform_write(cpu: PerCpu, file: int, pgoff: int, value: int) -> None:
    """generic_perform_write of one page: `value` becomes its content version, for all who map it.

    A page that is not in the cache is read in first, as a part of it is kept. Between write_begin, which
    locks the folio, and write_end it is dirtied.
    """
    while True:
        pfn = await filemap_fault(cpu, file, pgoff)
        lock = folio_lock(file, pgoff)
        _, slot = await Series((Lock(lock), FolioMapping(pfn)))
        if slot == (file, pgoff):
            break
        await Series((Unlock(lock), FolioPut(pfn)))
    await cpu.policy.page_cache_changed(cpu, file)
    await WriteFrame(INIT_MM, pgoff, pfn, value)
    await Series((FolioSetFlag(pfn, PG_DIRTY), Unlock(lock), FolioPut(pfn)))
