"""What a timed run has found, in plain values: figures in virtual ns, counters, broken rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from emulator.checks.violation import Violation
from emulator.measure.histogram import Histogram


@dataclass(slots=True, frozen=True)
class TimedResult:
    """What one run found. Times in virtual ns; `elapsed_ns` is the last CPU's clock at the end.

    `cpus`, `tlb_interrupts`, `clocks_ns`, `waited_ns` and `handled_ns` have one entry for each CPU:
    `waited_ns` is what it spent sending flush interrupts and waiting for their acknowledgements, `handled_ns`
    what it spent in handlers of others'. `allocations` are the times that tasks waited for a page, by mm.
    `transitions` were judged by the watchers.
    """

    cpus: list[dict[str, Any]]
    tlb_interrupts: list[int]
    memory: dict[str, Any]
    violations: list[Violation]
    accesses: int
    elapsed_ns: int
    clocks_ns: list[int]
    waited_ns: list[int]
    handled_ns: list[int]
    delivery: Histogram
    handler: Histogram
    round_trip: Histogram
    allocations: dict[int, Histogram]
    transitions: int | None

    @property
    def shootdown_share(self) -> float:
        """Of the time of all CPUs, the part spent waiting for flushes of others or handling theirs."""
        total = sum(self.clocks_ns)
        return (sum(self.waited_ns) + sum(self.handled_ns)) / total if total else 0.0
