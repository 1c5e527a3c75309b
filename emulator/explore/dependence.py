"""What every transition touches, as two integers, so that two transitions are compared by `&`.

The keys are those that rows of the table of operations, the book of calls and the checks say (`Touches`,
`Meeting`). Each is a bit. Two transitions of different CPUs that do not meet can change places: same answers,
same state, same broken rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from emulator.checks.onlooker import Check, Meeting, Watcher, closed, ignored, is_closed, says_what_it_meets
from emulator.explore.parts import NOTHING, Option, Touched
from emulator.hardware.cpu import Kind, TakeCalls
from emulator.hardware.operations import TABLE, AllocPages, Where
from emulator.hardware.operations.places import ANY, Key
from emulator.machine.call_book import CallBook

# Keys that end in a frame or a page: where there are huge pages, all of one block are one.
_IN_BLOCKS = frozenset({"frame", "references", "flags", "rmap", "free", "cached", "moved", "pte", "mapping"})
_TAILS = closed("folios of some other order than pages and huge pages")
_FOOTPRINTS = {kind: row.footprint for kind, row in TABLE.items() if row.where is Where.MEMORY}


class Dependence:
    """Says what transitions touch. `declared`: all onlookers say what they meet; else nothing follows.

    `counting` are the bits that count so far: those of closed keys only once they are opened.
    """

    def __init__(self, checks: Sequence[Check], watchers: Sequence[Watcher], hpage_order: int) -> None:
        onlookers: list[Check | Watcher] = [*checks, *watchers]
        self.declared = all(map(says_what_it_meets, onlookers))
        self.counting = -1
        self._checks = checks
        self._watchers = watchers
        self._ignored = ignored(watchers)
        self._hpage_order = hpage_order
        self._bits: dict[Key, int] = {}
        self._opened: set[Key] = set()

    def asked(self, option: Option) -> Touched:
        """What decides whether a transition is possible, and its answer; and what it changes anyway."""
        if option.asked is None:
            option.asked = self._asked(option) if option.action >= 0 else NOTHING
        return option.asked

    def done(self, option: Option, answer: object) -> Touched:
        """All that it touches with this answer."""
        touched = option.touched.get(answer)
        if touched is None:
            touched = option.touched[answer] = self._done(option, answer)
        return touched

    def _asked(self, option: Option) -> Touched:
        operation, _ = option.operation
        if option.transition.kind is Kind.INTERRUPT:
            return self._masks(*CallBook.touches(option.cpu, TakeCalls(option.cpu)))
        footprint = _FOOTPRINTS.get(type(operation))
        if isinstance(operation, AllocPages) and operation.order not in (0, self._hpage_order):
            self._open(_TAILS)
        if footprint is None:
            return self._masks(*CallBook.touches(option.cpu, operation))
        reads, writes, adds = ([key for find in part if (key := find(operation))] for part in footprint[:3])
        return self._masks(reads, writes, adds)

    def _done(self, option: Option, answer: object) -> Touched:
        touched = self.asked(option)
        transition, cpu = option.transition, option.cpu
        operation, issued = option.operation
        footprint = _FOOTPRINTS.get(type(operation)) if option.action >= 0 else None
        if footprint is not None:
            if footprint.outcome is not None:
                touched = touched.and_also(self._masks((), footprint.outcome(operation, answer)))
            for check in self._checks:
                touched = touched.and_also(self._meeting(check.meets(cpu, operation, answer)))  # type: ignore[arg-type]
        if type(operation) not in self._ignored:
            for watcher in self._watchers:
                meeting = watcher.meets(transition, operation, issued, answer)
                touched = touched.and_also(self._meeting(meeting))
        return touched

    def _meeting(self, meeting: Meeting | None) -> Touched:
        assert meeting is not None, "a declared onlooker meets something or nothing"
        for key in meeting.opens:
            self._open(key)
        return self._masks(meeting.reads, meeting.writes)

    def _open(self, key: Key) -> None:
        if key not in self._opened:
            self._opened.add(key)
            self.counting |= self._bit(key)

    def _masks(
        self, reads: Iterable[Key] = (), writes: Iterable[Key] = (), adds: Iterable[Key] = ()
    ) -> Touched:
        changed = met = 0
        for keys, changes, meets in ((reads, False, True), (writes, True, True), (adds, True, False)):
            for key in keys:
                kind, last = key[0], key[-1]
                # Somebody who changes one thing meets whoever looks at all of them, and the other way round.
                one, every = self._bit(("one", kind)), self._bit(("every", kind))
                if last is ANY:
                    changed |= every if changes else 0
                    met |= one | every if meets else 0
                    continue
                if kind in _IN_BLOCKS:
                    # A folio of another order is named by its first frame, whatever its size.
                    tails = self._bit(_TAILS)
                    changed |= tails if changes else 0
                    met |= tails if meets else 0
                    key = (*key[:-1], last >> self._hpage_order)
                bit = self._bit(key)
                changed |= bit | one if changes else 0
                met |= bit | every if meets else 0
        return Touched(changed, met)

    def _bit(self, key: Key) -> int:
        bit = self._bits.get(key)
        if bit is None:
            bit = self._bits[key] = 1 << len(self._bits)
            if is_closed(key) and key not in self._opened:
                self.counting &= ~bit
        return bit
