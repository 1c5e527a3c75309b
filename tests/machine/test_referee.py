"""The referee: what it makes of checks, watchers, programs that raise, and ends of runs."""

from __future__ import annotations

from typing import Any

import pytest

from emulator.checks.violation import Violation
from emulator.explore.search import Limits, Tally, search
from emulator.explore.strategies import find_strategy
from emulator.hardware.cpu import Kind, Transition
from emulator.hardware.operations import LocalIrqDisable, Operation, SendIpi
from emulator.kernel.percpu import PerCpu
from emulator.kernel.tlb import flush_everything, flush_tlb_func
from emulator.machine.litmus import LitmusMachine
from emulator.machine.referee import Referee, agent_of
from tests.explore.broken_litmus import (
    allocates_for_ever,
    cached_everywhere,
    early_free,
    fails,
    flushes_with_interrupts_off,
    lost_wakeup,
    machine,
    moves,
    reads,
    reads_nothing,
    sees_itself,
)


def first(broken: LitmusMachine) -> Tally:
    return search(Referee(broken), find_strategy("random")(), 1, Limits(100), lambda: False)


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        (early_free(), "access to a free frame"),
        (lost_wakeup(), "deadlock"),
        (machine(sees_itself, sees_itself), "both are here"),
        (machine(allocates_for_ever), "allocation failed"),
        (machine(reads_nothing), "segmentation fault"),
        (
            machine(flushes_with_interrupts_off, reads, setup=cached_everywhere),
            "waits for acknowledgements with interrupts off",
        ),
    ],
)
def test_what_breaks_is_named(broken: LitmusMachine, rule: str) -> None:
    tally = first(broken)
    assert tally.violation is not None
    assert tally.violation.rule == rule
    assert tally.violation.text


def test_a_mistake_of_a_program_is_no_violation() -> None:
    with pytest.raises(RuntimeError, match="a mistake"):
        first(machine(fails))


def test_nothing_follows_a_program_that_raised() -> None:
    explorer = Referee(machine(reads_nothing, reads_nothing))
    while explorer.violation is None:
        explorer.take(explorer.options()[0])
    assert explorer.violation.cpu == 0
    assert not explorer.options()
    kept = explorer.violation
    explorer.finish()
    assert explorer.violation is kept
    explorer.reset()
    assert explorer.options()
    assert explorer.violation is None


def test_a_watcher_is_made_for_every_run_and_heard() -> None:
    made = []

    class Counts:
        def __init__(self) -> None:
            self.violations: list[Any] = []
            self.seen = 0
            made.append(self)

        def happened(
            self, transition: Transition, operation: Operation | None, issued: bool, answer: Any
        ) -> None:
            self.seen += 1
            if self.seen == 3:
                self.violations.append(Violation(rule="three", cpu=transition.cpu, text="seen"))

    watched = machine(moves, reads, setup=cached_everywhere)
    watched.watchers = lambda: (Counts(),)  # type: ignore[method-assign]
    explorer = Referee(watched)
    for _ in range(2):
        explorer.reset()
        for step in range(5):
            assert (explorer.violation is not None) == (step >= 3)
            explorer.take(explorer.options()[0])
        assert explorer.violation == Violation(rule="three", cpu=0, text="seen")
    assert [watcher.seen for watcher in made][-2:] == [5, 5]


def test_a_machine_that_is_not_drained_owes_nothing_at_the_end() -> None:
    for drain in (True, False):
        explorer = Referee(machine(moves, reads, setup=cached_everywhere, drain=drain))
        while options := explorer.options():
            explorer.take(options[0])
        explorer.finish()
        assert explorer.violation is None


def test_paths_and_agents() -> None:
    explorer = Referee(early_free(2, walked=True))
    kept = explorer.path
    while options := explorer.options():
        assert [option.agent for option in options] == [agent_of(option.transition) for option in options]
        agents = [option.agent for option in options]
        assert agents == sorted(agents), "an agent's options are side by side"
        explorer.take(options[-1])
    taken = list(kept)
    assert taken[0].kind is Kind.STEP
    explorer.reset()
    assert explorer.path == []
    assert kept == taken, "an earlier run's path is left alone"


async def calls(cpu: PerCpu) -> None:
    await SendIpi((1,), flush_tlb_func.__name__, flush_everything(cpu), False)


async def deaf(cpu: PerCpu) -> None:
    await LocalIrqDisable()


def test_a_call_that_nobody_takes_is_no_end_though_nobody_waits_for_it() -> None:
    for programs, rule in (((calls, deaf), "deadlock"), ((deaf, deaf), None)):
        explorer = Referee(machine(*programs, drain=False))
        while options := explorer.options(1) or explorer.options():
            explorer.take(options[0])
        explorer.finish()
        assert (explorer.violation and explorer.violation.rule) == rule
