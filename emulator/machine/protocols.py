"""What a machine has to offer so that an engine can run it, and who may watch. No machine is made here.

One `Machine` is pickled to every actor: the memory actor takes its `memory` and `checks` from it, the actor
of CPU n takes `cpu(n)`. What they hand back at the end is plain values.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Protocol

from emulator.checks.heed import Heed
from emulator.checks.violation import Violation
from emulator.hardware.cpu import Cpu, Program, Transition
from emulator.hardware.operations import TABLE, Operation
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
    """Somebody who watches what memory carries out: a check or a measurement."""

    violations: list[Violation]

    def observe(self, cpu: int, operation: Operation, answer: Any) -> None:
        """One operation has been carried out."""

    def finish(self) -> None:
        """The run is over."""

    def results(self) -> dict[str, Any]:
        """Figures to report at the end, plain."""

    def state(self) -> Hashable:
        """All that its judgements depend on. Explored runs ask for it, and are at the same state again when
        it is the same; so nothing belongs in it that is merely counted."""

    def restore(self, state: Any) -> None:
        """Put back what `state` answered. Violations that were found stay."""


class Listener(Protocol):
    """Somebody who is told of transitions rather than of memory."""

    def happened(
        self, transition: Transition, operation: Operation | None, issued: bool, answer: Any
    ) -> None:
        """One transition. `operation` is what it carried out (None for an interrupt, whose answer is the
        batch); `issued` says that it only went into the CPU's window."""


class Watcher(Listener, Protocol):
    """A check of what happens before what.

    It may judge the order of what one CPU does alone (a fence, a flush of its own TLB) against what the same
    CPU does, not against what others do: a search of every interleaving takes such steps as early as it can.
    """

    violations: list[Violation]

    ignores: frozenset[type[Any]]
    """Operations that make no difference to it: a search need not tell it of them."""

    def finish(self) -> None:
        """The machine has come to rest and owes nothing any more: judge that."""

    def state(self) -> Hashable:
        """As of a `Check`."""

    def restore(self, state: Any) -> None:
        """As of a `Check`."""


def ignored(watchers: Sequence[Watcher]) -> frozenset[type[Any]]:
    """Classes of operations that make no difference to any of them; without watchers, of what there is."""
    return frozenset((*TABLE, type(None))).intersection(*(watcher.ignores for watcher in watchers))


class Kernel(Protocol):
    """What runs on one CPU, as far as an engine looks at it."""

    accesses: int
    tlb_interrupts: int

    def count(self, event: str, n: int = 1) -> None:
        """Count an event."""

    def results(self) -> dict[str, Any]:
        """What to report at the end, plain."""


class Machine(Protocol):
    """One machine to run; picklable."""

    @property
    def cpus(self) -> int:
        """How many CPUs it has."""

    @property
    def drains(self) -> bool:
        """It performs what it owes before it comes to rest, so that watchers may judge its end."""

    @property
    def heed(self) -> Heed:
        """Which broken rules count."""

    @property
    def architecture(self) -> Architecture:
        """What may wait in a CPU's window."""

    @property
    def roots(self) -> Sequence[Any]:
        """Functions and classes that programs are made of: what these reach, all CPUs can reach."""

    def memory(self) -> Any:
        """The shared part, new."""

    def checks(self, memory: Any) -> Sequence[Any]:
        """What watches `memory`: each a `Check`."""

    def watchers(self) -> Sequence[Any]:
        """Checks of what happens before what: each a `Watcher`."""

    def cpu(self, number: int) -> tuple[Cpu, Program, Any]:
        """CPU `number`, its first program, and the `Kernel` that the program works on."""
