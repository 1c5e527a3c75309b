"""The page lists of CPUs: who gets which page, when pages go back to their zone, and that none is lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.hardware.operations import AllocPages, DrainPages, FolioPut, NrFree
from emulator.memory.folios import Tier
from emulator.memory.memory import Memory
from emulator.memory.per_cpu_pages import PageLists, zone_batchsize, zone_highsize
from emulator.memory.zone import Watermarks, Zone

MARKS = Watermarks(0, 8, 8)
MANAGED = 16 << 10  # a zone so large has batches of 3


def lists_of(pages: int = 64, cpus: int = 2, managed: int = MANAGED) -> tuple[Zone, PageLists]:
    zone = Zone(0, 64, pages, MARKS)
    return zone, PageLists(zone, cpus, managed)


@pytest.mark.parametrize(
    ("pages", "batch"), [(1024, 1), (16 << 10, 3), (98_304, 31), (1 << 18, 63), (1 << 22, 63)]
)
def test_batches_are_as_large_as_in_a_kernel(pages: int, batch: int) -> None:
    """/proc/zoneinfo of zones of 4 MiB, 64 MiB, 384 MiB, 1 GiB and 16 GiB."""
    assert zone_batchsize(pages) == batch


def test_all_lists_together_hold_the_low_watermark() -> None:
    assert zone_highsize(1300, 2, 63) == 650
    assert zone_highsize(1300, 16, 63) == 4 * 63


def test_a_list_is_filled_by_the_batch_and_handed_out_in_the_zones_order() -> None:
    zone, lists = lists_of()
    assert lists.rmqueue(0, 0) == 64
    assert (zone.nr_free, lists.pages) == (61, 2)
    assert [lists.rmqueue(0, 0) for _ in range(2)] == [65, 66]
    assert lists.rmqueue(1, 0) == 67


def test_who_frees_a_page_gets_it_back_and_nobody_else_does() -> None:
    zone, lists = lists_of()
    mine, yours = lists.rmqueue(0, 0), lists.rmqueue(1, 0)
    assert mine is not None and yours is not None
    lists.free_one_page(0, yours, 0)
    assert lists.holds(yours) and not zone.is_free(yours)
    assert lists.rmqueue(1, 0) != yours
    assert lists.rmqueue(0, 0) == yours


def test_too_long_a_list_gives_up_its_oldest_pages_and_more_each_time() -> None:
    zone, lists = lists_of(cpus=1)
    taken = [pfn for _ in range(40) if (pfn := lists.rmqueue(0, 0)) is not None]
    assert (len(taken), lists.pages) == (40, 2)
    for pfn in taken[:9]:
        lists.free_one_page(0, pfn, 0)
    assert (zone.nr_free, lists.pages) == (64 - 42, 11)
    # high is 12: a batch of 3 goes, of what was there first.
    lists.free_one_page(0, taken[9], 0)
    assert (zone.nr_free, lists.pages) == (64 - 39, 9)
    assert zone.is_free(taken[0]) and not zone.is_free(taken[9])
    for pfn in taken[10:13]:
        lists.free_one_page(0, pfn, 0)
    # Nobody has allocated in between: 6.
    assert (zone.nr_free, lists.pages) == (64 - 33, 6)


def test_blocks_above_the_costly_order_bypass_the_lists() -> None:
    zone, lists = lists_of()
    block = lists.rmqueue(0, 4)
    assert block is not None and lists.pages == 0
    lists.free_one_page(0, block, 4)
    assert (zone.nr_free, lists.pages) == (64, 0)


@given(st.data())
def test_no_page_is_lost_or_handed_out_twice(data: st.DataObject) -> None:
    zone, lists = lists_of(cpus=3)
    held: dict[int, int] = {}
    for _ in range(data.draw(st.integers(1, 60))):
        cpu = data.draw(st.integers(0, 2))
        if held and data.draw(st.booleans()):
            pfn = data.draw(st.sampled_from(sorted(held)))
            lists.free_one_page(cpu, pfn, held.pop(pfn))
        else:
            order = data.draw(st.integers(0, 4))
            taken = lists.rmqueue(cpu, order)
            if taken is not None:
                assert not any(page in held for page in range(taken, taken + (1 << order)))
                held[taken] = order
        state = lists.state()
        lists.restore(state)
        assert lists.state() == state
        assert zone.nr_free + lists.pages + sum(1 << order for order in held.values()) == 64
    lists.drain()
    assert lists.pages == 0
    for pfn, order in held.items():
        zone.free_one_page(pfn, order)
    assert zone.nr_free == 64


def test_pages_on_lists_are_free_but_do_not_count_until_they_are_drained() -> None:
    memory = Memory((Tier(64, MARKS),), cpus=2, memory_scale=256)
    pfn = memory.execute(0, AllocPages(0, 0, 0, 0))
    memory.execute(0, FolioPut(pfn))
    assert memory.execute(0, NrFree(0)) == 61
    assert memory.results() == {"nr_free": [64]}
    assert memory.folios.is_free(pfn) and memory.folios.is_free(60)
    copy = Memory((Tier(64, MARKS),), cpus=2, memory_scale=256)
    copy.restore(memory.state())
    assert copy.execute(0, AllocPages(0, 0, 0, 0)) == pfn
    memory.execute(1, DrainPages(0))
    assert memory.execute(1, NrFree(0)) == 64
