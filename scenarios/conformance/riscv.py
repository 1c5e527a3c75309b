"""RISC-V assembly as herd's tests have it: one column a hart, one instruction a row."""

from __future__ import annotations

import re
from typing import Any, Final

from emulator.hardware.instructions import Instruction
from scenarios.conformance.code import Access, Conditional, Goto, Label, Line, NotTranslatable, Set, Thread

_ROW: Final = re.compile(r"[^;]*;")
_OPERATION: Final = re.compile(r"(?P<name>[a-z]+(?:\.[a-z]+)*)\s*(?P<operands>.*)")
_ADDRESS: Final = re.compile(r"(-?\w*)\((\w+)\)")
_ARITHMETIC: Final = {"xor", "or", "and", "add", "sub"}
_ATOMICS: Final = {"amoswap": "swap", "amoadd": "add", "amoor": "or", "amoand": "and"}
_BRANCHES: Final = {"bne": "ne", "beq": "eq", "bge": "ge", "blt": "lt"}
_ZERO: Final = {"x0", "zero"}


def threads(text: str) -> list[Thread]:
    """The harts' code. Raises NotTranslatable."""
    rows = [[cell.strip() for cell in row.rstrip(";").split("|")] for row in _ROW.findall(text)]
    if not rows or not all(re.fullmatch(r"P\d+", cell) for cell in rows[0]):
        raise NotTranslatable("no columns of threads")
    width = len(rows[0])
    return [
        [line for row in rows[1:] if at < len(row) and row[at] for line in _lines(row[at])]
        for at in range(width)
    ]


def sizes(text: str) -> set[str]:
    """Which sizes its accesses have."""
    found = re.findall(r"\b(?:l|s)([bhwd])u?(?:\.(?:aq|rl|aqrl))?\s|\.([wd])\b", text)
    return {one or other for one, other in found}


def _register(name: str) -> Any:
    return 0 if name in _ZERO else ("register", name)


def _lines(text: str) -> list[Line]:
    if found := re.fullmatch(r"(\w+):\s*(.*)", text):
        return [Label(found[1]), *(_lines(found[2]) if found[2] else [])]
    found = _OPERATION.fullmatch(text)
    if found is None:
        raise NotTranslatable(f"an instruction in another form: {text}")
    name, *marks = found["name"].split(".")
    operands = [part.strip() for part in found["operands"].split(",")] if found["operands"] else []
    try:
        return _translated(name, marks, operands)
    except (IndexError, ValueError) as problem:
        if isinstance(problem, NotTranslatable):
            raise
        raise NotTranslatable(f"operands of {found['name']} in another form") from None


def _translated(name: str, marks: list[str], operands: list[str]) -> list[Line]:
    if name == "nop":
        return []
    if name == "fence":
        return _fence(marks, operands)
    if name in ("lw", "ld", "sw", "sd"):
        return [_plain(name[0] == "l", marks, operands)]
    if name in ("lr", "sc") or name in _ATOMICS:
        return [_atomic(name, marks, operands)]
    if name in ("li", "mv", "j"):
        if name == "j":
            return [Goto(operands[0])]
        value = int(operands[1], 0) if name == "li" else _register(operands[1])
        return _set(operands[0], value)
    if name in _BRANCHES:
        return [Goto(operands[2], (_BRANCHES[name], _register(operands[0]), _register(operands[1])))]
    if name in ("bnez", "beqz"):
        return [Goto(operands[1], ("ne" if name == "bnez" else "eq", _register(operands[0]), 0))]
    if name in _ARITHMETIC:
        return _set(operands[0], (name, _register(operands[1]), _register(operands[2])))
    if name.endswith("i") and name[:-1] in _ARITHMETIC:
        return _set(operands[0], (name[:-1], _register(operands[1]), int(operands[2], 0)))
    raise NotTranslatable(f"the instruction {name}")


def _set(register: str, value: Any) -> list[Line]:
    return [] if register in _ZERO else [Set(register, value)]


def _fence(marks: list[str], operands: list[str]) -> list[Line]:
    if marks == ["i"]:
        return []  # orders fetching, which nobody changes here
    if marks == ["tso"]:
        return [
            Access(Instruction("fence", before="r", after="rw")),
            Access(Instruction("fence", before="w", after="w")),
        ]
    before, after = operands or ["rw", "rw"]
    if set(before + after) - set("rw"):
        raise NotTranslatable("a fence of devices")
    return [Access(Instruction("fence", before=before, after=after))]


def _address(text: str) -> Any:
    found = _ADDRESS.fullmatch(text)
    if found is None:
        raise NotTranslatable("an address in another form")
    offset = int(found[1] or "0", 0)
    return _register(found[2]) if not offset else ("add", _register(found[2]), offset)


def _plain(loads: bool, marks: list[str], operands: list[str]) -> Line:
    order = _order(marks)
    if loads:
        what = Instruction("load", _address(operands[1]), **order)
        return Access(what, "" if operands[0] in _ZERO else operands[0])
    return Access(Instruction("store", _address(operands[1]), _register(operands[0]), **order))


def _order(marks: list[str]) -> dict[str, Any]:
    if set(marks) - {"aq", "rl", "aqrl"}:
        raise NotTranslatable(f"the mark .{'.'.join(marks)}")
    both = "aqrl" in marks
    return {"acquire": int(both or "aq" in marks), "release": int(both or "rl" in marks)}


def _atomic(name: str, marks: list[str], operands: list[str]) -> Line:
    order = _order(marks[1:])
    order["rcsc"] = order["acquire"] or order["release"]
    register = "" if operands[0] in _ZERO else operands[0]
    if name == "lr":
        return Access(Instruction("load", _address(operands[1]), before="lr", **order), register)
    what = Instruction(
        _ATOMICS.get(name, "conditional"), _address(operands[2]), _register(operands[1]), **order
    )
    if name == "sc":
        return Conditional(what, register or "x0'")
    return Access(what, register)
