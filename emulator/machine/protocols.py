"""What a machine has to offer so that an engine can run it. No machine is made here.

One `Machine` is pickled to every actor: the memory actor takes its `memory` and `checks` from it, the actor
of CPU n takes `cpu(n)`. What they hand back at the end is plain values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from emulator.checks.violation import Violation
from emulator.hardware.cpu import Cpu, Program
from emulator.hardware.operations import Operation
from emulator.hardware.ordering import Architecture


class MemoryGate(Protocol):
    """Everything that CPUs share, one operation at a time."""

    def execute(self, cpu: int, operation: Operation) -> Any:
        """The answer, or `emulator.memory.blocked.BLOCKED`: then nothing has changed."""

    def enabled(self, cpu: int, operation: Operation) -> bool:
        """`execute` would not answer `BLOCKED` now."""

    def results(self) -> dict[str, Any]:
        """What to report at the end, plain."""


class Check(Protocol):
    """An observer of everything that memory carried out."""

    violations: list[Violation]

    def observe(self, cpu: int, operation: Operation, answer: Any) -> None:
        """One operation has been carried out."""

    def finish(self) -> None:
        """The run is over."""

    def results(self) -> dict[str, Any]:
        """Figures to report at the end, plain."""


class Kernel(Protocol):
    """What runs on one CPU, as far as an engine looks at it."""

    accesses: int
    tlb_interrupts: int

    def results(self) -> dict[str, Any]:
        """What to report at the end, plain."""


class Machine(Protocol):
    """One machine to run; picklable."""

    @property
    def cpus(self) -> int:
        """How many CPUs it has."""

    def memory(self) -> MemoryGate:
        """The shared part, new."""

    def checks(self, memory: Any) -> Sequence[Check]:
        """Observers of `memory`."""

    def watchers(self, memory: Any) -> Sequence[Any]:
        """Checks of what happens before what, for a watched run."""

    @property
    def architecture_row(self) -> Architecture:
        """What may wait in a CPU's window."""

    def cpu(self, number: int) -> tuple[Cpu, Program, Kernel]:
        """CPU `number`, its first program, and the kernel state that the program works on."""
