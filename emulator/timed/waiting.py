"""Who waits for what in memory, so that a change wakes those that it may concern and nobody else.

A waiting CPU is not given what it waits for: it is told to ask again, because it may be in an interrupt
handler by then. Only locks are offered, to one CPU at a time and in order of arrival, as a queued spinlock
is handed over; a CPU that takes an interrupt first hands the offer on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from emulator.hardware.operations import TABLE, DownRead, Lock, Operation, Order, ReleaseFaultLock, TryLock
from emulator.hardware.operations.places import Key, vma_readers

_WAITS = {kind: row.waits for kind, row in TABLE.items() if row.waits is not None}
_WAITED_FOR = {(waits,) for waits in _WAITS.values()}

CHANGES = {
    kind: row.carries[0]
    for kind, row in TABLE.items()
    if row.order in (Order.STORE, Order.LOCKED)
    and kind not in (Lock, DownRead, TryLock)
    and row.carries[:1] in _WAITED_FOR
} | {ReleaseFaultLock: vma_readers}
"""Operations that may enable others, and what they change."""


class Waiting:
    """The queues, in order of arrival, and the locks on offer."""

    __slots__ = ("_offers", "_on", "queues")

    def __init__(self, cpus: int) -> None:
        self.queues: dict[Key, list[int]] = {}
        self._on: list[Key] = [()] * cpus
        self._offers: dict[str, int] = {}

    def add(self, cpu: int, operation: Operation) -> None:
        """`cpu` has found it not enabled."""
        key = _WAITS[type(operation)](operation)
        self._on[cpu] = key
        self.queues.setdefault(key, []).append(cpu)

    def leave(self, cpu: int) -> None:
        """`cpu` does something else first, or asks again."""
        key = self._on[cpu]
        if key:
            self._on[cpu] = ()
            queue = self.queues[key]
            queue.remove(cpu)
            if not queue:
                del self.queues[key]

    def refused(self, cpu: int, name: str) -> bool:
        """The lock is on offer to another CPU; if it was to this one, it no longer is."""
        offered = self._offers.get(name, cpu)
        if offered == cpu:
            self._offers.pop(name, None)
        return offered != cpu

    def decline(self, cpu: int) -> Key | None:
        """The lock that was on offer to `cpu`, which is on no offer any more."""
        for name, offered in self._offers.items():
            if offered == cpu:
                del self._offers[name]
                return "lock", name
        return None

    def woken(self, key: Key, enabled: Callable[[int], Any]) -> list[int]:
        """Those of the queue who may ask again now; `enabled` answers a CPU's operation if it is, else
        None."""
        found = []
        for cpu in self.queues.get(key, ()):
            operation = enabled(cpu)
            if operation is None:
                continue
            if type(operation) is Lock:
                if operation.name in self._offers:
                    continue
                self._offers[operation.name] = cpu
            found.append(cpu)
        for cpu in found:
            self.leave(cpu)
        return found
