"""Mistakes that do no damage to memory: CPUs that wait for one another and never go on."""

from __future__ import annotations

from emulator.hardware.operations import (
    AtomicOr,
    AtomicXchg,
    Halt,
    Load,
    LocalIrqDisable,
    LocalIrqEnable,
    Lock,
    SendIpi,
    Unlock,
    WaitAcks,
)
from emulator.kernel.percpu import PerCpu
from emulator.kernel.sched import scheduler_ipi
from emulator.kernel.smp import cpus_of
from emulator.kernel.tlb import flush_everything, flush_tlb_func
from emulator.policies.migrc_v3 import MigrcV3

FLUSHING = "migrc_flushing"
WAITERS = "migrc_flush_waiters"
NO_PID = 0


class InterruptsOff(MigrcV3):
    """kernel/smp.c, smp_call_function_many_cond: "can deadlock when called with interrupts disabled".

    Here the list is taken and flushed for inside one section with interrupts off: two CPUs that do so for
    each other cannot acknowledge.
    """

    name = "mistake:interrupts-off"

    async def try_flush_free_folios(self, cpu: PerCpu) -> bool:
        """Waits deaf."""
        batch, folios = await self.take_lists(cpu, self._lists(cpu))
        info = flush_everything(cpu)
        others = cpus_of(batch.cpumask & ~cpu.bit)
        await LocalIrqDisable()
        if others:
            request = await SendIpi(others, flush_tlb_func.__name__, info, True)
            await flush_tlb_func(cpu, info)
            await WaitAcks(request)
        await LocalIrqEnable()
        return await self.release_all(cpu, folios)


class LockOrder(MigrcV3):
    """v3 keeps one list per node (`NODE_DATA(nid)->migrc_reqs`), which llist lets it do without locks.

    Here each list has a lock, and every CPU takes its own node's first: two CPUs of different nodes hold
    what the other one needs.
    """

    name = "mistake:lock-order"

    async def try_flush_free_folios(self, cpu: PerCpu) -> bool:
        """All locks around the whole flush."""
        nodes = len(cpu.parameters.watermarks)
        locks = [f"migrc_lock.{(cpu.number + step) % nodes}" for step in range(nodes)]
        for lock in locks:
            await Lock(lock)
        flushed = await super().try_flush_free_folios(cpu)
        for lock in reversed(locks):
            await Unlock(lock)
        return flushed


class LostWakeUp(MigrcV3):
    """v9's comment on a flush that another CPU has under way: whoever needs it has to wait for it.

    Here the second CPU waits, but asks to be woken only after it has looked, and sleeps without looking
    again: a wake-up that comes in between is lost.
    """

    name = "mistake:lost-wake-up"

    async def try_flush_free_folios(self, cpu: PerCpu) -> bool:
        """One flusher at a time; the others sleep until it is through."""
        while await AtomicXchg(FLUSHING, 1):
            if await Load(FLUSHING):
                await AtomicOr(WAITERS, cpu.bit)
                await Halt()
        flushed = await super().try_flush_free_folios(cpu)
        await AtomicXchg(FLUSHING, 0)
        waiters = cpus_of(await AtomicXchg(WAITERS, 0))
        if waiters:
            await SendIpi(waiters, scheduler_ipi.__name__, (NO_PID,), False)
        return flushed
