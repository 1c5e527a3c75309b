"""A search that is shared out, here in this process: the same states, also when it is gone on with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from emulator.explore.compiled.share import Report
from emulator.explore.compiled.sharing_out import MEMORY, STATES, Here, Lost, Progress, SharedSearch
from emulator.explore.compiled.teacher import Forgetful
from emulator.explore.exhaustive import AMPLE, PERSISTENT, Exhausted, exhaust
from emulator.explore.learned import LearnedMachine
from emulator.machine.builder import Machine
from emulator.machine.litmus import Litmus
from scenarios.subjects.programs import LitmusName, machine_of
from tests.explore.small_litmus import demotion, polling, reuse
from tests.explore.small_litmus import machine as small_machine

pytest.importorskip("wasmtime")

PROVED = ("shootdown", "immediate", "riscv")
POLLING = polling(("b", "a"))


def never(progress: Progress) -> str:
    return ""


REDUCTIONS = (AMPLE, PERSISTENT)  # that searches which are shared out have


def of(name: str, policy: str, arch: str) -> Machine:
    return machine_of(LitmusName(name), policy, arch)


def shared(
    machine: Machine,
    shares: int,
    names: tuple[str, ...] = REDUCTIONS,
    states: int = 1_000_000,
    stop: Callable[[Progress], str] = never,
) -> SharedSearch:
    learned = LearnedMachine(machine)
    return SharedSearch(learned, names, Here(shares, learned.cpus), states, stop)


def verdict(found: Exhausted) -> tuple[object, ...]:
    rule = found.violation and found.violation.rule
    return found.complete, found.states, found.schedules, found.endless, len(found.endless_schedule), rule


@pytest.mark.parametrize("names", [REDUCTIONS, (AMPLE,), ()])
@pytest.mark.parametrize("litmus", [polling(("a", "b")), POLLING])
def test_programs_that_poll_end_or_not_as_one_process_finds(litmus: Litmus, names: tuple[str, ...]) -> None:
    machine = small_machine(litmus, "x86")
    alone = exhaust(LearnedMachine(machine), reduce=names)
    assert verdict(shared(machine, 3, names).run()) == verdict(alone)
    assert (alone.endless > 0) == (litmus is POLLING)


@pytest.mark.parametrize("names", [REDUCTIONS, (AMPLE,)])
def test_shares_meet_the_states_of_one_process(names: tuple[str, ...]) -> None:
    learned = LearnedMachine(of(*PROVED))
    alone = exhaust(learned, reduce=names)
    mine = LearnedMachine(of(*PROVED))
    found = SharedSearch(mine, names, Here(2, mine.cpus), 10_000, never).run()
    assert verdict(found) == verdict(alone)
    assert mine.reached == learned.reached
    for cpu in range(mine.cpus):
        assert len(mine.nodes_of(cpu)) == len(learned.nodes_of(cpu))


def test_a_rule_that_breaks_is_found_with_the_way_there() -> None:
    machine = small_machine(reuse(False), "x86")
    alone = exhaust(LearnedMachine(machine))
    found = shared(machine, 3).run()
    assert found.violation == alone.violation
    assert not found.complete
    learned = LearnedMachine(machine)
    for transition in found.schedule:
        assert learned.attempt(transition) == transition
    learned.finish()
    assert learned.violation == found.violation


def stopped_after(states: int) -> Callable[[Progress], str]:
    return lambda progress: "enough" if progress.states >= states else ""


@pytest.fixture
def small_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emulator.explore.compiled.sharing_out.BUDGET", 50)


@pytest.mark.usefixtures("small_orders")
@pytest.mark.parametrize(
    ("machine", "states"), [(of(*PROVED), 200), (of(*PROVED), 3), (small_machine(POLLING, "x86"), 20)]
)
def test_what_was_stopped_goes_on_from_there(machine: Machine, states: int) -> None:
    whole = shared(machine, 2).run()
    first = shared(machine, 2, stop=stopped_after(states))
    found = first.run()
    assert (found.complete, found.stopped, first.can_go_on) == (False, "enough", True)
    assert states <= found.states < whole.states
    kept, blocks = first.unfinished(), list(first.blocks())
    assert sum(one.states for one in kept.shares) >= found.states
    second = shared(machine, 2)
    second.come_back(kept, iter(blocks))
    again = second.run()
    assert verdict(again) == verdict(whole)
    assert (again.steps, again.rounds) == (whole.steps, whole.rounds)


@pytest.mark.usefixtures("small_orders")
def test_what_was_kept_of_another_program_is_refused() -> None:
    first = shared(small_machine(demotion(2), "x86"), 1, stop=stopped_after(100))
    first.run()
    for other in (small_machine(demotion(1), "x86"), small_machine(POLLING, "x86"), of(*PROVED)):
        with pytest.raises(Forgetful):
            shared(other, 1).come_back(first.unfinished(), first.blocks())


def test_limits_end_it() -> None:
    limited = shared(of(*PROVED), 2, states=300)
    found = limited.run()
    assert (found.complete, found.stopped, limited.can_go_on) == (False, STATES, True)
    learned = LearnedMachine(of(*PROVED))
    little = SharedSearch(learned, (), Here(2, learned.cpus), 1_000_000, never, lambda taken: 1 << 20)
    found = little.run()
    assert (found.complete, found.stopped) == (False, MEMORY)


class Mortal(Here):
    """A crew one of whose processes dies after some orders."""

    orders = 0

    def receive(self, patient: bool) -> Iterator[tuple[int, Report, list[Any]]]:
        self.orders += 1
        if self.orders > 9:
            raise Lost("worker 1 is gone")
        return super().receive(patient)


def test_a_process_that_is_gone_leaves_no_proof() -> None:
    learned = LearnedMachine(of(*PROVED))
    search = SharedSearch(learned, REDUCTIONS, Mortal(2, learned.cpus), 10_000, never)
    found = search.run()
    assert (found.complete, found.stopped, search.can_go_on) == (False, "worker 1 is gone", False)
    assert found.states > 0
