"""Mistakes of who counts generations of page tables (`generations:repaired`): the posting's, and more."""

from __future__ import annotations

from emulator.hardware.operations import Load
from emulator.kernel.mmu_gather import MmuGather
from emulator.kernel.percpu import PerCpu, tlb_gen_word
from emulator.kernel.tlb import RANGE, FlushScope
from emulator.policies.table_generations import GenerationsRepaired


class ComparesTheWrongWay(GenerationsRepaired):
    """pte_tlb_flush_pending of 16/20: a table is pending whose generation is less than what is done."""

    name = "mistake:pending-compared-backwards"

    def is_pending(self, deferred: int, completed: int) -> bool:
        """As posted."""
        return deferred < completed


class KeepsTheGeneration(GenerationsRepaired):
    """read_defer_tlb_flush_gen of 15/20: one generation for all tables of a gather, before a flush and after.

    Who has caught up with it in between does not flush for the rest.
    """

    name = "mistake:generation-kept"

    async def keeps_generation(self, tlb: MmuGather) -> bool:
        """As posted."""
        return tlb.defer_gen > 0 and await Load(tlb_gen_word(tlb.mm)) == tlb.defer_gen


class FreesTablesByOldGeneration(GenerationsRepaired):
    """tlb_flush of 15/20: page tables go after the generation was raised, or without one (pte_free_tlb)."""

    name = "mistake:tables-without-generation"

    def generation_for(self, tlb: MmuGather) -> int:
        """As posted."""
        return tlb.defer_gen


class MarksBeforeFlush(GenerationsRepaired):
    """flush_tlb_mm_range of 14/20 marks the generation as done when all have flushed. Here when it begins."""

    name = "mistake:generation-done-early"

    async def flush_begin(self, cpu: PerCpu, scope: FlushScope) -> int:
        """The one that comes next."""
        if scope.kind == RANGE:
            await self.mark_mm_tlb_gen_done(scope.mm, await Load(tlb_gen_word(scope.mm)) + 1)
        return 0


class MarksNoTable(GenerationsRepaired):
    """tlb_end_ptes of 16/20 writes the generation into the table. Here nowhere."""

    name = "mistake:table-not-marked"

    async def table_changed(self, cpu: PerCpu, tlb: MmuGather, vpn: int) -> None:
        """The generation is raised, and that is all."""
        await self.read_defer_tlb_flush_gen(tlb)
