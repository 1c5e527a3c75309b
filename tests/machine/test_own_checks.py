"""A machine brings its checks and watchers along: those of a user's own work wherever it is explored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from emulator.checks.onlooker import Check, Watcher
from emulator.checks.violation import Violation
from emulator.explore.exhaustive import exhaust
from emulator.explore.explorer import Explorer
from emulator.explore.learned import LearnedMachine
from emulator.explore.schedule import replay
from emulator.explore.search import Limits, search
from emulator.explore.strategies import find_strategy
from emulator.hardware.cpu import Transition
from emulator.hardware.operations import AtomicAdd, Operation
from emulator.hardware.ordering import ARCHITECTURES
from emulator.kernel.percpu import PerCpu
from emulator.machine.litmus import Litmus, LitmusMachine
from emulator.machine.referee import Referee
from emulator.memory.memory import Memory
from emulator.policies.immediate import Immediate
from tests.explore.broken_litmus import empty


class ThirdIsMine(Check):
    """Objects if CPU 1 makes the third addition, or at the end if nobody made a second."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def observe(self, cpu: int, operation: Operation, answer: Any) -> None:
        if isinstance(operation, AtomicAdd) and operation.word == "mine":
            self.seen += 1
            if self.seen == 3 and cpu == 1:
                self.violations.append(Violation("third by CPU 1", cpu, f"{self.seen} additions"))

    def finish(self) -> None:
        if self.seen < 2:
            self.violations.append(Violation("too few", -1, f"{self.seen} additions"))

    def state(self) -> int:
        return min(self.seen, 4)

    def restore(self, state: int) -> None:
        self.seen = state


class ThirdIsWatched(ThirdIsMine, Watcher):
    """The same from transitions."""

    def happened(
        self, transition: Transition, operation: Operation | None, issued: bool, answer: Any
    ) -> None:
        if operation is not None and not issued:
            self.observe(transition.cpu, operation, answer)


class Checked(LitmusMachine):
    def checks(self, memory: Memory) -> list[Any]:
        return [*super().checks(memory), ThirdIsMine()]


class Watched(LitmusMachine):
    def watchers(self) -> list[Any]:
        return [*super().watchers(), ThirdIsWatched()]


def adds(times: int) -> Callable[[PerCpu], Any]:
    async def program(kernel: PerCpu) -> None:
        for _ in range(times):
            await AtomicAdd("mine", 1)

    return program


def machine(kind: type[LitmusMachine], *times: int) -> LitmusMachine:
    litmus = Litmus("own", "?", tuple(adds(each) for each in times), empty, ())
    return kind(litmus, ARCHITECTURES["x86"], Immediate)


@pytest.mark.parametrize("kind", [Checked, Watched])
def test_a_check_of_ones_own_is_heard_in_every_explored_engine(kind: type[LitmusMachine]) -> None:
    built = machine(kind, 2, 2)
    explorers: tuple[Explorer, ...] = (Referee(built), LearnedMachine(built))
    for explorer in explorers:
        found = search(explorer, find_strategy("random")(), 1, Limits(100), lambda: False)
        assert found.violation == Violation("third by CPU 1", 1, "3 additions")
        assert replay(Referee(built), found.schedule) == found.violation
    every = exhaust(LearnedMachine(built), all_rules=True)
    assert every.complete and every.rules == {"third by CPU 1"}
    assert not exhaust(LearnedMachine(machine(kind, 2, 0)), all_rules=True).rules


@pytest.mark.parametrize("kind", [Checked, Watched])
def test_it_judges_the_end_too(kind: type[LitmusMachine]) -> None:
    built = machine(kind, 1, 0)
    found = exhaust(LearnedMachine(built))
    assert found.violation == Violation("too few", -1, "1 additions")
    assert replay(Referee(built), found.schedule) == found.violation
