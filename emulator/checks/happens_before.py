"""Happens-before of one run, kept as causal histories restricted to the events that somebody asks for.

The one idea: what a CPU knows is the set of marked events that happen before its next one. A vector clock
is a compressed causal history (Schwarz and Mattern 1994); with only a few events marked the set itself is
small, exact, and one integer: an event is a bit, a join is `|`. That also makes the whole finite and
hashable, so that a search may compare it. What the events are is the caller's business.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from emulator.hardware import operations as ops
from emulator.hardware.cpu import Kind, Transition
from emulator.hardware.operations import TABLE, Operation, Order
from emulator.hardware.operations.places import Key as Carrier
from emulator.hardware.operations.places import entry_range

Pending = tuple[type[Any], Any, int]  # class of a store in a window, the store, what it publishes

# Reads of many entries at once.
_RANGES = frozenset(kind for kind, row in TABLE.items() if entry_range in row.carries)

_CARRIERS = {kind: row.carries for kind, row in TABLE.items() if row.carries and kind not in _RANGES}

# Stores with release semantics. Several acknowledgements of one call add up, and so do a lock's unlocks and
# the page-table steps that took it meanwhile.
_MAY_FREE = frozenset({ops.FolioPut, ops.FolioPutTestzero, ops.FolioPutbackLru})
_RELEASES = frozenset(kind for kind, row in TABLE.items() if row.release)

_ORDERS = {kind: row.order for kind, row in TABLE.items()}

# User accesses carry nothing, but what comes after them may overtake them.
_ACCESSES = frozenset(kind for kind, row in TABLE.items() if row.user_access)


class HappensBefore:
    """What each of `cpus` CPUs knows, and what words, locks, lists, entries and messages carry.

    With `plain_orders` (Architecture.plain_orders) a plain load acquires and a plain store releases.
    Without, a plain store publishes what its CPU knew at the last barrier that covers it (`released`), and
    what a plain load brought waits in `seen` for one (Linux memory-barriers.txt; smp_rmb and smp_wmb are
    half of smp_mb each). Operations of Order.LOCKED are fully ordered (atomic_t.txt), the failing ones
    too, because memory performs them so. `nid` is page_to_nid. Words whose names begin with `exact` are those
    of which `carried_by` is asked what they do not carry.
    """

    __slots__ = ("clean", "clocks", "exact", "nid", "now", "pending", "plain_orders", "released", "seen")

    def __init__(self, cpus: int, plain_orders: bool, nid: Callable[[int], int], exact: str = "") -> None:
        self.exact = exact
        self.plain_orders = plain_orders
        self.nid = nid
        self.now = [0] * cpus
        self.released = [0] * cpus
        self.seen = [0] * cpus
        # Whether the CPU has made no user access since its last full barrier.
        self.clean = [True] * cpus
        self.clocks: dict[Carrier, int] = {}
        # Stores in the CPUs' windows: what they publish was settled when they were issued.
        self.pending: list[tuple[Pending, ...]] = [()] * cpus

    def happened(
        self,
        transition: Transition,
        operation: Operation | None,
        issued: bool,
        answer: Any,
        event: Callable[[], None] | None = None,
    ) -> None:
        """One transition, as a watcher is told of it.

        `event` is called between what the CPU learns from the operation and what it publishes with it; it
        may add bits to `now` of the CPU. Whatever a program does, it does when it issues it, so `event` is
        not called when a store leaves the window, nor for walks, which are no part of the program.
        """
        kind = transition.kind
        cpu = transition.cpu
        if kind is Kind.STEP:
            self._step(cpu, operation, issued, answer, event)
        elif kind is Kind.PERFORM:
            self._performed(cpu, operation, answer)
        elif kind is Kind.INTERRUPT:
            self._acquire(cpu)
            for request in answer:
                self.now[cpu] |= self.clocks.pop(("call", cpu, request.sender, request.number), 0)
            if event is not None:
                event()
            self._release(cpu)

    def _step(
        self, cpu: int, operation: Any, issued: bool, answer: Any, event: Callable[[], None] | None
    ) -> None:
        if type(operation) in _ACCESSES:
            self.clean[cpu] = False
            return
        order = _ORDERS[type(operation)]
        carriers: tuple[Carrier, ...] = ()
        if order is Order.LOCKED:
            carriers = self._carriers(operation, answer)
            self._acquire(cpu)
            for carrier in carriers:
                self.now[cpu] |= self.clocks.get(carrier, 0)
        elif order is Order.LOAD:
            # Without an answer the CPU has read its own pending store, which tells it nothing.
            if not issued and answer is not None:
                self._read(cpu, operation)
        elif order is Order.ACK_WAIT:
            # smp_cond_load_acquire. Nobody waits for the same call twice.
            self.now[cpu] |= self.clocks.pop(("ack", cpu, operation.request), 0)
        elif order in (Order.MB, Order.RMB, Order.AFTER_ATOMIC, Order.IPI_SEND):
            self._acquire(cpu)
        if event is not None:
            event()
        if order is Order.LOAD:
            return
        if order is Order.LOCKED:
            self._release(cpu)
            known = self.now[cpu]
            if known:
                for carrier in carriers:
                    self.clocks[carrier] = self.clocks.get(carrier, 0) | known
        elif order is Order.STORE or order is Order.ACK:
            self._store(cpu, operation, issued)
        elif order is Order.WMB or order is Order.DSB_ST:
            self.released[cpu] = self.now[cpu]
        elif order in (Order.MB, Order.AFTER_ATOMIC, Order.IPI_SEND):
            self._release(cpu)
            if isinstance(operation, ops.SendIpi) and self.now[cpu]:
                for target in operation.targets:
                    self.clocks["call", target, cpu, answer] = self.now[cpu]

    def _acquire(self, cpu: int) -> None:
        self.now[cpu] |= self.seen[cpu]
        self.seen[cpu] = 0

    def _release(self, cpu: int) -> None:
        self.released[cpu] = self.now[cpu]
        self.clean[cpu] = True

    def stopped(self, cpu: int, events: int) -> None:
        """The events are that the CPU has made its last user access for some purpose: they took place with
        that access, so a full barrier since then lets a plain store publish them."""
        self.now[cpu] |= events
        if self.clean[cpu]:
            self.released[cpu] |= events

    def _carriers(self, operation: Any, answer: Any) -> tuple[Carrier, ...]:
        kind = type(operation)
        find = _CARRIERS.get(kind, ())
        # Nearly all have one.
        found = (find[0](operation),) if len(find) == 1 else tuple([one(operation) for one in find])
        if kind in _MAY_FREE:
            if answer:
                found += (("zone", self.nid(operation.pfn)),)
        elif kind is ops.AllocPages:
            if answer >= 0:
                found += (("references", answer),)
        elif kind is ops.FilemapGet or kind is ops.FilemapAdd:
            if answer >= 0:
                found += (("references", answer),)
            elif kind is ops.FilemapAdd:
                found += (("references", operation.pfn),)
        elif kind is ops.IsolateLru:
            found += tuple(("references", pfn) for pfn in answer)
        if kind in (ops.LruAdd, ops.FolioIsolateLru, ops.FolioPutbackLru):
            found += (("lru", self.nid(operation.pfn)),)
        return found

    def _read(self, cpu: int, operation: Any) -> None:
        clock = 0
        if type(operation) in _RANGES:
            for carrier, carried in self.clocks.items():
                if carrier[:2] == ("pte", operation.mm) and operation.start <= carrier[2] < operation.end:
                    clock |= carried
        else:
            for find in _CARRIERS.get(type(operation), ()):
                clock |= self.clocks.get(find(operation), 0)
        if self.plain_orders:
            self.now[cpu] |= clock
        else:
            self.seen[cpu] |= clock

    def _store(self, cpu: int, operation: Any, issued: bool) -> None:
        kind = type(operation)
        if kind not in _CARRIERS:
            return
        # In C11 terms: a plain store after a release fence, or a store-release.
        settled = self.plain_orders or kind in _RELEASES
        published = self.now[cpu] if settled else self.released[cpu]
        if issued:
            self.pending[cpu] += ((kind, operation, published),)
        else:
            self._write(kind, operation, published)

    def _write(self, kind: type[Any], operation: Any, published: int) -> None:
        for find in _CARRIERS[kind]:
            carrier = find(operation)
            # A plain store starts anew: who reads it has read nothing of what was there before.
            clock = published | (self.clocks.get(carrier, 0) if kind in _RELEASES else 0)
            if clock:
                self.clocks[carrier] = clock
            else:
                self.clocks.pop(carrier, None)

    def _performed(self, cpu: int, operation: Any, answer: Any) -> None:
        kind = type(operation)
        if TABLE[kind].order is Order.LOAD:
            self._read(cpu, operation)
            return
        pending = self.pending[cpu]
        for at, (other, store, published) in enumerate(pending):
            # Equal fields do not make two operations of different classes the same.
            if other is kind and store == operation:
                self.pending[cpu] = pending[:at] + pending[at + 1 :]
                self._write(kind, operation, published)
                return

    # --- the bits themselves ---------------------------------------------------------------------

    def known_to_all(self) -> int:
        """Events that happen before whatever any CPU does next."""
        common = -1
        for known in self.now:
            common &= known
        return common

    def insert_bits(self, at: int, count: int) -> None:
        """Make room for `count` new events at bit `at`; nobody knows them yet."""
        low = (1 << at) - 1
        self._map(low, lambda bits: bits & low | bits >> at << at + count)

    def remove_bits(self, at: int, count: int) -> None:
        """Forget `count` events from bit `at` on; those above move down."""
        low = (1 << at) - 1
        self._map(low, lambda bits: bits & low | bits >> at + count << at)

    def _map(self, low: int, change: Callable[[int], int]) -> None:
        """Change what has any of the bits above `low`."""
        # In place: a search watches these containers.
        for row in (self.now, self.released, self.seen):
            for cpu, bits in enumerate(row):
                if bits > low:
                    row[cpu] = change(bits)
        for key, old in [item for item in self.clocks.items() if item[1] > low]:
            if bits := change(old):
                self.clocks[key] = bits
            else:
                del self.clocks[key]
        for cpu, pending in enumerate(self.pending):
            self.pending[cpu] = tuple([(kind, store, change(bits)) for kind, store, bits in pending])

    # --- the whole as a value --------------------------------------------------------------------

    def state(self) -> tuple[Any, ...]:
        """All that decides what will be known, as a hashable value.

        What a carrier says about an event that all CPUs know of cannot matter any more; it is left out, but
        for the `exact` words.
        """
        now = self.now
        keep = ~self.known_to_all()
        exact = self.exact
        # With plain_orders these two are never read.
        published = () if self.plain_orders else tuple([bits & keep for bits in self.released])
        seen = () if self.plain_orders else tuple([b & ~a for a, b in zip(now, self.seen, strict=True)])
        return (
            tuple(now),
            published,
            seen,
            () if self.plain_orders else tuple(self.clean),
            frozenset(
                [
                    (key, left)
                    for key, bits in self.clocks.items()
                    if (
                        left := bits
                        if exact and key[0] == "word" and key[1].startswith(exact)
                        else bits & keep
                    )
                ]
            ),
            tuple([tuple([(k, store, bits & keep) for k, store, bits in p]) for p in self.pending]),
        )

    def restore(self, state: tuple[Any, ...]) -> None:
        """Put back what `state` answered."""
        now, released, seen, clean, clocks, pending = state
        self.now = list(now)
        self.released = list(released) or [0] * len(now)
        self.seen = list(seen) or [0] * len(now)
        self.clean = list(clean) or [True] * len(now)
        self.clocks = dict(clocks)
        self.pending = list(pending)

    def carried_by(self, word: str) -> int:
        """What a load of this word would bring."""
        return self.clocks.get(("word", word), 0)


# What `happened` has no use for: nothing is learnt or published by it.
SILENT: frozenset[type[Any]] = (
    frozenset(
        kind
        for kind, row in TABLE.items()
        if row.order in (Order.NONE, Order.WALK, Order.TLB, Order.IRET)
        or (row.order in (Order.LOAD, Order.STORE) and kind not in _CARRIERS and kind not in _RANGES)
    )
    - _ACCESSES
)
