"""The operation vocabulary: the only things that a simulated program may await.

Each operation is the largest step that the kernel itself makes atomic with respect to whatever
races with it. A program yields an operation, an engine carries it out and resumes the program;
nothing here knows which engine that is. The table at the end says of each operation where it is
carried out, what kind of access it is for the ordering rules, and whether the program gets to know
anything from it. Fields are plain numbers, names and tuples, so that an operation can travel.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from enum import Enum, auto
from typing import Any, NamedTuple


class Where(Enum):
    """Who carries an operation out."""

    MEMORY = auto()  # the gate to everything shared
    CPU = auto()  # the CPU that issues it, alone
    IPI = auto()  # the engine: it concerns other CPUs
    SERIES = auto()  # member by member


class Order(Enum):
    """What an operation is to the ordering rules of an architecture."""

    NONE = auto()
    LOAD = auto()
    STORE = auto()
    LOCKED = auto()  # an atomic read-modify-write, or what a lock makes one
    WALK = auto()
    MB = auto()
    RMB = auto()
    WMB = auto()
    AFTER_ATOMIC = auto()
    TLB = auto()  # a TLB invalidation or CR3 write
    IPI_SEND = auto()
    ACK = auto()
    ACK_WAIT = auto()
    IRET = auto()


class Row(NamedTuple):
    """One line of the operation table."""

    where: Where
    order: Order
    answers: bool  # the program learns something; else nobody can tell when it was performed


# --- words: plain accesses and atomics ---------------------------------------------------


class Load(NamedTuple):
    """READ_ONCE: the word's value."""

    word: str

    def __await__(self) -> Generator[Operation, int, int]:
        return (yield self)


class Store(NamedTuple):
    """WRITE_ONCE."""

    word: str
    value: int

    def __await__(self) -> Generator[Operation, None, None]:
        yield self


class AtomicAdd(NamedTuple):
    """atomic_add_return: the new value."""

    word: str
    delta: int

    def __await__(self) -> Generator[Operation, int, int]:
        return (yield self)


class AtomicOr(NamedTuple):
    """atomic_fetch_or (set_bit): the old value."""

    word: str
    mask: int

    def __await__(self) -> Generator[Operation, int, int]:
        return (yield self)


class AtomicAnd(NamedTuple):
    """atomic_fetch_and (clear_bit): the old value."""

    word: str
    mask: int

    def __await__(self) -> Generator[Operation, int, int]:
        return (yield self)


class AtomicXchg(NamedTuple):
    """xchg: the old value."""

    word: str
    value: int

    def __await__(self) -> Generator[Operation, int, int]:
        return (yield self)


class AtomicCmpxchg(NamedTuple):
    """cmpxchg: the value seen; it was replaced if that equals `old`."""

    word: str
    old: int
    new: int

    def __await__(self) -> Generator[Operation, int, int]:
        return (yield self)


class WaitFor(NamedTuple):
    """Not enabled until the word has `value` (wait_event); interruptible."""

    word: str
    value: int

    def __await__(self) -> Generator[Operation, int, int]:
        return (yield self)


class WaitChange(NamedTuple):
    """Not enabled while the word has `value`; answers the new value."""

    word: str
    value: int

    def __await__(self) -> Generator[Operation, int, int]:
        return (yield self)


class Lock(NamedTuple):
    """spin_lock or mutex_lock: not enabled while another context holds it."""

    name: str

    def __await__(self) -> Generator[Operation, None, None]:
        yield self


class Trylock(NamedTuple):
    """spin_trylock."""

    name: str

    def __await__(self) -> Generator[Operation, bool, bool]:
        return (yield self)


class Unlock(NamedTuple):
    """spin_unlock: a store with release semantics."""

    name: str

    def __await__(self) -> Generator[Operation, None, None]:
        yield self


# --- page tables -------------------------------------------------------------------------


class GetPte(NamedTuple):
    """ptep_get: the entry, without the page-table lock."""

    mm: int
    vpn: int

    def __await__(self) -> Generator[Operation, int, int]:
        return (yield self)


class SetPte(NamedTuple):
    """set_pte_at: a plain store."""

    mm: int
    vpn: int
    pte: int

    def __await__(self) -> Generator[Operation, None, None]:
        yield self


