"""The operation vocabulary: the only things that a simulated program may await.

Each operation is the largest step that the kernel itself makes atomic with respect to whatever
races with it. A program yields an operation, an engine carries it out and resumes the program;
nothing here knows which engine that is. The table at the end says of each operation where it is
carried out, what kind of access it is for the ordering rules, and whether the program gets to know
anything from it. Fields are plain numbers, names and tuples, so that an operation can travel.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, NamedTuple

from emulator.hardware.operations.folios import (
    AllocPages,
    FilemapAdd,
    FilemapGet,
    FilemapRemove,
    FolioClearFlag,
    FolioCopy,
    FolioGet,
    FolioIsolateLru,
    FolioMapping,
    FolioMigrateMapping,
    FolioOrder,
    FolioPut,
    FolioPutbackLru,
    FolioRefcount,
    FolioRmap,
    FolioSetFlag,
    FolioTestFlag,
    FolioTestSetFlag,
    FolioTryGet,
    FolioZero,
    IsolateLru,
    LruAdd,
    NrFree,
    NrLru,
    SplitHugePage,
    WritePage,
)
from emulator.hardware.operations.kinds import (
    Order,
    Row,
    Where,
)
from emulator.hardware.operations.page_tables import (
    CmpxchgPte,
    FindVma,
    GetPte,
    MappedRange,
    PmdNone,
    ReadFrame,
    SetPte,
    TestAndClearYoung,
    TryToMigratePte,
    VmaInsert,
    VmaProtect,
    VmaRemove,
    WaitPte,
    Walk,
    WriteFrame,
    XchgPte,
)
from emulator.hardware.operations.processor import (
    AckIpi,
    BeginLoad,
    Cycle,
    EndLoad,
    FlushTlb,
    FlushTlbOne,
    Halt,
    Idle,
    Iret,
    LoadCr3,
    LocalIrqDisable,
    LocalIrqEnable,
    SendIpi,
    SmpMb,
    SmpMbAfterAtomic,
    SmpRmb,
    SmpWmb,
    SwitchTo,
    Touch,
    Translate,
    WaitAcks,
)
from emulator.hardware.operations.words import (
    AtomicAdd,
    AtomicAnd,
    AtomicCmpxchg,
    AtomicOr,
    AtomicXchg,
    LlistAdd,
    LlistDelAll,
    LlistEmpty,
    Load,
    Lock,
    Store,
    Trylock,
    Unlock,
    WaitChange,
    WaitFor,
)

__all__ = [
    "CLASSES",
    "NUMBERS",
    "SECOND_HALVES",
    "TABLE",
    "AckIpi",
    "AllocPages",
    "AtomicAdd",
    "AtomicAnd",
    "AtomicCmpxchg",
    "AtomicOr",
    "AtomicXchg",
    "BeginLoad",
    "CmpxchgPte",
    "Cycle",
    "EndLoad",
    "FilemapAdd",
    "FilemapGet",
    "FilemapRemove",
    "FindVma",
    "FlushTlb",
    "FlushTlbOne",
    "FolioClearFlag",
    "FolioCopy",
    "FolioGet",
    "FolioIsolateLru",
    "FolioMapping",
    "FolioMigrateMapping",
    "FolioOrder",
    "FolioPut",
    "FolioPutbackLru",
    "FolioRefcount",
    "FolioRmap",
    "FolioSetFlag",
    "FolioTestFlag",
    "FolioTestSetFlag",
    "FolioTryGet",
    "FolioZero",
    "GetPte",
    "Halt",
    "Idle",
    "Iret",
    "IsolateLru",
    "LlistAdd",
    "LlistDelAll",
    "LlistEmpty",
    "Load",
    "LoadCr3",
    "LocalIrqDisable",
    "LocalIrqEnable",
    "Lock",
    "LruAdd",
    "MappedRange",
    "NrFree",
    "NrLru",
    "Operation",
    "Order",
    "PmdNone",
    "ReadFrame",
    "Row",
    "SendIpi",
    "Series",
    "SetPte",
    "SmpMb",
    "SmpMbAfterAtomic",
    "SmpRmb",
    "SmpWmb",
    "SplitHugePage",
    "Store",
    "SwitchTo",
    "TestAndClearYoung",
    "Touch",
    "Translate",
    "TryToMigratePte",
    "Trylock",
    "Unlock",
    "VmaInsert",
    "VmaProtect",
    "VmaRemove",
    "WaitAcks",
    "WaitChange",
    "WaitFor",
    "WaitPte",
    "Walk",
    "Where",
    "WriteFrame",
    "WritePage",
    "XchgPte",
    "describe",
]


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
    | PmdNone
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
    | FolioOrder
    | SplitHugePage
    | FolioRmap
    | FolioCopy
    | FolioZero
    | FilemapGet
    | FilemapAdd
    | FolioMapping
    | WritePage
    | FilemapRemove
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
    | BeginLoad
    | EndLoad
    | Idle
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
    BeginLoad: Row(Where.CPU, Order.NONE, True),
    EndLoad: Row(Where.CPU, Order.NONE, True),
    Idle: Row(Where.IPI, Order.NONE, False),
    Series: Row(Where.SERIES, Order.NONE, True),
    FolioMapping: Row(Where.MEMORY, Order.LOAD, True),
    WritePage: Row(Where.MEMORY, Order.LOCKED, False),
    FilemapRemove: Row(Where.MEMORY, Order.LOCKED, True),
    FolioOrder: Row(Where.MEMORY, Order.LOAD, True),
    PmdNone: Row(Where.MEMORY, Order.LOAD, True),
    SplitHugePage: Row(Where.MEMORY, Order.LOCKED, True),
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
