"""The memory actor of a stressed run: it also knows when nothing can happen any more, and tells the driver.

A stressed CPU says so before it waits for a message. If all of them wait, no RETRY is under way and nobody
would take a queued call, then no message will ever come: the run is over, or, no guess, in a deadlock.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from actors import wire
from actors.mailbox import Directory, Mailbox
from actors.memory_loop import MemoryLoop
from actors.watched_gate import WatchedGate
from emulator.checks.violation import Violation
from emulator.hardware.cpu import TakeCalls
from emulator.machine.progress import deadlock, not_over

# Transitions of others while a CPU stands still, if they never come to rest.
_LONGEST_HOLD: Final = 2_000


class _Turn(NamedTuple):
    """Who goes on first: by rank, then in order of arrival; `since` is when it began to stand still."""

    rank: int
    since: int


class StressedMemoryLoop(MemoryLoop):
    """As `MemoryLoop`, ending runs that do not end by themselves. `most`: transitions, 0 for any number."""

    def __init__(self, gate: WatchedGate, mailbox: Mailbox, directory: Directory, most: int) -> None:
        super().__init__(gate, mailbox, directory)
        self._watched = gate
        self._driver = mailbox.connect_driver(directory.driver)
        self._most = most
        self._cpus = len(directory.cpus)
        self._asleep: dict[int, wire.Sleeper] = {}
        self._held: dict[int, _Turn] = {}
        self._told = False

    def serve(self, message: Any) -> None:
        """Carry out what one message of a CPU asks for, and see whether anybody can go on."""
        cpu = message[0]
        count = self._watched.count
        self._asleep.pop(cpu, None)
        if len(message) > 2:
            number, fields = message[-2:]
            if number == wire.ASLEEP:
                self._asleep[cpu] = wire.Sleeper(*fields)
                message = message[:-2]
            elif number == wire.HOLD:
                self._held[cpu] = _Turn(fields[0] or self._cpus, count)
                message = (cpu, wire.NO_ANSWER, *message[2:-2])
        super().serve(message)
        if self._told:
            return
        count = self._watched.count
        if len(self._asleep) + len(self._held) == self._cpus:
            self._look()
        elif self._held and count - min(self._held.values()).since > _LONGEST_HOLD:
            self._release()
        if self._most and count > self._most:
            self._end(not_over(count))

    def _look(self) -> None:
        waiting = []
        for cpu, sleeper in sorted(self._asleep.items()):
            called = sleeper.interruptible and self._watched.enabled(cpu, TakeCalls(cpu))
            if called or sleeper.retries != self.retries[cpu]:
                return
            if sleeper.text:
                waiting.append(f"CPU {cpu} {sleeper.text}")
        if self._held:
            self._release()
        elif not waiting:
            self._told = True
            self._driver.send(self._pack((wire.RESTED, wire.MEMORY)))
        else:
            self._end(deadlock(waiting))

    def _release(self) -> None:
        """Let the CPU go on whose turn it is."""
        cpu = min(self._held, key=self._held.__getitem__)
        del self._held[cpu]
        self.answer(cpu)

    def _end(self, violation: Violation) -> None:
        self._told = True
        self._driver.send(self._pack((wire.BROKEN, wire.MEMORY, *violation)))
