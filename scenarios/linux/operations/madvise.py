"""madvise(2): pages given up now, or called free, cold, or to be reclaimed."""

from __future__ import annotations

from emulator.kernel.madvise import (
    Advice,
    do_madvise,
    madvise_cold,
    madvise_dontneed,
    madvise_free,
    madvise_pageout,
)
from emulator.kernel.percpu import PerCpu
from scenarios.linux.areas import (
    MM,
    START,
    anonymous_read,
    nothing,
    read_pages,
    shared_file,
    unpopulated,
    write_pages,
    written_file,
)
from scenarios.linux.operation import Operation, Step


def _advise(advice: Advice) -> Step:
    async def step(cpu: PerCpu, pages: int) -> None:
        await do_madvise(cpu, MM, START, START + pages, advice)

    return step


dontneed = _advise(madvise_dontneed)

DONTNEED = Operation("dontneed_N", dontneed)
DONTNEED_ZERO = Operation("dontneed_zero_N", dontneed, anonymous_read, read_pages)
DONTNEED_UNPOPULATED = Operation("dontneed_unpopulated_N", dontneed, unpopulated, nothing)
DONTNEED_FILE_CLEAN = Operation("dontneed_file_clean_N", dontneed, shared_file, read_pages)
DONTNEED_FILE_DIRTY = Operation("dontneed_file_dirty_N", dontneed, written_file, write_pages)
FREE = Operation("madv_free_N", _advise(madvise_free))
COLD = Operation("madv_cold_N", _advise(madvise_cold))
PAGEOUT_CLEAN = Operation("pageout_file_clean_N", _advise(madvise_pageout), shared_file, read_pages)
PAGEOUT_DIRTY = Operation("pageout_file_dirty_N", _advise(madvise_pageout), written_file, write_pages)
