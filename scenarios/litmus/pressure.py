"""Memory that only a flush would give back: no allocation may fail for want of it."""

from __future__ import annotations

from emulator.hardware.operations import Store, WaitFor
from emulator.machine.litmus import FAST, Litmus
from scenarios.litmus.answers import DEFERRED, FAILED, REUSED, never, postings_never, sometimes
from scenarios.litmus.starts import OTHER, PAGE, pages
from scenarios.litmus.steps import MOVED, call, in_order, move, mover, moves_and_reuses, reader, reuse

# CPU 0                             CPU 1 has frame 1 cached
# demote: the only frame is pending
# allocate: none free
# flush, free frame 1
#                                   handle the IPI
# allocate again: frame 1
HIDDEN_PRESSURE = Litmus(
    name="allocation-needs-the-flush",
    question="Is pending memory flushed for and found before an allocation fails?",
    programs=(moves_and_reuses, reader),
    setup=pages(PAGE, cached=(1,)),
    expected=(
        *postings_never(DEFERRED, REUSED),
        sometimes("mistake:no-flush-under-pressure", FAILED),
        sometimes("mistake:flushes-below-the-watermark-only", FAILED),
    ),
    fast=1,
    slow=2,
)


# CPU 0                             CPU 1
# both frames are pending
# allocate: none free, take the list
#                                   allocate: none free, the list is empty
#                                   reclaim: nothing left to demote
#                                   fails
# free both frames
TWO_ALLOCATORS = Litmus(
    name="two-allocators",
    question="Two CPUs need pending memory; one is flushing for it: does the other one fail?",
    programs=(
        in_order(mover, call(move, 2), Store(MOVED, 1), call(reuse, FAST)),
        in_order(WaitFor(MOVED, 1), call(reuse, FAST)),
    ),
    setup=pages(PAGE, OTHER, cached=(1,)),
    expected=(
        never("immediate", REUSED),
        sometimes("migrc:v3", FAILED),
        sometimes("migrc:rfc2", FAILED),
        never("migrc:v9", DEFERRED, REUSED),
    ),
    fast=2,
    slow=2,
)
