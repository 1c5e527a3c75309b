"""A run that goes on without a CPU whose actor has died: memory and the other CPUs unplug it.

Only who was in user mode, or idle, can be unplugged: in the kernel it may have held locks, or owed what only
it knows. So a CPU says before it runs user code that it is about to; what it sends next takes that back.
"""

from __future__ import annotations

import time
from typing import Any, Final

from actors import wire
from actors.calls import Calls
from actors.cpu_loop import CpuLoop
from actors.gate import Gate
from actors.line import HEAD, Line
from actors.mailbox import Directory, Mailbox
from actors.memory_loop import MemoryLoop
from emulator.hardware import operations as ops
from emulator.hardware.cpu import Cpu, Frame, IpiRequest
from emulator.hardware.operations import NUMBERS, AtomicAdd, SendIpi, WaitFor
from emulator.kernel.cpu import cpu_is_dead, takedown_cpu
from emulator.kernel.percpu import cpumask_word
from emulator.kernel.sched import THREADS_DONE, scheduler_ipi
from emulator.machine.builder import Machine

_ADD: Final = NUMBERS[AtomicAdd]


class TolerantCalls(Calls):
    """As `Calls`, to those that are there (cpu_online_mask); `unplug` acknowledges for one that is not."""

    def __init__(self, cpu: Cpu, line: Line, directory: Directory) -> None:
        super().__init__(cpu, line, directory)
        self._cpus = len(directory.cpus)
        self._offline = 0
        self._awaited: dict[int, set[int]] = {}
        line.on[wire.UNPLUG] = self.unplug

    def ring(self, operation: SendIpi, number: int) -> None:
        """Tell those targets that are online; a wake-up goes to the next CPU (select_fallback_rq)."""
        targets = [one for one in operation.targets if not self._offline >> one & 1]
        if not targets and not operation.wait and operation.function == scheduler_ipi.__name__:
            targets = [self._next(operation.targets[0])] if operation.arguments[0] >= 0 else []
        if operation.wait and targets:
            self._awaited[number] = set(targets)
        super().ring(SendIpi(tuple(targets), *operation[1:]), number)

    def _next(self, cpu: int) -> int:
        while self._offline >> cpu & 1:
            cpu = (cpu + 1) % self._cpus
        return cpu

    def acknowledged(self, request: int, cpu: int, waited: int = 0) -> None:
        """A target has served a request; once for each, as one that is dead may have done it before."""
        awaited = self._awaited.get(request, set())
        if cpu in awaited:
            awaited.remove(cpu)
            if not awaited:
                del self._awaited[request]
            super().acknowledged(request, cpu, waited)

    def unplug(self, dead: int, arguments: tuple[int, ...]) -> None:
        """CPU `dead` is no more. With `arguments` this CPU does for all what is to be done (takedown_cpu)."""
        self._offline |= 1 << dead
        queue = self._cpu.call_queue
        left = [one for one in queue if one.sender != dead]
        queue.clear()
        queue.extend(left)
        for request, awaited in list(self._awaited.items()):
            if dead in awaited:
                self.acknowledged(request, dead)
        me, now = self._cpu.number, time.monotonic_ns()
        queue.append(IpiRequest(me, 0, cpu_is_dead.__name__, (), False, now))
        if arguments:
            queue.append(IpiRequest(me, 0, takedown_cpu.__name__, arguments, False, now))


class TolerantCpuLoop(CpuLoop):
    """As `CpuLoop`; tells memory when it is in user mode or idle."""

    def __init__(self, number: int, machine: Machine, mailbox: Mailbox, directory: Directory) -> None:
        super().__init__(number, machine, mailbox, directory, TolerantCalls)
        self._told = False
        self._plain_send = self.line.send_memory
        self.line.send_memory = self._send

    def _send(self, frame: bytes) -> Any:
        self._told = False
        return self._plain_send(frame)

    def _tell(self) -> None:
        if not self._told or len(self.line.outbox) > HEAD:
            self.line.put(wire.AT_EASE, ())
            self.line.flush()
            self._told = True

    def _touch(self, frame: Frame, operation: ops.Touch) -> None:
        self._tell()
        super()._touch(frame, operation)

    def _halt(self, frame: Frame, operation: ops.Halt) -> None:
        self._tell()
        super()._halt(frame, operation)


class TolerantMemoryLoop(MemoryLoop):
    """As `MemoryLoop`; knows who is at ease, and forgets a CPU that the driver says has died."""

    def __init__(self, gate: Gate, mailbox: Mailbox, directory: Directory) -> None:
        super().__init__(gate, mailbox, directory)
        self._driver = mailbox.connect_driver(directory.driver)
        self._at_ease = [False] * len(directory.cpus)
        self._through = [0] * len(directory.cpus)
        self._dead: set[int] = set()

    def serve(self, message: Any) -> None:
        """Carry out what one message of a CPU asks for, unless it has died."""
        cpu = message[0]
        if cpu in self._dead:
            return
        at_ease = self._at_ease[cpu] = len(message) > HEAD and message[-2] == wire.AT_EASE
        if at_ease:
            message = message[:-2]
        for number, fields in zip(message[HEAD::2], message[HEAD + 1 :: 2], strict=True):
            if number == _ADD and fields[0] == THREADS_DONE:
                self._through[cpu] += fields[1]
        super().serve(message)

    def told(self, message: Any) -> None:
        """The driver asks whether a CPU can go: tell it, with what the others need to know."""
        if message[1] != wire.UNPLUG:
            return
        dead = message[2]
        waits = [key for key, cpus in self._waiting.items() if dead in cpus]
        # Who waits for the others' threads is through with its own, and does so in user mode.
        joined = any(kind is WaitFor and operation[0] == THREADS_DONE for kind, operation in waits)
        can_go = self._at_ease[dead] or joined
        if can_go:
            self._dead.add(dead)
            for key in waits:
                self._waiting[key].remove(dead)
                if not self._waiting[key]:
                    del self._waiting[key]
            self._offered = {lock: to for lock, to in self._offered.items() if to != dead}
            if self._waiting:
                self._wake()
        prefix = cpumask_word(0)[:-1]
        mms = tuple(int(name.removeprefix(prefix)) for name in self._gate.words() if name.startswith(prefix))
        self._driver.send(self._pack((wire.UNPLUGGED, wire.MEMORY, can_go, self._through[dead], mms)))
