"""madvise: what each advice leaves mapped, what it flushes, and what is lost when memory is short."""

from __future__ import annotations

import random

import pytest

from emulator.hardware.operations import FolioIsolateLru, FolioPutbackLru, FolioTestFlag, GetPte
from emulator.hardware.pte import ACCESSED, DIRTY, RW, pte_pfn
from emulator.kernel.madvise import (
    do_madvise,
    madvise_cold,
    madvise_dontneed,
    madvise_free,
    madvise_pageout,
)
from emulator.kernel.pageout import shrink_file_folios
from emulator.kernel.percpu import PerCpu
from emulator.kernel.sched import cond_resched
from emulator.kernel.user import user_read, user_write
from emulator.memory.folios import PG_DIRTY
from emulator.policies.catalogue import POLICIES
from tests.kernel.small_machine import HEAP, PAGES, SHARED, Body, SmallMachine, Thread, after, mark, move

ALL_POLICIES = pytest.mark.parametrize("policy", POLICIES)


async def bystander(cpu: PerCpu) -> None:
    await user_read(cpu, HEAP + 9)
    await mark("there")
    await after("done")


def beside(body: Body) -> Body:
    """The program, once another CPU runs the same address space, which stays until it is through."""

    async def placed(cpu: PerCpu) -> None:
        await after("there")
        await body(cpu)
        await mark("done")

    return placed


def flushes(cpu: PerCpu) -> int:
    return cpu.counted("nr_tlb_remote_flush")


async def reclaim(cpu: PerCpu, vpn: int) -> bool:
    """Whether the page's frame was freed."""
    pfn = pte_pfn(await GetPte(1, vpn))
    if not await FolioIsolateLru(pfn):
        return False
    kept = await shrink_file_folios(cpu, [pfn])
    for folio in kept:
        await FolioPutbackLru(folio, False)
    return not kept


@ALL_POLICIES
def test_dontneed_frees_pages_at_once_and_leaves_the_area(policy: str) -> None:
    @beside
    async def body(cpu: PerCpu) -> None:
        for page in range(4):
            await user_write(cpu, HEAP + page, page + 7)
        free, before = machine.memory.folios.zones[0].nr_free, flushes(cpu)
        assert await do_madvise(cpu, 1, HEAP, HEAP + 3, madvise_dontneed)
        assert machine.memory.folios.zones[0].nr_free == free + 3 and flushes(cpu) == before + 1
        assert [await user_read(cpu, HEAP + page) for page in range(4)] == [0, 0, 0, 10]

    machine = SmallMachine(Thread(0, body), Thread(1, bystander), policy=POLICIES[policy])
    assert not machine.run().violations


def test_a_part_without_an_area_is_told_and_the_rest_is_done() -> None:
    async def body(cpu: PerCpu) -> None:
        await user_write(cpu, HEAP + PAGES - 1, 7)
        assert not await do_madvise(cpu, 1, HEAP + PAGES - 1, HEAP + PAGES + 1, madvise_dontneed)
        assert await user_read(cpu, HEAP + PAGES - 1) == 0

    assert not SmallMachine(Thread(0, body)).run().violations


@ALL_POLICIES
def test_free_clears_bits_and_reclaim_takes_what_was_not_written_since(policy: str) -> None:
    @beside
    async def body(cpu: PerCpu) -> None:
        for page in range(4):
            await user_write(cpu, HEAP + page, page + 7)
        before = flushes(cpu)
        assert await do_madvise(cpu, 1, HEAP, HEAP + 3, madvise_free)
        assert flushes(cpu) == before + 1 and cpu.vmstat["pglazyfree"] == 3
        entry = await GetPte(1, HEAP)
        assert entry & RW and not entry & (ACCESSED | DIRTY)
        # Again: nothing to clear, nothing to flush.
        await do_madvise(cpu, 1, HEAP, HEAP + 3, madvise_free)
        assert flushes(cpu) == before + 1
        assert await user_read(cpu, HEAP + 1) == 8
        await user_write(cpu, HEAP + 2, 20)
        assert [await reclaim(cpu, HEAP + page) for page in range(4)] == [True, True, False, False]
        assert [await user_read(cpu, HEAP + page) for page in range(4)] == [0, 0, 20, 10]
        # What was written is an ordinary page again.
        assert not await reclaim(cpu, HEAP + 2)

    machine = SmallMachine(Thread(0, body), Thread(1, bystander), policy=POLICIES[policy])
    assert not machine.run().violations


