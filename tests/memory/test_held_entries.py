"""What TLBs may hold of descriptors: fetched at any moment, gone with an invalidation, never in between."""

from __future__ import annotations

from typing import Any

from emulator.hardware.descriptors import (
    AF,
    DBM,
    FAULTS,
    HARDWARE_AF,
    HARDWARE_DIRTY,
    NEVER,
    PAGE,
    READ_ONLY,
    TRANSLATED,
    VALID,
    WRITES,
)
from emulator.hardware.operations import (
    TOUCHES,
    UPDATES,
    Invalidate,
    InvalidateEntries,
    Store,
    TakeTranslation,
    Tlbi,
)
from emulator.memory.blocked import BLOCKED
from emulator.memory.folios import Tier
from emulator.memory.held_entries import MemoryAndEntries
from emulator.memory.zone import Watermarks

OLD, NEW = PAGE | VALID | AF, 2 * PAGE | VALID | AF
ANY_FAULT = TRANSLATED | NEVER | sum(FAULTS.values())


def memory_with(entry: int) -> MemoryAndEntries:
    memory = MemoryAndEntries([Tier(1, Watermarks(0, 0, 0))])
    memory.words.values["pte"] = entry
    memory.words.begin({"pte": 5}, {"pte": (0, 1)})
    return memory


def outputs(memory: MemoryAndEntries, cpu: int, flags: int = TRANSLATED) -> list[int]:
    asked = [TakeTranslation("pte", number, flags) for number in range(3)]
    enabled = [memory.enabled(cpu, one) for one in asked]
    found = [memory.execute(cpu, one) for one in asked]
    assert enabled == [one is not BLOCKED for one in found]
    return [one for one in found if one is not BLOCKED]


def test_all_that_memory_held_may_be_used_until_the_tlbi_is_done() -> None:
    memory = memory_with(OLD)
    memory.execute(0, Store("pte", NEW))
    assert outputs(memory, 1) == [PAGE, 2 * PAGE]
    memory.execute(0, Store("pte", 0))
    memory.execute(0, Tlbi(0, 0b11, 0, 0, 5, 6, 1, True))
    assert outputs(memory, 1) == [PAGE, 2 * PAGE], "asked for, not done"
    assert not memory.enabled(1, InvalidateEntries(0, 1, (5,))), "an access of it is under way"
    assert memory.enabled(1, InvalidateEntries(0, 1, (4, 6)))
    memory.execute(1, InvalidateEntries(0, 1, ()))
    assert outputs(memory, 1) == [] and outputs(memory, 0) == [PAGE, 2 * PAGE]
    memory.execute(0, Invalidate(0, 0))
    assert outputs(memory, 0) == []


def test_another_pages_tlbi_leaves_it() -> None:
    memory = memory_with(OLD)
    memory.execute(0, Store("pte", 0))
    memory.execute(0, Tlbi(0, 0b10, 0, 0, 4, 5, 1, True))
    memory.execute(1, Invalidate(0, 1))
    assert outputs(memory, 1) == [PAGE]


def test_what_is_not_valid_is_held_by_nobody() -> None:
    memory = memory_with(0)
    assert outputs(memory, 0, ANY_FAULT) == [0]
    memory.execute(0, Store("pte", NEW))
    assert outputs(memory, 1, ANY_FAULT) == [] and outputs(memory, 1) == [2 * PAGE]


def test_rights_go_by_what_is_held() -> None:
    memory = memory_with(OLD | READ_ONLY)
    memory.execute(0, Store("pte", OLD))
    assert outputs(memory, 1, ANY_FAULT | WRITES) == [0] and outputs(memory, 1, WRITES) == [PAGE]
    permission = TRANSLATED | NEVER | WRITES | FAULTS["Translation"]
    assert outputs(memory, 1, permission) == [], "not a fault of that kind"


def test_a_cpu_sets_the_bits_of_what_memory_holds_now() -> None:
    memory = memory_with(PAGE | VALID | DBM | READ_ONLY)
    flags = TRANSLATED | WRITES | HARDWARE_AF | HARDWARE_DIRTY
    update: Any = TakeTranslation("pte", UPDATES, flags)
    assert outputs(memory, 0, flags) == [], "not as it is"
    assert memory.enabled(0, update) and memory.words.values["pte"] == PAGE | VALID | DBM | READ_ONLY
    assert memory.execute(0, update) == PAGE and memory.words.values["pte"] == OLD | DBM
    assert not memory.enabled(0, update)
    touched = memory_with(PAGE | VALID | DBM | READ_ONLY)
    touched.execute(1, TakeTranslation("pte", TOUCHES, flags))
    assert touched.words.values["pte"] == OLD | DBM | READ_ONLY, "the access flag alone"


def test_who_never_translates_by_it_has_nothing_to_invalidate() -> None:
    memory = memory_with(OLD)
    memory.words.takers = {"pte": (1,)}
    memory.execute(0, Tlbi(0, 0b11, 0, 0, 5, 6, 1, True))
    assert not memory.enabled(0, Invalidate(0, 0)) and memory.enabled(1, Invalidate(0, 1))
    memory.execute(0, Tlbi(0, 0b11, 0, 0, 6, 7, 1, True))
    assert len(memory.words.tlbis(0)) == 1
