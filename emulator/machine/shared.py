"""What the CPUs of a locally stepped machine share: memory, the cross-CPU calls, the checks that watch.

One gate, `Shared.execute`, as memory itself has one. The whole can be read out as a plain hashable value
and put back, which is how a search gets to a state again without running there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from emulator.checks.onlooker import Check
from emulator.hardware.cpu import TakeCalls
from emulator.hardware.operations import AckIpi, Operation, SendIpi, WaitAcks
from emulator.machine.call_book import CallBook
from emulator.memory.blocked import BLOCKED
from emulator.memory.memory import Memory


class Shared:
    """Memory, calls and checks of one machine with `cpus` CPUs."""

    __slots__ = ("calls", "checks", "memory")

    def __init__(self, memory: Memory, cpus: int, checks: Sequence[Check] = ()) -> None:
        self.memory = memory
        self.checks = checks
        self.calls = CallBook(cpus)

    def execute(self, cpu: int, operation: Operation | TakeCalls) -> Any:
        """Carry out one operation of `cpu`; its answer, or `BLOCKED` if it is not enabled."""
        if type(operation) is TakeCalls:
            return self.calls.take(cpu) or BLOCKED
        if isinstance(operation, SendIpi):
            return self.calls.send(cpu, operation)
        if isinstance(operation, AckIpi):
            self.calls.acknowledge(cpu, operation)
            return None
        if isinstance(operation, WaitAcks):
            return None if self.calls.acknowledged(cpu, operation.request) else BLOCKED
        answer = self.memory.execute(cpu, operation)  # type: ignore[arg-type]
        if answer is not BLOCKED:
            for check in self.checks:
                check.observe(cpu, operation, answer)  # type: ignore[arg-type]
        return answer

    def enabled(self, cpu: int, operation: Operation | TakeCalls) -> bool:
        """`execute` would not answer `BLOCKED` now."""
        if isinstance(operation, TakeCalls):
            return bool(self.calls.queues[cpu])
        if isinstance(operation, (SendIpi, AckIpi)):
            return True
        if isinstance(operation, WaitAcks):
            return self.calls.acknowledged(cpu, operation.request)
        return self.memory.enabled(cpu, operation)

    # --- the whole as a value --------------------------------------------------------------------

    def state(self) -> tuple[Any, ...]:
        """All that decides what comes next, as a hashable value."""
        return (self.memory.state(), *self.calls.state(), tuple(check.state() for check in self.checks))

    def restore(self, state: tuple[Any, ...]) -> None:
        """Put back what `state` answered."""
        memory, *calls, checks = state
        self.memory.restore(memory)
        self.calls.restore(tuple(calls))
        for check, kept in zip(self.checks, checks, strict=True):
            check.restore(kept)
