"""What a file's page has to have where the cache lets go of it before what is stored goes."""

from __future__ import annotations

from typing import Any

import pytest

from emulator.checks import coherence
from emulator.hardware.operations import (
    AllocPages,
    CmpxchgPte,
    FilemapAdd,
    FilemapRemove,
    FolioZero,
    Operation,
    ReadFrame,
    RemoveBlock,
    VmaInsert,
    WriteFrame,
    WritePage,
)
from emulator.hardware.pte import DIRTY, PRESENT, RW, mk_pte
from emulator.memory.folios import Tier
from emulator.memory.memory import Memory
from emulator.memory.page_table import VM_WRITE
from emulator.memory.zone import Watermarks
from tests.kernel.small_machine import SHARED

_STORED, _LATER = 5, 6


@pytest.mark.parametrize("goes", [False, True])
@pytest.mark.parametrize("right", [False, True])
def test_what_is_stored_counts_until_its_block_goes(goes: bool, right: bool) -> None:
    """A page is written, stored, written again and taken out of the cache; its block may go as well. The next
    page of the slot has what is stored, or nothing; any other content is told."""
    memory = Memory((Tier(4, Watermarks(0, 0, 0)),))
    check = coherence.Coherence(memory)

    def step(operation: Operation) -> Any:
        answer = memory.execute(0, operation)
        check.observe(0, operation, answer)
        return answer

    memory.execute(0, VmaInsert(1, SHARED, SHARED + 1, VM_WRITE, 7, 0))
    pfn = step(AllocPages(0, 0, 0, 0))
    step(FolioZero(pfn))
    assert step(FilemapAdd(7, 0, pfn)) == -1
    entry = mk_pte(pfn, PRESENT | RW | DIRTY)
    assert step(CmpxchgPte(1, SHARED, 0, entry)) == 0
    step(WriteFrame(1, SHARED, pfn, _STORED))
    step(WritePage(7, 0, pfn))
    step(WriteFrame(1, SHARED, pfn, _LATER))
    assert step(CmpxchgPte(1, SHARED, entry, 0)) == entry
    assert step(FilemapRemove(7, 0, pfn, -1))
    if goes:
        step(RemoveBlock(7, 0))
    again = step(AllocPages(0, 0, 0, 0))
    step(FolioZero(again))
    assert step(FilemapAdd(7, 0, again)) == -1
    assert memory.folios.content.get(again, 0) == (0 if goes else _STORED)
    if not right:
        memory.folios.content[again] = _LATER
    assert step(CmpxchgPte(1, SHARED, 0, mk_pte(again, PRESENT))) == 0
    step(ReadFrame(1, SHARED, again))
    assert [violation.rule for violation in check.violations] == ([] if right else [coherence.CACHE])
