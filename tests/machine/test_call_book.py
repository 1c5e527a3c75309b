"""The book of calls against a plain account of who owes whom what, and what nobody owes is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.hardware.cpu import Cpu
from emulator.hardware.operations import AckIpi, SendIpi
from emulator.kernel.percpu import PerCpu
from emulator.machine.call_book import CallBook, UnknownCall
from emulator.machine.progress import running_cpu
from emulator.machine.referee import Referee
from tests.explore.broken_litmus import machine
from tests.timed.timed_lab import run

CPUS = 3
numbers = st.integers(0, CPUS - 1)
sends = st.tuples(st.just("send"), numbers, st.sets(numbers), st.booleans())
steps = st.lists(st.one_of(sends, st.tuples(st.just("take"), numbers), st.tuples(st.just("ack"), numbers)))


@given(steps)
def test_it_is_a_plain_account(taken: list[tuple[Any, ...]]) -> None:
    book = CallBook(CPUS)
    queued: list[list[tuple[int, int]]] = [[] for _ in range(CPUS)]
    owed: list[list[tuple[int, int]]] = [[] for _ in range(CPUS)]  # taken and not acknowledged, by target
    missing: dict[tuple[int, int], set[int]] = {}
    sent = [0] * CPUS
    for what, cpu, *rest in taken:
        if what == "send":
            targets, wait = rest
            sent[cpu] += 1
            assert book.send(cpu, SendIpi(tuple(sorted(targets)), "f", (), wait), 5) == sent[cpu]
            for target in targets:
                queued[target].append((cpu, sent[cpu]))
            if wait:
                missing[cpu, sent[cpu]] = set(targets)
        elif what == "take":
            batch = book.take(cpu)
            assert [(one.sender, one.number) for one in batch] == queued[cpu]
            assert all(one.sent_ns == 5 for one in batch)
            owed[cpu] += [(one.sender, one.number) for one in batch if one.wait]
            queued[cpu] = []
        elif owed[cpu]:
            call = owed[cpu].pop(0)
            missing[call].remove(cpu)
            assert book.acknowledge(cpu, AckIpi(*call)) == (not missing[call])
        kept = book.state()
        copy = CallBook(CPUS)
        copy.restore(kept)
        assert copy.state() == kept
        for sender, number in missing:
            assert copy.acknowledged(sender, number) == (not missing[sender, number])
        assert copy.quiet() == (not any(queued))


@pytest.mark.parametrize("call", [AckIpi(0, 1), AckIpi(0, 2), AckIpi(1, 1)])
def test_what_nobody_waits_for_is_refused(call: AckIpi) -> None:
    book = CallBook(2)
    book.send(0, SendIpi((1,), "f", (), False))
    with pytest.raises(UnknownCall, match=f"CPU 1 acknowledges request {call.request} of CPU {call.sender}"):
        book.acknowledge(1, call)


def test_a_forged_acknowledgement_is_the_programs_mistake_in_every_engine() -> None:
    async def forges(kernel: PerCpu) -> None:
        await AckIpi(0, 7)

    referee = Referee(machine(forges))
    with pytest.raises(UnknownCall) as raised:
        while options := referee.options():
            referee.take(options[0])
    assert running_cpu(raised.value) == 0

    async def forges_timed(cpu: Cpu) -> None:
        await AckIpi(0, 7)

    with pytest.raises(UnknownCall):
        run(forges_timed)
