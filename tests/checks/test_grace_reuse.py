"""A retired frame is used again: who must have flushed it, who must know of that, and when nobody need.

Traces told by hand. What takes a translation away retires its frame, until every CPU that may hold the
translation has flushed it or has stopped using it, and whoever uses the frame next knows of that.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from emulator.checks.grace_period import (
    OWED,
    REUSED,
    GracePeriod,
)
from emulator.checks.sides import Sides
from emulator.hardware.cpu import IpiRequest, Kind, Transition
from emulator.hardware.operations import (
    AllocPages,
    AtomicAdd,
    AtomicAnd,
    AtomicOr,
    CmpxchgPte,
    Cycle,
    FlushTlb,
    FlushTlbOne,
    FolioCopy,
    FolioPut,
    FolioZero,
    Invalidate,
    Invlpgb,
    Load,
    LoadCr3,
    MappedRange,
    Operation,
    ReadFrame,
    SendIpi,
    SetPte,
    SmpMb,
    SmpRmb,
    Store,
    Tlbsync,
    WriteFrame,
)
from emulator.hardware.pte import PRESENT, make_migration_entry, mk_pte
from emulator.kernel.percpu import (
    LOADED_MM_SWITCHING,
    cpumask_word,
    global_asid_word,
    is_lazy_word,
    loaded_mm_word,
    tlb_gen_word,
)
from tests.checks.grace_lab import RO, VPN, WRITABLE_1, Trace, reuse

ASID = 6


@pytest.mark.parametrize("plain_orders", [True, False])
@pytest.mark.parametrize("flushed", [True, False])
def test_a_frame_is_used_again(flushed: bool, plain_orders: bool) -> None:
    trace = Trace(plain_orders)
    trace.unmap()
    if flushed:
        trace.shootdown()
    trace.move()
    reuse(trace)
    assert trace.rules == ([] if flushed else [REUSED])
    # Whatever it was, it is over.
    trace.step(1, FolioZero(1))
    assert len(trace.rules) == (not flushed)
    assert not trace.check.facts.retired


@pytest.mark.parametrize("use", ["zero", "copy", "map"])
def test_every_first_use_counts(use: str) -> None:
    trace = Trace()
    trace.unmap()
    trace.step(1, FolioPut(1), True)
    trace.step(1, AllocPages(0, 2, 0, 0), 0)
    operation = {
        "zero": FolioZero(0),
        "copy": FolioCopy(7, 1),
        "map": CmpxchgPte(2, 9, 0, mk_pte(1, PRESENT)),
    }[use]
    trace.step(1, operation, 0 if use == "map" else None)
    assert trace.rules == [REUSED]


def test_a_policy_may_flush_between_allocation_and_use() -> None:
    trace = Trace()
    trace.unmap()
    trace.move()
    trace.step(0, FolioPut(1), True)
    trace.step(1, AllocPages(0, 0, 0, 0), 1)
    trace.shootdown(1)
    trace.step(1, FolioZero(1))
    assert not trace.rules


def test_the_reuser_must_know_of_the_flush() -> None:
    trace = Trace()
    trace.unmap()
    # CPU 1 flushes because it was asked to, but CPU 0 does not wait for it.
    trace.step(0, FlushTlb())
    trace.step(0, SendIpi((1,), "f", (), True), 1)
    batch = (IpiRequest(0, 1, "f", (), True, 0),)
    trace.check.happened(Transition(Kind.INTERRUPT, 1), None, False, batch)
    trace.step(1, FlushTlb())
    reuse(trace)
    assert trace.rules == [REUSED]


def test_a_flush_that_knows_nothing_of_the_retirement_does_not_count() -> None:
    trace = Trace()
    trace.unmap()
    trace.step(0, FlushTlb())
    trace.step(1, FlushTlb())
    trace.step(1, AtomicAdd("x", 1), 1)
    trace.step(0, AtomicAdd("x", 1), 2)
    reuse(trace)
    assert trace.rules == [REUSED]


@pytest.mark.parametrize("vpn", [VPN, VPN + 1])
def test_a_single_page_flush_is_of_that_page(vpn: int) -> None:
    trace = Trace()
    trace.unmap()
    trace.shootdown(0, FlushTlbOne(vpn))
    reuse(trace)
    assert trace.rules == ([] if vpn == VPN else [REUSED])


@pytest.mark.parametrize(
    ("leaving", "known"),
    [
        ((AtomicAnd(cpumask_word(1), 0b01),), True),
        ((Store(is_lazy_word(1), 1),), True),
        ((LoadCr3(1, 2, True),), False),  # it does not know why it flushes
        ((LoadCr3(2, 2, True),), False),
    ],
)
def test_who_stops_using_the_address_space_need_not_flush(leaving: Sequence[Operation], known: bool) -> None:
    trace = Trace()
    trace.unmap()
    trace.step(0, FlushTlb())
    for operation in leaving:
        trace.step(1, operation, 3)
    trace.step(0, Load(cpumask_word(1)), 1)
    trace.step(0, Load(is_lazy_word(1)), 1)
    reuse(trace)
    assert trace.rules == ([] if known else [REUSED])


@pytest.mark.parametrize("loads", ["never", "before", "after"])
def test_where_no_mask_tells_who_loads_an_address_space_may_use_it(loads: str) -> None:
    trace = Trace()
    trace.check = GracePeriod(2, True, {1: 0b01}, lambda pfn: pfn // 100, by_loading=True)
    if loads == "before":
        trace.step(1, LoadCr3(1, 2, False))
    trace.unmap()
    if loads == "after":
        trace.step(1, LoadCr3(1, 2, False))  # with what it may have kept from an earlier stay
    trace.step(0, FlushTlb())
    reuse(trace)
    assert trace.rules == ([] if loads == "never" else [REUSED])


@pytest.mark.parametrize("barrier", [True, False])
@pytest.mark.parametrize("access", [ReadFrame(1, VPN, 1), WriteFrame(1, VPN, 1, 3)])
def test_going_lazy_is_told_by_a_plain_store(access: Operation, barrier: bool) -> None:
    """Where plain stores order nothing it may overtake the last accesses, if no barrier keeps them back."""
    trace = Trace(plain_orders=False)
    trace.unmap()
    trace.step(0, FlushTlb())
    trace.step(1, access, 0)
    if barrier:
        trace.step(1, SmpMb())
    trace.step(1, Store(is_lazy_word(1), 1), issued=True)
    trace.check.happened(Transition(Kind.PERFORM, 1), Store(is_lazy_word(1), 1), False, None)
    trace.step(0, Load(is_lazy_word(1)), 1)
    trace.step(0, SmpRmb())
    reuse(trace)
    assert trace.rules == ([] if barrier else [REUSED])


@pytest.mark.parametrize("told", [True, False])
def test_coming_back_it_owes_what_the_generation_does_not_tell(told: bool) -> None:
    trace = Trace(mask=0b01)
    trace.unmap()
    trace.step(0, FlushTlb())
    if told:
        trace.step(0, AtomicAdd(tlb_gen_word(1), 1), 2)
    trace.step(1, AtomicOr(cpumask_word(1), 2), 1)
    trace.step(1, Load(tlb_gen_word(1)), 2)
    reuse(trace)
    assert trace.rules == ([] if told else [REUSED])


def test_what_a_generation_does_not_tell_is_part_of_the_state() -> None:
    """Everybody knows of the retirement, so nothing new can be learnt of it; but who comes back is judged by
    what the generation tells."""
    states = []
    for told in (True, False):
        trace = Trace(mask=0b01)
        trace.unmap()
        if told:
            trace.step(0, AtomicAdd(tlb_gen_word(1), 1), 2)
        trace.step(0, AtomicAdd("x", 1), 1)
        trace.step(1, AtomicAdd("x", 1), 2)
        states.append(trace.check.state())
    assert states[0] != states[1]


@pytest.mark.parametrize("entry", [RO, WRITABLE_1])
@pytest.mark.parametrize("done", ["nothing", "flushed here", "flushed everywhere"])
def test_a_flush_is_owed_at_the_end(entry: int, done: str) -> None:
    trace = Trace()
    trace.unmap(entry=entry)
    if done == "flushed here":
        trace.step(0, FlushTlb())
    elif done == "flushed everywhere":
        trace.shootdown()
    trace.check.finish()
    assert trace.rules == ([] if done == "flushed everywhere" else [OWED])


def test_nobody_need_know_of_a_flush_that_was_done() -> None:
    trace = Trace(mask=0b10)
    trace.unmap()
    trace.step(0, AtomicAdd("x", 1), 1)
    trace.step(1, AtomicAdd("x", 1), 2)
    trace.step(1, FlushTlb())
    trace.check.finish()
    assert trace.rules == []


@pytest.mark.parametrize("word", [tlb_gen_word(1), "migrc_gen"])
@pytest.mark.parametrize("barrier", [True, False])
def test_a_generation_read_without_a_barrier(word: str, barrier: bool) -> None:
    """The value of tlb_gen decides whether to flush; MIGRC's is only noted, and needs the barrier."""
    trace = Trace(plain_orders=False)
    trace.unmap()
    trace.step(0, FlushTlb())
    trace.step(0, AtomicAdd(word, 1), 2)
    trace.step(1, Load(word), 2)
    if barrier:
        trace.step(1, SmpMb())
    trace.step(1, FlushTlb())
    trace.step(1, AtomicAdd("note", 1), 1)
    trace.step(0, AtomicAdd("note", 1), 2)
    reuse(trace)
    assert trace.rules == ([] if barrier or word == tlb_gen_word(1) else [REUSED])


