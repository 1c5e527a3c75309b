"""The book of cross-CPU calls: what is queued where, and which acknowledgements have not come yet.

One book for every engine that keeps all CPUs in one place; it knows no time. On a live machine that nobody
watches there is none: there messages are the queues.
"""

from __future__ import annotations

from typing import Any

from emulator.hardware.cpu import IpiRequest, TakeCalls
from emulator.hardware.operations import AckIpi, SendIpi, WaitAcks
from emulator.hardware.operations.places import Key


class UnknownCall(Exception):
    """CPU `cpu` has acknowledged something that nobody waits for; the message says what."""

    def __init__(self, cpu: int, operation: AckIpi) -> None:
        super().__init__(
            f"CPU {cpu} acknowledges request {operation.request} of CPU {operation.sender}, "
            "which waits for no acknowledgement of it"
        )
        self.cpu = cpu


class CallBook:
    """The calls of `cpus` CPUs; `queues` by target, in the order they were sent in."""

    __slots__ = ("_missing", "_numbers", "queues")

    def __init__(self, cpus: int) -> None:
        self.queues: list[tuple[IpiRequest, ...]] = [()] * cpus
        self._numbers = [0] * cpus  # of each CPU's latest request
        self._missing: dict[tuple[int, int], int] = {}  # (sender, number) -> acknowledgements to come

    def send(self, cpu: int, operation: SendIpi, sent_ns: int = 0) -> int:
        """Queue a call everywhere; the number of the request."""
        targets, function, arguments, wait = operation
        self._numbers[cpu] += 1
        number = self._numbers[cpu]
        if wait and targets:
            self._missing[cpu, number] = len(targets)
        request = IpiRequest(cpu, number, function, arguments, wait, sent_ns)
        for target in targets:
            self.queues[target] += (request,)
        return number

    def take(self, cpu: int) -> tuple[IpiRequest, ...]:
        """All that is queued for a CPU, which is going to serve it."""
        batch = self.queues[cpu]
        self.queues[cpu] = ()
        return batch

    def acknowledge(self, cpu: int, operation: AckIpi) -> bool:
        """`cpu` acknowledges; whether that was the last one missing. UnknownCall if none is."""
        key = operation.sender, operation.request
        left = self._missing.get(key)
        if left is None:
            raise UnknownCall(cpu, operation)
        if left > 1:
            self._missing[key] = left - 1
            return False
        del self._missing[key]
        return True

    def acknowledged(self, sender: int, number: int) -> bool:
        """No acknowledgement of this request is missing."""
        return (sender, number) not in self._missing

    @staticmethod
    def touches(cpu: int, operation: Any) -> tuple[tuple[Key, ...], tuple[Key, ...], tuple[Key, ...]]:
        """What an operation on calls reads, writes and adds to, as of `Touches`: queues by target, missing
        acknowledgements by call."""
        if isinstance(operation, SendIpi):
            return (), tuple([("calls", target) for target in operation.targets]), ()
        if isinstance(operation, AckIpi):
            return (), (), (("ack", operation.sender, operation.request),)
        if isinstance(operation, TakeCalls):
            return (), (("calls", operation.cpu),), ()
        if isinstance(operation, WaitAcks):
            return (("ack", cpu, operation.request),), (), ()
        raise TypeError(f"{type(operation).__name__} is about no call")

    def quiet(self) -> bool:
        """No call is queued anywhere."""
        return not any(self.queues)

    def state(self) -> tuple[Any, ...]:
        """All of it, as hashable values."""
        return tuple(self.queues), tuple(self._numbers), frozenset(self._missing.items())

    def restore(self, state: tuple[Any, ...]) -> None:
        """Put back what `state` answered."""
        queues, numbers, missing = state
        self.queues = list(queues)
        self._numbers = list(numbers)
        self._missing = dict(missing)
