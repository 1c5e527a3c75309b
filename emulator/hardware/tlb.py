"""The translation cache of one CPU: two set-associative levels of page-table entries.

Page-table entries are kept as they were walked, permission and dirty bits included, and
nothing here ever asks memory: an entry that has gone stale is served until it is flushed
or evicted, which is what shootdowns are about. Walks belong elsewhere. The one idea: a
set is a dict, and the dict's insertion order is its LRU order, oldest first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

from emulator.hardware.pte import DIRTY, PMD_ORDER, PSE, RW

# A key names one cached page: PCID, page size, page number. Virtual page numbers of x86-64
# and of RISC-V have at most 45 bits, so that bit 51 is free to tell the page sizes apart.
PCID_SHIFT = 52
HUGE = 1 << 51
VPN_BITS = 51
PCID_BITS = 12
# Of entries that hold for all PCIDs: no PCID has this number, so that a CR3 write leaves them.
GLOBAL = 0

# A write is a hit only through an entry with both: without RW the entry does not permit it, and
# without DIRTY the bit must be set in memory first (Intel SDM Vol. 3A, "Accessed and Dirty Flags").
_WRITE_HIT = RW | DIRTY

# `touch` works in chunks of accesses that double from the first size to the last. A chunk costs a
# little whatever comes of it, so a run cut short by a miss must not have paid for a long one.
_FIRST_CHUNK = 32
_LAST_CHUNK = 1024

_Level = defaultdict[int, dict[int, int]]


class TlbShape(NamedTuple):
    """Size of both levels, in entries and in entries per set; the default is a recent server core."""

    l1_entries: int = 64
    l1_ways: int = 4
    l2_entries: int = 1536
    l2_ways: int = 12


class TouchPrice(NamedTuple):
    """What a hit costs, in any unit: `fast` or `slow` for the access, by whether its entry is below
    `slow_from` (the first entry of the slow tier: its frame, shifted); `second` is added for one in the
    second level."""

    fast: int
    slow: int
    second: int
    slow_from: int


_DEFAULT_SHAPE = TlbShape()


class Tlb:
    """Two-level, PCID-tagged translation cache with true LRU in each set.

    Neither level includes the other: an eviction from one leaves the other alone. Where
    both hold a page they hold the same entry. A hit in L1 does not renew the page in L2,
    as the second level does not see it.

    A 4 KiB and a 2 MiB entry may cover one address at once, as after a huge page was split
    without a flush. Hardware may then use either (Intel SDM Vol. 3A, "Details of TLB Use");
    here it is the first found in the order L1 small, L1 huge, L2 small, L2 huge.

    A huge entry covers 2**pmd_order pages: 2 MiB, unless a litmus test has smaller ones.

    Raises ValueError for a shape that cannot be built.
    """

    __slots__ = (
        "_huge_seen",
        "_l1",
        "_l1_mask",
        "_l1_ways",
        "_l2",
        "_l2_mask",
        "_l2_ways",
        "_lost",
        "_pmd_order",
        "pcide",
    )

    def __init__(self, shape: TlbShape = _DEFAULT_SHAPE, pmd_order: int = PMD_ORDER) -> None:
        self._pmd_order = pmd_order
        self.pcide = True  # what CR4 says; only an erratum goes by it (`walker_cache`)
        self._l1_ways = shape.l1_ways
        self._l2_ways = shape.l2_ways
        self._l1_mask = _set_count("l1", shape.l1_entries, shape.l1_ways) - 1
        self._l2_mask = _set_count("l2", shape.l2_entries, shape.l2_ways) - 1
        # Sets appear when first probed: a litmus run uses few of them and many caches.
        self._l1: _Level = defaultdict(dict)
        self._l2: _Level = defaultdict(dict)
        # What full flushes have dropped, if somebody counts that: set of the second level -> key -> entry.
        self._lost: dict[int, dict[int, int]] = {}
        # Nobody probes for 2 MiB entries until there has been one.
        self._huge_seen = False

    keeps_pmds: ClassVar[bool] = False
    """It has a paging-structure cache (`walker_cache`)."""

    def pmd(self, pcid: int, vpn: int) -> int:
        """The upper entry that a walk of page `vpn` would begin with; 0 if it begins at the root."""
        return 0

    def insert_pmd(self, pcid: int, vpn: int, pmd: int) -> None:
        """Keep the upper entry that a walk of page `vpn` has read, if such are kept."""

    def lookup(self, pcid: int, vpn: int) -> int | None:
        """Return the cached entry that translates page `vpn`, or None on a miss.

        Becomes the newest of its set in the level that hit; a hit in L2 also fills L1.
        For a 2 MiB entry the frame is the head frame: the caller adds what `vpn` is inside the page.
        """
        key = pcid << PCID_SHIFT | vpn
        l1_set = self._l1[vpn & self._l1_mask]
        pte = l1_set.pop(key, None)
        if pte is None:
            return self._lookup_rest(key, vpn, l1_set)
        l1_set[key] = pte
        return pte

    def peek(self, pcid: int, vpn: int) -> int | None:
        """What `lookup` would find, changing nothing."""
        key = pcid << PCID_SHIFT | vpn
        keys = [(key, vpn), huge_key(key, vpn, self._pmd_order)]
        for level, mask in ((self._l1, self._l1_mask), (self._l2, self._l2_mask)):
            for candidate, page in keys:
                pte = level[page & mask].get(candidate)
                if pte is not None:
                    return pte
        return None

    def insert(self, pcid: int, vpn: int, pte: int) -> None:
        """Cache `pte` for page `vpn` in both levels as the newest, in place of that page's older entry.

        With PSE set it is a huge entry that covers all of `vpn >> pmd_order`. Raises ValueError for
        a PCID beyond 12 bits or a page number beyond 51.
        """
        if pcid >> PCID_BITS or vpn >> VPN_BITS:
            raise cannot_insert(pcid, vpn)
        key = pcid << PCID_SHIFT
        if pte & PSE:
            self._huge_seen = True
            vpn >>= self._pmd_order
            key |= HUGE
        key |= vpn
        ways = self._l1[vpn & self._l1_mask]
        if ways.pop(key, None) is None and len(ways) >= self._l1_ways:
            del ways[next(iter(ways))]
        ways[key] = pte
        at = vpn & self._l2_mask
        ways = self._l2[at]
        if ways.pop(key, None) is None and len(ways) >= self._l2_ways:
            del ways[next(iter(ways))]
        ways[key] = pte
        if self._lost and (lost := self._lost.get(at)):
            self._found(lost, len(ways), key, pte)

    def touch(self, pcid: int, accesses: Sequence[int], start: int, stop: int) -> int:
        """Perform the hits at the head of `accesses[start:stop]`; return the index where they end.

        An access is `vpn << 1 | is_write`. No hit is: a miss, or a write whose entry lacks RW
        or DIRTY, so that hardware must walk. The cache ends as after `lookup` of each
        access up to and including the one returned.
        """
        l1 = self._l1
        l1_mask = self._l1_mask
        lookup_rest = self._lookup_rest
        huge_seen = self._huge_seen
        tag = pcid << PCID_SHIFT
        size = _FIRST_CHUNK
        # Where one chunk stayed within L1 the next is likely to; elsewhere trying is wasted.
        l1_only = False
        while start < stop:
            end = start + size
            chunk = accesses[start : end if end < stop else stop]
            if l1_only and self._touch_l1_only(tag, chunk):
                start += len(chunk)
            else:
                l1_only = True
                for access in chunk:
                    vpn = access >> 1
                    key = tag | vpn
                    l1_set = l1[vpn & l1_mask]
                    pte = l1_set.pop(key, None)
                    if pte is None:
                        pte = lookup_rest(key, vpn, l1_set)
                        if pte is None:
                            return start
                        # It may have been a 2 MiB hit in L1.
                        l1_only = huge_seen
                    else:
                        l1_set[key] = pte
                    if access & 1 and pte & _WRITE_HIT != _WRITE_HIT:
                        return start
                    start += 1
            if size < _LAST_CHUNK:
                size += size
        return stop

    def touch_for(
        self, pcid: int, accesses: Sequence[int], start: int, stop: int, budget: int, price: TouchPrice
    ) -> tuple[int, int]:
        """As `touch`, but no access begins once `budget` is spent: the index where it ended, what was spent.

        If less than `budget` was spent, it ended as `touch` does. `price.fast` must be more than 0 and
        `price.slow` not less than it.
        """
        fast, slow, second, slow_from = price
        l1 = self._l1
        l1_mask = self._l1_mask
        l1_ways = self._l1_ways
        l2 = self._l2
        l2_mask = self._l2_mask
        huge_seen = self._huge_seen
        tag = pcid << PCID_SHIFT
        spent = 0
        end = start + budget // fast + 1
        for access in accesses[start : end if end < stop else stop]:
            vpn = access >> 1
            key = tag | vpn
            l1_set = l1[vpn & l1_mask]
            pte = l1_set.pop(key, None)
            if pte is not None:
                l1_set[key] = pte
            elif huge_seen:
                covering, huge_vpn = huge_key(key, vpn, self._pmd_order)
                extra = 0 if covering in l1[huge_vpn & l1_mask] else second
                pte = self._lookup_rest(key, vpn, l1_set)
                if pte is None:
                    return start, spent
                spent += extra
            else:
                l2_set = l2[vpn & l2_mask]
                pte = l2_set.pop(key, None)
                if pte is None:
                    return start, spent
                l2_set[key] = pte
                if len(l1_set) >= l1_ways:
                    del l1_set[next(iter(l1_set))]
                l1_set[key] = pte
                spent += second
            if access & 1 and pte & _WRITE_HIT != _WRITE_HIT:
                return start, spent
            start += 1
            spent += fast if pte < slow_from else slow
            if spent >= budget:
                return start, spent
        return start, spent

    def flush_all(self) -> None:
        """Drop every entry of every PCID."""
        self._l1.clear()
        self._l2.clear()
        self._huge_seen = False

    def flush_pcid(self, pcid: int, mm: int = 0) -> None:
        """Drop every entry of `pcid`, which address space `mm` has from now on."""
        for level in (self._l1, self._l2):
            for ways in level.values():
                for key in [key for key in ways if key >> PCID_SHIFT == pcid]:
                    del ways[key]

    def flush_one(self, pcid: int, vpn: int) -> None:
        """Drop what translates page `vpn` of `pcid`, of either size, as INVLPG does."""
        key = pcid << PCID_SHIFT | vpn
        self._l1[vpn & self._l1_mask].pop(key, None)
        self._l2[vpn & self._l2_mask].pop(key, None)
        if self._huge_seen:
            key, vpn = huge_key(key, vpn, self._pmd_order)
            self._l1[vpn & self._l1_mask].pop(key, None)
            self._l2[vpn & self._l2_mask].pop(key, None)

    def flush_leaf(self, pcid: int, vpn: int) -> None:
        """As `flush_one`, but for upper entries, which stay."""
        self.flush_one(pcid, vpn)

    def fault(self, pcid: int, vpn: int) -> None:
        """A page fault: drop what is cached for the address (Intel SDM Vol. 3A, 4.10.4.1)."""
        self.flush_one(pcid, vpn)

    def state(self) -> tuple[tuple[tuple[int, int], ...], ...]:
        """All that decides what it will answer: per non-empty set of each level its entries in LRU order."""
        return tuple(
            tuple((at, *ways.items()) for at, ways in sorted(level.items()) if ways)  # type: ignore[misc]
            for level in (self._l1, self._l2)
        )

    def restore(self, state: tuple[Any, ...]) -> None:
        """Answer as in that `state` of a TLB of the same shape."""
        for level, sets in zip((self._l1, self._l2), state, strict=False):
            level.clear()
            for at, *entries in sets:
                level[at] = dict(entries)
        self._huge_seen = True

    def entries(self) -> Iterator[tuple[int, int, int]]:
        """Yield (pcid, vpn, pte) in ascending order for all that a lookup could use.

        A page cached in both levels appears once. A 2 MiB entry has the first of its vpns.
        """
        found: list[tuple[int, int, int]] = []
        for key, pte in self._merged().items():
            vpn = key & HUGE - 1
            found.append((key >> PCID_SHIFT, vpn << self._pmd_order if key & HUGE else vpn, pte))
        yield from sorted(found)

    def __len__(self) -> int:
        """Number of `entries`: never more than both levels hold together."""
        return len(self._merged())

    def _found(self, lost: dict[int, int], present: int, key: int, pte: int) -> None:
        """A walk has found an entry of a set that holds `present` now, and of which some are lost."""

    def _merged(self) -> dict[int, int]:
        merged: dict[int, int] = {}
        for level in (self._l2, self._l1):
            for ways in level.values():
                merged |= ways
        return merged

    def _lookup_rest(self, key: int, vpn: int, l1_set: dict[int, int]) -> int | None:
        """What `lookup` does once `l1_set` turned out not to hold the 4 KiB page."""
        if self._huge_seen:
            covering, huge_vpn = huge_key(key, vpn, self._pmd_order)
            huge_set = self._l1[huge_vpn & self._l1_mask]
            pte = huge_set.pop(covering, None)
            if pte is not None:
                huge_set[covering] = pte
                return pte
        l2_set = self._l2[vpn & self._l2_mask]
        pte = l2_set.pop(key, None)
        if pte is None:
            if not self._huge_seen:
                return None
            key, l1_set = covering, huge_set
            l2_set = self._l2[huge_vpn & self._l2_mask]
            pte = l2_set.pop(key, None)
            if pte is None:
                return None
        l2_set[key] = pte
        if len(l1_set) >= self._l1_ways:
            del l1_set[next(iter(l1_set))]
        l1_set[key] = pte
        return pte

    def _touch_l1_only(self, tag: int, chunk: Sequence[int]) -> bool:
        """Perform all of `chunk` if every access of it hits L1; otherwise change nothing and return False.

        While all hits are in L1 nothing moves between sets or levels, so only the order of
        the last use of each page matters: work is per distinct access, not per access.
        """
        l1 = self._l1
        l1_mask = self._l1_mask
        latest_first = dict.fromkeys(reversed(chunk))
        hits: list[tuple[dict[int, int], int, int]] = []
        for access in latest_first:
            vpn = access >> 1
            key = tag | vpn
            ways = l1[vpn & l1_mask]
            pte = ways.get(key)
            if pte is None:
                if not self._huge_seen:
                    return False
                key, vpn = huge_key(key, vpn, self._pmd_order)
                ways = l1[vpn & l1_mask]
                pte = ways.get(key)
                if pte is None:
                    return False
            if access & 1 and pte & _WRITE_HIT != _WRITE_HIT:
                return False
            hits.append((ways, key, pte))
        for ways, key, pte in reversed(hits):
            del ways[key]
            ways[key] = pte
        return True


def cannot_insert(pcid: int, vpn: int) -> ValueError:
    """The error of a key that has no room for these."""
    return ValueError(f"TLB insert: need pcid below 4096 and vpn below 2**51, got {pcid} and {vpn:#x}")


def huge_key(key: int, vpn: int, pmd_order: int) -> tuple[int, int]:
    """Key and huge page number of the entry that would cover the 4 KiB page of `key`."""
    huge_vpn = vpn >> pmd_order
    return key ^ vpn | HUGE | huge_vpn, huge_vpn


def _set_count(level: str, entries: int, ways: int) -> int:
    if entries <= 0 or ways <= 0:
        raise ValueError(f"TlbShape: {level} needs positive entries and ways, got {entries} and {ways}")
    sets, rest = divmod(entries, ways)
    if rest:
        raise ValueError(f"TlbShape: {level} needs entries divisible by ways, got {entries} and {ways}")
    if sets & sets - 1:
        raise ValueError(f"TlbShape: {level} needs a power of two of sets, got {entries}/{ways} = {sets}")
    return sets
