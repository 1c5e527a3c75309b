"""Blocks of several frames: what is pending keeps them from merging, so high orders fail first."""

from __future__ import annotations

from emulator.machine.litmus import FAST, Litmus
from scenarios.litmus.answers import DEFERRED, FAILED, REUSED, STALE, never, postings_never, sometimes
from scenarios.litmus.starts import PAGE, pages
from scenarios.litmus.steps import call, in_order, move, mover, read, reuse

ORDER = 1
PAGES = 3
THREE_PAGES = pages(PAGE, PAGE + 1, PAGE + 2, cached=(1,), area=PAGES)
# Frames 2 and 3 are one block of order 1 when both are free.
BLOCK = call(reuse, FAST, ORDER)


# CPU 0                             CPU 1 has frames 1 to 3 cached
# demote frames 2 and 3: pending
# allocate order 1: no block
# flush
#                                   handle the IPI
# free 2 and 3: they merge
# allocate again: frames 2 and 3
HIGH_ORDER = Litmus(
    name="high-order-needs-the-flush",
    question="Do pending frames become one free block before an allocation of a higher order fails?",
    programs=(in_order(call(move, 2), call(move, 3), BLOCK), call(read, PAGE + 1)),
    setup=THREE_PAGES,
    expected=(
        never("immediate", REUSED),
        *postings_never(DEFERRED, REUSED, STALE),
        sometimes("mistake:no-flush-under-pressure", FAILED),
        sometimes("mistake:no-flush-for-high-orders", FAILED),
    ),
    fast=PAGES,
    slow=PAGES,
)

# CPU 0                             CPU 1 has frames 1 to 3 cached
# demote 3, 2 and 1: pending
# allocate order 0: flush or not,
# there are frames; give it back
# allocate order 1: the block has to
# be whole again
BOTH_ORDERS = Litmus(
    name="high-order-after-low",
    question="Does an allocation of order 0, satisfied by any frame, leave the next one its block?",
    programs=(
        # Frame 1 is free at once where nothing is deferred: the watermark holds, and there is no block.
        in_order(call(move, 3), call(move, 2), mover, call(reuse, FAST), BLOCK),
        call(read, PAGE + 1),
    ),
    setup=THREE_PAGES,
    expected=(never("immediate", REUSED), *postings_never(DEFERRED, REUSED, STALE)),
    fast=PAGES,
    slow=PAGES,
)
