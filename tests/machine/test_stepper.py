"""The local engine: what may happen next, the order of effects, and that a run can be repeated."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from emulator.hardware.cpu import Cpu, IpiRequest, Kind, Transition
from emulator.hardware.operations import (
    AckIpi,
    AtomicAdd,
    FlushTlb,
    Load,
    LoadCr3,
    LocalIrqDisable,
    LocalIrqEnable,
    Operation,
    SendIpi,
    SmpMb,
    SmpMbAfterAtomic,
    SmpWmb,
    Store,
    WaitAcks,
    WaitFor,
)
from emulator.hardware.ordering import ARCHITECTURES
from emulator.hardware.tlb import TlbShape
from emulator.machine.progress import DEADLOCK
from emulator.machine.stepper import LocalEngine
from emulator.memory.folios import Tier
from emulator.memory.memory import Memory
from emulator.memory.zone import Watermarks
from emulator.policies.catalogue import POLICIES
from tests.kernel.small_machine import SmallMachine, Thread, random_body

Body = Callable[[], Coroutine[Operation, Any, None]]


async def acknowledge(batch: tuple[IpiRequest, ...]) -> None:
    for request in batch:
        if request.wait:
            await AckIpi(request.sender, request.number)


def machine(architecture: str, *bodies: Body) -> LocalEngine:
    cpus = [Cpu(n, ARCHITECTURES[architecture], TlbShape(), acknowledge) for n in range(len(bodies))]
    for cpu, body in zip(cpus, bodies, strict=True):
        cpu.boot(body())
    return LocalEngine(Memory([Tier(8, Watermarks(0, 0, 0))]), cpus)


def outcomes(architecture: str, make: Callable[[set[Any]], tuple[Body, ...]]) -> set[Any]:
    """Everything that a small program can do: all schedules, each from the start."""
    found: set[Any] = set()
    schedules: list[list[int]] = [[]]
    while schedules:
        schedule = schedules.pop()
        engine = machine(architecture, *make(found))
        for choice in schedule:
            engine.take(engine.transitions()[choice])
        while possible := engine.transitions():
            for other in range(1, len(possible)):
                schedules.append([*schedule, other])
            schedule = [*schedule, 0]
            engine.take(possible[0])
        assert engine.finished()
    return found


def store_buffering(*between: Operation) -> Callable[[set[Any]], tuple[Body, ...]]:
    def make(found: set[Any]) -> tuple[Body, ...]:
        seen: dict[str, int] = {}

        def side(mine: str, theirs: str) -> Body:
            async def body() -> None:
                await Store(mine, 1)
                for operation in between:
                    await operation
                seen[mine] = await Load(theirs)
                if len(seen) == 2:
                    found.add((seen["x"], seen["y"]))

            return body

        return side("x", "y"), side("y", "x")

    return make


def test_a_store_may_wait_on_x86_but_not_under_sequential_consistency() -> None:
    assert (0, 0) not in outcomes("sc", store_buffering())
    assert (0, 0) in outcomes("x86", store_buffering())


@pytest.mark.parametrize("full", [SmpMb(), AtomicAdd("z", 1), FlushTlb(), LoadCr3(1, 1, False)])
def test_what_drains_the_store_buffer(full: Operation) -> None:
    assert (0, 0) not in outcomes("x86", store_buffering(full))


@pytest.mark.parametrize("weak", [SmpWmb(), SmpMbAfterAtomic(), LocalIrqDisable()])
def test_what_does_not(weak: Operation) -> None:
    assert (0, 0) in outcomes("x86", store_buffering(weak))


def test_stores_are_performed_in_order() -> None:
    def make(found: set[Any]) -> tuple[Body, ...]:
        async def writer() -> None:
            await Store("data", 1)
            await Store("flag", 1)

        async def reader() -> None:
            flag = await Load("flag")
            found.add((flag, await Load("data")))

        return writer, reader

    assert outcomes("x86", make) == {(0, 0), (0, 1), (1, 1)}


def test_a_cpu_sees_its_own_waiting_store() -> None:
    def make(found: set[Any]) -> tuple[Body, ...]:
        async def writer() -> None:
            await Store("x", 1)
            await Store("x", 2)
            found.add(await Load("x"))

        return (writer,)

    assert outcomes("x86", make) == {2}


def test_sending_an_interrupt_waits_for_earlier_stores() -> None:
    engine_seen = []

    async def sender() -> None:
        await Store("x", 1)
        await SendIpi((1,), "f", (), False)

    async def target() -> None:
        engine_seen.append(await WaitFor("x", 1))

    engine = machine("x86", sender, target)
    engine.take(Transition(Kind.STEP, 0))
    assert Transition(Kind.STEP, 0) not in engine.transitions()
    engine.take(Transition(Kind.PERFORM, 0))
    assert Transition(Kind.STEP, 0) in engine.transitions()


def test_the_return_from_an_interrupt_waits_for_the_stores_of_the_handler() -> None:
    async def sender() -> None:
        await WaitAcks(await SendIpi((1,), "f", (), True))

    async def target() -> None:
        await WaitFor("never", 0)
        await Load("x")

    engine = machine("x86", sender, target)
    engine.take(Transition(Kind.STEP, 0))
    engine.take(Transition(Kind.INTERRUPT, 1))
    engine.take(Transition(Kind.STEP, 1))  # the acknowledgement, into the window
    assert engine.transitions() == [Transition(Kind.PERFORM, 1)]


def test_two_cpus_that_shoot_each_other_with_interrupts_off_are_a_deadlock() -> None:
    def side(other: int) -> Body:
        async def body() -> None:
            await LocalIrqDisable()
            request = await SendIpi((other,), "f", (), True)
            await WaitAcks(request)
            await LocalIrqEnable()

        return body

    engine = machine("sc", side(1), side(0))
    engine.take(Transition(Kind.STEP, 0))
    engine.take(Transition(Kind.STEP, 1))
    while possible := engine.transitions():
        engine.take(possible[-1])
    assert not engine.finished()
    found = engine.deadlock()
    assert found.rule == DEADLOCK
    assert "CPU 0 with interrupts off at WaitAcks(1); CPU 1 with interrupts off at WaitAcks(1)" in found.text


def test_with_interrupts_on_they_serve_each_other() -> None:
    def make(found: set[Any]) -> tuple[Body, ...]:
        def side(other: int) -> Body:
            async def body() -> None:
                await WaitAcks(await SendIpi((other,), "f", (), True))
                await WaitFor("done", (await AtomicAdd("done", 1)) and 2)
                found.add("both")

            return body

        return side(1), side(0)

    assert outcomes("sc", make) == {"both"}


ACTIONS = ("read", "read", "write", "hint", "demote", "promote")


def small(seed: int, policy: str, actions: tuple[str, ...] = ACTIONS) -> SmallMachine:
    threads = [Thread(number, random_body(seed, 12, actions, 3), 1 + number % 2) for number in range(3)]
    return SmallMachine(*threads, cpus=3, policy=POLICIES[policy], migrate_batch=2)


def test_the_same_seed_gives_the_same_run() -> None:
    for seed in range(20):
        first, second = small(seed, "immediate").run(seed), small(seed, "immediate").run(seed)
        assert first.trace == second.trace
        assert first.counts() == second.counts()
        assert first.memory.folios.content == second.memory.folios.content


def test_the_choices_alone_repeat_a_run() -> None:
    first = small(5, "migrc").run(5)
    second = small(5, "migrc")
    for transition in first.trace:
        assert transition in second.engine.transitions()
        second.take(transition)
    assert second.engine.finished()
    assert first.counts() == second.counts()


@pytest.mark.parametrize("policy", ["immediate", "migrc", "migrc:rfc2"])
def test_the_books_balance_at_the_end_of_random_runs(policy: str) -> None:
    """Writes included: whatever the postings let a stale reader see, no page is lost or freed twice."""
    for seed in range(200):
        finished = small(seed, policy).run(seed)
        assert not finished.accounting.violations, (seed, finished.accounting.violations[0])
