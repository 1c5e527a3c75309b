"""Fingerprints of suspended programs: equal only if what follows is equal, and equal when it should be."""

from __future__ import annotations

import atexit
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.explore.learned import LearnedMachine
from emulator.explore.scripts import NotDeterministic, Stack
from emulator.explore.surroundings import SharedState, Surroundings
from emulator.explore.unsearchable import Unreadable
from emulator.hardware.cpu import Cpu, Kind, Transition
from emulator.hardware.operations import AtomicAdd, Load, Store
from emulator.kernel.percpu import PerCpu
from emulator.machine.litmus import Litmus
from emulator.machine.stepper import boot as boot_cpu
from tests.explore.small_litmus import machine, one_page

Body = Callable[[PerCpu], Awaitable[None]]
STEP = Transition(Kind.STEP, 0)


def boot(body: Body) -> tuple[Cpu, PerCpu]:
    return boot_cpu(machine(Litmus("one", "?", (body,), one_page, (), drain=False)), 0)


def after(body: Body, *answers: Any) -> Any:
    cpu, kernel = boot(body)
    for answer in answers:
        cpu.take(STEP, answer)
    return Stack.of(cpu, kernel).key(Surroundings((body,)))


async def forgets(cpu: PerCpu) -> None:
    value = await Load("a")
    value = await Load("b")
    if value:
        await Store("c", value)


def test_a_variable_that_was_overwritten_does_not_count() -> None:
    assert after(forgets, 1, 5) == after(forgets, 2, 5)
    assert after(forgets, 1, 5) != after(forgets, 1, 6)


async def reads_later(cpu: PerCpu) -> None:
    value = await Load("a")
    try:
        value = await Load("b")
    except ValueError:
        await Store("c", value)


def test_a_variable_that_will_be_overwritten_does_not_count_unless_somebody_reads_it_before() -> None:
    assert after(forgets, 1) == after(forgets, 2)
    assert after(reads_later, 1) != after(reads_later, 2), "the load may raise"


class Items(tuple[int, ...]):
    __slots__ = ()

    async def count(self) -> None:
        await Load("b")
        await Store("c", super().__len__())


async def asks_super(cpu: PerCpu) -> None:
    await Items(range(await Load("a"))).count()


def test_what_super_looks_up_counts() -> None:
    assert after(asks_super, 1) != after(asks_super, 2)


async def on_the_stack(cpu: PerCpu) -> None:
    total = await Load("a") + await Load("b")
    await Store("c", total)


def test_a_half_evaluated_expression_counts() -> None:
    assert after(on_the_stack, 1) != after(on_the_stack, 2)
    assert after(on_the_stack, 1, 3) == after(on_the_stack, 2, 2)


async def loops(cpu: PerCpu) -> None:
    for name in ("a", "a", "a"):
        await Load(name)


def test_how_far_a_loop_over_equal_items_has_come_counts() -> None:
    states = [after(loops, *[0] * steps) for steps in range(4)]
    assert len(set(states)) == 4


async def inner(cpu: PerCpu, depth: int) -> int:
    if depth:
        return await inner(cpu, depth - 1) + 1
    return await Load("a")


async def nested(cpu: PerCpu) -> None:
    await inner(cpu, await Load("depth"))


def test_the_awaited_coroutines_count() -> None:
    assert after(nested, 1) != after(nested, 2)
    assert after(nested, 2) == after(nested, 2)


async def private_state(cpu: PerCpu) -> None:
    cpu.current.tlb_ubc.cpumask = await Load("a")
    await Load("b")


def test_the_cpus_private_state_counts_and_its_counters_do_not() -> None:
    assert after(private_state, 1) != after(private_state, 2)
    cpu, kernel = boot(private_state)
    known = Surroundings((private_state,))
    before = Stack.of(cpu, kernel).key(known)
    kernel.count("pgfault")
    assert Stack.of(cpu, kernel).key(known) == before


def shares(together: bool) -> Body:
    async def body(cpu: PerCpu) -> None:
        first: list[int] = []
        second = first if together else []
        await Load("a")
        first.append(1)
        await Store("b", len(second))

    return body


def test_two_names_of_one_object_are_not_two_objects() -> None:
    one, two = shares(True), shares(False)
    assert after(one, 0) != after(two, 0)


@given(st.lists(st.integers(0, 2), max_size=6))
def test_equal_fingerprints_go_on_alike(answers: list[int]) -> None:
    """Against the simplest model: the variables that the program will still read."""

    async def body(cpu: PerCpu) -> None:
        seen = 0
        for _ in range(6):
            seen = (seen * 2 + await Load("a")) % 3
        await Store("b", seen)

    def model(given: list[int]) -> tuple[int, int]:
        seen = 0
        for answer in given:
            seen = (seen * 2 + answer) % 3
        return len(given), seen

    other = [(answer * 2) % 3 for answer in reversed(answers)]
    assert (after(body, *answers) == after(body, *other)) == (model(answers) == model(other))


def test_what_cannot_be_read_is_refused() -> None:
    async def body(cpu: PerCpu) -> None:
        held = memoryview(b"x")
        await Load("a")
        del held

    with pytest.raises(Unreadable, match=r"^test_fingerprint\.py:[0-9]+ in body: held is a memoryview, "):
        after(body)


def test_what_is_found_deep_in_something_is_named_from_the_variable_on() -> None:
    class Box:
        def __init__(self) -> None:
            self.seen = {"a": [iter({1: 2})]}

    async def body(cpu: PerCpu) -> None:
        box = Box()
        await Load("a")
        del box

    with pytest.raises(Unreadable, match=r"in body: box\.seen\['a'\] is a dict_keyiterator, "):
        after(body)


def test_state_outside_the_cpu_is_noticed() -> None:
    runs: list[int] = []

    async def body(cpu: PerCpu) -> None:
        runs.append(1)
        turn = await AtomicAdd("turn", 1)
        for _ in range(len(runs) + turn):
            await Load("a")
        await Store("b", turn)

    small = machine(Litmus("leaky", "?", (body, body), one_page, (), drain=False))
    learned = LearnedMachine(small)
    with pytest.raises(SharedState, match=r"^function .*body has changed before test_fingerprint\.py"):
        for seed in range(8):
            learned.reset()
            for _ in range(2):
                while options := learned.options():
                    learned.take(options[seed % len(options)])


def test_what_a_library_keeps_is_noticed_if_it_is_wrongly_taken_for_pure(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emulator.explore.outside._PURE", frozenset({"atexit"}))
    before = atexit._ncallbacks()
    request.addfinalizer(lambda: atexit.unregister(int))

    async def body(cpu: PerCpu) -> None:
        atexit.register(int)
        runs = atexit._ncallbacks() - before
        turn = await AtomicAdd("turn", 1)
        for _ in range(runs + turn):
            await Load("a")
        await Store("b", turn)

    small = machine(Litmus("leaky", "?", (body, body), one_page, (), drain=False))
    learned = LearnedMachine(small)
    with pytest.raises(NotDeterministic, match="outside its own CPU"):
        for seed in range(8):
            learned.reset()
            for _ in range(2):
                while options := learned.options():
                    learned.take(options[seed % len(options)])
