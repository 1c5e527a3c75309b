"""v9: sources are freed before the flush, and no frame is used again, nor a copy written, before it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from emulator.checks.frugality import NEEDLESS
from emulator.checks.grace_period import REUSED
from emulator.hardware.operations import FolioGet, FolioPut, GetPte, Load, NrFree, Store
from emulator.hardware.pte import pte_pfn
from emulator.kernel.mmzone import get_page_from_freelist
from emulator.kernel.percpu import PerCpu
from emulator.kernel.policy import Policy
from emulator.kernel.user import user_read, user_write
from emulator.policies.migrc_v9 import (
    MIGRC_GEN_BEGUN,
    MIGRC_GEN_DONE,
    MIGRC_UBC,
    NO_GENERATION,
    MigrcV9,
    page_generation_word,
)
from tests.kernel.small_machine import FILE, SmallMachine, Thread, after, demote, mark, random_body
from tests.policies.merged_litmus import TESTS, search

ARCHITECTURES = pytest.mark.parametrize("architecture", ["sc", "x86", "riscv"])
COSTLY = ("two demotions", "two demotions, two reuses")


@ARCHITECTURES
@pytest.mark.parametrize("name", [name for name in TESTS if name not in COSTLY])
def test_every_interleaving_is_safe(name: str, architecture: str) -> None:
    found = search(TESTS[name], architecture, MigrcV9)
    assert found.complete
    assert found.violation is None


@ARCHITECTURES
def test_two_demotions_cost_a_needless_interrupt_at_worst(architecture: str) -> None:
    """A flush between an unmap and its generation is not credited; an unmap covers no more than it knows."""
    found = search(TESTS["two demotions, two reuses"], architecture, MigrcV9, all_rules=True)
    assert found.complete
    assert found.rules <= {NEEDLESS}


class ForgetsTheFlushUnderWay(MigrcV9):
    async def others_are_flushing(self) -> bool:
        return False


class AddsDuringAFlush(MigrcV9):
    async def may_add(self) -> bool:
        return True


class LooksWithoutTheLock(MigrcV9):
    """As posted: READ_ONCE(migrc_gen_done) first, which orders nothing behind it."""

    async def check_migrc_flush(self, cpu: PerCpu, gen: int) -> bool:
        if gen != NO_GENERATION and not self.mgen_before(await Load(MIGRC_GEN_DONE), gen):
            return False
        return await super().check_migrc_flush(cpu, gen)


@pytest.mark.parametrize(("architecture", "rules"), [("x86", set()), ("riscv", {REUSED})])
def test_a_look_without_the_lock_orders_nothing_on_riscv(architecture: str, rules: set[str]) -> None:
    found = search(TESTS["demotion and flusher"], architecture, LooksWithoutTheLock, all_rules=True)
    assert found.complete
    assert found.rules == rules


class ZeroAfterTheLast(MigrcV9):
    """`a + 1 ?: a + 2` is computed in int: 0 comes after the largest unsigned short."""

    def mgen_next(self, gen: int) -> int:
        return (gen + 1) % (1 << self.bits)


def test_without_waiting_for_the_flush_under_way_a_writer_is_too_early() -> None:
    assert search(TESTS["drain and writer"], "sc", ForgetsTheFlushUnderWay).violation is not None


def test_adding_during_a_flush_loses_the_new_flush() -> None:
    assert search(TESTS["two demotions, two reuses"], "sc", AddsDuringAFlush, all_rules=True).rules > {
        NEEDLESS
    }


@pytest.mark.parametrize(
    ("make", "broken"), [(lambda: ZeroAfterTheLast(16), True), (lambda: MigrcV9(16), False)]
)
def test_the_posted_generation_after_the_last_flushes_no_more(
    make: Callable[[], Policy], broken: bool
) -> None:
    """CPU 0 demotes at generation 0, which means none: the frame is used again without a flush."""

    async def body(cpu: PerCpu) -> None:
        await user_read(cpu, FILE)
        await after("cached")
        for word in (MIGRC_GEN_BEGUN, MIGRC_GEN_DONE):
            await Store(word, (1 << 16) - 1)
        await demote(cpu, FILE)
        flushes = cpu.vmstat.get("migrc_flushes", 0)
        await user_write(cpu, FILE, 5)
        assert cpu.vmstat.get("migrc_flushes", 0) - flushes == (0 if broken else 1)
        await mark("done")

    async def other(cpu: PerCpu) -> None:
        await user_read(cpu, FILE)
        await mark("cached")
        await after("done")

    # Ends with what is pending for ever; nobody drains it.
    machine = SmallMachine(Thread(0, body), Thread(1, other), policy=make)
    machine.drive(1, machine.marked("cached"))
    machine.drive(0, machine.marked("done"))
    assert bool(machine.memory.words.values.get(MIGRC_UBC)) == broken


def test_the_later_generation_of_two() -> None:
    policy = MigrcV9(4)
    assert policy.mgen_latest(0, 9) == policy.mgen_latest(9, 0) == 9
    assert policy.mgen_latest(15, 1) == 1
    assert policy.mgen_next(15) == 1
    # Half the range and more apart, the older one is taken for the later.
    assert policy.mgen_latest(1, 10) == 1


def test_the_source_is_free_at_once_and_flushed_for_when_it_is_used_again() -> None:
    async def body(cpu: PerCpu) -> None:
        await user_read(cpu, FILE)
        await after("cached")
        free = await NrFree(0)
        assert await demote(cpu, FILE) == 1
        assert await NrFree(0) == free + 1
        assert cpu.vmstat["migrc_deferred"] == 1
        assert cpu.vmstat.get("migrc_flushes", 0) == 0
        taken = [await get_page_from_freelist(cpu, (0,), 0, 0) for _ in range(free + 1)]
        assert cpu.vmstat["migrc_flushes"] == 1
        for pfn in taken:
            await FolioPut(pfn)
        await mark("done")

    async def other(cpu: PerCpu) -> None:
        await user_read(cpu, FILE)
        await mark("cached")
        await after("done")

    machine = SmallMachine(Thread(0, body), Thread(1, other), policy=MigrcV9).run()
    assert not machine.violations


def test_a_migration_that_fails_leaves_no_generation_behind() -> None:
    async def body(cpu: PerCpu) -> None:
        await user_read(cpu, FILE)
        await after("cached")
        pfn = pte_pfn(await GetPte(1, FILE))
        await FolioGet(pfn)
        assert await demote(cpu, FILE) == 0
        assert await Load(page_generation_word(pfn)) == NO_GENERATION
        await FolioPut(pfn)
        await cpu.policy.drain(cpu)
        assert await Load(MIGRC_UBC) == 0
        await mark("done")

    async def other(cpu: PerCpu) -> None:
        await user_read(cpu, FILE)
        await mark("cached")
        await after("done")

    machine = SmallMachine(Thread(0, body), Thread(1, other), policy=MigrcV9).run()
    assert not machine.violations
    assert machine.vmstat("pgmigrate_fail") == 1


@pytest.mark.parametrize("architecture", ["sc", "x86"])
def test_random_runs_are_in_order_and_leave_nothing(architecture: str) -> None:
    actions = ("read", "read", "write", "hint", "demote", "promote")
    deferred = 0
    for seed in range(20):
        cpus = 2 + seed % 3
        threads = [Thread(number, random_body(seed, 20, actions), 1 + number % 2) for number in range(cpus)]
        machine = SmallMachine(
            *threads, cpus=cpus, architecture=architecture, policy=MigrcV9, migrate_batch=3
        )
        machine.run(seed)
        assert not machine.violations, (seed, machine.violations[0])
        deferred += machine.vmstat("migrc_deferred")
    assert deferred


def test_the_reused_rule_is_what_a_lost_generation_breaks() -> None:
    class Forgets(MigrcV9):
        async def before_handed_out(self, cpu: PerCpu, pfn: int, order: int) -> None:
            """No flush."""

    assert REUSED in search(TESTS["reuse"], "sc", Forgets, all_rules=True).rules
