"""How many folios were pending at most, seen from the counter that the policies keep."""

from __future__ import annotations

from typing import Any

from emulator.hardware.operations import AtomicAdd, Operation


class PendingPeak:
    """Sums the pending counters of all nodes as they change; `peak` in pages."""

    def __init__(self) -> None:
        self.pending = 0
        self.peak = 0
        self.violations: list[Any] = []

    def observe(self, cpu: int, operation: Operation, answer: Any) -> None:
        """Follow the counter."""
        if isinstance(operation, AtomicAdd) and operation.word.startswith("migrc_pending_nr."):
            self.pending += operation.delta
            self.peak = max(self.peak, self.pending)

    def results(self) -> dict[str, Any]:
        """Figures for the report."""
        return {"pending_peak": self.peak}

    def finish(self) -> None:
        """Nothing to do at the end."""
