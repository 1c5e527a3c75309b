"""UFFDIO_WRITEPROTECT of memory that is registered with userfaultfd, its end, and missing pages."""

from __future__ import annotations

from emulator.kernel.percpu import PerCpu
from emulator.kernel.userfaultfd import (
    mfill_atomic,
    mwriteprotect_range,
    userfaultfd_register,
    userfaultfd_unregister,
)
from scenarios.linux.areas import ELSEWHERE, MM, Area, map_pages, write_pages
from scenarios.linux.operation import Call


async def _register(cpu: PerCpu, area: Area) -> None:
    await userfaultfd_register(cpu, MM, area.start, area.end)


async def _protect(cpu: PerCpu, area: Area) -> None:
    await mwriteprotect_range(cpu, MM, area.start, area.end, True)


async def _register_and_protect(cpu: PerCpu, area: Area) -> None:
    await _register(cpu, area)
    await _protect(cpu, area)


async def _resolve(cpu: PerCpu, area: Area) -> None:
    await mwriteprotect_range(cpu, MM, area.start, area.end, False)


async def _unregister(cpu: PerCpu, area: Area) -> None:
    await userfaultfd_unregister(cpu, MM, area.start, area.end)


async def _source(cpu: PerCpu, area: Area) -> None:
    """What is to be copied."""
    source = Area(ELSEWHERE, area.pages)
    await map_pages(cpu, source)
    await write_pages(cpu, source)


async def _copy(cpu: PerCpu, area: Area) -> None:
    await mfill_atomic(cpu, MM, area.start, area.end, ELSEWHERE)


async def _zero(cpu: PerCpu, area: Area) -> None:
    await mfill_atomic(cpu, MM, area.start, area.end, None)


COPY = Call("uffd_copy", _copy, _source)
ZEROPAGE = Call("uffd_zeropage", _zero)
PROTECT = Call("uffd_wp", _protect, _register)
RESOLVE = Call("uffd_unwp", _resolve, _register_and_protect)
UNREGISTER = Call("uffd_unregister", _unregister, _register_and_protect)
