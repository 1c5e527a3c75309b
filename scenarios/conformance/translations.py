"""What a test does to translations, found by following its threads as if nothing ever faulted.

Only of pages whose descriptor is written to, or whose translations a TLBI drops, it matters when they are
translated and with what; all others are named by where they lie.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from emulator.hardware.descriptors import (
    DESCRIPTOR,
    HARDWARE_AF,
    HARDWARE_DIRTY,
    OUTPUT,
    PAGE,
    PAGE_SHIFT,
    TRANSLATED,
    WRITES,
    fault,
    to_update,
)
from emulator.hardware.instructions import EVERY_PAGE, Instruction, word_at
from scenarios.conformance.code import (
    Access,
    Conditional,
    Label,
    Line,
    Pages,
    Thread,
    Way,
    folded,
    page_of,
    ways,
)
from scenarios.conformance.herd_text import HerdTest, Translation


class _Everything:
    def __contains__(self, word: object) -> bool:
        return True


EVERYTHING: Final = _Everything()
"""Has all words in it."""


class _Changes(NamedTuple):
    """What may become of descriptors: by page their values, None among them if anything; pages of TLBIs."""

    values: dict[int, set[int | None]]
    dropped: set[int]


def of(test: HerdTest) -> list[Pages]:
    """By thread how its addresses are translated; nothing for a test without translations."""
    translation = test.translation
    if translation is None:
        return []
    changes = _changes(test, translation)
    every = 0
    for flags in translation.flags:
        every |= flags
    fixed = {
        page: next(iter(values)) & OUTPUT  # type: ignore[operator]
        for page, values in changes.values.items()
        if len(values) == 1
        and page not in changes.dropped
        and all(_outcomes(values, every | right) == (True, False) for right in (TRANSLATED, WRITES))
    }
    return [
        Pages(
            fixed,
            {
                (page, writes): _outcomes(values, TRANSLATED | flags | (WRITES if writes else 0))
                for page, values in changes.values.items()
                for writes in (False, True)
            },
            flags,
            translation.names,
            after,
            translation.again,
            translation.kinds,
        )
        for flags, after in zip(translation.flags, translation.after, strict=True)
    ]


def entries(test: HerdTest) -> Mapping[str, int]:
    """The words that are descriptors, and which page number TLBIs have for each."""
    assert test.translation is not None
    return {word_at(page + DESCRIPTOR): page >> PAGE_SHIFT for page in test.translation.names}


def takers(ways_of_threads: Sequence[Way]) -> Mapping[str, tuple[int, ...]]:
    """By descriptor the threads that translate by it."""
    found: dict[str, list[int]] = {}
    for at, way in enumerate(ways_of_threads):
        for page in sorted({page_of(one.word) or 0 for one in way.code if one.flags}):
            found.setdefault(word_at(page + DESCRIPTOR), []).append(at)
    return {word: tuple(threads) for word, threads in found.items()}


def invalidators(test: HerdTest) -> tuple[int, ...]:
    """The threads that have TLBIs."""
    assert test.translation is not None
    return tuple(
        [
            at
            for at, lines in enumerate(test.translation.threads)
            if any(isinstance(line, Access) and line.what.kind == "tlbi" for line in lines)
        ]
    )


def _outcomes(values: Iterable[int | None], flags: int) -> tuple[bool, bool]:
    """Whether an access may pass, and whether it may fault."""
    passes = faults = False
    for value in values:
        if value is None:
            return True, True
        updated = to_update(value, flags)
        passes = passes or not fault(updated, flags)
        faults = faults or (updated == value and fault(value, flags) != 0)
    return passes, faults


def _changes(test: HerdTest, translation: Translation) -> _Changes:
    values: dict[int, set[int | None]] = {page: {one} for page, one in translation.descriptors.items()}
    changes = _Changes(values, set())
    unmoved = {page: one & OUTPUT for page, one in translation.descriptors.items()}
    fixed = Pages(unmoved, {}, 0, translation.names, {}, again=False)
    for at, thread in enumerate(translation.threads):
        for way in ways(thread, test.registers.get(at, {}), EVERYTHING, EVERYTHING, fixed):
            _follow(way, changes)
        if any(map(_changes_more, _handlers(thread, translation.after[at]))):
            changes.dropped.update(values)
            for page in values:
                values[page].add(None)
    updates = [flags & (HARDWARE_AF | HARDWARE_DIRTY) for flags in translation.flags]
    for flags in filter(None, updates):
        for page in values:
            known = {one for one in values[page] if one is not None}
            values[page] |= {to_update(one, flags | right) for one in known for right in (TRANSLATED, WRITES)}
    return changes


def _handlers(thread: Thread, after: Mapping[int, str]) -> Iterable[Line]:
    """The lines of handlers, which nothing that passes comes to."""
    starts = [at for at, line in enumerate(thread) if isinstance(line, Label) and line.name in after.values()]
    return thread[min(starts) :] if starts else ()


def _changes_more(line: Line) -> bool:
    return isinstance(line, Access | Conditional) and (line.what.writes or line.what.kind == "tlbi")


def _follow(way: Way, changes: _Changes) -> None:
    for one in way.code:
        if one.kind == "tlbi":
            number = folded(one.value)
            some = isinstance(number, int) and number != EVERY_PAGE
            changes.dropped.update({(number << PAGE_SHIFT) // PAGE * PAGE} if some else changes.values)
        elif one.writes:
            page = _described(one)
            if page in changes.values:
                value = folded(one.value)
                known = one.kind in ("store", "swap", "conditional", "cmpxchg") and isinstance(value, int)
                changes.values[page].add(value if known else None)


def _described(one: Instruction) -> int:
    """The page whose descriptor it writes to; -1 if to none."""
    address = int(one.word[1:-1], 16) if isinstance(one.word, str) else page_of(one.word)
    if address is None or address < DESCRIPTOR:
        return -1
    return (address - DESCRIPTOR) // PAGE * PAGE
