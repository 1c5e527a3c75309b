"""e6c495a96ce0 (v3.11): zap_pte_range runs out of slots and flushes what comes next, not what has gone."""

from emulator.kernel.mmu_gather import tlb_flush_mmu_tlbonly, zap_pte_range
from scenarios.litmus.kit import *


class Before(Immediate):
    @instead_of(tlb_flush_mmu_tlbonly, within=zap_pte_range)
    async def from_there_on(self, cpu, tlb):
        tlb.start, tlb.end = tlb.end, tlb.end + 1
        await tlb_flush_mmu_tlbonly(cpu, tlb)


LITMUS = Litmus(
    name="gather-range",
    question="A gather is full in the middle of a page table: is what it has cleared flushed for?",
    programs=(call(munmap, PAGE, 2), call(read_if_cached)),
    setup=pages(PAGE, OTHER, cached=(1,)),
    expected=(never("immediate", RECEIVED), sometimes(Before, FREE, RETURNED, FRAME_REUSED)),
    settings=(("mmu_gather_pages", 1),),
)
