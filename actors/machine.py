"""What a machine has to offer so that actors can run it. No machine is made here.

One `Machine` is pickled to every actor: the memory actor takes its `memory` and `checks` from it, the actor
of CPU n takes `cpu(n)`. What they hand back at the end is plain values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Protocol

from emulator.hardware.cpu import Cpu, Program
from emulator.hardware.operations import Operation
from emulator.hardware.ordering import Architecture

SILENCE: Final = "silence"
"""The rule that a stressed run breaks if for long nobody gets anywhere and nobody says why."""


class Chaos(NamedTuple):
    """Disturbances of a run, and the seed they are drawn with. Chances are between 0 and 1, at every step.

    `late_interrupts`: a queued call is not looked at yet; `late_effects`: a windowed effect is not performed
    yet; `pauses`: the CPU stands still for up to `pause_us` microseconds; `walks`: the walker fetches a page.

    The rest says when a CPU stands still until all others stand still or wait for something. `order`: the
    CPUs start one after the other like that, the first at once. `stops`: (CPU, steps): so many steps into its
    run, the next time that it is about to do something that others may notice. `meetings`: (CPU,
    access, number): before the access of that number (`places.access_of`, the first is 1).
    """

    seed: int
    late_interrupts: float = 0.0
    late_effects: float = 0.0
    pauses: float = 0.0
    pause_us: int = 0
    walks: float = 0.0
    order: tuple[int, ...] = ()
    stops: tuple[tuple[int, int], ...] = ()
    meetings: tuple[tuple[int, str, int], ...] = ()


class Mode(NamedTuple):
    """How a machine is run. `watched`: everything is told to the memory actor, in one order, and judged by
    happens-before; `recorded`: that order is sent to the driver; `chaos`: disturbances, None for none;
    `most`: transitions after which a stressed run is taken to have no end, 0 for any number."""

    watched: bool = False
    recorded: bool = False
    chaos: Chaos | None = None
    most: int = 0


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

    violations: list[dict[str, Any]]

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
