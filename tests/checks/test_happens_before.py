"""Happens-before as sets of events against the classical form, vector clocks, on random traces."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.checks.happens_before import SILENT, HappensBefore
from emulator.hardware.cpu import IpiRequest, Kind, Transition
from emulator.hardware.operations import (
    AckIpi,
    AllocPages,
    AtomicAdd,
    Cycle,
    FolioPut,
    GetPte,
    Load,
    Lock,
    MappedRange,
    Operation,
    SendIpi,
    SetPte,
    SmpMb,
    SmpMbAfterAtomic,
    SmpRmb,
    SmpWmb,
    Store,
    Translate,
    Unlock,
    WaitAcks,
    Walk,
    XchgPte,
)

CPUS = 3
Clock = tuple[int, ...]
ZERO: Clock = (0,) * CPUS


def join(left: Clock, right: Clock) -> Clock:
    return tuple(map(max, left, right))


class VectorClocks:
    """Fidge and Mattern's clocks, with one more pair per CPU where plain accesses order nothing."""

    def __init__(self, plain_orders: bool) -> None:
        self.plain_orders = plain_orders
        self.now = [ZERO] * CPUS
        self.released = [ZERO] * CPUS
        self.seen = [ZERO] * CPUS
        self.carried: dict[Any, Clock] = {}

    def event(self, cpu: int) -> None:
        clock = list(self.now[cpu])
        clock[cpu] += 1
        self.now[cpu] = tuple(clock)

    def acquire(self, cpu: int) -> None:
        self.now[cpu] = join(self.now[cpu], self.seen[cpu])

    def release(self, cpu: int) -> None:
        self.released[cpu] = self.now[cpu]

    def load(self, cpu: int, where: Any) -> None:
        target = self.now if self.plain_orders else self.seen
        target[cpu] = join(target[cpu], self.carried.get(where, ZERO))

    def published(self, cpu: int) -> Clock:
        return self.now[cpu] if self.plain_orders else self.released[cpu]

    def atomic(self, cpu: int, where: Any) -> None:
        self.acquire(cpu)
        self.now[cpu] = join(self.now[cpu], self.carried.get(where, ZERO))
        self.carried[where] = join(self.carried.get(where, ZERO), self.now[cpu])
        self.release(cpu)


ACTIONS = (
    "event",
    "load",
    "store",
    "add",
    "send",
    "take",
    "ack",
    "mb",
    "rmb",
    "wmb",
    "after",
    "perform",
    "lock",
)
STEPS = st.lists(
    st.tuples(st.sampled_from(ACTIONS), st.integers(0, CPUS - 1), st.integers(0, 1), st.booleans()),
    max_size=40,
)


