"""Mistakes of an ordinary shootdown: the kernel sends the interrupts that it owes, but not as it should."""

from __future__ import annotations

from emulator.hardware.operations import LocalIrqDisable, LocalIrqEnable, SendIpi
from emulator.kernel.percpu import PerCpu, Task, TlbUbc
from emulator.kernel.smp import cpus_of
from emulator.kernel.tlb import flush_everything, flush_tlb_func
from emulator.policies.immediate import Immediate


async def send_without_waiting(cpu: PerCpu, batch: TlbUbc) -> None:
    """arch_tlbbatch_flush that does not come to csd_lock_wait."""
    info = flush_everything(cpu)
    others = cpus_of(batch.cpumask & ~cpu.bit)
    if others:
        await SendIpi(others, flush_tlb_func.__name__, info, False)
    if batch.cpumask & cpu.bit:
        await LocalIrqDisable()
        await flush_tlb_func(cpu, info)
        await LocalIrqEnable()
    batch.clear()


class NoWaitForAcknowledgements(Immediate):
    """kernel/smp.c, smp_call_function_many_cond: `csd_lock_wait` for every csd, here left out.

    The sender goes on when the interrupts are sent, not when they have been handled.
    """

    name = "mistake:no-wait-for-acknowledgements"

    async def unmap_done(self, cpu: PerCpu) -> None:
        """Flushes ahead of the kernel's own, which then has nothing left to do."""
        await send_without_waiting(cpu, cpu.current.tlb_ubc)


class AloneNeedsNoFlush(Immediate):
    """arch/x86/mm/tlb.c, arch_tlbbatch_flush: flushes here if the mask names this CPU alone.

    Here a batch that names only its own CPU is taken for one that has been flushed page by page.
    """

    name = "mistake:alone-needs-no-flush"

    async def unmap_done(self, cpu: PerCpu) -> None:
        """Owes nothing to itself."""
        if cpu.current.tlb_ubc.cpumask == cpu.bit:
            cpu.current.tlb_ubc.clear()


class InterruptToNobody(Immediate):
    """mm/rmap.c, set_tlb_ubc_flush_pending: `arch_tlbbatch_add_mm` notes the CPUs in the task's batch.

    Here they are noted in a batch that nobody ever flushes.
    """

    name = "mistake:interrupt-to-nobody"

    def batch_for(self, task: Task, pte: int) -> TlbUbc:
        """A batch of its own for every entry, forgotten at once."""
        return TlbUbc()
