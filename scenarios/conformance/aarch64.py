"""AArch64 assembly of litmus tests: an instruction's text to lines over registers.

W and X registers are one: values of tests are small. What only says where code goes on with a value that is
picked (CSEL) is a branch here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from emulator.hardware.instructions import EVERY_PAGE, Instruction
from scenarios.conformance.code import (
    CODE,
    LEVEL,
    RETURN_TO,
    SAVED_LEVEL,
    SYNDROME,
    Access,
    Conditional,
    Goto,
    Label,
    Line,
    NotTranslatable,
    Return,
    Set,
    place_of,
)

_LABEL: Final = re.compile(r"([A-Za-z_0-9]\w*)\s*:\s*(.*)", re.DOTALL)
_REGISTER: Final = re.compile(r"[WX](\d+)", re.IGNORECASE)
_ARITHMETIC: Final = {
    "ADD": "add",
    "SUB": "sub",
    "AND": "and",
    "ORR": "or",
    "EOR": "xor",
    "LSR": "shr",
    "LSL": "shl",
    "BIC": "bic",
}
_CONDITIONS: Final = {"EQ": "eq", "NE": "ne", "GE": "ge", "LT": "lt", "GT": "gt", "LE": "le"}
_LOADS: Final[dict[str, dict[str, Any]]] = {
    "LDR": {},
    "LDUR": {},
    "LDAR": {"acquire": 1, "rcsc": 1},
    "LDAPR": {"acquire": 1},
    "LDAPUR": {"acquire": 1},
    "LDXR": {"before": "lr"},
    "LDAXR": {"before": "lr", "acquire": 1, "rcsc": 1},
}
_STORES: Final[dict[str, dict[str, Any]]] = {
    "STR": {},
    "STUR": {},
    "STLR": {"release": 1, "rcsc": 1},
    "STLUR": {"release": 1, "rcsc": 1},
    "STXR": {},
    "STLXR": {"release": 1, "rcsc": 1},
}
_ATOMIC: Final = re.compile(r"(SWP|LDADD|LDSET|LDCLR|STADD|STSET|STCLR|CAS)(A?)(L?)")
_KINDS: Final = {
    "SWP": "swap",
    "LDADD": "add",
    "STADD": "add",
    "LDSET": "or",
    "STSET": "or",
    "LDCLR": "and",
    "STCLR": "and",
    "CAS": "cmpxchg",
}
_BY_ADDRESS: Final = re.compile(r"(VAA?L?E1)(IS|OS)?")
_ALL: Final = re.compile(r"(VMALLE1|ALLE1|VMALLS12E1)(IS|OS)?")
_SPECIAL: Final = {"ELR_EL1": RETURN_TO, "SPSR_EL1": SAVED_LEVEL, "ESR_EL1": SYNDROME}
_NO_EFFECT: Final = {"NOP"}
END: Final = ".end"
SYSTEM_CALL: Final = 0x15 << 26
ZERO: Final = "XZR"
_FLAGS: Final = ("flags.one", "flags.other")


class Assembler:
    """Translates one thread of `cpus`; `after` says which label an exception leads to, by level."""

    def __init__(self, number: int, cpus: int, after: Mapping[int, str]) -> None:
        self.number = number
        self.all_cpus = (1 << cpus) - 1
        self.after = after
        self.lines: list[Line] = []
        self._instructions = 0
        self.labels: dict[str, int] = {}

    def add(self, text: str) -> None:
        """The next instruction, with or without labels before it."""
        text = text.strip()
        while found := _LABEL.fullmatch(text):
            self.lines.append(Label(found[1]))
            self.labels[found[1]] = self._instructions
            text = found[2].strip()
        if not text:
            return
        self.lines.append(Label(place_of(self._instructions)))
        self._instructions += 1
        name, _, rest = text.partition(" ")
        operands = [part.strip() for part in re.split(r",(?![^\[]*\])", rest.strip())] if rest else []
        try:
            self.lines += self._translated(name.upper(), operands)
        except (IndexError, ValueError) as problem:
            if isinstance(problem, NotTranslatable):
                raise
            raise NotTranslatable(f"operands of {name} in another form") from None

    def begin_handler(self, label: str) -> None:
        """What follows is a handler: what comes before it, and whoever returns behind that, is over."""
        self.lines += [Label(place_of(self._instructions)), Goto(END), Label(label)]
        self._instructions += 1

    def finished(self) -> list[Line]:
        """All lines, with a label behind the last instruction. Where no TLBI is, a DSB is a fence."""
        lines = [*_with_addresses(self.lines, self), Label(END), Label(place_of(self._instructions))]
        if any(isinstance(one, Access) and one.what.kind == "tlbi" for one in lines):
            return lines
        fence = Access(Instruction("fence", before="rwt", after="rwt"))
        return [fence if isinstance(one, Access) and one.what.kind == "dsb" else one for one in lines]

    def address(self, label: str) -> int:
        """Where the code behind a label lies."""
        if label not in self.labels:
            raise NotTranslatable(f"a label that is nowhere: {label}")
        return CODE + 4 * self.labels[label]

    def _translated(self, name: str, operands: list[str]) -> Iterable[Line]:
        if name in _NO_EFFECT:
            return []
        if name in _LOADS or name in _STORES:
            return [_access(name, operands)]
        if found := _ATOMIC.fullmatch(name):
            return _atomic(found[1], bool(found[2]), bool(found[3]), operands)
        if name in ("DMB", "DSB"):
            return [self._barrier(name, operands[0].upper() if operands else "SY")]
        if name == "ISB":
            return [Access(Instruction("isb"))]
        if name == "TLBI":
            return [self._tlbi(operands)]
        if name in ("SVC", "ERET", "ADR", "MRS", "MSR"):
            return self._system(name, operands)
        return _computed(name, operands, f".{name}{self._instructions}")

    def _barrier(self, name: str, option: str) -> Line:
        kinds = "r" if option.endswith("LD") else "w" if option.endswith("ST") else ""
        if option.removesuffix("LD").removesuffix("ST") not in ("", "SY", "ISH", "OSH", "NSH"):
            raise NotTranslatable(f"{name} {option}")
        if name == "DMB":
            return Access(Instruction("fence", before=kinds or "rw", after="w" if kinds == "w" else "rw"))
        if not kinds:
            return Access(Instruction("dsb", cpus=(self.number, self.all_cpus)))
        return Access(Instruction("fence", before=kinds, after="rwt"))

    def _tlbi(self, operands: list[str]) -> Line:
        what = operands[0].upper()
        found = _BY_ADDRESS.fullmatch(what) or _ALL.fullmatch(what)
        if found is None:
            raise NotTranslatable(f"TLBI {what}")
        mask = self.all_cpus if found[2] else 1 << self.number
        page = _value(operands[1]) if _BY_ADDRESS.fullmatch(what) else EVERY_PAGE
        return Access(Instruction("tlbi", value=page, cpus=(self.number, mask)))

    def _system(self, name: str, operands: list[str]) -> Iterable[Line]:
        if name == "ERET":
            return [Return(RETURN_TO, SAVED_LEVEL)]
        if name == "ADR":
            # The labels may be behind it.
            return [Set(_register(operands[0]), ("label", operands[1], 0))]
        if name == "SVC":
            if not self.after:
                raise NotTranslatable("SVC without a handler")
            return [
                Access(Instruction("isb")),
                Set(RETURN_TO, CODE + 4 * self._instructions),
                Set(SAVED_LEVEL, ("register", LEVEL)),
                Set(SYNDROME, SYSTEM_CALL),
                *[Goto(label, ("eq", ("register", LEVEL), level)) for level, label in self.after.items()],
            ]
        special = _SPECIAL.get(operands[name == "MRS"].upper())
        if special is None:
            raise NotTranslatable(f"{name} of {operands[name == 'MRS']}")
        if name == "MRS":
            return [Set(_register(operands[0]), ("register", special))]
        return [Set(special, _value(operands[1]))]


def rows(text: str) -> tuple[list[str], list[list[str]]]:
    """The columns' names, and their cells."""
    found = [[cell.strip() for cell in row.split("|")] for row in text.split(";")[:-1]]
    found = [row for row in found if any(row)]
    if not found or not all(re.fullmatch(r"P\d+(\.F)?", cell) for cell in found[0]):
        raise NotTranslatable("no columns of threads")
    return found[0], [[row[at] for row in found[1:] if at < len(row)] for at in range(len(found[0]))]