class Both:
    """Does the same to both, and gives each event a bit."""

    def __init__(self, plain_orders: bool) -> None:
        self.bits = HappensBefore(CPUS, plain_orders, lambda pfn: 0)
        self.clocks = VectorClocks(plain_orders)
        self.events: list[tuple[int, int]] = []  # (cpu, its number there), by bit
        self.windows: list[list[tuple[Store, Clock]]] = [[] for _ in range(CPUS)]
        self.calls: list[tuple[int, int, Clock]] = []  # (target, sender, knowledge), by number
        self.untaken: set[int] = set()

    def told(self, cpu: int, operation: Operation | None, answer: Any = None, issued: bool = False) -> None:
        kind = Kind.INTERRUPT if operation is None else Kind.STEP
        self.bits.happened(Transition(kind, cpu), operation, issued, answer)

    def act(self, action: str, cpu: int, which: int, flag: bool) -> None:
        clocks = self.clocks
        word = f"w{which}"
        if action == "event":
            clocks.event(cpu)
            self.bits.now[cpu] |= 1 << len(self.events)
            self.events.append((cpu, clocks.now[cpu][cpu]))
        elif action == "load":
            # A CPU's own pending store answers first, and tells it nothing.
            forwarded = any(store.word == word for store, _ in self.windows[cpu])
            self.told(cpu, Load(word), None if forwarded else 0)
            if not forwarded:
                clocks.load(cpu, word)
        elif action == "store":
            store = Store(word, which)
            self.told(cpu, store, issued=flag)
            if flag:
                self.windows[cpu].append((store, clocks.published(cpu)))
            else:
                clocks.carried[word] = clocks.published(cpu)
        elif action == "perform":
            if self.windows[cpu]:
                store, clock = self.windows[cpu].pop(0)
                self.bits.happened(Transition(Kind.PERFORM, cpu), store, False, None)
                clocks.carried[store.word] = clock
        elif action == "add":
            self.told(cpu, AtomicAdd(word, 1), 1)
            clocks.atomic(cpu, word)
        elif action == "lock":
            self.told(cpu, Lock(word))
            clocks.atomic(cpu, ("lock", word))
            self.told(cpu, Unlock(word))
        elif action == "send":
            number = len(self.calls)
            self.told(cpu, SendIpi((which,), "f", (), True), number)
            clocks.acquire(cpu)
            clocks.release(cpu)
            self.calls.append((which, cpu, clocks.now[cpu]))
            self.untaken.add(number)
        elif action == "take":
            self.take(cpu)
        elif action == "mb":
            self.told(cpu, SmpMb())
            clocks.acquire(cpu)
            clocks.release(cpu)
        elif action == "rmb":
            self.told(cpu, SmpRmb())
            clocks.acquire(cpu)
        elif action == "wmb":
            self.told(cpu, SmpWmb())
            clocks.release(cpu)
        elif action == "after":
            self.told(cpu, SmpMbAfterAtomic())
            clocks.acquire(cpu)
            clocks.release(cpu)

    def take(self, cpu: int) -> None:
        """All calls queued on the CPU; each is acknowledged and waited for at once."""
        mine = sorted(number for number in self.untaken if self.calls[number][0] == cpu)
        batch = tuple(IpiRequest(self.calls[number][1], number, "f", (), True, 0) for number in mine)
        self.told(cpu, None, batch)
        self.clocks.acquire(cpu)
        for number in mine:
            self.untaken.remove(number)
            self.clocks.now[cpu] = join(self.clocks.now[cpu], self.calls[number][2])
        self.clocks.release(cpu)
        for request in batch:
            self.act("event", cpu, 0, False)
            self.told(cpu, AckIpi(request.sender, request.number))
            self.told(request.sender, WaitAcks(request.number))
            self.clocks.now[request.sender] = join(self.clocks.now[request.sender], self.clocks.now[cpu])

    def compare(self) -> None:
        for cpu in range(CPUS):
            known = [bool(self.bits.now[cpu] >> bit & 1) for bit in range(len(self.events))]
            assert known == [self.clocks.now[cpu][who] >= number for who, number in self.events]


@settings(max_examples=300, deadline=None)
@given(steps=STEPS, plain_orders=st.booleans())
def test_the_same_as_vector_clocks(steps: list[tuple[str, int, int, bool]], plain_orders: bool) -> None:
    both = Both(plain_orders)
    for step in steps:
        both.act("event", *step[1:])
        both.act(*step)
        both.compare()


@settings(max_examples=200, deadline=None)
@given(steps=STEPS, at=st.integers(0, 60), plain_orders=st.booleans())
def test_going_on_from_a_state_comes_to_the_same(
    steps: list[tuple[str, int, int, bool]], at: int, plain_orders: bool
) -> None:
    both = Both(plain_orders)
    for number, step in enumerate(steps):
        if number == at:
            state = both.bits.state()
            hash(state)
            both.bits = HappensBefore(CPUS, plain_orders, lambda pfn: 0)
            both.bits.restore(state)
            assert both.bits.state() == state
        both.act("event", *step[1:])
        both.act(*step)
        both.compare()


