"""One entry, cleared and flushed for under its page-table lock (mm/pgtable-generic.c, v6.6)."""

from __future__ import annotations

from emulator.hardware.operations import Load, XchgPte
from emulator.hardware.pte import pte_present_to_hardware, pte_protnone
from emulator.kernel.percpu import PerCpu, tlb_flush_pending_word


async def pte_accessible(mm: int, entry: int) -> bool:
    """pte_accessible (arch/x86/include/asm/pgtable.h): whether a CPU may have the entry cached.

    An inaccessible one (PROT_NONE) is in no TLB, unless who made it so has yet to flush: since 20841405940e.
    """
    if pte_present_to_hardware(entry):
        return True
    return pte_protnone(entry) and await Load(tlb_flush_pending_word(mm)) != 0


async def ptep_clear_flush(cpu: PerCpu, mm: int, vpn: int) -> int:
    """ptep_clear_flush: clear the entry; what it was, which no CPU uses any more when this returns.

    The caller holds the page-table lock.
    """
    entry = await XchgPte(mm, vpn, 0)
    if await pte_accessible(mm, entry):
        await cpu.policy.flush_changed(cpu, mm, vpn, vpn + 1, 1, False)
    else:
        await cpu.policy.left_unflushed(cpu, mm, vpn)
    return entry
