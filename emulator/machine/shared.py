"""What the CPUs of a locally stepped machine share: memory, the queues of cross-CPU calls, the watchers.

One gate, `Shared.execute`, as memory itself has one. The whole can be read out as a plain hashable value
and put back, which is how a search gets to a state again without running there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from emulator.checks.violation import Violation
from emulator.hardware.cpu import IpiRequest, TakeCalls
from emulator.hardware.operations import AckIpi, Operation, SendIpi, WaitAcks
from emulator.memory.memory import BLOCKED, Memory


class Observer(Protocol):
    """Somebody who watches what memory performs: a check or a measurement."""

    violations: list[Violation]

    def observe(self, cpu: int, operation: Operation, answer: Any) -> None:
        """One performed operation."""

    def finish(self) -> None:
        """Every CPU has halted."""

    def results(self) -> dict[str, Any]:
        """Figures for a report, plain values."""

    def state(self) -> Any:
        """All that its judgements depend on, as a hashable value."""

    def restore(self, state: Any) -> None:
        """Put back what `state` answered."""


class Shared:
    """Memory, call queues and observers of one machine with `cpus` CPUs."""

    __slots__ = ("_missing", "_queues", "_requests", "memory", "observers")

    def __init__(self, memory: Memory, cpus: int, observers: Sequence[Observer] = ()) -> None:
        self.memory = memory
        self.observers = observers
        self._queues: list[tuple[IpiRequest, ...]] = [()] * cpus
        self._requests = [0] * cpus
        self._missing: dict[tuple[int, int], int] = {}  # (sender, request) -> acknowledgements to come

    def execute(self, cpu: int, operation: Operation | TakeCalls) -> Any:
        """Carry out one operation of `cpu`; its answer, or `BLOCKED` if it is not enabled."""
        kind = type(operation)
        if kind is TakeCalls:
            batch = self._queues[cpu]
            if not batch:
                return BLOCKED
            self._queues[cpu] = ()
            return batch
        if isinstance(operation, SendIpi):
            return self._send(cpu, operation)
        if isinstance(operation, AckIpi):
            self._acknowledge(operation)
            return None
        if isinstance(operation, WaitAcks):
            return BLOCKED if (cpu, operation.request) in self._missing else None
        answer = self.memory.execute(cpu, operation)  # type: ignore[arg-type]
        if answer is not BLOCKED:
            for observer in self.observers:
                observer.observe(cpu, operation, answer)  # type: ignore[arg-type]
        return answer

    def enabled(self, cpu: int, operation: Operation | TakeCalls) -> bool:
        """`execute` would not answer `BLOCKED` now."""
        if isinstance(operation, TakeCalls):
            return bool(self._queues[cpu])
        if isinstance(operation, (SendIpi, AckIpi)):
            return True
        if isinstance(operation, WaitAcks):
            return (cpu, operation.request) not in self._missing
        return self.memory.enabled(cpu, operation)

    def quiet(self) -> bool:
        """No call is queued anywhere."""
        return not any(self._queues)

    def _send(self, cpu: int, operation: SendIpi) -> int:
        self._requests[cpu] += 1
        number = self._requests[cpu]
        if operation.wait and operation.targets:
            self._missing[cpu, number] = len(operation.targets)
        request = IpiRequest(cpu, number, operation.function, operation.arguments, operation.wait, 0)
        for target in operation.targets:
            self._queues[target] += (request,)
        return number

    def _acknowledge(self, operation: AckIpi) -> None:
        key = (operation.sender, operation.request)
        left = self._missing[key] - 1
        if left:
            self._missing[key] = left
        else:
            del self._missing[key]

    # --- the whole as a value --------------------------------------------------------------------

    def state(self) -> tuple[Any, ...]:
        """All that decides what comes next, as a hashable value."""
        return (
            self.memory.state(),
            tuple(self._queues),
            tuple(self._requests),
            frozenset(self._missing.items()),
            tuple(observer.state() for observer in self.observers),
        )

    def restore(self, state: tuple[Any, ...]) -> None:
        """Put back what `state` answered."""
        memory, queues, requests, missing, observers = state
        self.memory.restore(memory)
        self._queues = list(queues)
        self._requests = list(requests)
        self._missing = dict(missing)
        for observer, kept in zip(self.observers, observers, strict=True):
            observer.restore(kept)
