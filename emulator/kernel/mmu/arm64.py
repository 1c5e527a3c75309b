"""The TLB of arm64 Linux: broadcast invalidations, and nobody is interrupted (v6.6).

arch/arm64/include/asm/tlbflush.h, asm/tlb.h, mm/context.c. Every flush is DSB ISHST (walkers see what was
changed), TLBI at all CPUs, DSB ISH (they have done it); of a batch there is one DSB at the end. An mm has the
same number (ASID) on all CPUs, so there is no mask and no generation of its flushes, and switching flushes
nothing. Numbers run out: then a new generation of them begins, and each CPU flushes all before it runs
anything of it (`flush_context`).

A batch's `cpumask` says here who has issued its TLBIs: a DSB completes those of its own CPU alone. Who
flushes for others (which no mainline kernel does) invalidates everything anew.

Departures: one TLBI takes a range of any length (FEAT_TLBIRANGE takes some by several); of one CPU they are
done in the order in which it issues them; CPUs set dirty bits (FEAT_HAFDBS), and have no Contiguous bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from emulator.hardware.operations import (
    EVERYTHING,
    AtomicAdd,
    AtomicAnd,
    AtomicCmpxchg,
    AtomicOr,
    AtomicXchg,
    Dsb,
    DsbIshst,
    Isb,
    Load,
    LoadCr3,
    Lock,
    SmpWmb,
    Store,
    Tlbi,
    Unlock,
)
from emulator.hardware.tlb import GLOBAL
from emulator.kernel.mmu.mmu import Mmu
from emulator.kernel.mmu_notifier import arch_invalidate_secondary_tlbs
from emulator.kernel.percpu import INIT_MM, TLB_NR_DYN_ASIDS, KernelParameters, PerCpu, TlbUbc
from emulator.kernel.tlb import FLUSHED_ALL, ON_FLUSHED, TLB_FLUSH_ALL, FlushTlbInfo

BROADCASTS: Final = "tlbi_broadcasts"
"""Counter: per TLBI at all CPUs."""
ROLLOVERS: Final = "asid_rollovers"
"""Counter: per new generation of ASIDs."""
FOR_OTHERS: Final = "tlbi_for_others"
"""Counter: per batch that holds other CPUs' TLBIs, which are issued anew."""
CPU_ASID_LOCK: Final = "cpu_asid_lock"
ASID_GENERATION: Final = "asid_generation"  # how often numbers have run out
ASID_MAP: Final = "asid_map"
ASID_NEXT: Final = "asid_cur_idx"
ASID_FLUSH_PENDING: Final = "asid_tlb_flush_pending"  # context.c: tlb_flush_pending, one bit per CPU
MAX_TLBI_RANGE_PAGES: Final = 32 << 16


def context_id_word(mm: int) -> str:
    """mm->context.id: generation and ASID; 0 before the mm first runs."""
    return f"context_id.{mm}"


def active_asid_word(cpu: int) -> str:
    """per_cpu(active_asids, cpu); 0 from a roll-over on until the CPU switches."""
    return f"active_asids.{cpu}"


def reserved_asid_word(cpu: int) -> str:
    """per_cpu(reserved_asids, cpu): what it ran at the last roll-over."""
    return f"reserved_asids.{cpu}"


def tag(asid: int) -> int:
    """Under which number TLBs have an ASID's entries: those up to TLB_NR_DYN_ASIDS are each CPU's own."""
    return TLB_NR_DYN_ASIDS + asid


