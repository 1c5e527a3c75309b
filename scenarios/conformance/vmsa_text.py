"""AArch64 tests as herd writes them, with page descriptors: `pte_x`, `(oa:phy_y, valid:0)`, `fault(P0:L, x)`.

A name x is a page and the word at its beginning; `phy_x` is the frame that it has at the start, `pte_x` its
descriptor. What is asked becomes a question about registers and numbers, as herd's other languages have.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from emulator.hardware.descriptors import (
    AF,
    AT_EL0,
    DBM,
    DESCRIPTOR,
    EL0,
    ETS2,
    FAULTS,
    HARDWARE_AF,
    HARDWARE_DIRTY,
    PAGE,
    PHYSICAL,
    READ_ONLY,
    VALID,
)
from scenarios.conformance.aarch64 import Assembler, rows
from scenarios.conformance.code import NotTranslatable, fault_register
from scenarios.conformance.herd_text import (
    HerdTest,
    Parts,
    Question,
    Translation,
    cut,
    parsed,
    without_comments,
)

_DESCRIPTOR: Final = re.compile(r"\(\s*((?:\w+\s*:\s*\w+\s*,?\s*)+)\)")
_FAULT: Final = re.compile(
    r"\bfault\s*\(\s*P?(\d+)\s*(?::\s*(\w+)\s*)?,\s*(\w+)\s*((?:,[^()]*)?)\)", re.IGNORECASE
)
_LISTED: Final = re.compile(r"\s*locations\s*\[[^\]]*\]")
_NAME_OF: Final = re.compile(r"\b(PTE|TTD|PA)\s*\(\s*(\w+)\s*\)")
_START: Final = re.compile(
    r"(?:(?:u?int\w*|pteval_t)\s+)?\**(?:(?P<thread>\d+):)?\[?(?P<name>\w+)\]?(?:\s*=\s*(?P<value>.+))?",
    re.DOTALL,
)
_REGISTER: Final = re.compile(r"\bP?(\d+):[WXwx](\d+)\b")
_WORD: Final = re.compile(r"[A-Za-z_]\w*")
_FIELDS: Final = {"valid", "af", "db", "dbm", "el0", "oa"}
_PREFIX: Final = re.compile(r"(pte|phy)_")
_UPDATES: Final = {"HA": HARDWARE_AF, "HD": HARDWARE_AF | HARDWARE_DIRTY}
_HANDLER: Final = ".handler"


def descriptor(output: int, fields: Mapping[str, int]) -> int:
    """A descriptor; what is not said is as herd has it: valid, accessed, writable, for EL0 too."""
    bits = {"valid": VALID, "af": AF, "dbm": DBM, "el0": EL0}
    defaults = {"valid": 1, "af": 1, "dbm": 0, "el0": 1}
    found = output | sum(bit for name, bit in bits.items() if fields.get(name, defaults[name]))
    return found if fields.get("db", 1) else found | READ_ONLY


class _Names:
    """Addresses by name, given out as names are met."""

    def __init__(self) -> None:
        self.pages: dict[str, int] = {}

    def address(self, name: str) -> int:
        """That of a page, a frame (`phy_`) or a descriptor (`pte_`)."""
        plain = _PREFIX.sub("", name, count=1)
        page = self.pages.setdefault(plain, (len(self.pages) + 1) * PAGE)
        if plain == name:
            return page
        return page + (DESCRIPTOR if name.startswith("pte_") else PHYSICAL)

    def descriptor(self, text: str, default: int) -> int:
        """What `oa:phy_x, valid:0` is; `default`: its output address if it has none."""
        fields: dict[str, int] = {}
        output = default
        for field in filter(None, [part.strip() for part in text.split(",")]):
            name, value = [part.strip() for part in field.split(":")]
            if name not in _FIELDS:
                raise NotTranslatable(f"descriptors with {name}")
            if name == "oa":
                output = self.address(value)
            else:
                fields[name] = int(value)
        return descriptor(output, fields)

    def number(self, text: str, default: int = 0) -> int:
        """A value at the start: a number, a name's address, or a descriptor."""
        text = text.strip().removeprefix("&")
        if found := _DESCRIPTOR.fullmatch(text):
            return self.descriptor(found[1], default)
        if _WORD.fullmatch(text):
            return self.address(text)
        try:
            return int(text, 0)
        except ValueError:
            raise NotTranslatable("an initial state of arrays or other types") from None


def read_vmsa(text: str, ets2: bool = False) -> HerdTest:
    """The test that the text is. Raises NotTranslatable, and ValueError where it is no litmus test."""
    try:
        return _read(cut(text), ets2)
    except IndexError:
        raise ValueError("no litmus test: it names a thread that it has not") from None


