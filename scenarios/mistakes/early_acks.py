"""Mistakes of those who acknowledge a flush before they do it (`--mmu early-ack`)."""

from __future__ import annotations

from emulator.kernel.instead import instead_of
from emulator.kernel.mmu.early_ack import EarlyAck
from emulator.kernel.mmu.x86 import X86
from emulator.kernel.percpu import PerCpu
from emulator.kernel.tlb import FlushTlbInfo
from emulator.policies.immediate import Immediate


class AcknowledgesFreedTables(Immediate):
    """Amit et al., EuroSys 2020: early acknowledgement is "not when page tables are freed". Here always: the
    page walker goes on through a table that is somebody else's page by then."""

    name = "mistake:acknowledges-freed-tables"

    @instead_of(EarlyAck.may_acknowledge)
    def whatever_it_is(self, mmu: EarlyAck, cpu: PerCpu, info: FlushTlbInfo) -> bool:
        """Nobody runs user code in a handler."""
        return True


class AcknowledgesAndReturns(Immediate):
    """Amit et al., EuroSys 2020: the handler that has acknowledged flushes before it returns. Here that is
    left to the next switch of address spaces, as if no user code came before."""

    name = "mistake:acknowledges-and-returns"

    @instead_of(X86.flush_tlb_func, within=EarlyAck.flush_tlb_func)
    async def later(self, mmu: EarlyAck, cpu: PerCpu, info: FlushTlbInfo) -> None:
        """Its generation will tell."""
        if info.initiating_cpu == cpu.number:
            await X86.flush_tlb_func(mmu, cpu, info)
        else:
            cpu.count_interrupt()
            cpu.count("nr_tlb_remote_flush_received")
