"""Address spaces that come and go on a CPU while a page of theirs is being moved.

switch_mm_irqs_off sets the CPU's bit first and reads the generation then; whoever unmaps raises the
generation first and reads the bits then. One of the two sees the other.
"""

from __future__ import annotations

from emulator.kernel.user import user_read
from emulator.machine.litmus import MM, Litmus, Setup
from scenarios.litmus.answers import (
    DEFERRED,
    RECEIVED,
    REUSED,
    never,
    postings_never,
    postings_sometimes,
    sometimes,
)
from scenarios.litmus.starts import PAGE, pages
from scenarios.litmus.steps import bystander, call, in_order, moves_and_reuses
from scenarios.litmus.syscalls import switch_to

OTHER_MM = 2


def _comes(setup: Setup) -> None:
    pages(PAGE, cached=())(setup)
    setup.load(1, OTHER_MM)


# CPU 2 runs the address space, so that the flush is left to the batch.
# CPU 0 demotes, then needs memory  CPU 1 switches to the mm
# (who runs this mm?)
#                                   set the bit, read the generation
#                                   read: walks, caches frame 1
# unmap, generation + 1
# who runs this mm? CPU 1 as well
# IPI, free frame 1, reuse
#                                   read
LOADED_MEANWHILE = Litmus(
    name="mm-loaded-meanwhile",
    question="A CPU loads the address space while one of its pages is unmapped: is it flushed?",
    programs=(
        moves_and_reuses,
        in_order(call(switch_to, MM), call(user_read, PAGE), call(user_read, PAGE)),
        bystander,
    ),
    setup=_comes,
    expected=(
        never("immediate", REUSED, RECEIVED),
        *postings_never(DEFERRED, REUSED),
        sometimes("mistake:mask-before-unmap"),
    ),
    fast=1,
    slow=2,
)

# CPU 0 has frame 1 cached          CPU 1 runs the address space, too
# who runs this mm? CPU 1 as well: put the flush off
#                                   switch to another mm
# the batch: who runs this mm? CPU 0 alone
# flush here, free frame 1, reuse
# read
ALONE_MEANWHILE = Litmus(
    name="mm-alone-meanwhile",
    question="The others leave before a batch notes its CPUs: does this one flush for itself?",
    programs=(in_order(moves_and_reuses, call(user_read, PAGE)), call(switch_to, OTHER_MM)),
    setup=pages(PAGE, cached=(0,)),
    expected=(
        never("immediate", REUSED),
        *postings_never(DEFERRED, REUSED),
        sometimes("mistake:alone-needs-no-flush"),
    ),
    frugal=False,
    fast=1,
    slow=2,
)

# CPU 0 demotes, then needs memory  CPU 1 has frame 1 cached
#                                   switch to another mm: the bit goes, the entry stays
# unmap, generation + 1
# nobody to interrupt
# free frame 1, reuse
#                                   switch back: the generation has moved, flush
#                                   read
LEFT_MEANWHILE = Litmus(
    name="mm-left-meanwhile",
    question="A CPU leaves the address space, misses a flush and comes back: does it use what it kept?",
    programs=(
        moves_and_reuses,
        in_order(call(switch_to, OTHER_MM), call(switch_to, MM), call(user_read, PAGE)),
        bystander,
    ),
    setup=pages(PAGE, cached=(1,)),
    expected=(
        never("immediate", REUSED),
        # The flush that comes with loading CR3 is not noted, so the CPU is interrupted for it once more.
        *postings_sometimes("needless interrupt"),
    ),
    fast=1,
    slow=2,
)