class Arm64(Mmu):
    """TLBI and DSB."""

    name = "arm64"
    description = (
        "TLBI at all CPUs, a DSB that waits for its own, no interrupts; ASIDs that roll over (arm64)"
    )
    archs = ("arm64",)
    broadcasts = True
    shared_asids = True
    leaves_dead_mms = True

    def begins(self, parameters: KernelParameters, loaded: Sequence[int]) -> tuple[dict[str, int], list[int]]:
        """Each mm that is loaded has an ASID, in their order."""
        mms = sorted({*loaded} - {INIT_MM})
        first = 1 << parameters.asid_bits
        ids = {mm: first | number for number, mm in enumerate(mms, 1)}
        words = {context_id_word(mm): one for mm, one in ids.items()}
        words |= {active_asid_word(cpu): ids.get(mm, 0) for cpu, mm in enumerate(loaded)}
        words[ASID_MAP] = sum(1 << number for number in range(1, len(mms) + 1))
        return words, [tag(ids.get(mm, 0) % first) for mm in loaded]

    # --- instructions ------------------------------------------------------------------------------------

    def all_cpus(self, cpu: PerCpu) -> int:
        """The Inner Shareable domain."""
        return cpu.parameters.all_cpus & ~cpu.parameters.beside

    async def tlbi(
        self,
        cpu: PerCpu,
        number: int,
        mm: int = INIT_MM,
        start: int = 0,
        end: int = TLB_FLUSH_ALL,
        stride: int = 1,
        last_level: bool = False,
    ) -> None:
        """TLBI ...IS."""
        cpu.count(BROADCASTS)
        await Tlbi(cpu.number, self.all_cpus(cpu), number, mm, start, end, stride, last_level)

    async def dsb_ish(self, cpu: PerCpu) -> None:
        """dsb(ish): until all of this CPU's own TLBIs are done."""
        await Dsb(cpu.number, self.all_cpus(cpu))

    async def asid(self, cpu: PerCpu, mm: int) -> int:
        """ASID(mm), as the TLB has it."""
        return tag(await Load(context_id_word(mm)) % (1 << cpu.parameters.asid_bits))

    # --- flushing ----------------------------------------------------------------------------------------

    def limit_excess(self, cpu: PerCpu, pages: int, stride: int) -> bool:
        """__flush_tlb_range: so much that the whole address space goes. MAX_DVM_OPS is PTRS_PER_PTE."""
        one_by_one = not cpu.parameters.tlb_range and pages >= cpu.parameters.table_pages * stride
        return one_by_one or pages >= MAX_TLBI_RANGE_PAGES

    async def flush_tlb_mm_range(
        self, cpu: PerCpu, mm: int, start: int, end: int, freed_tables: bool, stride: int
    ) -> None:
        """flush_tlb_mm, or __flush_tlb_range: of the last level alone unless tables go."""
        await self.flush_nosync(cpu, mm, start, end, stride, last_level=not freed_tables)
        await self.dsb_ish(cpu)

    async def flush_nosync(
        self, cpu: PerCpu, mm: int, start: int, end: int, stride: int, last_level: bool
    ) -> None:
        """__flush_tlb_range_nosync: what is left is the DSB."""
        await DsbIshst()
        number = await self.asid(cpu, mm)
        if end == TLB_FLUSH_ALL or self.limit_excess(cpu, end - start, stride):
            await self.tlbi(cpu, number, mm)
        elif cpu.parameters.tlb_range:
            await self.tlbi(cpu, number, mm, start, end, stride, last_level)
        else:
            for vpn in range(start, end, stride):
                await self.tlbi(cpu, number, mm, vpn, vpn + 1, 1, last_level)

    async def local_flush_tlb_all(self, cpu: PerCpu) -> None:
        """local_flush_tlb_all: dsb(nshst), TLBI VMALLE1, dsb(nsh), isb."""
        await DsbIshst()
        await Tlbi(cpu.number, cpu.bit, EVERYTHING, INIT_MM, 0, TLB_FLUSH_ALL, 1, False)
        await Dsb(cpu.number, cpu.bit)
        await Isb()

    async def flush_tlb_local(self, cpu: PerCpu) -> None:
        """No policy notes it: what a batch still needs is a DSB, of whoever has issued its TLBIs."""
        await self.local_flush_tlb_all(cpu)

    async def flush_tlb_func(self, cpu: PerCpu, info: FlushTlbInfo) -> None:
        """Nobody calls for a flush here; who does gets the CPU's whole TLB flushed."""
        await self.local_flush_tlb_all(cpu)
        cpu.probe(ON_FLUSHED, info.initiating_cpu, FLUSHED_ALL)

    async def flush_tlb_kernel_range(self, cpu: PerCpu, start: int, end: int) -> None:
        """flush_tlb_kernel_range, and __flush_tlb_kernel_pgtable where a table goes: of all levels, or
        flush_tlb_all."""
        await DsbIshst()
        if self.limit_excess(cpu, end - start, 1):
            await self.tlbi(cpu, EVERYTHING)
        else:
            await self.tlbi(cpu, GLOBAL, INIT_MM, start, end)
        await self.dsb_ish(cpu)
        await Isb()

    def arch_tlbbatch_should_defer(self, cpu: PerCpu, mask: int) -> bool:
        """arch_tlbbatch_should_defer: always."""
        return True

    async def arch_tlbbatch_add_pending(self, cpu: PerCpu, batch: TlbUbc, mm: int, vpn: int) -> None:
        """__flush_tlb_page_nosync: all but the DSB."""
        await self.flush_nosync(cpu, mm, vpn, vpn + 1, 1, last_level=True)
        batch.cpumask |= cpu.bit
        if cpu.parameters.devices:
            await arch_invalidate_secondary_tlbs(cpu, mm, vpn, vpn + 1)

    async def arch_tlbbatch_flush(self, cpu: PerCpu, batch: TlbUbc) -> None:
        """arch_tlbbatch_flush: dsb(ish)."""
        if batch.cpumask & ~cpu.bit and cpu.policy.dsb_for_others:
            cpu.count(FOR_OTHERS)
            await DsbIshst()
            await self.tlbi(cpu, EVERYTHING)
        await self.dsb_ish(cpu)
        batch.cpumask = 0

    # --- address spaces ----------------------------------------------------------------------------------

    async def switch_mm_irqs_off(self, cpu: PerCpu, mm: int) -> None:
        """switch_mm: of init_mm nothing is mapped below (cpu_set_reserved_ttbr0)."""
        state = cpu.tlbstate
        if state.loaded_mm == mm:
            return
        asid = 0
        if mm != INIT_MM:
            asid = await self.check_and_switch_context(cpu, mm)
        await LoadCr3(mm, tag(asid), False)
        state.loaded_mm = mm
        state.loaded_mm_asid = asid

    async def enter_lazy_tlb(self, cpu: PerCpu) -> None:
        """enter_lazy_tlb: the address space stays loaded, and nobody asks for that."""

    def is_current(self, cpu: PerCpu, asid: int, generation: int) -> bool:
        """asid_gen_match."""
        return asid >> cpu.parameters.asid_bits == generation + 1

    async def check_and_switch_context(self, cpu: PerCpu, mm: int) -> int:
        """check_and_switch_context: the mm's ASID, of this generation; what the TLB has of it is right."""
        first = 1 << cpu.parameters.asid_bits
        active = active_asid_word(cpu.number)
        asid = await Load(context_id_word(mm))
        # Against a roll-over: it finds the new one here and reserves it, or this finds a zero and waits.
        old = await Load(active)
        current = bool(old) and self.is_current(cpu, asid, await Load(ASID_GENERATION))
        if current and await AtomicCmpxchg(active, old, asid):
            return asid % first
        await Lock(CPU_ASID_LOCK)
        asid = await Load(context_id_word(mm))
        if not self.is_current(cpu, asid, await Load(ASID_GENERATION)):
            asid = await self.new_context(cpu, mm, asid)
            await Store(context_id_word(mm), asid)
        if await AtomicAnd(ASID_FLUSH_PENDING, cpu.parameters.all_cpus ^ cpu.bit) & cpu.bit:
            await self.local_flush_tlb_all(cpu)
        await Store(active, asid)
        await Unlock(CPU_ASID_LOCK)
        return asid % first

    async def new_context(self, cpu: PerCpu, mm: int, asid: int) -> int:
        """new_context: the one it had if nobody has got that, or the next free one."""
        first = 1 << cpu.parameters.asid_bits
        generation = (await Load(ASID_GENERATION) + 1) * first
        if asid:
            again = generation | asid % first
            if await self.check_update_reserved_asid(cpu, asid, again):
                return again
            bit = 1 << asid % first
            if not await AtomicOr(ASID_MAP, bit) & bit:
                return again
        number = self.next_zero(await Load(ASID_MAP), await Load(ASID_NEXT) or 1, first)
        if not number:
            cpu.count(ROLLOVERS)
            generation = (await AtomicAdd(ASID_GENERATION, 1) + 1) * first
            await self.flush_context(cpu)
            number = self.next_zero(await Load(ASID_MAP), 1, first)
        await AtomicOr(ASID_MAP, 1 << number)
        await Store(ASID_NEXT, number)
        return generation | number

    def next_zero(self, bits: int, at: int, end: int) -> int:
        """find_next_zero_bit; 0 if there is none."""
        return next((number for number in range(at, end) if not bits >> number & 1), 0)

    async def check_update_reserved_asid(self, cpu: PerCpu, asid: int, again: int) -> bool:
        """check_update_reserved_asid: some CPU runs it from before; all that do take it over."""
        hit = False
        for other in range(cpu.parameters.cpus):
            if await Load(reserved_asid_word(other)) == asid:
                hit = True
                await Store(reserved_asid_word(other), again)
        return hit

    async def flush_context(self, cpu: PerCpu) -> None:
        """flush_context: numbers are free but those that CPUs run; each flushes all before it switches."""
        bits = 0
        # The new generation is seen before active_asids is zero.
        await SmpWmb()
        for other in range(cpu.parameters.cpus):
            asid = await self.take_active(cpu, other)
            bits |= 1 << asid % (1 << cpu.parameters.asid_bits)
            await Store(reserved_asid_word(other), asid)
        await Store(ASID_MAP, bits & ~1)
        await self.set_flush_pending(cpu)

    async def take_active(self, cpu: PerCpu, other: int) -> int:
        """What a CPU runs. If it has not switched since the last roll-over that is the only trace of it."""
        return await AtomicXchg(active_asid_word(other), 0) or await Load(reserved_asid_word(other))

    async def set_flush_pending(self, cpu: PerCpu) -> None:
        """cpumask_setall(&tlb_flush_pending)."""
        await Store(ASID_FLUSH_PENDING, self.all_cpus(cpu))
