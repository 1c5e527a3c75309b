"""Swap (mm/swap_state.c, mm/page_io.c, v6.6): an anonymous page goes to a slot, and its entries say which.

On its way the folio is in the page cache of the swap device, under its slot, as any page of a file is.
"""

from __future__ import annotations

from emulator.hardware.operations import (
    AtomicAdd,
    FilemapAdd,
    FilemapRemove,
    FolioClearFlag,
    FolioRmap,
    FolioSetFlag,
    WritePage,
)
from emulator.hardware.pte import SWAP, mk_pte
from emulator.kernel.percpu import PerCpu
from emulator.kernel.rmap import try_to_unmap
from emulator.memory.folios import PG_DIRTY

SWAP_FILE = -(1 << 30)
"""The file that stands for the device (swapper_spaces)."""
_NEXT_SLOT = "swap.next_slot"
# Isolation's reference and the swap cache's.
_FREEZABLE = 2


async def add_to_swap(pfn: int) -> int:
    """add_to_swap: a slot for an isolated folio, which is dirty as it was never written there.

    Slots are not used again.
    """
    slot = await AtomicAdd(_NEXT_SLOT, 1)
    await FilemapAdd(SWAP_FILE, slot, pfn)
    await FolioSetFlag(pfn, PG_DIRTY)
    return slot


async def swap_out(cpu: PerCpu, pfn: int) -> bool:
    """What shrink_folio_list does with an isolated anonymous folio of one page: whether it is to be freed.

    Each one that was written through an entry is flushed for before it is written out.
    """
    slot = await add_to_swap(pfn)
    if not await try_to_unmap(cpu, pfn, mk_pte(slot, SWAP)):
        return False
    await cpu.policy.flush_before_io(cpu)
    await FolioClearFlag(pfn, PG_DIRTY)
    # swap_writepage
    await WritePage(SWAP_FILE, slot, pfn)
    cpu.count("pswpout")
    return not await FolioRmap(pfn) and await FilemapRemove(SWAP_FILE, slot, pfn, _FREEZABLE)
