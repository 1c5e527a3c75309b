"""Memory ordering: one table row per architecture, and the window of effects still to perform.

A CPU's *window* holds effects that its program has issued but that memory has not seen yet: stores,
acknowledgements and loads whose value nothing needs yet. The row of an architecture says what may wait
there, in which order it leaves, and what has to find it empty. Nothing else in the emulator knows one
architecture from another.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from emulator.hardware.instructions import (
    Instruction,
    asked,
    asked_to_translate,
    performed,
    ready,
    settled,
    translated,
    translated_pages,
    translations,
)
from emulator.hardware.operations import (
    TABLE,
    Invalidate,
    InvalidateEntries,
    Operation,
    Order,
    SetPte,
    SmpWmb,
)


class Architecture(NamedTuple):
    """What may be pending on one CPU, and what waits for it.

    `stores_wait`: a store may be performed after its instruction retired; `in_order`: first in first out.
    `loads_wait`: a load that nothing depends on yet may be performed later.
    `drains`: kinds of operation that are carried out only with an empty window.
    `plain_orders`: a plain store publishes all that its CPU did and saw before, a plain load acquires it;
    where it does not, only barriers do. What is said of IRET concerns the window only.
    `leaf_only`: the invalidation of one page leaves what walkers have cached of the tables above;
    `by_address`: it drops that of its address, not of all. `fences_walks`: a local invalidation, or the load
    of another page table, comes after the CPU's own page-table stores; else nothing but a barrier sees to
    that.
    `source`: the manual's section for each claim.
    """

    name: str
    description: str
    stores_wait: bool
    in_order: bool
    loads_wait: bool
    drains: frozenset[Order]
    plain_orders: bool
    source: str
    leaf_only: bool = False
    by_address: bool = False
    fences_walks: bool = True


_SC = Architecture(
    "sc",
    "sequential consistency: nothing overtakes anything",
    stores_wait=False,
    in_order=True,
    loads_wait=False,
    drains=frozenset(),
    plain_orders=True,
    source="Lamport 1979: every effect is performed as it is issued",
)

_X86 = Architecture(
    "x86",
    "TSO: a store may wait while later loads go ahead",
    stores_wait=True,
    in_order=True,
    loads_wait=False,
    drains=frozenset({Order.LOCKED, Order.MB, Order.TLB, Order.IPI_SEND, Order.IPI_TAKE, Order.IRET}),
    plain_orders=True,
    source=(
        "Intel SDM vol. 3A: 9.2.3.4 (a load may pass an older store to another location), "
        "9.2.3.5 (a processor sees its own stores early), 9.2.3.9 (locked instructions have a total "
        "order and drain the buffer), 9.3 (MOV to CR3, INVLPG and IRET serialize); an IPI over x2APIC is "
        "preceded by MFENCE;LFENCE (arch/x86/include/asm/barrier.h: weak_wrmsr_fence). smp_wmb, "
        "smp_rmb and smp_mb__after_atomic are compiler barriers (same file). The handler of a call takes "
        "its queue with a locked exchange (kernel/smp.c: __flush_smp_call_function_queue)"
    ),
)

_RISCV = Architecture(
    "riscv",
    "RVWMO: loads and stores wait, in any order; for check and replay",
    stores_wait=True,
    in_order=False,
    loads_wait=True,
    drains=frozenset({Order.LOCKED, Order.MB, Order.AFTER_ATOMIC, Order.IPI_SEND, Order.IPI_TAKE}),
    plain_orders=False,
    source=(
        "RISC-V unprivileged ISA, RVWMO: preserved program order rules 1-3 (same address), 4 (fences), "
        "5-7 (acquire, release), 9-11 (dependencies); nothing else is ordered. Privileged ISA, SFENCE.VMA: "
        "orders earlier stores visible to the hart before its later implicit references, and no explicit "
        "access. Traps and xRET order nothing. arch/riscv/include/asm/barrier.h: smp_mb is fence rw,rw, "
        "smp_rmb fence r,r, smp_wmb fence w,w, a store-release fence rw,w before the store; "
        "smp_mb__after_atomic is the generic smp_mb (include/asm-generic/barrier.h). Value-returning "
        "atomics are fully ordered (Documentation/atomic_t.txt); all atomics are taken as such. The call "
        "queue is added to by cmpxchg and taken by xchg, both fully ordered (lib/llist.c). SFENCE.VMA "
        "with an address orders accesses to leaf entries only (arch/riscv/include/asm/tlb.h)"
    ),
    leaf_only=True,
)

_ARM64 = Architecture(
    "arm64",
    "Armv8-A: loads and stores wait, in any order; TLBI is ordered by DSB alone, and nobody is interrupted",
    stores_wait=True,
    in_order=False,
    loads_wait=True,
    drains=frozenset({Order.LOCKED, Order.MB, Order.AFTER_ATOMIC, Order.IPI_SEND, Order.IPI_TAKE}),
    plain_orders=False,
    source=(
        "Arm ARM (DDI 0487): B2.3 (the memory model is other-multi-copy atomic: a store is seen by all other "
        "observers at once, by its own CPU early; same-address and dependency order; DMB, DSB, load-acquire, "
        "store-release), D8.16 (TLBI and the DSB of the CPU that has issued it; walks are ordered after "
        "stores by DSB and a context synchronization event only); Simner et al., Relaxed virtual memory in "
        "Armv8-A, ESOP 2022. Exception entry and return synchronize the context and order no access. "
        "arch/arm64/include/asm/barrier.h: smp_mb is dmb ish, smp_rmb dmb ishld, smp_wmb dmb ishst, "
        "smp_mb__after_atomic the generic smp_mb. Value-returning atomics are fully ordered "
        "(Documentation/atomic_t.txt); all atomics are taken as such. An IPI comes behind dsb(ishst) "
        "(irq-gic-v3.c: gic_ipi_send_mask) and the cmpxchg that queues the call (lib/llist.c). "
        "TLBI by address drops what walkers have cached for that address, of all levels or the last alone"
    ),
    by_address=True,
    fences_walks=False,
)

ARCHITECTURES: dict[str, Architecture] = {row.name: row for row in (_SC, _X86, _RISCV, _ARM64)}


class PendingLoad(NamedTuple):
    """A load in the window, and the handle that its program will ask by."""

    load: Operation
    handle: int


# What waits in a window: stores as they are, begun loads, and the mark that smp_wmb leaves.
Effect = Any

_LOADS = (PendingLoad,)
_TRANSLATES: Final = 1 << 10
_NUMBERS: Final = 3
"""A position and so many times the number of a translation, plus that: the access there is translated so."""
_RELEASES = tuple(kind for kind, row in TABLE.items() if row.release)
_LOCATIONS = {kind: row.location for kind, row in TABLE.items() if row.location is not None}
# Which store's value, its last field, a load of the same location sees.
_STORES = {
    load: store
    for load, find in _LOCATIONS.items()
    for store, other in _LOCATIONS.items()
    if find is other and TABLE[load].order is Order.LOAD and TABLE[store].order is Order.STORE
}


def location(operation: Any) -> tuple[Any, ...]:
    """What a plain access reads or writes; accesses to one location keep their order."""
    find = _LOCATIONS.get(type(operation))
    return find(operation) if find is not None else (type(operation).__name__, *operation)


class Window:
    """Effects issued by one CPU and not yet performed, oldest first."""

    __slots__ = ("architecture", "pending", "values")

    def __init__(self, architecture: Architecture) -> None:
        self.architecture = architecture
        self.pending: list[Effect] = []
        # Values of begun loads that have been performed and not yet asked for, by handle.
        self.values: dict[int, int] = {}

    def keeps(self, order: Order) -> bool:
        """An operation of this kind may wait here instead of being performed at once."""
        return self.architecture.stores_wait and order in (Order.STORE, Order.ACK)

    def marks(self, order: Order) -> bool:
        """The operation leaves a mark: stores after it stay behind those before it."""
        return (
            order is Order.WMB
            and not self.architecture.in_order
            and any(not isinstance(effect, _LOADS) for effect in self.pending)
        )

    def blocks(self, order: Order) -> bool:
        """An operation of this kind has to wait for what is pending."""
        if not self.pending:
            return False
        if order in self.architecture.drains:
            return True
        if order is Order.RMB:
            return any(isinstance(effect, _LOADS) for effect in self.pending)
        if order is Order.DSB_ST:
            return any(not isinstance(effect, _LOADS) for effect in self.pending)
        if order is Order.TLB and self.architecture.fences_walks:
            # The hart's own page-table stores come before its translations after the fence.
            return any(isinstance(effect, SetPte) for effect in self.pending)
        return False

    def holds_accesses(self) -> bool:
        """What users have stored still waits here: the translations that it went through are still in use.
        Where stores leave in order, that may be any."""
        if self.architecture.in_order:
            return bool(self.pending)
        return any(TABLE[type(effect)].user_access for effect in self.pending if type(effect) in TABLE)

    def holds_instructions(self) -> bool:
        """What waits is a stretch of code, as it was issued."""
        return bool(self.pending) and type(self.pending[0]) is Instruction

    def invalidation(self, sender: int, cpu: int) -> Operation:
        """What memory is asked when the TLB of `cpu`, which this is the window of, does what `sender` asks. A
        CPU's own TLBIs do not wait for its accesses: these may be behind the DSB that waits for the TLBIs."""
        foreign = sender != cpu and self.holds_instructions()
        pages = translated_pages(self.pending, self.values) if foreign else ()
        return InvalidateEntries(sender, cpu, pages) if pages else Invalidate(sender, cpu)

    def performable(self) -> tuple[int, ...]:
        """Which of the pending effects may be performed next, by position."""
        pending = self.pending
        if not pending:
            return ()
        if self.architecture.in_order:
            return (0,) if type(pending[0]) is not Instruction or ready(pending, 0, self.values) else ()
        if type(pending[0]) is Instruction:
            return self._performable_instructions()
        found = []
        for at, effect in enumerate(pending):
            if type(effect) is SmpWmb:
                continue
            earlier = pending[:at]
            if isinstance(effect, _RELEASES):
                if any(type(other) is not SmpWmb for other in earlier):
                    continue
            else:
                load = isinstance(effect, _LOADS)
                if not load and any(type(other) is SmpWmb for other in earlier):
                    continue
                where = location(effect.load if load else effect)
                if any(
                    location(other.load if isinstance(other, _LOADS) else other) == where
                    for other in earlier
                    if type(other) is not SmpWmb
                ):
                    continue
            found.append(at)
        return tuple(found)

    def _performable_instructions(self) -> tuple[int, ...]:
        """Besides positions, of accesses that may be translated: see `_TRANSLATES`."""
        pending, values = self.pending, self.values
        found = [at for at in range(len(pending)) if ready(pending, at, values)]
        for at, one in enumerate(pending):
            if one.flags:
                found += [
                    at + _TRANSLATES * (number + _NUMBERS) for number in translations(pending, at, values)
                ]
        return tuple(found)

    def asked(self, at: int) -> Operation | None:
        """What memory is asked when the effect at this position is performed; None if nothing is."""
        if at >= _TRANSLATES:
            return asked_to_translate(
                self.pending[at % _TRANSLATES], at // _TRANSLATES - _NUMBERS, self.values
            )
        effect = self.pending[at]
        if isinstance(effect, PendingLoad):
            return effect.load
        if type(effect) is Instruction:
            return asked(self.pending, at, self.values)
        found: Operation = effect
        return found

    def issue(self, code: tuple[Instruction, ...]) -> None:
        """A stretch of code comes in."""
        numbered = [one._replace(number=number) for number, one in enumerate(code)]
        self.pending = settled(numbered, self.values)

    def perform(self, at: int, answer: Any) -> None:
        """The effect at this position has been performed, with this answer."""
        if at >= _TRANSLATES:
            self.pending = translated(self.pending, at % _TRANSLATES, self.values, answer)
            return
        if type(self.pending[at]) is Instruction:
            self.pending = performed(self.pending, at, self.values, answer)
            return
        effect = self.remove(at)
        if isinstance(effect, PendingLoad):
            self.values[effect.handle] = answer

    def remove(self, at: int) -> Effect:
        """The effect at this position has been performed."""
        effect = self.pending.pop(at)
        if not self.architecture.in_order:
            # A mark with no store before it has done its work.
            stores = [
                number
                for number, other in enumerate(self.pending)
                if type(other) is not SmpWmb and not isinstance(other, _LOADS)
            ]
            first = stores[0] if stores else len(self.pending)
            self.pending = [
                other for at, other in enumerate(self.pending) if type(other) is not SmpWmb or at > first
            ]
        return effect

    def begin(self, load: Operation) -> int:
        """Let a load wait; its handle."""
        handle = self._handle()
        self.pending.append(PendingLoad(load, handle))
        return handle

    def keep_value(self, value: int) -> int:
        """A begun load was performed at once; its handle."""
        handle = self._handle()
        self.values[handle] = value
        return handle

    def _handle(self) -> int:
        used = {effect.handle for effect in self.pending if isinstance(effect, _LOADS)} | set(self.values)
        handle = 0
        while handle in used:
            handle += 1
        return handle

    def forward(self, operation: Operation) -> int | None:
        """What a load sees of this CPU's own pending stores; None if memory has to answer.

        Store-to-load forwarding (Intel SDM vol. 3A, 9.2.3.5; RVWMO's load value axiom). The page walker does
        not come here: it reads memory.
        """
        store = _STORES.get(type(operation))
        if store is not None:
            find = _LOCATIONS[store]
            where = find(operation)
            for pending in reversed(self.pending):
                if type(pending) is store and find(pending) == where:
                    value: int = pending[-1]
                    return value
        return None

    def holds_load_of(self, operation: Operation) -> bool:
        """An older load of the same location still waits: a younger one may not overtake it."""
        where = location(operation)
        return any(isinstance(effect, _LOADS) and location(effect.load) == where for effect in self.pending)
