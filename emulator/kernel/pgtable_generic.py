"""One entry, cleared and flushed for under its page-table lock (mm/pgtable-generic.c, v6.6)."""

from __future__ import annotations

from emulator.hardware.operations import Load, XchgPte
from emulator.hardware.pte import pte_accessible, pte_protnone
from emulator.kernel.percpu import PerCpu, tlb_flush_pending_word


async def ptep_clear_flush(cpu: PerCpu, mm: int, vpn: int) -> int:
    """ptep_clear_flush: clear the entry; what it was, which no CPU uses any more when this returns.

    The caller holds the page-table lock. An inaccessible entry is in no TLB, unless who made it so has yet to
    flush (pte_accessible of x86).
    """
    entry = await XchgPte(mm, vpn, 0)
    if pte_accessible(entry) or (pte_protnone(entry) and await Load(tlb_flush_pending_word(mm))):
        await cpu.policy.flush_changed(cpu, mm, vpn, vpn + 1, 1, False)
    return entry
