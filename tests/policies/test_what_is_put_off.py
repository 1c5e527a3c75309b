"""Which flushes the postings put off, for how long, and for whom: one rule of theirs at a time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from emulator.hardware.operations import GetPte, LlistEmpty, Load, SetPte
from emulator.hardware.pte import DIRTY, PRESENT, RW, mk_pte
from emulator.kernel.percpu import PF_KSWAPD, PerCpu, TlbUbc
from emulator.kernel.policy import MR_DEMOTION, MR_NUMA_MISPLACED, Policy
from emulator.kernel.user import user_write
from emulator.policies.migrc import migrates_for_tiering
from emulator.policies.migrc_rfc2 import MIGRC_REQS_DIRTY, MigrcRfc2
from emulator.policies.migrc_v3 import MIGRC_STOP, MigrcV3
from emulator.policies.migrc_v9 import MIGRC_GEN_DONE, MIGRC_UBC, Batch, MigrcV9
from tests.kernel.small_machine import HEAP, SmallMachine, Thread, after, demote, mark


@pytest.mark.parametrize(
    ("flags", "reason", "put_off"),
    [
        (PF_KSWAPD, MR_DEMOTION, True),
        (0, MR_DEMOTION, False),
        (0, MR_NUMA_MISPLACED, True),
        (PF_KSWAPD, "compaction", False),
    ],
)
def test_demotion_by_kswapd_and_promotion(flags: int, reason: str, put_off: bool) -> None:
    """Direct reclaim wants the frames now."""
    cpu: Any = SimpleNamespace(current=SimpleNamespace(flags=flags))
    assert migrates_for_tiering(cpu, reason) is put_off


@pytest.mark.parametrize(("flags", "put_off"), [(0, True), (DIRTY, False), (RW, False), (RW | DIRTY, False)])
def test_v9_puts_off_what_is_clean_and_read_only(flags: int, put_off: bool) -> None:
    task: Any = SimpleNamespace(policy_state=Batch(), tlb_ubc=TlbUbc())
    batch = MigrcV9().batch_for(task, mk_pte(1, PRESENT | flags))
    assert batch is (task.policy_state.tlb_ubc_ro if put_off else task.tlb_ubc)


def _runs(policy: type[Policy], *threads: Thread) -> None:
    assert not SmallMachine(*threads, policy=policy).run().violations


def test_v9_adds_to_the_cpus_that_are_pending() -> None:
    async def body(cpu: PerCpu) -> None:
        assert isinstance(cpu.policy, MigrcV9)
        for bit in (1, 2):
            batch = TlbUbc()
            batch.cpumask = bit
            assert await cpu.policy.migrc_add_pending_ubc(cpu, batch)
        assert await Load(MIGRC_UBC) == 3
        # Who flushes for them takes them all.
        await cpu.policy.check_migrc_flush(cpu, cpu.policy.mgen_next(await Load(MIGRC_GEN_DONE)))
        assert await Load(MIGRC_UBC) == 0
        assert not cpu.vmstat.get("migrc_skipped"), "done for them, not spared"

    _runs(MigrcV9, Thread(0, body))


def test_v3_puts_off_again_when_the_allocation_is_through() -> None:
    async def body(cpu: PerCpu) -> None:
        await cpu.policy.slowpath_retry_failed(cpu)
        assert await Load(MIGRC_STOP) == 1
        # Once for whoever has begun it, and not for others.
        for _ in range(2):
            await cpu.policy.slowpath_leave(cpu)
            assert await Load(MIGRC_STOP) == 0

    _runs(MigrcV3, Thread(0, body))


def test_rfc2_has_flushed_for_dirty_entries_before_pages_are_written_out() -> None:
    async def body(cpu: PerCpu) -> None:
        await after("written")
        # As a fork leaves it: dirty, and read-only.
        await SetPte(1, HEAP, await GetPte(1, HEAP) & ~RW)
        assert await demote(cpu, HEAP) == 1
        assert not await LlistEmpty(MIGRC_REQS_DIRTY)
        await cpu.policy.flush_before_io(cpu)
        assert await LlistEmpty(MIGRC_REQS_DIRTY)
        await mark("done")

    async def other(cpu: PerCpu) -> None:
        await user_write(cpu, HEAP, 5)
        await mark("written")
        await after("done")

    _runs(MigrcRfc2, Thread(0, body), Thread(1, other, 1))
