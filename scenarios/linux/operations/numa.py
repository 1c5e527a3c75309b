"""NUMA balancing: the scanner makes pages PROT_NONE, a fault on one gives it back."""

from __future__ import annotations

from emulator.kernel.mprotect import PROT_READ, change_prot_numa, do_mprotect_pkey
from emulator.kernel.percpu import PerCpu
from scenarios.linux.areas import MM, START, anonymous, read_pages, shared_file, write_pages
from scenarios.linux.operation import Operation
from scenarios.linux.operations.move import move_pages

NOT_PROMOTED = (("numa_promotes", False),)


async def _on_node_1(cpu: PerCpu, pages: int) -> None:
    """What the scanner marks here: with memory tiering only pages outside the top tier."""
    await anonymous(cpu, pages)
    await _move(cpu, pages)


async def _move(cpu: PerCpu, pages: int) -> None:
    await move_pages(cpu, pages)
    await write_pages(cpu, pages)
    # The flush that moving leaves to the next who looks is done here: nobody moved them in the recording.
    await do_mprotect_pkey(cpu, MM, START - 1, START, PROT_READ)


async def _shared_on_node_1(cpu: PerCpu, pages: int) -> None:
    await shared_file(cpu, pages)
    await write_pages(cpu, pages)
    await _move(cpu, pages)


async def _scan(cpu: PerCpu, pages: int) -> None:
    await change_prot_numa(cpu, MM, START, START + pages)


SCAN = Operation("numa_scan_N", _scan, _on_node_1, settings=NOT_PROMOTED)
HINT_READ = Operation("numa_hint_read_N", read_pages, _on_node_1, prepare=_scan, settings=NOT_PROMOTED)
HINT_WRITE = Operation("numa_hint_write_N", write_pages, _on_node_1, prepare=_scan, settings=NOT_PROMOTED)
HINT_SHARED_WRITE = Operation(
    "numa_hint_sharedw_N", write_pages, _shared_on_node_1, prepare=_scan, settings=NOT_PROMOTED
)