class XchgPte(NamedTuple):
    """ptep_get_and_clear when `pte` is 0; the old entry. Not enabled while another CPU holds the page-
    table lock."""

    mm: int
    vpn: int
    pte: int

    def __await__(self) -> Generator[Operation, int, int]:
        return (yield self)


class CmpxchgPte(NamedTuple):
    """Under the page-table lock: replace the entry if it still is `old` (pte_same); the entry seen."""

    mm: int
    vpn: int
    old: int
    new: int

    def __await__(self) -> Generator[Operation, int, int]:
        return (yield self)


class TryToMigratePte(NamedTuple):
    """One step of try_to_migrate_one under the page-table lock: if the entry maps `pfn`, clear it and
    leave a migration entry; the old entry, else 0. To walkers both are non-present, so nobody
    sees two steps."""

    mm: int
    vpn: int
    pfn: int

    def __await__(self) -> Generator[Operation, int, int]:
        return (yield self)


class WaitPte(NamedTuple):
    """migration_entry_wait: not enabled while the entry is `pte`."""

    mm: int
    vpn: int
    pte: int

    def __await__(self) -> Generator[Operation, int, int]:
        return (yield self)


class TestAndClearYoung(NamedTuple):
    """ptep_test_and_clear_young; false for a non-present entry. x86 does not flush for it."""

    mm: int
    vpn: int

    def __await__(self) -> Generator[Operation, bool, bool]:
        return (yield self)


class FindVma(NamedTuple):
    """find_vma: (start, end, flags, file) of the area holding `vpn`, or ()."""

    mm: int
    vpn: int

    def __await__(self) -> Generator[Operation, tuple[int, ...], tuple[int, ...]]:
        return (yield self)


class VmaInsert(NamedTuple):
    """mmap: add an area of pages [start, end); false if it overlaps another."""

    mm: int
    start: int
    end: int
    flags: int
    file: int

    def __await__(self) -> Generator[Operation, bool, bool]:
        return (yield self)


class VmaRemove(NamedTuple):
    """munmap's area tree part: forget areas inside [start, end); how many pages that were."""

    mm: int
    start: int
    end: int

    def __await__(self) -> Generator[Operation, int, int]:
        return (yield self)


class VmaProtect(NamedTuple):
    """mprotect's area tree part: set flags of areas inside [start, end); how many pages."""

    mm: int
    start: int
    end: int
    flags: int

    def __await__(self) -> Generator[Operation, int, int]:
        return (yield self)


class MappedRange(NamedTuple):
    """(vpn, entry) of the non-empty entries in [start, end): the walk over a range's page tables."""

    mm: int
    start: int
    end: int

    def __await__(self) -> Generator[Operation, tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]:
        return (yield self)


# --- hardware accesses -------------------------------------------------------------------


class Walk(NamedTuple):
    """The page walker: sets ACCESSED (and DIRTY on a write), answers the entry, or 0 for a page fault."""

    mm: int
    vpn: int
    write: bool

    def __await__(self) -> Generator[Operation, int, int]:
        return (yield self)


class ReadFrame(NamedTuple):
    """The use of a translation by a load: content version of the frame."""

    mm: int
    vpn: int
    pfn: int

    def __await__(self) -> Generator[Operation, int, int]:
        return (yield self)


class WriteFrame(NamedTuple):
    """The use of a translation by a store: `value` becomes the content version."""

    mm: int
    vpn: int
    pfn: int
    value: int

    def __await__(self) -> Generator[Operation, None, None]:
        yield self


# --- allocator, folios, LRU --------------------------------------------------------------


class AllocPages(NamedTuple):
    """rmqueue if the watermark holds with `extra_free` pages counted as free: head frame (reference
    count 1), or -1."""

    node: int
    order: int
    mark: int
    extra_free: int

    def __await__(self) -> Generator[Operation, int, int]:
        return (yield self)


class NrFree(NamedTuple):
    """zone_page_state(NR_FREE_PAGES)."""

    node: int

    def __await__(self) -> Generator[Operation, int, int]:
        return (yield self)


class FolioGet(NamedTuple):
    """folio_get."""

    pfn: int

    def __await__(self) -> Generator[Operation, None, None]:
        yield self


class FolioTryGet(NamedTuple):
    """folio_try_get: false if the count is 0."""

    pfn: int

    def __await__(self) -> Generator[Operation, bool, bool]:
        return (yield self)


