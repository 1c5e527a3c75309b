"""The local engine: all CPUs of a machine in one process, one step at a time.

It knows what could happen next and carries out the one that its caller chooses. Who goes next is the
caller's business; with the same choices everything else repeats itself exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple, Protocol

from emulator.hardware.cpu import Cpu, IpiRequest
from emulator.hardware.operations import (
    TABLE,
    AckIpi,
    Halt,
    Operation,
    Order,
    SendIpi,
    WaitAcks,
    Where,
    describe,
)
from emulator.memory.memory import BLOCKED, Memory


class Kind(IntEnum):
    """What a transition is."""

    STEP = 0  # the CPU's topmost program carries out its operation
    INTERRUPT = 1  # the CPU takes its queued calls
    PERFORM = 2  # the oldest effect in the CPU's window reaches memory


class Transition(NamedTuple):
    """One thing that can happen next."""

    kind: Kind
    cpu: int


class Observer(Protocol):
    """Somebody who watches what memory performs: a check or a measurement."""

    violations: list[Any]

    def observe(self, cpu: int, operation: Operation, answer: Any) -> None:
        """One performed operation."""

    def finish(self) -> None:
        """Every CPU has halted."""

    def results(self) -> dict[str, Any]:
        """Figures for a report, plain values."""


class Deadlock(Exception):
    """Some CPU has not halted and nothing can happen any more; the message says who waits for what."""


class LocalEngine:
    """Runs booted CPUs against one memory."""

    def __init__(self, memory: Memory, cpus: Sequence[Cpu], observers: Sequence[Observer] = ()) -> None:
        self.memory = memory
        self.cpus = cpus
        self.observers = observers
        self.steps = 0
        self._requests = [0] * len(cpus)
        self._missing: dict[tuple[int, int], int] = {}  # (sender, request) -> acknowledgements to come

    def transitions(self) -> list[Transition]:
        """Everything that can happen next, in a fixed order."""
        possible = []
        for cpu in self.cpus:
            if cpu.frames:
                if self._can_step(cpu):
                    possible.append(Transition(Kind.STEP, cpu.number))
                if cpu.can_interrupt():
                    possible.append(Transition(Kind.INTERRUPT, cpu.number))
            if cpu.window.pending and self.memory.enabled(cpu.number, cpu.window.pending[0]):
                possible.append(Transition(Kind.PERFORM, cpu.number))
        return possible

    def finished(self) -> bool:
        """Every CPU has halted for good and every effect has been performed."""
        return all(cpu.halted and not cpu.window.pending for cpu in self.cpus)

    def deadlock(self) -> Deadlock:
        """The error for a state without transitions that is not finished."""
        waiting = [
            f"CPU {cpu.number} {'with interrupts off ' if not cpu.irqs else ''}at {describe(cpu.operation)}"
            for cpu in self.cpus
            if cpu.frames
        ]
        return Deadlock(f"nothing can happen any more: {'; '.join(waiting)}")

    def finish(self) -> None:
        """Let the observers judge the final state."""
        for observer in self.observers:
            observer.finish()

    def take(self, transition: Transition) -> None:
        """Carry out one of `transitions()`."""
        self.steps += 1
        cpu = self.cpus[transition.cpu]
        if transition.kind is Kind.STEP:
            self._step(cpu)
        elif transition.kind is Kind.INTERRUPT:
            cpu.take_interrupt()
        else:
            self._perform(cpu, cpu.window.pending.popleft())

    def _can_step(self, cpu: Cpu) -> bool:
        operation = cpu.operation
        row = TABLE[type(operation)]
        if cpu.window.blocks(row.order):
            return False
        if row.where is Where.MEMORY:
            return cpu.window.keeps(row.order) or self.memory.enabled(cpu.number, operation)
        if isinstance(operation, WaitAcks):
            return not self._missing.get((cpu.number, operation.request))
        if isinstance(operation, Halt):
            return cpu.interrupts_taken > cpu.frames[-1].interrupts_before
        return True

    def _step(self, cpu: Cpu) -> None:
        operation = cpu.operation
        row = TABLE[type(operation)]
        if cpu.window.keeps(row.order):
            cpu.window.pending.append(operation)
            cpu.resume(None)
        elif row.where is Where.MEMORY:
            answer = cpu.window.forward(operation) if row.order is Order.LOAD else None
            if answer is None:
                answer = self._execute(cpu.number, operation)
            cpu.resume(answer)
        elif row.where is Where.CPU:
            cpu.resume(cpu.carry_out(operation))
        elif isinstance(operation, SendIpi):
            cpu.resume(self._send(cpu, operation))
        elif isinstance(operation, AckIpi):
            self._acknowledge(operation)
            cpu.resume(None)
        else:
            cpu.resume(None)

    def _perform(self, cpu: Cpu, operation: Operation) -> None:
        if isinstance(operation, AckIpi):
            self._acknowledge(operation)
        else:
            self._execute(cpu.number, operation)

    def _execute(self, cpu: int, operation: Operation) -> Any:
        answer = self.memory.execute(cpu, operation)
        if answer is BLOCKED:
            raise RuntimeError(f"CPU {cpu}: {describe(operation)} was carried out though not enabled")
        for observer in self.observers:
            observer.observe(cpu, operation, answer)
        return answer

    def _send(self, cpu: Cpu, operation: SendIpi) -> int:
        self._requests[cpu.number] += 1
        number = self._requests[cpu.number]
        if operation.wait:
            self._missing[cpu.number, number] = len(operation.targets)
        for target in operation.targets:
            self.cpus[target].call_queue.append(
                IpiRequest(cpu.number, number, operation.function, operation.arguments, operation.wait, 0)
            )
        return number

    def _acknowledge(self, operation: AckIpi) -> None:
        self._missing[operation.sender, operation.request] -= 1
