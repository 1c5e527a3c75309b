"""mremap(2) to an address in other page tables, and mmap(2) with MAP_FIXED over what is there."""

from __future__ import annotations

from emulator.hardware.pte import PMD_ORDER
from emulator.kernel.mmap import mmap_region
from emulator.kernel.mremap import mremap_to
from emulator.kernel.percpu import PerCpu
from emulator.memory.page_table import VM_READ, VM_WRITE
from scenarios.linux.areas import MM, START
from scenarios.linux.operation import Operation

AWAY = START + (1 << PMD_ORDER + 2)


async def _mremap(cpu: PerCpu, pages: int) -> None:
    await mremap_to(cpu, MM, START, AWAY, pages)


async def _mmap_fixed(cpu: PerCpu, pages: int) -> None:
    await mmap_region(cpu, MM, START, START + pages, VM_READ | VM_WRITE)


MREMAP = Operation("mremap_N", _mremap)
MMAP_FIXED = Operation("mmap_fixed_N", _mmap_fixed)
