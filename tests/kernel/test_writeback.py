"""Write-protection for writeback: what is written, who flushes, and that the next write faults."""

from __future__ import annotations

import random

import pytest

from emulator.hardware.operations import FolioTestFlag, GetPte
from emulator.hardware.pte import DIRTY, RW, pte_pfn
from emulator.kernel.percpu import PerCpu
from emulator.kernel.sched import cond_resched
from emulator.kernel.user import user_read, user_write
from emulator.kernel.writeback import filemap_write_and_wait_range
from emulator.memory.folios import PG_DIRTY
from emulator.policies.catalogue import POLICIES
from tests.kernel.small_machine import SHARED, SmallMachine, Thread, after, mark, move

FILE_NUMBER = 2  # the one of the area SHARED


@pytest.mark.parametrize("policy", POLICIES)
def test_each_dirty_page_is_flushed_for_and_written_and_the_next_write_faults(policy: str) -> None:
    async def body(cpu: PerCpu) -> None:
        await after("there")
        for page in range(3):
            await user_write(cpu, SHARED + page, page + 7)
        await user_read(cpu, SHARED + 3)
        flushes = cpu.counted("nr_tlb_remote_flush")
        assert await filemap_write_and_wait_range(cpu, FILE_NUMBER, 0, 16) == 3
        assert cpu.vmstat["nr_tlb_remote_flush"] == flushes + 3
        assert [machine.memory.folios.files[FILE_NUMBER, page] for page in range(3)] == [7, 8, 9]
        entry = await GetPte(1, SHARED)
        assert not entry & (RW | DIRTY) and not await FolioTestFlag(pte_pfn(entry), PG_DIRTY)
        # Nothing is dirty any more.
        assert await filemap_write_and_wait_range(cpu, FILE_NUMBER, 0, 16) == 0
        assert cpu.vmstat["nr_tlb_remote_flush"] == flushes + 3
        faults = cpu.vmstat["pgfault"]
        await user_write(cpu, SHARED, 10)
        assert cpu.vmstat["pgfault"] == faults + 1
        assert await filemap_write_and_wait_range(cpu, FILE_NUMBER, 0, 1) == 1
        assert machine.memory.folios.files[FILE_NUMBER, 0] == 10
        await mark("done")

    async def other(cpu: PerCpu) -> None:
        await user_read(cpu, SHARED)
        await mark("there")
        await after("done")

    machine = SmallMachine(Thread(0, body), Thread(1, other), policy=POLICIES[policy])
    assert not machine.run().violations


@pytest.mark.parametrize("policy", ["immediate", "migrc:v9"])
@pytest.mark.parametrize("seed", range(9))
def test_what_was_written_last_is_written_out_whoever_moves_pages_meanwhile(seed: int, policy: str) -> None:
    async def body(cpu: PerCpu) -> None:
        rng = random.Random(f"{seed}/{cpu.number}")
        for _ in range(6):
            vpn = SHARED + rng.randrange(2)
            action = rng.randrange(4)
            if action == 0:
                await filemap_write_and_wait_range(cpu, FILE_NUMBER, 0, 2)
            elif action == 1:
                await move(cpu, [vpn], rng.randrange(2))
            else:
                await user_write(cpu, vpn, cpu.new_version())
            await cond_resched(cpu)

    machine = SmallMachine(*[Thread(n, body) for n in range(3)], cpus=3, policy=POLICIES[policy]).run(seed)
    assert not machine.violations
    folios = machine.memory.folios
    for slot, pfn in folios.page_cache.items():
        assert folios.folios[pfn].flags & PG_DIRTY or folios.content[pfn] == folios.files.get(slot, 0)
