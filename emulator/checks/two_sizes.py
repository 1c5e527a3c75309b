"""Two sizes at once: a small and a huge translation of one address in the TLB of one CPU.

Some CPUs raise a machine check then (AMD's erratum 383), others answer from either (Intel SDM vol. 3A,
4.10.2.3).
So whoever replaces one by the other has to see to it that nothing is cached in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from emulator.checks.onlooker import APART, Meeting, Watcher
from emulator.checks.violation import MAX_KEPT, Violation
from emulator.hardware import operations as ops
from emulator.hardware.cpu import Kind, Transition
from emulator.hardware.operations import TABLE, Operation, handlers_of
from emulator.hardware.pte import PSE

TWO_SIZES = "small and huge entry at once"

_Held = tuple[int, int, int]  # mm, first page, order


class TwoSizes(Watcher):
    """Watches what walkers bring in and what is flushed. Nothing is evicted: a TLB may be as large as that.

    `loaded`: CPU to the mm that it runs at the start; `cached`: (CPU, page, entry) of what they have then.
    """

    ignores = frozenset((*TABLE, type(None))) - {
        ops.Walk,
        ops.WalkPte,
        ops.FlushTlb,
        ops.FlushTlbAll,
        ops.FlushTlbOne,
        ops.LoadCr3,
        ops.Invalidate,
    }

    def __init__(
        self, loaded: Mapping[int, int], cached: Iterable[tuple[int, int, int]], hpage_order: int
    ) -> None:
        super().__init__()
        self._order = hpage_order
        self._loaded = dict(loaded)
        self._held: dict[int, frozenset[_Held]] = {}
        for cpu, vpn, entry in cached:
            held = self._held.get(cpu, frozenset())
            self._held[cpu] = held | {(self._loaded[cpu], *self._extent(vpn, entry))}
        self._handlers = handlers_of(self)

    def happened(
        self, transition: Transition, operation: Operation | None, issued: bool, answer: Any
    ) -> None:
        """One transition, as an engine tells its watchers."""
        handler = self._handlers.get(type(operation))
        if handler is not None and transition.kind in (Kind.STEP, Kind.WALK, Kind.INVALIDATE):
            handler(transition.cpu, operation, answer)

    def meets(self, transition: Transition, operation: Any, issued: bool, answer: Any) -> Meeting:
        """What one CPU has is its own walks' and flushes' doing."""
        return APART

    def state(self) -> Any:
        """What each CPU may have, and what it runs."""
        return frozenset(self._held.items()), frozenset(self._loaded.items())

    def restore(self, state: Any) -> None:
        """Put back what `state` answered."""
        held, loaded = state
        self._held, self._loaded = dict(held), dict(loaded)

    def _extent(self, vpn: int, entry: int) -> tuple[int, int]:
        return (vpn & -1 << self._order, self._order) if entry & PSE else (vpn, 0)

    def _overlapping(self, cpu: int, mm: int, first: int, order: int) -> frozenset[_Held]:
        held = self._held.get(cpu, frozenset())
        return frozenset(
            [
                one
                for one in held
                if one[0] == mm and one[1] >> max(order, one[2]) == first >> max(order, one[2])
            ]
        )

    def _drop(self, cpu: int, gone: frozenset[_Held]) -> None:
        held = self._held.get(cpu, frozenset()) - gone
        self._held.pop(cpu, None)
        if held:
            self._held[cpu] = held

    def _walked(self, cpu: int, operation: ops.Walk | ops.WalkPte, answer: int) -> None:
        mm, vpn = operation.mm, operation.vpn
        if not answer:
            # A fault drops what there is for its address.
            self._drop(cpu, self._overlapping(cpu, mm, vpn, 0))
            return
        new = (mm, *self._extent(vpn, answer))
        there = self._overlapping(cpu, *new)
        if any(one[2] != new[2] for one in there) and len(self.violations) < MAX_KEPT:
            kinds = ("small", "huge") if new[2] else ("huge", "small")
            where = f"page {vpn:#x} of mm {mm}"
            text = f"CPU {cpu} may have a {kinds[0]} entry for {where}, and walks to a {kinds[1]} one"
            self.violations.append(Violation(TWO_SIZES, cpu, text))
        self._held[cpu] = self._held.get(cpu, frozenset()) | {new}

    def _flush(self, cpu: int, operation: ops.FlushTlb, answer: Any) -> None:
        mm = self._loaded.get(cpu, 0)
        self._drop(cpu, frozenset([one for one in self._held.get(cpu, ()) if one[0] == mm]))

    def _flush_all(self, cpu: int, operation: ops.FlushTlbAll, answer: Any) -> None:
        self._held.pop(cpu, None)

    def _flush_one(self, cpu: int, operation: ops.FlushTlbOne, answer: Any) -> None:
        self._drop(cpu, self._overlapping(cpu, self._loaded.get(cpu, 0), operation.vpn, 0))

    def _invalidated(self, cpu: int, operation: ops.Invalidate, answer: tuple[int, ...]) -> None:
        pcid, mm, start, end, *_ = answer
        gone = [
            one
            for one in self._held.get(cpu, ())
            if pcid < 0 or (one[0] == mm and (end < 0 or (one[1] < end and start < one[1] + (1 << one[2]))))
        ]
        self._drop(cpu, frozenset(gone))

    def _load_cr3(self, cpu: int, operation: ops.LoadCr3, answer: Any) -> None:
        self._loaded[cpu] = operation.mm
        if operation.flush:
            self._flush(cpu, ops.FlushTlb(), None)
