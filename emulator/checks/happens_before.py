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
from emulator.memory.page_table import ptl

# Something that carries knowledge from one CPU to another: ("word", name), ("pte", mm, vpn) and so on.
Carrier = tuple[Any, ...]
Pending = tuple[type[Any], Any, int]  # class of a store in a window, the store, what it publishes


def _word(operation: Any) -> tuple[Carrier, ...]:
    return (("word", operation.word),)


def _lock(operation: Any) -> tuple[Carrier, ...]:
    return (("lock", operation.name),)


def _list(operation: Any) -> tuple[Carrier, ...]:
    return (("list", operation.name),)


def _pte(operation: Any) -> tuple[Carrier, ...]:
    return (("pte", operation.mm, operation.vpn),)


def _locked_pte(operation: Any) -> tuple[Carrier, ...]:
    # Each of these takes and drops the page-table lock around its step.
    return (("pte", operation.mm, operation.vpn), ("lock", ptl(operation.mm, operation.vpn)))


def _areas(operation: Any) -> tuple[Carrier, ...]:
    return (("areas", operation.mm),)


def _count(operation: Any) -> tuple[Carrier, ...]:
    return (("ref", operation.pfn),)


def _flags(operation: Any) -> tuple[Carrier, ...]:
    return (("flags", operation.pfn),)


def _zone(operation: Any) -> tuple[Carrier, ...]:
    return (("zone", operation.node),)


def _lru(operation: Any) -> tuple[Carrier, ...]:
    # Both lists of a node are under one lock (lruvec->lru_lock).
    return (("lru", operation.node),)


def _slot(operation: Any) -> tuple[Carrier, ...]:
    return (("cache", operation.file, operation.pgoff),)


def _slot_and_count(operation: Any) -> tuple[Carrier, ...]:
    # The cache's lock, and folio_ref_freeze or the reference that is dropped.
    return (("cache", operation.file, operation.pgoff), ("ref", operation.pfn))


def _move(operation: Any) -> tuple[Carrier, ...]:
    # folio_ref_freeze of the source, and what the destination's count is set to under the same lock. Whoever
    # finds the folio in its slot takes a reference, so the counts carry what the slot would.
    return (("ref", operation.src), ("ref", operation.dst))


def _acknowledgement(operation: Any) -> tuple[Carrier, ...]:
    return (("ack", operation.sender, operation.request),)


# Contents of frames carry nothing: no kernel path is ordered by what a page holds. FolioRmap stands for walks
# that lock every entry when they come to it, which TryToMigratePte then does by itself.
_CARRIERS: dict[type[Any], Callable[[Any], tuple[Carrier, ...]]] = {
    **dict.fromkeys(
        (ops.Load, ops.Store, ops.AtomicAdd, ops.AtomicOr, ops.AtomicAnd, ops.AtomicXchg, ops.AtomicCmpxchg),
        _word,
    ),
    **dict.fromkeys((ops.WaitFor, ops.WaitChange), _word),
    **dict.fromkeys((ops.Lock, ops.Trylock, ops.Unlock), _lock),
    **dict.fromkeys((ops.LlistAdd, ops.LlistDelAll, ops.LlistEmpty), _list),
    **dict.fromkeys((ops.GetPte, ops.SetPte, ops.WaitPte), _pte),
    **dict.fromkeys((ops.XchgPte, ops.CmpxchgPte, ops.TryToMigratePte, ops.TestAndClearYoung), _locked_pte),
    **dict.fromkeys((ops.FindVma, ops.VmaInsert, ops.VmaRemove, ops.VmaProtect), _areas),
    **dict.fromkeys(
        (ops.FolioGet, ops.FolioTryGet, ops.FolioPut, ops.FolioRefcount, ops.FolioIsolateLru), _count
    ),
    **dict.fromkeys((ops.FolioPutbackLru, ops.SplitHugePage), _count),
    **dict.fromkeys((ops.FolioTestFlag, ops.FolioTestSetFlag, ops.FolioSetFlag, ops.FolioClearFlag), _flags),
    **dict.fromkeys((ops.AllocPages, ops.NrFree), _zone),
    **dict.fromkeys((ops.IsolateLru, ops.NrLru), _lru),
    **dict.fromkeys((ops.FilemapGet, ops.FilemapAdd), _slot),
    ops.FilemapRemove: _slot_and_count,
    ops.FolioMigrateMapping: _move,
    ops.AckIpi: _acknowledgement,
}

