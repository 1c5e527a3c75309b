"""Collapse: small pages become a huge one, with one flush over its range, or stay as they are."""

from __future__ import annotations

from typing import Any

import pytest

from emulator.hardware.operations import FolioGet, FolioPut, GetPte, NrFree
from emulator.hardware.pte import PRESENT, RW, pte_huge, pte_pfn
from emulator.kernel import khugepaged
from emulator.kernel.fork import dup_mmap
from emulator.kernel.khugepaged import collapse_huge_page
from emulator.kernel.mmap import do_munmap
from emulator.kernel.mmu_gather import exit_mmap, zap_page_range_single
from emulator.kernel.percpu import PerCpu
from emulator.kernel.user import user_read, user_write
from tests.kernel.small_machine import AREAS, FILE, HEAP, SmallMachine, Thread, after, demote, mark

MM = 1
SIZE = 4


def machine(*threads: Thread, **settings: Any) -> SmallMachine:
    return SmallMachine(*threads, hpage_order=2, **settings)


async def written(cpu: PerCpu, *pages: int) -> None:
    """These pages of the heap's first four, small: a page table that was left keeps huge ones out."""
    await user_write(cpu, HEAP, 1)
    await zap_page_range_single(cpu, MM, AREAS[0], HEAP, HEAP + 1)
    await zap_page_range_single(cpu, MM, AREAS[0], HEAP + 1, HEAP + SIZE)
    for page in pages:
        await user_write(cpu, HEAP + page, 10 + page)


@pytest.mark.parametrize("pages", [(0, 1, 2, 3), (0, 3)])
def test_content_moves_and_the_small_pages_are_freed(pages: tuple[int, ...]) -> None:
    async def body(cpu: PerCpu) -> None:
        await written(cpu, *pages)
        free = await NrFree(0)
        flushed = cpu.counted("nr_tlb_local_flush_one")
        assert await collapse_huge_page(cpu, MM, HEAP)
        assert cpu.counted("nr_tlb_local_flush_one") == flushed + SIZE
        assert await NrFree(0) == free - SIZE + len(pages)
        entry = await GetPte(MM, HEAP)
        assert pte_huge(entry) and entry & RW
        for page in range(SIZE):
            assert await user_read(cpu, HEAP + page) == (10 + page if page in pages else 0)
        await user_write(cpu, HEAP + 1, 5)
        # It is one already.
        assert not await collapse_huge_page(cpu, MM, HEAP)
        # The whole of it is one entry for munmap, too.
        assert await do_munmap(cpu, MM, HEAP, HEAP + SIZE) == SIZE

    done = machine(Thread(0, body)).run()
    assert not done.violations
    assert done.vmstat("thp_collapse_alloc") == 1


def test_a_pinned_page_and_what_is_no_anonymous_memory_stay() -> None:
    async def body(cpu: PerCpu) -> None:
        await written(cpu, *range(SIZE))
        free = await NrFree(0)
        pinned = pte_pfn(await GetPte(MM, HEAP + 2))
        await FolioGet(pinned)
        assert not await collapse_huge_page(cpu, MM, HEAP)
        await FolioPut(pinned)
        assert await NrFree(0) == free
        for page in range(SIZE):
            assert await GetPte(MM, HEAP + page) & (PRESENT | RW) == PRESENT | RW
            assert await user_read(cpu, HEAP + page) == 10 + page
        await user_read(cpu, FILE)
        assert not await collapse_huge_page(cpu, MM, FILE)
        assert not await collapse_huge_page(cpu, MM, HEAP + 8)  # nothing there, not even a table

    assert not machine(Thread(0, body)).run().violations


def test_pages_that_a_child_maps_too_are_copied() -> None:
    async def body(cpu: PerCpu) -> None:
        await written(cpu, *range(SIZE))
        await dup_mmap(cpu, MM, 2, ((HEAP, HEAP + 16),))
        assert await collapse_huge_page(cpu, MM, HEAP)
        await user_write(cpu, HEAP, 99)
        old = await GetPte(2, HEAP)
        assert done.memory.folios.content[pte_pfn(old)] == 10
        await exit_mmap(cpu, 2, ((HEAP, HEAP + 16),))

    done = machine(Thread(0, body))
    assert not done.run().violations


@pytest.mark.parametrize("seed", range(20))
def test_it_races_with_writers_and_migrations(seed: int) -> None:
    async def collapses(cpu: PerCpu) -> None:
        await written(cpu, *range(SIZE))
        await mark("written")
        for _ in range(3):
            await collapse_huge_page(cpu, MM, HEAP)

    async def writes(cpu: PerCpu) -> None:
        await after("written")
        for number in range(8):
            version = cpu.new_version()
            await user_write(cpu, HEAP + number % SIZE, version)
            assert await user_read(cpu, HEAP + number % SIZE) == version

    async def moves(cpu: PerCpu) -> None:
        await after("written")
        for page in range(SIZE):
            await demote(cpu, HEAP + page)

    done = machine(Thread(0, collapses), Thread(1, writes), Thread(2, moves), cpus=3).run(seed)
    assert not done.violations


def test_without_the_flush_a_write_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """pmdp_collapse_flush left out: a CPU goes on writing to a page that has been copied."""

    async def nothing(*arguments: Any) -> None:
        return None

    monkeypatch.setattr(khugepaged, "flush_tlb_range", nothing)

    async def collapses(cpu: PerCpu) -> None:
        await written(cpu, *range(SIZE))
        await mark("written")
        await after("cached")
        assert await collapse_huge_page(cpu, MM, HEAP)
        await mark("collapsed")

    async def writes(cpu: PerCpu) -> None:
        await after("written")
        await user_write(cpu, HEAP, 5)
        await mark("cached")
        await after("collapsed")
        await user_write(cpu, HEAP, 6)

    assert machine(Thread(0, collapses), Thread(1, writes)).run().violations
