"""The page cache's slots and what its files have: adding, writing out, taking away, putting back."""

from __future__ import annotations

from emulator.hardware.operations import (
    AllocPages,
    FilemapAdd,
    FilemapGet,
    FilemapRemove,
    FolioClearFlag,
    FolioMapping,
    FolioRefcount,
    FolioSetFlag,
    FolioZero,
    ReadFrame,
    WriteFrame,
    WritePage,
)
from emulator.memory.folios import PG_DIRTY, Tier
from emulator.memory.memory import Memory
from emulator.memory.zone import Watermarks

SLOT = (7, 3)


def with_a_page(version: int = 5) -> tuple[Memory, int]:
    """A page of file 7 with this content; the allocation's reference and the cache's are on it."""
    memory = Memory((Tier(4, Watermarks(0, 0, 0)),))
    pfn = memory.execute(0, AllocPages(0, 0, 0, 0))
    memory.execute(0, FolioZero(pfn))
    assert memory.execute(0, FilemapAdd(*SLOT, pfn)) == -1
    memory.execute(0, WriteFrame(1, 0x10, pfn, version))
    return memory, pfn


def add_again(memory: Memory) -> int:
    """Version that a page read in from the file has."""
    pfn = memory.execute(0, AllocPages(0, 0, 0, 0))
    memory.execute(0, FolioZero(pfn))
    assert memory.execute(0, FilemapAdd(*SLOT, pfn)) == -1
    version: int = memory.execute(0, ReadFrame(1, 0x10, pfn))
    return version


def test_what_was_written_out_is_read_in_again() -> None:
    memory, pfn = with_a_page()
    memory.execute(0, WritePage(*SLOT, pfn))
    assert memory.execute(0, FilemapRemove(*SLOT, pfn, 2))
    assert memory.execute(0, FilemapGet(*SLOT)) == -1
    assert memory.execute(0, FolioMapping(pfn)) == ()
    assert memory.execute(0, FolioRefcount(pfn)) == 1
    assert add_again(memory) == 5


def test_what_was_not_written_out_is_lost() -> None:
    memory, pfn = with_a_page()
    assert memory.execute(0, FilemapRemove(*SLOT, pfn, 2))
    assert add_again(memory) == 0


def test_a_folio_in_use_or_dirty_is_not_reclaimed_but_truncated_all_the_same() -> None:
    memory, pfn = with_a_page()
    assert memory.execute(0, FolioMapping(pfn)) == SLOT
    assert not memory.execute(0, FilemapRemove(*SLOT, pfn, 1))
    memory.execute(0, FolioSetFlag(pfn, PG_DIRTY))
    assert not memory.execute(0, FilemapRemove(*SLOT, pfn, 2))
    memory.execute(0, WritePage(*SLOT, pfn))
    assert memory.execute(0, FilemapRemove(*SLOT, pfn, 0))
    assert add_again(memory) == 0, "what the file had there went with it"


def test_only_the_folio_that_is_there_is_taken_away() -> None:
    memory, pfn = with_a_page()
    assert not memory.execute(0, FilemapRemove(7, 4, pfn, 0))
    assert not memory.execute(0, FilemapRemove(*SLOT, pfn + 1, 0))
    assert memory.execute(0, FilemapRemove(*SLOT, pfn, 0))
    assert not memory.execute(0, FilemapRemove(*SLOT, pfn, 0))


def test_files_are_part_of_the_state() -> None:
    memory, pfn = with_a_page()
    memory.execute(0, WritePage(*SLOT, pfn))
    before = memory.state()
    memory.execute(0, FilemapRemove(*SLOT, pfn, 0))
    memory.execute(0, FolioClearFlag(pfn, PG_DIRTY))
    assert memory.state() != before
    memory.restore(before)
    assert memory.state() == before
    assert memory.execute(0, FilemapRemove(*SLOT, pfn, 2))
    assert add_again(memory) == 5
