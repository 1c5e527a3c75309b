"""Calls between CPUs, and how long they take: the one place where latencies are measured.

In a plain run a call lives in the actors: the interrupt is a message, and so is the acknowledgement. In a
watched one it is queued in memory, as on real machines, and the message is only the bell that tells of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from actors import wire
from actors.core_wait import CoreWait, Spans
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
    core_wait: Spans  # of each kind of latency


class _Arrival(NamedTuple):
    """When a call was found in the inbox, the reading of `CoreWait` then, and how long it had lain there for
    want of a core."""

    at_ns: int
    reading: int
    waited: int


class _Entry(NamedTuple):
    """A handler that has returned: what for, when, how long it and each of its calls waited for a core."""

    batch: tuple[IpiRequest, ...]
    entered: int
    returned: int
    waited: int
    delivery_waited: tuple[int, ...]


class Calls:
    """Those of one CPU. Latencies are in ns of CLOCK_MONOTONIC, which all processes of one node share.

    `delivery` (send to handler entry) needs the clocks of two CPUs and is only recorded where both are on one
    node; `handler` (entry to return) and `round_trip` (send to last acknowledgement) need one.

    Of each, what was waiting for a core: of a delivery and a handler that of the CPU called; of a round trip
    that of the sender and, where acknowledgements come from CPU to CPU, of the last CPU to acknowledge. A
    thread in `recv` waits for a core from the moment that a message is there; one that computed when it came
    has waited as long as the scheduler says since the last reading, or less.
    """

    def __init__(self, cpu: Cpu, line: Line, directory: Directory) -> None:
        self.unacknowledged: dict[int, int] = {}  # requests of this CPU, and by how many
        self.meanwhile: Callable[[], None] = lambda: None  # what else there is to do for others at the end
        self._cpu = cpu
        self._line = line
        line.on[wire.IPI] = self.arrived
        line.on[wire.ACK] = self.acknowledged
        here = directory.cpus[cpu.number].node
        self._near = [endpoint.node == here for endpoint in directory.cpus]
        self._requests = 0
        self._sent: dict[int, tuple[int, int]] = {}  # when, and the reading then
        self._core = CoreWait()
        self._reading = self._core.ns()
        self._arrivals: dict[tuple[int, int], _Arrival] = {}
        self._spans = {kind: [0, 0] for kind in ("delivery", "handler", "round_trip")}
        self._delivery = Histogram()
        self._handler = Histogram()
        self._round_trip = Histogram()
        # Handlers that run (when entered, what for, the reading, waits), and those that have returned.
        self._entered: list[tuple[int, tuple[IpiRequest, ...], int, tuple[int, ...]]] = []
        self._entries: list[_Entry] = []

    # --- of others -----------------------------------------------------------------------------

    def arrived(self, *fields: Any) -> None:
        """Another CPU calls: the fields of an IpiRequest."""
        request = IpiRequest(*fields)
        self._cpu.call_queue.append(request)
        self._found(request)

    def _found(self, request: IpiRequest) -> None:
        """A call is in the inbox."""
        now = time.monotonic_ns()
        before = self._reading
        self.look()
        lain = max(0, now - request.sent_ns)
        if request.sent_ns < self._line.since_ns:
            lain = min(lain, self._reading - before)
        self._arrivals[request.sender, request.number] = _Arrival(now, self._reading, lain)

    def look(self) -> None:
        """Read how long this CPU has waited for a core."""
        self._reading = self._core.ns()

    def enter(self) -> None:
        """The CPU takes what is queued."""
        now = time.monotonic_ns()
        batch = self._cpu.take_interrupt()
        self.look()
        found = [self._arrivals.pop((one.sender, one.number), None) for one in batch]
        waits = tuple(
            [one.waited + min(now - one.at_ns, self._reading - one.reading) if one else 0 for one in found]
        )
        self._entered.append((now, batch, self._reading, waits))

    def returned(self) -> None:
        """The topmost handler has returned."""
        entered, batch, reading, waits = self._entered.pop()
        self.look()
        now = time.monotonic_ns()
        self._entries.append(_Entry(batch, entered, now, self._reading - reading, waits))
        if len(self._entries) >= _ENTRIES_BOUND:
            self._record_entries()

    def acknowledge(self, operation: AckIpi) -> None:
        """Let the sender know; not before memory has carried out what this CPU has issued."""
        self._line.confirm()
        sender, request = operation
        if sender == self._cpu.number:
            self.acknowledged(request, sender)
        else:
            waited = self._waited(sender, request)
            self._line.send(sender, self._line.pack((wire.ACK, request, self._cpu.number, waited)))

    def _waited(self, sender: int, request: int) -> int:
        """Since it was sent, for a core."""
        self.look()
        for _, batch, reading, waits in self._entered[-1:]:
            for one, waited in zip(batch, waits, strict=True):
                if (one.sender, one.number) == (sender, request):
                    return waited + self._reading - reading
        return 0

    def refuse(self) -> None:
        """The program is over: serve nobody until the driver ends the run. RuntimeError if somebody waits."""
        self._line.say_halted()
        queue = self._cpu.call_queue
        while True:
            for request in queue:
                if request.wait:
                    raise RuntimeError(unserved(request, self._cpu.number))
            queue.clear()
            self.meanwhile()
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
            self.look()
            self._sent[number] = now, self._reading
        for target in targets:
            if target == me:
                self.arrived(*request)
            else:
                line.send(target, message)

    def acknowledged(self, request: int, cpu: int, waited: int = 0) -> None:
        """A target has served a request, having waited for a core so long. UnknownCall if nobody waits."""
        missing = self.unacknowledged.get(request, 0)
        if missing > 1:
            self.unacknowledged[request] = missing - 1
        elif missing:
            self.answered(request, waited)
        else:
            raise UnknownCall(cpu, AckIpi(self._cpu.number, request))

    def answered(self, request: int, waited: int = 0) -> None:
        """All acknowledgements of a request are there; who was last has waited so many ns for a core."""
        if self.unacknowledged.pop(request, None) is not None:
            sent, reading = self._sent.pop(request)
            whole = time.monotonic_ns() - sent
            self._round_trip.record(whole)
            self.look()
            self._span("round_trip", whole, self._reading - reading + waited)

    def _span(self, kind: str, whole: int, waited: int) -> None:
        span = self._spans[kind]
        span[0] += whole
        span[1] += min(whole, waited)

    # --- what it took --------------------------------------------------------------------------

    def _record_entries(self) -> None:
        # Not at each return: recording takes longer than the handler, while somebody waits for this CPU.
        for batch, entered, returned, handler_waited, waits in self._entries:
            # A wake-up of the scheduler is an interrupt as well, but not one that these histograms are about.
            calls = [(one, waited) for one, waited in zip(batch, waits, strict=True) if one.wait]
            if calls:
                self._handler.record(returned - entered)
                self._span("handler", returned - entered, handler_waited)
            for request, waited in calls:
                if self._near[request.sender]:
                    self._delivery.record(entered - request.sent_ns)
                    self._span("delivery", entered - request.sent_ns, waited)
        self._entries.clear()

    def report(self, kernel: PerCpu, violations: Sequence[Violation] = ()) -> CpuReport:
        """What to hand back at the end."""
        self._record_entries()
        spans = {kind: (whole, waited) for kind, (whole, waited) in self._spans.items()}
        known = self._core.known
        self._core.close()
        return CpuReport(
            kernel.results(),
            kernel.accesses,
            kernel.tlb_interrupts,
            self._delivery.encode(),
            self._handler.encode(),
            self._round_trip.encode(),
            tuple(self._cpu.tlb.entries()),
            tuple(violations),
            spans if known else {},
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
            self._found(request)

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