def _with_addresses(lines: Sequence[Line], assembler: Assembler) -> Iterator[Line]:
    """The lines with labels' addresses in place of them."""
    for line in lines:
        if isinstance(line, Set) and isinstance(line.value, tuple) and line.value[0] == "label":
            line = Set(line.register, assembler.address(line.value[1]))
        yield line


def _register(text: str) -> str:
    found = _REGISTER.fullmatch(text)
    if found:
        return f"X{found[1]}"
    if text.upper() in ("WZR", "XZR"):
        return ZERO
    raise NotTranslatable("a register of another kind")


def _value(text: str) -> Any:
    """A register or a number."""
    if text.upper() in ("WZR", "XZR"):
        return 0
    if _REGISTER.fullmatch(text):
        return ("register", _register(text))
    return int(re.sub(r"^#?0b", "0b", text).lstrip("#"), 0)


def _address(text: str) -> Any:
    if not (text.startswith("[") and text.endswith("]")):
        raise NotTranslatable("an address in another form")
    base, *others = [part.strip() for part in text[1:-1].split(",")]
    if others[1:] and others[1].upper() not in ("SXTW", "UXTW"):
        raise NotTranslatable("an address in another form")
    return ("add", _value(base), _value(others[0])) if others else _value(base)


def _access(name: str, operands: list[str]) -> Line:
    if name in _LOADS:
        register = _register(operands[0])
        what = Instruction("load", _address(", ".join(operands[1:])), **_LOADS[name])
        return Access(what, "" if register == ZERO else register)
    if name in ("STXR", "STLXR"):
        stored = Instruction("conditional", _address(operands[2]), _value(operands[1]), **_STORES[name])
        return Conditional(stored, _register(operands[0]))
    return Access(
        Instruction("store", _address(", ".join(operands[1:])), _value(operands[0]), **_STORES[name])
    )


