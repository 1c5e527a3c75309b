"""One entry: installed, or cleared and flushed for under its page-table lock (mm/pgtable-generic.c, v6.6)."""

from __future__ import annotations

from typing import Any, Final

from emulator.hardware.operations import (
    CmpxchgPte,
    CollapsePmd,
    Load,
    Operation,
    PopulatePmd,
    SetPte,
    XchgPte,
)
from emulator.hardware.pte import pte_present, pte_present_to_hardware, pte_protnone
from emulator.kernel.percpu import PerCpu, tlb_flush_pending_word

# Why an entry is installed, for a policy's hook.
FAULT: Final = "fault"
WP: Final = "write fault"
NUMA: Final = "hint fault"
MIGRATED: Final = "end of a migration"
FORK: Final = "fork"
MREMAP: Final = "mremap"
PROTECT: Final = "protection"
HUGE: Final = "split or collapse"
MERGED: Final = "ksm"
RESTORED: Final = "taken back"
KERNEL: Final = "vmap"


async def pte_accessible(mm: int, vpn: int, entry: int) -> bool:
    """pte_accessible (arch/x86/include/asm/pgtable.h): whether a CPU may have the entry cached.

    An inaccessible one (PROT_NONE) is in no TLB, unless who made it so has yet to flush: since 20841405940e.
    """
    if pte_present_to_hardware(entry):
        return True
    return pte_protnone(entry) and await Load(tlb_flush_pending_word(mm)) != 0


async def set_pte_at(
    cpu: PerCpu, change: SetPte | XchgPte | CmpxchgPte | PopulatePmd | CollapsePmd, why: str
) -> Any:
    """set_pte_at, set_pmd_at, ptep_set_access_flags: every present entry is installed here; what `change`
    answers."""
    # A method that a policy has in the operation's place is no operation (`instead_of`).
    if isinstance(change, Operation):
        pte: int = change.new if isinstance(change, CmpxchgPte) else change.pte
        if pte_present(pte):
            await cpu.policy.entry(cpu, change.mm, change.vpn, pte, why)
    return await change


async def ptep_clear_flush(cpu: PerCpu, mm: int, vpn: int) -> int:
    """ptep_clear_flush: clear the entry; what it was, which no CPU uses any more when this returns.

    The caller holds the page-table lock.
    """
    entry = await XchgPte(mm, vpn, 0)
    if await pte_accessible(mm, vpn, entry):
        await cpu.policy.flush_changed(cpu, mm, vpn, vpn + 1, 1, False)
    else:
        await cpu.policy.left_unflushed(cpu, mm, vpn)
    return entry
