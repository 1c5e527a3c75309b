"""The loop of the memory actor: operations arrive in messages and are carried out one after the other.

Whoever waits for answers gets them in one message. An operation that is not enabled is remembered with its
CPU; once another CPU's operations have enabled it the CPU is told to ask again. It is never carried out on
the CPU's behalf, because the CPU may have gone into an interrupt handler meanwhile and must not have executed
it before.
"""

from __future__ import annotations

import time
from typing import Any

from actors import wire
from actors.core_wait import CoreWait, Spans
from actors.gate import Gate, MemoryReport
from actors.mailbox import Directory, Mailbox
from emulator.hardware.operations import NUMBERS, TABLE, Lock, Operation
from emulator.machine.progress import operation_text
from emulator.memory.blocked import BLOCKED

# Operations of different classes with the same fields are equal tuples.
_Key = tuple[type[Any], Operation]


class MemoryLoop:
    """Serves the CPUs of one run through one gate."""

    def __init__(self, gate: Gate, mailbox: Mailbox, directory: Directory) -> None:
        self.serving = -1
        self.retries = [0] * len(directory.cpus)  # how many each CPU has been told
        self._whole = True  # the run came to its end
        self._core_wait: Spans = {}
        self._gate = gate
        self._inbox = mailbox.inbox
        self._pack = wire.make_packer()
        self._send = [mailbox.connect(endpoint).send for endpoint in directory.cpus]
        # Who waits for what, in order of arrival; and to whom a lock that became free was offered.
        self._waiting: dict[_Key, list[int]] = {}
        self._offered: dict[_Key, int] = {}

    def run(self, message: Any) -> None:
        """Serve until the driver says that it is over. `message` is the first one received."""
        core = CoreWait()
        begun, reading = time.monotonic_ns(), core.ns()
        try:
            self._until_told(message)
        finally:
            if core.known:
                self._core_wait["memory"] = time.monotonic_ns() - begun, core.ns() - reading
            core.close()

    def _until_told(self, message: Any) -> None:
        recv = self._inbox.recv
        unpack = wire.unpack
        serve = self.serve
        while True:
            if message[0] != wire.DRIVER:
                serve(message)
            elif message[1] in (wire.STOP, wire.CUT):
                self._whole = message[1] == wire.STOP
                return
            else:
                self.told(message)
            message = unpack(recv())

    def told(self, message: Any) -> None:
        """The driver has something else to say: not in a plain run, where GO needs nothing."""

    def serve(self, message: Any) -> None:
        """Carry out what one message of a CPU asks for."""
        carry_out = self._gate.carry_out
        cpu = self.serving = message[0]
        wanted = message[1]
        answers: list[Any] = [wire.ANSWER]
        first_wanted = len(message) - 2 * wanted
        if self._offered:
            self._offered = {lock: to for lock, to in self._offered.items() if to != cpu}
        for index in range(2, len(message), 2):
            answer = carry_out(cpu, message[index], message[index + 1])
            if answer is BLOCKED:
                operation = self._gate.operation(message[index], message[index + 1])
                if wanted <= 0:
                    raise RuntimeError(f"{operation_text(operation)} blocks, but nobody waits for it")
                answers[0] = wire.BLOCKED
                waiting = self._waiting.setdefault((type(operation), operation), [])
                if cpu not in waiting:
                    waiting.append(cpu)
                break
            if index >= first_wanted:
                answers.append(answer)
        if wanted >= 0:
            self._send[cpu](self._pack(answers))
        if self._waiting:
            self._wake()

    def _wake(self) -> None:
        """Tell CPUs whose operation is enabled by now to ask again."""
        enabled = self._gate.enabled
        done: list[_Key] = []
        for key, cpus in self._waiting.items():
            kind, operation = key
            if kind is Lock:
                # Only one can have it, so only one is told, the longest waiting. It either takes the lock or
                # hands the offer on: any message of its ends the offer, and `_wake` comes here again.
                if key not in self._offered and enabled(cpus[0], operation):
                    cpu = cpus.pop(0)
                    self._offered[key] = cpu
                    self._retry(cpu, operation)
            elif TABLE[kind].same_for_all:
                if enabled(cpus[0], operation):
                    for cpu in cpus:
                        self._retry(cpu, operation)
                    cpus.clear()
            else:
                for cpu in [cpu for cpu in cpus if enabled(cpu, operation)]:
                    cpus.remove(cpu)
                    self._retry(cpu, operation)
            if not cpus:
                done.append(key)
        for key in done:
            del self._waiting[key]

    def _retry(self, cpu: int, operation: Operation) -> None:
        self.retries[cpu] += 1
        self._send[cpu](self._pack((wire.RETRY, NUMBERS[type(operation)], operation)))

    def answer(self, cpu: int) -> None:
        """Let a CPU go on that waits for an answer without having asked anything."""
        self._send[cpu](self._pack((wire.ANSWER, None)))

    def results(self) -> MemoryReport:
        """What to hand back at the end."""
        return self._gate.report(self._whole)._replace(core_wait=self._core_wait)