def _read(parts: Parts, ets2: bool) -> HerdTest:
    names = _Names()
    registers, words, descriptors = _start(_plain(parts.start), names)
    heads, columns = rows(without_comments(parts.threads))
    flags, again = _options(parts, sum(not head.endswith(".F") for head in heads), ets2)
    assemblers = []
    after: list[Mapping[int, str]] = []
    for at in range(len(flags)):
        if f"P{at}" not in heads:
            raise NotTranslatable("no columns of threads")
        handled = f"P{at}.F" in heads
        after.append({0: _HANDLER} if handled else {})
        assembler = Assembler(at, len(flags), after[at])
        for cell in columns[heads.index(f"P{at}")]:
            assembler.add(cell)
        if handled:
            assembler.begin_handler(_HANDLER)
            for cell in columns[heads.index(f"P{at}.F")]:
                assembler.add(cell)
        assemblers.append(assembler)
    asks = _asks(_plain(parts.asks), names, assemblers)
    question = Question()
    chosen, condition = question.all_of(parsed(asks))
    question.addresses = addresses = _Addresses(names)
    for name in question.words:
        names.address(name)
    pages = dict(names.pages)
    for page in pages.values():
        descriptors.setdefault(page, descriptor(page + PHYSICAL, {}))
    homes = {name: page + PHYSICAL for name, page in pages.items()}
    homes |= {f"pte_{name}": page + DESCRIPTOR for name, page in pages.items()}
    if unknown := {name for thread, name in question.places if thread < 0}.difference(homes):
        raise NotTranslatable(f"a question about {min(unknown)}, which is nowhere")
    words |= {f"pte_{name}": descriptors[page] for name, page in pages.items()}
    translation = Translation(
        tuple([assembler.finished() for assembler in assemblers]),
        tuple(flags),
        tuple(after),
        again,
        homes,
        descriptors,
        {page: name for name, page in pages.items()},
        tuple(FAULTS) if any(name.endswith(tuple(FAULTS)) for _, name in question.places) else (),
    )
    return HerdTest(
        parts.language,
        parts.name,
        parts.threads,
        registers,
        words,
        {name: addresses[name] for name in homes if not name.startswith("pte_")},
        chosen,
        condition,
        tuple(sorted(question.places)),
        parts.declared,
        translation,
    )


class _Addresses(dict[str, int]):
    """Of names in questions."""

    def __init__(self, names: _Names) -> None:
        super().__init__()
        self._names = names

    def __missing__(self, name: str) -> int:
        return self._names.address(name)


def _plain(text: str) -> str:
    """With one way to write descriptors and frames."""
    return _NAME_OF.sub(lambda found: f"{'phy' if found[1] == 'PA' else 'pte'}_{found[2]}", text)


def _start(text: str, names: _Names) -> tuple[dict[int, dict[str, int]], dict[str, int], dict[int, int]]:
    """Registers, words and descriptors at the start."""
    registers: dict[int, dict[str, int]] = {}
    words: dict[str, int] = {}
    descriptors: dict[int, int] = {}
    for part in re.sub(r"//[^\n]*", "", text).split(";"):
        if not part.strip():
            continue
        found = _START.fullmatch(part.strip())
        if found is None:
            raise NotTranslatable("an initial state of arrays or other types")
        name, value = found["name"], found["value"] or "0"
        if found["thread"]:
            register = re.fullmatch(r"[WXwx](\d+)", name)
            if register is None:
                raise NotTranslatable("a register of another kind")
            registers.setdefault(int(found["thread"]), {})[f"X{register[1]}"] = names.number(value)
        elif name.startswith("pte_"):
            page = names.address(name) - DESCRIPTOR
            descriptors[page] = names.number(value, page + PHYSICAL)
        else:
            names.address(name)
            words[name] = names.number(value)
    return registers, words, descriptors


def _options(parts: Parts, threads: int, ets2: bool) -> tuple[list[int], bool]:
    """By thread how it is translated; whether an access that has faulted is tried again."""
    flags = [ETS2 if ets2 else 0] * threads
    again = False
    for line in without_comments(parts.options).splitlines():
        key, _, value = line.partition("=")
        key, value = key.strip().lower(), value.strip()
        if key == "tthm":
            for one in value.split():
                thread, _, what = one.rpartition(":")
                if what not in _UPDATES:
                    raise NotTranslatable(f"TTHM={what}")
                for at in range(threads) if not thread else [int(thread.removeprefix("P"))]:
                    flags[at] |= _UPDATES[what]
        elif key == "el0":
            for one in value.split(","):
                flags[int(one.strip().removeprefix("P"))] |= AT_EL0
        elif key == "variant":
            variants = {one.strip().lower() for one in value.split(",")}
            again = bool(variants & {"imprecise", "handled"})
            if variants & {"skip", "faulttonext", "exs", "d128", "mixed", "memtag", "ifetch"}:
                raise NotTranslatable(f"Variant={value}")
            if variants & {"ets2", "ets3"}:
                flags = [one | ETS2 for one in flags]
    return flags, again


def _asks(text: str, names: _Names, assemblers: Sequence[Assembler]) -> str:
    """The question over registers and numbers."""

    def fault(found: re.Match[str]) -> str:
        kind = found[4].strip(", \n").removeprefix("MMU:")
        if kind and kind not in FAULTS:
            raise NotTranslatable(f"faults of the kind {kind}")
        answer = "" if in_list else "=1"
        return f"{found[1]}:{fault_register(found[2] or '', found[3], kind)}{answer}"

    def label(found: re.Match[str]) -> str:
        return str(assemblers[int(found[1])].address(found[2]))

    text = re.sub(r'label:\s*"P(\d+):(\w+)"', label, text)
    listed = _LISTED.match(text)
    cut_at = listed.end() if listed else 0
    in_list = True
    locations = _FAULT.sub(fault, text[:cut_at])
    in_list = False
    text = locations + _FAULT.sub(fault, text[cut_at:])
    text = re.sub(r"(\w+)(\]?\s*!?=\s*)" + _DESCRIPTOR.pattern, lambda one: _compared(one, names), text)
    return _REGISTER.sub(r"\1:X\2", text)


def _compared(found: re.Match[str], names: _Names) -> str:
    """A place and the number that its descriptor is; without an output address that of its own page."""
    own = names.address(found[1]) - DESCRIPTOR + PHYSICAL if found[1].startswith("pte_") else 0
    return f"{found[1]}{found[2]}{names.descriptor(found[3], own)}"
