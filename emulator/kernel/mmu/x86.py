"""The TLB of x86 Linux, flushed by interrupts (arch/x86/mm/tlb.c, v6.4-6.6, and v6.18 where that says so).

Each mm has a generation that counts the changes to its page tables; each ASID slot of a CPU notes
how far it has caught up. A flush raises the generation and interrupts whoever may hold entries.
"""

from __future__ import annotations

from emulator.hardware.operations import (
    AtomicAdd,
    AtomicAnd,
    AtomicOr,
    FlushTlbAll,
    FlushTlbOne,
    Load,
    LoadCr3,
    LocalIrqDisable,
    LocalIrqEnable,
    SmpMb,
    SmpRmb,
    Store,
)
from emulator.kernel.kvm import kvm_flush_on_enter
from emulator.kernel.mmu.mmu import Mmu
from emulator.kernel.mmu_notifier import EVERYTHING, arch_invalidate_secondary_tlbs
from emulator.kernel.percpu import (
    INIT_MM,
    LOADED_MM_SWITCHING,
    TLB_NR_DYN_ASIDS,
    PerCpu,
    TlbUbc,
    cpumask_word,
    is_lazy_word,
    loaded_mm_word,
    tlb_gen_word,
)
from emulator.kernel.smp import ipi_function, on_each_cpu_cond_mask
from emulator.kernel.tlb import (
    ANY_MM,
    FLUSHED_ALL,
    FLUSHED_NOTHING,
    LEFT_LAZY,
    ON_FLUSHED,
    TLB_FLUSH_ALL,
    TLB_GENERATION_INVALID,
    FlushTlbInfo,
    flush_everything,
    flush_tlb_func,
    flush_tlb_local,
)


async def inc_mm_tlb_gen(mm: int) -> int:
    """inc_mm_tlb_gen: one more change that every CPU of the mm has to catch up with."""
    return await AtomicAdd(tlb_gen_word(mm), 1)


def uses_pcid(cpu: PerCpu) -> bool:
    """X86_FEATURE_PCID: not where INVLPG would leave global entries then, since ce0b15d11ad8 (v6.4)."""
    return cpu.parameters.pcid and not cpu.parameters.invlpg_miss


@ipi_function
async def do_flush_tlb_all(cpu: PerCpu, arguments: tuple[int, ...]) -> None:
    """do_flush_tlb_all."""
    await FlushTlbAll()


@ipi_function
async def do_kernel_range_flush(cpu: PerCpu, arguments: tuple[int, ...]) -> None:
    """do_kernel_range_flush: flush_tlb_one_kernel of each page."""
    start, end = arguments
    for vpn in range(start, end):
        await FlushTlbOne(vpn)


