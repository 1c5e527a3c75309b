"""Page-table entries, areas and folios as memory keeps them, one operation at a time."""

from __future__ import annotations

import pytest

from emulator.hardware.operations import (
    AllocPages,
    CmpxchgPte,
    FindVma,
    FolioClearFlag,
    FolioMigrateMapping,
    FolioSetFlag,
    FolioTestFlag,
    FolioZero,
    GetPte,
    IsolateLru,
    Lock,
    LruAdd,
    SetPte,
    TryToMigratePte,
    VmaInsert,
    Walk,
)
from emulator.hardware.pte import DIRTY, PRESENT, RW, mk_pte, ptl
from emulator.memory.blocked import BLOCKED
from emulator.memory.folios import PG_DIRTY, PG_REFERENCED, Tier
from emulator.memory.memory import Memory
from emulator.memory.page_table import VM_READ, VM_WRITE
from emulator.memory.zone import Watermarks

PAGE, END = 0x10, 0x12
SLOT = (7, 3)


@pytest.fixture
def memory() -> Memory:
    made = Memory((Tier(6, Watermarks(0, 0, 0)),))
    assert made.execute(0, VmaInsert(1, PAGE, END, VM_READ | VM_WRITE, 0, 0))
    return made


@pytest.mark.parametrize(("vpn", "inside"), [(PAGE - 1, False), (PAGE, True), (END - 1, True), (END, False)])
def test_an_area_ends_where_it_ends_and_a_fault_maps_nothing_outside(
    memory: Memory, vpn: int, inside: bool
) -> None:
    assert bool(memory.execute(0, FindVma(1, vpn))) == inside
    assert memory.execute(0, CmpxchgPte(1, vpn, 0, mk_pte(1, PRESENT))) == (0 if inside else -1)
    assert bool(memory.execute(0, GetPte(1, vpn))) == inside


@pytest.mark.parametrize(
    ("start", "end", "free"), [(PAGE, END, False), (END - 1, END + 1, False), (END, END + 1, True)]
)
def test_areas_do_not_overlap(memory: Memory, start: int, end: int, free: bool) -> None:
    assert memory.execute(0, VmaInsert(1, start, end, VM_READ, 0, 0)) == free


@pytest.mark.parametrize(("flags", "granted"), [(VM_READ, False), (VM_READ | VM_WRITE, True)])
def test_an_entry_is_not_made_writable_where_the_area_is_not(flags: int, granted: bool) -> None:
    memory = Memory((Tier(6, Watermarks(0, 0, 0)),))
    memory.execute(0, VmaInsert(1, PAGE, END, flags, 0, 0))
    memory.execute(0, SetPte(1, PAGE, mk_pte(1, PRESENT)))
    change = CmpxchgPte(1, PAGE, mk_pte(1, PRESENT), mk_pte(1, PRESENT | RW))
    assert memory.execute(0, change) == (change.old if granted else -1)


def test_a_page_table_lock_keeps_others_out(memory: Memory) -> None:
    memory.execute(0, Lock(ptl(1, PAGE)))
    change = CmpxchgPte(1, PAGE, 0, mk_pte(1, PRESENT))
    assert memory.execute(1, change) is BLOCKED
    assert memory.execute(0, change) == 0


@pytest.mark.parametrize("write", [False, True])
def test_a_walk_for_a_write_sets_the_dirty_bit(memory: Memory, write: bool) -> None:
    memory.execute(0, SetPte(1, PAGE, mk_pte(1, PRESENT | RW)))
    memory.execute(0, Walk(1, PAGE, write))
    assert bool(memory.execute(0, GetPte(1, PAGE)) & DIRTY) == write


def test_a_flag_is_cleared_by_itself_and_goes_along_when_the_folio_moves(
    memory: Memory,
) -> None:
    src, dst = (memory.execute(0, AllocPages(0, 0, 0, 0)) for _ in range(2))
    for pfn in (src, dst):
        memory.execute(0, FolioZero(pfn))
    for flag in (PG_DIRTY, PG_REFERENCED):
        memory.execute(0, FolioSetFlag(src, flag))
    memory.execute(0, FolioClearFlag(src, PG_REFERENCED))
    memory.folios.folios[src].mapping = SLOT
    memory.folios.folios[src].refcount += 1
    memory.folios.page_cache[SLOT] = src
    assert memory.execute(0, FolioMigrateMapping(src, dst, 0))
    assert memory.folios.page_cache[SLOT] == dst
    assert memory.execute(0, FolioTestFlag(dst, PG_DIRTY))
    assert not memory.execute(0, FolioTestFlag(dst, PG_REFERENCED))


@pytest.mark.parametrize("pages", [1, 2])
def test_no_more_folios_are_isolated_than_asked(memory: Memory, pages: int) -> None:
    for pfn in [memory.execute(0, AllocPages(0, 0, 0, 0)) for _ in range(3)]:
        memory.execute(0, FolioZero(pfn))
        memory.execute(0, LruAdd(pfn, False))
    assert len(memory.execute(0, IsolateLru(0, False, pages, False))) == pages


@pytest.mark.parametrize("entry", [mk_pte(2, PRESENT | DIRTY), mk_pte(2, PRESENT)])
def test_a_migration_takes_an_entry_only_from_the_folio_that_it_moves(memory: Memory, entry: int) -> None:
    memory.execute(0, SetPte(1, PAGE, entry))
    assert memory.execute(0, TryToMigratePte(1, PAGE, 1)) == 0
    assert memory.execute(0, GetPte(1, PAGE)) == entry
    assert memory.execute(0, TryToMigratePte(1, PAGE, 2)) == entry
