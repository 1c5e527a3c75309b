"""Following a recording on the plain engine: does the same happen again, and what do the checks say?

Block by block it is compared by checksum, at the end by digests. A recording that was cut is followed as far
as it goes; nothing is said about its end then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from actors.errors import fault_of
from actors.recorder import AnswerSum, runs
from emulator.checks.onlooker import Check
from emulator.hardware.cpu import TakeCalls, Transition
from emulator.hardware.operations import NUMBERS, Operation
from emulator.machine.builder import Machine
from emulator.machine.progress import NO_END, SILENCE, running_cpu
from emulator.machine.referee import Referee
from emulator.machine.shared import Shared
from emulator.measure.digest import digest
from emulator.memory.blocked import BLOCKED
from emulator.memory.memory import Memory
from scenarios.drawing.columns import Drawing, Tail
from scenarios.files.recording import End, Recording, tlb_digest

LOOK_EVERY: Final = 5_000  # transitions
TAIL: Final = 40

Look = Callable[[int, int], None]
"""Called now and then with the transitions taken and the position in the file."""


class SharedSum(Shared):
    """What CPUs share, with the checksum that the recording has."""

    __slots__ = ("operations", "total")

    def __init__(self, memory: Memory, cpus: int, checks: Sequence[Check] = ()) -> None:
        super().__init__(memory, cpus, checks)
        self.total = AnswerSum()
        self.operations = 0

    def execute(self, cpu: int, operation: Operation | TakeCalls) -> Any:
        answer = super().execute(cpu, operation)
        if answer is not BLOCKED and not isinstance(operation, TakeCalls):
            self.operations += 1
            self.total.add(cpu, NUMBERS[type(operation)], answer)
        return answer


def sum_of(referee: Referee) -> SharedSum:
    """What a referee's run has come to so far; it was made with a `SharedSum`."""
    shared = referee.engine.shared
    assert isinstance(shared, SharedSum)
    return shared


def end_of(referee: Referee) -> End:
    """As the end of a recording has it."""
    engine = referee.engine
    return End(
        transitions=engine.steps,
        memory_digest=digest(engine.memory.state()),
        tlb_digest=tlb_digest([tuple(cpu.tlb.entries()) for cpu in engine.cpus]),
        violations=tuple(referee.violations()),
    )


class Difference(NamedTuple):
    """Where a replay went another way, and how."""

    block: int
    transition: int
    text: str


class Replay:
    """The replay of one recording. After `run`:

    `blocks` counts those that came out the same; `different` says where and how it went another way, None if
    it did not; `drawing` shows the last transitions before `referee.violation`, which came at `broken_at`.
    """

    def __init__(self, recording: Recording, machine: Machine) -> None:
        self.recording = recording
        self.referee = Referee(machine, SharedSum)
        self._tail = Tail(self.referee.engine.cpus, TAIL)
        self.referee.engine.listeners.append(self._tail)
        self.blocks = 0
        self.different: Difference | None = None
        self.broken_at = 0
        self.drawing: Drawing | None = None

    def run(self, look: Look) -> None:
        """Follow it to its end, or to where it went another way."""
        for events, checksum in self.recording.blocks():
            if not self._block(events, look):
                return
            steps = self.referee.engine.steps
            if sum_of(self.referee).total.value != checksum:
                self._differs(steps, f"answers differ somewhere up to transition {steps:,}")
                return
            self.blocks += 1
        if self.recording.end is not None:
            self._compare(self.recording.end)

    def _block(self, events: tuple[int, ...], look: Look) -> bool:
        for transition in _each(events):
            referee = self.referee
            steps = referee.engine.steps
            if not steps % LOOK_EVERY:
                look(steps, self.recording.position)
            if referee.error is not None:
                self._differs(steps, f"a program had raised: {self.fault}")
                return False
            if not referee.step(transition):
                self._differs(steps + 1, f"transition {steps + 1:,} is not possible there")
                return False
            if referee.violation is not None:
                self._draw()
        return True

    def _draw(self) -> None:
        violation = self.referee.violation
        if violation is not None and self.drawing is None:
            self.broken_at = self.referee.engine.steps
            self.drawing = self._tail.drawing().broken(violation.rule, violation.cpu)

    def _compare(self, end: End) -> None:
        """The ends: of the recorded run, and of this one."""
        for violation in end.violations:
            if violation.rule in (NO_END, SILENCE):
                self.referee.note(violation)
        if self.referee.error is None:
            self.referee.finish()
        self._draw()
        here = end_of(self.referee)
        parts = (
            ("transitions", here.transitions != end.transitions),
            ("memory", here.memory_digest != end.memory_digest),
            # There is none if the run was cut while CPUs were on their way.
            ("the TLBs", here.tlb_digest != (end.tlb_digest or here.tlb_digest)),
        )
        other = [part for part, differs in parts if differs]
        if other:
            self._differs(here.transitions, f"at the end {' and '.join(other)} differ")

    def _differs(self, transition: int, text: str) -> None:
        block = self.blocks + 1
        self.different = Difference(block, transition, f"block {block}: {text}")

    @property
    def operations(self) -> int:
        """How many were carried out by what is shared."""
        return sum_of(self.referee).operations

    @property
    def fault(self) -> str:
        """What a program raised that stands for no rule, with its CPU; empty if none did."""
        error = self.referee.error
        return "" if error is None else f"CPU {running_cpu(error)}: {fault_of(error)}"

    @property
    def rules_again(self) -> bool:
        """Every rule that the run itself found broken broke here too."""
        if self.recording.end is None:
            return True
        here = {violation.rule for violation in self.referee.violations()}
        return all(one.rule in here for one in self.recording.end.violations)


def _each(events: tuple[int, ...]) -> Iterator[Transition]:
    for transition, count in runs(events):
        for _ in range(count):
            yield transition
