"""A folio goes over to another frame only if nobody else has it, by reference or by mapping."""

from __future__ import annotations

import pytest

from emulator.hardware.operations import AllocPages, FolioMigrateMapping, FolioZero
from emulator.hardware.pte import PAGE_SHIFT, PRESENT, make_migration_entry
from emulator.memory.folios import Tier
from emulator.memory.memory import Memory
from emulator.memory.zone import Watermarks


@pytest.mark.parametrize(
    ("references", "mapped", "goes"), [(1, False, True), (1, True, False), (2, False, False)]
)
def test_who_has_it_mapped_keeps_it(references: int, mapped: bool, goes: bool) -> None:
    """A mapping counts even where the references agree, as somebody else's may have gone meanwhile."""
    memory = Memory((Tier(4, Watermarks(0, 0, 0)),))
    src, dst = (memory.execute(0, AllocPages(0, 0, 0, 0)) for _ in range(2))
    for pfn in (src, dst):
        memory.execute(0, FolioZero(pfn))
    folio = memory.folios.folios[src]
    folio.refcount = references
    entry = src << PAGE_SHIFT | PRESENT
    folio.rmap[1, 0x10] = make_migration_entry(entry)
    if mapped:
        folio.rmap[2, 0x10] = entry
    assert memory.execute(0, FolioMigrateMapping(src, dst, 0)) == goes
