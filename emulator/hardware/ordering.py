"""Memory ordering: one table row per architecture, and the window of effects still to perform.

A CPU's *window* holds effects that its program has issued but that memory has not seen yet. The
row of an architecture says what may wait there and what has to find the window empty. Nothing
else in the emulator knows one architecture from another.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from emulator.hardware.operations import (
    GetPte,
    Load,
    Operation,
    Order,
    ReadFrame,
    SetPte,
    Store,
    WriteFrame,
)


class Architecture(NamedTuple):
    """What may be pending on one CPU, and what waits for it.

    `stores_wait`: a store may be performed after its instruction retired, first in first out.
    `drains`: kinds of operation that are carried out only with an empty window.
    `source`: the manual's section for each claim.
    """

    name: str
    stores_wait: bool
    drains: frozenset[Order]
    source: str


_SC = Architecture(
    "sc",
    stores_wait=False,
    drains=frozenset(),
    source="Lamport 1979: every effect is performed as it is issued",
)

_X86 = Architecture(
    "x86",
    stores_wait=True,
    drains=frozenset({Order.LOCKED, Order.MB, Order.TLB, Order.IPI_SEND, Order.IRET}),
    source=(
        "Intel SDM vol. 3A: 9.2.3.4 (a load may pass an older store to another location), "
        "9.2.3.5 (a processor sees its own stores early), 9.2.3.9 (locked instructions have a total "
        "order and drain the buffer), 9.3 (MOV to CR3, INVLPG and IRET serialize); an IPI over x2APIC is "
        "preceded by MFENCE;LFENCE (arch/x86/include/asm/barrier.h: weak_wrmsr_fence). smp_wmb, "
        "smp_rmb and smp_mb__after_atomic are compiler barriers (same file)"
    ),
)

ARCHITECTURES: dict[str, Architecture] = {row.name: row for row in (_SC, _X86)}


class Window:
    """Effects issued by one CPU and not yet performed, oldest first."""

    __slots__ = ("architecture", "pending")

    def __init__(self, architecture: Architecture) -> None:
        self.architecture = architecture
        self.pending: deque[Operation] = deque()

    def keeps(self, order: Order) -> bool:
        """An operation of this kind may wait here instead of being performed at once."""
        return self.architecture.stores_wait and order in (Order.STORE, Order.ACK)

    def blocks(self, order: Order) -> bool:
        """An operation of this kind has to wait until the window is empty."""
        return bool(self.pending) and order in self.architecture.drains

    def forward(self, operation: Operation) -> int | None:
        """What a load sees of this CPU's own pending stores; None if memory has to answer.

        Store-to-load forwarding (Intel SDM vol. 3A, 9.2.3.5). The page walker does not come here: it
        reads memory.
        """
        if isinstance(operation, Load):
            for pending in reversed(self.pending):
                if isinstance(pending, Store) and pending.word == operation.word:
                    return pending.value
        elif isinstance(operation, GetPte):
            for pending in reversed(self.pending):
                if isinstance(pending, SetPte) and (pending.mm, pending.vpn) == operation:
                    return pending.pte
        elif isinstance(operation, ReadFrame):
            for pending in reversed(self.pending):
                if isinstance(pending, WriteFrame) and pending.pfn == operation.pfn:
                    return pending.value
        return None
