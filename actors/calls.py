"""Calls between CPUs, and how long they take: the one place where latencies are measured.

In a plain run a call lives in the actors: the interrupt is a message, and so is the acknowledgement. In a
watched one it is queued in memory, as on real machines, and the message is only the bell that tells of it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from actors import wire
from actors.line import Line
from actors.mailbox import Directory
from emulator.checks.violation import Violation
from emulator.hardware.cpu import Cpu, IpiRequest
from emulator.hardware.operations import NUMBERS, AckIpi, SendIpi
from emulator.kernel.percpu import PerCpu
from emulator.machine.call_book import UnknownCall
from emulator.machine.progress import unserved
from emulator.measure.histogram import Histogram

_ENTRIES_BOUND: Final = 1_000


class CpuReport(NamedTuple):
    """What one CPU hands back: the kernel's results, counters, and encoded latency histograms."""

    results: dict[str, Any]
    accesses: int
    tlb_interrupts: int
    delivery: bytes
    handler: bytes
    round_trip: bytes
    tlb: tuple[tuple[int, int, int], ...]  # what was cached at the end: (pcid, vpn, entry)
    violations: tuple[Violation, ...]  # what only the CPU itself can see


class Calls:
    """Those of one CPU. Latencies are in ns of CLOCK_MONOTONIC, which all processes of one node share.

    `delivery` (send to handler entry) needs the clocks of two CPUs and is only recorded where both are on one
    node; `handler` (entry to return) and `round_trip` (send to last acknowledgement) need one.
    """

    def __init__(self, cpu: Cpu, line: Line, directory: Directory) -> None:
        self.unacknowledged: dict[int, int] = {}  # requests of this CPU, and by how many
        self._cpu = cpu
        self._line = line
        line.on[wire.IPI] = self.arrived
        line.on[wire.ACK] = self.acknowledged
        here = directory.cpus[cpu.number].node
        self._near = [endpoint.node == here for endpoint in directory.cpus]
        self._requests = 0
        self._sent_ns: dict[int, int] = {}
        self._delivery = Histogram()
        self._handler = Histogram()
        self._round_trip = Histogram()
        # Handlers that run (when entered, what for), and those that have returned (and when).
        self._entered: list[tuple[int, tuple[IpiRequest, ...]]] = []
        self._entries: list[tuple[int, tuple[IpiRequest, ...], int]] = []

    # --- of others -----------------------------------------------------------------------------

    def arrived(self, *fields: Any) -> None:
        """Another CPU calls: the fields of an IpiRequest."""
        self._cpu.call_queue.append(IpiRequest(*fields))

    def enter(self) -> None:
        """The CPU takes what is queued."""
        now = time.monotonic_ns()
        self._entered.append((now, self._cpu.take_interrupt()))

    def returned(self) -> None:
        """The topmost handler has returned."""
        self._entries.append((*self._entered.pop(), time.monotonic_ns()))
        if len(self._entries) >= _ENTRIES_BOUND:
            self._record_entries()

    def acknowledge(self, operation: AckIpi) -> None:
        """Let the sender know; not before memory has carried out what this CPU has issued."""
        self._line.confirm()
        sender, request = operation
        if sender == self._cpu.number:
            self.acknowledged(request, sender)
        else:
            self._line.send(sender, self._line.pack((wire.ACK, request, self._cpu.number)))

    def refuse(self) -> None:
        """The program is over: serve nobody until the driver ends the run. RuntimeError if somebody waits."""
        self._line.say_halted()
        queue = self._cpu.call_queue
        while True:
            for request in queue:
                if request.wait:
                    raise RuntimeError(unserved(request, self._cpu.number))
            queue.clear()
            self._line.sleep()

    # --- of this CPU ---------------------------------------------------------------------------

    def send(self, operation: SendIpi) -> int:
        """Call others; the number of the request."""
        self._line.confirm()
        self._requests += 1
        self.ring(operation, self._requests)
        return self._requests

    def ring(self, operation: SendIpi, number: int) -> None:
        """Tell the targets of a request."""
        me = self._cpu.number
        line = self._line
        targets, function, arguments, wait = operation
        now = time.monotonic_ns()
        request = IpiRequest(me, number, function, arguments, wait, now)
        message = line.pack((wire.IPI, *request))
        if wait and targets:
            self.unacknowledged[number] = len(targets)
            self._sent_ns[number] = now
        for target in targets:
            if target == me:
                self.arrived(*request)
            else:
                line.send(target, message)

    def acknowledged(self, request: int, cpu: int) -> None:
        """A target has served a request. UnknownCall if nobody waits for that."""
        missing = self.unacknowledged.get(request, 0)
        if missing > 1:
            self.unacknowledged[request] = missing - 1
        elif missing:
            self.answered(request)
        else:
            raise UnknownCall(cpu, AckIpi(self._cpu.number, request))

    def answered(self, request: int) -> None:
        """All acknowledgements of a request are there."""
        if self.unacknowledged.pop(request, None) is not None:
            self._round_trip.record(time.monotonic_ns() - self._sent_ns.pop(request))

    # --- what it took --------------------------------------------------------------------------

    def _record_entries(self) -> None:
        # Not at each return: recording takes longer than the handler, while somebody waits for this CPU.
        for entered, batch, returned in self._entries:
            # A wake-up of the scheduler is an interrupt as well, but not one that these histograms are about.
            calls = [request for request in batch if request.wait]
            if calls:
                self._handler.record(returned - entered)
            for request in calls:
                if self._near[request.sender]:
                    self._delivery.record(entered - request.sent_ns)
        self._entries.clear()

    def report(self, kernel: PerCpu, violations: Sequence[Violation] = ()) -> CpuReport:
        """What to hand back at the end."""
        self._record_entries()
        return CpuReport(
            kernel.results(),
            kernel.accesses,
            kernel.tlb_interrupts,
            self._delivery.encode(),
            self._handler.encode(),
            self._round_trip.encode(),
            tuple(self._cpu.tlb.entries()),
            tuple(violations),
        )


