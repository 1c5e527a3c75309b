"""The gate of a watched run: everything that any CPU does passes here, in one order.

CPUs tell memory of their own steps ahead of whatever follows them, and call queues live here as they live in
memory on real machines, an IPI being the bell that tells of them. So the order in which this gate serves is
an order in which the run could have happened one step at a time: it is judged by the same watchers as an
explored run, and written down it is a schedule.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Final

from actors import wire
from actors.gate import Gate, MemoryReport
from actors.mailbox import Peer
from actors.meetings import Meetings
from actors.recorder import AnswerSum, note
from emulator.checks.grace_period import GracePeriod
from emulator.checks.onlooker import Check
from emulator.checks.sides import Sides
from emulator.hardware.cpu import Kind, TakeCalls, Transition
from emulator.hardware.operations import CLASSES, NUMBERS, TABLE, Invalidate, Operation, Order, Where
from emulator.hardware.pte import ACCESSED, PRESENT
from emulator.machine.builder import Machine
from emulator.machine.shared import Shared
from emulator.measure.digest import digest
from emulator.memory.blocked import BLOCKED
from emulator.memory.memory import Memory

_BLOCK_EVENTS: Final = 1_000
_INVALIDATE: Final = NUMBERS[Invalidate]
_WHERE: Final = tuple(TABLE[kind].where for kind in CLASSES)


class WatchedGate(Gate):
    """As `Gate`, and tells the watchers; with `driver` also writes the order down, in blocks.

    A block is (events, checksum), as `recorder` has them; the checksum goes over the run so far.
    """

    def __init__(
        self,
        machine: Machine,
        memory: Memory,
        checks: Sequence[Check],
        driver: Peer | None,
    ) -> None:
        super().__init__(memory, checks)
        self.shared = Shared(memory, machine.cpus, checks)
        self.watchers = machine.watchers()
        self._row = row = machine.architecture
        waits = (Order.STORE, Order.ACK) if row.stores_wait else ()
        self._stored = {number for kind, number in NUMBERS.items() if TABLE[kind].order in waits}
        self._steps = [Transition(Kind.STEP, cpu) for cpu in range(machine.cpus)]
        self._driver = driver
        self._pack = wire.make_packer()
        self._events: list[int] = []
        self._sum = AnswerSum()
        self.count = 0
        for watcher in self.watchers:
            if isinstance(watcher, GracePeriod):
                watcher.sides = Sides(machine.cpus, lambda: self.count + 1)
        self._order = blake2b(digest_size=8)
        self._meetings = Meetings()
        self._drains = machine.drains

    def operation(self, number: int, fields: tuple[Any, ...]) -> Operation:
        """The operation that blocks."""
        if number == wire.BEGUN:
            number, fields = fields
        elif number == wire.TRANSITION:
            attempt = wire.Attempt._make(fields)
            number, fields = attempt.number, attempt.fields
        return super().operation(number, fields)

    def enabled(self, cpu: int, operation: Operation | TakeCalls) -> bool:
        """`carry_out` would not answer BLOCKED now."""
        return self.shared.enabled(cpu, operation)

    def carry_out(self, cpu: int, number: int, fields: tuple[Any, ...]) -> Any:
        """The answer, or BLOCKED."""
        begun = False
        if number >= wire.LOCAL:
            if number == wire.LOCAL:
                self._note(Kind.STEP, cpu, 0, fields[0])
                return None
            if number == wire.TOUCHED:
                self._note(Kind.STEP, cpu, fields[0], 1)
                return None
            if number == wire.TAKE:
                return self._take(cpu)
            if number == wire.TRANSITION:
                return self._transition(cpu, wire.Attempt._make(fields))
            begun = True
            number, fields = fields
        operation = CLASSES[number]._make(fields)
        where = _WHERE[number]
        if where is Where.CPU:
            self._happened(self._steps[cpu], operation, False, None)
            return None
        if where is Where.MEMORY:
            answer = self._execute(cpu, operation)
            if answer is BLOCKED:
                return BLOCKED
            for observe in self._observers[number]:
                observe(cpu, operation, answer)
        else:
            answer = self.shared.execute(cpu, operation)
            if answer is BLOCKED:
                return BLOCKED
        if number == _INVALIDATE:
            self._happened(Transition(Kind.INVALIDATE, cpu, operation.sender), operation, False, answer)
            if self._driver is not None:
                self._sum.add(cpu, number, answer)
            return answer
        if number in self._stored or (begun and self._row.loads_wait):
            # Issued, and performed at once: nothing else waits in the window.
            self._happened(self._steps[cpu], operation, True, None)
            self._happened(Transition(Kind.PERFORM, cpu), operation, False, answer)
        else:
            self._happened(self._steps[cpu], operation, False, answer)
        if self._driver is not None:
            self._sum.add(cpu, number, answer)
        return answer

    def _transition(self, cpu: int, attempt: wire.Attempt) -> Any:
        """A transition of a stressed CPU, whose window is its own business."""
        kind, at, number, fields, issued, cached = attempt
        transition = Transition(Kind(kind), cpu, at)
        if cached is None:
            # Nobody reads the fields of what is not relevant to the watchers, and they did not travel.
            if fields or not CLASSES[number]._fields:
                self._happened(transition, CLASSES[number]._make(fields), issued, None)
            else:
                self._note(transition.kind, cpu, at, 1)
            return None
        operation = CLASSES[number]._make(fields)
        if kind == Kind.WALK:
            entry = self.shared.memory.page_tables.found_by(operation)
            if not entry & PRESENT or entry | ACCESSED == cached:
                return 0
        answer = self.shared.execute(cpu, operation)
        if answer is BLOCKED:
            return BLOCKED
        self._happened(transition, operation, False, answer)
        self._order.update(self._pack((cpu, number, operation)))
        self._meetings.add(cpu, operation)
        if self._driver is not None:
            self._sum.add(cpu, number, answer)
        return answer

    def _take(self, cpu: int) -> Any:
        batch = self.shared.execute(cpu, TakeCalls(cpu))
        if batch is BLOCKED:
            return ()
        self._happened(Transition(Kind.INTERRUPT, cpu), None, False, batch)
        self._order.update(self._pack((cpu,)))
        self._meetings.add(cpu, TakeCalls(cpu))
        return batch

    def _happened(
        self, transition: Transition, operation: Operation | None, issued: bool, answer: Any
    ) -> None:
        for watcher in self.watchers:
            watcher.happened(transition, operation, issued, answer)
        self._note(transition.kind, transition.cpu, transition.at, 1)

    def _note(self, kind: Kind, cpu: int, at: int, count: int) -> None:
        """Write one transition down, `count` times."""
        self.count += count
        if self._driver is None:
            return
        if len(self._events) >= 3 * _BLOCK_EVENTS:
            self.write_block()
        note(self._events, kind, cpu, at, count)

    def write_block(self) -> None:
        """Send what has been written down since the last time."""
        if self._driver is not None and self._events:
            self._driver.send(self._pack((wire.BLOCK, wire.MEMORY, tuple(self._events), self._sum.value)))
            self._events = []

    def report(self, whole: bool) -> MemoryReport:
        """Also how many transitions there were, a name for the order of operations at memory (of a stressed
        run), the digest of memory as it is at the end, and what the watchers have found."""
        figures, violations, _ = super().report(whole)
        if whole and self._drains:
            # What is owed at the end has been performed where accounting watches.
            for watcher in self.watchers:
                watcher.finish()
        self.write_block()
        figures |= {
            "transitions": self.count,
            "interleaving": self._order.hexdigest(),
            "contested": self._meetings.contested(),
        }
        if self._driver is not None:
            figures["memory_digest"] = digest(self.shared.memory.state())
        found = [violation for watcher in self.watchers for violation in watcher.violations]
        return MemoryReport(figures, violations + found, {})
