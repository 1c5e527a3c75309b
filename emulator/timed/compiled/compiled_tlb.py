"""A TLB on the compiled side, for all but user accesses: it answers and counts as a `CountingTlb`."""

from __future__ import annotations

from collections.abc import Sequence

from emulator.hardware.pte import PMD_ORDER
from emulator.hardware.refills import REFILLS, CountingTlb
from emulator.hardware.tlb import PCID_BITS, VPN_BITS, TlbShape, TouchPrice, cannot_insert
from emulator.timed.compiled.touches import Touches

# Numbers of a quick call are two words apart; the first is the CPU's, and the answer takes its place.
_PCID, _VPN, _PTE = 2, 4, 6
_MOST_SPENT = 1 << 60  # at once
_EMPTY = (1 << 64) - 1


class CompiledTlb(CountingTlb):
    """That of CPU `number`, empty. Refills are counted once it is asked to `settle`."""

    __slots__ = ("_fault", "_flush", "_insert", "_lookup", "_number", "_settled", "_touches")

    def __init__(
        self,
        touches: Touches,
        number: int,
        shape: TlbShape,
        counters: dict[str, int],
        pmd_order: int = PMD_ORDER,
    ) -> None:
        super().__init__(shape, counters, pmd_order)
        quick = touches.compiled.quick
        self._touches = touches
        self._number = number
        self._settled = 0
        self._lookup = quick("tlb_lookup", number, 0, 0)
        self._insert = quick("tlb_insert", number, 0, 0, 0)
        self._fault = quick("tlb_fault", number, 0, 0)
        self._flush = quick("tlb_flush", number, 0)

    def lookup(self, pcid: int, vpn: int) -> int | None:
        """As `Tlb.lookup`."""
        words, call = self._lookup
        words[0], words[_PCID], words[_VPN] = self._number, pcid, vpn
        call()
        return words[0] or None

    def insert(self, pcid: int, vpn: int, pte: int) -> None:
        """As `Tlb.insert`."""
        if pcid >> PCID_BITS or vpn >> VPN_BITS:
            raise cannot_insert(pcid, vpn)
        words, call = self._insert
        words[_PCID], words[_VPN], words[_PTE] = pcid, vpn, pte
        call()

    def fault(self, pcid: int, vpn: int) -> None:
        """As `Tlb.fault`."""
        words, call = self._fault
        words[_PCID], words[_VPN] = pcid, vpn
        call()

    def touch(self, pcid: int, accesses: Sequence[int], start: int, stop: int) -> int:
        """As `Tlb.touch`."""
        return self.touch_for(pcid, accesses, start, stop, 1 << 62, TouchPrice(1, 1, 0, 0))[0]

    def touch_for(
        self, pcid: int, accesses: Sequence[int], start: int, stop: int, budget: int, price: TouchPrice
    ) -> tuple[int, int]:
        """As `Tlb.touch_for`, at the engine's prices."""
        total = 0
        while True:
            part = min(budget - total, _MOST_SPENT)
            start, spent = self._touches.touch(self._number, pcid, accesses, start, stop, part)
            total += spent
            if start == stop or spent < part or total >= budget:
                return start, total

    def settle(self) -> None:
        """Count the refills since the last time."""
        _, refills = self._touches.counted(self._number)
        self.counters[REFILLS] += refills - self._settled
        self._settled = refills

    def peek(self, pcid: int, vpn: int) -> int | None:
        """As `Tlb.peek`."""
        self._read()
        return super().peek(pcid, vpn)

    def state(self) -> tuple[tuple[tuple[int, int], ...], ...]:
        """As `Tlb.state`."""
        self._read()
        return super().state()

    def _merged(self) -> dict[int, int]:
        self._read()
        return super()._merged()

    def _drop(self, pcid: int) -> int:
        words, call = self._flush
        words[0], words[_PCID] = self._number, pcid
        call()
        return words[0]

    def _forget_lost(self, pcid: int) -> None:
        self._touches.compiled.call("tlb_new_owner", self._number, pcid)

    def _read(self) -> None:
        """Both levels as `Tlb` has them."""
        for level, sets, ways, second in (
            (self._l1, self._l1_mask + 1, self._l1_ways, False),
            (self._l2, self._l2_mask + 1, self._l2_ways, True),
        ):
            level.clear()
            pairs = self._touches.ways(self._number, second, sets * ways)
            for at in range(sets):
                newest_first = pairs[at * ways : (at + 1) * ways]
                level[at].update(pair for pair in reversed(newest_first) if pair[0] != _EMPTY)
