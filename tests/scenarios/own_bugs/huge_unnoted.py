"""Shaohua Li, "thp: add tlb_remove_pmd_tlb_entry" (2011): zap_huge_pmd does not tell the gather of its entry.

x86 flushed everything then, and was not hit.
"""

from emulator.kernel.mmu_gather import MmuGather, zap_huge_pmd
from scenarios.litmus.kit import *


class Before(Immediate):
    @instead_of(MmuGather.adjust_range, within=zap_huge_pmd)
    def notes_nothing(self, tlb, start, pages, stride):
        pass


LITMUS = Litmus(
    name="huge-unnoted",
    question="A huge page is unmapped: is its entry flushed for?",
    programs=(call(munmap, PAGE, 2), call(read_if_cached, PAGE + 1)),
    setup=huge_page(cached=(1,)),
    expected=(never("immediate", RECEIVED), sometimes(Before, RETURNED)),
    settings=(HUGE,),
)
