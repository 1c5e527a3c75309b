"""What a step does, in the words of a kernel comment: `Load(migrc_gen) = 3`, `takes IPI`, `walks 0x10`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from emulator.hardware.cpu import IpiRequest, Kind
from emulator.hardware.operations import (
    TABLE,
    AckIpi,
    FolioRmap,
    LoadCr3,
    Operation,
    Order,
    ReadFrame,
    SendIpi,
    Touch,
    Translate,
    Walk,
    WriteFrame,
)
from emulator.hardware.operations.table import Answer
from emulator.hardware.pte import DIRTY, RW
from emulator.hardware.pte import describe as describe_pte
from emulator.machine.litmus import MM
from emulator.memory import folios

_ENTRY_FIELDS: Final = frozenset({"pte", "old", "new"})
_PAGE_FIELDS: Final = frozenset({"vpn", "start", "end"})
_FRAME_FIELDS: Final = frozenset({"pfn", "src", "dst"})
_FLAGS: Final = {
    value: name for name, value in vars(folios).items() if name.startswith("PG_") and isinstance(value, int)
}


def said(kind: Kind, operation: Operation, issued: bool, answer: Any) -> str:
    """One transition: `issued` says that the operation only went into the CPU's window."""
    if kind is Kind.WALK and isinstance(operation, Walk):
        return f"walks {operation.vpn:#x} ahead: {_entry(answer)}"
    if kind is not Kind.PERFORM and not issued:
        own = _OWN_WORDS.get(type(operation))
        if own is not None:
            return own(operation, answer)
        notation = TABLE[type(operation)].notation
        return notation.format(operation, answer) if notation else _plainly(operation, answer)
    what = _IN_WINDOW.get(type(operation), _plainly)(operation, None if issued else answer)
    return f"issues {what}" if issued else f"performs {what}"


def upcoming(kind: Kind, operation: Operation, issued: bool) -> str:
    """The same of what may come next, whose answer nobody knows yet."""
    if kind is Kind.WALK:
        return f"walks {operation.vpn:#x} ahead" if isinstance(operation, Walk) else _plainly(operation, None)
    if isinstance(operation, SendIpi):
        return _send(operation, None)
    what = _plainly(operation, None)
    return f"issues {what}" if issued else f"performs {what}" if kind is Kind.PERFORM else what


def taken(batch: Sequence[IpiRequest]) -> str:
    """An interrupt: the calls that are taken from the queue."""
    calls = ", ".join(f"{call.function} of CPU {call.sender}" for call in batch)
    return f"takes IPI: {calls}"


def _entry(answer: Any) -> str:
    return describe_pte(answer) if answer else "none"


def _plainly(operation: Any, answer: Any) -> str:
    """Name, fields, answer; entries and pages in their own notation."""
    about_entry = hasattr(operation, "vpn")
    fields = []
    for name, value in zip(operation._fields, operation, strict=True):
        if name == "mm":
            if value != MM:
                fields.append(f"mm {value}")
        elif name in _PAGE_FIELDS and isinstance(value, int):
            fields.append(f"page {value:#x}")
        elif name in _FRAME_FIELDS:
            fields.append(f"frame {value}")
        elif name == "flag" and value in _FLAGS:
            fields.append(value.name if isinstance(value, folios.PageFlag) else _FLAGS[value])
        elif name == "node" and isinstance(value, int):
            fields.append(f"node {value}")
        elif name in _ENTRY_FIELDS and about_entry:
            fields.append(_entry(value))
        else:
            fields.append(str(value))
    text = f"{type(operation).__name__}({', '.join(fields)})"
    if answer is None:
        return text
    row = TABLE[type(operation)]
    if row.answer is Answer.ENTRY:
        return f"{text} {'=' if row.order is Order.LOAD else 'was'} {_entry(answer)}"
    return f"{text} = {'frame ' if row.answer is Answer.FRAME else ''}{answer}"


def _translate(operation: Translate, answer: Any) -> str:
    access = f"{'write' if operation.write else 'read'} of {operation.vpn:#x}"
    if not answer:
        return f"{access}: TLB miss"
    enough = not operation.write or answer & (RW | DIRTY) == RW | DIRTY
    return f"{access}: TLB has {_entry(answer)}{'' if enough else ', walk needed'}"


def _touch(operation: Touch, answer: Any) -> str:
    first = next(iter(operation.accesses[operation.start : operation.start + 1]), None)
    return "touches nothing" if first is None else f"touches page {first >> 1:#x} and on while the TLB hits"


def _walk(operation: Walk, answer: Any) -> str:
    found = _entry(answer) if answer else "page fault"
    return f"walks {operation.vpn:#x}{' to write' if operation.write else ''}: {found}"


def _read(operation: ReadFrame, answer: Any) -> str:
    return f"reads frame {operation.pfn}{_version(answer)}"


def _read_noun(operation: ReadFrame, answer: Any) -> str:
    return f"read of frame {operation.pfn}{_version(answer)}"


def _version(answer: Any) -> str:
    return "" if answer is None else f": version {answer}"


def _rmap(operation: FolioRmap, answer: Any) -> str:
    pages = ", ".join(f"{page:#x}" if mm == MM else f"mm {mm} {page:#x}" for mm, page in answer or ())
    return f"FolioRmap(frame {operation.pfn}) = {pages or 'unmapped'}"


def _send(operation: SendIpi, answer: Any) -> str:
    targets = ",".join(str(cpu) for cpu in operation.targets)
    return f"SendIpi({operation.function}) -> {targets}"


def _load_cr3(operation: LoadCr3, answer: Any) -> str:
    return f"LoadCr3(mm {operation.mm}){', flush' if operation.flush else ''}"


_OWN_WORDS: Final[dict[type[Any], Callable[[Any, Any], str]]] = {
    Translate: _translate,
    Touch: _touch,
    Walk: _walk,
    ReadFrame: _read,
    FolioRmap: _rmap,
    SendIpi: _send,
    LoadCr3: _load_cr3,
}

_IN_WINDOW: Final[dict[type[Any], Callable[[Any, Any], str]]] = {
    ReadFrame: _read_noun,
    WriteFrame: lambda operation, answer: f"write of frame {operation.pfn}: version {operation.value}",
    AckIpi: lambda operation, answer: f"acknowledgement to CPU {operation.sender}",
}


def shortened(text: str, most: int = 240) -> str:
    """The text, its end left out if it is long."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"
