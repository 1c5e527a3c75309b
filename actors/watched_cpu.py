"""CPU actors of watched runs: memory is told of everything that the CPU does, in the order it does it.

What concerns this CPU alone travels ahead of the next operation that does not. Calls are queued in memory,
as on real machines; the message from CPU to CPU is only the bell. A stressed CPU besides draws by lot what it
does next among all that its architecture allows, and now and then stands still.
"""

from __future__ import annotations

import random
import time
from contextlib import suppress
from typing import Any, Final

from actors import wire
from actors.actor import Stopped
from actors.cpu_actor import CpuLoop
from actors.mailbox import Directory, Mailbox
from actors.meetings import accesses_of
from actors.mode import Chaos
from emulator.checks.grace_period import NEVER_MATTER
from emulator.hardware.cpu import Choice, Frame, IpiRequest, Kind, Transition
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
    WaitAcks,
    Where,
)
from emulator.machine.progress import waits_with_interrupts_off
from emulator.machine.protocols import Machine

# Steps of this CPU alone that a check of what happens before what wants to know of.
_TOLD: Final = frozenset(kind for kind, row in TABLE.items() if row.where is Where.CPU) - NEVER_MATTER


class WatchedCpuLoop(CpuLoop):
    """As `CpuLoop`, with word of every step to the memory actor."""

    def __init__(self, number: int, machine: Machine, mailbox: Mailbox, directory: Directory) -> None:
        super().__init__(number, machine, mailbox, directory)
        self._steps = 0  # own steps that memory has not been told of yet
        # Bells that have rung, with the time they were sent at; and calls taken before their bell came.
        self._bells: dict[tuple[int, int], int] = {}
        self._early: set[tuple[int, int]] = set()

    # --- own steps -----------------------------------------------------------------------------

    def _tell_steps(self) -> None:
        if self._steps:
            self._outbox += (wire.LOCAL, (self._steps,))
            self._steps = 0

    def _tell(self, number: int, fields: Any) -> None:
        self._tell_steps()
        self._outbox += (number, fields)
        if len(self._outbox) > self.outbox_limit:
            self._confirm()

    def _tell_of(self, operation: Operation) -> None:
        """A step of this CPU alone."""
        kind = type(operation)
        if kind in _TOLD:
            self._tell(NUMBERS[kind], operation)
        else:
            self._steps += 1

    def _local(self, frame: Frame, operation: Operation) -> None:
        self._tell_of(operation)
        super()._local(frame, operation)

    def _cycle(self, frame: Frame, operation: Cycle) -> None:
        self._steps += 1
        super()._cycle(frame, operation)

    def _touched(self, index: int) -> None:
        self._tell(wire.TOUCHED, (index,))

    def _iret(self, frame: Frame, operation: Iret) -> None:
        self._steps += 1
        super()._iret(frame, operation)

    def _halt(self, frame: Frame, operation: Halt) -> None:
        self._steps += frame in self._woken
        super()._halt(frame, operation)

    def _confirm(self) -> None:
        self._tell_steps()
        super()._confirm()

    # --- operations of memory --------------------------------------------------------------------

    def _post(self, frame: Frame, operation: Operation) -> None:
        self._tell_steps()
        super()._post(frame, operation)

    def _ask(self, frame: Frame, operation: Operation) -> None:
        self._tell_steps()
        if not frame.begun:
            super()._ask(frame, operation)
            return
        self._outbox += (wire.BEGUN, (NUMBERS[type(operation)], operation))
        self.cpu.resume(self._exchange(1)[1])

    def _series(self, frame: Frame) -> None:
        self._tell_steps()
        super()._series(frame)

    # --- calls -------------------------------------------------------------------------------------

    def _receive(self, message: Any) -> None:
        if message[0] == wire.IPI:
            request = IpiRequest(*message[1:])
            key = (request.sender, request.number)
            if key in self._early:
                self._early.remove(key)
                return
            self._bells[key] = request.sent_ns
        super()._receive(message)

    def _enter_handler(self) -> None:
        """Take what is queued in memory by now; bells whose call has not been queued are none."""
        self._tell_steps()
        self._outbox += (wire.TAKE, ())
        batch = [IpiRequest(*fields) for fields in self._exchange(1)[1]]
        queue = self.cpu.call_queue
        taken = {(request.sender, request.number) for request in batch}
        self._early |= taken - self._bells.keys()
        rung = [one for one in queue if (one.sender, one.number) not in taken]
        queue.clear()
        if batch:
            queue.extend(
                request._replace(
                    sent_ns=self._bells.pop((request.sender, request.number), time.monotonic_ns())
                )
                for request in batch
            )
            super()._enter_handler()
        queue.extend(rung)

    def _send_ipi(self, frame: Frame, operation: SendIpi) -> None:
        self._tell_steps()
        self._outbox += (NUMBERS[SendIpi], operation)
        number = self._exchange(1)[1]
        self._ring(operation, number)
        self.cpu.resume(number)

    def _ring(self, operation: SendIpi, number: int) -> None:
        """The call is queued in memory: tell its targets."""
        now = time.monotonic_ns()
        if operation.wait and operation.targets:
            self._unacknowledged[number] = [len(operation.targets), now]
        request = IpiRequest(
            self.number, number, operation.function, operation.arguments, operation.wait, now
        )
        message = self._pack((wire.IPI, *request))
        for target in operation.targets:
            if target == self.number:
                self._receive((wire.IPI, *request))
            else:
                self._sender(target)(message)

    def _ack_ipi(self, frame: Frame, operation: AckIpi) -> None:
        self._post(frame, operation)
        self._flush()

    def _wait_acks(self, frame: Frame, operation: WaitAcks) -> None:
        self._ask(frame, operation)
        if frame.operation is not operation:
            self._answered(operation)

    def _answered(self, operation: WaitAcks) -> None:
        """All acknowledgements of this request are there."""
        if operation.request in self._unacknowledged:
            sent = self._unacknowledged.pop(operation.request)[1]
            self.round_trip.record(time.monotonic_ns() - sent)


