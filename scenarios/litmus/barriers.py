"""Read the generation, flush, note it: in this order, or a CPU is taken for flushed that is not.

The adversary is the page walker, which may bring a translation back at any moment until the entry is
gone. Whether an order needs a barrier is a property of the architecture: MOV to CR3 serializes, while
SFENCE.VMA orders neither the load before it nor the store after it.
"""

from __future__ import annotations

from emulator.kernel.user import user_read
from emulator.machine.litmus import Expectation, Litmus
from scenarios.litmus.answers import REUSED, SKIPPED, never, postings_never, sometimes
from scenarios.litmus.starts import PAGE, pages
from scenarios.litmus.steps import call, flush_for_own_reasons, in_order, moves_and_reuses

# CPU 0 demotes, then needs memory  CPU 1 flushes on its own      CPU 1's walker
#                                   (the load is put off)
#                                   flush
#                                                                 fetches page -> frame 1
# unmap, generation 1
#                                   the load finds 1, note 1
# CPU 1 is done: free frame 1, reuse
#                                   read frame 1
# The other way round, the note is visible before the flush is:
# unmap, generation 1
#                                   load 1
#                                   note 1 (early)
# CPU 1 is done: free frame 1, reuse
#                                   flush, too late
FLUSH_NOTES = Litmus(
    name="flush-notes",
    question="Is the order read generation, flush, write note kept where only barriers keep it?",
    programs=(moves_and_reuses, in_order(call(flush_for_own_reasons), call(user_read, PAGE))),
    setup=pages(PAGE, cached=(1,)),
    expected=(
        *postings_never(SKIPPED, REUSED),
        never("migrc:rfc1", SKIPPED, REUSED),
        Expectation("mistake:no-barrier-before-flush", "Never", "Never", "Sometimes", (SKIPPED, REUSED)),
        Expectation("mistake:no-barrier-after-flush", "Never", "Never", "Sometimes", (SKIPPED, REUSED)),
        sometimes("mistake:generation-read-after-flush"),
        sometimes("mistake:note-before-flush"),
    ),
    speculated=(PAGE,),
    fast=1,
    slow=2,
)
