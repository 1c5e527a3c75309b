"""Naming a window's entries by issue: exact where nothing was left out, and steady where something was."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.explore.schedule import format_schedule, parse_schedule
from emulator.explore.subsequence import follow_possible, named
from emulator.hardware.cpu import Kind, Transition
from emulator.machine.referee import Referee
from tests.explore.broken_litmus import cached_everywhere, early_free, machine, moves, reads, reorders


def follow(explorer: Referee, schedule: Sequence[Transition], most: int) -> None:
    follow_possible(explorer, schedule, most, lambda: None)


@pytest.mark.parametrize(
    "broken",
    [
        reorders(),
        early_free(2, walked=True),
        machine(moves, reads, setup=cached_everywhere, architecture="riscv", speculated=(0x10,)),
    ],
)
@pytest.mark.parametrize("seed", range(8))
def test_a_whole_run_is_followed_exactly(broken, seed: int) -> None:  # type: ignore[no-untyped-def]
    explorer = Referee(broken)
    rng = random.Random(seed)
    while (options := explorer.options()) and explorer.violation is None:
        explorer.take(rng.choice(options))
    taken = explorer.path
    follow(explorer, named(taken, explorer.cpus), len(taken))
    assert explorer.path == taken


@given(st.permutations(range(6)))
def test_entries_are_numbered_as_issued(order: list[int]) -> None:
    window = list(range(6))
    schedule = []
    for number in order:
        schedule.append(Transition(Kind.PERFORM, 0, window.index(number)))
        window.remove(number)
    assert [one.at for one in named(schedule, 1)] == order


def test_what_is_not_possible_is_passed_over() -> None:
    explorer = Referee(early_free())
    follow(explorer, parse_schedule("i1 0*2 i1 p1.3 w0.0x99 1*9"), 100)
    assert format_schedule(explorer.path) == "0*2 1*2"
    assert explorer.violation is not None
    follow(explorer, parse_schedule("i1 0*2 i1 1*9"), 3)
    assert format_schedule(explorer.path) == "0*2 1"


def test_leaving_an_earlier_entry_waiting_leaves_later_ones_as_they_were() -> None:
    explorer = Referee(reorders())
    schedule = named(parse_schedule("0*4 p0.0 p0.2"), explorer.cpus)
    assert format_schedule(schedule) == "0*4 p0.0 p0.3"
    follow(explorer, [one for one in schedule if one.at != 0 or one.kind is Kind.STEP], 100)
    assert format_schedule(explorer.path) == "0*4 p0.3"
