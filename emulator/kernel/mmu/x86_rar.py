"""x86 whose CPUs drop entries when a message of the APIC tells them (Intel Remote Action Request).

Rik van Riel's RFC v4, <20250619200442.1694583-1-riel@surriel.com>, on v6.15; of its 7/8 what v3 and 8/8 show.
What is to be dropped is a payload in a table that all CPUs share; each CPU has an action vector, where
payloads are pending for it. Its microcode acts on them, with interrupts off too. As messages are sent to the
CPUs of a mask, what is cached under a global number is up to date on those only: who is new there flushes.

Departures: payloads have the range that is meant, the posting's one page more; masks are trimmed where
somebody asks for it, the posting does it once a second.
"""

from __future__ import annotations

from typing import Final

from emulator.hardware.operations import (
    EVERYTHING,
    AtomicAnd,
    FlushTlbAll,
    Load,
    LocalIrqDisable,
    LocalIrqEnable,
    Lock,
    SendRar,
    SetPayload,
    Store,
    Tlbsync,
    Unlock,
)
from emulator.kernel.mmu.x86 import X86, do_flush_tlb_all
from emulator.kernel.mmu.x86_invlpgb import (
    BROADCASTS,
    GLOBAL_ASID_FREED,
    GLOBAL_ASID_USED,
    X86Invlpgb,
    is_global_asid,
)
from emulator.kernel.percpu import (
    INIT_MM,
    KernelParameters,
    PerCpu,
    TlbUbc,
    cpumask_word,
    global_asid_word,
)
from emulator.kernel.smp import on_each_cpu_cond_mask
from emulator.kernel.tlb import (
    ANY_MM,
    FLUSHED_ALL,
    LEFT_LAZY,
    ON_FLUSHED,
    TLB_FLUSH_ALL,
    TLB_GENERATION_INVALID,
    FlushTlbInfo,
    flush_tlb_func,
    flush_tlb_local,
)

RAR_INVLPG_MAX_PAGES: Final = 63


def rar_lock(slot: int) -> str:
    """rar_locks[slot]: of the CPUs that share a payload."""
    return f"rar_lock.{slot}"