@pytest.mark.parametrize("known", [True, False])
def test_a_plain_store_retires_what_it_is_known_to_overwrite(known: bool) -> None:
    entries = {(1, VPN): RO} if known else {}
    check = GracePeriod(2, True, {1: 3}, lambda pfn: 0, entries)
    check.happened(Transition(Kind.STEP, 0), SetPte(1, VPN, 0), True, None)
    assert len(check.facts.retired) == known


def test_what_does_not_matter() -> None:
    assert not {FlushTlb, MappedRange} & GracePeriod.ignores
    assert Cycle in GracePeriod.ignores


@pytest.mark.parametrize("flushed", [True, False])
def test_where_transitions_are_numbered_a_report_names_both_sides(flushed: bool) -> None:
    trace = Trace()
    number = 40
    trace.check.sides = Sides(2, lambda: number)
    trace.unmap()
    trace.step(0, FlushTlb())
    number = 41
    if flushed:
        # By luck: nobody has told CPU 0 of it.
        trace.step(1, FlushTlb())
    number = 50
    trace.step(0, CmpxchgPte(1, VPN, make_migration_entry(RO), 0), make_migration_entry(RO))
    trace.step(0, AllocPages(0, 0, 0, 0), 1)
    trace.step(0, FolioZero(1))
    (report,) = trace.check.violations
    last = "CPU 1 has last flushed in 41" if flushed else "CPU 1 has not flushed at all"
    assert report.text.endswith(f"(CPU 0 in transition 50, retired by TryToMigratePte in 40, {last})")


@pytest.mark.parametrize(("found", "rules"), [(0, [REUSED]), (ASID, []), (None, [])])
def test_a_broadcast_passes_a_cpu_that_is_loading_the_mm(found: int | None, rules: list[str]) -> None:
    """It reaches what that CPU will use if it takes the number: not if it looked before there was one."""
    trace = Trace(mask=0b01)
    trace.step(1, Store(loaded_mm_word(1), LOADED_MM_SWITCHING))
    trace.step(1, Load(tlb_gen_word(1)), 1)
    if found is not None:
        trace.step(1, Load(global_asid_word(1)), found)
    trace.unmap()
    everything = (ASID + 1, 1, 0, -1, 1)
    trace.step(0, Invlpgb(0, 0b11, *everything))
    trace.step(0, FlushTlb())
    for target in (0, 1):
        invalidation = Transition(Kind.INVALIDATE, target, 0)
        trace.check.happened(invalidation, Invalidate(0, target), False, everything)
    trace.step(0, Tlbsync(0))
    reuse(trace)
    assert trace.rules == rules