# Stores with release semantics: they publish all that came before them. Several acknowledgements of one
# call add up, and so do a lock's unlocks and the page-table steps that took it meanwhile.
_RELEASES = (ops.Unlock, ops.AckIpi)

# Reads of many entries at once.
_RANGES = frozenset({ops.MappedRange, ops.PmdNone})

# User accesses carry nothing, but what comes after them may overtake them.
_ACCESSES = frozenset({ops.ReadFrame, ops.WriteFrame, ops.Touch})


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
        # CPUs that have made no user access since their last full barrier, one bit each.
        self.clean = (1 << cpus) - 1
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
            self.clean &= ~(1 << cpu)
            return
        order = TABLE[type(operation)].order
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
        if order is Order.LOCKED:
            self._release(cpu)
            known = self.now[cpu]
            if known:
                for carrier in carriers:
                    self.clocks[carrier] = self.clocks.get(carrier, 0) | known
        elif order is Order.STORE or order is Order.ACK:
            self._store(cpu, operation, issued)
        elif order is Order.WMB:
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
        self.clean |= 1 << cpu

    def stopped(self, cpu: int, events: int) -> None:
        """The events are that the CPU has made its last user access for some purpose: they took place with
        that access, so a full barrier since then lets a plain store publish them."""
        self.now[cpu] |= events
        if self.clean >> cpu & 1:
            self.released[cpu] |= events

    def _carriers(self, operation: Any, answer: Any) -> tuple[Carrier, ...]:
        kind = type(operation)
        find = _CARRIERS.get(kind)
        found = find(operation) if find is not None else ()
        if kind is ops.FolioPut or kind is ops.FolioPutbackLru:
            if answer:
                found += (("zone", self.nid(operation.pfn)),)
        elif kind is ops.AllocPages:
            if answer >= 0:
                found += (("ref", answer),)
        elif kind is ops.FilemapGet or kind is ops.FilemapAdd:
            if answer >= 0:
                found += (("ref", answer),)
            elif kind is ops.FilemapAdd:
                found += (("ref", operation.pfn),)
        elif kind is ops.IsolateLru:
            found += tuple(("ref", pfn) for pfn in answer)
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
            find = _CARRIERS.get(type(operation))
            for carrier in find(operation) if find is not None else ():
                clock |= self.clocks.get(carrier, 0)
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
        for carrier in _CARRIERS[kind](operation):
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
        self._map(lambda bits: bits & low | bits >> at << at + count)

    def remove_bits(self, at: int, count: int) -> None:
        """Forget `count` events from bit `at` on; those above move down."""
        low = (1 << at) - 1
        self._map(lambda bits: bits & low | bits >> at + count << at)

    def _map(self, change: Callable[[int], int]) -> None:
        self.now = [change(bits) for bits in self.now]
        self.released = [change(bits) for bits in self.released]
        self.seen = [change(bits) for bits in self.seen]
        self.clocks = {key: bits for key, old in self.clocks.items() if (bits := change(old))}
        self.pending = [
            tuple([(kind, store, change(bits)) for kind, store, bits in pending]) for pending in self.pending
        ]

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
            0 if self.plain_orders else self.clean,
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
        now, released, seen, self.clean, clocks, pending = state
        self.now = list(now)
        self.released = list(released) or [0] * len(now)
        self.seen = list(seen) or [0] * len(now)
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
