"""The gate to shared memory: carries out one operation after the other and lets the checks see each.

Operations come as they travel, by number and fields.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from actors.core_wait import Spans
from emulator.checks.onlooker import Check, observer_of
from emulator.checks.violation import Violation
from emulator.hardware.operations import CLASSES, Operation
from emulator.memory.blocked import BLOCKED
from emulator.memory.memory import Memory


class MemoryReport(NamedTuple):
    """What the memory actor hands back: figures of memory and its checks, what all checks have found, and
    under `memory` how long the run was and how much of that it waited for a core."""

    results: dict[str, Any]
    violations: list[Violation]
    core_wait: Spans


class Gate:
    """Memory and its checks, nothing else."""

    def __init__(self, memory: Memory, checks: Sequence[Check]) -> None:
        self._memory = memory
        self._checks = checks
        self._execute = memory.execute
        self._observers = [
            [observe for check in checks if (observe := observer_of(check, kind)) is not None]
            for kind in CLASSES
        ]

    def carry_out(self, cpu: int, number: int, fields: tuple[Any, ...]) -> Any:
        """The answer, or BLOCKED."""
        operation = CLASSES[number]._make(fields)
        answer = self._execute(cpu, operation)
        if answer is not BLOCKED:
            for observe in self._observers[number]:
                observe(cpu, operation, answer)
        return answer

    def operation(self, number: int, fields: tuple[Any, ...]) -> Operation:
        """The operation that blocks."""
        made: Operation = CLASSES[number]._make(fields)
        return made

    def enabled(self, cpu: int, operation: Any) -> bool:
        """`carry_out` would not answer BLOCKED now."""
        return self._memory.enabled(cpu, operation)

    def words(self) -> tuple[str, ...]:
        """Names of all words that have been used."""
        return tuple(self._memory.words.values)

    def report(self, whole: bool) -> MemoryReport:
        """What there is to say at the end of a run; if it was cut, nobody judges how it ended."""
        if whole:
            for check in self._checks:
                check.finish()
        figures = dict(self._memory.results())
        for check in self._checks:
            figures.update(check.results())
        found = [violation for check in self._checks for violation in check.violations]
        return MemoryReport(figures, found, {})
