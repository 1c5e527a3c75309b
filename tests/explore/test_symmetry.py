"""Swapping CPUs that run one program: nothing is lost, and what is not alike is not merged."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from emulator.checks.violation import Violation
from emulator.explore.compiled.runs import exhaust as exhaust_fast
from emulator.explore.compiled.walker import Walker
from emulator.explore.exhaustive import AMPLE, PERSISTENT, REDUCTIONS, SYMMETRY, Exhausted, exhaust
from emulator.explore.learned import LearnedMachine, state_key
from emulator.explore.orbits import Orbits, orders
from emulator.explore.symmetry import NotAlike, Swap, apart, symmetry_of
from emulator.hardware.operations import AtomicAdd, Load, Store
from emulator.hardware.ordering import ARCHITECTURES
from emulator.kernel.percpu import PerCpu
from emulator.machine.litmus import Body, Forbidden, Litmus, LitmusMachine
from emulator.machine.referee import Referee
from scenarios.litmus import LITMUS
from scenarios.subjects.policies import policy_factory
from tests.explore.small_litmus import demotion, machine, reuse


def widened(name: str, policy: str, architecture: str, cpus: int = 3) -> LitmusMachine:
    """A test of the catalogue with more CPUs that run the last program."""
    litmus = LITMUS[name]
    wide = replace(litmus, programs=litmus.programs + litmus.programs[-1:] * (cpus - litmus.cpus))
    return LitmusMachine(wide, ARCHITECTURES[architecture], policy_factory(policy))


def told(programs: tuple[Body, ...]) -> Litmus:
    return Litmus("alike", "are they?", programs, lambda setup: None, (), drain=False)


async def numbered(cpu: PerCpu) -> None:
    """Writes its number, which others may write too."""
    await Store("note", cpu.number + 1)


def never() -> bool:
    return False


def orbits_of(built: LitmusMachine) -> Counter[int]:
    """Every state as it is entered by symmetry alone: how many there are of each size of orbit."""
    learned = LearnedMachine(built)
    # Which CPUs are alike, and by which names.
    assert SYMMETRY in exhaust(learned, reduce=(SYMMETRY,), all_rules=True).reductions
    symmetry = symmetry_of(learned)
    assert symmetry is not None
    orbits = Orbits(learned, symmetry)
    learned.restart()
    start = learned.snapshot()
    ahead, met, sizes = [start], {orbits.key(start)}, Counter[int]()
    while ahead:
        state = ahead.pop()
        orbit = {state_key(state): state}
        for one in (todo := [state]):
            for swap in range(len(symmetry.swaps)):
                image = orbits.swapped(swap, one)
                if orbit.setdefault(state_key(image), image) is image:
                    todo.append(image)
        sizes[len(orbit)] += 1
        assert {orbits.key(one) for one in orbit.values()} == {orbits.key(state)}
        learned.resume(state)
        for option in learned.options():
            learned.resume(state)
            learned.violation = None
            learned.take(option)
            after = learned.snapshot()
            if learned.violation is None and orbits.key(after) not in met:
                met.add(orbits.key(after))
                ahead.append(after)
    return sizes


@pytest.mark.parametrize(
    "built",
    [
        pytest.param(machine(demotion(2), "sc", "migrc:v9"), id="demotion"),
        pytest.param(machine(reuse(False, 2), "sc"), id="reuse"),
        pytest.param(machine(reuse(True, 2), "x86"), id="reuse, x86"),
        pytest.param(machine(told((numbered,) * 3), "x86"), id="three"),
    ],
)
def test_what_swaps_make_of_states_are_all_states_there_are(built: LitmusMachine) -> None:
    sizes = orbits_of(built)
    every = exhaust(LearnedMachine(built), reduce=(), all_rules=True)
    assert every.complete
    assert sum(size * many for size, many in sizes.items()) == every.states
    assert sum(sizes[size] for size in (2, 3, 6)) > sizes[1]
    reduced = exhaust(LearnedMachine(built), reduce=(SYMMETRY,), all_rules=True)
    assert reduced.states == sizes.total()
    # What is walked stands for as many executions.
    assert reduced.saved + reduced.schedules == pytest.approx(every.saved + every.schedules, rel=1e-12)


def proved_alike(built: LitmusMachine, names: tuple[str, ...], states: int = 200_000) -> Exhausted:
    """In Python and compiled: the same, to the last state."""
    slow = exhaust(LearnedMachine(built), never, states, names, True)
    learned = LearnedMachine(built)
    fast = Walker(learned).exhaust(never, states, names, True)
    assert replace(fast, steps=slow.steps) == slow if PERSISTENT in names else fast == slow
    return slow


@pytest.mark.parametrize(
    ("name", "policy", "names"),
    [("shootdown", "immediate", (AMPLE, SYMMETRY)), ("deferred-copy", "migrc:v3", REDUCTIONS)],
)
def test_tests_of_the_catalogue_with_two_readers(name, policy, names) -> None:
    built = widened(name, policy, "sc")
    found = proved_alike(built, names)
    assert found.complete
    assert SYMMETRY in found.reductions
    plain = exhaust_fast(LearnedMachine(built), reduce=tuple([one for one in names if one != SYMMETRY]))
    assert found.rules == plain.rules
    assert plain.states / 2 <= found.states < plain.states * 0.6


def test_three_readers_are_less_than_a_fifth() -> None:
    found = exhaust_fast(LearnedMachine(widened("deferred-copy", "migrc:v3", "sc", 4)))
    assert (found.complete, found.violation, found.states) == (True, None, 17_156)


@pytest.mark.parametrize("policy", ["mistake:no-wait-for-acknowledgements", "mistake:interrupt-to-nobody"])
def test_a_witness_is_one_of_the_plain_engine(policy: str) -> None:
    built = widened("shootdown", policy, "x86")
    found = exhaust(LearnedMachine(built))
    fast = Walker(LearnedMachine(built)).exhaust(never, 200_000, REDUCTIONS, False)
    for one in (found, fast):
        assert SYMMETRY in one.reductions
        assert one.violation is not None
        referee = Referee(built)
        referee.reset()
        for transition in one.schedule:
            assert referee.attempt(transition) == transition
        assert referee.violation is not None
        assert referee.violation.rule == one.violation.rule


# --- CPUs that are not alike though they run the same ----------------------------------------------------


async def numbered_and_judged(cpu: PerCpu) -> None:
    await Store("note", cpu.number + 1)
    if await Load("note") == 3:
        raise Forbidden("two", "the highest number was last")


async def only_the_second(cpu: PerCpu) -> None:
    await AtomicAdd("met", 1)
    if cpu.number == 1 and await Load("met") == 3:
        raise Forbidden("one", "it was last")


async def neighbours(cpu: PerCpu) -> None:
    """A ring: each reads what the next one has written."""
    await Store(f"note.{cpu.number}", 1)
    if not await Load(f"note.{(cpu.number + 1) % 3}"):
        await AtomicAdd("missed", 1)


@pytest.mark.parametrize(
    ("program", "alike"),
    [(numbered, True), (numbered_and_judged, False), (only_the_second, False), (neighbours, False)],
)
@pytest.mark.parametrize("architecture", ["sc", "x86"])
def test_numbers_may_be_used_as_long_as_nobody_can_tell(program, alike, architecture) -> None:
    built = machine(told((program,) * 3), architecture)
    every = exhaust(LearnedMachine(built), reduce=(), all_rules=True)
    found = proved_alike(built, (SYMMETRY,))
    assert every.complete
    assert found.complete
    assert found.rules == every.rules
    learned = LearnedMachine(built)
    exhaust(learned, reduce=(SYMMETRY,), all_rules=True)
    assert learned.twins is not None
    pairs = [one[:2] for one in learned.twins]
    assert pairs == [(0, 1), (1, 2)] if alike else len(pairs) < 2
    if not alike:
        # Nothing is left of what was tried, as it may not be.
        clean = LearnedMachine(built)
        exhaust(clean, reduce=(), all_rules=True)
        assert learned.reached == clean.reached


async def first_or_last(cpu: PerCpu) -> None:
    if await AtomicAdd("done", 1) == 1:
        await Store("first", cpu.number)
    else:
        await Store(f"note.{cpu.number}", 1)
        await AtomicAdd("done", 1)


async def looks_at_the_first_then_at_cpu_1(cpu: PerCpu) -> None:
    if first := await Load("first"):
        done = await Load("done")
        await Load(f"note.{first}")
        if done == 3 and await Load("note.1"):
            raise Forbidden("one", "the first CPU was last")


def test_what_one_cpu_looks_at_may_come_to_have_two_counterparts() -> None:
    """The load of CPU 1's note is that of CPU 2's where CPU 2 was first, and later on itself."""
    program = looks_at_the_first_then_at_cpu_1
    built = machine(told((program, first_or_last, first_or_last)), "sc")
    assert proved_alike(built, (SYMMETRY,)).rules == {"one"}


async def the_last_by_its_name(cpu: PerCpu) -> None:
    if await AtomicAdd("met", 1) == 2:
        raise Forbidden(f"cpu {cpu.number}", "it was last")


def test_rules_may_be_told_apart_by_cpus() -> None:
    built = machine(told((the_last_by_its_name,) * 2), "sc")
    assert proved_alike(built, (SYMMETRY,)).rules == {"cpu 0", "cpu 1"}


def test_nothing_has_two_counterparts() -> None:
    footprints = LearnedMachine(machine(told((numbered,) * 2), "sc")).sharing.footprints
    swap = Swap(0, 1, {}, (footprints,))
    assert swap.nodes.pair("a", "b")
    assert not swap.nodes.pair("b", "a")
    for one, other in [("a", "c"), ("c", "b"), ("a", "a")]:
        with pytest.raises(NotAlike):
            swap.nodes.pair(one, other)
    image = swap.images[0]
    assert image.act(5, 6)
    image.answer(5, 6, 1, 2)
    with pytest.raises(NotAlike):
        image.answer(5, 6, 1, 3)


def test_a_check_may_tell_cpus_apart_at_the_end(monkeypatch) -> None:
    learned = LearnedMachine(machine(told((numbered,) * 2), "sc"))
    exhaust(learned, reduce=(SYMMETRY,))
    symmetry = symmetry_of(learned)
    assert symmetry is not None
    image = symmetry.swaps[0].images[0]
    state = next(one for one in learned.sharing.nodes if image.of_state(one) != one)
    found = Violation("check", -1, "only of this one")
    monkeypatch.setattr(learned.sharing, "audited", lambda one: found if one == state else None)
    symmetry._judged[0].clear()
    with pytest.raises(NotAlike):
        symmetry.judge_part(0, state)


def test_what_was_reached_by_a_swap_that_is_none_does_not_count() -> None:
    """A counterpart may do in a trial what no run does: what it counts there has not been reached."""
    learned = LearnedMachine(machine(told((numbered,) * 2), "sc"))
    learned.reached.add("before")
    exhaust(learned, reduce=(SYMMETRY,))
    symmetry = symmetry_of(learned)
    assert symmetry is not None
    learned.reached.add("by the swap")
    apart(learned, NotAlike(symmetry.swaps[0], "another answer"))
    assert learned.reached == {"before"}
    assert learned.twins == []


def test_other_programs_are_not_even_tried() -> None:
    assert machine(demotion(1, 1)).twins() == []
    assert machine(demotion(2)).twins() == [(1, 2)]
    assert SYMMETRY not in exhaust(LearnedMachine(machine(demotion(1)))).reductions


@pytest.mark.parametrize("blocks", [((0, 2),), ((1, 4),), ((0, 2), (2, 3))])
def test_all_orders_come_about_by_swaps_of_neighbours(blocks) -> None:
    order = list(range(6))
    met = {tuple(order)}
    for at in orders(blocks):
        order[at], order[at + 1] = order[at + 1], order[at]
        met.add(tuple(order))
    assert len(met) == {((0, 2),): 2, ((1, 4),): 24, ((0, 2), (2, 3)): 12}[blocks]
    assert len(orders(blocks)) == len(met) - 1
