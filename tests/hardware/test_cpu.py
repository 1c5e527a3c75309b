"""One CPU by itself: what it may do next, and what its own operations do to it."""

from __future__ import annotations

from typing import Any

import pytest

from emulator.hardware.cpu import Cpu, IpiRequest, Kind, Transition
from emulator.hardware.operations import Halt, Load, Store, Translate, Walk
from emulator.hardware.ordering import ARCHITECTURES
from emulator.hardware.pte import ACCESSED, DIRTY, PRESENT, RW, mk_pte
from emulator.hardware.tlb import TlbShape

PAGE, MM, PCID = 16, 1, 2
CALL = IpiRequest(1, 1, "anything", (), False, 0)
CLEAN = mk_pte(5, PRESENT | RW | ACCESSED)


async def handler(batch: tuple[IpiRequest, ...]) -> None:
    await Load("in the handler")


def booted(program: Any, architecture: str = "x86") -> Cpu:
    cpu = Cpu(0, ARCHITECTURES[architecture], TlbShape(4, 4, 4, 4), handler)
    cpu.mm, cpu.pcid = MM, PCID
    cpu.boot(program())
    return cpu


def kinds(cpu: Cpu) -> list[Kind]:
    return [choice.transition.kind for choice in cpu.choices()]


async def loads() -> None:
    await Load("a")
    await Load("b")


def test_a_handler_is_not_interrupted_and_what_it_interrupted_can_be_again() -> None:
    cpu = booted(loads)
    assert kinds(cpu) == [Kind.STEP, Kind.INTERRUPT]
    cpu.take(Transition(Kind.INTERRUPT, 0), (CALL,))
    assert cpu.operation == Load("in the handler") and kinds(cpu) == [Kind.STEP]
    cpu.take(Transition(Kind.STEP, 0), 0)
    cpu.take(Transition(Kind.STEP, 0), None)  # IRET
    assert cpu.operation == Load("a") and Kind.INTERRUPT in kinds(cpu)


@pytest.mark.parametrize("architecture", ["x86", "riscv"])
def test_stores_reach_memory_before_the_calls_are_taken(architecture: str) -> None:
    async def stores() -> None:
        await Store("a", 1)
        await Load("b")

    cpu = booted(stores, architecture)
    cpu.take(Transition(Kind.STEP, 0), None)
    assert Kind.INTERRUPT not in kinds(cpu) and Kind.PERFORM in kinds(cpu)
    cpu.take(Transition(Kind.PERFORM, 0, 0), None)
    assert Kind.INTERRUPT in kinds(cpu)


def test_an_idle_cpu_waits_for_an_interrupt() -> None:
    async def halts() -> None:
        await Halt()
        await Load("a")

    cpu = booted(halts)
    assert kinds(cpu) == [Kind.INTERRUPT]
    cpu.take(Transition(Kind.INTERRUPT, 0), (CALL,))
    cpu.take(Transition(Kind.STEP, 0), 0)
    cpu.take(Transition(Kind.STEP, 0), None)
    assert cpu.operation == Halt() and Kind.STEP in kinds(cpu)


def test_a_walk_that_finds_nothing_drops_what_is_cached() -> None:
    async def walks() -> None:
        await Walk(MM, PAGE, True)
        await Load("a")

    for answer, left in ((0, None), (CLEAN | DIRTY, CLEAN | DIRTY)):
        cpu = booted(walks)
        cpu.tlb.insert(PCID, PAGE, CLEAN)
        cpu.take(Transition(Kind.STEP, 0), answer)
        assert cpu.tlb.peek(PCID, PAGE) == left


def test_the_first_write_through_an_entry_asks_for_a_walk() -> None:
    for entry, found in ((CLEAN, 0), (CLEAN | DIRTY, CLEAN | DIRTY), (CLEAN & ~RW, 0)):
        cpu = booted(loads)
        cpu.tlb.insert(PCID, PAGE, entry)
        assert cpu.carry_out(Translate(PAGE, True)) == found
        assert cpu.carry_out(Translate(PAGE, False)) == entry


def test_the_walker_fetches_what_is_new() -> None:
    cpu = booted(loads)
    cpu.speculated = (PAGE,)
    assert Kind.WALK in kinds(cpu)
    assert cpu.would_cache(PAGE, CLEAN) and not cpu.would_cache(PAGE, CLEAN & ~PRESENT)
    cpu.take(Transition(Kind.WALK, 0, PAGE), CLEAN)
    assert not cpu.would_cache(PAGE, CLEAN) and cpu.would_cache(PAGE, CLEAN | DIRTY)
