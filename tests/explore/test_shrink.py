"""What comes out of shrinking breaks the same rule, is never worse, and leaves nothing to leave out."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.explore.ddmin import preemptions, shrink
from emulator.explore.schedule import ScheduleProblem, format_schedule, parse_schedule, replay
from emulator.explore.search import Limits, Tally, search
from emulator.explore.strategies import find_strategy
from emulator.hardware.cpu import Kind, Transition
from emulator.machine.litmus import LitmusMachine
from emulator.machine.referee import Referee
from tests.explore.broken_litmus import (
    early_free,
    forgetful,
    lost_wakeup,
    machine,
    reads_nothing,
    reorders,
    sees_itself,
)


def never() -> bool:
    return False


def found(explorer: Referee, seed: int, strategy: str = "portfolio") -> Tally:
    tally = search(explorer, find_strategy(strategy)(), seed, Limits(500), never)
    assert tally.violation is not None
    return tally


def shrunk(explorer: Referee, tally: Tally, patience: int = 0) -> tuple[Transition, ...]:
    assert tally.violation is not None
    return shrink(explorer, tally.schedule, tally.violation.rule, never, patience)


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 1000))
def test_a_narrow_race_comes_down_to_its_four_steps(seed: int) -> None:
    explorer = Referee(early_free(2, walked=True))
    short = shrunk(explorer, found(explorer, seed))
    assert format_schedule(short) in ("0*2 1*2", "0*2 2*2")


@pytest.mark.parametrize("seed", range(3))
def test_stores_that_need_not_be_performed_wait_for_ever(seed: int) -> None:
    explorer = Referee(reorders())
    short = shrunk(explorer, found(explorer, seed))
    assert format_schedule(short) == "0*6 p0.5 1*2"


@pytest.mark.parametrize(
    "broken",
    [
        forgetful(),
        early_free(2),
        lost_wakeup(),
        machine(sees_itself, sees_itself),
        machine(reads_nothing, sees_itself),
    ],
)
@pytest.mark.parametrize("patience", [0, 20])
def test_the_same_rule_shorter_and_nothing_left_to_leave_out(broken: LitmusMachine, patience: int) -> None:
    explorer = Referee(broken)
    tally = found(explorer, 3)
    assert tally.violation is not None
    short = shrunk(explorer, tally, patience)
    assert shrunk(explorer, tally, patience) == short
    violation = replay(explorer, short)
    assert violation is not None
    assert violation.rule == tally.violation.rule
    assert (len(short), preemptions(short)) <= (len(tally.schedule), preemptions(tally.schedule))
    for at in range(len(short)):
        try:
            other = replay(explorer, short[:at] + short[at + 1 :])
        except ScheduleProblem:
            continue
        assert other is None or other.rule != violation.rule or len(explorer.path) >= len(short)


def test_a_deadlock_is_carried_to_its_end_with_few_preemptions() -> None:
    explorer = Referee(lost_wakeup())
    tally = found(explorer, 1, "random")
    short = shrunk(explorer, tally)
    # The sleeper looks, the waker runs, the sleeper falls asleep; the third CPU runs whenever.
    assert preemptions(tally.schedule) > preemptions(short) == 3
    assert replay(explorer, short) is not None


def test_what_follows_the_violation_is_cut() -> None:
    explorer = Referee(early_free())
    long = parse_schedule("2*3 0*2 1*2 0 0")
    assert format_schedule(shrink(explorer, long, "access to a free frame", lambda: True, 0)) == "2*3 0*2 1*2"
    assert format_schedule(shrink(explorer, long, "access to a free frame", never, 0)) == "0*2 1*2"


def test_it_stops_when_told_and_keeps_what_it_has() -> None:
    explorer = Referee(lost_wakeup())
    tally = found(explorer, 1, "random")
    assert tally.violation is not None
    for runs in (0, 5, 20, 60):
        left = iter(range(runs))
        short = shrink(explorer, tally.schedule, "deadlock", lambda left=left: next(left, None) is None, 100)  # type: ignore[misc]
        assert replay(explorer, short) is not None


def test_a_schedule_that_does_not_break_the_rule_is_refused() -> None:
    explorer = Referee(early_free())
    with pytest.raises(ScheduleProblem, match="breaks nothing, not 'deadlock'"):
        shrink(explorer, parse_schedule("0*2"), "deadlock", never, 0)
    with pytest.raises(ScheduleProblem, match="breaks 'access to a free frame', not 'deadlock'"):
        shrink(explorer, parse_schedule("0*2 1*2"), "deadlock", never, 0)


def test_preemptions() -> None:
    assert preemptions(()) == 0
    assert preemptions(parse_schedule("0*5 i0 p0.0")) == 0
    assert preemptions(parse_schedule("0 1 0 w0.0x1 1")) == 3
    assert preemptions([Transition(Kind.STEP, 0)]) == 0
