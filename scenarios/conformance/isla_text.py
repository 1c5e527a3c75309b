"""AArch64 tests as isla's: a TOML document with a table of pages, and handlers where exceptions lead.

One stage of translation, its last level, one address space: what says more is not translatable.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any, Final

from emulator.hardware.descriptors import (
    AF,
    DESCRIPTOR,
    EL0,
    ETS2,
    PAGE,
    PAGE_SHIFT,
    PHYSICAL,
    READ_ONLY,
    VALID,
)
from scenarios.conformance.aarch64 import Assembler
from scenarios.conformance.code import LEVEL, RETURN_TO, SAVED_LEVEL, NotTranslatable
from scenarios.conformance.herd_text import HerdTest, Question, Translation, parsed

_MAPS: Final = re.compile(r"(\w+) \|-> (\w+)(?: with \[AP = 0b([01]{2})\] and default)?(?: at level 3)?")
_HOLDS: Final = re.compile(r"\*(\w+) = (\w+)")
_OTHERS: Final = re.compile(
    r"identity .* with (code|default)|option default_tables = true|assert .*|virtual .*|\w+ \?-> .*"
)
_NUMBER: Final = re.compile(r"(?:ext[zs]\()?\s*(0b[01]+|0x[0-9a-fA-F]+|\d+)\s*(?:,\s*64\s*\))?")
_PAGE: Final = re.compile(r"(?:extz\()?\s*page\((\w+)\)\s*(?:,\s*64\s*\))?")
_ENTRY: Final = re.compile(r"pte3\((\w+),\s*page_table_base\)")
_COPY: Final = re.compile(r"desc3\((\w+),\s*page_table_base\)")
_MAKE: Final = re.compile(r"mkdesc3\(oa=(\w+)(?:,\s*AP=0b([01]{2}))?\)")
_LABEL: Final = re.compile(r"(\w+):")
_NO_STATE: Final = {"PSTATE.SP", "PSTATE.EL", "VBAR_EL1", "VBAR_EL2", "TTBR0_EL1"}
_SINGLE_SPACE: Final = re.compile(r"ttbr\(asid=0x0+, base=page_table_base\)")
UNSET: Final = 0xBAD
"""In registers of which a test does not say what they begin with: no test asks for that."""
_BY_LEVEL: Final = {0: 0x400, 1: 0x200}
"""Where a handler of a synchronous exception lies above VBAR, by the level that it comes from."""


def _permissions(bits: str) -> int:
    """Descriptor bits of AP[2:1]; by default code at EL0 may write."""
    ap = int(bits or "01", 2)
    return VALID | AF | (EL0 if ap & 1 else 0) | (READ_ONLY if ap & 2 else 0)


class _Pages:
    """The table of pages."""

    def __init__(self, text: str, symbolic: list[str]) -> None:
        self.pages = {name: (at + 1) * PAGE for at, name in enumerate(symbolic)}
        self.frames: dict[str, int] = {}
        self.descriptors = dict.fromkeys(self.pages.values(), 0)
        self.words: dict[str, int] = {}
        for line in filter(None, [part.strip() for part in re.sub(r"[#/]+ .*", "", text).split(";")]):
            line = " ".join(line.split())
            if line.startswith("physical "):
                self.frames |= {name: self._frame(name) for name in line.split()[1:]}
            elif found := _MAPS.fullmatch(line):
                self._maps(found)
            elif found := _HOLDS.fullmatch(line):
                self._holds(found[1], int(found[2], 0))
            elif not _OTHERS.fullmatch(line):
                raise NotTranslatable("tables of other levels, stages or address spaces")

    def _frame(self, name: str) -> int:
        return PHYSICAL + (len(self.frames) + int(re.sub(r"\D", "", name) or "0") + 1) * PAGE

    def _maps(self, found: re.Match[str]) -> None:
        invalid = found[2] == "invalid"
        entry = 0 if invalid else self.frame(found[2]) | _permissions(found[3] or "")
        self.descriptors[self.page(found[1])] = entry

    def _holds(self, name: str, value: int) -> None:
        if name in self.pages:
            at = self.descriptors[self.pages[name]]
            name = next((frame for frame, where in self.frames.items() if where == at & ~(PAGE - 1)), "")
        if name not in self.frames:
            raise NotTranslatable("a value of no frame")
        self.words[name] = value

    def page(self, name: str) -> int:
        """Where a page lies."""
        if name not in self.pages:
            raise NotTranslatable("tables of other levels, stages or address spaces")
        return self.pages[name]

    def frame(self, name: str) -> int:
        """Where a frame lies."""
        if name not in self.frames:
            raise NotTranslatable("tables of other levels, stages or address spaces")
        return self.frames[name]

    def copied(self, found: re.Match[str]) -> int:
        """What `desc3(x, ...)` is."""
        return self.descriptors[self.page(found[1])]

    def made(self, found: re.Match[str]) -> int:
        """What `mkdesc3(oa=pa1)` is."""
        return self.frame(found[1]) | _permissions(found[2] or "")

    def value(self, text: str, assembler: Assembler) -> int:
        """What a register begins with."""
        text = text.strip()
        if found := _NUMBER.fullmatch(text):
            return int(found[1], 0)
        if found := _PAGE.fullmatch(text):
            return self.page(found[1]) >> PAGE_SHIFT
        if found := _ENTRY.fullmatch(text):
            return self.page(found[1]) + DESCRIPTOR
        if found := _COPY.fullmatch(text):
            return self.copied(found)
        if found := _MAKE.fullmatch(text):
            return self.made(found)
        if found := _LABEL.fullmatch(text):
            return assembler.address(found[1])
        if text in self.pages:
            return self.pages[text]
        raise NotTranslatable("registers with other tables or address spaces")


def read_isla(text: str, ets2: bool = False) -> HerdTest:
    """The test that the document is. Raises NotTranslatable, and ValueError where it is none."""
    document = tomllib.loads(text)
    try:
        return _read(document, text, ets2)
    except (KeyError, TypeError, AttributeError, IndexError) as problem:
        raise ValueError(f"no test of isla's: {type(problem).__name__} {problem}") from None


def _read(document: Mapping[str, Any], text: str, ets2: bool) -> HerdTest:
    if document["arch"] != "AArch64":
        raise NotTranslatable(f"the architecture {document['arch']}")
    pages = _Pages(document.get("page_table_setup", ""), document.get("symbolic", []))
    threads = document["thread"]
    registers: dict[int, dict[str, int]] = {}
    assemblers: list[Assembler] = []
    after: list[Mapping[int, str]] = []
    for at in range(len(threads)):
        thread = threads[str(at)]
        reset = {**thread.get("init", {}), **thread.get("reset", {})}
        handlers = dict(_handlers(document, reset))
        after.append({level: f".handler{level}" for level in handlers})
        assembler = Assembler(at, len(threads), after[at])
        _assemble(assembler, thread["code"], "")
        for level, code in handlers.items():
            assembler.begin_handler(after[at][level])
            _assemble(assembler, code, f".{level}")
        assemblers.append(assembler)
        registers[at] = dict(_registers(reset, pages, assembler))
    question = Question()
    chosen, condition = question.all_of(parsed(_asks(document["final"]["assertion"], pages)))
    question.addresses = {**pages.pages, **pages.frames}
    names = {page: name for name, page in pages.pages.items()}
    homes = dict(pages.frames)
    for name, page in pages.pages.items():
        homes.setdefault(name, pages.descriptors[page] & ~(PAGE - 1))
        homes[f"pte_{name}"] = page + DESCRIPTOR
    if unknown := set(question.words).difference(homes):
        raise NotTranslatable(f"a question about {min(unknown)}, which is nowhere")
    words = {**pages.words, **{f"pte_{name}": pages.descriptors[page] for name, page in pages.pages.items()}}
    flags = (ETS2 if ets2 else 0,) * len(assemblers)
    translation = Translation(
        tuple([assembler.finished() for assembler in assemblers]),
        flags,
        tuple(after),
        again=False,
        homes=homes,
        descriptors=pages.descriptors,
        names=names,
    )
    return HerdTest(
        "AArch64",
        document["name"],
        text,
        registers,
        words,
        {**pages.pages, **pages.frames},
        chosen,
        condition,
        tuple(sorted(question.places)),
        "",
        translation,
    )


def _assemble(assembler: Assembler, code: str, unit: str) -> None:
    """Its lines; local labels (1:, used as 1f) are the unit's own."""
    for line in code.splitlines():
        line = re.sub(r"//.*", "", line).strip()
        line = re.sub(r"^(\d+):", rf"L\1_{unit.strip('.')}:", line)
        line = re.sub(r"\b(\d+)[fb]$", rf"L\1_{unit.strip('.')}", line)
        assembler.add(line)