class X86Rar(X86Invlpgb):
    """As with INVLPGB, but by messages to the CPUs of a mask."""

    name = "x86-rar"
    description = "Intel's Remote Action Requests for what runs on four CPUs at once, else as x86 (RFC v4)"
    everywhere = False

    def invalidators(self, parameters: KernelParameters) -> tuple[int, ...]:
        """Payloads, by number."""
        return tuple(range(min(parameters.cpus, parameters.rar_max_payloads)))

    # --- messages --------------------------------------------------------------------------------------

    async def smp_call_rar_many(
        self, cpu: PerCpu, mask: int, pcid: int, mm: int = INIT_MM, start: int = 0, end: int = TLB_FLUSH_ALL
    ) -> None:
        """smp_call_rar_many: have the other CPUs of `mask` drop what is cached under `pcid`, and wait for
        them. CPUs whose numbers leave the same rest share a payload, which has a lock."""
        others = mask & ~cpu.bit & ~cpu.parameters.beside
        if not others:
            return
        if end - start >= RAR_INVLPG_MAX_PAGES:
            start, end = 0, TLB_FLUSH_ALL
        slot = cpu.number % cpu.parameters.rar_max_payloads
        await Lock(rar_lock(slot))
        await self.signal(SetPayload(slot, pcid, mm, start, end, 1), SendRar(slot, others))
        await Tlbsync(slot)
        await Unlock(rar_lock(slot))

    async def signal(self, payload: SetPayload, message: SendRar) -> None:
        """set_payload, set_action_entry: in that order (smp_wmb), as a CPU that acts on another payload finds
        what is pending."""
        await payload
        await message

    # --- flushing --------------------------------------------------------------------------------------

    async def broadcast_tlb_flush(self, cpu: PerCpu, info: FlushTlbInfo, freed_tables: bool) -> bool:
        """rar_tlb_flush: here, as the CPU's own message was seen not to flush (v4, 8/8), then on the others;
        those that run the mm under another number are interrupted after that."""
        asid = await Load(global_asid_word(info.mm))
        if not asid:
            return False
        cpu.count(BROADCASTS)
        mask = await Load(cpumask_word(info.mm))
        if mask & cpu.bit:
            await self.flush_here(cpu, info)
        await self.smp_call_rar_many(cpu, mask, asid + 1, info.mm, info.start, info.end)
        await self.finish_asid_transition(cpu, info, freed_tables)
        return True

    async def flush_here(self, cpu: PerCpu, info: FlushTlbInfo) -> None:
        """The CPU's own part."""
        await LocalIrqDisable()
        await self.flush_tlb_func(cpu, info)
        await LocalIrqEnable()

    async def flush_tlb_multi(self, cpu: PerCpu, mask: int, info: FlushTlbInfo, freed_tables: bool) -> None:
        """native_flush_tlb_multi, should_flush_all: nobody is left out where the mm has a global number."""
        everybody = freed_tables or (info.mm != ANY_MM and bool(await Load(global_asid_word(info.mm))))
        await X86.flush_tlb_multi(self, cpu, mask, info, everybody)

    async def flush_tlb_func(self, cpu: PerCpu, info: FlushTlbInfo) -> None:
        """flush_tlb_func: under a global number everything is flushed, as it has no generation."""
        state = cpu.tlbstate
        if state.loaded_mm == INIT_MM or info.mm not in (ANY_MM, state.loaded_mm):
            await X86.flush_tlb_func(self, cpu, info)
            return
        if state.is_lazy:
            if info.initiating_cpu != cpu.number:
                cpu.count_interrupt()
                cpu.count("nr_tlb_remote_flush_received")
            cpu.probe(ON_FLUSHED, info.initiating_cpu, LEFT_LAZY)
            await AtomicAnd(cpumask_word(state.loaded_mm), cpu.parameters.all_cpus ^ cpu.bit)
            await self.switch_mm_irqs_off(cpu, INIT_MM)
            return
        asid = await Load(global_asid_word(state.loaded_mm))
        if asid and state.loaded_mm_asid != asid:
            await self.switch_mm_irqs_off(cpu, state.loaded_mm)
        if not is_global_asid(state.loaded_mm_asid):
            await X86.flush_tlb_func(self, cpu, info)
            return
        if info.initiating_cpu != cpu.number:
            cpu.count_interrupt()
            cpu.count("nr_tlb_remote_flush_received")
        else:
            cpu.count("nr_tlb_local_flush_all")
        await flush_tlb_local(cpu)
        cpu.probe(ON_FLUSHED, info.initiating_cpu, FLUSHED_ALL)

    async def trim_cpumask(self, cpu: PerCpu, mm: int) -> None:
        """trim_cpumask: CPUs that run something else leave the mask, by an interrupt (flush_tlb_func)."""
        info = FlushTlbInfo(mm, 0, TLB_FLUSH_ALL, TLB_GENERATION_INVALID, cpu.number)
        await on_each_cpu_cond_mask(cpu, flush_tlb_func, info, await Load(cpumask_word(mm)), skip_lazy=False)

    async def arch_tlbbatch_flush(self, cpu: PerCpu, batch: TlbUbc) -> None:
        """arch_tlbbatch_flush: rar_full_flush of the batch's CPUs, and all that this one has."""
        if batch.cpumask:
            cpu.count(BROADCASTS)
            await self.smp_call_rar_many(cpu, batch.cpumask, EVERYTHING)
            if batch.cpumask & cpu.bit:
                await FlushTlbAll()
        batch.cpumask = 0

    async def flush_tlb_kernel_range(self, cpu: PerCpu, start: int, end: int) -> None:
        """rar_flush_all: everything everywhere, as payloads of a range leave global entries."""
        await self.smp_call_rar_many(cpu, cpu.parameters.all_cpus, EVERYTHING)
        await FlushTlbAll()

    # --- address spaces and numbers --------------------------------------------------------------------

    async def choose_new_asid(
        self, cpu: PerCpu, mm: int, next_tlb_gen: int, new_cpu: bool
    ) -> tuple[int, bool]:
        """choose_new_asid: a CPU that has fallen out of the mask was sent nothing meanwhile."""
        asid, need_flush = await super().choose_new_asid(cpu, mm, next_tlb_gen, new_cpu)
        return asid, need_flush or (is_global_asid(asid) and new_cpu)

    async def reset_global_asid_space(self, cpu: PerCpu) -> None:
        """reset_global_asid_space: flush_tlb_all, by interrupts."""
        mask = cpu.parameters.all_cpus & ~cpu.parameters.beside
        await on_each_cpu_cond_mask(cpu, do_flush_tlb_all, (), mask, skip_lazy=False)
        used = await Load(GLOBAL_ASID_USED)
        await Store(GLOBAL_ASID_USED, used & ~await Load(GLOBAL_ASID_FREED))
        await Store(GLOBAL_ASID_FREED, 0)
