"""Changing the protection of a range (mm/mprotect.c, v6.6); so far for NUMA hints only.

All entries of the range first, then one range flush.
"""

from __future__ import annotations

from emulator.hardware.operations import AtomicAdd, CmpxchgPte, MappedRange, Series
from emulator.hardware.pte import PRESENT, PROTNONE, RW, pte_pfn
from emulator.kernel.mmzone import FAST_NODE
from emulator.kernel.percpu import PerCpu, tlb_flush_pending_word
from emulator.kernel.tlb import flush_tlb_mm_range


async def change_prot_numa(cpu: PerCpu, mm: int, start: int, end: int) -> int:
    """change_prot_numa over pages [start, end): how many entries became PROT_NONE.

    With memory tiering only folios outside the top tier get hints (change_pte_range). The write bit
    goes: after migration such a page comes back read-only.
    """
    nid = cpu.parameters.nid
    marked = [
        (vpn, entry)
        for vpn, entry in await MappedRange(mm, start, end)
        if entry & PRESENT and nid(pte_pfn(entry)) != FAST_NODE
    ]
    if not marked:
        return 0
    # tlb_gather_mmu: until the flush below is done, an inaccessible entry may still be cached. Whoever
    # unmaps one meanwhile has to see this (set_tlb_ubc_flush_pending).
    pending = tlb_flush_pending_word(mm)
    await AtomicAdd(pending, 1)
    seen = await Series(
        tuple(CmpxchgPte(mm, vpn, entry, entry & ~(PRESENT | RW) | PROTNONE) for vpn, entry in marked)
    )
    changed = [vpn for (vpn, entry), was in zip(marked, seen, strict=True) if was == entry]
    if changed:
        cpu.count("numa_pte_updates", len(changed))
        await flush_tlb_mm_range(cpu, mm, changed[0], changed[-1] + 1)
    await AtomicAdd(pending, -1)
    return len(changed)
