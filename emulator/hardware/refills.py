"""A TLB that counts what full flushes cost later: translations dropped, and walked for again unchanged.

A full flush (CR3 write) drops all entries of a PCID. What it drops is *lost* from then on, and keeps its
place in its set of the second level. A walk that finds the very entry that was lost is a *refill*: without
full flushes nobody would have walked. An entry is lost no more once it is walked for, once INVLPG or a fault
would have dropped it, once its PCID goes to another address space, and once it would have been evicted: lost
and present entries of a set are never more than its ways, the oldest lost one goes first.

It answers as any `Tlb` does, and nothing reads the counts back. Engines that explore use the plain one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from emulator.hardware.pte import PMD_ORDER, PSE
from emulator.hardware.tlb import HUGE, PCID_SHIFT, Tlb, TlbShape, huge_key


class CountingTlb(Tlb):
    """`count` is called with a counter's name and how much it grows by."""

    __slots__ = ("_lost", "_owners", "count")

    def __init__(
        self, shape: TlbShape, count: Callable[[str, int], None], pmd_order: int = PMD_ORDER
    ) -> None:
        super().__init__(shape, pmd_order)
        self.count = count
        # By set of the second level: key -> entry, oldest first. No key is both here and in the cache.
        self._lost: defaultdict[int, dict[int, int]] = defaultdict(dict)
        self._owners: dict[int, int] = {}  # PCID -> the address space that has it

    def insert(self, pcid: int, vpn: int, pte: int) -> None:
        """As `Tlb.insert`: what a walk has found."""
        super().insert(pcid, vpn, pte)
        key = pcid << PCID_SHIFT | vpn
        if pte & PSE:
            key, vpn = huge_key(key, vpn, self._pmd_order)
        at = vpn & self._l2_mask
        lost = self._lost.get(at)
        if lost:
            if lost.pop(key, None) == pte:
                self.count("tlb_refills_full", 1)
            self._trim(at)

    def flush_all(self) -> None:
        """As `Tlb.flush_all`."""
        for pcid in {key >> PCID_SHIFT for key in self._merged()}:
            self._drop(pcid)
        super().flush_all()
        self.count("tlb_flushes_full", 1)

    def flush_pcid(self, pcid: int, mm: int = 0) -> None:
        """As `Tlb.flush_pcid`."""
        self._drop(pcid)
        if self._owners.setdefault(pcid, mm) != mm:
            self._owners[pcid] = mm
            for lost in self._lost.values():
                for key in [key for key in lost if key >> PCID_SHIFT == pcid]:
                    del lost[key]
        self.count("tlb_flushes_full", 1)

    def flush_one(self, pcid: int, vpn: int) -> None:
        """As `Tlb.flush_one`: INVLPG."""
        self.fault(pcid, vpn)
        self.count("tlb_flushes_one", 1)

    def fault(self, pcid: int, vpn: int) -> None:
        """As `Tlb.fault`."""
        super().flush_one(pcid, vpn)
        key = pcid << PCID_SHIFT | vpn
        for one, page in ((key, vpn), huge_key(key, vpn, self._pmd_order)):
            lost = self._lost.get(page & self._l2_mask)
            if lost:
                lost.pop(one, None)

    def _drop(self, pcid: int) -> None:
        """Drop the entries of `pcid`: they are counted, and lost."""
        dropped = 0
        every_lost = self._lost
        for at, ways in self._l2.items():
            keys = [key for key in ways if key >> PCID_SHIFT == pcid]
            if not keys:
                continue
            dropped += len(keys)
            lost = every_lost[at]
            for key in keys:
                lost[key] = ways.pop(key)
        for ways in self._l1.values():
            for key in [key for key in ways if key >> PCID_SHIFT == pcid]:
                lost = every_lost[key & HUGE - 1 & self._l2_mask]
                if key not in lost:
                    dropped += 1
                    lost[key] = ways[key]
                del ways[key]
        for at in every_lost:
            self._trim(at)
        if dropped:
            self.count("tlb_entries_flushed_full", dropped)

    def _trim(self, at: int) -> None:
        """Forget what the set would have evicted."""
        lost = self._lost[at]
        extra = len(lost) + len(self._l2.get(at, ())) - self._l2_ways
        while extra > 0 and lost:
            del lost[next(iter(lost))]
            extra -= 1
