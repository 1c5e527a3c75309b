"""A shorter way to the rule that a recorded run broke.

The recording of a litmus run is an ordinary schedule and becomes a witness. A workload's is cut where the
rule breaks; then stretches are left out, the longest first, and what still happens of the rest is what
counts: the next candidate is made from that, and it is saved as a recording that replays exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from actors.recorder import note, runs
from emulator.checks.violation import Violation
from emulator.explore.ddmin import shrink
from emulator.explore.schedule import ScheduleProblem, format_schedule, replay
from emulator.explore.subsequence import Entries, named
from emulator.hardware.cpu import Kind, Transition
from emulator.machine.protocols import Machine
from scenarios.files.recording import Recording, Writer
from scenarios.files.witness import Witness
from scenarios.runs.deadline import Patience, patient
from scenarios.runs.replays import Stepper
from scenarios.runs.searches import confirmed, fast_explorer, plain_explorer
from scenarios.subjects.subject import faults_in_one_line
from scenarios.usage import UsageProblem

DETOURS: Final = 1_000_000
_BLOCK: Final = 3_000  # numbers in a block
_LOOK: Final = 1_000  # transitions between two looks at the clock

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


def shrink_litmus(recording: Recording, seconds: float) -> Shrunk | None:
    """A witness, as short as can be. None if no rule breaks."""
    subject = recording.subject()
    machine = subject.litmus_machine()
    before = _schedule(recording)
    with faults_in_one_line(subject), patient(seconds) as patience:
        explorer = plain_explorer(machine)
        try:
            found = replay(explorer, before)
            if found is None:
                return None
            cut, rule = tuple(explorer.path), found.rule
            short = shrink(fast_explorer(machine), cut, rule, patience.over, DETOURS)
        except ScheduleProblem as problem:
            raise UsageProblem(f"{recording.path}: does not come out again: {problem}") from None
    with faults_in_one_line(subject):
        after, violation = confirmed(subject, machine, short, rule)
    schedule = format_schedule(after)
    witness = Witness.of(subject, schedule, violation, recording.header.seed, "live")
    return Shrunk(rule, len(before), len(cut), len(after), 0, witness, patience.interrupted)


def shrink_workload(recording: Recording, machine: Machine, seconds: float, target: Path) -> Shrunk | None:
    """Write a shorter recording to `target`. None if no rule breaks."""
    whole = _schedule(recording)
    with patient(seconds) as patience:
        shrinker = _Shrinker(machine, patience)
        if not shrinker.begin(whole):
            return None
        cut = len(shrinker.best)
        shrinker.minimise()
    violation = shrinker.violation
    assert violation is not None
    _write(recording, machine, shrinker.best, target)
    return Shrunk(
        violation.rule,
        len(whole),
        cut,
        len(shrinker.best),
        shrinker.tried,
        interrupted=patience.interrupted,
    )


class _Stop(Exception):
    """Time is up."""


class _Shrinker:
    """`best` breaks the rule at its last transition."""

    def __init__(self, machine: Machine, patience: Patience) -> None:
        self.best: list[Transition] = []
        self.violation: Violation | None = None
        self.tried = 0
        self._machine = machine
        self._patience = patience
        self._at_end = False  # the rule is judged when all is over

    def begin(self, whole: Schedule) -> bool:
        """Take it as it was recorded, up to the broken rule; whether there is one."""
        stepper = Stepper(self._machine)
        for number, transition in enumerate(whole, 1):
            if not stepper.take(transition):
                raise UsageProblem(
                    f"the recording went another way at transition {number:,}; migrc replay says more"
                )
            self.best.append(transition)
            if stepper.violation is not None or stepper.fault:
                break
        if stepper.violation is None and not stepper.fault:
            stepper.finish()
            self._at_end = True
        self.violation = stepper.violation
        return self.violation is not None

    def minimise(self) -> None:
        """Leave out what can be left out, until nothing helps or time is up."""
        try:
            for cpu in range(self._machine.cpus):
                self._try(lambda one, at, cpu=cpu: one.cpu == cpu)  # type: ignore[misc]
            size = len(self.best) // 2
            while size:
                at = len(self.best) - size
                # From the back: what comes late is needed by less.
                while at > -size:
                    for cpu in range(self._machine.cpus):
                        self._leave_out(max(at, 0), at + size, cpu)
                    at -= size
                size //= 2
        except _Stop:
            pass

    def _leave_out(self, low: int, high: int, cpu: int) -> None:
        """Without what one CPU does in a stretch."""
        if any(one.cpu == cpu for one in self.best[low:high]):
            self._try(lambda one, at: low <= at < high and one.cpu == cpu)

    def _try(self, left_out: Callable[[Transition, int], bool]) -> None:
        if self._patience.over():
            raise _Stop
        self.tried += 1
        names = named(self.best, self._machine.cpus)
        kept = [one for at, one in enumerate(names) if not left_out(one, at)]
        if len(kept) == len(names):
            return
        stepper = Stepper(self._machine)
        path = self._follow(stepper, kept)
        if self._at_end and stepper.violation is None and not stepper.fault:
            stepper.finish()
        found, wanted = stepper.violation, self.violation
        if found is None or wanted is None or found.rule != wanted.rule:
            return
        if len(path) < len(self.best):
            self.best, self.violation = path, found

    def _follow(self, stepper: Stepper, kept: Schedule) -> list[Transition]:
        """What is possible of a schedule in named form, up to a broken rule."""
        path: list[Transition] = []
        entries = Entries(self._machine.cpus)
        for number, one in enumerate(kept):
            if number % _LOOK == 0 and self._patience.over():
                raise _Stop
            transition = stepper.possible_touch(one)
            if one.kind is Kind.PERFORM:
                transition = one._replace(at=entries.position(one.cpu, one.at))
                if transition.at < 0:
                    continue
            if not stepper.take(transition):
                continue
            if one.kind is Kind.PERFORM:
                entries.performed(one.cpu, transition.at)
            path.append(transition)
            if stepper.violation is not None or stepper.fault:
                break
        return path


def _write(recording: Recording, machine: Machine, schedule: Schedule, target: Path) -> None:
    """Save what happens under a schedule as a recording, checksums and all."""
    stepper = Stepper(machine)
    with Writer(target, recording.header) as writer:
        events: list[int] = []
        for kind, cpu, at in schedule:
            if len(events) >= _BLOCK:
                writer.keep(events, stepper.shared.total.value)
                events = []
            if not stepper.take(Transition(kind, cpu, at)):
                raise AssertionError("runs do not repeat themselves")
            note(events, kind, cpu, at, 1)
        writer.keep(events, stepper.shared.total.value)
        stepper.finish()
        writer.end(stepper.end())
