"""A shorter way to the rule that a recorded run broke.

The recording of a litmus run is an ordinary schedule and becomes a witness. A workload's is cut where the
rule breaks; then stretches are left out, the longest first, and what still happens of the rest is what
counts (`emulator.explore.ddmin`). It is saved as a recording that replays exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from actors.recorder import note, runs
from emulator.checks.violation import Violation
from emulator.explore.ddmin import Shrinker, shrink
from emulator.explore.learned import LearnedMachine
from emulator.explore.schedule import ScheduleProblem, format_schedule, replay
from emulator.hardware.cpu import Transition
from emulator.machine.builder import Machine
from emulator.machine.referee import Referee
from scenarios.files.recording import Recording, Writer
from scenarios.files.witness import Witness
from scenarios.runs.deadline import Deadline
from scenarios.runs.replays import SharedSum, end_of, sum_of
from scenarios.runs.searches import confirmed
from scenarios.subjects.subject import Subject, faults_in_one_line
from scenarios.usage import UsageProblem

DETOURS: Final = 1_000_000
_BLOCK: Final = 3_000  # numbers in a block

Schedule = Sequence[Transition]


@dataclass(frozen=True, slots=True)
class Shrunk:
    """Transitions recorded, up to the broken rule, and now; `tried` counts runs of a workload."""

    rule: str
    before: int
    cut: int
    after: int
    tried: int = 0
    witness: Witness | None = None
    interrupted: bool = False


def _schedule(recording: Recording) -> list[Transition]:
    return [one for events, _ in recording.blocks() for one, count in runs(events) for _ in range(count)]


def shorter(
    subject: Subject, schedule: Schedule, rule: str, seconds: float
) -> tuple[Schedule, Violation, bool]:
    """The shortest way to a litmus test's broken rule that is found in that time, how it breaks, and whether
    Ctrl-C ended the search. ScheduleProblem if the schedule does not break that rule."""
    machine = subject.litmus_machine()
    with faults_in_one_line(subject):
        with Deadline(seconds) as deadline:
            short = shrink(LearnedMachine(machine), schedule, rule, deadline.over, DETOURS)
        return *confirmed(subject, machine, short, rule), deadline.interrupted


def shrink_litmus(recording: Recording, seconds: float) -> Shrunk | None:
    """A witness, as short as can be. None if no rule breaks."""
    subject = recording.subject()
    before = _schedule(recording)
    explorer = Referee(subject.litmus_machine())
    try:
        with faults_in_one_line(subject):
            found = replay(explorer, before)
        if found is None:
            return None
        cut, rule = tuple(explorer.path), found.rule
        after, violation, interrupted = shorter(subject, cut, rule, seconds)
    except ScheduleProblem as problem:
        raise UsageProblem(f"{recording.path}: does not come out again: {problem}") from None
    witness = Witness.of(subject, format_schedule(after), violation, recording.header.seed, "live")
    return Shrunk(rule, len(before), len(cut), len(after), 0, witness, interrupted)


def shrink_workload(recording: Recording, machine: Machine, seconds: float, target: Path) -> Shrunk | None:
    """Write a shorter recording to `target`. None if no rule breaks."""
    whole = _schedule(recording)
    referee = Referee(machine)
    with Deadline(seconds) as deadline:
        cut = _cut(referee, whole)
        at_end = referee.violation is None
        if at_end:
            referee.finish()
        if referee.violation is None:
            return None
        rule = referee.violation.rule
        shrinker = Shrinker(referee, tuple(cut), rule, at_end, deadline.over)
        shrinker.minimise_long()
    _write(recording, machine, shrinker.best, target)
    after = len(shrinker.best)
    return Shrunk(rule, len(whole), len(cut), after, shrinker.tried, interrupted=deadline.interrupted)


def _cut(referee: Referee, whole: Schedule) -> Schedule:
    """Take it as it was recorded; what there was up to the broken rule."""
    for number, transition in enumerate(whole, 1):
        if not referee.step(transition):
            raise UsageProblem(
                f"the recording went another way at transition {number:,}; migrc replay says more"
            )
        if referee.violation is not None or referee.error is not None:
            return whole[:number]
    return whole


def _write(recording: Recording, machine: Machine, schedule: Schedule, target: Path) -> None:
    """Save what happens under a schedule as a recording, checksums and all."""
    referee = Referee(machine, SharedSum)
    with Writer(target, recording.header) as writer:
        events: list[int] = []
        for kind, cpu, at in schedule:
            if len(events) >= _BLOCK:
                writer.keep(events, sum_of(referee).total.value)
                events = []
            if not referee.step(Transition(kind, cpu, at)):
                raise AssertionError("runs do not repeat themselves")
            note(events, kind, cpu, at, 1)
        writer.keep(events, sum_of(referee).total.value)
        referee.finish()
        writer.end(end_of(referee))
