"""Generations of page tables (Nadav Amit, <20210131001132.3368247-1-namit@vmware.com>, January 2021, RFC).

Who gathers raises the mm's generation when a page table is changed, writes it into that table's struct page,
and flushes for it later. The mm keeps the generation whose flush is done. So whoever finds an inaccessible
entry can tell from its table whether a CPU may still have it cached (pte_accessible), where mainline goes by
the whole mm; and who gathers need not flush once somebody else has.

| posting | here |
|---|---|
| 14/20 mark_mm_tlb_gen_done, tlb_update_generation; 17/20 tlb_gen_deferred | flushed, tlb_update_generation |
| 15/20 read_defer_tlb_flush_gen; 16/20 tlb_end_ptes, store_deferred_tlb_gen | table_changed |
| 15/20 tlb_flush, flush_tlb_mm_range_gen | tlb_flush, generation |
| 16/20 pte_tlb_flush_pending | accessible, pte_tlb_flush_pending |

`generations:rfc` is as posted, and wrong in four places. `pte_tlb_flush_pending` compares the wrong way
round: a table is pending if its generation is *less* than what is done. A gather that changes several tables
keeps its generation if nobody else has raised the mm's; but a CPU that has loaded the mm meanwhile has caught
up with it. So it does after a flush in the middle (a full gather), which has not raised it either: nobody
flushes for the second table then. And page tables that go are flushed for with a generation from before they
went, 0 if nothing was mapped in them. `generations:repaired` compares the right way round, raises the
generation for each table, and takes a new one where tables go.

Departures. What 20/20 makes of the batches of reclaim (one mask for all, each CPU takes itself out) is left
out: batches are v6.6's. The generation of a page table that has gone stays in its word; its flush was done.
What is done begins at 0, not at 1. clear_refs does not gather (6/20); it makes no entry inaccessible. 3/20 is
v6.6's pte_needs_flush. Generations belong to x86 (ARCH_HAS_TLB_GENERATIONS): on arm64 there are none, and
whether an entry is accessible is not what this answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from emulator.hardware.operations import AtomicCmpxchg, Load, SmpMb, Store
from emulator.hardware.pte import PMD_ORDER, pte_present_to_hardware, pte_protnone
from emulator.kernel.instead import instead_of
from emulator.kernel.mmu.x86 import X86, inc_mm_tlb_gen
from emulator.kernel.mmu_gather import MmuGather, tlb_flush_mmu_tlbonly
from emulator.kernel.percpu import tlb_gen_word
from emulator.kernel.pgtable_generic import pte_accessible
from emulator.kernel.tlb import RANGE, FlushScope
from emulator.policies.immediate import Immediate

if TYPE_CHECKING:
    from emulator.kernel.percpu import PerCpu

A_NEW_ONE = -1
SKIPPED = "tlb_generation_done"
"""Counter: per gather whose flush somebody else had done."""


def deferred_word(mm: int, vpn: int) -> str:
    """page->deferred_tlb_gen of the page table of page `vpn`, under its lock."""
    return f"deferred_tlb_gen.{mm}.{vpn >> PMD_ORDER:x}"


def tlb_gen_completed_word(mm: int) -> str:
    """mm->tlb_gen_completed."""
    return f"tlb_gen_completed.{mm}"


def tlb_gen_deferred_word(mm: int) -> str:
    """mm->tlb_gen_deferred: the last generation that somebody has put off."""
    return f"tlb_gen_deferred.{mm}"


class GenerationsRepaired(Immediate):
    """`generations:repaired`."""

    name = "generations:repaired"
    description = "a generation in each page table says whether its flush is pending, compared as it must be"

    def __init__(self) -> None:
        self.wanted = A_NEW_ONE  # the generation of the gather that is flushed for
        self.flushing = 0  # the one of the flush under way

    # --- putting off -----------------------------------------------------------------------------------

    async def table_changed(self, cpu: PerCpu, tlb: MmuGather, vpn: int) -> None:
        """tlb_end_ptes, track_defer_tlb_flush: what a table owes is said under its lock."""
        if tlb.fullmm or not isinstance(cpu.mmu, X86):
            return
        await self.read_defer_tlb_flush_gen(tlb)
        await Store(deferred_word(tlb.mm, vpn), tlb.defer_gen)

    async def read_defer_tlb_flush_gen(self, tlb: MmuGather) -> None:
        """read_defer_tlb_flush_gen: a generation that comes after the change of entries."""
        await SmpMb()
        if await self.keeps_generation(tlb):
            return
        tlb.defer_gen = await inc_mm_tlb_gen(tlb.mm)
        await self.tlb_update_generation(tlb_gen_deferred_word(tlb.mm), tlb.defer_gen)

    async def keeps_generation(self, tlb: MmuGather) -> bool:
        """Whether the gather's generation does for another table."""
        return False

    async def tlb_update_generation(self, word: str, new_gen: int) -> None:
        """tlb_update_generation: the word becomes the generation, unless it is later already."""
        gen = await Load(word)
        while gen < new_gen:
            seen = await AtomicCmpxchg(word, gen, new_gen)
            if seen == gen:
                break
            gen = seen

    # --- flushing --------------------------------------------------------------------------------------

    @instead_of(tlb_flush_mmu_tlbonly)
    async def tlb_flush(self, cpu: PerCpu, tlb: MmuGather) -> None:
        """tlb_flush: for the gather's generation, if nobody has done that."""
        if (tlb.stride or tlb.freed_tables) and not tlb.fullmm and isinstance(cpu.mmu, X86):
            if not tlb.freed_tables and await self.is_done(tlb):
                cpu.count(SKIPPED)
                tlb.reset_range()
                return
            self.wanted = self.generation_for(tlb)
        await tlb_flush_mmu_tlbonly(cpu, tlb)
        self.wanted = A_NEW_ONE

    async def is_done(self, tlb: MmuGather) -> bool:
        """Somebody has flushed for a later generation, and so for this one: skipping one means everything."""
        return await Load(tlb_gen_completed_word(tlb.mm)) > tlb.defer_gen > 0

    def generation_for(self, tlb: MmuGather) -> int:
        """The generation that CPUs have to catch up with."""
        return A_NEW_ONE if tlb.freed_tables else tlb.defer_gen or A_NEW_ONE

    @instead_of(inc_mm_tlb_gen, within=X86.flush_tlb_mm_range)
    async def generation(self, mm: int) -> int:
        """flush_tlb_mm_range, or flush_tlb_mm_range_gen for a gather."""
        self.flushing = await inc_mm_tlb_gen(mm) if self.wanted == A_NEW_ONE else self.wanted
        return self.flushing

    async def flushed(self, cpu: PerCpu, scope: FlushScope, token: int) -> None:
        """mark_mm_tlb_gen_done; not of batches, of which nobody knows the mms."""
        if scope.kind == RANGE and isinstance(cpu.mmu, X86):
            await self.mark_mm_tlb_gen_done(scope.mm, self.flushing)

    async def mark_mm_tlb_gen_done(self, mm: int, gen: int) -> None:
        """mark_mm_tlb_gen_done: only if some generation was put off since (17/20)."""
        completed = tlb_gen_completed_word(mm)
        if await Load(tlb_gen_deferred_word(mm)) != await Load(completed):
            await self.tlb_update_generation(completed, gen)

    # --- asking ----------------------------------------------------------------------------------------

    @instead_of(pte_accessible)
    async def accessible(self, mm: int, vpn: int, entry: int) -> bool:
        """pte_accessible, by the entry's table."""
        if pte_present_to_hardware(entry):
            return True
        return pte_protnone(entry) and await self.pte_tlb_flush_pending(mm, vpn)

    async def pte_tlb_flush_pending(self, mm: int, vpn: int) -> bool:
        """pte_tlb_flush_pending: the table's flush is still to come. Its lock is held."""
        deferred = await Load(deferred_word(mm, vpn))
        return self.is_pending(deferred, await Load(tlb_gen_completed_word(mm)))

    def is_pending(self, deferred: int, completed: int) -> bool:
        """Put off, and not done."""
        return deferred > completed


class GenerationsRfc(GenerationsRepaired):
    """`generations:rfc`."""

    name = "generations:rfc"
    description = "a generation in each page table says whether its flush is pending, as posted"

    async def keeps_generation(self, tlb: MmuGather) -> bool:
        """As long as nobody has raised the mm's, so that the flush need not be one of everything.

        (The mm's begins at 1 in the posting, and at 0 here.)
        """
        return tlb.defer_gen > 0 and await Load(tlb_gen_word(tlb.mm)) == tlb.defer_gen

    def generation_for(self, tlb: MmuGather) -> int:
        """The gather's, whatever goes; 0 where no entry was mapped."""
        return tlb.defer_gen

    def is_pending(self, deferred: int, completed: int) -> bool:
        """The comparison of 16/20."""
        return deferred < completed