class StressedCpuLoop(WatchedCpuLoop):
    """A CPU that draws what it does next; `chaos` says how much and with which seed."""

    def __init__(
        self, number: int, machine: Machine, mailbox: Mailbox, directory: Directory, chaos: Chaos
    ) -> None:
        super().__init__(number, machine, mailbox, directory)
        self._chaos = chaos
        self._random = random.Random(f"{chaos.seed}/{number}")
        self._refused: set[tuple[Any, ...]] = set()
        self._taken = 0
        self._stops = sorted(steps for cpu, steps in chaos.stops if cpu == number)
        self._meetings = {(access, nth) for cpu, access, nth in chaos.meetings if cpu == number}
        self._accesses: dict[str, int] = {}
        self._rank = chaos.order.index(number) if number in chaos.order else 0
        self._retries = 0

    def run(self, message: Any) -> None:
        """As `CpuLoop.run`, but an end before the end is no problem: there is something to tell of it."""
        with suppress(Stopped):
            super().run(message)

    def _until_halted(self, *_: Any) -> None:
        cpu = self.cpu
        if self._rank:
            self._hold(self._rank)
        while cpu.frames or cpu.window.pending:
            self._glance()
            choices = [choice for choice in cpu.choices() if self._ready(choice)]
            if not choices:
                self._fall_asleep()
                self._refused.clear()
                continue
            choice = self._draw(choices)
            self._stand_still(choice)
            self._take(choice)
        self._fall_asleep(wakes=False)

    def _fall_asleep(self, wakes: bool = True) -> None:
        """Wait for a message, after telling memory for what."""
        cpu = self.cpu
        text = ""
        if cpu.frames and type(cpu.operation) is not Idle:
            off = "with interrupts off " if not cpu.irqs else ""
            text = f"{off}at {wire.operation_text(cpu.operation)}"
        elif not cpu.window.pending:
            self._say_halted()
        interruptible = any(choice.transition.kind is Kind.INTERRUPT for choice in cpu.choices())
        # A bell that is under way will wake it, although its call has been taken already.
        retries = -1 if self._early else self._retries
        self._outbox += (wire.ASLEEP, (retries, interruptible, text))
        if wakes:
            self._sleep()
        else:
            self._flush()

    def _ready(self, choice: Choice) -> bool:
        """Not an interrupt without a bell, nor what memory has just refused."""
        if choice.transition.kind is Kind.INTERRUPT:
            return bool(self.cpu.call_queue)
        return (choice.transition, type(choice.operation), choice.operation) not in self._refused

    def _draw(self, choices: list[Choice]) -> Choice:
        chaos = self._chaos
        chance = self._random.random
        shy = {
            Kind.INTERRUPT: chaos.late_interrupts,
            Kind.PERFORM: chaos.late_effects,
            Kind.WALK: 1.0 - chaos.walks,
            Kind.STEP: 0.0,
        }
        bold = [one for one in choices if chance() >= shy[one.transition.kind]]
        return self._random.choice(
            bold or [one for one in choices if one.transition.kind is not Kind.WALK] or choices
        )

    def _stand_still(self, choice: Choice) -> None:
        """A disturbance, not a way to wait for anything: all is right however long it takes."""
        self._taken += 1
        chaos = self._chaos
        chance = self._random.random
        operation = choice.operation
        if operation is not None:
            stops = bool(self._stops) and self._taken > self._stops[0]
            if stops:
                self._stops.pop(0)
            if self._meetings:
                met = {(access, self._accesses.get(access, 0) + 1) for access in accesses_of(operation)}
                if met & self._meetings:
                    self._meetings -= met
                    stops = True
            if stops:
                self._hold(0)
        if chance() < chaos.pauses:
            time.sleep(chance() * chaos.pause_us / 1e6)

    def _hold(self, rank: int) -> None:
        """Stand still until memory says that nobody else can go on."""
        self._outbox += (wire.HOLD, (rank,))
        self._exchange(1)

    def _take(self, choice: Choice) -> None:
        """Let it happen, if memory lets it."""
        transition, asked = choice
        kind = transition.kind
        if kind is Kind.INTERRUPT:
            self._meetings.difference_update((access, 1) for access in accesses_of(asked))
            self._enter_handler()
            return
        cpu = self.cpu
        if asked is None:
            operation, issued = cpu.about(transition)
            self._outbox += (wire.TRANSITION, (kind, transition.at, *self._named(operation), issued, -1))
            if type(operation) is Iret:
                self._entries.append((*self._entered.pop(), time.monotonic_ns()))
            self._go_on(transition, None)
            return
        cached = (cpu.tlb.peek(cpu.pcid, transition.at) or 0) if kind is Kind.WALK else 0
        self._outbox += (wire.TRANSITION, (kind, transition.at, *self._named(asked), False, cached))
        message = self._exchange(1)
        if message[0] == wire.BLOCKED or (kind is Kind.WALK and not message[1]):
            self._refused.add((transition, type(asked), asked))
            return
        self._refused.clear()
        if self._meetings:
            for access in accesses_of(asked):
                self._accesses[access] = self._accesses.get(access, 0) + 1
        answer = message[1]
        if isinstance(asked, SendIpi):
            self._ring(asked, answer)
        elif isinstance(asked, WaitAcks):
            self._answered(asked)
        self._go_on(transition, answer)
        self._tick()

    def _go_on(self, transition: Transition, answer: Any) -> None:
        """The transition has happened. A program that raises has told memory of everything before."""
        cpu = self.cpu
        try:
            cpu.take(transition, answer)
        except Exception:
            self._confirm()
            raise
        deaf = waits_with_interrupts_off(cpu)
        if deaf is not None and not self.violations:
            self.violations.append(deaf)

    @staticmethod
    def _named(operation: Any) -> tuple[int, Any]:
        """Number and fields, as they travel; without fields for what nobody else reads."""
        kind = type(operation)
        if TABLE[kind].where is Where.CPU and kind not in _TOLD:
            return NUMBERS[kind], ()
        return NUMBERS[kind], operation

    def _retry(self, number: int, fields: Any) -> None:
        """Something that memory refused may be possible now."""
        self._retries += 1
        self._refused.clear()
