"""Needless interrupts: asked for by a deferred flush, and known to be done."""

from __future__ import annotations

import random
from typing import Any

import pytest

from emulator.checks.frugality import NEEDLESS, Frugality
from emulator.checks.grace_period import GracePeriod
from emulator.hardware.cpu import IpiRequest, Kind, Transition
from emulator.hardware.operations import (
    AckIpi,
    FlushTlb,
    FolioCopy,
    FolioMigrateMapping,
    Operation,
    SendIpi,
    TryToMigratePte,
    WaitAcks,
)
from emulator.hardware.pte import PRESENT, mk_pte
from emulator.kernel.percpu import PerCpu
from emulator.kernel.tlb import TLB_FLUSH_ALL, flush_tlb_mm_range
from emulator.kernel.user import user_read
from emulator.policies.catalogue import POLICIES
from emulator.policies.migrc import Request
from emulator.policies.migrc_v3 import MigrcV3
from tests.kernel.small_machine import HEAP, SmallMachine, Thread, after, demote, mark, random_body

VPN = 0x10
BATCH = (-1, 0, -1, 0, 0)
RANGE = (1, VPN, VPN + 1, 2, 0)
TARGETS = (1, 2)


class Trace:
    """CPU 0 migrates a page that CPUs 1 and 2 may have cached."""

    def __init__(self) -> None:
        self.grace = GracePeriod(3, True, {1: 0b110}, lambda pfn: 0)
        self.check = Frugality(self.grace)
        self.number = 0

    def step(self, cpu: int, operation: Operation | None, answer: Any = None) -> None:
        kind = Kind.STEP if operation is not None else Kind.INTERRUPT
        for watcher in (self.grace, self.check):
            watcher.happened(Transition(kind, cpu), operation, False, answer)

    def unmap(self, vpn: int = VPN, frame: int = 1) -> None:
        self.step(0, TryToMigratePte(1, vpn, frame), mk_pte(frame, PRESENT))

    def move(self, frame: int = 1) -> None:
        self.step(0, FolioCopy(frame, frame + 50))
        self.step(0, FolioMigrateMapping(frame, frame + 50, 0), True)

    def flush(self, targets: tuple[int, ...], arguments: tuple[int, ...] = BATCH, wait: bool = True) -> None:
        self.number += 1
        self.step(0, SendIpi(targets, "flush_tlb_func", arguments, True), self.number)
        for target in targets:
            self.step(target, None, (IpiRequest(0, self.number, "flush_tlb_func", arguments, True, 0),))
            self.step(target, FlushTlb())
            self.step(target, AckIpi(0, self.number))
        if wait:
            self.step(0, WaitAcks(self.number))

    @property
    def found(self) -> list[tuple[str, int]]:
        return [(violation.rule, int(violation.text.split()[1])) for violation in self.check.violations]


def test_the_first_interrupt_is_needed_the_second_is_not() -> None:
    trace = Trace()
    trace.unmap()
    trace.move()
    trace.flush((1,))
    assert not trace.found
    trace.flush((1, 2))
    assert trace.found == [(NEEDLESS, 1)]


def test_who_does_not_wait_does_not_know() -> None:
    trace = Trace()
    trace.unmap()
    trace.move()
    trace.flush((1,), wait=False)
    trace.flush((1,))
    assert not trace.found


def test_another_translation_may_need_it() -> None:
    trace = Trace()
    trace.unmap()
    trace.move()
    trace.flush((1,))
    trace.unmap(VPN + 1, 2)
    trace.move(2)
    trace.flush((1,))
    assert not trace.found


@pytest.mark.parametrize("moved", [True, False])
def test_an_ordinary_flush_is_not_judged(moved: bool) -> None:
    trace = Trace()
    trace.unmap()
    if moved:
        trace.move()
    trace.flush((1,))
    trace.unmap(VPN + 1, 2)  # its flush is under way
    trace.flush((1,))
    trace.flush((1,), RANGE)
    assert not trace.found


def test_other_calls_are_not_flushes() -> None:
    trace = Trace()
    trace.unmap()
    trace.move()
    trace.flush((1,))
    trace.step(0, SendIpi((1,), "scheduler_ipi", (-1,), False), 9)
    assert not trace.found


ACTIONS = ("read", "read", "write", "demote", "promote", "hint")


def needless(policy: Any, seeds: int, architecture: str) -> int:
    """Reports over some random runs."""
    found = 0
    for seed in range(seeds):
        cpus = 2 + random.Random(seed).randrange(2)
        threads = [Thread(cpu, random_body(seed, 5, ACTIONS, 2)) for cpu in range(cpus)]
        machine = SmallMachine(*threads, cpus=cpus, policy=policy, architecture=architecture)
        plain_orders = machine.cpus[0].window.architecture.plain_orders
        grace = GracePeriod(cpus, plain_orders, {}, machine.kernels[0].parameters.nid)
        check = Frugality(grace)
        machine.engine.listeners = [grace, check]
        machine.run(seed)
        found += len(check.violations)
    return found


@pytest.mark.parametrize("architecture", ["sc", "x86", "riscv"])
def test_mainline_is_not_judged(architecture: str) -> None:
    assert not needless(POLICIES["immediate"], 40, architecture)


class Careless(MigrcV3):
    """Reads who has flushed since, and interrupts everybody all the same."""

    async def skip_flushed_cpus(self, cpu: PerCpu, request: Request) -> int:
        await super().skip_flushed_cpus(cpu, request)
        return request.cpumask


@pytest.mark.parametrize(("policy", "expected"), [(MigrcV3, []), (Careless, [NEEDLESS])])
def test_a_policy_that_does_not_use_its_notes_is_seen(policy: Any, expected: list[str]) -> None:
    async def mover(cpu: PerCpu) -> None:
        await after("cached")
        assert await demote(cpu, HEAP) == 1
        # Something else makes everybody flush, and note it.
        await flush_tlb_mm_range(cpu, 1, 0, TLB_FLUSH_ALL)
        await cpu.policy.drain(cpu)
        await mark("drained")

    async def holder(cpu: PerCpu) -> None:
        await user_read(cpu, HEAP)
        await mark("cached")
        await after("drained")

    machine = SmallMachine(Thread(0, mover), Thread(1, holder), policy=policy)
    grace = GracePeriod(2, True, {}, machine.kernels[0].parameters.nid)
    check = Frugality(grace)
    machine.engine.listeners = [grace, check]
    machine.run()
    assert [violation.rule for violation in check.violations] == expected
    assert not grace.violations
