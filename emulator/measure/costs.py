"""What things cost on the simulated hardware: every figure of the timed engine's cost model.

All are parameters, because published figures disagree by up to seven times at 64 cores; the defaults come
near the sources named beside them and make one consistent machine of 2.5 GHz. "Assumed" says that no source
gives the figure by itself. What a kernel path costs is the sum of its operations; none has a price of its
own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

LINE_ENTRIES: Final = 8
"""Page-table entries in one cache line."""

PER_THOUSAND: Final = 1000


@dataclass(frozen=True, slots=True)
class Costs:
    """Prices in ns, but for `sockets` (a count) and `cache_misses_per_1000` (accesses).

    CPUs are dealt out to the sockets in equal consecutive blocks; sockets form a ring, and a hop is a step on
    it.
    """

    sockets: int = 1
    # --- user accesses ---
    access_ns: int = 1  # translation in the first TLB level, data in the CPU's caches; assumed
    cache_misses_per_1000: int = 50  # of the accesses, those whose data come from their tier; assumed
    fast_ns: int = 100  # load from DRAM (Nomad: ~100)
    slow_ns: int = 250  # load from CXL (Nomad: ~250)
    second_level_ns: int = 3  # extra for a hit in the second TLB level: 7 cycles (Intel optimization manual)
    walk_ns: int = 100  # one entry from DRAM (Nomad), upper levels in the paging-structure caches
    fault_ns: int = 500  # into the page fault handler and back; assumed, as an interrupt
    # --- flushing ---
    invlpg_ns: int = 100  # one page (kernel comment at tlb_single_page_flush_ceiling: ~100)
    flush_ns: int = 200  # writing CR3 so that the address space's entries go; assumed, twice an INVLPG
    cr3_ns: int = 100  # writing CR3 with the entries kept; assumed
    # On its way to a CPU a broadcast takes as long as an interrupt; nobody has published either by itself.
    invlpgb_ns: int = 100  # asking all CPUs to drop entries; assumed, as INVLPG
    tlbsync_ns: int = 500  # until word is back that the last has; assumed, as `ipi_deliver_ns`
    tlbi_ns: int = 100  # the same on arm64; assumed, as INVLPG
    dsb_ns: int = 100  # a DSB that has nothing to wait for; assumed, as a DRAM load
    # --- interrupts ---
    # One takes 2.7 us with 2 sockets, 6.6 us with 8; a shootdown 1.6 us with few cores, 6 us with 16 cores on
    # 2 sockets, 80 us with 120 on 8 (LATR, second hand). These figures make the sums so.
    ipi_send_ns: int = 120  # writing the APIC, for each target
    ipi_send_hop_ns: int = 240  # more for each hop
    ipi_deliver_ns: int = 500  # on its way
    ipi_deliver_hop_ns: int = 1300  # more for each hop
    interrupt_ns: int = 480  # into the handler and back: 1,200 cycles (Shinjuku)
    # --- what CPUs share ---
    instruction_ns: int = 1  # anything that touches nothing shared
    load_ns: int = 2  # a word that is in this CPU's cache; assumed
    atomic_ns: int = 8  # changing a word that only this CPU has: about 20 cycles; assumed
    line_ns: int = (
        50  # more if another CPU has changed it, or holds what is changed; assumed, half a DRAM load
    )
    line_hop_ns: int = 100  # more for each hop; assumed, a DRAM load
    lock_handover_ns: int = 100  # from unlock to the next owner's first instruction; assumed, two lines
    page_table_ns: int = 30  # an entry read or changed by the kernel, a line of them scanned; assumed
    folio_ns: int = 20  # a count, flag or list link of a folio; assumed
    rmap_ns: int = 100  # finding all mappings of a folio; assumed
    allocate_ns: int = 150  # a folio out of the buddy allocator; assumed
    page_fast_ns: int = 640  # 64 lines in or out of the fast tier, 10 at a time at `fast_ns`
    page_slow_ns: int = 1600  # the same for the slow tier at `slow_ns`; a copy pays for both its ends
    switch_ns: int = 1000  # from one task to another, the address space apart; assumed

    def distance(self, one: int, other: int, cpus: int) -> int:
        """Hops between two of `cpus` CPUs; 0 within a socket."""
        apart = abs(one * self.sockets // cpus - other * self.sockets // cpus)
        return min(apart, self.sockets - apart)

    def send(self, sender: int, target: int, cpus: int) -> int:
        """ns that sending one interrupt keeps the sender."""
        return self.ipi_send_ns + self.ipi_send_hop_ns * self.distance(sender, target, cpus)

    def deliver(self, sender: int, target: int, cpus: int) -> int:
        """ns that an interrupt is on its way once it has been sent."""
        return self.ipi_deliver_ns + self.ipi_deliver_hop_ns * self.distance(sender, target, cpus)

    def line(self, owner: int, cpu: int, cpus: int) -> int:
        """ns to get a cache line that `owner` has changed."""
        return self.line_ns + self.line_hop_ns * self.distance(owner, cpu, cpus)

    def access_ps(self, slow: bool) -> int:
        """Picoseconds of an average access that hits the first TLB level."""
        memory = self.slow_ns if slow else self.fast_ns
        return self.access_ns * 1000 + memory * self.cache_misses_per_1000 * 1000 // PER_THOUSAND
