"""Following a recording on the plain engine: does the same happen again, and what do the checks say?

Block by block it is compared by checksum, at the end by digests. A recording that was cut is followed as far
as it goes; nothing is said about its end then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from actors.errors import fault_of, running_cpu
from actors.recorder import AnswerSum, runs
from emulator.checks.accounting import Accounting
from emulator.checks.violation import NO_END, Violation
from emulator.hardware.cpu import Kind, TakeCalls, Transition
from emulator.hardware.operations import NUMBERS, Operation, Touch
from emulator.machine.progress import DEADLOCK, SILENCE, broken_by_program, waits_with_interrupts_off
from emulator.machine.protocols import Machine
from emulator.machine.shared import Shared
from emulator.machine.stepper import LocalEngine
from emulator.measure.digest import digest
from emulator.memory.memory import BLOCKED
from scenarios.drawing.columns import Drawing, Tail
from scenarios.files.recording import End, Recording, tlb_digest

LOOK_EVERY: Final = 5_000  # transitions
TAIL: Final = 40

Look = Callable[[int, int], None]
"""Called now and then with the transitions taken and the position in the file."""


class _Summing(Shared):
    """What CPUs share, with the checksum that the recording has."""

    __slots__ = ("operations", "total")

    def __init__(self, engine: LocalEngine) -> None:
        super().__init__(engine.memory, len(engine.cpus), engine.observers)
        self.total = AnswerSum()
        self.operations = 0

    def execute(self, cpu: int, operation: Operation | TakeCalls) -> Any:
        answer = super().execute(cpu, operation)
        if answer is not BLOCKED and not isinstance(operation, TakeCalls):
            self.operations += 1
            self.total.add(cpu, NUMBERS[type(operation)], answer)
        return answer


class Stepper:
    """A machine at its start, to be stepped with all checks on.

    `violation` is the first broken rule, `path` the transitions if `keeps_path`.
    """

    def __init__(self, machine: Machine, draws: bool = False) -> None:
        memory: Any = machine.memory()
        cpus = []
        for number in range(machine.cpus):
            cpu, program, _ = machine.cpu(number)
            if not cpu.frames:
                cpu.boot(program)
            cpus.append(cpu)
        checks: Any = machine.checks(memory)
        watchers = list(machine.watchers(memory))
        self.tail = Tail(cpus, TAIL) if draws else None
        self.engine = LocalEngine(memory, cpus, checks, [*watchers, self.tail] if self.tail else watchers)
        self.shared = self.engine.shared = _Summing(self.engine)
        self._deaf: list[Violation] = []
        self._noted = [*(one.violations for one in (*checks, *watchers)), self._deaf]
        self._judges = watchers if any(isinstance(check, Accounting) for check in checks) else []
        self.violation: Violation | None = None
        self.fault = ""  # what a program raised that stands for no rule

    def take(self, transition: Transition) -> bool:
        """Let it happen. False, and nothing has changed, if it is not possible now."""
        engine = self.engine
        before = engine.steps
        broken = None
        try:
            engine.take(transition)
        except ValueError as problem:
            if engine.steps == before:
                return False
            broken = self._raised(transition.cpu, problem)
        except Exception as problem:
            broken = self._raised(transition.cpu, problem)
        if not self._deaf and (deaf := waits_with_interrupts_off(engine.cpus[transition.cpu])):
            self._deaf.append(deaf)
        if self.violation is None:
            for noted in self._noted:
                if noted:
                    self.violation = noted[0]
                    break
            else:
                self.violation = broken
        return True

    def _raised(self, cpu: int, problem: Exception) -> Violation | None:
        broken = broken_by_program(cpu, problem)
        if broken is None:
            if running_cpu(problem) < 0:
                raise problem
            fault = fault_of(problem)
            self.fault = (
                f"CPU {cpu}: {fault.kind}: {fault.message} ({fault.file}:{fault.line} in {fault.function})"
            )
        else:
            self._noted.append([broken])
        return broken

    def possible_touch(self, transition: Transition) -> Transition:
        """The same, its end of a run of touches left open where it means another run."""
        if not transition.at or transition.kind:
            return transition
        cpu = self.engine.cpus[transition.cpu]
        operation = cpu.operation if cpu.frames else None
        if isinstance(operation, Touch) and not operation.start <= transition.at <= operation.stop:
            return transition._replace(at=0)
        return transition

    def finish(self) -> None:
        """The machine has come to its end: let the checks judge that too, or that it is none."""
        engine = self.engine
        if engine.finished():
            engine.finish()
            for watcher in self._judges:
                watcher.finish()
        elif all(transition.kind is Kind.WALK for transition in engine.transitions()):
            self.add(Violation(rule=DEADLOCK, cpu=-1, text=str(engine.deadlock())))
        if self.violation is None:
            self.violation = next((noted[0] for noted in self._noted if noted), None)

    def add(self, violation: Violation) -> None:
        """Note what no check here can see."""
        self._noted.append([violation])

    def violations(self) -> list[Violation]:
        """All that was found."""
        return [violation for noted in self._noted for violation in noted]

    def end(self) -> End:
        """As the end of a recording has it."""
        cpus = self.engine.cpus
        return End(
            transitions=self.engine.steps,
            memory_digest=digest(self.engine.memory.state()),
            tlb_digest=tlb_digest([tuple(cpu.tlb.entries()) for cpu in cpus]),
            violations=tuple(self.violations()),
        )


class Following:
    """The replay of one recording. After `run`:

    `block` counts those that came out the same; `different` says where and how it went another way, empty if
    it did not; `drawing` shows the last transitions before `stepper.violation`, which came at `broken_at`.
    """

    def __init__(self, recording: Recording, machine: Machine) -> None:
        self.recording = recording
        self.stepper = Stepper(machine, draws=True)
        self.blocks = 0
        self.different = ""
        self.different_block = 0
        self.different_transition = 0
        self.broken_at = 0
        self.drawing: Drawing | None = None

    def run(self, look: Look) -> None:
        """Follow it to its end, or to where it went another way."""
        for events, checksum in self.recording.blocks():
            if not self._block(events, look):
                return
            steps = self.stepper.engine.steps
            if self.stepper.shared.total.value != checksum:
                self._differs(steps, f"answers differ somewhere up to transition {steps:,}")
                return
            self.blocks += 1
        if self.recording.end is not None:
            self._compare(self.recording.end)

    def _block(self, events: tuple[int, ...], look: Look) -> bool:
        for transition in _each(events):
            stepper = self.stepper
            steps = stepper.engine.steps
            if not steps % LOOK_EVERY:
                look(steps, self.recording.position)
            if stepper.fault:
                self._differs(steps, f"a program had raised: {stepper.fault}")
                return False
            if not 0 <= transition.cpu < len(stepper.engine.cpus) or not stepper.take(transition):
                self._differs(steps + 1, f"transition {steps + 1:,} is not possible there")
                return False
            if stepper.violation is not None and self.drawing is None:
                self._draw()
        return True

    def _draw(self) -> None:
        violation = self.stepper.violation
        if violation is None or self.drawing is not None or self.stepper.tail is None:
            return
        self.broken_at = self.stepper.engine.steps
        self.drawing = self.stepper.tail.drawing().broken(violation.rule, violation.cpu)

    def _compare(self, end: End) -> None:
        """The ends: of the recorded run, and of this one."""
        for violation in end.violations:
            if violation.rule in (NO_END, SILENCE):
                self.stepper.add(violation)
        if not self.stepper.fault:
            self.stepper.finish()
        self._draw()
        here = self.stepper.end()
        names = {"transitions": "transitions", "memory_digest": "memory", "tlb_digest": "the TLBs"}
        if not end.tlb_digest:
            # The run was cut while CPUs were on their way.
            del names["tlb_digest"]
        other = [text for name, text in names.items() if getattr(here, name) != getattr(end, name)]
        if other:
            self._differs(here.transitions, f"at the end {' and '.join(other)} differ")

    def _differs(self, transition: int, text: str) -> None:
        self.different_block = self.blocks + 1
        self.different_transition = transition
        self.different = f"block {self.different_block}: {text}"

    @property
    def rules_again(self) -> bool:
        """Every rule that the run itself found broken broke here too."""
        if self.recording.end is None:
            return True
        here = {violation.rule for violation in self.stepper.violations()}
        return all(one.rule in here for one in self.recording.end.violations)


def _each(events: tuple[int, ...]) -> Iterator[Transition]:
    for transition, count in runs(events):
        for _ in range(count):
            yield transition
