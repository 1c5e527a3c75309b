"""A TLB whose page walker caches upper entries: the paging-structure cache of one CPU.

What is cached names a page-table page, and walks go through it without looking at the upper table again,
until it is flushed. Who frees a page-table page has to flush before, or the walker reads what is no table.
"""

from __future__ import annotations

from typing import Any, ClassVar

from emulator.hardware.pte import PMD_ORDER
from emulator.hardware.tlb import GLOBAL, PCID_SHIFT, Tlb, TlbShape


class WalkerTlb(Tlb):
    """Drops upper entries when x86 does (Intel SDM vol. 3A, 4.10.4.1): with a PCID's other entries, all of
    the PCID by INVLPG of any page, those of the address in a page fault. With `leaf_only` the invalidation of
    a page leaves them (RISC-V privileged ISA, SFENCE.VMA with an address). Those of the kernel go with any
    PCID's: there are no global upper entries. With `invlpg_miss` INVLPG leaves global entries while PCIDs are
    used (Intel's erratum of Alder Lake and others; arch/x86/mm/init.c, invlpg_miss_ids). With
    `by_address` the invalidation of a page drops the upper entries of its address, not of all (TLBI VAE1)."""

    __slots__ = ("_by_address", "_invlpg_miss", "_leaf_only", "_pmds")

    keeps_pmds: ClassVar[bool] = True

    def __init__(
        self,
        shape: TlbShape,
        pmd_order: int = PMD_ORDER,
        leaf_only: bool = False,
        invlpg_miss: bool = False,
        by_address: bool = False,
    ) -> None:
        super().__init__(shape, pmd_order)
        self._by_address = by_address
        self._invlpg_miss = invlpg_miss
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
        if not (self._invlpg_miss and self.pcide and pcid == GLOBAL):
            super().flush_one(pcid, vpn)
        if self._by_address:
            self._pmds.pop(self._key(pcid, vpn), None)
        elif not self._leaf_only:
            self._drop(pcid)

    def flush_leaf(self, pcid: int, vpn: int) -> None:
        """As `Tlb.flush_leaf`."""
        super().flush_one(pcid, vpn)

    def fault(self, pcid: int, vpn: int) -> None:
        """As `Tlb.fault`."""
        super().flush_one(pcid, vpn)
        if not self._leaf_only:
            self._pmds.pop(self._key(pcid, vpn), None)

    def state(self) -> tuple[Any, ...]:
        """As `Tlb.state`."""
        return (*super().state(), frozenset(self._pmds.items()), self.pcide)

    def restore(self, state: tuple[Any, ...]) -> None:
        """As `Tlb.restore`."""
        super().restore(state)
        *_, pmds, self.pcide = state
        self._pmds = dict(pmds)

    def _key(self, pcid: int, vpn: int) -> int:
        return pcid << PCID_SHIFT | vpn >> self._pmd_order

    def _drop(self, pcid: int) -> None:
        for key in [key for key in self._pmds if pcid == GLOBAL or key >> PCID_SHIFT in (pcid, GLOBAL)]:
            del self._pmds[key]
