"""x86 whose CPUs drop entries by one another's instructions (arch/x86/mm/tlb.c, v6.15; AMD INVLPGB, TLBSYNC).

An mm that runs on several CPUs at once gets a *global* address-space number, the same on all CPUs. Its
flushes are broadcast: INVLPGB names the number, TLBSYNC waits until all TLBs have dropped what is cached
under it, loaded or not. So it needs no generations, nor a flush on switching. All others are flushed as on
x86.

The dangerous time is when an mm gets its number: CPUs still run it under numbers of their own, which a
broadcast does not reach (`finish_asid_transition`).

Departures: whether an mm gets a number is asked at every flush that interrupts, where the kernel asks once in
32 jiffies; one INVLPGB takes a range of any length; of a CPU one INVLPGB is under way at a time.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from emulator.hardware.operations import (
    ALL_NONGLOBALS,
    EVERYTHING,
    Invlpgb,
    Load,
    LoadCr3,
    Lock,
    Store,
    Tlbsync,
    Unlock,
    WaitWhile,
)
from emulator.hardware.tlb import GLOBAL
from emulator.kernel.mmu.x86 import X86
from emulator.kernel.percpu import (
    INIT_MM,
    LOADED_MM_SWITCHING,
    TLB_NR_DYN_ASIDS,
    PerCpu,
    TlbUbc,
    asid_transition_word,
    cpumask_word,
    global_asid_word,
    is_lazy_word,
    loaded_mm_asid_word,
    loaded_mm_word,
)
from emulator.kernel.smp import cpus_of
from emulator.kernel.tlb import ANY_MM, FLUSHED_NOTHING, ON_FLUSHED, TLB_FLUSH_ALL, FlushTlbInfo

BROADCASTS: Final = "tlb_broadcasts"
"""Counter: per flush that was broadcast."""
GLOBAL_ASID_LOCK: Final = "global_asid_lock"
LAST_GLOBAL_ASID: Final = "last_global_asid"
GLOBAL_ASID_USED: Final = "global_asid_used"
GLOBAL_ASID_FREED: Final = "global_asid_freed"


def is_global_asid(asid: int) -> bool:
    """It is the same on all CPUs."""
    return asid >= TLB_NR_DYN_ASIDS


class X86Invlpgb(X86):
    """As x86, but for address spaces that run on many CPUs."""

    name = "x86-invlpgb"
    description = "AMD's INVLPGB and TLBSYNC for what runs on four CPUs at once, else as x86 (v6.15)"
    broadcasts = True
    # It asks what other CPUs have loaded, as x86 does since v6.14.
    settings: ClassVar[dict[str, Any]] = {"lazy_mm_cpumask": True}
    everywhere: ClassVar[bool] = True
    """What is cached under a global number is up to date on every CPU."""

    # --- flushing ------------------------------------------------------------------------------------

    async def broadcast_tlb_flush(self, cpu: PerCpu, info: FlushTlbInfo, freed_tables: bool) -> bool:
        """broadcast_tlb_flush: without being migrated from the first to the last line, as TLBSYNC waits for
        what its own CPU has asked (cant_migrate)."""
        asid = await Load(global_asid_word(info.mm))
        if not asid:
            return False
        cpu.count(BROADCASTS)
        # The generation was raised by a locked operation, so that changes of entries are seen before.
        await self.invlpgb(cpu, asid + 1, info.mm, info.start, info.end, info.stride)
        await self.finish_asid_transition(cpu, info, freed_tables)
        await Tlbsync(cpu.number)
        return True

    async def invlpgb(
        self,
        cpu: PerCpu,
        pcid: int,
        mm: int = INIT_MM,
        start: int = 0,
        end: int = TLB_FLUSH_ALL,
        stride: int = 1,
    ) -> None:
        """__invlpgb on all CPUs."""
        mask = cpu.parameters.all_cpus & ~cpu.parameters.beside
        await Invlpgb(cpu.number, mask, pcid, mm, start, end, stride)

    async def flush_users(self, cpu: PerCpu, info: FlushTlbInfo, freed_tables: bool) -> None:
        """The rest of flush_tlb_mm_range; who interrupts others considers to get a number for the mm."""
        await super().flush_users(cpu, info, freed_tables)
        if await self.mm_active_cpus_exceeds(info.mm, cpu.parameters.global_asid_cpus - 1):
            await self.use_global_asid(cpu, info.mm)

    async def finish_asid_transition(self, cpu: PerCpu, info: FlushTlbInfo, freed_tables: bool) -> None:
        """finish_asid_transition: interrupt those who still run the mm under another number, until there are
        none. Another CPU may end the transition meanwhile; then lazy CPUs are left out if no tables go."""
        mm = info.mm
        if not await Load(asid_transition_word(mm)):
            return
        asid = await Load(global_asid_word(mm))
        for other in cpus_of(await Load(cpumask_word(mm))):
            # It may be about to load the mm with a number from before.
            await WaitWhile(loaded_mm_word(other), LOADED_MM_SWITCHING)
            if await Load(loaded_mm_word(other)) != mm:
                continue
            if await Load(loaded_mm_asid_word(other)) != asid:
                await self.flush_tlb_multi(cpu, await Load(cpumask_word(mm)), info, freed_tables)
                return
        await Store(asid_transition_word(mm), 0)

    async def flush_tlb_multi(self, cpu: PerCpu, mask: int, info: FlushTlbInfo, freed_tables: bool) -> None:
        """native_flush_tlb_multi: nobody is left out while numbers change."""
        everybody = freed_tables or (info.mm != ANY_MM and bool(await Load(asid_transition_word(info.mm))))
        await super().flush_tlb_multi(cpu, mask, info, everybody)

    async def flush_tlb_func(self, cpu: PerCpu, info: FlushTlbInfo) -> None:
        """flush_tlb_func: who runs the mm under another number takes the global one, which is up to date."""
        state = cpu.tlbstate
        if state.loaded_mm != INIT_MM and info.mm in (ANY_MM, state.loaded_mm):
            asid = await Load(global_asid_word(state.loaded_mm))
            if asid and state.loaded_mm_asid != asid:
                await self.switch_mm_irqs_off(cpu, state.loaded_mm)
            if is_global_asid(state.loaded_mm_asid):
                if info.initiating_cpu != cpu.number:
                    cpu.count_interrupt()
                    cpu.count("nr_tlb_remote_flush_received")
                cpu.probe(ON_FLUSHED, info.initiating_cpu, FLUSHED_NOTHING)
                return
        await super().flush_tlb_func(cpu, info)

    async def arch_tlbbatch_flush(self, cpu: PerCpu, batch: TlbUbc) -> None:
        """arch_tlbbatch_flush: invlpgb_flush_all_nonglobals, whatever the mm, also where its mask is empty by
        now (unmapped_pages): what is cached under a global number stays when a CPU leaves."""
        if batch.cpumask or batch.nr_flush_required:
            cpu.count(BROADCASTS)
            await self.invlpgb(cpu, ALL_NONGLOBALS)
            await Tlbsync(cpu.number)
        batch.cpumask = 0

    async def flush_tlb_kernel_range(self, cpu: PerCpu, start: int, end: int) -> None:
        """invlpgb_kernel_range_flush, or invlpgb_flush_all."""
        if end - start > cpu.parameters.tlb_single_page_flush_ceiling:
            await self.invlpgb(cpu, EVERYTHING)
        else:
            await self.invlpgb(cpu, GLOBAL, INIT_MM, start, end)
        await Tlbsync(cpu.number)

    # --- address spaces ------------------------------------------------------------------------------

    async def choose_new_asid(
        self, cpu: PerCpu, mm: int, next_tlb_gen: int, new_cpu: bool
    ) -> tuple[int, bool]:
        """choose_new_asid: what is cached under a global number is always up to date."""
        asid = await Load(global_asid_word(mm)) if mm != INIT_MM else 0
        return (asid, False) if asid else await super().choose_new_asid(cpu, mm, next_tlb_gen, new_cpu)

    async def switch_mm_irqs_off(self, cpu: PerCpu, mm: int) -> None:
        """switch_mm_irqs_off: whoever runs the mm already takes its global number, once it has one."""
        state = cpu.tlbstate
        before = state.loaded_mm_asid
        asid = await Load(global_asid_word(mm)) if mm != INIT_MM and state.loaded_mm == mm else 0
        if not asid:
            await super().switch_mm_irqs_off(cpu, mm)
        else:
            if state.is_lazy:
                state.is_lazy = False
                await Store(is_lazy_word(cpu.number), 0)
            if before != asid:
                await LoadCr3(mm, asid + 1, not self.everywhere)
                state.loaded_mm_asid = asid
        if state.loaded_mm_asid != before:
            await Store(loaded_mm_asid_word(cpu.number), state.loaded_mm_asid)

    # --- numbers -------------------------------------------------------------------------------------

    async def mm_active_cpus_exceeds(self, mm: int, threshold: int) -> bool:
        """mm_active_cpus_exceeds: more CPUs than that run it just now."""
        users = cpus_of(await Load(cpumask_word(mm)))
        count = 0
        for other in users if len(users) > threshold else ():
            if await Load(loaded_mm_word(other)) == mm and not await Load(is_lazy_word(other)):
                count += 1
        return count > threshold

    async def use_global_asid(self, cpu: PerCpu, mm: int) -> None:
        """use_global_asid, mm_assign_global_asid: who sees the number sees that CPUs have yet to take it."""
        await Lock(GLOBAL_ASID_LOCK)
        if not await Load(global_asid_word(mm)):
            asid = await self.allocate_global_asid(cpu)
            if asid:
                await Store(asid_transition_word(mm), 1)
                await Store(global_asid_word(mm), asid)
        await Unlock(GLOBAL_ASID_LOCK)

    async def allocate_global_asid(self, cpu: PerCpu) -> int:
        """allocate_global_asid: the next one that is not used; 0 if there is none."""
        most = cpu.parameters.max_asid_available
        last = await Load(LAST_GLOBAL_ASID)
        if not last or last >= most - 1:
            await self.reset_global_asid_space(cpu)
            last = TLB_NR_DYN_ASIDS
        used = await Load(GLOBAL_ASID_USED)
        asid = next((one for one in range(last, most) if not used >> one & 1), 0)
        if asid:
            await Store(GLOBAL_ASID_USED, used | 1 << asid)
            await Store(LAST_GLOBAL_ASID, asid)
        return asid

    async def reset_global_asid_space(self, cpu: PerCpu) -> None:
        """reset_global_asid_space: what was freed can be used again once nothing is cached under it."""
        await self.invlpgb(cpu, ALL_NONGLOBALS)
        await Tlbsync(cpu.number)
        used = await Load(GLOBAL_ASID_USED)
        await Store(GLOBAL_ASID_USED, used & ~await Load(GLOBAL_ASID_FREED))
        await Store(GLOBAL_ASID_FREED, 0)

    async def destroy_context(self, cpu: PerCpu, mm: int) -> None:
        """mm_free_global_asid: not used again before all numbers have had their turn."""
        if not await Load(global_asid_word(mm)):
            return
        await Lock(GLOBAL_ASID_LOCK)
        asid = await Load(global_asid_word(mm))
        await Store(GLOBAL_ASID_FREED, await Load(GLOBAL_ASID_FREED) | 1 << asid)
        await Store(global_asid_word(mm), 0)
        await Unlock(GLOBAL_ASID_LOCK)