def _handlers(document: Mapping[str, Any], reset: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    """The code that exceptions lead to, by the level they come from."""
    base = reset.get("VBAR_EL1")
    if base is None:
        return
    number = _NUMBER.fullmatch(base.strip())
    if number is None:
        raise NotTranslatable("registers with other tables or address spaces")
    for section in document.get("section", {}).values():
        for level, offset in _BY_LEVEL.items():
            above = int(section["address"], 0) - int(number[1], 0)
            if above == offset or (level and above == 0):
                yield level, section["code"]


def _registers(reset: Mapping[str, str], pages: _Pages, assembler: Assembler) -> Iterator[tuple[str, int]]:
    """What a thread's registers begin with."""
    level = int(reset.get("PSTATE.EL", "0b00"), 0)
    if level > 1:
        raise NotTranslatable("EL2")
    yield from ((f"X{number}", UNSET) for number in range(31))
    yield LEVEL, level
    for name, value in reset.items():
        if name == "TTBR0_EL1" and not _SINGLE_SPACE.fullmatch(value):
            raise NotTranslatable("registers with other tables or address spaces")
        if found := re.fullmatch(r"[RXW](\d+)", name):
            yield f"X{found[1]}", pages.value(value, assembler)
        elif name == "ELR_EL1":
            yield RETURN_TO, pages.value(value, assembler)
        elif name == "SPSR_EL1":
            yield SAVED_LEVEL, pages.value(value, assembler) >> 2 & 3
        elif name not in _NO_STATE:
            raise NotTranslatable(f"the register {name}")


def _asks(assertion: str, pages: _Pages) -> str:
    """In herd's words."""
    assertion = _COPY.sub(lambda found: str(pages.copied(found)), assertion)
    assertion = _MAKE.sub(lambda found: str(pages.made(found)), assertion)
    text = re.sub(r"0b[01]+", lambda found: str(int(found[0], 0)), assertion)
    text = text.replace("&", r" /\ ").replace("|", r" \/ ")
    text = re.sub(r"\b(\d+):[RW](\d+)\b", r"\1:X\2", text)
    return f"exists ({text})"
