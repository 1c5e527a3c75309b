"""The memory actor of a stressed run: it also knows when nothing can happen any more, and tells the driver.

A stressed CPU says so before it waits for a message. If all of them wait, no RETRY is under way and nobody
would take a queued call, then no message will ever come: the run is over, or, no guess, in a deadlock.
"""

from __future__ import annotations

from typing import Any, Final

from actors import wire
from actors.mailbox import Directory, Mailbox
from actors.memory_actor import MemoryLoop
from actors.mode import Mode
from actors.watched_gate import WatchedGate
from emulator.checks.violation import NO_END, Violation
from emulator.hardware.cpu import TakeCalls
from emulator.hardware.operations import Operation
from emulator.machine.progress import DEADLOCK
from emulator.machine.protocols import Machine

# Transitions of others while a CPU stands still, if they never come to rest.
_LONGEST_HOLD: Final = 2_000


class StressedMemoryLoop(MemoryLoop):
    """As `MemoryLoop`, ending runs that do not end by themselves."""

    _gate: WatchedGate

    def __init__(self, machine: Machine, mailbox: Mailbox, directory: Directory, mode: Mode) -> None:
        super().__init__(machine, mailbox, directory, mode)
        self._driver = mailbox.connect_driver(directory.driver)
        self._most = mode.most
        self._cpus = machine.cpus
        self._retries = [0] * machine.cpus
        self._asleep: dict[int, tuple[int, bool, str]] = {}
        # Who stands still: rank, then in order of arrival, and when that began.
        self._held: dict[int, tuple[int, int]] = {}
        self._told = False

    def serve(self, message: Any) -> None:
        """Carry out what one message of a CPU asks for, and see whether anybody can go on."""
        cpu = message[0]
        self._asleep.pop(cpu, None)
        if len(message) > 2 and message[-2] == wire.ASLEEP:
            self._asleep[cpu] = message[-1]
            message = message[:-2]
        elif len(message) > 2 and message[-2] == wire.HOLD:
            self._held[cpu] = (message[-1][0] or self._cpus, self._gate.count)
            message = (cpu, wire.NO_ANSWER, *message[2:-2])
        super().serve(message)
        if self._told:
            return
        if len(self._asleep) + len(self._held) == self._cpus:
            self._look()
        elif self._held and self._gate.count - min(self._held.values())[1] > _LONGEST_HOLD:
            self._release()
        if self._most and self._gate.count > self._most:
            self._end(NO_END, f"not over after {self._gate.count:,} transitions")

    def _retry(self, cpu: int, operation: Operation) -> None:
        self._retries[cpu] += 1
        super()._retry(cpu, operation)

    def _look(self) -> None:
        waiting = []
        for cpu, (retries, interruptible, text) in sorted(self._asleep.items()):
            called = interruptible and self._gate.shared.enabled(cpu, TakeCalls(cpu))
            if called or retries != self._retries[cpu]:
                return
            if text:
                waiting.append(f"CPU {cpu} {text}")
        if self._held:
            self._release()
        elif not waiting:
            self._told = True
            self._driver.send(self._pack((wire.RESTED, wire.MEMORY)))
        else:
            self._end(DEADLOCK, f"nothing can happen any more: {'; '.join(waiting)}")

    def _release(self) -> None:
        """Let the CPU go on whose turn it is."""
        cpu = min(self._held, key=self._held.__getitem__)
        del self._held[cpu]
        self._send[cpu](self._pack((wire.ANSWER, None)))

    def _end(self, rule: str, text: str) -> None:
        self._told = True
        violation = Violation(rule=rule, cpu=-1, text=text)
        self._driver.send(self._pack((wire.BROKEN, wire.MEMORY, *violation)))