class Bells(Calls):
    """Calls of a CPU of a watched run: they are queued in memory, which says who comes first."""

    def __init__(self, cpu: Cpu, line: Line, directory: Directory) -> None:
        super().__init__(cpu, line, directory)
        # Bells that have rung, with the time they were sent at; and calls taken before their bell came.
        self._rung: dict[tuple[int, int], int] = {}
        self.early: set[tuple[int, int]] = set()

    def arrived(self, *fields: Any) -> None:
        """A bell; unless its call has been taken already."""
        request = IpiRequest(*fields)
        key = (request.sender, request.number)
        if key in self.early:
            self.early.remove(key)
        else:
            self._rung[key] = request.sent_ns
            self._cpu.call_queue.append(request)

    def enter(self) -> None:
        """Take what is queued in memory by now; bells whose call has not been queued are none."""
        self._line.put(wire.TAKE, ())
        batch = [IpiRequest(*fields) for fields in self._line.exchange(1)[1]]
        queue = self._cpu.call_queue
        taken = {(request.sender, request.number) for request in batch}
        self.early |= taken - self._rung.keys()
        others = [one for one in queue if (one.sender, one.number) not in taken]
        queue.clear()
        if batch:
            now = time.monotonic_ns()
            queue.extend(
                request._replace(sent_ns=self._rung.pop((request.sender, request.number), now))
                for request in batch
            )
            super().enter()
        queue.extend(others)

    def acknowledge(self, operation: AckIpi) -> None:
        """Memory counts the acknowledgements."""
        self._line.put(NUMBERS[AckIpi], operation)
        self._line.flush()

    def send(self, operation: SendIpi) -> int:
        """Queue the call in memory, then ring."""
        self._line.put(NUMBERS[SendIpi], operation)
        number: int = self._line.exchange(1)[1]
        self.ring(operation, number)
        return number
