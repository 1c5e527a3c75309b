"""The runtime switch of v3: off, it defers no more, and what is pending is still flushed and freed."""

from __future__ import annotations

import pytest

from emulator.hardware.operations import Load, NrFree
from emulator.kernel.percpu import PerCpu
from emulator.kernel.user import user_read
from emulator.policies.migrc import pending_word
from emulator.policies.migrc_v3 import MigrcV3
from tests.kernel.small_machine import FILE, SmallMachine, Thread, after, demote, mark


@pytest.mark.parametrize("architecture", ["sc", "x86"])
def test_turned_off_while_requests_are_pending(architecture: str) -> None:
    async def body(cpu: PerCpu) -> None:
        assert isinstance(cpu.policy, MigrcV3)
        for page in range(3):
            await user_read(cpu, FILE + page)
        await after("cached")
        await demote(cpu, FILE)
        await cpu.policy.set_enabled(cpu, False)
        assert await Load(pending_word(0)) == 1

        flushes = cpu.vmstat.get("nr_tlb_remote_flush", 0)
        await demote(cpu, FILE + 1)
        assert cpu.vmstat["nr_tlb_remote_flush"] == flushes + 1
        assert cpu.vmstat["migrc_deferred"] == 1

        free = await NrFree(0)
        await cpu.policy.drain(cpu)
        assert await Load(pending_word(0)) == 0
        assert await NrFree(0) == free + 1

        await cpu.policy.set_enabled(cpu, True)
        await demote(cpu, FILE + 2)
        assert cpu.vmstat["migrc_deferred"] == 2
        await mark("done")

    async def other(cpu: PerCpu) -> None:
        for page in range(3):
            await user_read(cpu, FILE + page)
        await mark("cached")
        await after("done")

    machine = SmallMachine(Thread(0, body), Thread(1, other), policy=MigrcV3, architecture=architecture).run()
    assert not machine.violations
