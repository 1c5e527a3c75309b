"""madvise(2): pages given up now, called free, cold, or to be reclaimed; populated, collapsed, swapped."""

from __future__ import annotations

from emulator.kernel.khugepaged import madvise_collapse
from emulator.kernel.madvise import (
    Advice,
    do_madvise,
    madvise_cold,
    madvise_dontneed,
    madvise_dontneed_locked,
    madvise_free,
    madvise_pageout,
    madvise_populate_read,
    madvise_populate_write,
    madvise_willneed,
)
from emulator.kernel.memory import try_to_unuse
from emulator.kernel.mmap import do_munmap
from emulator.kernel.percpu import PerCpu
from scenarios.linux.areas import CALLER, MM, Area, Step, read_only, read_pages, write_pages
from scenarios.linux.operation import Call
from scenarios.linux.operations.mprotect import lock
from scenarios.linux.operations.mremap import mremap


def _advise(advice: Advice) -> Step:
    async def step(cpu: PerCpu, area: Area) -> None:
        await do_madvise(cpu, MM, area.start, area.end, advice)

    return step


async def _collapse(cpu: PerCpu, area: Area) -> None:
    await madvise_collapse(cpu, MM, area.start, area.end)


async def _pageout(cpu: PerCpu, area: Area) -> None:
    await do_madvise(cpu, MM, area.start, area.end, madvise_pageout)


async def _read(cpu: PerCpu, area: Area) -> None:
    await read_pages(cpu, area)


async def _munmap(cpu: PerCpu, area: Area) -> None:
    await do_munmap(cpu, MM, area.start, area.end)


async def _write(cpu: PerCpu, area: Area) -> None:
    await write_pages(cpu, area)


async def _swap_off(cpu: PerCpu, area: Area) -> None:
    await try_to_unuse(cpu, MM, area.start, area.end)


_SWAP = (("swap", True),)

DONTNEED = Call("dontneed", _advise(madvise_dontneed))
DONTNEED_LOCKED = Call("dontneed_locked", _advise(madvise_dontneed_locked), lock)
FREE = Call("madv_free", _advise(madvise_free))
COLD = Call("madv_cold", _advise(madvise_cold))
PAGEOUT = Call("pageout", _advise(madvise_pageout))
COLD_REMOTE = Call("cold_remote", _advise(madvise_cold), caller=CALLER)
PAGEOUT_REMOTE = Call("pageout_remote", _advise(madvise_pageout), caller=CALLER)
WILLNEED = Call("willneed", _advise(madvise_willneed))
POPULATE_READ = Call("populate_read", _advise(madvise_populate_read))
POPULATE_WRITE = Call("populate_write", _advise(madvise_populate_write))
COLLAPSE = Call("collapse", _collapse)
SWAPOUT = Call("swapout", _pageout, settings=_SWAP)
SWAPIN = Call("swapin", _read, _pageout, settings=_SWAP)
SWAPPED_MUNMAP = Call("swapped_munmap", _munmap, _pageout, settings=_SWAP)
SWAPPED_DONTNEED = Call("swapped_dontneed", _advise(madvise_dontneed), _pageout, settings=_SWAP)
SWAPPED_WRITE = Call("swapped_write", _write, _pageout, settings=_SWAP)
SWAPPED_MREMAP = Call("swapped_mremap", mremap, _pageout, settings=_SWAP)
SWAPPED_OFF = Call("swapped_off", _swap_off, _pageout, settings=_SWAP)
SWAPPED_RO = Call("swapped_ro", read_only, _pageout, settings=_SWAP)
