"""Schedules as text: every one survives the way there and back, and mistakes are told in one line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.explore.schedule import (
    MAX_TRANSITIONS,
    ScheduleProblem,
    format_schedule,
    parse_schedule,
    replay,
)
from emulator.hardware.cpu import Kind, Transition
from emulator.machine.referee import Referee
from tests.explore.broken_litmus import early_free, lost_wakeup

cpus = st.integers(0, 300)
transitions = st.one_of(
    st.builds(Transition, st.sampled_from([Kind.STEP, Kind.INTERRUPT]), cpus, st.just(0)),
    st.builds(Transition, st.just(Kind.PERFORM), cpus, st.integers(0, 100)),
    st.builds(Transition, st.just(Kind.WALK), cpus, st.integers(0, 2**52)),
    st.builds(Transition, st.just(Kind.INVALIDATE), cpus, cpus),
)
runs = st.lists(st.tuples(transitions, st.integers(1, 5)), max_size=20)


@given(runs)
def test_there_and_back(drawn: list[tuple[Transition, int]]) -> None:
    schedule = tuple(transition for transition, count in drawn for _ in range(count))
    text = format_schedule(schedule)
    assert parse_schedule(text) == schedule
    assert format_schedule(parse_schedule(text)) == text


@given(st.text(max_size=30))
def test_any_text_is_a_schedule_or_a_problem_of_one_line(text: str) -> None:
    try:
        found = parse_schedule(text)
    except ScheduleProblem as problem:
        assert len(str(problem).splitlines()) == 1
    else:
        assert parse_schedule(format_schedule(found)) == found


def test_the_form() -> None:
    schedule = (
        *[Transition(Kind.STEP, 0)] * 5,
        Transition(Kind.INTERRUPT, 1),
        Transition(Kind.PERFORM, 2, 0),
        Transition(Kind.WALK, 1, 0x10),
        Transition(Kind.STEP, 0),
    )
    assert format_schedule(schedule) == "0*5 i1 p2.0 w1.0x10 0"
    assert parse_schedule("  0*3 0 0\n i1 p2.0\tw1.0x10 0 ") == schedule
    assert format_schedule(()) == ""
    assert parse_schedule("") == ()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("0 1 x", r"token 3 of the schedule \('x'\) is none of 0, i0, p0.1, w0.0x10"),
        ("i", "token 1"),
        ("0 p1", "token 2"),
        ("w1.16", "token 1"),
        ("-1", "token 1"),
        ("0*", "token 1"),
        ("0*0", "at least 1"),
        (f"0*{MAX_TRANSITIONS + 1}", f"at most {MAX_TRANSITIONS}"),
        (f"0*{MAX_TRANSITIONS} 0", "token 2"),
        ("٣", "token 1"),
        ("0" * 500, r"token 1 of the schedule \('0{40}\.\.\.'\)"),
    ],
)
def test_what_is_no_schedule(text: str, told: str) -> None:
    with pytest.raises(ScheduleProblem, match=told):
        parse_schedule(text)


def test_a_replay_breaks_the_rule_again() -> None:
    explorer = Referee(early_free())
    for _ in range(2):
        violation = replay(explorer, parse_schedule("0*2 1*2"))
        assert violation is not None
        assert violation.rule == "access to a free frame"
        assert format_schedule(explorer.path) == "0*2 1*2"


def test_a_replay_stops_at_the_first_broken_rule() -> None:
    explorer = Referee(early_free())
    assert replay(explorer, parse_schedule("0*2 1*2 0 i7 i7"))
    assert len(explorer.path) == 4


def test_part_of_a_run_breaks_nothing() -> None:
    assert replay(Referee(early_free()), parse_schedule("0*2")) is None
    assert replay(Referee(early_free()), ()) is None


def test_the_end_is_judged_when_it_is_reached() -> None:
    explorer = Referee(lost_wakeup())
    lost = parse_schedule("0 1*3 0 2*7")
    assert replay(explorer, lost[:-1]) is None
    violation = replay(explorer, lost)
    assert violation is not None
    assert violation.rule == "deadlock"
    assert "CPU 0 at WaitFor" in violation.text


def test_a_schedule_that_does_not_fit() -> None:
    explorer = Referee(early_free())
    with pytest.raises(
        ScheduleProblem, match=r"^transition 3 \(i1\) is not possible there; possible are 0, 1, 2$"
    ):
        replay(explorer, parse_schedule("0*2 i1"))
    with pytest.raises(ScheduleProblem, match=r"^transition 13 \(0\) .*; the run has ended$"):
        replay(Referee(lost_wakeup()), parse_schedule("0 1*3 0 2*7 0"))
