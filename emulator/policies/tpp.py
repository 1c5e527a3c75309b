"""TPP, transparent page placement (Maruf and others, ASPLOS 2023; their patches for v5.13): which pages move.

Demotion is decoupled from allocation: kswapd of the fast tier goes on to a mark of its own, above those that
allocations look at, and each allocation below it wakes kswapd. A hint fault promotes what is active; what is
not is active from then on, and has to be met once more.

| patches | here |
|---|---|
| pgdat_toptier_balanced, WMARK_DEMOTE, __setup_per_zone_wmarks | balanced, demote_wmark_pages |
| rmqueue, check_toptier_balanced | before_handed_out |
| do_numa_page: PageActive, mark_page_accessed | is_active |

Departures. PG_active of a page of the slow tier is a word, as nothing ages there. A page that becomes active
gets its access back, as the paper has it; the patches leave it inaccessible, so that the same access faults
again until it is promoted. Promotion asks for the high mark, as in the patches. kswapd's aim for one pass
(kswapd_shrink_node) stays the high mark. Flushes are mainline's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from emulator.hardware.operations import Load, NrFree, Store
from emulator.kernel.fair import should_numa_migrate_memory
from emulator.kernel.instead import instead_of
from emulator.kernel.mmzone import FAST_NODE, wakeup_kswapd
from emulator.kernel.vmscan import pgdat_balanced
from emulator.policies.immediate import Immediate

if TYPE_CHECKING:
    from emulator.kernel.percpu import PerCpu

DEMOTE_SCALE_FACTOR = 200
"""vm.demote_scale_factor, in units of 1/10000 of the node's pages."""
ACTIVATED = "tpp_activated"
"""Counter: per page of the slow tier that a hint fault makes active instead of promoting it."""


def active_word(pfn: int) -> str:
    """PG_active of a frame of the slow tier."""
    return f"tpp_active.{pfn}"


def demote_wmark_pages(cpu: PerCpu) -> int:
    """demote_wmark_pages of the fast tier: between twice the high mark and all there is."""
    starts = cpu.parameters.starts
    managed = starts[FAST_NODE + 1] - starts[FAST_NODE]
    wanted = managed * DEMOTE_SCALE_FACTOR // 10_000
    return min(max(wanted, 2 * cpu.parameters.watermarks[FAST_NODE].high), managed)


class Tpp(Immediate):
    """`tpp`."""

    name = "tpp"
    description = "demotes ahead of allocations, promotes what hint faults meet twice (ASPLOS 2023)"

    async def toptier_balanced(self, cpu: PerCpu) -> bool:
        """pgdat_toptier_balanced."""
        return await NrFree(FAST_NODE) >= demote_wmark_pages(cpu)

    @instead_of(pgdat_balanced)
    async def balanced(self, cpu: PerCpu, node: int) -> bool:
        """pgdat_balanced: kswapd's aim."""
        return await (self.toptier_balanced(cpu) if node == FAST_NODE else pgdat_balanced(cpu, node))

    async def before_handed_out(self, cpu: PerCpu, pfn: int, order: int) -> None:
        """rmqueue: kswapd is woken long before allocations fail."""
        await super().before_handed_out(cpu, pfn, order)
        if cpu.parameters.nid(pfn) != FAST_NODE:
            if await Load(active_word(pfn)):
                await Store(active_word(pfn), 0)
        elif not await self.toptier_balanced(cpu):
            await wakeup_kswapd(cpu, FAST_NODE)

    @instead_of(should_numa_migrate_memory)
    async def is_active(self, cpu: PerCpu, pfn: int) -> bool:
        """do_numa_page: only what is active is promoted."""
        if not cpu.parameters.numa_promotes:
            return False
        if await Load(active_word(pfn)):
            return True
        await Store(active_word(pfn), 1)
        cpu.count(ACTIVATED)
        return False
