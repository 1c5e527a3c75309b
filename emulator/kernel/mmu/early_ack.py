"""Acknowledge first, flush then (Amit, Tai, Wei: "Don't shoot down TLB shootdowns!", EuroSys 2020).

Who is interrupted for a flush runs no user code before its handler returns, and the handler flushes. So
whoever waits need not wait for the flush, only for the handler's beginning. That does not hold of page
walkers, which go on by themselves: where page tables are freed the flush comes first. The initiator's own
flush goes on beside the others', as in v5.13.
"""

from __future__ import annotations

from typing import Final

from emulator.hardware.cpu import IpiRequest
from emulator.hardware.operations import AckIpi, Store
from emulator.kernel.mmu.x86 import X86
from emulator.kernel.percpu import PerCpu, flushing_word
from emulator.kernel.tlb import FlushTlbInfo, flush_tlb_func

EARLY_ACKS: Final = "tlb_early_acks"
"""Counter: per flush that was acknowledged before it was done."""


class EarlyAck(X86):
    """As x86, but for when a flush is acknowledged."""

    name = "early-ack"
    description = "as x86; who is interrupted acknowledges before it flushes, unless tables are freed"

    async def flush_tlb_multi(self, cpu: PerCpu, mask: int, info: FlushTlbInfo, freed_tables: bool) -> None:
        """native_flush_tlb_multi: says with the call whether tables are freed."""
        await super().flush_tlb_multi(cpu, mask, info._replace(freed_tables=int(freed_tables)), freed_tables)

    def may_acknowledge(self, cpu: PerCpu, info: FlushTlbInfo) -> bool:
        """Nothing but user code of this CPU could use what it still has."""
        return not info.freed_tables

    async def acknowledge(self, cpu: PerCpu, request: IpiRequest) -> bool:
        """Says first that no user's memory is to be touched: handlers of NMIs ask (nmi_uaccess_okay)."""
        if request.function != flush_tlb_func.__name__:
            return False
        if not self.may_acknowledge(cpu, FlushTlbInfo(*request.arguments)):
            return False
        await Store(flushing_word(cpu.number), 1)
        await AckIpi(request.sender, request.number)
        cpu.count(EARLY_ACKS)
        return True

    async def flush_tlb_func(self, cpu: PerCpu, info: FlushTlbInfo) -> None:
        """flush_tlb_func, after which the CPU may go on."""
        await super().flush_tlb_func(cpu, info)
        if info.initiating_cpu != cpu.number and self.may_acknowledge(cpu, info):
            await Store(flushing_word(cpu.number), 0)
