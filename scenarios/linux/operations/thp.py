"""Operations on anonymous memory that one PMD maps."""

from __future__ import annotations

from emulator.hardware.operations import FindVma, FolioIsolateLru, FolioPutbackLru, GetPte
from emulator.hardware.pte import PMD_ORDER, pte_pfn
from emulator.kernel.fork import dup_mmap
from emulator.kernel.khugepaged import collapse_huge_page
from emulator.kernel.madvise import do_madvise, madvise_cold, madvise_free
from emulator.kernel.migrate import migrate_pages
from emulator.kernel.mmap import do_munmap
from emulator.kernel.mmu_gather import zap_page_range_single
from emulator.kernel.mprotect import PROT_READ, do_mprotect_pkey
from emulator.kernel.percpu import PerCpu
from emulator.kernel.user import user_write
from emulator.memory.page_table import Vma
from scenarios.linux.areas import CHILD, MM, map_pages, write_pages
from scenarios.linux.operation import Operation

HUGE = 1 << 18
SIZE = 1 << PMD_ORDER
THP = (("hpage_order", PMD_ORDER),)


async def _huge(cpu: PerCpu, pages: int) -> None:
    """Huge pages as many as the name says, and a small one behind them, in another PMD."""
    await map_pages(cpu, HUGE, pages * SIZE)
    await map_pages(cpu, HUGE + pages * SIZE, 1)
    await write_pages(cpu, 1, HUGE + pages * SIZE)
    await _write_huge(cpu, pages)


async def _write_huge(cpu: PerCpu, pages: int) -> None:
    for number in range(pages):
        await user_write(cpu, HUGE + number * SIZE, cpu.new_version())


async def _munmap(cpu: PerCpu, pages: int) -> None:
    await do_munmap(cpu, MM, HUGE, HUGE + pages * SIZE)


async def _munmap_part(cpu: PerCpu, pages: int) -> None:
    await do_munmap(cpu, MM, HUGE + 16, HUGE + 24)


async def _read_only(cpu: PerCpu, pages: int) -> None:
    await do_mprotect_pkey(cpu, MM, HUGE, HUGE + pages * SIZE, PROT_READ)


async def _dontneed(cpu: PerCpu, pages: int) -> None:
    area = Vma(*await FindVma(MM, HUGE))
    await zap_page_range_single(cpu, MM, area, HUGE, HUGE + pages * SIZE)


async def _read_only_part(cpu: PerCpu, pages: int) -> None:
    await do_mprotect_pkey(cpu, MM, HUGE + 16, HUGE + 24, PROT_READ)


async def _dontneed_part(cpu: PerCpu, pages: int) -> None:
    area = Vma(*await FindVma(MM, HUGE))
    await zap_page_range_single(cpu, MM, area, HUGE + 16, HUGE + 24)


async def _free(cpu: PerCpu, pages: int) -> None:
    await do_madvise(cpu, MM, HUGE, HUGE + pages * SIZE, madvise_free)


async def _cold(cpu: PerCpu, pages: int) -> None:
    await do_madvise(cpu, MM, HUGE, HUGE + pages * SIZE, madvise_cold)


async def _fork(cpu: PerCpu, pages: int) -> None:
    await dup_mmap(cpu, MM, CHILD, ((HUGE, HUGE + SIZE),))


async def _write_one(cpu: PerCpu, pages: int) -> None:
    await user_write(cpu, HUGE + 16, cpu.new_version())


async def _small(cpu: PerCpu, pages: int) -> None:
    """Small pages, because a page table was left where there had been a huge one."""
    await _huge(cpu, 1)
    area = Vma(*await FindVma(MM, HUGE))
    await zap_page_range_single(cpu, MM, area, HUGE, HUGE + 1)
    await zap_page_range_single(cpu, MM, area, HUGE + 1, HUGE + SIZE)
    await _write_small(cpu, pages)


async def _write_small(cpu: PerCpu, pages: int) -> None:
    await write_pages(cpu, SIZE, HUGE)


async def _collapse(cpu: PerCpu, pages: int) -> None:
    await collapse_huge_page(cpu, MM, HUGE)


async def _move(cpu: PerCpu, pages: int) -> None:
    folios = [pte_pfn(await GetPte(MM, HUGE + number * SIZE)) for number in range(pages)]
    isolated = [pfn for pfn in folios if await FolioIsolateLru(pfn)]
    _, failed = await migrate_pages(cpu, isolated, 1, "syscall")
    for pfn in failed:
        await FolioPutbackLru(pfn, False)


MUNMAP = Operation("thp_munmap", _munmap, _huge, _write_huge, settings=THP)
MUNMAP_PART = Operation("thp_munmap_part", _munmap_part, _huge, _write_huge, settings=THP)
MPROTECT_RO = Operation("thp_mprotect_ro", _read_only, _huge, _write_huge, settings=THP)
DONTNEED = Operation("thp_dontneed", _dontneed, _huge, _write_huge, settings=THP)
MPROTECT_PART = Operation("thp_mprotect_part", _read_only_part, _huge, _write_huge, settings=THP)
DONTNEED_PART = Operation("thp_dontneed_part", _dontneed_part, _huge, _write_huge, settings=THP)
COW_PARENT = Operation("thp_cow_parent", _write_one, _huge, _write_huge, prepare=_fork, settings=THP)
FREE = Operation("thp_madv_free", _free, _huge, _write_huge, settings=THP)
COLD = Operation("thp_madv_cold", _cold, _huge, _write_huge, settings=THP)
COLLAPSE = Operation("thp_collapse", _collapse, _small, _write_small, settings=THP)
MOVE = Operation("thp_move_N", _move, _huge, _write_huge, settings=THP)
