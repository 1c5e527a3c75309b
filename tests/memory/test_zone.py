"""A zone never loses or shares a page, keeps its blocks as large as it can, and says what is wrong."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from emulator.memory.zone import MAX_ORDER, Watermarks, Zone, setup_per_zone_wmarks

NO_MARKS = Watermarks(0, 0, 0)
# Small zones meet every corner soon; the larger ones hold blocks of MAX_ORDER, and two that must not merge.
start_pfns = st.one_of(st.integers(0, 40), st.integers(1000, 2100))
sizes = st.one_of(st.integers(1, 64), st.integers(2000, 4200))
orders = st.one_of(st.integers(0, 3), st.integers(0, MAX_ORDER))


def blocks_of(zone: Zone) -> list[tuple[int, int]]:
    return [(head, order) for order, heads in zone.free_blocks().items() for head in heads]


def pages_of(blocks: list[tuple[int, int]]) -> list[int]:
    return [pfn for head, order in blocks for pfn in range(head, head + (1 << order))]


def check_free_blocks(zone: Zone, allocated: set[int]) -> None:
    """Every page is in exactly one block, free or allocated; free blocks are aligned and fully merged."""
    free = blocks_of(zone)
    pages = range(zone.start_pfn, zone.start_pfn + zone.pages)
    assert sorted([*pages_of(free), *allocated]) == list(pages)
    assert zone.nr_free == zone.pages - len(allocated)
    listed = set(free)
    for head, order in free:
        assert head % (1 << order) == 0
        assert order == MAX_ORDER or (head ^ (1 << order), order) not in listed


class ZoneMachine(RuleBasedStateMachine):
    """Any sequence of allocations and frees, against the list of blocks that were handed out."""

    @initialize(start_pfn=start_pfns, pages=sizes)
    def boot(self, start_pfn: int, pages: int) -> None:
        self.zone = Zone(0, start_pfn, pages, NO_MARKS)
        self.blocks: list[tuple[int, int]] = []
        self.fresh = self.zone.free_blocks()

    @rule(order=orders)
    def allocate(self, order: int) -> None:
        before = self.zone.free_blocks()
        possible = any(before[larger] for larger in range(order, MAX_ORDER + 1))
        pfn = self.zone.rmqueue(order)
        assert (pfn is not None) == possible
        if pfn is not None:
            smallest = next(larger for larger in range(order, MAX_ORDER + 1) if before[larger])
            assert pfn == before[smallest][0]
            self.blocks.append((pfn, order))

    @precondition(lambda self: self.blocks)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        pfn, order = self.blocks.pop(data.draw(st.integers(0, len(self.blocks) - 1)))
        self.zone.free_one_page(pfn, order)

    @precondition(lambda self: any(order for _, order in self.blocks))
    @rule(data=st.data())
    def split(self, data: st.DataObject) -> None:
        """The owner decides to give back its pages in two halves; the zone is not told (split_page)."""
        pfn, order = data.draw(st.sampled_from([block for block in self.blocks if block[1]]))
        self.blocks.remove((pfn, order))
        self.blocks += [(pfn, order - 1), (pfn + (1 << (order - 1)), order - 1)]

    @rule(data=st.data())
    def free_at_random(self, data: st.DataObject) -> None:
        """Only what is aligned, inside and wholly allocated can be freed; all else changes nothing."""
        zone = self.zone
        pfn = data.draw(st.integers(zone.start_pfn - 2, zone.start_pfn + zone.pages + 1))
        order = data.draw(orders)
        allocated = set(pages_of(self.blocks))
        if pfn % (1 << order) == 0 and allocated.issuperset(range(pfn, pfn + (1 << order))):
            return
        before = zone.state(), zone.nr_free
        with pytest.raises(ValueError, match=r"^[^\n]+$"):
            zone.free_one_page(pfn, order)
        assert (zone.state(), zone.nr_free) == before

    @invariant()
    def nothing_lost(self) -> None:
        allocated = set(pages_of(self.blocks))
        assert len(allocated) == sum(1 << order for _, order in self.blocks), "a page was handed out twice"
        check_free_blocks(self.zone, allocated)
        for pfn in range(self.zone.start_pfn - 1, self.zone.start_pfn + self.zone.pages + 1):
            inside = 0 <= pfn - self.zone.start_pfn < self.zone.pages
            assert self.zone.is_free(pfn) == (inside and pfn not in allocated)

    def teardown(self) -> None:
        """Once all is given back, the blocks are those of a fresh zone, if perhaps in another order."""
        if not hasattr(self, "zone"):
            return
        for pfn, order in self.blocks:
            self.zone.free_one_page(pfn, order)
        assert {order: set(heads) for order, heads in self.zone.free_blocks().items()} == {
            order: set(heads) for order, heads in self.fresh.items()
        }


TestZone = ZoneMachine.TestCase
TestZone.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


@given(start_pfns, sizes)
def test_a_fresh_zone_is_all_free_in_blocks_that_could_not_be_larger(start_pfn: int, pages: int) -> None:
    zone = Zone(0, start_pfn, pages, NO_MARKS)
    check_free_blocks(zone, set())
    for heads in zone.free_blocks().values():
        assert list(heads) == sorted(heads)


def test_an_unaligned_zone_is_seeded_with_growing_then_shrinking_blocks() -> None:
    blocks = Zone(0, 3, 10, NO_MARKS).free_blocks()
    assert {order: heads for order, heads in blocks.items() if heads} == {0: (3, 12), 2: (4, 8)}


def test_single_pages_of_a_fresh_zone_come_in_ascending_order() -> None:
    zone = Zone(1, 64, 16, NO_MARKS)
    assert [zone.rmqueue(0) for _ in range(17)] == [*range(64, 80), None]


def test_the_page_freed_last_is_the_first_to_be_reused() -> None:
    zone = Zone(0, 0, 8, NO_MARKS)
    for _ in range(8):
        zone.rmqueue(0)
    for pfn in (2, 7, 4, 1):
        zone.free_one_page(pfn, 0)
    assert zone.free_blocks()[0] == (1, 4, 7, 2)
    assert [zone.rmqueue(0) for _ in range(4)] == [1, 4, 7, 2]


def test_buddies_are_found_by_absolute_frame_number() -> None:
    zone = Zone(0, 1, 4, NO_MARKS)
    for _ in range(4):
        zone.rmqueue(0)
    zone.free_one_page(1, 0)
    zone.free_one_page(2, 0)
    assert zone.free_blocks()[0] == (2, 1), "1 and 2 are neighbours, and first and second, but not buddies"
    zone.free_one_page(3, 0)
    assert zone.free_blocks()[1] == (2,)


def test_a_block_may_be_freed_page_by_page_and_pages_as_a_block() -> None:
    zone = Zone(0, 0, 8, NO_MARKS)
    fresh = zone.state()
    assert zone.rmqueue(2) == 0
    for pfn in range(4):
        zone.free_one_page(pfn, 0)
    assert zone.state() == fresh
    for _ in range(4):
        zone.rmqueue(0)
    zone.free_one_page(0, 2)
    assert zone.state() == fresh


def test_blocks_do_not_merge_beyond_max_order() -> None:
    zone = Zone(0, 0, 2 << MAX_ORDER, NO_MARKS)
    assert zone.free_blocks()[MAX_ORDER] == (0, 1 << MAX_ORDER)
    assert zone.rmqueue(MAX_ORDER + 1) is None
    assert zone.rmqueue(MAX_ORDER) == 0
    zone.free_one_page(0, MAX_ORDER)
    assert zone.free_blocks()[MAX_ORDER] == (0, 1 << MAX_ORDER)


# -1 frees one of the blocks held, anything else allocates a block of that order.
@given(start_pfns, st.integers(1, 64), st.lists(st.integers(-1, 3), max_size=30))
def test_a_zone_is_deterministic(start_pfn: int, pages: int, requests: list[int]) -> None:
    one, other = Zone(0, start_pfn, pages, NO_MARKS), Zone(0, start_pfn, pages, NO_MARKS)
    for zone in (one, other):
        blocks: list[tuple[int, int]] = []
        for order in requests:
            if order >= 0:
                pfn = zone.rmqueue(order)
                if pfn is not None:
                    blocks.append((pfn, order))
            elif blocks:
                zone.free_one_page(*blocks.pop(len(blocks) // 2))
    assert one.state() == other.state()
    assert hash(one.state()) == hash(other.state())
    assert [one.rmqueue(0) for _ in range(pages)] == [other.rmqueue(0) for _ in range(pages)]


def test_the_order_within_a_free_list_is_part_of_the_state() -> None:
    one, other = Zone(0, 0, 4, NO_MARKS), Zone(0, 0, 4, NO_MARKS)
    for zone, frees in ((one, (0, 2)), (other, (2, 0))):
        for _ in range(4):
            zone.rmqueue(0)
        for pfn in frees:
            zone.free_one_page(pfn, 0)
    assert one.state() != other.state()
    assert one.rmqueue(0) != other.rmqueue(0)


@given(st.integers(1, 10**7), st.integers(0, 10**6))
def test_watermarks_are_equally_spaced_by_the_larger_of_two_steps(managed: int, min_free: int) -> None:
    marks = setup_per_zone_wmarks(managed, min_free)
    step = marks.low - marks.min
    assert marks.min == min_free
    assert marks.high - marks.low == step
    assert step == max(min_free // 4, managed // 1000)


def test_watermarks_of_known_zones() -> None:
    assert setup_per_zone_wmarks(1_000_000, 2048) == (2048, 3048, 4048)
    assert setup_per_zone_wmarks(100_000, 2048) == (2048, 2560, 3072)
    assert setup_per_zone_wmarks(64, 3) == (3, 3, 3), "too small for any distance between the marks"


@given(st.integers(1, 64), orders, st.integers(-5, 70), st.integers(0, 10))
def test_zone_watermark_ok_is_the_kernels_inequality(pages: int, order: int, mark: int, extra: int) -> None:
    zone = Zone(0, 0, pages, NO_MARKS)
    large_enough = order == 0 or (1 << order) <= pages
    assert zone.zone_watermark_ok(order, mark, extra) == (
        pages + extra - (2**order - 1) > mark and large_enough
    )


def test_a_mark_must_be_exceeded_not_met() -> None:
    zone = Zone(0, 0, 8, Watermarks(2, 4, 8))
    assert not zone.zone_watermark_ok(0, 8)
    assert zone.zone_watermark_ok(0, 8, extra_free=1)
    assert zone.zone_watermark_ok(1, 6)
    assert not zone.zone_watermark_ok(1, 7)


def test_promised_pages_do_not_make_a_block() -> None:
    zone = Zone(0, 0, 4, NO_MARKS)
    for _ in range(4):
        zone.rmqueue(0)
    zone.free_one_page(0, 0)
    zone.free_one_page(2, 0)
    assert zone.zone_watermark_ok(0, 0, extra_free=100)
    assert not zone.zone_watermark_ok(1, 0, extra_free=100)


@pytest.mark.parametrize(
    ("node", "start_pfn", "pages", "marks", "line"),
    [
        (-1, 0, 8, NO_MARKS, "zone: node is -1, must not be negative"),
        (0, -4, 8, NO_MARKS, "zone of node 0: start_pfn is -4, must not be negative"),
        (1, 0, 0, NO_MARKS, "zone of node 1: pages is 0, must be at least 1"),
        *(
            (
                0,
                0,
                8,
                Watermarks(low, mid, high),
                f"zone of node 0: watermarks min={low} low={mid} high={high}, "
                "must be 0 <= min <= low <= high <= 8 pages",
            )
            for low, mid, high in [(-1, 0, 0), (3, 2, 4), (1, 5, 4), (1, 2, 9)]
        ),
    ],
)
def test_a_nonsensical_zone_is_refused_in_one_line(
    node: int, start_pfn: int, pages: int, marks: Watermarks, line: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        Zone(node, start_pfn, pages, marks)


@pytest.mark.parametrize(
    ("pfn", "order", "line"),
    [
        (15, 0, "zone of node 0: cannot free pfn 15 order 0, the zone's pages are 16 to 23"),
        (24, 0, "zone of node 0: cannot free pfn 24 order 0, the zone's pages are 16 to 23"),
        (16, 4, "zone of node 0: cannot free pfn 16 order 4, the zone's pages are 16 to 23"),
        (17, 1, "zone of node 0: cannot free pfn 17 order 1, must be a multiple of 2"),
        (16, -1, "zone of node 0: order is -1, must be 0 to 10"),
        (16, 11, "zone of node 0: order is 11, must be 0 to 10"),
        (20, 0, "zone of node 0: double free of pfn 20 order 0, pfn 20 is free already"),
        (16, 3, "zone of node 0: double free of pfn 16 order 3, pfn 20 is free already"),
    ],
)
def test_a_wrong_free_is_refused_in_one_line(pfn: int, order: int, line: str) -> None:
    zone = Zone(0, 16, 8, NO_MARKS)
    assert zone.rmqueue(2) == 16
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        zone.free_one_page(pfn, order)


def test_other_nonsense_is_refused_in_one_line() -> None:
    zone = Zone(0, 0, 8, NO_MARKS)
    with pytest.raises(ValueError, match=r"^zone of node 0: order is -1, must be 0 to 10$"):
        zone.rmqueue(-1)
    with pytest.raises(ValueError, match=r"^zone of node 0: order is -1, must be 0 to 10$"):
        zone.zone_watermark_ok(-1, 0)
    with pytest.raises(ValueError, match=r"^managed_pages is 0, must be at least 1$"):
        setup_per_zone_wmarks(0, 0)
    with pytest.raises(ValueError, match=r"^min_free_pages is -1, must not be negative$"):
        setup_per_zone_wmarks(8, -1)


def test_the_largest_blocks_come_together_again() -> None:
    zone = Zone(0, 0, 1 << MAX_ORDER, NO_MARKS)
    assert zone.rmqueue(0) == 0
    zone.free_one_page(0, 0)
    assert zone.free_blocks()[MAX_ORDER] == (0,)
