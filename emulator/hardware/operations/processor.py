"""Operations of one CPU: ordering, its own TLB and interrupts, and calls to other CPUs."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from emulator.hardware.operations import Operation


class SmpMb(NamedTuple):
    """smp_mb."""

    def __await__(self) -> Generator[Operation, None, None]:
        yield self


class SmpRmb(NamedTuple):
    """smp_rmb."""

    def __await__(self) -> Generator[Operation, None, None]:
        yield self


class SmpWmb(NamedTuple):
    """smp_wmb."""

    def __await__(self) -> Generator[Operation, None, None]:
        yield self


class SmpMbAfterAtomic(NamedTuple):
    """smp_mb__after_atomic: orders only after an atomic read-modify-write."""

    def __await__(self) -> Generator[Operation, None, None]:
        yield self


class LocalIrqDisable(NamedTuple):
    """local_irq_disable."""

    def __await__(self) -> Generator[Operation, None, None]:
        yield self


class LocalIrqEnable(NamedTuple):
    """local_irq_enable."""

    def __await__(self) -> Generator[Operation, None, None]:
        yield self


class LoadCr3(NamedTuple):
    """Write CR3: page table and PCID; without `flush` the PCID's entries stay (CR3_NOFLUSH)."""

    mm: int
    pcid: int
    flush: bool

    def __await__(self) -> Generator[Operation, None, None]:
        yield self


class FlushTlb(NamedTuple):
    """Write CR3 back: drop every entry of the loaded PCID (native_flush_tlb_local)."""

    def __await__(self) -> Generator[Operation, None, None]:
        yield self


class FlushTlbOne(NamedTuple):
    """INVLPG."""

    vpn: int

    def __await__(self) -> Generator[Operation, None, None]:
        yield self


class Translate(NamedTuple):
    """First half of a user access: the cached entry if it permits the access, else 0."""

    vpn: int
    write: bool

    def __await__(self) -> Generator[Operation, int, int]:
        return (yield self)


class Touch(NamedTuple):
    """User accesses (each vpn << 1 | write) from `start` on; the index of the first that does not hit, or of
    where the engine paused, at most `stop`. An engine may walk for reads and go on, where nothing faults."""

    accesses: Sequence[int]
    start: int
    stop: int

    def __await__(self) -> Generator[Operation, int, int]:
        return (yield self)


class Cycle(NamedTuple):
    """cpu_relax or cond_resched's point: nothing happens, but others may run."""

    def __await__(self) -> Generator[Operation, None, None]:
        yield self


class SwitchTo(NamedTuple):
    """switch_to: go on in another context of this CPU."""

    context: Any

    def __await__(self) -> Generator[Operation, None, None]:
        yield self


class SendIpi(NamedTuple):
    """Queue a call on each target and interrupt it; the request's number."""

    targets: tuple[int, ...]
    function: str
    arguments: tuple[int, ...]
    wait: bool

    def __await__(self) -> Generator[Operation, int, int]:
        return (yield self)


class WaitAcks(NamedTuple):
    """csd_lock_wait for every target: not enabled until all have acknowledged; interruptible."""

    request: int

    def __await__(self) -> Generator[Operation, None, None]:
        yield self


class AckIpi(NamedTuple):
    """csd_unlock: a store-release that the sender waits for."""

    sender: int
    request: int

    def __await__(self) -> Generator[Operation, None, None]:
        yield self


class Iret(NamedTuple):
    """Return from an interrupt; issued by the hardware itself when a handler ends."""

    def __await__(self) -> Generator[Operation, None, None]:
        yield self


class Halt(NamedTuple):
    """Idle: not enabled until an interrupt has been taken."""

    def __await__(self) -> Generator[Operation, None, None]:
        yield self


class BeginLoad(NamedTuple):
    """Issue a load whose value nothing needs yet: a handle for `EndLoad`.

    Where loads may wait it is performed at any moment until something that orders it; elsewhere at once.
    """

    load: Any

    def __await__(self) -> Generator[Operation, int, int]:
        return (yield self)


class EndLoad(NamedTuple):
    """The value of a load begun earlier: not enabled before it has been performed."""

    handle: int

    def __await__(self) -> Generator[Operation, int, int]:
        return (yield self)


class Idle(NamedTuple):
    """The program is over; never enabled. Interrupts are still taken."""

    def __await__(self) -> Generator[Operation, None, None]:
        yield self
