"""UFFDIO_WRITEPROTECT of memory that is registered with userfaultfd."""

from __future__ import annotations

from emulator.kernel.percpu import PerCpu
from emulator.kernel.userfaultfd import mwriteprotect_range, userfaultfd_register
from scenarios.linux.areas import MM, START
from scenarios.linux.operation import Operation


async def _register(cpu: PerCpu, pages: int) -> None:
    await userfaultfd_register(cpu, MM, START, START + pages)


async def _protect(cpu: PerCpu, pages: int) -> None:
    await mwriteprotect_range(cpu, MM, START, START + pages, True)


async def _register_and_protect(cpu: PerCpu, pages: int) -> None:
    await _register(cpu, pages)
    await _protect(cpu, pages)


async def _resolve(cpu: PerCpu, pages: int) -> None:
    await mwriteprotect_range(cpu, MM, START, START + pages, False)


PROTECT = Operation("uffd_wp_N", _protect, prepare=_register)
RESOLVE = Operation("uffd_unwp_N", _resolve, prepare=_register_and_protect)
