"""Pages that were freed with a tag: what owes nothing goes first, blocks have their parts' latest tag."""

from __future__ import annotations

import pytest

from emulator.hardware.operations import AllocPages, DrainPages, FolioPut, FolioSetTag, FolioTakeTag, ZonePaid
from emulator.memory.folios import Tier
from emulator.memory.memory import Memory
from emulator.memory.zone import TAG_BITS, Watermarks, Zone

MARKS = Watermarks(1, 1, 1)


def stamp(generation: int) -> int:
    return generation << TAG_BITS


def taken(zone: Zone, order: int = 0) -> tuple[int | None, int]:
    return zone.rmqueue(order), zone.tag_of_taken


def full(pages: int) -> Zone:
    zone = Zone(0, 0, pages, MARKS)
    for _ in range(pages):
        zone.rmqueue(0)
    return zone


def test_what_owes_nothing_is_taken_first_as_long_as_there_is_more_than_the_reserve() -> None:
    zone = full(8)
    for pfn, tag in ((0, 0), (2, 0), (4, 0), (6, stamp(2))):
        zone.free_one_page(pfn, 0, tag)
    assert [taken(zone) for _ in range(4)] == [(4, 0), (2, 0), (6, stamp(2)), (0, 0)]


def test_a_block_has_the_latest_tag_of_its_parts_and_parts_keep_their_own() -> None:
    zone = full(4)
    zone.free_one_page(0, 0)
    zone.free_one_page(1, 0, stamp(2))
    zone.free_one_page(2, 0, stamp(3))
    zone.free_one_page(3, 0)
    assert zone.free_blocks()[2] == (0,)
    # __del_page_from_free_list, expand: the debt of all is taken over with the first page.
    assert taken(zone) == (0, stamp(3))
    assert taken(zone, 1) == (2, stamp(3))
    assert taken(zone) == (1, stamp(2))


def test_what_is_paid_for_is_had_like_any_other() -> None:
    zone = full(2)
    zone.free_one_page(0, 0, stamp(2))
    zone.paid = stamp(2)
    assert taken(zone) == (0, 0)


def test_all_of_it_can_be_read_out_and_put_back() -> None:
    zone, other = full(8), Zone(0, 0, 8, MARKS)
    for pfn in (0, 1, 2, 5, 6):
        zone.free_one_page(pfn, 0, stamp(pfn))
    zone.paid = stamp(1)
    other.restore(zone.state())
    assert other.state() == zone.state()
    assert other.nr_free == zone.nr_free == 5
    assert [taken(other) for _ in range(5)] == [taken(zone) for _ in range(5)]
    other.restore(full(8).state())
    assert other.state() == full(8).state()


@pytest.mark.parametrize("cpus", [0, 1])
def test_a_tag_goes_with_the_page_and_its_low_bits_with_the_list(cpus: int) -> None:
    memory = Memory((Tier(8, Watermarks(0, 0, 0)),), 0, 1, cpus)
    pfn = memory.execute(0, AllocPages(0, 0, 0, 0))
    memory.execute(0, FolioSetTag(pfn, stamp(2) | 5))
    memory.execute(0, FolioPut(pfn))
    copy = Memory((Tier(8, Watermarks(0, 0, 0)),), 0, 1, cpus)
    copy.restore(memory.state())
    for one in (memory, copy):
        found = [one.execute(0, AllocPages(0, 0, 0, 0)) for _ in range(8)]
        tags = [one.execute(0, FolioTakeTag(frame)) for frame in found]
        assert {tag for tag in tags if tag} == {stamp(2) | (5 if cpus else 0)}
        assert not any(one.execute(0, FolioTakeTag(frame)) for frame in found)
        for frame in found:
            one.execute(0, FolioSetTag(frame, stamp(3) | 1))
            one.execute(0, FolioPut(frame))
        one.execute(0, DrainPages(0))
        one.execute(0, ZonePaid(0, stamp(3)))
        again = one.execute(0, AllocPages(0, 0, 0, 0))
        assert one.execute(0, FolioTakeTag(again)) == 0
