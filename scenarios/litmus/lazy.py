"""Lazy CPUs: a kernel thread runs on the last address space, which flushes then need not interrupt for.

Leaving it out is right once the unmap has raised the generation: the CPU compares it when it goes back to
user mode. Before that it says nothing.
"""

from __future__ import annotations

from emulator.kernel.user import user_read
from emulator.machine.litmus import MM, Litmus
from scenarios.litmus.answers import DEFERRED, RECEIVED, REUSED, never, postings_never, sometimes
from scenarios.litmus.starts import PAGE, pages
from scenarios.litmus.steps import call, in_order, moves_and_reuses
from scenarios.litmus.syscalls import kernel_thread, switch_to

# A CPU that goes back to user mode has nothing cached by then, and is interrupted all the same; not judged.
# CPU 0 demotes, then needs memory  CPU 1
#                                   a kernel thread: lazy
# (who is lazy? CPU 1)
#                                   back to user mode: no generation missed
#                                   read: walks, caches frame 1
# unmap, generation + 1
# who is lazy? nobody
# IPI, free frame 1, reuse
#                                   read
LEFT_MEANWHILE = Litmus(
    name="lazy-left-meanwhile",
    question="A CPU leaves lazy mode while a page is unmapped: is it flushed?",
    programs=(
        moves_and_reuses,
        in_order(kernel_thread, call(switch_to, MM), call(user_read, PAGE), call(user_read, PAGE)),
    ),
    setup=pages(PAGE, cached=()),
    expected=(
        never("immediate", REUSED, RECEIVED),
        *postings_never(DEFERRED, REUSED, RECEIVED),
        sometimes("mistake:lazy-before-unmap"),
    ),
    fast=1,
    slow=2,
    frugal=False,
)
