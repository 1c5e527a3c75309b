"""Mistakes that a search or a check once had or could have: what compares searches has to find each of them.

`benchmarks/random_programs.py --break NAME`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from emulator.checks.coherence import Coherence
from emulator.explore import exhaustive, fingerprint
from emulator.explore.parts import CpuNode, Option
from emulator.hardware.cpu import Kind
from emulator.hardware.operations import SmpMb, SmpMbAfterAtomic, SmpRmb, SmpWmb

_BARRIERS = (SmpMb, SmpMbAfterAtomic, SmpRmb, SmpWmb)


def _barriers_before_interrupts() -> None:
    """A barrier is taken first and alone, also where a handler before it would be published by it."""
    correct = exhaustive.ample

    def ample(node: CpuNode, *rest: Any) -> Option | None:
        found = correct(node, *rest)
        for option in node.options if found is None else ():
            if option.transition.kind is Kind.STEP and type(option.operation[0]) in _BARRIERS:
                return option
        return found

    exhaustive.ample = ample


def _walks_forgotten() -> None:
    """What concerns the TLB is taken first, although the walker may fetch something before."""
    correct = exhaustive.ample

    def ample(node: CpuNode, *rest: Any) -> Option | None:
        options = tuple([option for option in node.options if option.transition.kind is not Kind.WALK])
        return correct(replace(node, options=options), *rest)

    exhaustive.ample = ample


def _a_local_forgotten() -> None:
    """Two states of a coroutine are one although an int among its locals differs."""
    reader: Any = fingerprint._Reader
    correct = reader._suspended

    def suspended(self: Any, value: Any, *rest: Any) -> Any:
        read = correct(self, value, *rest)
        return (*read[:4], *[part for part in read[4:] if type(part) is not int])

    reader._suspended = suspended


def _one_destination_of_a_source() -> None:
    """Coherence asks a source where it went, and remembers its latest copy only."""
    correct = Coherence._derive

    def derive(self: Coherence, dst: int, sources: frozenset[int]) -> None:
        correct(self, dst, sources)
        for source in sources:
            for other in self._copies[source] - {dst}:
                self._origins.pop(other, None)
                self._copies[source].discard(other)

    Coherence._derive = derive  # type: ignore[method-assign]


MISTAKES: dict[str, Callable[[], None]] = {
    "barriers-before-interrupts": _barriers_before_interrupts,
    "walks-forgotten": _walks_forgotten,
    "local-forgotten": _a_local_forgotten,
    "one-destination-of-a-source": _one_destination_of_a_source,
}


def put_in(name: str) -> None:
    """Make the mistake in this process, for good."""
    MISTAKES[name]()
