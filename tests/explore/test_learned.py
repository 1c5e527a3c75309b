"""The learned machine is the plain engine, only faster: same options, same answers, same verdicts."""

from __future__ import annotations

import random

import pytest

from emulator.checks.frugality import NEEDLESS
from emulator.checks.violation import Violation
from emulator.explore.exhaustive import REDUCTIONS, exhaust, shortest
from emulator.explore.learned import LearnedMachine, state_key
from emulator.explore.scripts import Programs
from emulator.hardware.cpu import Kind
from emulator.hardware.operations import TABLE, Load, SmpMb, SmpMbAfterAtomic, SmpWmb, Store, Where
from emulator.hardware.operations.table import Alone
from emulator.kernel.percpu import PerCpu
from emulator.machine.litmus import Forbidden, Litmus, LitmusMachine
from emulator.machine.stepper import LocalEngine, plain_engine
from scenarios.mistakes.notes import NoBarrierAfterFlush
from tests.explore.small_litmus import demotion, machine, note_after_barrier, polling, reuse

ARCHITECTURES = ("sc", "x86", "riscv")
CASES = [
    (demotion(2), "immediate"),
    (demotion(1, 1), "migrc:v3"),
    (demotion(1, speculated=(0x10,)), "migrc:rfc2"),
    (reuse(False), "immediate"),
    (reuse(True), "immediate"),
]


def noted(engine: LocalEngine) -> list[Violation]:
    """What the checks of a plain run have found, memory's observers first."""
    return [violation for one in (*engine.checks, *engine.listeners) for violation in one.violations]


def watched(litmus: LitmusMachine) -> LocalEngine:
    engine = plain_engine(litmus)
    engine.listeners += litmus.watchers()
    return engine


def agree(litmus: LitmusMachine, learned: LearnedMachine, rng: random.Random) -> None:
    """One random run on both engines, step by step."""
    engine = watched(litmus)
    learned.reset()
    while options := learned.options():
        assert [option.transition for option in options] == engine.transitions()
        option = rng.choice(options)
        learned.take(option)
        engine.take(option.transition)
        broken = noted(engine)
        assert learned.violation == (broken[0] if broken else None)
        if broken:
            return
    assert engine.transitions() == []
    learned.finish()
    assert engine.finished() == (learned.violation is None or learned.violation.rule != "deadlock")
    engine.finish()
    broken = noted(engine)
    assert learned.violation == (broken[0] if broken else None)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("litmus", "policy"), CASES)
def test_every_step_is_the_plain_engines(litmus, policy, architecture) -> None:
    small = machine(litmus, architecture, policy)
    learned = LearnedMachine(small)
    for seed in range(60):
        agree(small, learned, random.Random(seed))


@pytest.mark.parametrize(("litmus", "policy"), CASES)
def test_what_programs_do_on_one_architecture_they_do_on_the_others(litmus, policy) -> None:
    lent = Programs(machine(litmus, "riscv", policy))
    for architecture in ("riscv", "sc", "x86"):
        small = machine(litmus, architecture, policy)
        assert lent.run_on(small)
        learned, alone = LearnedMachine(small, programs=lent), LearnedMachine(small)
        for seed in range(8):
            agree(small, learned, random.Random(seed))
        found = [exhaust(one, reduce=False, all_rules=True) for one in (learned, alone)]
        assert found[0] == found[1] and learned.reached == alone.reached
        if architecture == "riscv":
            known = [len(graph.states) for graph in lent.graphs]
    assert [len(graph.states) for graph in lent.graphs] == known, "sc and x86 have added nothing"


def test_programs_are_not_those_of_another_test_or_policy() -> None:
    lent = Programs(machine(demotion(2), "sc", "migrc:v3"))
    assert not lent.run_on(machine(demotion(2), "sc", "immediate"))
    assert not lent.run_on(machine(demotion(1), "sc", "migrc:v3"))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_is_forgotten_is_learnt_again(architecture: str) -> None:
    small = machine(demotion(2), architecture, "migrc:v3")
    learned = LearnedMachine(small, forget_beyond=40)
    for seed in range(20):
        agree(small, learned, random.Random(seed))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("litmus", "policy"), CASES)
def test_reductions_lose_nothing(litmus, policy, architecture) -> None:
    """Each reduction by itself and all together: the same rules break and the same counters are reached."""
    full = LearnedMachine(machine(litmus, architecture, policy))
    large = exhaust(full, reduce=False, all_rules=True)
    assert large.complete
    for names in (*[(name,) for name in REDUCTIONS], REDUCTIONS):
        reduced = LearnedMachine(machine(litmus, architecture, policy))
        small = exhaust(reduced, reduce=names, all_rules=True)
        assert small.complete
        assert small.rules == large.rules
        assert reduced.reached == full.reached
        assert small.states <= large.states
        # Executions are counted in doubles, in the order of the search.
        assert small.saved + small.schedules <= (large.saved + large.schedules) * (1 + 1e-12)


