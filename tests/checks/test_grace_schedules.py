"""Random schedules: mainline trips nothing under any, and the postings only what is known of them.

A check that is put back into an earlier state judges on as the one that was there.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from emulator.checks.grace_period import (
    COPIED,
    WRITABLE,
    GracePeriod,
)
from emulator.hardware.cpu import Transition
from emulator.hardware.operations import (
    Cycle,
    FolioIsolateLru,
    FolioPutbackLru,
    VmaInsert,
    VmaRemove,
)
from emulator.hardware.ordering import ARCHITECTURES
from emulator.kernel import sched, smp
from emulator.kernel.migrate import migrate_pages
from emulator.kernel.mmu_gather import zap_page_range_single
from emulator.kernel.mprotect import change_prot_numa
from emulator.kernel.percpu import PerCpu
from emulator.kernel.policy import MR_NUMA_MISPLACED
from emulator.kernel.user import user_read, user_write
from emulator.machine.litmus import MM, SLOW, Litmus, LitmusMachine, Setup
from emulator.machine.stepper import plain_engine
from emulator.memory.page_table import VM_READ, VM_WRITE, Vma
from emulator.policies.catalogue import POLICIES
from tests.checks.grace_lab import ARCHES, VPN, watch
from tests.kernel.small_machine import SmallMachine, Thread, random_body


def one_page(writable: bool = False, node: int = 0) -> Callable[[Setup], None]:
    def setup(start: Setup) -> None:
        start.area(VPN, 4)
        start.page(VPN, node=node, writable=writable, dirty=writable)
        start.page(VPN + 1, writable=True, dirty=True)
        for cpu in range(start.cpus):
            start.cache(cpu, VPN)
            start.cache(cpu, VPN + 1)

    return setup


def two_files(start: Setup) -> None:
    start.area(VPN, 4, file=1)
    pfn = start.page(VPN, exclusive=False)
    start.in_page_cache(pfn, 1, 0)
    for cpu in range(start.cpus):
        start.cache(cpu, VPN)


async def demoter(cpu: PerCpu) -> None:
    if await FolioIsolateLru(1):
        _, failed = await migrate_pages(cpu, [1], SLOW, MR_NUMA_MISPLACED)
        for pfn in failed:
            await FolioPutbackLru(pfn, False)


async def scanner(cpu: PerCpu) -> None:
    await change_prot_numa(cpu, MM, VPN, VPN + 2)


async def reader(cpu: PerCpu) -> None:
    await user_read(cpu, VPN)
    await user_read(cpu, VPN + 1)


async def writer(cpu: PerCpu) -> None:
    await user_write(cpu, VPN, cpu.new_version())
    await user_write(cpu, VPN + 1, cpu.new_version())


async def remapper(cpu: PerCpu) -> None:
    (area,) = await VmaRemove(MM, VPN + 1, VPN + 2)
    await zap_page_range_single(cpu, MM, Vma(*area), VPN + 1, VPN + 2)
    await VmaInsert(MM, VPN + 1, VPN + 2, VM_READ | VM_WRITE, 0, 0)
    await user_write(cpu, VPN + 1, 5)


async def short_reader(cpu: PerCpu) -> None:
    await user_read(cpu, VPN)
    await user_read(cpu, VPN)


async def copier(cpu: PerCpu) -> None:
    await user_write(cpu, VPN, cpu.new_version())
    await user_read(cpu, VPN)


LITMUS = {
    "demotion": Litmus("demotion", "", (demoter, reader), one_page(), (), speculated=(VPN,)),
    "demotion of a dirty page": Litmus("dirty", "", (demoter, writer, reader), one_page(True), ()),
    "write fault": Litmus("write", "", (demoter, writer, writer), one_page(), (), speculated=(VPN,)),
    "promotion": Litmus("promotion", "", (scanner, reader, writer), one_page(True, SLOW), ()),
    "munmap": Litmus("munmap", "", (remapper, short_reader, demoter), one_page(), (), fast=3),
    "copy on write": Litmus("cow", "", (copier, copier, demoter), two_files, ()),
    "reuse": Litmus("reuse", "", (demoter, short_reader, remapper), one_page(), (), fast=2),
}
# What is wrong with the postings shows in these, and nowhere else.
HOLES = {("migrc:v3", WRITABLE), ("migrc:rfc2", WRITABLE), ("migrc:rfc2", COPIED)}


def start(name: str, architecture: str, policy: str) -> tuple[Any, GracePeriod]:
    machine = LitmusMachine(LITMUS[name], ARCHITECTURES[architecture], POLICIES[policy])
    engine = plain_engine(machine)
    check = machine.watchers()[0]
    engine.listeners.append(check)
    return engine, check


def choose(engine: Any, rng: random.Random, order: list[int], chance: float) -> bool:
    possible = engine.transitions()
    if not possible:
        assert engine.finished(), engine.deadlock()
        return False
    if rng.random() < chance:
        rng.shuffle(order)
    first = min(order.index(transition.cpu) for transition in possible)
    engine.take(rng.choice([transition for transition in possible if transition.cpu == order[first]]))
    return True


@pytest.mark.parametrize("policy", ["immediate", "migrc:v3", "migrc:rfc2"])
@pytest.mark.parametrize("name", LITMUS)
@ARCHES
def test_random_schedules(architecture: str, name: str, policy: str) -> None:
    found = set()
    for seed in range(150 if policy == "immediate" else 60):
        rng = random.Random(seed)
        engine, check = start(name, architecture, policy)
        order = list(range(len(engine.cpus)))
        while choose(engine, rng, order, (1.0, 0.2, 0.05)[seed % 3]):
            pass
        # What coherence sees this sees too, in the same run.
        assert check.violations or not engine.checks[0].violations
        found |= {(policy, violation.rule) for violation in check.violations}
    assert found <= HOLES
    if policy == "immediate":
        assert not found


class Twice:
    """Two checks told the same; the second is thrown away and put back from its state now and then."""

    def __init__(self, first: GracePeriod, make: Callable[[], GracePeriod], rng: random.Random) -> None:
        self.first = first
        self.second = make()
        self.make = make
        self.rng = rng
        self.violations: list[Any] = []

    def happened(self, transition: Transition, operation: Any, issued: bool, answer: Any) -> None:
        if self.rng.random() < 0.1:
            state = self.second.state()
            hash(state)
            again = self.make()
            again.restore(state)
            assert again.state() == state
            again.violations = self.second.violations
            self.second = again
        for check in (self.first, self.second):
            check.happened(transition, operation, issued, answer)
        assert self.second.violations == self.first.violations
        assert self.second.state() == self.first.state()


@pytest.mark.parametrize("name", LITMUS)
@ARCHES
def test_going_on_from_a_state_judges_the_same(architecture: str, name: str) -> None:
    for seed in range(12):
        rng = random.Random(seed)
        engine, check = start(name, architecture, ("migrc:rfc2", "migrc:v3")[seed % 2])
        engine.listeners = [Twice(check, lambda: start(name, architecture, "immediate")[1], rng)]
        order = list(range(len(engine.cpus)))
        while choose(engine, rng, order, 0.2):
            pass


ACTIONS = ("read", "write", "demote", "promote", "hint")


def busy_machine(seed: int, architecture: str) -> SmallMachine:
    """Threads of two address spaces share a CPU, so that it goes lazy, leaves and comes back."""
    cpus = 2 + seed % 2
    threads = [
        Thread(number % cpus, random_body(seed, 4, ACTIONS, 2), mm=1 + number // 2)
        for number in range(cpus + 1)
    ]
    return SmallMachine(*threads, cpus=cpus, architecture=architecture, fast=(8, 64)[seed % 2])


@pytest.mark.parametrize("architecture", ["sc", "x86"])
def test_mainline_with_lazy_cpus(architecture: str) -> None:
    for seed in range(150):
        machine = busy_machine(seed, architecture)
        check = watch(machine)
        machine.run(seed)
        assert not check.violations


@pytest.mark.parametrize("with_barriers", [True, False])
def test_lazy_mode_needs_barriers_where_plain_accesses_order_nothing(
    with_barriers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """x86 goes lazy by a plain store and skips by a plain load. Elsewhere the last accesses before have to be
    kept from passing the store, and the copying after from passing the load."""
    if not with_barriers:
        monkeypatch.setattr(sched, "SmpMb", Cycle)
        monkeypatch.setattr(smp, "SmpRmb", Cycle)
    for seed in range(150 if with_barriers else 3_000):
        machine = busy_machine(seed, "riscv")
        check = watch(machine)
        machine.run(seed)
        if check.violations:
            assert not with_barriers, (seed, check.violations[0])
            return
    assert with_barriers
