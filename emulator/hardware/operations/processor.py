"""Operations of one CPU: ordering, its own TLB and interrupts, and calls to other CPUs."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, NamedTuple

from emulator.hardware.operations.places import acknowledgement, calls, nowhere, writes
from emulator.hardware.operations.table import Alone, Answer, Operation, Order, Price, Row, Where

_OWN = nowhere("it concerns this CPU alone")


@Row(Where.CPU, Order.MB, _OWN, Price.INSTRUCTION, alone=Alone.ALWAYS)
class SmpMb(NamedTuple):
    """smp_mb."""

    def __await__(self) -> Generator[Operation, None, None]:
        yield self


@Row(Where.CPU, Order.RMB, _OWN, Price.INSTRUCTION, alone=Alone.ALWAYS)
class SmpRmb(NamedTuple):
    """smp_rmb."""

    def __await__(self) -> Generator[Operation, None, None]:
        yield self


@Row(Where.CPU, Order.WMB, _OWN, Price.INSTRUCTION, alone=Alone.ALWAYS)
class SmpWmb(NamedTuple):
    """smp_wmb."""

    def __await__(self) -> Generator[Operation, None, None]:
        yield self


@Row(Where.CPU, Order.AFTER_ATOMIC, _OWN, Price.INSTRUCTION, alone=Alone.ALWAYS)
class SmpMbAfterAtomic(NamedTuple):
    """smp_mb__after_atomic: orders only after an atomic read-modify-write."""

    def __await__(self) -> Generator[Operation, None, None]:
        yield self


@Row(Where.CPU, Order.NONE, _OWN, Price.INSTRUCTION)
class LocalIrqDisable(NamedTuple):
    """local_irq_disable."""

    def __await__(self) -> Generator[Operation, None, None]:
        yield self


@Row(Where.CPU, Order.NONE, _OWN, Price.INSTRUCTION, alone=Alone.UNINTERRUPTED)
class LocalIrqEnable(NamedTuple):
    """local_irq_enable."""

    def __await__(self) -> Generator[Operation, None, None]:
        yield self


@Row(Where.CPU, Order.TLB, _OWN, Price.CR3, alone=Alone.UNWALKED)
class LoadCr3(NamedTuple):
    """Write CR3: page table and PCID; without `flush` the PCID's entries stay (CR3_NOFLUSH)."""

    mm: int
    pcid: int
    flush: bool

    def __await__(self) -> Generator[Operation, None, None]:
        yield self


@Row(Where.CPU, Order.TLB, _OWN, Price.FLUSH, alone=Alone.UNWALKED, notation="flushes its TLB")
class FlushTlb(NamedTuple):
    """Write CR3 back: drop every entry of the loaded PCID (native_flush_tlb_local)."""

    def __await__(self) -> Generator[Operation, None, None]:
        yield self


@Row(Where.CPU, Order.TLB, _OWN, Price.INVLPG, alone=Alone.UNWALKED, notation="flushes {0.vpn:#x}")
class FlushTlbOne(NamedTuple):
    """INVLPG."""

    vpn: int

    def __await__(self) -> Generator[Operation, None, None]:
        yield self


@Row(Where.CPU, Order.NONE, _OWN, Price.ENGINE, Answer.ENTRY, alone=Alone.UNWALKED)
class Translate(NamedTuple):
    """First half of a user access: the cached entry if it permits the access, else 0."""

    vpn: int
    write: bool

    def __await__(self) -> Generator[Operation, int, int]:
        return (yield self)


@Row(Where.CPU, Order.NONE, _OWN, Price.ENGINE, Answer.VALUE, user_access=True)
class Touch(NamedTuple):
    """User accesses (each vpn << 1 | write) from `start` on; the index of the first that does not hit, or of
    where the engine paused, at most `stop`. An engine may walk for reads and go on, where nothing faults."""

    accesses: Sequence[int]
    start: int
    stop: int

    def __await__(self) -> Generator[Operation, int, int]:
        return (yield self)


