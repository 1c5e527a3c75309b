"""A TLB that counts what full flushes cost later: translations dropped, and walked for again unchanged.

A full flush (CR3 write) drops all entries of a PCID. What it drops is *lost* from then on, and keeps its
place in its set of the second level. A walk that finds the very entry that was lost is a *refill*: without
full flushes nobody would have walked. An entry is lost no more once it is walked for, once INVLPG or a fault
would have dropped it, once its PCID goes to another address space, and once it would have been evicted: lost
and present entries of a set are never more than its ways, the oldest lost one goes first.

It answers as any `Tlb` does, and nothing reads the counts back. Engines that explore use the plain one.
"""

from __future__ import annotations

from typing import Final

from emulator.hardware.pte import PMD_ORDER
from emulator.hardware.tlb import HUGE, PCID_SHIFT, Tlb, TlbShape, huge_key

REFILLS: Final = "tlb_refills_full"
_ENTRIES = "tlb_entries_flushed_full"
_FULL = "tlb_flushes_full"
_ONE = "tlb_flushes_one"


class CountingTlb(Tlb):
    """Counts in `counters`, which may hold others too."""

    __slots__ = ("_owners", "counters")

    def __init__(self, shape: TlbShape, counters: dict[str, int], pmd_order: int = PMD_ORDER) -> None:
        super().__init__(shape, pmd_order)
        counters.update(dict.fromkeys((REFILLS, _ENTRIES, _FULL, _ONE), 0))
        self.counters = counters
        self._owners: dict[int, int] = {}  # PCID -> the address space that has it

    def flush_all(self) -> None:
        """As `Tlb.flush_all`."""
        for pcid in {key >> PCID_SHIFT for key in self._merged()}:
            self.counters[_ENTRIES] += self._drop(pcid)
        super().flush_all()
        self.counters[_FULL] += 1

    def flush_pcid(self, pcid: int, mm: int = 0) -> None:
        """As `Tlb.flush_pcid`."""
        self.counters[_ENTRIES] += self._drop(pcid)
        if self._owners.setdefault(pcid, mm) != mm:
            self._owners[pcid] = mm
            self._forget_lost(pcid)
        self.counters[_FULL] += 1

    def flush_one(self, pcid: int, vpn: int) -> None:
        """As `Tlb.flush_one`: INVLPG."""
        self.fault(pcid, vpn)
        self.counters[_ONE] += 1

    def fault(self, pcid: int, vpn: int) -> None:
        """As `Tlb.fault`."""
        super().flush_one(pcid, vpn)
        key = pcid << PCID_SHIFT | vpn
        for one, page in ((key, vpn), huge_key(key, vpn, self._pmd_order)):
            lost = self._lost.get(page & self._l2_mask)
            if lost:
                lost.pop(one, None)

    def _found(self, lost: dict[int, int], present: int, key: int, pte: int) -> None:
        if lost.pop(key, None) == pte:
            self.counters[REFILLS] += 1
        # There is one more than before at most.
        if len(lost) + present > self._l2_ways:
            del lost[next(iter(lost))]

    def _forget_lost(self, pcid: int) -> None:
        """What was lost of `pcid` is another address space's business now."""
        for lost in self._lost.values():
            for key in [key for key in lost if key >> PCID_SHIFT == pcid]:
                del lost[key]

    def _drop(self, pcid: int) -> int:
        """Drop the entries of `pcid`, which are lost now; how many."""
        dropped = 0
        limit = self._l2_ways
        every_lost = self._lost
        # No key is both lost and present. In a set, what is lost goes from the oldest to the newest.
        for at, ways in self._l2.items():
            keys = [key for key in ways if key >> PCID_SHIFT == pcid]
            if not keys:
                continue
            dropped += len(keys)
            lost = every_lost.setdefault(at, {})
            if len(keys) == len(ways):
                lost.update(ways)
                ways.clear()
            else:
                for key in keys:
                    lost[key] = ways.pop(key)
            while len(lost) + len(ways) > limit:
                del lost[next(iter(lost))]
        l1_only = set()
        for ways in self._l1.values():
            for key in [key for key in ways if key >> PCID_SHIFT == pcid]:
                at = key & HUGE - 1 & self._l2_mask
                lost = every_lost.setdefault(at, {})
                if key not in lost:
                    dropped += 1
                    lost[key] = ways[key]
                    l1_only.add(at)
                del ways[key]
        for at in l1_only:
            lost = every_lost[at]
            for key in [*lost][: max(0, len(lost) + len(self._l2.get(at, ())) - limit)]:
                del lost[key]
        return dropped
