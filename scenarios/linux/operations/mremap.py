"""mremap(2) to an address in other page tables."""

from __future__ import annotations

from emulator.kernel.madvise import do_madvise, madvise_pageout
from emulator.kernel.mmap import do_munmap
from emulator.kernel.mremap import mremap_to
from emulator.kernel.percpu import PerCpu
from scenarios.linux.areas import ELSEWHERE, GIB, MM, Area
from scenarios.linux.operation import Call


async def mremap(cpu: PerCpu, area: Area) -> None:
    """To other page tables."""
    await mremap_to(cpu, MM, area.start, ELSEWHERE, area.pages)


async def _aligned(cpu: PerCpu, area: Area) -> None:
    await mremap_to(cpu, MM, area.start, 2 * GIB, area.pages)


async def _dont_unmap(cpu: PerCpu, area: Area) -> None:
    await mremap_to(cpu, MM, area.start, ELSEWHERE, area.pages, dontunmap=True)


async def _shrink(cpu: PerCpu, area: Area) -> None:
    await do_munmap(cpu, MM, area.start + area.pages // 2, area.end)


async def _move_and_shrink(cpu: PerCpu, area: Area) -> None:
    await mremap_to(cpu, MM, area.start, ELSEWHERE, area.pages, area.pages // 2)


async def _move_and_grow(cpu: PerCpu, area: Area) -> None:
    await mremap_to(cpu, MM, area.start, ELSEWHERE, area.pages, area.pages * 2)


async def _part_swapped(cpu: PerCpu, area: Area) -> None:
    """8 pages of the first huge one, which is split for it."""
    await do_madvise(cpu, MM, area.start + 16, area.start + 24, madvise_pageout)


MIXED = Call("mremap_mixed", _aligned, _part_swapped, settings=(("swap", True),))
MREMAP = Call("mremap", mremap)
ALIGNED = Call("mremap_aligned", _aligned)
DONTUNMAP = Call("mremap_dontunmap", _dont_unmap)
SHRINK = Call("mremap_shrink", _shrink)
MOVE_SHRINK = Call("mremap_move_shrink", _move_and_shrink)
MOVE_GROW = Call("mremap_move_grow", _move_and_grow)
