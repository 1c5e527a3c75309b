"""Which events a report of the grace-period check is about, by the numbers of their transitions.

A recording's transitions have the same numbers when `migrc replay` draws them. An explored run needs none:
what was found is drawn as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from emulator.checks.retirements import Retired
from emulator.hardware.cpu import Transition
from emulator.hardware.operations import TABLE, Operation, Order

_FLUSHES: Final = frozenset(kind for kind, row in TABLE.items() if row.order is Order.TLB)
_MOST: Final = 4096  # retirements remembered; an older one is told without a number


class Sides:
    """Remembers who did what last, for reports. `number` answers that of the transition being told."""

    def __init__(self, cpus: int, number: Callable[[], int]) -> None:
        self._number = number
        self._flushed: list[int | None] = [None] * cpus
        self._retired: dict[tuple[int, int, int, int], tuple[int, str]] = {}

    def happened(self, transition: Transition, operation: Operation | None) -> None:
        """A transition, before it is judged."""
        if type(operation) in _FLUSHES:
            self._flushed[transition.cpu] = self._number()

    def retired(self, cpu: int, operation: Any, frame: int) -> None:
        """What may have retired the translation of `operation`'s page to `frame`."""
        where = (operation.mm, operation.vpn, frame, cpu)
        self._retired.pop(where, None)
        self._retired[where] = (self._number(), type(operation).__name__)
        if len(self._retired) > _MOST:
            del self._retired[next(iter(self._retired))]

    def told(self, cpu: int, retired: Retired, missing: int) -> str:
        """For the end of a report: both sides, and what CPUs in mask `missing` have done instead."""
        parts = [f"CPU {cpu} in transition {self._number()}"]
        found = self._retired.get((retired.mm, retired.vpn, retired.frame, retired.cpu))
        if found is not None:
            parts.append(f"retired by {found[1]} in {found[0]}")
        for holder, flushed in enumerate(self._flushed):
            if missing >> holder & 1:
                last = "has not flushed at all" if flushed is None else f"has last flushed in {flushed}"
                parts.append(f"CPU {holder} {last}")
        return f" ({', '.join(parts)})"
