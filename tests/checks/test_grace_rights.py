"""What an old translation still allows, when its page is copied, made writable, mapped anew or shared.

Traces told by hand, with the flush and without.
"""

from __future__ import annotations

import pytest

from emulator.checks.grace_period import (
    COPIED,
    RANGE,
    REUSED,
    SHARED,
    WRITABLE,
)
from emulator.hardware.operations import (
    AllocPages,
    CmpxchgPte,
    FolioCopy,
    FolioMigrateMapping,
    FolioPut,
    FolioZero,
    SetPte,
    TryToMigratePte,
    VmaInsert,
    Walk,
    XchgPte,
)
from emulator.hardware.pte import DIRTY, EXCLUSIVE, PRESENT, PROTNONE, RW, make_migration_entry, mk_pte
from tests.checks.grace_lab import RO, VPN, WRITABLE_1, Trace


@pytest.mark.parametrize("flushed", [True, False])
def test_the_destination_becomes_writable(flushed: bool) -> None:
    trace = Trace()
    trace.unmap()
    trace.move()
    if flushed:
        trace.shootdown()
    new = mk_pte(101, PRESENT | RW | DIRTY)
    # Another mapping of the page counts as well.
    trace.step(1, CmpxchgPte(2, 99, mk_pte(101, PRESENT), new), mk_pte(101, PRESENT))
    assert trace.rules == ([] if flushed else [WRITABLE])


def test_the_page_is_followed_from_copy_to_copy() -> None:
    trace = Trace()
    trace.unmap()
    trace.move()
    trace.step(0, TryToMigratePte(1, VPN, 101), mk_pte(101, PRESENT))
    trace.step(0, FolioCopy(101, 2))
    trace.step(0, FolioMigrateMapping(101, 2, 0), True)
    left = make_migration_entry(mk_pte(101, PRESENT))
    trace.step(0, CmpxchgPte(1, VPN, left, mk_pte(2, PRESENT | RW)), left)
    assert trace.rules == [WRITABLE, WRITABLE]


def test_a_frame_that_goes_out_again_is_not_the_page_any_more() -> None:
    trace = Trace()
    trace.unmap()
    trace.move()
    trace.step(0, XchgPte(1, VPN, 0), mk_pte(101, PRESENT))
    trace.step(0, FolioPut(101), True)
    trace.step(0, AllocPages(1, 0, 0, 0), 101)
    trace.step(0, FolioZero(101))
    trace.step(0, CmpxchgPte(1, VPN, 0, mk_pte(101, PRESENT)), 0)
    assert trace.rules == [REUSED, RANGE]


def test_a_migration_that_failed_leaves_nothing_to_wait_for() -> None:
    trace = Trace()
    trace.unmap()
    trace.step(0, FolioCopy(1, 101))
    trace.step(0, FolioMigrateMapping(1, 101, 0), False)
    left = make_migration_entry(RO)
    trace.step(0, CmpxchgPte(1, VPN, left, RO), left)
    assert not trace.check.facts.retired
    trace.step(0, CmpxchgPte(1, VPN, RO, WRITABLE_1), RO)
    assert not trace.rules


@pytest.mark.parametrize("flushed", [True, False])
@pytest.mark.parametrize("moves", [True, False])
@pytest.mark.parametrize("entry", [RO, mk_pte(1, PRESENT | RW), WRITABLE_1])
def test_copying_what_may_still_be_written(entry: int, moves: bool, flushed: bool) -> None:
    trace = Trace()
    trace.unmap(0, entry)
    if flushed:
        trace.shootdown()
    trace.step(0, FolioCopy(1, 101))
    trace.step(0, FolioMigrateMapping(1, 101, 0), moves)
    # An entry that is not dirty cannot be written through without another walk.
    assert trace.rules == ([COPIED] if entry == WRITABLE_1 and moves and not flushed else [])


def test_a_hint_takes_the_right_to_write_away() -> None:
    trace = Trace()
    hint = mk_pte(1, PROTNONE | DIRTY)
    trace.step(0, CmpxchgPte(1, VPN, WRITABLE_1, hint), WRITABLE_1)
    trace.unmap(1, hint)
    trace.move(1, hint)
    assert trace.rules == [COPIED]


def test_a_hint_that_is_undone_is_none() -> None:
    trace = Trace()
    hint = mk_pte(1, PROTNONE | DIRTY)
    trace.step(0, CmpxchgPte(1, VPN, WRITABLE_1, hint), WRITABLE_1)
    trace.step(1, CmpxchgPte(1, VPN, hint, WRITABLE_1), hint)
    assert not trace.check.facts.retired


@pytest.mark.parametrize("flushed", [True, False])
@pytest.mark.parametrize("how", ["area", "entry", "store"])
def test_the_range_is_mapped_anew(how: str, flushed: bool) -> None:
    trace = Trace()
    trace.step(0, XchgPte(1, VPN, 0), RO)
    if flushed:
        trace.shootdown()
    other = mk_pte(5, PRESENT)
    if how == "area":
        trace.step(0, VmaInsert(1, VPN - 1, VPN + 1, 0, 0, 0), True)
    elif how == "entry":
        trace.step(0, CmpxchgPte(1, VPN, 0, other), 0)
    else:
        trace.step(0, SetPte(1, VPN, other), issued=True)
    assert trace.rules == ([] if flushed else [RANGE])


@pytest.mark.parametrize("pages", [(VPN - 2, VPN), (VPN + 1, VPN + 2)])
def test_an_area_beside_it_is_another_range(pages: tuple[int, int]) -> None:
    trace = Trace()
    trace.step(0, XchgPte(1, VPN, 0), RO)
    trace.step(0, VmaInsert(1, *pages, 0, 0, 0), True)
    assert not trace.rules


def test_what_a_plain_store_replaces_may_have_been_written_through_meanwhile() -> None:
    """Nobody told what was there: the walker may have set its dirty bit since it was stored."""
    trace = Trace()
    trace.step(0, SetPte(1, VPN, mk_pte(1, PRESENT | RW)))
    trace.step(0, SetPte(1, VPN, RO))
    trace.unmap(1)
    trace.move(1)
    assert trace.rules == [COPIED]


@pytest.mark.parametrize("flushed", [True, False])
@pytest.mark.parametrize("mm", [1, 2], ids=["the same mm", "another mm"])
@pytest.mark.parametrize("flags", [RW | DIRTY | EXCLUSIVE, RW | DIRTY, DIRTY | EXCLUSIVE])
def test_a_page_that_gets_shared_is_read_on_the_other_side(flags: int, mm: int, flushed: bool) -> None:
    """fork: only what was writable and one mm's alone may not be written behind the other's back."""
    trace = Trace()
    entry = mk_pte(1, PRESENT | flags)
    trace.step(0, CmpxchgPte(1, VPN, entry, entry & ~(RW | EXCLUSIVE)), entry)
    trace.step(0, SetPte(2, VPN, RO))
    if flushed:
        trace.shootdown()
    trace.step(0, Walk(mm, VPN, False), 0)
    assert not trace.rules, "a page fault reads nothing"
    trace.step(0, Walk(mm, VPN + 1, False), mk_pte(2, PRESENT))
    assert not trace.rules, "another frame"
    broken = flags == RW | DIRTY | EXCLUSIVE and mm == 2 and not flushed
    for _ in range(2):
        trace.step(0, Walk(mm, VPN, False), RO)
        assert trace.rules == ([SHARED] if broken else []), "once"