@pytest.mark.parametrize("barrier", [SmpMb, SmpWmb, SmpMbAfterAtomic])
def test_a_barrier_after_a_handler_is_not_one_before(barrier) -> None:
    """What a handler did is published by a plain store only if a barrier came between.

    The policy's own after a flush would do; it is left out.
    """
    found = {
        reduce: exhaust(
            LearnedMachine(machine(note_after_barrier(barrier), "riscv", NoBarrierAfterFlush)),
            reduce=reduce,
            all_rules=True,
        )
        for reduce in (True, False)
    }
    assert all(one.complete for one in found.values())
    assert found[True].rules == found[False].rules == {NEEDLESS}


async def _tells_and_fails(cpu: PerCpu) -> None:
    await Store("told", 1)
    await SmpMb()
    raise Forbidden("fails", "always")


async def _fails_if_told(cpu: PerCpu) -> None:
    if await Load("told"):
        raise Forbidden("was told", "in time")


@pytest.mark.parametrize("reduce", [True, False])
def test_a_rule_that_breaks_does_not_put_off_what_others_do(reduce: bool) -> None:
    """The barrier of CPU 0 comes first and alone, and ends the run before CPU 1 has seen anything."""
    programs = (_tells_and_fails, _fails_if_told)
    litmus = Litmus("told", "?", programs, lambda setup: None, (), drain=False)
    found = exhaust(LearnedMachine(machine(litmus, "sc")), reduce=reduce, all_rules=True)
    assert found.complete
    assert found.rules == {"fails", "was told"}


def test_all_executions_are_counted() -> None:
    """Saved and walked together are all executions: counted here by walking every single one."""
    learned = LearnedMachine(machine(reuse(True), "sc"))

    def walk() -> int:
        options = learned.options()
        if not options:
            return 1
        here = learned.snapshot()
        total = 0
        for option in options:
            learned.resume(here)
            learned.take(option)
            total += walk()
        return total

    learned.reset()
    everything = walk()
    found = exhaust(learned, reduce=False)
    assert found.complete
    assert found.schedules + found.saved == everything
    assert found.schedules < everything


def test_a_search_that_is_stopped_is_not_complete() -> None:
    learned = LearnedMachine(machine(demotion(3), "x86"))
    assert not exhaust(learned, stop=lambda: True).complete
    assert not exhaust(learned, max_states=1000).complete


@pytest.mark.parametrize("reduce", [True, False])
@pytest.mark.parametrize(("second", "ends"), [(("a", "b"), True), (("b", "a"), False)])
def test_states_from_which_no_run_ends(second: tuple[str, str], ends: bool, reduce: bool) -> None:
    """Somebody can always go on polling, so this deadlock of the other two is none of the whole machine."""
    learned = LearnedMachine(machine(polling(second), "sc"))
    found = exhaust(learned, reduce=reduce)
    assert found.complete and found.violation is None
    assert (found.endless == 0) == ends
    if not ends:
        learned.reset()
        for transition in found.endless_schedule:
            learned.take(next(one for one in learned.options() if one.transition == transition))
        waiting = {(option.cpu, type(option.operation[0]).__name__) for option in learned.options()}
        assert (1, "Lock") not in waiting and (2, "Lock") not in waiting


def test_a_violation_comes_with_the_schedule_that_leads_there() -> None:
    small = machine(reuse(False), "x86")
    learned = LearnedMachine(small)
    found = exhaust(learned)
    assert found.violation is not None
    for schedule in (found.schedule, shortest(learned, found.violation.rule)):
        assert schedule is not None
        engine = watched(small)
        for transition in schedule:
            engine.take(transition)
        assert found.violation.rule in {one.rule for one in noted(engine)}
        assert len(schedule) <= len(found.schedule)


def test_states_differ_when_what_can_follow_differs() -> None:
    """Random pairs of runs: equal keys mean equal options from there on, whatever is chosen."""
    learned = LearnedMachine(machine(demotion(1, 1), "riscv", "migrc:v3"))
    futures: dict[int, list[tuple[int, ...]]] = {}
    rng = random.Random(1)
    for _ in range(400):
        learned.reset()
        while options := learned.options():
            key = state_key(learned.snapshot())
            future = [tuple(option.transition) for option in options]
            assert futures.setdefault(key, future) == future
            learned.take(rng.choice(options))


def test_walks_ahead_happen_only_where_they_find_something_new() -> None:
    small = machine(demotion(1, speculated=(0x10, 0x11)), "x86", "migrc:v3")
    learned = LearnedMachine(small)
    rng = random.Random(3)
    walked = 0
    for _ in range(100):
        learned.reset()
        while options := learned.options():
            assert all(o.transition.at == 0x10 for o in options if o.transition.kind is Kind.WALK)
            option = rng.choice(options)
            walked += option.transition.kind is Kind.WALK
            learned.take(option)
    assert walked


def test_only_what_a_cpu_does_by_itself_may_be_taken_first() -> None:
    """Nothing that memory carries out, now or out of a window, has a row that says so."""
    first = {kind for kind, row in TABLE.items() if row.alone is not Alone.NEVER}
    assert first
    assert {TABLE[kind].where for kind in first} == {Where.CPU}