class X86(Mmu):
    """Interrupts to all who may hold entries, which flush by themselves and say so."""

    name = "x86"
    description = "flush by interrupts, wait for all (x86, and riscv and sc as far as they go)"

    async def flush_tlb_mm_range(
        self, cpu: PerCpu, mm: int, start: int, end: int, freed_tables: bool, stride: int
    ) -> None:
        """flush_tlb_mm_range: above tlb_single_page_flush_ceiling everything is cheaper."""
        if end == TLB_FLUSH_ALL or (end - start) // stride > cpu.parameters.tlb_single_page_flush_ceiling:
            start, end, stride = 0, TLB_FLUSH_ALL, 1
        new_tlb_gen = await inc_mm_tlb_gen(mm)
        info = FlushTlbInfo(mm, start, end, new_tlb_gen, cpu.number, stride)
        if not await self.broadcast_tlb_flush(cpu, info, freed_tables):
            await self.flush_users(cpu, info, freed_tables)

    async def broadcast_tlb_flush(self, cpu: PerCpu, info: FlushTlbInfo, freed_tables: bool) -> bool:
        """Whether the flush was done without asking other CPUs' programs; no, on these."""
        return False

    async def flush_users(self, cpu: PerCpu, info: FlushTlbInfo, freed_tables: bool) -> None:
        """The rest of flush_tlb_mm_range: whom the mm's mask names."""
        mm = info.mm
        mask = await Load(cpumask_word(mm))
        if mask & ~cpu.bit:
            await self.flush_tlb_multi(cpu, mask, info, freed_tables)
        elif cpu.tlbstate.loaded_mm == mm:
            await LocalIrqDisable()
            await self.flush_tlb_func(cpu, info)
            await LocalIrqEnable()

    async def flush_tlb_multi(self, cpu: PerCpu, mask: int, info: FlushTlbInfo, freed_tables: bool) -> None:
        """native_flush_tlb_multi: lazy CPUs may sleep on unless page tables are freed under them."""
        cpu.count("nr_tlb_remote_flush")
        if cpu.parameters.paravirt_flush:
            mask = await kvm_flush_on_enter(cpu, mask)
        condition = self.should_flush_tlb if cpu.parameters.lazy_mm_cpumask else None
        await on_each_cpu_cond_mask(cpu, flush_tlb_func, info, mask, not freed_tables, condition)

    async def should_flush_tlb(self, cpu: PerCpu, other: int, info: tuple[int, ...]) -> bool:
        """should_flush_tlb (v6.18): whether a CPU of the mask has to be interrupted for this FlushTlbInfo.

        One that has left the mm stays in its mask, and need not. (Once a second it is taken out, by an
        interrupt: not here, where no time goes by.) One that is about to load another one may be in either.
        """
        loaded = await Load(loaded_mm_word(other))
        # is_lazy at least as new as what is loaded.
        await SmpRmb()
        if await Load(is_lazy_word(other)):
            return False
        mm = FlushTlbInfo(*info).mm
        return mm == ANY_MM or loaded in (LOADED_MM_SWITCHING, mm)

    async def flush_tlb_func(self, cpu: PerCpu, info: FlushTlbInfo) -> None:
        """flush_tlb_func: catch up with a change, as little as the generations allow."""
        mm, start, end, new_tlb_gen, initiating_cpu, stride, _ = info
        state = cpu.tlbstate
        local = initiating_cpu == cpu.number
        if not local:
            cpu.count_interrupt()
            cpu.count("nr_tlb_remote_flush_received")
        # For a flush of its own only where it stays in the mask of what it has left (953753db887f, v6.14).
        if mm >= 0 and mm != state.loaded_mm and (not local or cpu.parameters.lazy_mm_cpumask):
            if cpu.parameters.lazy_mm_cpumask:
                await AtomicAnd(cpumask_word(mm), cpu.parameters.all_cpus ^ cpu.bit)
            cpu.probe(ON_FLUSHED, initiating_cpu, FLUSHED_NOTHING)
            return
        if state.loaded_mm == INIT_MM:
            cpu.probe(ON_FLUSHED, initiating_cpu, FLUSHED_NOTHING)
            return
        if state.is_lazy:
            # Nobody here uses the mm: leaving it spares this CPU the next interrupt as well.
            cpu.probe(ON_FLUSHED, initiating_cpu, LEFT_LAZY)
            await self.switch_mm_irqs_off(cpu, INIT_MM)
            return
        context = state.ctxs[state.loaded_mm_asid]
        if new_tlb_gen != TLB_GENERATION_INVALID and new_tlb_gen <= context.tlb_gen:
            cpu.probe(ON_FLUSHED, initiating_cpu, FLUSHED_NOTHING)
            return
        mm_tlb_gen = await Load(tlb_gen_word(state.loaded_mm))
        if context.tlb_gen == mm_tlb_gen:
            cpu.probe(ON_FLUSHED, initiating_cpu, FLUSHED_NOTHING)
            return
        if end != TLB_FLUSH_ALL and new_tlb_gen == context.tlb_gen + 1 and new_tlb_gen == mm_tlb_gen:
            for vpn in range(start, end, stride):
                await FlushTlbOne(vpn)
            cpu.probe(ON_FLUSHED, initiating_cpu, (end - start) // stride)
            if local:
                cpu.count("nr_tlb_local_flush_one", (end - start) // stride)
        else:
            await flush_tlb_local(cpu)
            cpu.probe(ON_FLUSHED, initiating_cpu, FLUSHED_ALL)
            if local:
                cpu.count("nr_tlb_local_flush_all")
        context.tlb_gen = mm_tlb_gen

    async def flush_tlb_kernel_range(self, cpu: PerCpu, start: int, end: int) -> None:
        """flush_tlb_kernel_range, by an interrupt to every CPU, lazy or not. riscv flushes all (v6.6)."""
        everything = end - start > cpu.parameters.tlb_single_page_flush_ceiling or cpu.parameters.leaf_only
        function = do_flush_tlb_all if everything else do_kernel_range_flush
        mask = cpu.parameters.all_cpus & ~cpu.parameters.beside
        await on_each_cpu_cond_mask(cpu, function, (start, end), mask, skip_lazy=False)

    def arch_tlbbatch_should_defer(self, cpu: PerCpu, mask: int) -> bool:
        """arch_tlbbatch_should_defer: where another CPU takes part; an mm that runs here alone is flushed
        page by page at once."""
        return bool(mask & ~cpu.bit)

    async def arch_tlbbatch_add_pending(self, cpu: PerCpu, batch: TlbUbc, mm: int, vpn: int) -> None:
        """arch_tlbbatch_add_pending: the generation first, so that a CPU which loads the mm after the mask
        was read flushes by itself. Devices are told at once, and of everything."""
        await inc_mm_tlb_gen(mm)
        batch.cpumask |= await Load(cpumask_word(mm))
        if cpu.parameters.devices:
            await arch_invalidate_secondary_tlbs(cpu, mm, 0, EVERYTHING)

    async def arch_tlbbatch_flush(self, cpu: PerCpu, batch: TlbUbc) -> None:
        """arch_tlbbatch_flush: whole TLBs, whatever mm is loaded."""
        info = flush_everything(cpu)
        if batch.cpumask & ~cpu.bit:
            await self.flush_tlb_multi(cpu, batch.cpumask, info, freed_tables=False)
        elif batch.cpumask & cpu.bit:
            await LocalIrqDisable()
            await self.flush_tlb_func(cpu, info)
            await LocalIrqEnable()
        batch.cpumask = 0

    async def switch_mm_irqs_off(self, cpu: PerCpu, mm: int) -> None:
        """switch_mm_irqs_off: load another address space, flushing what its slot has missed.

        The CPU's bit goes into the new mm's mask before the generation is read: a flusher either sees
        the bit and interrupts, or has raised the generation that is read here.
        """
        state = cpu.tlbstate
        previous = state.loaded_mm
        was_lazy = state.is_lazy
        if was_lazy:
            state.is_lazy = False
            await Store(is_lazy_word(cpu.number), 0)
        if previous == mm:
            if not was_lazy:
                return
            # While lazy this CPU was skipped. Pairs with the full barrier of inc_mm_tlb_gen: either the
            # flusher sees is_lazy clear, or the new generation is seen here.
            await SmpMb()
            next_tlb_gen = await Load(tlb_gen_word(mm))
            asid = state.loaded_mm_asid
            if state.ctxs[asid].tlb_gen == next_tlb_gen:
                return
            need_flush = True
        else:
            if cpu.parameters.lazy_mm_cpumask:
                new_cpu = await self.begin_switching(cpu, mm)
            else:
                new_cpu = True
                if previous != INIT_MM:
                    await AtomicAnd(cpumask_word(previous), cpu.parameters.all_cpus ^ cpu.bit)
                if mm != INIT_MM:
                    await AtomicOr(cpumask_word(mm), cpu.bit)
            next_tlb_gen = await Load(tlb_gen_word(mm))
            asid, need_flush = await self.choose_new_asid(cpu, mm, next_tlb_gen, new_cpu)
        if need_flush:
            if asid < TLB_NR_DYN_ASIDS:
                state.ctxs[asid].mm = mm
                state.ctxs[asid].tlb_gen = next_tlb_gen
            cpu.count("tlb_flush_on_task_switch")
        await LoadCr3(mm, asid + 1, need_flush)
        state.loaded_mm = mm
        state.loaded_mm_asid = asid
        if cpu.parameters.lazy_mm_cpumask and previous != mm:
            await Store(loaded_mm_word(cpu.number), mm)

    async def choose_new_asid(
        self, cpu: PerCpu, mm: int, next_tlb_gen: int, new_cpu: bool
    ) -> tuple[int, bool]:
        """choose_new_asid: the slot that holds the mm, or the next one round robin; and need_flush.

        `new_cpu`: it has not been in the mm's mask.
        """
        if not uses_pcid(cpu):
            return 0, True
        state = cpu.tlbstate
        for asid, context in enumerate(state.ctxs):
            if context.mm == mm:
                return asid, context.tlb_gen < next_tlb_gen
        asid = state.next_asid % TLB_NR_DYN_ASIDS
        state.next_asid = asid + 1
        return asid, True

    async def begin_switching(self, cpu: PerCpu, mm: int) -> bool:
        """switch_mm_irqs_off (v6.18): from here on this CPU is interrupted for what it leaves and for `mm`.

        It stays in the mask of what it leaves. Whoever flushes sees that it is switching, or has raised the
        generation that is read next. True if it was not in the mask of `mm`.
        """
        await Store(loaded_mm_word(cpu.number), LOADED_MM_SWITCHING)
        if mm != INIT_MM and not await Load(cpumask_word(mm)) & cpu.bit:
            await AtomicOr(cpumask_word(mm), cpu.bit)
            return True
        await SmpMb()
        return False

    async def enter_lazy_tlb(self, cpu: PerCpu) -> None:
        """enter_lazy_tlb: a kernel thread borrows the loaded mm; flushes need not interrupt for it."""
        if cpu.tlbstate.loaded_mm != INIT_MM and not cpu.tlbstate.is_lazy:
            cpu.tlbstate.is_lazy = True
            await Store(is_lazy_word(cpu.number), 1)