@Row(Where.CPU, Order.NONE, _OWN, Price.INSTRUCTION, alone=Alone.ALWAYS)
class Cycle(NamedTuple):
    """cpu_relax or cond_resched's point: nothing happens, but others may run."""

    def __await__(self) -> Generator[Operation, None, None]:
        yield self


@Row(Where.CPU, Order.NONE, _OWN, Price.SWITCH, notation="switches task")
class SwitchTo(NamedTuple):
    """switch_to: go on in another context of this CPU."""

    context: Any

    def __await__(self) -> Generator[Operation, None, None]:
        yield self


@Row(Where.IPI, Order.IPI_SEND, writes(calls), Price.ENGINE, Answer.VALUE)
class SendIpi(NamedTuple):
    """Queue a call on each target and interrupt it; the request's number."""

    targets: tuple[int, ...]
    function: str
    arguments: tuple[int, ...]
    wait: bool

    def __await__(self) -> Generator[Operation, int, int]:
        return (yield self)


@Row(
    Where.IPI,
    Order.ACK_WAIT,
    nowhere("it is not enabled before all that it asks for has happened"),
    Price.ENGINE,
    notation="has all acknowledgements",
)
class WaitAcks(NamedTuple):
    """csd_lock_wait for every target: not enabled until all have acknowledged; interruptible."""

    request: int

    def __await__(self) -> Generator[Operation, None, None]:
        yield self


@Row(
    Where.IPI,
    Order.ACK,
    nowhere("only the sender looks, and waits for it"),
    Price.ENGINE,
    carries=(acknowledgement,),
    release=True,
    notation="acknowledges CPU {0.sender}",
)
class AckIpi(NamedTuple):
    """csd_unlock: a store-release that the sender waits for."""

    sender: int
    request: int

    def __await__(self) -> Generator[Operation, None, None]:
        yield self


@Row(Where.CPU, Order.IRET, _OWN, Price.ENGINE, alone=Alone.UNINTERRUPTED, notation="returns from IPI")
class Iret(NamedTuple):
    """Return from an interrupt; issued by the hardware itself when a handler ends."""

    def __await__(self) -> Generator[Operation, None, None]:
        yield self


@Row(Where.IPI, Order.NONE, _OWN, Price.ENGINE, notation="wakes up")
class Halt(NamedTuple):
    """Idle: not enabled until an interrupt has been taken."""

    def __await__(self) -> Generator[Operation, None, None]:
        yield self


@Row(Where.CPU, Order.NONE, nowhere("its load has a place of its own"), Price.INSTRUCTION, Answer.VALUE)
class BeginLoad(NamedTuple):
    """Issue a load whose value nothing needs yet: a handle for `EndLoad`.

    Where loads may wait it is performed at any moment until something that orders it; elsewhere at once.
    """

    load: Any

    def __await__(self) -> Generator[Operation, int, int]:
        return (yield self)


@Row(
    Where.CPU,
    Order.NONE,
    _OWN,
    Price.INSTRUCTION,
    Answer.VALUE,
    alone=Alone.ALWAYS,
    notation="uses the load: {1}",
)
class EndLoad(NamedTuple):
    """The value of a load begun earlier: not enabled before it has been performed."""

    handle: int

    def __await__(self) -> Generator[Operation, int, int]:
        return (yield self)


@Row(Where.IPI, Order.NONE, _OWN, Price.ENGINE)
class Idle(NamedTuple):
    """The program is over; never enabled. Interrupts are still taken."""

    def __await__(self) -> Generator[Operation, None, None]:
        yield self


@Row(Where.SERIES, Order.NONE, nowhere("its members have places of their own"), Price.MEMBERS, Answer.VALUE)
class Series(NamedTuple):
    """Operations issued back to back, none needing another's answer: the answers, in order.

    Each member is a step of its own; others may come between. An engine may send them together.
    Members are memory operations; one that is not enabled holds up those after it.
    """

    members: tuple[Operation, ...]

    def __await__(self) -> Generator[Operation, list[Any], list[Any]]:
        return (yield self)
