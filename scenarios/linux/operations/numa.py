"""NUMA balancing: the scanner makes pages PROT_NONE, a fault on one gives it back."""

from __future__ import annotations

from emulator.kernel.mprotect import change_prot_numa
from emulator.kernel.percpu import PerCpu
from scenarios.linux.areas import MM, Area, read_pages, write_pages
from scenarios.linux.operation import Call

_NORMAL = (("numa_balancing_normal", True), ("numa_promotes", False))


async def _scan(cpu: PerCpu, area: Area) -> None:
    await change_prot_numa(cpu, MM, area.start, area.end)


async def _read(cpu: PerCpu, area: Area) -> None:
    await read_pages(cpu, area)


async def _write(cpu: PerCpu, area: Area) -> None:
    await write_pages(cpu, area)


# Which of the threads that run has its tick first is chance.
SCAN = Call("numa_scan", _scan, by_any=True, settings=_NORMAL)
HINT_READ = Call("numa_hint_read", _read, _scan, settings=_NORMAL)
HINT_WRITE = Call("numa_hint_write", _write, _scan, settings=_NORMAL)
