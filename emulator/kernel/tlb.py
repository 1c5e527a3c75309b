"""Flushing TLBs as the kernel asks for it (arch/x86/mm/tlb.c, v6.4-6.6): what is owed, and to whom.

How it is carried out is the business of the CPU's `mmu` (`emulator.kernel.mmu`); here is what all of them
have in common, and the names by which the rest of the kernel calls them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from emulator.kernel.mmu_notifier import arch_invalidate_secondary_tlbs
from emulator.kernel.smp import ipi_function

if TYPE_CHECKING:
    from emulator.kernel.percpu import PerCpu, TlbUbc

TLB_FLUSH_ALL = -1
TLB_GENERATION_INVALID = 0
ANY_MM: Final = -1
# Kinds of FlushScope.
RANGE: Final = "range"
BATCH: Final = "batch"
PENDING: Final = "pending"
# What a CPU's probes are told (`PerCpu.probe`): a call of flush_tlb_mm_range with its pages [start, end),
# stride and freed_tables, one of arch_tlbbatch_flush, and for which CPU flush_tlb_func dropped what: so many
# entries one by one, FLUSHED_ALL, LEFT_LAZY, where it left the mm instead, or FLUSHED_NOTHING.
ON_FLUSH_RANGE: Final = "flush_tlb_mm_range"
ON_FLUSH_BATCH: Final = "arch_tlbbatch_flush"
ON_FLUSHED: Final = "flush_tlb_func"
FLUSHED_ALL: Final = -1
LEFT_LAZY: Final = -2
FLUSHED_NOTHING: Final = -3


class FlushScope(NamedTuple):
    """What a flush was asked for, for a policy's hooks: `kind` is RANGE, BATCH or PENDING.

    RANGE: pages [start, end) of `mm`, or all if `end` is TLB_FLUSH_ALL. BATCH: the CPUs of `cpumask`, whole
    TLBs (arch_tlbbatch_flush). PENDING: all of `mm` (flush_tlb_batched_pending); a RANGE is inside of it.
    """

    kind: str
    mm: int = ANY_MM
    start: int = 0
    end: int = TLB_FLUSH_ALL
    cpumask: int = 0


class FlushTlbInfo(NamedTuple):
    """struct flush_tlb_info: what a CPU is asked to flush, pages [start, end) of `mm`; plain integers that
    travel as the arguments of a call.

    `mm` may be ANY_MM and `end` TLB_FLUSH_ALL. One INVLPG for every `stride` pages. `freed_tables` is said
    where somebody goes by it.
    """

    mm: int
    start: int
    end: int
    new_tlb_gen: int
    initiating_cpu: int
    stride: int = 1
    freed_tables: int = 0


def flush_everything(cpu: PerCpu) -> FlushTlbInfo:
    """What this CPU asks for on behalf of a batch: whole TLBs, whatever mm is loaded."""
    return FlushTlbInfo(ANY_MM, 0, TLB_FLUSH_ALL, TLB_GENERATION_INVALID, cpu.number)


async def flush_tlb_local(cpu: PerCpu) -> None:
    """flush_tlb_local: drop every entry of the loaded ASID, with the policy's notes around it."""
    await cpu.mmu.flush_tlb_local(cpu)


@ipi_function
async def flush_tlb_func(cpu: PerCpu, arguments: tuple[int, ...]) -> None:
    """flush_tlb_func: what a CPU does that is asked for a flush. `arguments` are a FlushTlbInfo.

    Runs with interrupts off.
    """
    await cpu.mmu.flush_tlb_func(cpu, FlushTlbInfo(*arguments))


def no_address_reaches_tables(cpu: PerCpu) -> bool:
    """Where tables go, everything is flushed: riscv's tlb_flush since 97cf301fa42e (v6.8), and its
    pmdp_collapse_flush."""
    return cpu.parameters.leaf_only


async def flush_tlb_mm_range(
    cpu: PerCpu, mm: int, start: int, end: int, freed_tables: bool = False, stride: int = 1
) -> None:
    """flush_tlb_mm_range over pages [start, end), or everything if `end` is TLB_FLUSH_ALL.

    One INVLPG for every `stride` pages: who has changed nothing but PMDs says so (tlb_get_unmap_shift).
    """
    cpu.probe(ON_FLUSH_RANGE, start, end, stride, freed_tables)
    last = TLB_FLUSH_ALL if freed_tables and no_address_reaches_tables(cpu) else end
    scope = FlushScope(RANGE, mm, start, last)
    token = await cpu.policy.flush_begin(cpu, scope)
    await cpu.mmu.flush_tlb_mm_range(cpu, mm, start, last, freed_tables, stride)
    if cpu.parameters.devices:
        await arch_invalidate_secondary_tlbs(cpu, mm, start, end)
    await cpu.policy.flushed(cpu, scope, token)


async def flush_tlb_range(cpu: PerCpu, mm: int, start: int, end: int) -> None:
    """flush_tlb_range over pages [start, end), as those flush who change a PMD or move entries.

    It says that tables were freed, since some of them have (collapse): from 3ef938c35035 on (v6.15, v6.12.23,
    v6.6.87, v6.1.134; CVE-2025-22045); before, lazy CPUs were left out.
    """
    await flush_tlb_mm_range(cpu, mm, start, end, freed_tables=True)


async def flush_tlb_mm(cpu: PerCpu, mm: int) -> None:
    """flush_tlb_mm: everything, and no CPU of the mm is left out for being lazy."""
    await flush_tlb_mm_range(cpu, mm, 0, TLB_FLUSH_ALL, freed_tables=True)


async def arch_tlbbatch_flush(cpu: PerCpu, batch: TlbUbc) -> None:
    """arch_tlbbatch_flush: what reclaim and migration owe, whatever mm is loaded."""
    cpu.probe(ON_FLUSH_BATCH)
    scope = FlushScope(BATCH, cpumask=batch.cpumask)
    token = await cpu.policy.flush_begin(cpu, scope)
    await cpu.mmu.arch_tlbbatch_flush(cpu, batch)
    await cpu.policy.flushed(cpu, scope, token)


async def flush_tlb_kernel_range(cpu: PerCpu, start: int, end: int) -> None:
    """flush_tlb_kernel_range over pages [start, end) of the kernel, on every CPU, lazy or not."""
    await cpu.mmu.flush_tlb_kernel_range(cpu, start, end)
