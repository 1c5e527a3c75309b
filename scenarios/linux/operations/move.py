"""move_pages(2) and mbind(2) to node 1."""

from __future__ import annotations

from emulator.hardware.operations import FolioIsolateLru, FolioPutbackLru, MappedRange
from emulator.hardware.pte import PMD_ORDER, ZERO_PFN, pte_pages, pte_pfn, pte_present
from emulator.kernel.migrate import migrate_pages
from emulator.kernel.percpu import PerCpu
from scenarios.linux.areas import CALLER, MM, Area
from scenarios.linux.operation import Call

NODE = 1


async def move_pages(cpu: PerCpu, area: Area) -> None:
    """do_pages_move: the folios behind these pages, in one list for each run of pages that are there."""
    folios: list[int] = []
    at = area.start
    for vpn, entry in await MappedRange(MM, area.start, area.end):
        if vpn > at or not await _queue(entry, folios):
            await _migrate(cpu, folios)
            folios = []
            if vpn > at:
                await _queue(entry, folios)
        at = vpn + pte_pages(entry, PMD_ORDER)
    await _migrate(cpu, folios)


async def _mbind(cpu: PerCpu, area: Area) -> None:
    """queue_pages_range and migrate_pages: all in one list."""
    folios: list[int] = []
    for _, entry in await MappedRange(MM, area.start, area.end):
        await _queue(entry, folios)
    await _migrate(cpu, folios)


async def _queue(entry: int, folios: list[int]) -> bool:
    """add_page_for_migration."""
    pfn = pte_pfn(entry)
    there = pte_present(entry) and pfn != ZERO_PFN and await FolioIsolateLru(pfn)
    if there:
        folios.append(pfn)
    return there


async def _migrate(cpu: PerCpu, folios: list[int]) -> None:
    _, failed = await migrate_pages(cpu, folios, NODE, "syscall")
    for pfn in failed:
        await FolioPutbackLru(pfn, False)


MOVE = Call("move", move_pages)
MBIND = Call("mbind", _mbind)
REMOTE = Call("move_remote", move_pages, caller=CALLER)
