"""The memory actor: a thin loop around the gate to shared memory.

Operations arrive in messages, are carried out one after the other, and whoever waits for answers gets them in
one message. An operation that is not enabled is remembered with its CPU; once another CPU's operations have
enabled it the CPU is told to ask again. It is never carried out on the CPU's behalf, because the CPU may have
gone into an interrupt handler meanwhile and must not have executed it before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray

from actors import wire
from actors.actor import MachineActor
from actors.mailbox import Directory, Mailbox
from actors.mode import Mode
from actors.watched_gate import WatchedGate
from emulator.checks.violation import Violation
from emulator.hardware.operations import NUMBERS, TABLE, Lock, Operation
from emulator.machine.protocols import Check, Machine, MemoryGate
from emulator.memory.blocked import BLOCKED

# Operations of different classes with the same fields are equal tuples.
_Key = tuple[type[Any], Operation]


class PlainGate:
    """Memory and its checks, nothing else."""

    def __init__(self, memory: MemoryGate, checks: Sequence[Check]) -> None:
        self._execute = memory.execute
        self._observers = [check.observe for check in checks]
        self.enabled = memory.enabled
        self.operation = wire.make_operation

    def carry_out(self, cpu: int, number: int, fields: tuple[Any, ...]) -> Any:
        """The answer, or BLOCKED."""
        operation = wire.make_operation(number, fields)
        answer = self._execute(cpu, operation)
        if answer is not BLOCKED:
            for observe in self._observers:
                observe(cpu, operation, answer)
        return answer

    def finish(self) -> None:
        """Nothing of its own to judge."""

    def results(self) -> dict[str, Any]:
        """Nothing of its own."""
        return {}

    def violations(self) -> list[Violation]:
        """Nothing of its own."""
        return []


class MemoryLoop:
    """Serves the CPUs of one run from one `Memory`."""

    def __init__(self, machine: Machine, mailbox: Mailbox, directory: Directory, mode: Mode) -> None:
        self.memory = machine.memory()
        self.checks = machine.checks(self.memory)
        self.serving = -1
        self.whole = True  # the run came to its end
        self._gate: PlainGate | WatchedGate = PlainGate(self.memory, self.checks)
        if mode.watched:
            driver = mailbox.connect_driver(directory.driver) if mode.recorded else None
            self._gate = WatchedGate(machine, self.memory, self.checks, driver)
        self._mailbox = mailbox
        self._directory = directory
        self._pack = wire.make_packer()
        self._send = [mailbox.connect(endpoint).send for endpoint in directory.cpus]
        # Who waits for what, in order of arrival; and to whom a lock that became free was offered.
        self._waiting: dict[_Key, list[int]] = {}
        self._offered: dict[_Key, int] = {}

    def run(self, message: Any) -> None:
        """Serve until the driver says that it is over. `message` is the first one received."""
        recv = self._mailbox.inbox.recv
        unpack = wire.unpack
        serve = self.serve
        while True:
            if message[0] != wire.DRIVER:
                serve(message)
            elif message[1] in (wire.STOP, wire.CUT):
                self.whole = message[1] == wire.STOP
                return
            message = unpack(recv())

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
                    raise RuntimeError(f"{wire.operation_text(operation)} blocks, but nobody waits for it")
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
        self._send[cpu](self._pack((wire.RETRY, NUMBERS[type(operation)], operation)))

    def results(self) -> tuple[dict[str, Any], list[Violation]]:
        """The memory's results, and the violations of all checks."""
        if self.whole:
            for check in self.checks:
                check.finish()
            self._gate.finish()
        figures = dict(self.memory.results())
        for check in self.checks:
            figures.update(check.results())
        figures.update(self._gate.results())
        found = [violation for check in self.checks for violation in check.violations]
        return figures, found + self._gate.violations()


class _MemoryActor(MachineActor):
    """Owns what the CPUs share."""

    _loop: MemoryLoop | None = None

    def make_loop(self, machine: Machine, mailbox: Mailbox, directory: Directory, mode: Mode) -> MemoryLoop:
        # It is a MemoryLoop itself.
        from actors.stressed_memory import StressedMemoryLoop

        self._loop = None
        kind = MemoryLoop if mode.chaos is None else StressedMemoryLoop
        self._loop = kind(machine, mailbox, directory, mode)
        return self._loop

    def concerned(self) -> int:
        return self._loop.serving if self._loop is not None else self.number


MemoryActor = ray.remote(num_cpus=0, max_restarts=0)(_MemoryActor)
