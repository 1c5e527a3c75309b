"""Operations of one CPU: ordering, its own TLB and interrupts, and calls to other CPUs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from emulator.hardware.operations.places import acknowledgement, calls, nowhere, writes
from emulator.hardware.operations.table import Alone, Answer, Answers, Operation, Order, Price, Row, Where

ALONE_HERE = nowhere("it concerns this CPU alone")


@Row(Where.CPU, Order.MB, ALONE_HERE, Price.INSTRUCTION, alone=Alone.UNINTERRUPTED)
class SmpMb(Answers[None]):
    """smp_mb."""


@Row(Where.CPU, Order.RMB, ALONE_HERE, Price.INSTRUCTION, alone=Alone.UNINTERRUPTED)
class SmpRmb(Answers[None]):
    """smp_rmb."""


@Row(Where.CPU, Order.WMB, ALONE_HERE, Price.INSTRUCTION, alone=Alone.UNINTERRUPTED)
class SmpWmb(Answers[None]):
    """smp_wmb."""


@Row(Where.CPU, Order.AFTER_ATOMIC, ALONE_HERE, Price.INSTRUCTION, alone=Alone.UNINTERRUPTED)
class SmpMbAfterAtomic(Answers[None]):
    """smp_mb__after_atomic: orders only after an atomic read-modify-write."""


@Row(Where.CPU, Order.NONE, ALONE_HERE, Price.INSTRUCTION)
class LocalIrqDisable(Answers[None]):
    """local_irq_disable."""


@Row(Where.CPU, Order.NONE, ALONE_HERE, Price.INSTRUCTION, alone=Alone.UNINTERRUPTED)
class LocalIrqEnable(Answers[None]):
    """local_irq_enable."""


@Row(Where.CPU, Order.TLB, ALONE_HERE, Price.CR3, alone=Alone.UNWALKED)
class LoadCr3(Answers[None]):
    """Write CR3: page table and PCID; without `flush` the PCID's entries stay (CR3_NOFLUSH)."""

    mm: int
    pcid: int
    flush: bool


@Row(Where.CPU, Order.TLB, ALONE_HERE, Price.FLUSH, alone=Alone.UNWALKED, notation="flushes its TLB")
class FlushTlb(Answers[None]):
    """Write CR3 back: drop every entry of the loaded PCID (native_flush_tlb_local)."""


@Row(
    Where.CPU,
    Order.TLB,
    ALONE_HERE,
    Price.FLUSH,
    alone=Alone.UNWALKED,
    notation="flushes its TLB, global entries included",
)
class FlushTlbAll(Answers[None]):
    """INVPCID of everything, or CR4.PGE off and on (__flush_tlb_all): no entry is left, global or not."""


@Row(Where.CPU, Order.TLB, ALONE_HERE, Price.INVLPG, alone=Alone.UNWALKED, notation="flushes {0.vpn:#x}")
class FlushTlbOne(Answers[None]):
    """INVLPG."""

    vpn: int


@Row(Where.CPU, Order.NONE, ALONE_HERE, Price.ENGINE, Answer.ENTRY, alone=Alone.UNWALKED)
class Translate(Answers[int]):
    """First half of a user access: the cached entry if it permits the access, else 0."""

    vpn: int
    write: bool


@Row(Where.CPU, Order.NONE, ALONE_HERE, Price.ENGINE, Answer.VALUE, user_access=True)
class Touch(Answers[int]):
    """User accesses (each vpn << 1 | write) from `start` on; the index of the first that does not hit, or of
    where the engine paused, at most `stop`. An engine may walk for reads and go on, where nothing faults."""

    accesses: Sequence[int]
    start: int
    stop: int


@Row(Where.CPU, Order.NONE, ALONE_HERE, Price.INSTRUCTION, alone=Alone.UNINTERRUPTED)
class Cycle(Answers[None]):
    """cpu_relax or cond_resched's point: nothing happens, but others may run."""


@Row(Where.CPU, Order.NONE, ALONE_HERE, Price.SWITCH, notation="switches task")
class SwitchTo(Answers[None]):
    """switch_to: go on in another context of this CPU."""

    context: Any


@Row(Where.IPI, Order.IPI_SEND, writes(calls), Price.ENGINE, Answer.VALUE)
class SendIpi(Answers[int]):
    """Queue a call on each target and interrupt it; the request's number."""

    targets: tuple[int, ...]
    function: str
    arguments: tuple[int, ...]
    wait: bool


@Row(
    Where.IPI,
    Order.ACK_WAIT,
    nowhere("it is not enabled before all that it asks for has happened"),
    Price.ENGINE,
    notation="has all acknowledgements",
)
class WaitAcks(Answers[None]):
    """csd_lock_wait for every target: not enabled until all have acknowledged; interruptible."""

    request: int


@Row(
    Where.IPI,
    Order.ACK,
    nowhere("only the sender looks, and waits for it"),
    Price.ENGINE,
    carries=(acknowledgement,),
    release=True,
    notation="acknowledges CPU {0.sender}",
)
class AckIpi(Answers[None]):
    """csd_unlock: a store-release that the sender waits for."""

    sender: int
    request: int


@Row(Where.CPU, Order.IRET, ALONE_HERE, Price.ENGINE, alone=Alone.UNINTERRUPTED, notation="returns from IPI")
class Iret(Answers[None]):
    """Return from an interrupt; issued by the hardware itself when a handler ends."""


@Row(Where.IPI, Order.NONE, ALONE_HERE, Price.ENGINE, notation="wakes up")
class Halt(Answers[None]):
    """Idle: not enabled until an interrupt has been taken."""


@Row(Where.CPU, Order.NONE, nowhere("its load has a place of its own"), Price.INSTRUCTION, Answer.VALUE)
class BeginLoad(Answers[int]):
    """Issue a load whose value nothing needs yet: a handle for `EndLoad`.

    Where loads may wait it is performed at any moment until something that orders it; elsewhere at once.
    """

    load: Any


@Row(
    Where.CPU,
    Order.NONE,
    ALONE_HERE,
    Price.INSTRUCTION,
    Answer.VALUE,
    alone=Alone.UNINTERRUPTED,
    notation="uses the load: {1}",
)
class EndLoad(Answers[int]):
    """The value of a load begun earlier: not enabled before it has been performed."""

    handle: int


@Row(Where.CPU, Order.NONE, nowhere("what it issues has places of its own"), Price.INSTRUCTION)
class Issue(Answers[None]):
    """A stretch of code at once (`hardware/instructions.py`), into the empty window: each instruction is
    performed at any moment that its operands and the architecture's order leave it.
    """

    code: tuple[Any, ...]


@Row(Where.IPI, Order.NONE, ALONE_HERE, Price.ENGINE)
class Idle(Answers[None]):
    """The program is over; never enabled. Interrupts are still taken."""


@Row(Where.SERIES, Order.NONE, nowhere("its members have places of their own"), Price.MEMBERS, Answer.VALUE)
class Series(Answers[list[Any]]):
    """Operations issued back to back, none needing another's answer: the answers, in order.

    Each member is a step of its own; others may come between. An engine may send them together.
    Members are memory operations; one that is not enabled holds up those after it.
    """

    members: tuple[Operation, ...]
