"""Where CPUs may come back to: by their own graphs, and by what has to come back besides."""

from __future__ import annotations

import random
from typing import Any

import pytest

from emulator.explore.cycles import components, cycles_of
from emulator.explore.exhaustive import exhaust
from emulator.explore.learned import LearnedMachine
from emulator.hardware.operations import AtomicAdd, Load, Store, WaitFor
from emulator.kernel.percpu import PerCpu
from emulator.machine.builder import Machine
from emulator.machine.litmus import Litmus
from scenarios.subjects.programs import LitmusName, machine_of
from tests.explore.small_litmus import machine as small_machine


def test_components_are_who_reaches_whom_and_back() -> None:
    lot = random.Random(3)
    for _ in range(300):
        count = lot.randint(1, 9)
        following = {at: [lot.randrange(count + 1) for _ in range(lot.randrange(3))] for at in range(count)}
        # Slowly: who is reached from where. One is led to that is no key.
        reached = {at: {to for to in onwards if to in following} for at, onwards in following.items()}
        for _ in following:
            for onwards in reached.values():
                onwards |= {far for near in list(onwards) for far in reached[near]}
        found = components(following)
        assert set(found) == {at for at in following if at in reached[at]}
        for one, number in found.items():
            together = {other for other in found if found[other] == number}
            assert together == {other for other in reached[one] if one in reached[other]}


def cycles(machine: Machine) -> list[int]:
    """How many states of each CPU may come back."""
    learned = LearnedMachine(machine)
    exhaust(learned)
    graphs = [learned.nodes_of(cpu) for cpu in range(learned.cpus)]
    found = cycles_of(graphs, learned.sharing.footprints.paths)
    return [sum(node in found for node in nodes) for nodes in graphs]


async def toggles(cpu: PerCpu) -> None:
    while not await Load("stop"):
        await Store("x", 1 - await Load("x"))


async def tries(cpu: PerCpu) -> None:
    while await Load("x"):
        await WaitFor("x", 0)


async def sets(cpu: PerCpu) -> None:
    for value in (1, 0, 1, 0):
        await Store("x", value)


async def counts(cpu: PerCpu) -> None:
    while await Load("x") < 4:
        await AtomicAdd("x", 1)


async def polls(cpu: PerCpu) -> None:
    while not await Load("x"):
        pass


@pytest.mark.parametrize(
    ("programs", "come_back"),
    [
        # Who waits for a change and tries again has not come back, where nobody changes it back.
        ((sets, tries), (False, False)),
        ((sets, polls), (False, True)),
        # Nor who changes what nobody changes back.
        ((counts, counts), (False, False)),
        ((toggles, tries), (True, True)),
        ((toggles, sets), (True, False)),
    ],
)
def test_cells_have_to_come_back_too(programs: tuple[Any, Any], come_back: tuple[bool, bool]) -> None:
    litmus = Litmus("cycles", "Who comes back?", programs, lambda setup: None, ())
    assert tuple(count > 0 for count in cycles(small_machine(litmus, "sc"))) == come_back


def test_an_idle_cpu_that_is_interrupted_has_not_come_back() -> None:
    assert cycles(machine_of(LitmusName("shootdown"), "immediate", "riscv")) == [0, 0]
