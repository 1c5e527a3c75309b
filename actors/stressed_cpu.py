"""The loop of a stressed CPU: it draws what happens next among all that its architecture allows.

Everything that happens is one of `Cpu.choices()` and is told to memory, which may refuse it; the window is
the CPU's own business. Now and then the CPU stands still.
"""

from __future__ import annotations

import random
import time
from contextlib import suppress
from typing import Any

from actors import wire
from actors.calls import Bells, CpuReport
from actors.line import Line, Stopped, told
from actors.mailbox import Directory, Mailbox
from actors.meetings import accesses_of
from actors.mode import Chaos
from emulator.checks.violation import Violation
from emulator.hardware.cpu import Choice, Kind, Transition
from emulator.hardware.operations import NUMBERS, TABLE, Iret, SendIpi, WaitAcks, Where
from emulator.machine.builder import Machine
from emulator.machine.progress import boot_program, standing, waits_with_interrupts_off


class StressedCpuLoop:
    """Runs one CPU; `chaos` says how much is left to chance and with which seed."""

    def __init__(
        self, number: int, machine: Machine, mailbox: Mailbox, directory: Directory, chaos: Chaos
    ) -> None:
        self._cpu, self._program, self._kernel = machine.cpu(number)
        self._line = Line(self._cpu, self._kernel, mailbox, directory)
        self._line.on[wire.RETRY] = self._retry
        self._calls = Bells(self._cpu, self._line, directory)
        self._chaos = chaos
        self._told = told(machine)
        self._random = random.Random(f"{chaos.seed}/{number}")
        self._violations: list[Violation] = []
        self._refused: set[tuple[Any, ...]] = set()
        self._taken = 0
        self._stops = sorted(steps for cpu, steps in chaos.stops if cpu == number)
        self._meetings = {(access, nth) for cpu, access, nth in chaos.meetings if cpu == number}
        self._accesses: dict[str, int] = {}
        self._rank = chaos.order.index(number) if number in chaos.order else 0
        self._retries = 0

    def run(self, message: Any) -> None:
        """Run until the driver ends the run. An end before the end is no problem: there is something to tell
        of it."""
        with suppress(Stopped):
            self._line.receive(message)
            boot_program(self._cpu, self._program)
            self._until_halted()
            self._calls.refuse()

    def results(self) -> CpuReport:
        """What to hand back at the end."""
        return self._calls.report(self._kernel, self._violations)

    def _until_halted(self) -> None:
        cpu = self._cpu
        if self._rank:
            self._hold(self._rank)
        while cpu.frames or cpu.window.pending:
            self._line.glance()
            choices = [choice for choice in cpu.choices() if self._ready(choice)]
            if choices:
                choice = self._draw(choices)
                self._stand_still(choice)
                self._take(choice)
            elif not self._line.halted and not standing(cpu) and not cpu.window.pending:
                # Messages may come in meanwhile: look again before sleeping.
                self._line.say_halted()
            else:
                self._fall_asleep()
                self._line.sleep()
                self._refused.clear()
        self._fall_asleep()
        self._line.flush()

    def _retry(self, number: int, fields: Any) -> None:
        """Something that memory refused may be possible now."""
        self._retries += 1
        self._refused.clear()

    # --- what is next --------------------------------------------------------------------------

    def _ready(self, choice: Choice) -> bool:
        """Not an interrupt without a bell, nor what memory has just refused."""
        if choice.transition.kind is Kind.INTERRUPT:
            return bool(self._cpu.call_queue)
        return (choice.transition, type(choice.operation), choice.operation) not in self._refused

    def _draw(self, choices: list[Choice]) -> Choice:
        chaos = self._chaos
        chance = self._random.random
        shy = {
            Kind.INTERRUPT: chaos.late_interrupts,
            Kind.PERFORM: chaos.late_effects,
            Kind.WALK: 1.0 - chaos.walks,
            Kind.STEP: 0.0,
            Kind.INVALIDATE: chaos.late_effects,
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
        self._line.put(wire.HOLD, (rank,))
        self._line.exchange(1)

    def _fall_asleep(self) -> None:
        """Say for what this CPU is about to wait."""
        cpu = self._cpu
        text = standing(cpu)
        if not text and not cpu.window.pending:
            self._line.say_halted()
        interruptible = any(choice.transition.kind is Kind.INTERRUPT for choice in cpu.choices())
        # A bell that is under way will wake it, although its call has been taken already.
        retries = -1 if self._calls.early else self._retries
        self._line.put(wire.ASLEEP, wire.Sleeper(retries, interruptible, text))

    # --- letting it happen ---------------------------------------------------------------------

    def _take(self, choice: Choice) -> None:
        """Let it happen, if memory lets it."""
        transition, asked = choice
        kind = transition.kind
        if kind is Kind.INTERRUPT:
            self._meetings.difference_update((access, 1) for access in accesses_of(asked))
            self._calls.enter()
            return
        cpu = self._cpu
        line = self._line
        if asked is None:
            operation, issued = cpu.about(transition)
            line.put(
                wire.TRANSITION, wire.Attempt(kind, transition.at, *self._named(operation), issued, None)
            )
            if type(operation) is Iret:
                self._calls.returned()
            self._go_on(transition, None)
            return
        cached = (cpu.fetched(transition.at) or 0) if kind is Kind.WALK else 0
        line.put(wire.TRANSITION, wire.Attempt(kind, transition.at, *self._named(asked), False, cached))
        message = line.exchange(1)
        if message[0] == wire.BLOCKED or (kind is Kind.WALK and not message[1]):
            self._refused.add((transition, type(asked), asked))
            return
        self._refused.clear()
        if self._meetings:
            for access in accesses_of(asked):
                self._accesses[access] = self._accesses.get(access, 0) + 1
        answer = message[1]
        if isinstance(asked, SendIpi):
            self._calls.ring(asked, answer)
        elif isinstance(asked, WaitAcks):
            self._calls.answered(asked.request)
        self._go_on(transition, answer)
        line.tick()

    def _go_on(self, transition: Transition, answer: Any) -> None:
        """The transition has happened. A program that raises has told memory of everything before."""
        cpu = self._cpu
        try:
            cpu.take(transition, answer)
        except Exception:
            self._line.confirm()
            raise
        deaf = waits_with_interrupts_off(cpu)
        if deaf is not None and not self._violations:
            self._violations.append(deaf)

    def _named(self, operation: Any) -> tuple[int, Any]:
        """Number and fields, as they travel; without fields for what nobody else reads."""
        kind = type(operation)
        if TABLE[kind].where is Where.CPU and kind not in self._told:
            return NUMBERS[kind], ()
        return NUMBERS[kind], operation