def _atomic(name: str, acquires: bool, releases: bool, operands: list[str]) -> list[Line]:
    order: dict[str, Any] = {"acquire": int(acquires), "release": int(releases)}
    order["rcsc"] = int(acquires or releases)
    kind = _KINDS[name]
    value: Any = _value(operands[0])
    if name == "CAS":
        what = Instruction(kind, _address(operands[2]), _value(operands[1]), expected=value, **order)
        return [Access(what, _register(operands[0]))]
    if kind == "and":
        value = ("xor", value, -1)
    address = _address(operands[-1])
    register = _register(operands[1]) if len(operands) > 2 else ZERO
    return [Access(Instruction(kind, address, value, **order), "" if register == ZERO else register)]


def _computed(name: str, operands: list[str], here: str) -> list[Line]:
    if name == "MOV":
        return _set(operands[0], _value(operands[1]))
    if name in _ARITHMETIC and len(operands) == 3:
        one, other, function = _value(operands[1]), _value(operands[2]), _ARITHMETIC[name]
        if function in ("shl", "shr") and not (isinstance(other, int) and 0 <= other < 64):
            raise NotTranslatable("a shift by what is read")
        if function == "bic":
            function, other = "and", ("xor", other, -1) if isinstance(other, tuple) else ~other
        return _set(operands[0], (function, one, other))
    if name == "CMP":
        one, other = _value(operands[0]), _value(operands[1])
        return [Set(_FLAGS[0], one), Set(_FLAGS[1], other)]
    if name in ("CBZ", "CBNZ"):
        return [Goto(operands[1], ("eq" if name == "CBZ" else "ne", _value(operands[0]), 0))]
    if name == "B":
        return [Goto(operands[0])]
    if name.startswith("B.") and name[2:] in _CONDITIONS:
        return [Goto(operands[0], _flag(name[2:]))]
    if name == "CSET":
        return _set(operands[0], _flag(operands[1].upper()))
    if name == "CSEL":
        register, one, other = _register(operands[0]), _value(operands[1]), _value(operands[2])
        return [
            Goto(f"{here}.one", _flag(operands[3].upper())),
            Set(register, other),
            Goto(here),
            Label(f"{here}.one"),
            Set(register, one),
            Label(here),
        ]
    raise NotTranslatable(f"the instruction {name}")


def _flag(condition: str) -> Any:
    if condition not in _CONDITIONS:
        raise NotTranslatable(f"the condition {condition}")
    return (_CONDITIONS[condition], ("register", _FLAGS[0]), ("register", _FLAGS[1]))


def _set(register: str, value: Any) -> list[Line]:
    name = _register(register)
    return [] if name == ZERO else [Set(name, value)]
