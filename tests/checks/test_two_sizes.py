"""Two sizes at once: what a CPU may have, what drops it, and where the rule breaks."""

from __future__ import annotations

from typing import Any

import pytest

from emulator.checks.two_sizes import TWO_SIZES, TwoSizes
from emulator.hardware import operations as ops
from emulator.hardware.cpu import Kind, Transition
from emulator.hardware.pte import PRESENT, PSE, mk_pte

MM, OTHER = 1, 2
HEAD, TAIL, NEXT = 0x10, 0x11, 0x12  # the first two are one huge page
SMALL, HUGE = mk_pte(3, PRESENT), mk_pte(2, PRESENT | PSE)


def watcher() -> TwoSizes:
    """CPU 0 has the huge page cached."""
    return TwoSizes({0: MM, 1: MM}, [(0, HEAD, HUGE)], 1)


def walks(made: TwoSizes, cpu: int, vpn: int, answer: int, mm: int = MM, kind: Kind = Kind.STEP) -> list[str]:
    made.happened(Transition(kind, cpu), ops.Walk(mm, vpn, False), False, answer)
    return [violation.rule for violation in made.violations]


def test_a_small_entry_beside_a_huge_one_breaks_it_whoever_asks_for_the_walk() -> None:
    assert walks(watcher(), 0, TAIL, SMALL) == [TWO_SIZES]
    assert walks(watcher(), 0, TAIL, SMALL, kind=Kind.WALK) == [TWO_SIZES]


def test_a_huge_entry_beside_a_small_one_breaks_it() -> None:
    made = watcher()
    assert not walks(made, 1, TAIL, SMALL)
    assert walks(made, 1, HEAD, HUGE) == [TWO_SIZES]


def test_other_addresses_cpus_and_address_spaces_do_not_count() -> None:
    made = watcher()
    assert not walks(made, 0, NEXT, SMALL)
    assert not walks(made, 1, TAIL, SMALL)
    assert not walks(made, 0, TAIL, SMALL, mm=OTHER)
    assert not walks(made, 0, HEAD, HUGE)


@pytest.mark.parametrize(
    ("flush", "drops"),
    [
        (ops.FlushTlb(), True),
        (ops.FlushTlbAll(), True),
        (ops.FlushTlbOne(HEAD), True),
        (ops.FlushTlbOne(TAIL), True),
        (ops.FlushTlbOne(NEXT), False),
        (ops.LoadCr3(MM, 2, True), True),
        (ops.LoadCr3(OTHER, 2, True), False),
    ],
)
def test_a_flush_of_it_drops_it(flush: Any, drops: bool) -> None:
    made = watcher()
    made.happened(Transition(Kind.STEP, 0), flush, False, None)
    assert bool(walks(made, 0, TAIL, SMALL)) != drops


def test_a_fault_drops_what_there_is_for_its_address() -> None:
    made = watcher()
    walks(made, 0, TAIL, 0)
    assert not walks(made, 0, TAIL, SMALL)


def test_state_and_restore() -> None:
    made = watcher()
    before = made.state()
    walks(made, 1, TAIL, SMALL)
    assert made.state() != before
    made.restore(before)
    assert made.state() == before and not walks(made, 1, HEAD, HUGE)
