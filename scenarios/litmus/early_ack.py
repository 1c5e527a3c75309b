"""Acknowledging a flush before it is done (`--mmu early-ack`): what may the initiator do meanwhile?"""

from __future__ import annotations

from dataclasses import replace

from emulator.kernel.mmu.early_ack import EARLY_ACKS
from scenarios.litmus import shootdown, walkers
from scenarios.litmus.answers import FREED_TABLE, REUSED, never, sometimes

# CPU 0 moves and reuses            CPU 1 has frame 1 cached
# entry = migration entry
# IPI to CPU 1
#                                   handle the IPI, acknowledge
# copy, map frame 2, free frame 1
# allocate frame 1, clear it
#                                   flush, return
#                                   read: no way to the old translation
EARLY = replace(
    shootdown.SHOOTDOWN,
    name="early-ack-reuse",
    question="A CPU acknowledges first and flushes then: may the frame be reused in between?",
    expected=(
        never("immediate", EARLY_ACKS, REUSED),
        sometimes("mistake:acknowledges-and-returns"),
    ),
    mmu="early-ack",
)

# CPU 0                             CPU 1 has cached which table the page is in
# munmap: the entry, then the table
# go; IPI
#                                   handle the IPI, acknowledge
# free the table
#                                   walk ahead: from what is cached, in the handler too
TABLES = replace(
    walkers.FREED,
    name="early-ack-table",
    question="munmap frees a page table: may those who walk it acknowledge before they flush?",
    expected=(
        never("immediate", walkers.UNMAPPED),
        sometimes("mistake:acknowledges-freed-tables", FREED_TABLE),
    ),
    mmu="early-ack",
)
