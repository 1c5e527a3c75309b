"""The TLB against a model that anyone can check by eye: lists of entries, oldest first.

The small shapes make every eviction and every clash of sets likely. What an operation
list cannot show well (permission rule, shapes, capacity, long runs) is claimed one by one.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Sequence
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.hardware.pte import ACCESSED, DIRTY, PRESENT, PSE, RW, mk_pte
from emulator.hardware.tlb import Tlb, TlbShape

READ_ONLY = PRESENT | ACCESSED
CLEAN = READ_ONLY | RW
WRITTEN = CLEAN | DIRTY

SHAPES = (TlbShape(), TlbShape(4, 2, 12, 3), TlbShape(2, 2, 2, 1), TlbShape(8, 1, 4, 4))


class Entry(NamedTuple):
    pcid: int
    huge: bool
    number: int  # of the page, counted in pages of its own size
    pte: int

    def page(self) -> tuple[int, bool, int]:
        return self[:3]


class ModelLevel:
    def __init__(self, entries: int, ways: int) -> None:
        self.ways = ways
        self.sets: list[list[Entry]] = [[] for _ in range(entries // ways)]

    def use(self, pcid: int, huge: bool, number: int) -> Entry | None:
        entries = self.sets[number % len(self.sets)]
        for entry in entries:
            if entry.page() == (pcid, huge, number):
                entries.remove(entry)
                entries.append(entry)
                return entry
        return None

    def put(self, new: Entry) -> None:
        entries = self.sets[new.number % len(self.sets)]
        entries[:] = [entry for entry in entries if entry.page() != new.page()]
        entries.append(new)
        if len(entries) > self.ways:
            entries.pop(0)

    def all(self) -> list[Entry]:
        return [entry for entries in self.sets for entry in entries]

    def keep(self, kept: set[Entry]) -> None:
        self.sets = [[entry for entry in entries if entry in kept] for entries in self.sets]


class Model:
    def __init__(self, shape: TlbShape) -> None:
        self.l1 = ModelLevel(shape.l1_entries, shape.l1_ways)
        self.l2 = ModelLevel(shape.l2_entries, shape.l2_ways)
        self.levels = (self.l1, self.l2)

    def lookup(self, pcid: int, vpn: int) -> int | None:
        for level in self.levels:
            entry = level.use(pcid, False, vpn) or level.use(pcid, True, vpn // 512)
            if entry is not None:
                if level is self.l2:
                    self.l1.put(entry)
                return entry.pte
        return None

    def insert(self, pcid: int, vpn: int, pte: int) -> None:
        huge = bool(pte & PSE)
        for level in self.levels:
            level.put(Entry(pcid, huge, vpn // 512 if huge else vpn, pte))

    def touch(self, pcid: int, accesses: Sequence[int], start: int, stop: int) -> int:
        for index in range(start, stop):
            vpn, is_write = divmod(accesses[index], 2)
            pte = self.lookup(pcid, vpn)
            if pte is None or (is_write and not (pte & RW and pte & DIRTY)):
                return index
        return stop

    def flush_all(self) -> None:
        for level in self.levels:
            level.keep(set())

    def flush_pcid(self, pcid: int) -> None:
        for level in self.levels:
            level.keep({entry for entry in level.all() if entry.pcid != pcid})

    def flush_one(self, pcid: int, vpn: int) -> None:
        gone = {(pcid, False, vpn), (pcid, True, vpn // 512)}
        for level in self.levels:
            level.keep({entry for entry in level.all() if entry.page() not in gone})

    def entries(self) -> list[tuple[int, int, int]]:
        cached = {entry.page(): entry for level in (self.l2, self.l1) for entry in level.all()}
        return sorted((e.pcid, e.number * 512 if e.huge else e.number, e.pte) for e in cached.values())


# Few pages, so that they meet: neighbours, pages of one set, pages of one 2 MiB page, a far one.
pcids = st.sampled_from((0, 1, 4095))
vpns = st.one_of(
    st.integers(0, 9), st.sampled_from((16, 32, 128, 511, 512, 513, 1024, 1536, 8192, (1 << 45) - 1))
)
ptes = st.builds(
    mk_pte,
    st.integers(0, 7).map(lambda n: n * 512),
    st.sampled_from((READ_ONLY, CLEAN, WRITTEN, WRITTEN, WRITTEN | PSE, CLEAN | PSE)),
)
runs = st.lists(st.builds(lambda vpn, write: vpn << 1 | write, vpns, st.integers(0, 1)), max_size=12)
operations = st.one_of(
    st.tuples(st.just("insert"), pcids, vpns, ptes),
    st.tuples(st.just("insert"), pcids, vpns, ptes),
    st.tuples(st.just("lookup"), pcids, vpns),
    st.tuples(st.just("touch"), pcids, runs, st.integers(0, 2), st.integers(1, 20)),
    st.tuples(st.just("flush_one"), pcids, vpns),
    st.tuples(st.just("flush_pcid"), pcids),
    st.tuples(st.just("flush_all")),
)


def perform(tlb: Tlb | Model, operation: tuple[object, ...]) -> object:
    """What the operation returned; a run of accesses is repeated so that some are long."""
    match operation:
        case ("touch", int(pcid), list(run), int(start), int(repeats)):
            accesses = run * repeats
            return tlb.touch(pcid, accesses, min(start, len(accesses)), len(accesses))
        case (str(name), *arguments):
            return getattr(tlb, name)(*arguments)
    raise AssertionError(operation)


@given(st.sampled_from(SHAPES), st.lists(operations, max_size=60))
def test_any_history_is_that_of_the_model(shape: TlbShape, history: list[tuple[object, ...]]) -> None:
    tlb, model = Tlb(shape), Model(shape)
    for operation in history:
        assert perform(tlb, operation) == perform(model, operation)
        assert list(tlb.entries()) == model.entries()
        assert len(tlb) == len(model.entries())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(5))
def test_a_long_crowded_history_is_that_of_the_model(shape: TlbShape, seed: int) -> None:
    """Full sets all the time, so that every operation meets evicted, half-evicted and huge pages."""
    rng = random.Random(seed)
    tlb, model = Tlb(shape), Model(shape)
    for _ in range(2000):
        pcid, vpn = rng.randrange(2), rng.randrange(8) * 512 + rng.randrange(5)
        pte = mk_pte(rng.randrange(8) << 9, rng.choice((READ_ONLY, CLEAN, WRITTEN)) | rng.choice((0, PSE)))
        kind = rng.random()
        operation: tuple[object, ...] = ("lookup", pcid, vpn)
        if kind < 0.3:
            operation = ("insert", pcid, vpn, pte)
        elif kind < 0.4:
            operation = ("flush_one", pcid, vpn)
        elif kind < 0.41:
            operation = ("flush_pcid", pcid)
        elif kind < 0.415:
            operation = ("flush_all",)
        elif kind < 0.5:
            operation = ("touch", pcid, [vpn << 1 | 1, vpn + 1 << 1], 0, rng.choice((1, 40)))
        assert perform(tlb, operation) == perform(model, operation)
        assert list(tlb.entries()) == model.entries()


@given(
    st.sampled_from(SHAPES),
    st.integers(2, 100),
    st.integers(0, 2**32),
    st.sampled_from((0, 0, 1, 20)),
    st.booleans(),
)
def test_long_touch_is_a_loop_of_lookups(
    shape: TlbShape, pages: int, seed: int, cold: int, huge: bool
) -> None:
    """Runs of thousands over a hot set, cut by what must be walked, leave the same LRU order behind."""
    rng = random.Random(seed)
    tlb, model = Tlb(shape), Model(shape)
    accesses = [rng.randrange(pages) << 1 | rng.randrange(2) for _ in range(3000)]
    for _ in range(cold):
        accesses[rng.randrange(3000)] = rng.randrange(1000, 1100) << 1
    index = 0
    while index < len(accesses):
        stopped = tlb.touch(5, accesses, index, len(accesses))
        assert stopped == model.touch(5, accesses, index, len(accesses))
        index = stopped
        if index < len(accesses):
            vpn, is_write = divmod(accesses[index], 2)
            flags = (WRITTEN if is_write else CLEAN) | (PSE if huge and vpn % 3 == 0 else 0)
            for each in (tlb, model):
                each.insert(5, vpn, mk_pte(vpn << 9, flags))
                each.lookup(5, vpn)
            index += 1
    # New pages push the old ones out one by one: in the same order only if LRU agrees.
    for vpn in range(200, 300):
        for each in (tlb, model):
            each.insert(5, vpn, mk_pte(vpn, CLEAN))
        assert list(tlb.entries()) == model.entries()


@pytest.mark.parametrize("flags", [READ_ONLY, CLEAN, READ_ONLY | DIRTY, WRITTEN])
@pytest.mark.parametrize("size", [0, PSE])
@pytest.mark.parametrize("reads_before", [0, 5, 500])
def test_a_write_hits_only_a_writable_dirty_entry(flags: int, size: int, reads_before: int) -> None:
    tlb = Tlb()
    tlb.insert(1, 512, mk_pte(512, flags | size))
    accesses = [512 << 1] * reads_before + [512 << 1 | 1]
    hits = reads_before + (flags == WRITTEN)
    assert tlb.touch(1, accesses, 0, len(accesses)) == hits


def test_insert_after_the_walk_makes_the_write_a_hit_in_both_levels() -> None:
    tlb = Tlb(TlbShape(1, 1, 4, 4))
    tlb.insert(1, 7, mk_pte(3, CLEAN))
    tlb.insert(1, 7, mk_pte(3, WRITTEN))
    assert tlb.touch(1, [7 << 1 | 1], 0, 1) == 1
    tlb.insert(1, 8, mk_pte(4, CLEAN))  # L1 has one entry: page 7 is now in L2 alone
    assert tlb.touch(1, [7 << 1 | 1], 0, 1) == 1
    assert list(tlb.entries()) == [(1, 7, mk_pte(3, WRITTEN)), (1, 8, mk_pte(4, CLEAN))]


def test_touch_stays_within_its_bounds() -> None:
    tlb = Tlb()
    tlb.insert(1, 7, mk_pte(3, WRITTEN))
    miss = 9 << 1
    assert tlb.touch(1, [miss, 7 << 1, 7 << 1, miss], 1, 3) == 3
    assert tlb.touch(1, [miss, 7 << 1, 7 << 1, miss], 1, 4) == 3
    assert tlb.touch(1, [miss], 0, 0) == 0
    assert tlb.touch(1, [], 0, 0) == 0


def test_touch_takes_any_sequence_of_integers() -> None:
    tlb = Tlb()
    tlb.insert(1, 7, mk_pte(3, WRITTEN))
    accesses = [7 << 1 | 1] * 300 + [9 << 1]
    for sequence in (accesses, tuple(accesses), array("Q", accesses), memoryview(array("Q", accesses))):
        assert tlb.touch(1, sequence, 0, 301) == 300


def test_eviction_takes_the_least_recently_used_of_the_set() -> None:
    tlb = Tlb(TlbShape(2, 2, 2, 2))
    tlb.insert(0, 1, mk_pte(1, CLEAN))
    tlb.insert(0, 2, mk_pte(2, CLEAN))
    assert tlb.lookup(0, 1) == mk_pte(1, CLEAN)
    tlb.insert(0, 3, mk_pte(3, CLEAN))
    # L1 saw the lookup and gave up page 2; L2 did not see it and gave up page 1. Neither told the other.
    assert [vpn for _, vpn, _ in tlb.entries()] == [1, 2, 3]
    # The hit in L2 puts page 2 in the place of page 1, which then is nowhere.
    assert tlb.lookup(0, 2) == mk_pte(2, CLEAN)
    assert tlb.lookup(0, 1) is None


def test_a_stale_entry_is_served_until_it_is_flushed() -> None:
    tlb = Tlb()
    tlb.insert(1, 7, mk_pte(3, WRITTEN))
    tlb.insert(2, 7, mk_pte(4, WRITTEN))
    tlb.flush_one(1, 8)
    tlb.flush_pcid(3)
    assert tlb.lookup(1, 7) == mk_pte(3, WRITTEN)
    tlb.flush_one(1, 7)
    assert tlb.lookup(1, 7) is None
    assert tlb.lookup(2, 7) == mk_pte(4, WRITTEN)
    tlb.flush_pcid(2)
    assert tlb.lookup(2, 7) is None


def test_flush_one_reaches_an_entry_that_is_in_l2_alone() -> None:
    tlb = Tlb(TlbShape(1, 1, 8, 8))
    for vpn, flags in ((7, CLEAN), (1024, CLEAN | PSE), (9, CLEAN)):
        tlb.insert(1, vpn, mk_pte(512, flags))
    tlb.flush_one(1, 7)
    tlb.flush_one(1, 1025)
    assert tlb.lookup(1, 7) is None
    assert tlb.lookup(1, 1024) is None
    assert tlb.lookup(1, 9) is not None


def test_one_huge_entry_covers_512_pages_and_falls_as_one() -> None:
    tlb = Tlb()
    huge = mk_pte(512, WRITTEN | PSE)
    tlb.insert(1, 1024 + 77, huge)
    assert {tlb.lookup(1, vpn) for vpn in range(1024, 1536)} == {huge}
    assert tlb.lookup(1, 1023) is None
    assert tlb.lookup(1, 1536) is None
    assert tlb.lookup(2, 1024) is None
    assert list(tlb.entries()) == [(1, 1024, huge)]
    tlb.flush_one(1, 1535)
    assert tlb.lookup(1, 1024) is None
    assert len(tlb) == 0


def test_a_huge_entry_outlives_the_split_that_nobody_flushed() -> None:
    tlb = Tlb()
    huge, small = mk_pte(512, WRITTEN | PSE), mk_pte(9, CLEAN)
    tlb.insert(1, 1024, huge)
    tlb.insert(1, 1024, small)
    assert tlb.lookup(1, 1024) == small
    assert tlb.lookup(1, 1025) == huge
    assert sorted(pte for _, _, pte in tlb.entries()) == sorted((huge, small))
    tlb.flush_one(1, 1024)
    assert tlb.lookup(1, 1024) is None
    assert tlb.lookup(1, 1025) is None


def test_a_flush_of_everything_forgets_every_pcid_and_size() -> None:
    tlb = Tlb()
    for pcid in (0, 1, 4095):
        tlb.insert(pcid, 7, mk_pte(3, CLEAN))
        tlb.insert(pcid, 1024, mk_pte(512, CLEAN | PSE))
    assert len(tlb) == 6
    tlb.flush_all()
    assert list(tlb.entries()) == []
    assert tlb.lookup(4095, 1024) is None
    tlb.insert(1, 1024, mk_pte(512, CLEAN | PSE))
    assert tlb.lookup(1, 1030) == mk_pte(512, CLEAN | PSE)


@pytest.mark.parametrize("shape", SHAPES)
def test_no_stream_of_pages_exceeds_the_shape(shape: TlbShape) -> None:
    tlb = Tlb(shape)
    for vpn in range(5000):
        tlb.insert(vpn % 3, vpn * 7, mk_pte(512, CLEAN | (PSE if vpn % 5 == 0 else 0)))
        tlb.lookup(vpn % 3, vpn)
    assert shape.l2_entries <= len(tlb) <= shape.l1_entries + shape.l2_entries


@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        (TlbShape(l1_entries=0), "l1 needs positive entries and ways, got 0 and 4"),
        (TlbShape(l2_ways=-12), "l2 needs positive entries and ways, got 1536 and -12"),
        (TlbShape(l1_entries=63), "l1 needs entries divisible by ways, got 63 and 4"),
        (TlbShape(l2_entries=1536, l2_ways=8), "l2 needs a power of two of sets, got 1536/8 = 192"),
    ],
)
def test_a_shape_that_cannot_be_built_is_refused_in_one_line(shape: TlbShape, problem: str) -> None:
    with pytest.raises(ValueError) as refused:
        Tlb(shape)
    assert str(refused.value) == f"TlbShape: {problem}"


@pytest.mark.parametrize(("pcid", "vpn"), [(4096, 1), (-1, 1), (1, 1 << 51), (1, -1)])
def test_insert_refuses_what_would_pass_for_another_page(pcid: int, vpn: int) -> None:
    with pytest.raises(ValueError, match="need pcid below 4096 and vpn below"):
        Tlb().insert(pcid, vpn, mk_pte(1, CLEAN))