class FolioPut(NamedTuple):
    """folio_put: frees the folio to the buddy allocator when the count reaches 0."""

    pfn: int

    def __await__(self) -> Generator[Operation, None, None]:
        yield self


class FolioRefcount(NamedTuple):
    """folio_ref_count."""

    pfn: int

    def __await__(self) -> Generator[Operation, int, int]:
        return (yield self)


class FolioTestFlag(NamedTuple):
    """folio_test_*."""

    pfn: int
    flag: int

    def __await__(self) -> Generator[Operation, bool, bool]:
        return (yield self)


class FolioTestSetFlag(NamedTuple):
    """folio_test_set_*: whether it was set before."""

    pfn: int
    flag: int

    def __await__(self) -> Generator[Operation, bool, bool]:
        return (yield self)


class FolioSetFlag(NamedTuple):
    """folio_set_*."""

    pfn: int
    flag: int

    def __await__(self) -> Generator[Operation, None, None]:
        yield self


class FolioClearFlag(NamedTuple):
    """folio_clear_*."""

    pfn: int
    flag: int

    def __await__(self) -> Generator[Operation, None, None]:
        yield self


class FolioRmap(NamedTuple):
    """rmap_walk: every (mm, vpn) whose entry names the folio."""

    pfn: int

    def __await__(self) -> Generator[Operation, tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]:
        return (yield self)


class FolioCopy(NamedTuple):
    """folio_copy: the content version goes along."""

    src: int
    dst: int

    def __await__(self) -> Generator[Operation, None, None]:
        yield self


class FolioZero(NamedTuple):
    """clear_highpage: content version 0."""

    pfn: int

    def __await__(self) -> Generator[Operation, None, None]:
        yield self


class FilemapGet(NamedTuple):
    """filemap_get_folio: the cached frame with a reference taken, or -1."""

    file: int
    pgoff: int

    def __await__(self) -> Generator[Operation, int, int]:
        return (yield self)


class FilemapAdd(NamedTuple):
    """filemap_add_folio: -1, or the frame that was there first (with a reference taken). The cache
    holds a reference."""

    file: int
    pgoff: int
    pfn: int

    def __await__(self) -> Generator[Operation, int, int]:
        return (yield self)


class FolioMigrateMapping(NamedTuple):
    """folio_migrate_mapping: false if the source has other references than the isolating one, its page
    cache's and `extra`; else the page-cache slot, if any, and its reference go over."""

    src: int
    dst: int
    extra: int

    def __await__(self) -> Generator[Operation, bool, bool]:
        return (yield self)


class LruAdd(NamedTuple):
    """folio_add_lru."""

    pfn: int
    active: bool

    def __await__(self) -> Generator[Operation, None, None]:
        yield self


class IsolateLru(NamedTuple):
    """isolate_lru_folios: oldest first, a reference taken on each."""

    node: int
    active: bool
    nr: int

    def __await__(self) -> Generator[Operation, tuple[int, ...], tuple[int, ...]]:
        return (yield self)


class FolioIsolateLru(NamedTuple):
    """folio_isolate_lru: false if it was not on a list; takes a reference."""

    pfn: int

    def __await__(self) -> Generator[Operation, bool, bool]:
        return (yield self)


class FolioPutbackLru(NamedTuple):
    """folio_putback_lru: back on a list, the reference dropped."""

    pfn: int
    active: bool

    def __await__(self) -> Generator[Operation, None, None]:
        yield self


class NrLru(NamedTuple):
    """(active, inactive) pages of the node."""

    node: int

    def __await__(self) -> Generator[Operation, tuple[int, int], tuple[int, int]]:
        return (yield self)


# --- lock-less lists ---------------------------------------------------------------------


class LlistAdd(NamedTuple):
    """llist_add: whether the list was empty before."""

    name: str
    node: tuple[Any, ...]

    def __await__(self) -> Generator[Operation, bool, bool]:
        return (yield self)


class LlistDelAll(NamedTuple):
    """llist_del_all: all nodes, newest first."""

    name: str

    def __await__(self) -> Generator[Operation, tuple[tuple[Any, ...], ...], tuple[tuple[Any, ...], ...]]:
        return (yield self)


