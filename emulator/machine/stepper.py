"""The local engine: all CPUs of a machine in one process, one step at a time.

It knows what could happen next and carries out the one that its caller chooses. Who goes next is the
caller's business; with the same choices everything else repeats itself exactly. This is the plain
engine that replays and tells; searches use a faster one (`learned`) that must agree with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from emulator.checks.onlooker import Check, Listener
from emulator.checks.violation import Violation
from emulator.hardware.cpu import Choice, Cpu, Kind, Transition
from emulator.kernel.percpu import PerCpu
from emulator.machine.builder import Machine
from emulator.machine.progress import at_end, boot_program, deadlock, waits
from emulator.machine.shared import Shared
from emulator.memory.blocked import BLOCKED
from emulator.memory.memory import Memory


class LocalEngine:
    """Runs booted CPUs against one memory; nobody else lets them take anything meanwhile."""

    def __init__(
        self,
        memory: Memory,
        cpus: Sequence[Cpu],
        checks: Sequence[Check] = (),
        listeners: Sequence[Listener] = (),
        shared: type[Shared] = Shared,
    ) -> None:
        self.memory = memory
        self.cpus = cpus
        self.checks = checks
        self.listeners = list(listeners)
        self.shared = shared(memory, len(cpus), checks)
        self.steps = 0
        # What a CPU may do next follows from its own state.
        self._choices: list[list[Choice] | None] = [None] * len(cpus)

    def _choices_of(self, cpu: Cpu) -> list[Choice]:
        found = self._choices[cpu.number]
        if found is None:
            found = self._choices[cpu.number] = cpu.choices()
        return found

    def _choice(self, transition: Transition) -> Choice:
        wanted = transition if transition.kind is not Kind.STEP else transition._replace(at=0)
        known = 0 <= transition.cpu < len(self.cpus)
        for choice in self._choices_of(self.cpus[transition.cpu]) if known else ():
            if choice.transition == wanted:
                return Choice(transition, choice.operation)
        raise ValueError(f"{transition} is not possible here")

    def transitions(self, cpu: int = -1) -> list[Transition]:
        """Everything that can happen next, on one CPU if given, in a fixed order."""
        return [
            choice.transition
            for one in (self.cpus if cpu < 0 else self.cpus[cpu : cpu + 1])
            for choice in self._choices_of(one)
            if choice.operation is None or self._enabled(one, choice)
        ]

    def _enabled(self, cpu: Cpu, choice: Choice) -> bool:
        assert choice.operation is not None
        if choice.transition.kind is Kind.WALK:
            # A walk that would find nothing, or what the TLB has, is no event.
            entry = self.memory.page_tables.found_by(choice.operation)
            return cpu.would_cache(choice.transition.at, entry)
        return self.shared.enabled(cpu.number, choice.operation)

    def finished(self) -> bool:
        """Every CPU has ended its program, every call is taken and every effect has been performed."""
        return self.shared.calls.quiet() and all(at_end(cpu) and not cpu.window.pending for cpu in self.cpus)

    def deadlock(self) -> Violation:
        """What is wrong with a state without transitions that is not finished: who waits for what."""
        return deadlock(waits(self.cpus, self.shared.calls.queues))

    def finish(self) -> None:
        """Let the checks judge the final state."""
        for check in self.checks:
            check.finish()

    def take(self, transition: Transition) -> Any:
        """Carry out one of `transitions()`; what was answered. ValueError if it is not one of them."""
        choice = self._choice(transition)
        cpu = self.cpus[transition.cpu]
        if choice.transition.kind is Kind.WALK and not self._enabled(cpu, choice):
            raise ValueError(f"{transition} would find nothing new")
        answer = None
        operation = choice.operation
        self._choices[transition.cpu] = None
        if operation is not None:
            answer = self.shared.execute(cpu.number, operation)
            if answer is BLOCKED:
                raise ValueError(f"{transition} has to wait: {operation}")
        self.steps += 1
        if self.listeners:
            done, issued = cpu.about(transition)
            for listener in self.listeners:
                listener.happened(transition, done, issued, answer)
        cpu.take(transition, answer)
        return answer


def boot(machine: Machine, number: int) -> tuple[Cpu, PerCpu]:
    """CPU `number`, its program waiting for its first operation, and its kernel."""
    cpu, program, kernel = machine.cpu(number)
    boot_program(cpu, program)
    return cpu, kernel


def plain_engine(machine: Machine, shared: type[Shared] = Shared) -> LocalEngine:
    """A machine at its start, its checks watching memory; nobody listens yet."""
    memory = machine.memory()
    checks = machine.checks(memory)
    cpus = [boot(machine, number)[0] for number in range(machine.cpus)]
    return LocalEngine(memory, cpus, checks, (), shared)