def test_free_is_for_anonymous_memory() -> None:
    async def body(cpu: PerCpu) -> None:
        await user_write(cpu, SHARED, 7)
        assert await do_madvise(cpu, 1, SHARED, SHARED + 1, madvise_free)
        assert await GetPte(1, SHARED) & DIRTY and not cpu.counted("pglazyfree")

    assert not SmallMachine(Thread(0, body)).run().violations


def test_cold_clears_accessed_bits_and_deactivates() -> None:
    @beside
    async def body(cpu: PerCpu) -> None:
        for page in range(3):
            await user_write(cpu, HEAP + page, page + 7)
            pfn = pte_pfn(await GetPte(1, HEAP + page))
            await FolioIsolateLru(pfn)
            await FolioPutbackLru(pfn, True)
        before = flushes(cpu)
        assert await do_madvise(cpu, 1, HEAP, HEAP + 3, madvise_cold)
        assert flushes(cpu) == before + 1
        folio = machine.memory.folios.folios[pte_pfn(await GetPte(1, HEAP))]
        assert folio.lru is False and await GetPte(1, HEAP) & (ACCESSED | DIRTY) == DIRTY
        await do_madvise(cpu, 1, HEAP, HEAP + 3, madvise_cold)
        assert flushes(cpu) == before + 1
        assert [await user_read(cpu, HEAP + page) for page in range(3)] == [7, 8, 9]

    machine = SmallMachine(Thread(0, body), Thread(1, bystander))
    assert not machine.run().violations


@pytest.mark.parametrize(("clears", "expected"), [(True, 2), (False, 1)])
def test_pageout_frees_clean_pages_of_files_and_leaves_dirty_ones_to_writeback(
    clears: bool, expected: int
) -> None:
    @beside
    async def body(cpu: PerCpu) -> None:
        await user_read(cpu, SHARED)
        await user_write(cpu, SHARED + 1, 8)
        await user_write(cpu, HEAP, 9)
        dirty = pte_pfn(await GetPte(1, SHARED + 1))
        free, before = machine.memory.folios.zones[0].nr_free, flushes(cpu)
        assert await do_madvise(cpu, 1, SHARED, SHARED + 2, madvise_pageout)
        assert flushes(cpu) == before + expected
        assert machine.memory.folios.zones[0].nr_free == free + 1
        assert not await GetPte(1, SHARED) and not await GetPte(1, SHARED + 1)
        assert await FolioTestFlag(dirty, PG_DIRTY) and not cpu.counted("nr_vmscan_write")
        # Anonymous memory stays: there is no swap.
        await do_madvise(cpu, 1, HEAP, HEAP + 1, madvise_pageout)
        assert pte_pfn(await GetPte(1, HEAP))
        assert [await user_read(cpu, vpn) for vpn in (SHARED, SHARED + 1, HEAP)] == [0, 8, 9]

    machine = SmallMachine(Thread(0, body), Thread(1, bystander), pageout_clears_young=clears)
    assert not machine.run().violations


@pytest.mark.parametrize("policy", ["immediate", "migrc:v3", "migrc:v9"])
@pytest.mark.parametrize("seed", range(9))
def test_advice_writes_and_migration_at_once(seed: int, policy: str) -> None:
    advice = (madvise_dontneed, madvise_free, madvise_cold, madvise_pageout)

    async def body(cpu: PerCpu) -> None:
        rng = random.Random(f"{seed}/{cpu.number}")
        for _ in range(8):
            area = rng.choice((HEAP, SHARED))
            vpn = area + rng.randrange(3)
            action = rng.randrange(4)
            if action == 0:
                await do_madvise(cpu, 1, area, area + 3, rng.choice(advice))
            elif action == 1:
                await move(cpu, [vpn], rng.randrange(2))
            elif action == 2:
                await user_write(cpu, vpn, cpu.new_version())
            else:
                await user_read(cpu, vpn)
            await cond_resched(cpu)

    machine = SmallMachine(*[Thread(n, body) for n in range(3)], cpus=3, policy=POLICIES[policy]).run(seed)
    assert not machine.violations