@given(old=st.integers(0, 255), at=st.integers(0, 8), count=st.integers(1, 4))
def test_bits_come_and_go_everywhere(old: int, at: int, count: int) -> None:
    bits = HappensBefore(1, False, lambda pfn: 0)
    bits.now[0] = bits.seen[0] = bits.released[0] = bits.clocks["word", "x"] = old
    bits.pending[0] = ((Store, Store("x", 1), old),)
    bits.insert_bits(at, count)
    assert bits.now[0] >> at & (1 << count) - 1 == 0
    bits.now[0] |= (1 << count) - 1 << at
    bits.remove_bits(at, count)
    assert [bits.now[0], bits.seen[0], bits.released[0], bits.clocks.get(("word", "x"), 0)] == [old] * 4
    assert bits.pending[0][0][2] == old


class Triple(NamedTuple):
    mm: int
    vpn: int
    pte: int


def told(bits: HappensBefore, cpu: int, operation: Operation, answer: Any = None) -> None:
    bits.happened(Transition(Kind.STEP, cpu), operation, False, answer)


@pytest.mark.parametrize(
    ("first", "second", "second_answer"),
    [
        (XchgPte(1, 5, 0), GetPte(1, 5), 0),
        (XchgPte(1, 5, 0), MappedRange(1, 4, 6), ()),
        (XchgPte(1, 5, 0), Lock("ptl.1.0"), None),
        (SetPte(1, 5, 0), GetPte(1, 5), 0),
    ],
)
def test_page_tables_carry(first: Operation, second: Operation, second_answer: Any) -> None:
    bits = HappensBefore(2, True, lambda pfn: 0)
    bits.now[0] = 1
    told(bits, 0, first, 0)
    told(bits, 1, second, second_answer)
    assert bits.now[1] == 1


def test_the_put_that_frees_a_frame_comes_before_the_allocation_that_gets_it() -> None:
    for freed, known in ((True, 1), (False, 0)):
        bits = HappensBefore(2, False, lambda pfn: pfn // 10)
        bits.now[0] = 1
        told(bits, 0, FolioPut(12), freed)
        told(bits, 1, AllocPages(1, 0, 0, 0), 13)
        assert bits.now[1] == known


def test_an_equal_store_of_another_class_is_another_store() -> None:
    # As tuples they are equal; only the class tells them apart.
    first, second = SetPte(1, 2, 3), Triple(1, 2, 3)
    assert first == second
    bits = HappensBefore(1, False, lambda pfn: 0)
    bits.pending[0] = ((Triple, second, 2), (SetPte, first, 1))
    bits.happened(Transition(Kind.PERFORM, 0), first, False, None)
    assert bits.pending[0] == ((Triple, second, 2),)
    assert bits.clocks == {("pte", 1, 2): 1}


def test_a_begun_load_acquires_when_it_is_performed_and_a_barrier_follows() -> None:
    bits = HappensBefore(2, False, lambda pfn: 0)
    bits.now[0] = 1
    told(bits, 0, AtomicAdd("x", 1), 1)
    bits.happened(Transition(Kind.STEP, 1), Load("x"), True, None)
    told(bits, 1, SmpRmb())
    assert bits.now[1] == 0
    bits.happened(Transition(Kind.PERFORM, 1), Load("x"), False, 1)
    assert bits.now[1] == 0
    told(bits, 1, SmpRmb())
    assert bits.now[1] == 1


def test_what_it_calls_silent_changes_nothing() -> None:
    bits = HappensBefore(1, False, lambda pfn: 0)
    state = bits.state()
    silent: tuple[Operation, ...] = (Cycle(), Translate(1, False), Walk(1, 1, False))
    for operation in silent:
        assert type(operation) in SILENT
        told(bits, 0, operation, 0)
    assert bits.state() == state


@pytest.mark.parametrize("barrier", [SmpWmb(), SmpMb(), None])
def test_a_plain_store_publishes_what_came_before_the_barrier_before_it(barrier: Operation | None) -> None:
    bits = HappensBefore(2, False, lambda pfn: 0)
    bits.now[0] = 1
    if barrier is not None:
        told(bits, 0, barrier)
    told(bits, 0, Store("w", 1))
    told(bits, 1, Load("w"), 1)
    assert bits.now[1] == 0
    told(bits, 1, SmpRmb())
    assert bits.now[1] == (barrier is not None)
