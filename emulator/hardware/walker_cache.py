"""A TLB whose page walker caches upper entries: the paging-structure cache of one CPU.

What is cached names a page-table page, and walks go through it without looking at the upper table again,
until it is flushed. Who frees a page-table page has to flush before, or the walker reads what is no table.
"""

from __future__ import annotations

from typing import Any, ClassVar

from emulator.hardware.pte import PMD_ORDER
from emulator.hardware.tlb import PCID_SHIFT, Tlb, TlbShape


class WalkerTlb(Tlb):
    """Drops upper entries when x86 does (Intel SDM vol. 3A, 4.10.4.1): with a PCID's other entries, all of
    the PCID by INVLPG of any page, those of the address in a page fault. With `leaf_only` the invalidation of
    a page leaves them (RISC-V privileged ISA, SFENCE.VMA with an address)."""

    __slots__ = ("_leaf_only", "_pmds")

    keeps_pmds: ClassVar[bool] = True

    def __init__(self, shape: TlbShape, pmd_order: int = PMD_ORDER, leaf_only: bool = False) -> None:
        super().__init__(shape, pmd_order)
        self._leaf_only = leaf_only
        self._pmds: dict[int, int] = {}

    def pmd(self, pcid: int, vpn: int) -> int:
        """As `Tlb.pmd`."""
        return self._pmds.get(self._key(pcid, vpn), 0)

    def insert_pmd(self, pcid: int, vpn: int, pmd: int) -> None:
        """As `Tlb.insert_pmd`."""
        self._pmds[self._key(pcid, vpn)] = pmd

    def flush_all(self) -> None:
        """As `Tlb.flush_all`."""
        super().flush_all()
        self._pmds.clear()

    def flush_pcid(self, pcid: int, mm: int = 0) -> None:
        """As `Tlb.flush_pcid`."""
        super().flush_pcid(pcid, mm)
        self._drop(pcid)

    def flush_one(self, pcid: int, vpn: int) -> None:
        """As `Tlb.flush_one`."""
        super().flush_one(pcid, vpn)
        if not self._leaf_only:
            self._drop(pcid)

    def fault(self, pcid: int, vpn: int) -> None:
        """As `Tlb.fault`."""
        super().flush_one(pcid, vpn)
        if not self._leaf_only:
            self._pmds.pop(self._key(pcid, vpn), None)

    def state(self) -> tuple[Any, ...]:
        """As `Tlb.state`."""
        return (*super().state(), frozenset(self._pmds.items()))

    def _key(self, pcid: int, vpn: int) -> int:
        return pcid << PCID_SHIFT | vpn >> self._pmd_order

    def _drop(self, pcid: int) -> None:
        for key in [key for key in self._pmds if key >> PCID_SHIFT == pcid]:
            del self._pmds[key]