class LlistEmpty(NamedTuple):
    """llist_empty."""

    name: str

    def __await__(self) -> Generator[Operation, bool, bool]:
        return (yield self)


# --- ordering ----------------------------------------------------------------------------


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


# --- this CPU ----------------------------------------------------------------------------


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
    """User accesses that hit (each vpn << 1 | write) from `start`; the index of the first that does
    not, or of where the engine paused, at most `stop`."""

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


# --- inter-processor interrupts ----------------------------------------------------------


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


# --- several at once -----------------------------------------------------------------------


class Series(NamedTuple):
    """Operations issued back to back, none needing another's answer: the answers, in order.

    Each member is a step of its own; others may come between. An engine may send them together.
    Members are memory operations; one that is not enabled holds up those after it.
    """

    members: tuple[Operation, ...]

    def __await__(self) -> Generator[Operation, list[Any], list[Any]]:
        return (yield self)


Operation = (
    Load
    | Store
    | AtomicAdd
    | AtomicOr
    | AtomicAnd
    | AtomicXchg
    | AtomicCmpxchg
    | WaitFor
    | WaitChange
    | Lock
    | Trylock
    | Unlock
    | GetPte
    | SetPte
    | XchgPte
    | CmpxchgPte
    | TryToMigratePte
    | WaitPte
    | TestAndClearYoung
    | FindVma
    | VmaInsert
    | VmaRemove
    | VmaProtect
    | MappedRange
    | Walk
    | ReadFrame
    | WriteFrame
    | AllocPages
    | NrFree
    | FolioGet
    | FolioTryGet
    | FolioPut
    | FolioRefcount
    | FolioTestFlag
    | FolioTestSetFlag
    | FolioSetFlag
    | FolioClearFlag
    | FolioRmap
    | FolioCopy
    | FolioZero
    | FilemapGet
    | FilemapAdd
    | FolioMigrateMapping
    | LruAdd
    | IsolateLru
    | FolioIsolateLru
    | FolioPutbackLru
    | NrLru
    | LlistAdd
    | LlistDelAll
    | LlistEmpty
    | SmpMb
    | SmpRmb
    | SmpWmb
    | SmpMbAfterAtomic
    | LocalIrqDisable
    | LocalIrqEnable
    | LoadCr3
    | FlushTlb
    | FlushTlbOne
    | Translate
    | Touch
    | Cycle
    | SwitchTo
    | SendIpi
    | WaitAcks
    | AckIpi
    | Iret
    | Halt
    | Series
)

