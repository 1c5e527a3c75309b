"""What MIGRC promises: whom it defers for, when it gives up, and that nothing stays behind."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.hardware.operations import FolioGet, FolioPut, GetPte, Load
from emulator.hardware.pte import pte_pfn, pte_write
from emulator.kernel.mmzone import zone_watermark_ok
from emulator.kernel.percpu import PerCpu
from emulator.kernel.tlb import TLB_FLUSH_ALL, flush_tlb_mm_range
from emulator.kernel.user import user_read, user_write
from emulator.policies.catalogue import POLICIES
from emulator.policies.migrc import Migrc, pending_word
from emulator.policies.migrc_rfc2 import MigrcRfc2
from emulator.policies.migrc_v3 import MigrcV3
from tests.kernel.small_machine import (
    FILE,
    HEAP,
    SHARED,
    SmallMachine,
    Thread,
    after,
    demote,
    mark,
    promote,
    random_body,
)

PROCESSORS = pytest.mark.parametrize("architecture", ["sc", "x86"])
VERSIONS = pytest.mark.parametrize("policy", ["migrc:v3", "migrc:rfc2"])


@PROCESSORS
@VERSIONS
@pytest.mark.parametrize(("page", "dirty", "deferred"), [(FILE, False, 1), (HEAP, False, 1), (HEAP, True, 0)])
def test_only_what_no_translation_may_write_is_deferred(
    page: int, dirty: bool, deferred: int, policy: str, architecture: str
) -> None:
    async def body(cpu: PerCpu) -> None:
        if dirty:
            await user_write(cpu, page, 5)
        await user_read(cpu, page)
        await after("cached")
        flushes = cpu.vmstat.get("nr_tlb_remote_flush", 0)
        assert await demote(cpu, page) == 1
        assert await Load(pending_word(0)) == deferred
        assert cpu.vmstat.get("nr_tlb_remote_flush", 0) - flushes == 1 - deferred
        await mark("moved")

    async def other(cpu: PerCpu) -> None:
        await user_read(cpu, page)
        await mark("cached")
        await after("moved")
        # Stale or not, it has the content.
        assert await user_read(cpu, page) == (5 if dirty else 0)

    machine = SmallMachine(
        Thread(0, body), Thread(1, other), policy=POLICIES[policy], architecture=architecture
    ).run()
    assert machine.vmstat("migrc_deferred") == deferred
    assert not machine.violations


@PROCESSORS
@VERSIONS
def test_a_write_fault_flushes_before_the_page_becomes_writable(policy: str, architecture: str) -> None:
    """Readers on other CPUs, whatever the interleaving, never see less than what they have seen.

    One writer, and not before the move is over: what the postings get wrong is in test_posted_holes.
    """
    for seed in range(60):
        seen: list[int] = []

        async def mover(cpu: PerCpu) -> None:
            await after("cached")
            await demote(cpu, SHARED, HEAP)
            assert await Load(pending_word(0)) == 2
            for version in (1, 2, 3):
                await user_write(cpu, SHARED, version)

        async def reader(cpu: PerCpu, seen: list[int] = seen) -> None:
            await user_read(cpu, SHARED)
            await user_read(cpu, HEAP)
            await mark("cached")
            seen += [await user_read(cpu, SHARED) for _ in range(12)]

        machine = SmallMachine(
            Thread(0, mover), Thread(1, reader), policy=POLICIES[policy], architecture=architecture
        ).run(seed)
        assert seen == sorted(seen)
        assert not machine.violations, seed
        assert machine.vmstat("migrc_write_faults") >= 1


@VERSIONS
def test_a_cpu_that_has_flushed_since_is_not_interrupted(policy: str) -> None:
    async def body(cpu: PerCpu) -> None:
        await user_read(cpu, FILE)
        await after("cached")
        await demote(cpu, FILE)
        # Somebody else's full flush, after the deferral.
        await flush_tlb_mm_range(cpu, 1, 0, TLB_FLUSH_ALL)
        before = cpu.vmstat["nr_tlb_remote_flush"]
        await cpu.policy.drain(cpu)
        assert cpu.vmstat["nr_tlb_remote_flush"] == before
        assert cpu.vmstat["migrc_skipped"] == 2
        await mark("done")

    async def other(cpu: PerCpu) -> None:
        await user_read(cpu, FILE)
        await mark("cached")
        await after("done")

    machine = SmallMachine(Thread(0, body), Thread(1, other), policy=POLICIES[policy]).run()
    assert not machine.violations


@VERSIONS
def test_pending_pages_count_as_free(policy: str) -> None:
    async def body(cpu: PerCpu) -> None:
        for page in range(12):
            await user_read(cpu, FILE + page)
        await after("cached")
        # 16 pages, 12 in use: 4 are free; later 4 more are promised.
        assert not await zone_watermark_ok(cpu, 0, 8, 0)
        await demote(cpu, *(FILE + page for page in range(4)))
        assert await Load(pending_word(0)) == 4
        assert await zone_watermark_ok(cpu, 0, 8, 0)
        assert not await zone_watermark_ok(cpu, 0, 9, 0)
        await mark("done")

    async def other(cpu: PerCpu) -> None:
        await mark("cached")
        await after("done")

    machine = SmallMachine(Thread(0, body), Thread(1, other), fast=16, policy=POLICIES[policy]).run()
    assert not machine.violations


@PROCESSORS
@VERSIONS
def test_a_migration_that_fails_after_marking_leaves_no_trace(policy: str, architecture: str) -> None:
    """Somebody else's reference makes folio_migrate_mapping fail; v3 undoes, rfc2 waits for the flush."""

    async def body(cpu: PerCpu) -> None:
        await user_read(cpu, FILE)
        await after("cached")
        pfn = pte_pfn(await GetPte(1, FILE))
        await FolioGet(pfn)
        assert await demote(cpu, FILE) == 0
        assert await Load(pending_word(0)) == (1 if policy == "migrc:rfc2" else 0)
        await FolioPut(pfn)
        assert pte_pfn(await GetPte(1, FILE)) == pfn
        await cpu.policy.drain(cpu)
        assert await demote(cpu, FILE) == 1
        await mark("done")

    async def other(cpu: PerCpu) -> None:
        await user_read(cpu, FILE)
        await mark("cached")
        await after("done")

    machine = SmallMachine(
        Thread(0, body), Thread(1, other), policy=POLICIES[policy], architecture=architecture
    ).run()
    assert not machine.violations
    assert machine.vmstat("pgmigrate_fail") == 1


