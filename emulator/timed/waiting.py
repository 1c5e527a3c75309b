"""Who waits for what in memory, so that a change wakes those that it may concern and nobody else.

A waiting CPU is not given what it waits for: it is told to ask again, because it may be in an interrupt
handler by then. Only locks are offered, to one CPU at a time and in order of arrival, as a queued spinlock
is handed over; a CPU that takes an interrupt first hands the offer on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from emulator.hardware.operations import (
    TABLE,
    Lock,
    Operation,
    Order,
    Unlock,
    WaitChange,
    WaitFor,
    WaitPte,
    Where,
)
from emulator.memory.page_table import ptl

Key = Any
"""A lock's name, ("word", name), or (mm, vpn) of a page-table entry."""


def waits_for(operation: Any) -> Key:
    """What has to change before an operation that is not enabled is."""
    if isinstance(operation, Lock):
        return operation.name
    if isinstance(operation, (WaitFor, WaitChange)):
        return "word", operation.word
    if isinstance(operation, WaitPte):
        return operation.mm, operation.vpn
    return ptl(operation.mm, operation.vpn)


def _changes(kind: type[Any]) -> Callable[[Any], Key] | None:
    if kind is Unlock:
        return lambda operation: operation.name
    if "word" in kind._fields and TABLE[kind].order is not Order.LOAD:
        return lambda operation: ("word", operation.word)
    if {"mm", "vpn"} <= set(kind._fields) and TABLE[kind].order in (Order.STORE, Order.LOCKED):
        return lambda operation: (operation.mm, operation.vpn)
    return None


CHANGES = {
    kind: change
    for kind, row in TABLE.items()
    if row.where is Where.MEMORY and (change := _changes(kind)) is not None
}
"""Operations that may enable others, and what they change."""


class Waiting:
    """The queues, in order of arrival, and the locks on offer."""

    __slots__ = ("_offers", "_on", "queues")

    def __init__(self, cpus: int) -> None:
        self.queues: dict[Key, list[int]] = {}
        self._on: list[Key] = [None] * cpus
        self._offers: dict[str, int] = {}

    def add(self, cpu: int, operation: Operation) -> None:
        """`cpu` has found it not enabled."""
        key = waits_for(operation)
        self._on[cpu] = key
        self.queues.setdefault(key, []).append(cpu)

    def leave(self, cpu: int) -> None:
        """`cpu` does something else first, or asks again."""
        key = self._on[cpu]
        if key is not None:
            self._on[cpu] = None
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

    def decline(self, cpu: int) -> str | None:
        """The lock that was on offer to `cpu`, which is on no offer any more."""
        for name, offered in self._offers.items():
            if offered == cpu:
                del self._offers[name]
                return name
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
                if key in self._offers:
                    continue
                self._offers[key] = cpu
            found.append(cpu)
        for cpu in found:
            self.leave(cpu)
        return found
