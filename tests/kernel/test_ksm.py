"""KSM: equal pages share a frame until the next write, and two flushes go with each."""

from __future__ import annotations

import random

import pytest

from emulator.hardware.operations import GetPte
from emulator.hardware.pte import pte_pfn, pte_write
from emulator.kernel.gup import get_user_pages, put_page
from emulator.kernel.ksm import try_to_merge_two_pages
from emulator.kernel.percpu import PerCpu
from emulator.kernel.sched import cond_resched
from emulator.kernel.user import user_read, user_write
from emulator.policies.catalogue import POLICIES
from tests.kernel.small_machine import HEAP, SHARED, SmallMachine, Thread, after, mark, move


@pytest.mark.parametrize("policy", POLICIES)
def test_equal_pages_share_a_frame_until_one_is_written(policy: str) -> None:
    async def body(cpu: PerCpu) -> None:
        await after("there")
        for page in range(8):
            await user_write(cpu, HEAP + page, 7)
        flushes = cpu.counted("nr_tlb_remote_flush")
        free = machine.memory.folios.zones[0].nr_free
        for page in range(1, 8):
            assert await try_to_merge_two_pages(cpu, 1, HEAP + page, HEAP)
        assert cpu.vmstat["nr_tlb_remote_flush"] == flushes + 15
        assert machine.memory.folios.zones[0].nr_free == free + 7
        entries = [await GetPte(1, HEAP + page) for page in range(8)]
        assert len({pte_pfn(entry) for entry in entries}) == 1 and not any(map(pte_write, entries))
        await user_write(cpu, HEAP + 3, 8)
        assert cpu.vmstat["pgcow"] == 1
        assert [await user_read(cpu, HEAP + page) for page in range(8)] == [7, 7, 7, 8, 7, 7, 7, 7]
        await mark("done")

    async def other(cpu: PerCpu) -> None:
        await user_read(cpu, HEAP + 9)
        await mark("there")
        await after("done")
        assert [await user_read(cpu, HEAP + page) for page in range(4)] == [7, 7, 7, 8]

    machine = SmallMachine(Thread(0, body), Thread(1, other), policy=POLICIES[policy])
    assert not machine.run().violations


def test_what_is_not_merged() -> None:
    """Pages that differ, pages of files, nothing at all, one's own frame, and what somebody has pinned."""

    async def body(cpu: PerCpu) -> None:
        for page, version in enumerate((7, 7, 8)):
            await user_write(cpu, HEAP + page, version)
        await user_read(cpu, SHARED)
        for vpn, into in ((2, 0), (5, 0), (0, 5), (0, 0), (SHARED - HEAP, 0), (0, SHARED - HEAP)):
            assert not await try_to_merge_two_pages(cpu, 1, HEAP + vpn, HEAP + into)
        pfn = await get_user_pages(cpu, 1, HEAP + 1, True)
        assert not await try_to_merge_two_pages(cpu, 1, HEAP + 1, HEAP)
        assert pte_write(await GetPte(1, HEAP + 1))
        await put_page(pfn)
        assert await try_to_merge_two_pages(cpu, 1, HEAP + 1, HEAP)

    assert not SmallMachine(Thread(0, body)).run().violations


@pytest.mark.parametrize("policy", ["immediate", "migrc:v3", "migrc:v9"])
@pytest.mark.parametrize("seed", range(9))
def test_whoever_writes_moves_and_merges_at_once(seed: int, policy: str) -> None:
    async def body(cpu: PerCpu) -> None:
        rng = random.Random(f"{seed}/{cpu.number}")
        for _ in range(8):
            vpn, other = HEAP + rng.randrange(3), HEAP + rng.randrange(3)
            action = rng.randrange(4)
            if action == 0:
                await try_to_merge_two_pages(cpu, 1, vpn, other)
            elif action == 1:
                await move(cpu, [vpn], rng.randrange(2))
            elif action == 2:
                await user_write(cpu, vpn, 7)
            else:
                await user_read(cpu, vpn)
            await cond_resched(cpu)

    machine = SmallMachine(*[Thread(n, body) for n in range(3)], cpus=3, policy=POLICIES[policy]).run(seed)
    assert not machine.violations
