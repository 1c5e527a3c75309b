"""clear_refs: accessed bits without a flush, write permissions with one."""

from __future__ import annotations

import pytest

from emulator.hardware.operations import GetPte
from emulator.hardware.pte import ACCESSED, RW
from emulator.kernel.percpu import PerCpu
from emulator.kernel.task_mmu import CLEAR_REFS_ALL, CLEAR_REFS_SOFT_DIRTY, clear_refs_write
from emulator.kernel.user import user_read, user_write
from emulator.policies.catalogue import POLICIES
from tests.kernel.small_machine import HEAP, PAGES, SmallMachine, Thread, after, mark


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("what", [CLEAR_REFS_ALL, CLEAR_REFS_SOFT_DIRTY])
def test_what_is_taken_away_and_what_is_flushed(what: int, policy: str) -> None:
    protects = what == CLEAR_REFS_SOFT_DIRTY

    async def body(cpu: PerCpu) -> None:
        await after("there")
        for page in range(3):
            await user_write(cpu, HEAP + page, page + 7)
        flushes = cpu.counted("nr_tlb_remote_flush")
        await clear_refs_write(cpu, 1, HEAP, HEAP + PAGES, what)
        entry = await GetPte(1, HEAP)
        assert bool(entry & RW) is not protects and bool(entry & ACCESSED) is protects
        assert cpu.counted("nr_tlb_remote_flush") == flushes + protects
        faults = cpu.vmstat["pgfault"]
        await user_write(cpu, HEAP, 20)
        await user_write(cpu, HEAP, 21)
        assert cpu.vmstat["pgfault"] == faults + protects
        assert [await user_read(cpu, HEAP + page) for page in range(3)] == [21, 8, 9]
        await mark("done")

    async def other(cpu: PerCpu) -> None:
        await user_read(cpu, HEAP + 8)
        await mark("there")
        await after("done")

    machine = SmallMachine(Thread(0, body), Thread(1, other), policy=POLICIES[policy])
    assert not machine.run().violations