TABLE: dict[type[Any], Row] = {
    Load: Row(Where.MEMORY, Order.LOAD, True),
    Store: Row(Where.MEMORY, Order.STORE, False),
    AtomicAdd: Row(Where.MEMORY, Order.LOCKED, True),
    AtomicOr: Row(Where.MEMORY, Order.LOCKED, True),
    AtomicAnd: Row(Where.MEMORY, Order.LOCKED, True),
    AtomicXchg: Row(Where.MEMORY, Order.LOCKED, True),
    AtomicCmpxchg: Row(Where.MEMORY, Order.LOCKED, True),
    WaitFor: Row(Where.MEMORY, Order.LOAD, True),
    WaitChange: Row(Where.MEMORY, Order.LOAD, True),
    Lock: Row(Where.MEMORY, Order.LOCKED, False),
    Trylock: Row(Where.MEMORY, Order.LOCKED, True),
    Unlock: Row(Where.MEMORY, Order.STORE, False),
    GetPte: Row(Where.MEMORY, Order.LOAD, True),
    SetPte: Row(Where.MEMORY, Order.STORE, False),
    XchgPte: Row(Where.MEMORY, Order.LOCKED, True),
    CmpxchgPte: Row(Where.MEMORY, Order.LOCKED, True),
    TryToMigratePte: Row(Where.MEMORY, Order.LOCKED, True),
    WaitPte: Row(Where.MEMORY, Order.LOAD, True),
    TestAndClearYoung: Row(Where.MEMORY, Order.LOCKED, True),
    FindVma: Row(Where.MEMORY, Order.LOAD, True),
    VmaInsert: Row(Where.MEMORY, Order.LOCKED, True),
    VmaRemove: Row(Where.MEMORY, Order.LOCKED, True),
    VmaProtect: Row(Where.MEMORY, Order.LOCKED, True),
    MappedRange: Row(Where.MEMORY, Order.LOAD, True),
    Walk: Row(Where.MEMORY, Order.WALK, True),
    ReadFrame: Row(Where.MEMORY, Order.LOAD, True),
    WriteFrame: Row(Where.MEMORY, Order.STORE, False),
    AllocPages: Row(Where.MEMORY, Order.LOCKED, True),
    NrFree: Row(Where.MEMORY, Order.LOAD, True),
    FolioGet: Row(Where.MEMORY, Order.LOCKED, False),
    FolioTryGet: Row(Where.MEMORY, Order.LOCKED, True),
    FolioPut: Row(Where.MEMORY, Order.LOCKED, False),
    FolioRefcount: Row(Where.MEMORY, Order.LOAD, True),
    FolioTestFlag: Row(Where.MEMORY, Order.LOAD, True),
    FolioTestSetFlag: Row(Where.MEMORY, Order.LOCKED, True),
    FolioSetFlag: Row(Where.MEMORY, Order.LOCKED, False),
    FolioClearFlag: Row(Where.MEMORY, Order.LOCKED, False),
    FolioRmap: Row(Where.MEMORY, Order.LOCKED, True),
    FolioCopy: Row(Where.MEMORY, Order.STORE, False),
    FolioZero: Row(Where.MEMORY, Order.STORE, False),
    FilemapGet: Row(Where.MEMORY, Order.LOCKED, True),
    FilemapAdd: Row(Where.MEMORY, Order.LOCKED, True),
    FolioMigrateMapping: Row(Where.MEMORY, Order.LOCKED, True),
    LruAdd: Row(Where.MEMORY, Order.LOCKED, False),
    IsolateLru: Row(Where.MEMORY, Order.LOCKED, True),
    FolioIsolateLru: Row(Where.MEMORY, Order.LOCKED, True),
    FolioPutbackLru: Row(Where.MEMORY, Order.LOCKED, False),
    NrLru: Row(Where.MEMORY, Order.LOAD, True),
    LlistAdd: Row(Where.MEMORY, Order.LOCKED, True),
    LlistDelAll: Row(Where.MEMORY, Order.LOCKED, True),
    LlistEmpty: Row(Where.MEMORY, Order.LOAD, True),
    SmpMb: Row(Where.CPU, Order.MB, False),
    SmpRmb: Row(Where.CPU, Order.RMB, False),
    SmpWmb: Row(Where.CPU, Order.WMB, False),
    SmpMbAfterAtomic: Row(Where.CPU, Order.AFTER_ATOMIC, False),
    LocalIrqDisable: Row(Where.CPU, Order.NONE, False),
    LocalIrqEnable: Row(Where.CPU, Order.NONE, False),
    LoadCr3: Row(Where.CPU, Order.TLB, False),
    FlushTlb: Row(Where.CPU, Order.TLB, False),
    FlushTlbOne: Row(Where.CPU, Order.TLB, False),
    Translate: Row(Where.CPU, Order.NONE, True),
    Touch: Row(Where.CPU, Order.NONE, True),
    Cycle: Row(Where.CPU, Order.NONE, False),
    SwitchTo: Row(Where.CPU, Order.NONE, False),
    SendIpi: Row(Where.IPI, Order.IPI_SEND, True),
    WaitAcks: Row(Where.IPI, Order.ACK_WAIT, False),
    AckIpi: Row(Where.IPI, Order.ACK, False),
    Iret: Row(Where.CPU, Order.IRET, False),
    Halt: Row(Where.IPI, Order.NONE, False),
    Series: Row(Where.SERIES, Order.NONE, True),
}

# An interrupt is taken between instructions only; these are an instruction's second half.
SECOND_HALVES = frozenset({Walk, ReadFrame, WriteFrame})

# Numbers for the wire, in the table's order.
CLASSES: tuple[type[Any], ...] = tuple(TABLE)
NUMBERS: dict[type[Any], int] = {kind: number for number, kind in enumerate(CLASSES)}


def describe(operation: Operation) -> str:
    """`Name(field, ...)` with short fields, as witnesses and errors print it."""
    fields = ", ".join(str(field) if not isinstance(field, str) else field for field in operation)
    return f"{type(operation).__name__}({fields})"
