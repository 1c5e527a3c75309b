"""RFC v1: RFC v2 with barriers that promise nothing where they stand."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from emulator.hardware.operations import FolioGet, FolioPut, GetPte, Load, SmpMb, SmpMbAfterAtomic
from emulator.hardware.pte import pte_pfn
from emulator.kernel.percpu import PerCpu
from emulator.kernel.tlb import TLB_FLUSH_ALL, flush_tlb_mm_range
from emulator.kernel.user import user_read
from emulator.policies.catalogue import POLICIES
from emulator.policies.migrc import Migrc, pending_word
from emulator.policies.migrc_rfc1 import MigrcRfc1
from emulator.policies.migrc_rfc2 import MigrcRfc2
from tests.kernel.small_machine import FILE, SmallMachine, Thread, after, demote, mark, random_body


@pytest.mark.parametrize(("make", "kind"), [(MigrcRfc1, SmpMbAfterAtomic), (MigrcRfc2, SmpMb)])
def test_the_barriers_around_a_local_flush(make: Callable[[], Migrc], kind: type) -> None:
    policy = make()
    for barrier in (policy.barrier_before_flush(), policy.barrier_after_flush()):
        assert type(barrier.send(None)) is kind
        barrier.close()


def two(body: Callable[[PerCpu], object], architecture: str = "x86") -> SmallMachine:
    """CPU 0 runs `body` when CPU 1 has the page cached."""

    async def first(cpu: PerCpu) -> None:
        await user_read(cpu, FILE)
        await after("cached")
        await body(cpu)  # type: ignore[misc]
        await mark("done")

    async def other(cpu: PerCpu) -> None:
        await user_read(cpu, FILE)
        await mark("cached")
        await after("done")

    machine = SmallMachine(
        Thread(0, first),
        Thread(1, other),
        policy=POLICIES["migrc:rfc1"],
        architecture=architecture,
    )
    return machine.run()


def test_a_cpu_that_has_flushed_since_is_not_interrupted() -> None:
    async def body(cpu: PerCpu) -> None:
        await demote(cpu, FILE)
        await flush_tlb_mm_range(cpu, 1, 0, TLB_FLUSH_ALL)
        before = cpu.vmstat["nr_tlb_remote_flush"]
        await cpu.policy.drain(cpu)
        assert cpu.vmstat["nr_tlb_remote_flush"] == before
        assert cpu.vmstat["migrc_skipped"] == 2

    assert not two(body).violations


@pytest.mark.parametrize("architecture", ["sc", "x86"])
def test_a_failed_migration_is_not_undone_but_freed_by_the_flush(architecture: str) -> None:
    async def body(cpu: PerCpu) -> None:
        pfn = pte_pfn(await GetPte(1, FILE))
        await FolioGet(pfn)
        assert await demote(cpu, FILE) == 0
        assert await Load(pending_word(0)) == 1
        await FolioPut(pfn)
        await cpu.policy.drain(cpu)
        assert await Load(pending_word(0)) == 0

    assert not two(body, architecture).violations


@pytest.mark.parametrize("architecture", ["sc", "x86"])
def test_random_runs_without_writes_are_in_order_and_leave_nothing(architecture: str) -> None:
    deferred = 0
    for seed in range(20):
        cpus = 2 + seed % 3
        body = random_body(seed, 20, ("read", "read", "hint", "demote", "promote"))
        threads = [Thread(number, body, 1 + number % 2) for number in range(cpus)]
        machine = SmallMachine(
            *threads, cpus=cpus, architecture=architecture, policy=MigrcRfc1, migrate_batch=3
        ).run(seed)
        assert not machine.violations, (seed, machine.violations[0])
        deferred += machine.vmstat("migrc_deferred")
    assert deferred
