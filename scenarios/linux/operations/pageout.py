"""MADV_PAGEOUT of a file's pages: reclaim of the folios behind them."""

from __future__ import annotations

from emulator.hardware.operations import FolioIsolateLru, FolioPutbackLru, GetPte
from emulator.hardware.pte import pte_pfn
from emulator.kernel.pageout import shrink_file_folios
from emulator.kernel.percpu import PerCpu
from scenarios.linux.areas import MM, START, read_pages, shared_file, write_pages, written_file
from scenarios.linux.operation import Operation


async def _pageout(cpu: PerCpu, pages: int) -> None:
    folios = []
    for vpn in range(START, START + pages):
        pfn = pte_pfn(await GetPte(MM, vpn))
        if await FolioIsolateLru(pfn):
            folios.append(pfn)
    for pfn in await shrink_file_folios(cpu, folios):
        await FolioPutbackLru(pfn, False)


FILE_CLEAN = Operation("pageout_file_clean_N", _pageout, shared_file, read_pages)
FILE_DIRTY = Operation("pageout_file_dirty_N", _pageout, written_file, write_pages)
