"""The local engine: all CPUs of a machine in one process, one step at a time.

It knows what could happen next and carries out the one that its caller chooses. Who goes next is the
caller's business; with the same choices everything else repeats itself exactly. This is the plain
engine that replays and tells; searches use a faster one (`learned`) that must agree with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from emulator.checks.violation import Violation
from emulator.hardware.cpu import Choice, Cpu, Kind, Transition
from emulator.hardware.operations import Idle, Operation, describe
from emulator.machine.shared import Observer, Shared
from emulator.memory.memory import BLOCKED, Memory

__all__ = ["Deadlock", "Kind", "LocalEngine", "Observer", "Transition", "Watcher"]


class Watcher(Protocol):
    """Somebody who watches transitions rather than memory: a check of what happens before what."""

    violations: list[Violation]

    def happened(
        self, transition: Transition, operation: Operation | None, issued: bool, answer: Any
    ) -> None:
        """One transition. `operation` is what it carried out (None for an interrupt, whose answer is the
        batch); `issued` says that it only went into the CPU's window."""

    def finish(self) -> None:
        """The machine has come to rest and owes nothing any more: judge that."""


class Deadlock(Exception):
    """Some CPU has not halted and nothing can happen any more; the message says who waits for what."""


class LocalEngine:
    """Runs booted CPUs against one memory."""

    def __init__(
        self,
        memory: Memory,
        cpus: Sequence[Cpu],
        observers: Sequence[Observer] = (),
        watchers: Sequence[Watcher] = (),
    ) -> None:
        self.memory = memory
        self.cpus = cpus
        self.observers = observers
        self.watchers = watchers
        self.shared = Shared(memory, len(cpus), observers)
        self.steps = 0

    def _choice(self, transition: Transition) -> Choice:
        wanted = transition if transition.kind is not Kind.STEP else transition._replace(at=0)
        for choice in self.cpus[transition.cpu].choices():
            if choice.transition == wanted:
                return Choice(transition, choice.operation)
        raise ValueError(f"{transition} is not possible here")

    def transitions(self) -> list[Transition]:
        """Everything that can happen next, in a fixed order."""
        return [
            choice.transition
            for cpu in self.cpus
            for choice in cpu.choices()
            if choice.operation is None or self._enabled(cpu, choice)
        ]

    def _enabled(self, cpu: Cpu, choice: Choice) -> bool:
        assert choice.operation is not None
        if choice.transition.kind is Kind.WALK:
            # A walk that would find nothing, or what the TLB has, is no event.
            entry = self.memory.page_tables.entry(cpu.mm, choice.transition.at)
            return cpu.would_cache(choice.transition.at, entry)
        return self.shared.enabled(cpu.number, choice.operation)

    def finished(self) -> bool:
        """Every CPU has ended its program, every call is taken and every effect has been performed."""
        return self.shared.quiet() and all(
            not cpu.window.pending and (cpu.halted or (len(cpu.frames) == 1 and type(cpu.operation) is Idle))
            for cpu in self.cpus
        )

    def deadlock(self) -> Deadlock:
        """The error for a state without transitions that is not finished."""
        waiting = [
            f"CPU {cpu.number} {'with interrupts off ' if not cpu.irqs else ''}at {describe(cpu.operation)}"
            for cpu in self.cpus
            if cpu.frames and type(cpu.operation) is not Idle
        ]
        return Deadlock(f"nothing can happen any more: {'; '.join(waiting)}")

    def finish(self) -> None:
        """Let the observers judge the final state."""
        for observer in self.observers:
            observer.finish()

    def take(self, transition: Transition) -> Any:
        """Carry out one of `transitions()`; what was answered. ValueError if it is not one of them."""
        choice = self._choice(transition)
        cpu = self.cpus[transition.cpu]
        if choice.transition.kind is Kind.WALK and not self._enabled(cpu, choice):
            raise ValueError(f"{transition} would find nothing new")
        answer = None
        operation = choice.operation
        if operation is not None:
            answer = self.shared.execute(cpu.number, operation)
            if answer is BLOCKED:
                raise ValueError(f"{transition} has to wait: {operation}")
        self.steps += 1
        if self.watchers:
            done, issued = cpu.about(transition)
            for watcher in self.watchers:
                watcher.happened(transition, done, issued, answer)
        cpu.take(transition, answer)
        return answer
