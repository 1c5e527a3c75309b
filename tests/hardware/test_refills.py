"""What full flushes drop and what is walked for again, against a cache that is never flushed in full."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from emulator.hardware.pte import ACCESSED, DIRTY, PRESENT, PSE, RW, mk_pte
from emulator.hardware.refills import CountingTlb
from emulator.hardware.tlb import Tlb, TlbShape

ENTRY = PRESENT | RW | ACCESSED | DIRTY
REFILLS, DROPPED = "tlb_refills_full", "tlb_entries_flushed_full"
# One entry in the first level, so that the second is in the order of use.
SHAPES = (TlbShape(1, 1, 8, 4), TlbShape(1, 1, 4, 4), TlbShape(1, 1, 16, 2), TlbShape(1, 1, 64, 8))

ACCESS = st.tuples(st.just("access"), st.integers(0, 11))
STEPS = st.lists(
    st.one_of(
        ACCESS,
        ACCESS,
        ACCESS,
        st.tuples(st.just("move"), st.integers(0, 11)),
        st.tuples(st.just("invlpg"), st.integers(0, 11)),
        st.tuples(st.just("fault"), st.integers(0, 11)),
        st.tuples(st.just("full"), st.just(0)),
    ),
    max_size=80,
)


def counting(shape: TlbShape) -> tuple[CountingTlb, dict[str, int]]:
    counts: dict[str, int] = {}
    return CountingTlb(shape, counts), counts


@given(st.sampled_from(SHAPES), STEPS)
def test_a_refill_is_a_walk_that_a_cache_never_flushed_in_full_would_not_make(
    shape: TlbShape, steps: list[tuple[str, int]]
) -> None:
    tlb, counts = counting(shape)
    never_flushed = Tlb(shape)
    table = {vpn: mk_pte(100 + vpn, ENTRY) for vpn in range(12)}
    refills = dropped = 0
    for kind, vpn in steps:
        if kind == "access":
            if tlb.lookup(1, vpn) is None:
                refills += never_flushed.lookup(1, vpn) == table[vpn]
                tlb.insert(1, vpn, table[vpn])
                never_flushed.insert(1, vpn, table[vpn])
            else:
                assert never_flushed.lookup(1, vpn) is not None
        elif kind == "move":
            # The page table changes and nobody flushes yet.
            table[vpn] = mk_pte((table[vpn] >> 12) + 100, ENTRY)
        elif kind == "invlpg":
            tlb.flush_one(1, vpn)
            never_flushed.flush_one(1, vpn)
        elif kind == "fault":
            tlb.fault(1, vpn)
            never_flushed.fault(1, vpn)
        else:
            dropped += len(tlb)
            tlb.flush_pcid(1, 7)
            assert len(tlb) == 0
        assert (counts[REFILLS], counts[DROPPED]) == (refills, dropped)
    assert counts["tlb_flushes_one"] == sum(kind == "invlpg" for kind, _ in steps)
    assert counts["tlb_flushes_full"] == sum(kind == "full" for kind, _ in steps)


pcids, vpns = st.sampled_from((1, 2)), st.sampled_from((0, 1, 2, 3, 4, 8, 511, 512, 1024))
HISTORY = st.lists(
    st.one_of(
        st.tuples(st.just("insert"), pcids, vpns, st.sampled_from((ENTRY, ENTRY | PSE, PRESENT | ACCESSED))),
        st.tuples(st.just("insert"), pcids, vpns, st.just(ENTRY)),
        st.tuples(st.just("lookup"), pcids, vpns),
        st.tuples(st.just("flush_one"), pcids, vpns),
        st.tuples(st.just("fault"), pcids, vpns),
        st.tuples(st.just("flush_pcid"), pcids, st.sampled_from((5, 6))),
        st.tuples(st.just("flush_all")),
    ),
    max_size=60,
)


@given(st.sampled_from((TlbShape(), TlbShape(4, 2, 12, 3), TlbShape(8, 1, 4, 4))), HISTORY)
def test_counting_changes_nothing_and_has_its_bounds(shape: TlbShape, history: list[tuple[Any, ...]]) -> None:
    (tlb, counts), plain = counting(shape), Tlb(shape)
    dropped = 0
    for name, *arguments in history:
        if name in ("flush_all", "flush_pcid"):
            dropped += sum(name == "flush_all" or pcid == arguments[0] for pcid, _, _ in tlb.entries())
        assert getattr(tlb, name)(*arguments) == getattr(plain, name)(*arguments)
        assert tlb.state() == plain.state()
        assert counts[DROPPED] == dropped
        assert counts[REFILLS] <= dropped
        assert sum(map(len, tlb._lost.values())) <= shape.l2_entries


def test_what_has_changed_meanwhile_is_no_refill() -> None:
    tlb, counts = counting(TlbShape())
    tlb.insert(1, 5, mk_pte(5, ENTRY))
    tlb.insert(1, 6, mk_pte(6, ENTRY))
    tlb.flush_pcid(1, 7)
    tlb.insert(1, 5, mk_pte(50, ENTRY))
    tlb.insert(1, 6, mk_pte(6, ENTRY))
    tlb.insert(1, 6, mk_pte(6, ENTRY))
    assert (counts[DROPPED], counts[REFILLS]) == (2, 1)


def test_two_flushes_in_a_row_lose_what_the_first_one_dropped() -> None:
    tlb, counts = counting(TlbShape())
    for vpn in range(512):
        tlb.insert(1, vpn, mk_pte(vpn, ENTRY))
    tlb.flush_pcid(1, 7)
    tlb.flush_pcid(1, 7)
    for vpn in range(512):
        tlb.insert(1, vpn, mk_pte(vpn, ENTRY))
    assert (counts[DROPPED], counts[REFILLS]) == (512, 512)


def test_a_pcid_that_goes_to_another_address_space_has_lost_nothing() -> None:
    tlb, counts = counting(TlbShape())
    tlb.flush_pcid(1, 7)
    tlb.insert(1, 5, mk_pte(5, ENTRY))
    tlb.flush_pcid(1, 8)
    tlb.insert(1, 5, mk_pte(5, ENTRY))
    assert (counts[DROPPED], counts[REFILLS]) == (1, 0)


def test_a_huge_entry_is_one_entry() -> None:
    tlb, counts = counting(TlbShape())
    tlb.insert(1, 513, mk_pte(512, ENTRY | PSE))
    tlb.flush_pcid(1, 7)
    tlb.insert(1, 600, mk_pte(512, ENTRY | PSE))
    assert (counts[DROPPED], counts[REFILLS]) == (1, 1)


def test_what_was_lost_does_not_outlive_the_place_it_had() -> None:
    tlb, counts = counting(TlbShape(1, 1, 2, 2))
    old = [mk_pte(100 + vpn, ENTRY) for vpn in range(3)]
    tlb.insert(1, 0, old[0])
    tlb.insert(1, 1, old[1])
    tlb.flush_pcid(1)
    tlb.insert(1, 2, old[2])  # without the flush it would have taken the place of page 0
    tlb.insert(1, 0, old[0])
    assert counts[REFILLS] == 0
    tlb.insert(1, 1, old[1])
    assert counts[REFILLS] <= 1


def test_a_pcid_that_has_changed_hands_stays_where_it_is() -> None:
    tlb, counts = counting(TlbShape(1, 1, 8, 4))
    entry = mk_pte(100, ENTRY)
    tlb.flush_pcid(1, 1)
    tlb.flush_pcid(1, 2)
    tlb.insert(1, 0, entry)
    tlb.flush_pcid(1, 2)
    tlb.insert(1, 0, entry)
    assert counts[REFILLS] == 1
