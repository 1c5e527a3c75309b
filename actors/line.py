"""One CPU's line to everybody else: its inbox, the outbox to memory, and word to the driver.

Operations that answer nothing wait in the outbox and go ahead of the next one that does, in program order:
until then nobody can tell that they have not been carried out. All waiting is one blocking receive on the
one inbox; nothing spins or has a timer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from actors import wire
from actors.mailbox import Directory, Mailbox
from emulator.checks.onlooker import ignored
from emulator.hardware.cpu import Cpu
from emulator.hardware.operations import TABLE, Where
from emulator.kernel.percpu import PerCpu
from emulator.machine.builder import Machine
from emulator.machine.progress import operation_text

HEAD: Final = 2  # the fields of a message to memory before its operations
# Messages are cheap by the dozen: 64 operations take memory about as long as the round trip itself.
OUTBOX_LIMIT: Final = HEAD + 2 * 64

_PROGRESS_NS: Final = 200_000_000


class Stopped(Exception):
    """The driver has said that the run is over."""


def told(machine: Machine) -> frozenset[type[Any]]:
    """Steps of a CPU alone that some check of what happens before what wants to know of."""
    own = frozenset(kind for kind, row in TABLE.items() if row.where is Where.CPU)
    return own - ignored(machine.watchers())


class Line:
    """`on` says what to do with a message that is no answer, by its kind. `outbox` may be added to.

    `steps`: own steps that memory has not been told of yet, none unless the run is watched. `since_ns`: when
    the CPU began to wait for the message that it has just got; it was computing until then.
    """

    def __init__(self, cpu: Cpu, kernel: PerCpu, mailbox: Mailbox, directory: Directory) -> None:
        self.outbox: list[Any] = [cpu.number, wire.NO_ANSWER]
        self.steps = 0
        self.halted = False
        self.since_ns = 0
        self.pack = wire.make_packer()
        self.on: dict[int, Callable[..., None]] = {
            wire.GO: lambda: None,
            wire.STOP: self._stop,
            wire.CUT: self._stop,
            wire.WHERE: self._say_where,
        }
        self._cpu = cpu
        self._kernel = kernel
        self._mailbox = mailbox
        self._directory = directory
        self._ready = mailbox.ready
        self._recv = mailbox.inbox.recv
        self.send_memory = mailbox.connect(directory.memory).send
        self._driver = mailbox.connect_driver(directory.driver)
        self._senders: dict[int, Callable[[bytes], Any]] = {}
        self._unconfirmed = False
        self._next_progress = 0

    def receive(self, message: Any) -> None:
        """Take in a message that is no answer."""
        self.on[message[0]](*message[1:])

    def sleep(self) -> None:
        """Nothing to do until a message comes."""
        self.flush()
        self.wait()

    def wait(self) -> None:
        """As `sleep`, where nothing is in the outbox."""
        self.since_ns = time.monotonic_ns()
        message = wire.unpack(self._recv())
        self.on[message[0]](*message[1:])

    def glance(self) -> None:
        """Take in what has arrived, without waiting, while the CPU computes."""
        self.flush()
        self.since_ns = time.monotonic_ns()
        while self._ready():
            self.receive(wire.unpack(self._recv()))
        self.tick()

    @staticmethod
    def _stop() -> None:
        raise Stopped

    def tell_steps(self) -> None:
        """What is in the outbox next comes after the steps so far."""
        if self.steps:
            self.outbox += (wire.LOCAL, (self.steps,))
            self.steps = 0

    def put(self, number: int, fields: Any) -> None:
        """Into the outbox, behind the steps so far."""
        self.tell_steps()
        self.outbox += (number, fields)

    def tell(self, number: int, fields: Any) -> None:
        """As `put`, for what answers nothing."""
        self.put(number, fields)
        if len(self.outbox) > OUTBOX_LIMIT:
            self.confirm()

    def flush(self) -> None:
        """Send the outbox, if there is anything in it, without waiting for word."""
        outbox = self.outbox
        if len(outbox) > HEAD:
            self.send_memory(self.pack(outbox))
            del outbox[HEAD:]
            self._unconfirmed = True

    def confirm(self) -> None:
        """Return when memory has carried out everything that this CPU has issued."""
        if self.steps:
            self.tell_steps()
        if len(self.outbox) > HEAD or self._unconfirmed:
            self.exchange(0)

    def exchange(self, wanted: int) -> Any:
        """Send the outbox; memory's message with the answers to its last `wanted` operations."""
        outbox = self.outbox
        outbox[1] = wanted
        self.send_memory(self.pack(outbox))
        del outbox[HEAD:]
        outbox[1] = wire.NO_ANSWER
        self._unconfirmed = False
        recv = self._recv
        unpack = wire.unpack
        while True:
            self.since_ns = time.monotonic_ns()
            message = unpack(recv())
            if message[0] <= wire.BLOCKED:
                return message
            self.receive(message)

    def hand_on(self) -> None:
        """An empty message: this CPU does not take what memory offers now."""
        self.send_memory(self.pack((self._cpu.number, wire.NO_ANSWER)))

    def send(self, cpu: int, message: bytes) -> None:
        """Send to another CPU."""
        send = self._senders.get(cpu)
        if send is None:
            # Connected at first use, as few CPUs call all others.
            send = self._senders[cpu] = self._mailbox.connect(self._directory.cpus[cpu]).send
        send(message)

    def tick(self) -> None:
        """Report progress now and then."""
        now = time.monotonic_ns()
        if now >= self._next_progress:
            self._next_progress = now + _PROGRESS_NS
            self._driver.send(self.pack((wire.PROGRESS, self._cpu.number, self._kernel.accesses)))

    def say_halted(self) -> None:
        """Tell the driver that the program is over, once."""
        if not self.halted:
            self.halted = True
            self.confirm()
            self._driver.send(self.pack((wire.HALTED, self._cpu.number, self._kernel.accesses)))

    def _say_where(self) -> None:
        cpu = self._cpu
        text = operation_text(cpu.operation) if cpu.frames else "nothing: it has ended"
        if not cpu.irqs:
            text += ", interrupts off"
        self._driver.send(self.pack((wire.WAITS, cpu.number, text)))
