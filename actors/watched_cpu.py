"""The loop of a watched CPU: memory is told of everything that it does, in the order in which it does it.

What concerns this CPU alone travels ahead of the next operation that does not. So each entry of the plain
loop's table gets word to memory in front of it, and that is all the difference, calls apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from actors import wire
from actors.calls import Bells
from actors.cpu_loop import CpuLoop
from actors.line import told
from actors.mailbox import Directory, Mailbox
from emulator.hardware.cpu import Frame
from emulator.hardware.operations import (
    NUMBERS,
    TABLE,
    Dsb,
    Invalidate,
    Invlpgb,
    Operation,
    SendRar,
    SetPayload,
    Tlbi,
    Tlbsync,
    Touch,
    WaitAcks,
    Where,
)
from emulator.kernel.smp import cpus_of
from emulator.machine.builder import Machine

_Carry = Callable[[Frame, Any], None]


class WatchedCpuLoop(CpuLoop):
    """As `CpuLoop`, with word of every step to the memory actor."""

    def __init__(self, number: int, machine: Machine, mailbox: Mailbox, directory: Directory) -> None:
        super().__init__(number, machine, mailbox, directory, Bells)
        self._told = told(machine)
        around = {Where.CPU: self._own, Where.MEMORY: self._shared, Where.SERIES: self._shared}
        for kind, plain in self.carry.items():
            wrap = around.get(TABLE[kind].where)
            if wrap is not None and kind is not Touch:
                self.carry[kind] = wrap(kind, plain)

    def _own(self, kind: type[Any], plain: _Carry) -> _Carry:
        """A step of this CPU alone."""
        line = self.line
        number = NUMBERS[kind]

        def tell(frame: Frame, operation: Operation) -> None:
            line.tell(number, operation)
            plain(frame, operation)

        def counted(frame: Frame, operation: Operation) -> None:
            line.steps += 1
            plain(frame, operation)

        return tell if kind in self._told else counted

    def _shared(self, kind: type[Any], plain: _Carry) -> _Carry:
        """An operation of memory: behind the steps so far, and known for a load that has only begun."""
        line = self.line
        cpu = self.cpu
        number = NUMBERS[kind]

        def carry(frame: Frame, operation: Operation) -> None:
            line.tell_steps()
            if frame.begun:
                line.put(wire.BEGUN, (number, operation))
                cpu.resume(line.exchange(1)[1])
            else:
                plain(frame, operation)

        return carry

    def _touch(self, frame: Frame, operation: Touch) -> None:
        index = self.touched(operation)
        self.line.tell(wire.TOUCHED, (index,))
        self.cpu.resume(index)

    def _invlpgb(self, frame: Frame, operation: Invlpgb | Tlbi) -> None:
        self._queue(frame, operation)

    def _set_payload(self, frame: Frame, operation: SetPayload) -> None:
        self.ask(frame, operation)

    def _send_rar(self, frame: Frame, operation: SendRar) -> None:
        self._queue(frame, operation)

    def _queue(self, frame: Frame, operation: Any) -> None:
        """What is asked is queued in memory; the others are told that there is something."""
        self.ask(frame, operation)
        if frame.operation is operation:
            return
        me = self.cpu.number
        message = self.line.pack((wire.INVALIDATE, me, (operation.sender,)))
        for target in cpus_of(operation.mask):
            if target == me:
                self.asked.append((me, (operation.sender,)))
            else:
                self.line.send(target, message)

    def _tlbsync(self, frame: Frame, operation: Tlbsync | Dsb) -> None:
        self.ask(frame, operation)

    def drop(self, sender: int, what: tuple[int, ...]) -> None:
        """Take it from memory, unless an earlier message has told of it."""
        self.line.put(NUMBERS[Invalidate], Invalidate(what[0], self.cpu.number))
        message = self.line.exchange(1)
        if message[0] != wire.BLOCKED:
            self.cpu.invalidate(message[1])

    def _woken(self) -> None:
        self.line.steps += 1
        super()._woken()

    def _wait_acks(self, frame: Frame, operation: WaitAcks) -> None:
        """Memory knows who has acknowledged."""
        self.line.tell_steps()
        self.ask(frame, operation)
        if frame.operation is not operation:
            self.calls.answered(operation.request)