def test_rfc2_never_lets_more_than_its_cap_wait() -> None:
    peaks: list[int] = []

    async def body(cpu: PerCpu) -> None:
        for page in range(8):
            await user_read(cpu, FILE + page)
        await after("cached")
        for page in range(8):
            await demote(cpu, FILE + page)
            peaks.append(await Load(pending_word(0)))
        await mark("done")

    async def other(cpu: PerCpu) -> None:
        await mark("cached")
        await after("done")

    machine = SmallMachine(Thread(0, body), Thread(1, other), policy=lambda: MigrcRfc2(cap=3)).run()
    assert max(peaks) == 2  # reaching the cap flushes at once
    assert machine.vmstat("migrc_deferred") == 8
    assert not machine.violations


def test_rfc2_flushes_when_a_pending_destination_moves_again() -> None:
    async def body(cpu: PerCpu) -> None:
        await user_read(cpu, FILE)
        await after("cached")
        await demote(cpu, FILE)
        before = cpu.vmstat.get("migrc_flushes", 0)
        pfn = pte_pfn(await GetPte(1, FILE))
        await user_read(cpu, FILE)
        assert cpu.parameters.nid(pfn) == 1
        assert await promote(cpu, FILE) == 1
        assert cpu.vmstat["migrc_flushes"] == before + 1
        assert await Load(pending_word(0)) == 0
        await mark("done")

    async def other(cpu: PerCpu) -> None:
        await user_read(cpu, FILE)
        await mark("cached")
        await after("done")

    machine = SmallMachine(Thread(0, body), Thread(1, other), policy=MigrcRfc2).run()
    assert not machine.violations


def test_v3_does_not_defer_for_a_folio_that_is_pending_already() -> None:
    async def body(cpu: PerCpu) -> None:
        await user_read(cpu, FILE)
        await after("cached")
        await demote(cpu, FILE)
        await user_read(cpu, FILE)
        before = cpu.vmstat.get("nr_tlb_remote_flush", 0)
        assert await promote(cpu, FILE) == 1
        assert cpu.vmstat["nr_tlb_remote_flush"] == before + 1
        assert cpu.vmstat["migrc_deferred"] == 1
        assert not pte_write(await GetPte(1, FILE))
        await mark("done")

    async def other(cpu: PerCpu) -> None:
        await user_read(cpu, FILE)
        await mark("cached")
        await after("done")

    machine = SmallMachine(Thread(0, body), Thread(1, other), policy=MigrcV3).run()
    assert not machine.violations


@given(st.integers(2, 32), st.integers(0, 1 << 40), st.integers(0, 1 << 40))
def test_before_is_right_while_less_than_half_the_range_lies_between(bits: int, start: int, gap: int) -> None:
    policy = Migrc(bits)
    size = 1 << bits
    half = size // 2
    a, b = start % size, (start + gap) % size
    distance = gap % size
    if distance <= half:
        # Exactly half the range: (int)(a - b) is the most negative number, either way round.
        assert policy.before(a, b) == (distance > 0)
    else:
        assert not policy.before(a, b)  # wrong: so much time has passed that it looks like the future


def test_four_bit_generations_go_wrong_after_eight_requests() -> None:
    policy = Migrc(4)
    assert [policy.before(0, gen % 16) for gen in range(10)] == [False] + [True] * 8 + [False]


@PROCESSORS
@VERSIONS
@pytest.mark.parametrize("bits", [4, 32])
def test_random_runs_without_writes_are_in_order_and_leave_nothing(
    policy: str, bits: int, architecture: str
) -> None:
    actions = ("read", "read", "hint", "demote", "promote")
    make = MigrcV3 if policy == "migrc:v3" else MigrcRfc2
    deferred = 0
    for seed in range(60):
        cpus = 2 + seed % 3
        # A narrow counter only runs over in time if requests are few; 4 bits are enough for these.
        steps = 20 if bits == 32 else 2
        threads = [
            Thread(number, random_body(seed, steps, actions), 1 + number % 2) for number in range(cpus)
        ]
        machine = SmallMachine(
            *threads,
            cpus=cpus,
            architecture=architecture,
            policy=lambda: make(bits),
            migrate_batch=3,
        ).run(seed)
        assert not machine.violations, (seed, machine.violations[0])
        deferred += machine.vmstat("migrc_deferred")
    assert deferred
