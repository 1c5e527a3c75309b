"""From a race to what it does: a rule of happens-before says what could go wrong, another one what then did.

The run that broke the first goes on, with that kind of rule left out of account, until somebody reads what is
stale, writes where nobody will look, or something is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from emulator.checks import frugality
from emulator.checks.heed import Heed
from emulator.explore.ddmin import shrink
from emulator.explore.learned import LearnedMachine
from emulator.explore.onward import Onward
from emulator.explore.schedule import ScheduleProblem, replay
from emulator.explore.search import Limits, search
from emulator.explore.strategies import find_strategy
from emulator.hardware.cpu import Transition
from emulator.machine.referee import Referee
from scenarios.drawing.columns import draw
from scenarios.runs.deadline import Deadline
from scenarios.runs.harm import Harm
from scenarios.runs.searches import confirmed
from scenarios.subjects.rules import RULES
from scenarios.subjects.subject import Subject, faults_in_one_line

RACES: Final = tuple(rule for rule in RULES if rule.startswith("grace period"))
"""Rules that say what could go wrong, as happens-before has it."""

SCHEDULES: Final = 20_000
SECONDS: Final = 10.0
_DETOURS: Final = 20_000
_NO_HARM: Final = (*RACES, frugality.NEEDLESS)


def harm_of(subject: Subject, schedule: Sequence[Transition], rule: str, seed: int) -> Harm | None:
    """What the race at the end of a litmus test's schedule leads to. None if that rule is no race."""
    if rule not in RACES:
        return None
    behind = replace(subject, heed=Heed(subject.heed.rules, (*subject.heed.ignored, *_NO_HARM)))
    machine = behind.litmus_machine()
    with faults_in_one_line(behind), Deadline(SECONDS) as deadline:
        onward = Onward(LearnedMachine(machine), schedule)
        tally = search(onward, find_strategy("uniform")(), seed, Limits(SCHEDULES), deadline.over)
        if tally.violation is None:
            if deadline.interrupted:
                raise KeyboardInterrupt
            return Harm(rule, tally.schedules)
        found, broken = tally.schedule, tally.violation.rule
        short = shrink(LearnedMachine(machine), found, broken, deadline.over, _DETOURS)
        # A shorter way may be one that is not through the race.
        way, violation = confirmed(behind, machine, short if _races(subject, short, rule) else found, broken)
        if deadline.interrupted:
            raise KeyboardInterrupt
        drawing = draw(machine, way).broken(violation.rule, violation.cpu)
    steps = len(schedule) if tuple(way[: len(schedule)]) == tuple(schedule) else 0
    return Harm(rule, tally.schedules, violation, way, drawing, steps)


def _races(subject: Subject, schedule: Sequence[Transition], rule: str) -> bool:
    try:
        found = replay(Referee(subject.litmus_machine()), schedule)
    except ScheduleProblem:
        return False
    return found is not None and found.rule == rule
