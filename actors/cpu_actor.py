"""The CPU actor: take an interrupt if one is possible, else carry out the program's next operation.

Operations that answer nothing wait in an outbox and go ahead of the next one that does, in program order:
until then nobody can tell that they have not been carried out. For that to stay true, an interrupt or
acknowledgement leaves only after memory has confirmed the outbox, and the CPU neither sleeps nor computes
for long on top of it. All waiting is one blocking receive on the one inbox; nothing spins or has a timer.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import ray
import zmq

from actors import wire
from actors.actor import MachineActor, Stopped
from actors.mailbox import Directory, Mailbox
from actors.mode import Mode
from emulator.checks.violation import Violation
from emulator.hardware.cpu import Frame, IpiRequest
from emulator.hardware.operations import (
    NUMBERS,
    TABLE,
    AckIpi,
    Cycle,
    Halt,
    Idle,
    Iret,
    Operation,
    SendIpi,
    Touch,
    WaitAcks,
    Where,
)
from emulator.machine.protocols import Machine
from emulator.measure.histogram import Histogram

# Messages are cheap by the dozen: 64 operations take memory about as long as the round trip itself.
_OUTBOX_BOUND: Final = 64
# Accesses between two looks at the inbox: a look takes 1.5 microseconds, this many hits a few hundred.
_SLICE: Final = 2016
# A touch shorter than this is over before others would miss what is in the outbox.
_FIRST_SLICE: Final = 224
# Local operations between two looks at the inbox, counted in accesses.
_LOCAL_COST: Final = 32
_ENTRIES_BOUND: Final = 1_000
_PROGRESS_NS: Final = 200_000_000

_POLLIN: Final = int(zmq.POLLIN)
_HEAD: Final = 2  # the fields of a message to memory before its operations


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


class CpuLoop:
    """Runs one CPU. Latencies are in ns of CLOCK_MONOTONIC, which all processes of one node share.

    `delivery` (send to handler entry) needs the clocks of two CPUs and is only recorded where both are on one
    node; `handler` (entry to return) and `round_trip` (send to last acknowledgement) need one.
    """

    outbox_limit: Final = _HEAD + 2 * _OUTBOX_BOUND

    def __init__(self, number: int, machine: Machine, mailbox: Mailbox, directory: Directory) -> None:
        self.number = number
        self.cpu, self._program, self.kernel = machine.cpu(number)
        self.delivery = Histogram()
        self.handler = Histogram()
        self.round_trip = Histogram()
        self.violations: list[Violation] = []
        self._mailbox = mailbox
        self._directory = directory
        self._near = [endpoint.node == directory.cpus[number].node for endpoint in directory.cpus]
        self._events: Callable[[int], Any] = mailbox.inbox.getsockopt
        self._recv = mailbox.inbox.recv
        self._pack = wire.make_packer()
        self._send_memory = mailbox.connect(directory.memory).send
        self._driver = mailbox.connect_driver(directory.driver)
        self._outbox: list[Any] = [number, wire.NO_ANSWER]
        self._unconfirmed = False
        # Programs whose operation memory has found not enabled and will send a RETRY for.
        self._blocked: set[Frame] = set()
        self._woken: set[Frame] = set()
        self._requests = 0
        self._halted = False
        self._senders: dict[int, Callable[[bytes], Any]] = {}
        self._unacknowledged: dict[int, list[int]] = {}
        # Handlers that run (when entered, what for), and those that have returned (and when).
        self._entered: list[tuple[int, tuple[IpiRequest, ...]]] = []
        self._entries: list[tuple[int, tuple[IpiRequest, ...], int]] = []
        self._budget = _SLICE
        self._next_progress = 0
        self._carry: dict[type[Any], Callable[[Frame, Any], None]] = {
            **{kind: self._by_place(kind) for kind, row in TABLE.items() if row.where is not Where.SERIES},
            SendIpi: self._send_ipi,
            WaitAcks: self._wait_acks,
            AckIpi: self._ack_ipi,
            Halt: self._halt,
            Idle: self._idle,
            Iret: self._iret,
            Touch: self._touch,
            Cycle: self._cycle,
        }

    def _by_place(self, kind: type[Any]) -> Callable[[Frame, Any], None]:
        row = TABLE[kind]
        if row.where is Where.CPU:
            return self._local
        return self._ask if row.answers or row.waits is not None else self._post

    def run(self, message: Any) -> None:
        """Run the first program to its end, then wait for the driver to end the run.

        `message` is the first one received: the start, unless the run is over before it began.
        """
        self._receive(message)
        cpu = self.cpu
        frames = cpu.frames
        queue = cpu.call_queue
        carry = self._carry
        cpu.boot(self._program)
        try:
            self._until_halted(frames, queue, carry)
        except Stopped:
            # The program is over and only served interrupts; that may end anywhere.
            if not self._halted:
                raise
            return
        self._say_halted()
        try:
            while True:
                for request in queue:
                    if request.wait:
                        raise RuntimeError(
                            f"CPU {request.sender} waits for {request.function} on CPU {self.number}, "
                            "whose program has ended"
                        )
                queue.clear()
                self._receive(wire.unpack(self._recv()))
        except Stopped:
            return

    def _until_halted(
        self,
        frames: list[Frame],
        queue: deque[IpiRequest],
        carry: dict[type[Any], Callable[[Frame, Any], None]],
    ) -> None:
        cpu = self.cpu
        while frames:
            if queue and cpu.can_interrupt():
                self._enter_handler()
                continue
            frame = frames[-1]
            if frame.series is not None:
                self._series(frame)
            else:
                operation = frame.operation
                carry[type(operation)](frame, operation)

    def _say_halted(self) -> None:
        """Tell the driver that the program is over, once."""
        if not self._halted:
            self._halted = True
            self._confirm()
            self._driver.send(self._pack((wire.HALTED, self.number, self.kernel.accesses)))

    def results(self) -> CpuReport:
        """What to hand back at the end."""
        self._record_entries()
        return CpuReport(
            self.kernel.results(),
            self.kernel.accesses,
            self.kernel.tlb_interrupts,
            self.delivery.encode(),
            self.handler.encode(),
            self.round_trip.encode(),
            tuple(self.cpu.tlb.entries()),
            tuple(self.violations),
        )

    # --- messages ------------------------------------------------------------------------------

    def _receive(self, message: Any) -> None:
        """Take in a message that is no answer."""
        kind = message[0]
        if kind == wire.IPI:
            self.cpu.call_queue.append(IpiRequest(*message[1:]))
        elif kind == wire.ACK:
            self._acknowledged(message[1])
        elif kind == wire.RETRY:
            self._retry(message[1], message[2])
        elif kind == wire.WHERE:
            text = wire.operation_text(self.cpu.operation) if self.cpu.frames else "nothing: it has ended"
            if not self.cpu.irqs:
                text += ", interrupts off"
            self._driver.send(self._pack((wire.WAITS, self.number, text)))
        elif kind in (wire.STOP, wire.CUT):
            raise Stopped

    def _retry(self, number: int, fields: Any) -> None:
        """Memory will not speak of this operation again: ask for it as soon as its program is on top."""
        for frame in [frame for frame in self._blocked if frame.operation == fields]:
            if NUMBERS[type(frame.operation)] == number:
                self._blocked.remove(frame)
                if frame is self.cpu.frames[-1]:
                    return
        # A handler comes first. Until it returns the lock may be somebody else's: an empty message hands the
        # offer on.
        self._send_memory(self._pack((self.number, wire.NO_ANSWER)))

    def _sleep(self) -> None:
        """Nothing to do until a message comes."""
        self._flush()
        self._receive(wire.unpack(self._recv()))

    def _glance(self) -> None:
        """Take in what has arrived, without waiting, while the CPU computes."""
        self._budget = _SLICE
        self._flush()
        while self._events(zmq.EVENTS) & _POLLIN:
            self._receive(wire.unpack(self._recv()))
        self._tick()

    def _tick(self) -> None:
        now = time.monotonic_ns()
        if now >= self._next_progress:
            self._next_progress = now + _PROGRESS_NS
            self._driver.send(self._pack((wire.PROGRESS, self.number, self.kernel.accesses)))

    def _flush(self) -> None:
        """Send the outbox, if there is anything in it, without waiting for word."""
        outbox = self._outbox
        if len(outbox) > _HEAD:
            self._send_memory(self._pack(outbox))
            del outbox[_HEAD:]
            self._unconfirmed = True

    def _confirm(self) -> None:
        """Return when memory has carried out everything that this CPU has issued."""
        if len(self._outbox) > _HEAD or self._unconfirmed:
            self._exchange(0)

    def _exchange(self, wanted: int) -> Any:
        """Send the outbox; memory's message with the answers to its last `wanted` operations."""
        outbox = self._outbox
        outbox[1] = wanted
        self._send_memory(self._pack(outbox))
        del outbox[_HEAD:]
        outbox[1] = wire.NO_ANSWER
        self._unconfirmed = False
        recv = self._recv
        unpack = wire.unpack
        while True:
            message = unpack(recv())
            if message[0] <= wire.BLOCKED:
                return message
            self._receive(message)

    # --- operations for memory -----------------------------------------------------------------

    def _post(self, frame: Frame, operation: Operation) -> None:
        outbox = self._outbox
        outbox += (NUMBERS[type(operation)], operation)
        if len(outbox) > self.outbox_limit:
            self._confirm()
        self.cpu.resume(None)

    def _ask(self, frame: Frame, operation: Operation) -> None:
        if frame in self._blocked:
            self._sleep()
            return
        self._outbox += (NUMBERS[type(operation)], operation)
        message = self._exchange(1)
        if message[0] == wire.BLOCKED:
            self._blocked.add(frame)
            return
        self.cpu.resume(message[1])
        self._tick()

    def _series(self, frame: Frame) -> None:
        if frame in self._blocked:
            self._sleep()
            return
        assert frame.series is not None
        members = frame.series[len(frame.answers) :]
        for member in members:
            self._outbox += (NUMBERS[type(member)], member)
        if not any(TABLE[type(member)].answers for member in members):
            if len(self._outbox) > self.outbox_limit:
                self._confirm()
            self.cpu.resume_series([None] * len(members))
            return
        message = self._exchange(len(members))
        if message[0] == wire.BLOCKED:
            self._blocked.add(frame)
            for answer in message[1:]:
                self.cpu.resume(answer)
            return
        self.cpu.resume_series(list(message[1:]))
        self._tick()

    # --- operations of this CPU ----------------------------------------------------------------

    def _local(self, frame: Frame, operation: Operation) -> None:
        cpu = self.cpu
        cpu.resume(cpu.carry_out(operation))
        self._budget -= _LOCAL_COST
        if self._budget < 0:
            self._glance()

    def _cycle(self, frame: Frame, operation: Cycle) -> None:
        # A program relaxes because it expects something from others, and they may expect it from the outbox.
        self._glance()
        self.cpu.resume(None)

    def _touch(self, frame: Frame, operation: Touch) -> None:
        cpu = self.cpu
        accesses, index, stop = operation
        end = min(index + _FIRST_SLICE, stop)
        while True:
            start = index
            index = cpu.carry_out(Touch(accesses, start, end))
            self._budget -= index - start
            if index < end or index == stop:
                break
            if len(self._outbox) > _HEAD or self._budget <= 0:
                self._glance()
                if cpu.call_queue and cpu.can_interrupt():
                    break
            end = min(index + self._budget, stop)
        if self._budget <= 0:
            self._glance()
        self._touched(index)
        cpu.resume(index)

    def _touched(self, index: int) -> None:
        """A run of touches has ended at `index`."""

    # --- interrupts ----------------------------------------------------------------------------

    def _enter_handler(self) -> None:
        frame = self.cpu.frames[-1]
        if type(frame.operation) is Halt:
            self._woken.add(frame)
        now = time.monotonic_ns()
        self._entered.append((now, self.cpu.take_interrupt()))

    def _iret(self, frame: Frame, operation: Iret) -> None:
        self.cpu.resume(self.cpu.carry_out(operation))
        self._entries.append((*self._entered.pop(), time.monotonic_ns()))
        if len(self._entries) >= _ENTRIES_BOUND:
            self._record_entries()

    def _record_entries(self) -> None:
        # Not at each return: recording takes longer than the handler, while somebody waits for this CPU.
        for entered, batch, returned in self._entries:
            # A wake-up of the scheduler is an interrupt as well, but not one that these histograms are about.
            calls = [request for request in batch if request.wait]
            if calls:
                self.handler.record(returned - entered)
            for request in calls:
                if self._near[request.sender]:
                    self.delivery.record(entered - request.sent_ns)
        self._entries.clear()

    def _send_ipi(self, frame: Frame, operation: SendIpi) -> None:
        self._confirm()
        targets, function, arguments, wait = operation
        self._requests += 1
        number = self._requests
        now = time.monotonic_ns()
        request = IpiRequest(self.number, number, function, arguments, wait, now)
        message = self._pack((wire.IPI, *request))
        if wait and targets:
            self._unacknowledged[number] = [len(targets), now]
        for target in targets:
            if target == self.number:
                self.cpu.call_queue.append(request)
            else:
                self._sender(target)(message)
        self.cpu.resume(number)

    def _ack_ipi(self, frame: Frame, operation: AckIpi) -> None:
        self._confirm()
        sender, request = operation
        if sender == self.number:
            self._acknowledged(request)
        else:
            self._sender(sender)(self._pack((wire.ACK, request, self.number)))
        self.cpu.resume(None)

    def _sender(self, cpu: int) -> Callable[[bytes], Any]:
        send = self._senders.get(cpu)
        if send is None:
            send = self._senders[cpu] = self._mailbox.connect(self._directory.cpus[cpu]).send
        return send

    def _acknowledged(self, request: int) -> None:
        missing = self._unacknowledged[request]
        missing[0] -= 1
        if not missing[0]:
            del self._unacknowledged[request]
            self.round_trip.record(time.monotonic_ns() - missing[1])

    def _wait_acks(self, frame: Frame, operation: WaitAcks) -> None:
        cpu = self.cpu
        missing = self._unacknowledged
        # The last acknowledgement ends the flush: nothing but the inbox is looked at until it is there.
        while operation.request in missing:
            if cpu.call_queue and cpu.can_interrupt():
                return
            self._sleep()
        cpu.resume(None)

    def _idle(self, frame: Frame, operation: Idle) -> None:
        """The program is over, but others may still want this CPU's acknowledgement."""
        self._say_halted()
        self._sleep()

    def _halt(self, frame: Frame, operation: Halt) -> None:
        if frame in self._woken:
            self._woken.remove(frame)
            self.cpu.resume(None)
        else:
            self._sleep()


class _CpuActor(MachineActor):
    """One simulated CPU."""

    def make_loop(self, machine: Machine, mailbox: Mailbox, directory: Directory, mode: Mode) -> CpuLoop:
        # They are CpuLoops themselves.
        from actors.watched_cpu import StressedCpuLoop, WatchedCpuLoop

        if mode.chaos is not None:
            return StressedCpuLoop(self.number, machine, mailbox, directory, mode.chaos)
        if mode.watched:
            return WatchedCpuLoop(self.number, machine, mailbox, directory)
        return CpuLoop(self.number, machine, mailbox, directory)


CpuActor = ray.remote(num_cpus=0, max_restarts=0)(_CpuActor)
