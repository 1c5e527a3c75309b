"""A copy takes a page's place before others have flushed the old one (ptep_establish, until v2.6.18).

Suresh Siddha, "mm: fix a race condition under SMC + COW" (2006).
"""

from emulator.kernel.memory import _replace_by_copy
from emulator.kernel.pgtable_generic import ptep_clear_flush
from emulator.kernel.tlb import flush_tlb_mm_range
from scenarios.litmus.kit import *


class Before(Immediate):
    @instead_of(ptep_clear_flush, within=_replace_by_copy)
    async def later(self, cpu, mm, vpn):
        return await GetPte(mm, vpn)

    @instead_of(SetPte, within=_replace_by_copy)
    async def establishes(self, cpu, mm, vpn, entry):
        await SetPte(mm, vpn, entry)
        await flush_tlb_mm_range(cpu, mm, vpn, vpn + 1)


LITMUS = Litmus(
    name="cow-established",
    question="A copy takes a page's place: does anybody read the old page once the copy has been written?",
    programs=(call(write), in_order(call(write, PAGE, 13), returns), once_returned(call(read))),
    setup=starts(pages(PAGE, cached=(2,), exclusive=False), referenced()),
    expected=(never("immediate", "pgcow"), sometimes(Before, OVERWRITTEN)),
    frugal=False,
    drain=False,
)
