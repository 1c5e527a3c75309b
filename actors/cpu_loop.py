"""The loop of a CPU: take an interrupt if one is possible, else carry out the program's next operation.

Each class of operation has its entry in the table `carry`. What answers nothing stays in the outbox; for that
to be unnoticeable an interrupt or acknowledgement leaves only after memory has confirmed it, and the CPU
neither sleeps nor computes for long on top of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from actors import wire
from actors.calls import Calls, CpuReport
from actors.line import HEAD, OUTBOX_LIMIT, Line, Stopped
from actors.mailbox import Directory, Mailbox
from emulator.hardware import operations as ops
from emulator.hardware.cpu import Frame
from emulator.hardware.operations import NUMBERS, SECOND_HALVES, TABLE, Operation, Where, handlers_of
from emulator.kernel.smp import cpus_of
from emulator.machine.builder import Machine

# Accesses between two looks at the inbox: a look takes 1.5 microseconds, this many hits a few hundred.
_SLICE: Final = 2016
# A touch shorter than this is over before others would miss what is in the outbox.
_FIRST_SLICE: Final = 224
# Local operations between two looks at the inbox, counted in accesses.
_LOCAL_COST: Final = 32


class CpuLoop:
    """Runs one CPU; `calls` says how it and others call each other."""

    def __init__(
        self,
        number: int,
        machine: Machine,
        mailbox: Mailbox,
        directory: Directory,
        calls: type[Calls] = Calls,
    ) -> None:
        self.cpu, self._program, self._kernel = machine.cpu(number)
        self.line = Line(self.cpu, self._kernel, mailbox, directory)
        self.line.on[wire.RETRY] = self._retry
        self.calls = calls(self.cpu, self.line, directory)
        self._outbox = self.line.outbox
        # Programs whose operation memory has found not enabled and will send a RETRY for.
        self._blocked: set[Frame] = set()
        # What others ask of this CPU's TLB, and how many have not done yet what this CPU asks of theirs.
        self.asked: list[Any] = []
        self._under_way = 0
        self._asked_as = -1
        self._payload: tuple[int, ...] = ()
        self.line.on[wire.INVALIDATE] = self._invalidate
        self.line.on[wire.INVALIDATED] = self._invalidated
        self.calls.meanwhile = self._drop_all
        self._budget = _SLICE
        self.carry: dict[type[Any], Callable[[Frame, Any], None]] = {
            **{kind: self._by_place(kind) for kind in TABLE},
            **handlers_of(self),
            ops.Series: self._series,
        }

    def _by_place(self, kind: type[Any]) -> Callable[[Frame, Any], None]:
        row = TABLE[kind]
        if row.where is Where.CPU:
            return self._local
        return self.ask if row.answers or row.waits is not None else self._post

    def run(self, message: Any) -> None:
        """Run the first program to its end, then wait for the driver to end the run.

        `message` is the first one received: the start, unless the run is over before it began.
        """
        self.line.receive(message)
        self.cpu.boot(self._program)
        try:
            self._until_halted()
            self.calls.refuse()
        except Stopped:
            # Once the program is over and only serves interrupts, that may end anywhere.
            if not self.line.halted:
                raise

    def _until_halted(self) -> None:
        cpu = self.cpu
        frames = cpu.frames
        queue = cpu.call_queue
        asked = self.asked
        enter = self.calls.enter
        carry = self.carry
        series = carry[ops.Series]
        while frames:
            if queue and cpu.can_interrupt():
                enter()
                continue
            frame = frames[-1]
            operation = frame.operation
            if asked and type(operation) not in SECOND_HALVES:
                self._drop_all()
            elif frame.series is not None:
                series(frame, operation)
            else:
                carry[type(operation)](frame, operation)

    def results(self) -> CpuReport:
        """What to hand back at the end."""
        return self.calls.report(self._kernel)

    def _retry(self, number: int, fields: Any) -> None:
        """Memory will not speak of this operation again: ask for it as soon as its program is on top."""
        for frame in [frame for frame in self._blocked if frame.operation == fields]:
            if NUMBERS[type(frame.operation)] == number:
                self._blocked.remove(frame)
                if frame is self.cpu.frames[-1]:
                    return
        # A handler comes first. Until it returns the lock may be somebody else's.
        self.line.hand_on()

    # --- operations for memory -----------------------------------------------------------------

    def _post(self, frame: Frame, operation: Operation) -> None:
        outbox = self._outbox
        outbox += (NUMBERS[type(operation)], operation)
        if len(outbox) > OUTBOX_LIMIT:
            self.line.confirm()
        self.cpu.resume(None)

    def ask(self, frame: Frame, operation: Operation) -> None:
        """Ask memory for the answer; later, if the operation is not enabled."""
        line = self.line
        if frame in self._blocked:
            line.sleep()
            return
        self._outbox += (NUMBERS[type(operation)], operation)
        message = line.exchange(1)
        if message[0] == wire.BLOCKED:
            self._blocked.add(frame)
            return
        self.cpu.resume(message[1])
        line.tick()

    def _series(self, frame: Frame, operation: Operation) -> None:
        line = self.line
        if frame in self._blocked:
            line.sleep()
            return
        assert frame.series is not None
        members = frame.series[len(frame.answers) :]
        for member in members:
            self._outbox += (NUMBERS[type(member)], member)
        if not any(TABLE[type(member)].answers for member in members):
            if len(self._outbox) > OUTBOX_LIMIT:
                line.confirm()
            self.cpu.resume_series([None] * len(members))
            return
        message = line.exchange(len(members))
        if message[0] == wire.BLOCKED:
            self._blocked.add(frame)
            for answer in message[1:]:
                self.cpu.resume(answer)
            return
        self.cpu.resume_series(list(message[1:]))
        line.tick()

    # --- operations of this CPU ----------------------------------------------------------------

    def _local(self, frame: Frame, operation: Operation) -> None:
        cpu = self.cpu
        cpu.resume(cpu.carry_out(operation))
        self._budget -= _LOCAL_COST
        if self._budget < 0:
            self._glance()

    def _glance(self) -> None:
        self._budget = _SLICE
        self.line.glance()
        self.calls.look()

    def _cycle(self, frame: Frame, operation: ops.Cycle) -> None:
        # A program relaxes because it expects something from others, and they may expect it from the outbox.
        self._glance()
        self.cpu.resume(None)

    def _touch(self, frame: Frame, operation: ops.Touch) -> None:
        self.cpu.resume(self.touched(operation))

    def touched(self, touch: ops.Touch) -> int:
        """Carry out a run of touches; the index where it ended."""
        cpu = self.cpu
        accesses, index, stop = touch
        end = min(index + _FIRST_SLICE, stop)
        while True:
            start = index
            index = cpu.carry_out(ops.Touch(accesses, start, end))
            self._budget -= index - start
            if index < end or index == stop:
                break
            if len(self._outbox) > HEAD or self._budget <= 0:
                self._glance()
                if self.asked or (cpu.call_queue and cpu.can_interrupt()):
                    break
            end = min(index + self._budget, stop)
        if self._budget <= 0:
            self._glance()
        reached: int = index
        return reached

    # --- interrupts ----------------------------------------------------------------------------

    def _iret(self, frame: Frame, operation: ops.Iret) -> None:
        self.cpu.resume(self.cpu.carry_out(operation))
        self.calls.returned()

    def _send_ipi(self, frame: Frame, operation: ops.SendIpi) -> None:
        self.cpu.resume(self.calls.send(operation))

    def _ack_ipi(self, frame: Frame, operation: ops.AckIpi) -> None:
        self.calls.acknowledge(operation)
        self.cpu.resume(None)

    def _wait_acks(self, frame: Frame, operation: ops.WaitAcks) -> None:
        cpu = self.cpu
        missing = self.calls.unacknowledged
        # The last acknowledgement ends the flush: nothing but the inbox is looked at until it is there.
        self.line.flush()
        while operation.request in missing:
            if self.asked or (cpu.call_queue and cpu.can_interrupt()):
                return
            self.line.wait()
        cpu.resume(None)

    # --- what one CPU's instruction drops in another's TLB -------------------------------------

    def _invlpgb(self, frame: Frame, operation: ops.Invlpgb | ops.Tlbi) -> None:
        """Their TLBs do it when their CPUs look up, and say so."""
        if type(operation) is ops.Tlbi or self._all_done():
            self._ask_tlbs(operation.sender, operation.mask, operation[2:])

    def _set_payload(self, frame: Frame, operation: ops.SetPayload) -> None:
        """It goes along with the message."""
        self._payload = operation[1:]
        self.cpu.resume(None)

    def _send_rar(self, frame: Frame, operation: ops.SendRar) -> None:
        self._ask_tlbs(operation.sender, operation.mask, self._payload)

    def _ask_tlbs(self, sender: int, mask: int, what: tuple[int, ...]) -> None:
        self._asked_as = sender
        self.line.confirm()
        me = self.cpu.number
        message = self.line.pack((wire.INVALIDATE, me, what))
        for target in cpus_of(mask):
            if target == me:
                self.cpu.invalidate(what)
            else:
                self._under_way += 1
                self.line.send(target, message)
        self.cpu.resume(None)

    def _tlbsync(self, frame: Frame, operation: ops.Tlbsync | ops.Dsb) -> None:
        # This one's own TLB has done it at once.
        alone = type(operation) is ops.Dsb and operation.mask == 1 << self.cpu.number
        if alone or operation.sender != self._asked_as or self._all_done():
            self.cpu.resume(None)

    def _all_done(self) -> bool:
        """Wait until they have; false if there is something else to do first."""
        cpu = self.cpu
        self.line.flush()
        while self._under_way:
            if self.asked or (cpu.call_queue and cpu.can_interrupt()):
                return False
            self.line.wait()
        return True

    def _invalidate(self, *asked: Any) -> None:
        self.asked.append(asked)

    def _invalidated(self) -> None:
        self._under_way -= 1

    def _drop_all(self) -> None:
        while self.asked:
            self.drop(*self.asked.pop(0))

    def drop(self, sender: int, what: tuple[int, ...]) -> None:
        """Do what another CPU asks of this one's TLB."""
        self.cpu.invalidate(what)
        self.line.confirm()
        self.line.send(sender, self.line.pack((wire.INVALIDATED,)))

    def _idle(self, frame: Frame, operation: ops.Idle) -> None:
        """The program is over, but others may still want this CPU's acknowledgement."""
        self.line.say_halted()
        self.line.sleep()

    def _halt(self, frame: Frame, operation: ops.Halt) -> None:
        if self.cpu.interrupts_taken > frame.interrupts_before:
            self._woken()
        else:
            self.line.sleep()

    def _woken(self) -> None:
        """An interrupt has come since the program halted."""
        self.cpu.resume(None)
