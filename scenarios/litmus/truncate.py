"""A file's page is taken away and its slot filled anew: nobody may go on reading what was there.

Hansen's second rule for deferred flushes (<d650c29b-129f-4fac-9a9d-ea1fbdae2c3a@intel.com>): a page-cache
slot whose old page is still owed a flush is not refilled before it. The postings defer for migrations only,
and truncation flushes wherever the page is mapped.
"""

from __future__ import annotations

from emulator.kernel.percpu import PerCpu
from emulator.kernel.truncate import truncate_pagecache_range
from emulator.kernel.user import user_read, user_write
from emulator.machine.litmus import FAST, MM, Litmus, Setup
from scenarios.litmus.answers import (
    DEFERRED,
    READ_AGAIN,
    REUSED,
    STALE,
    never,
    postings_never,
    sometimes,
)
from scenarios.litmus.starts import FILE, PAGE, VERSION, file_page
from scenarios.litmus.steps import call, in_order, mover, read_if_cached, reuse

OTHER_MM = 2
MAPPED = ((MM, PAGE),)
TRUNCATED = "litmus_truncated"
# The flush of a single page leaves no note, so a later flush interrupts once more for nothing.
FRUGAL = False


async def _truncate(cpu: PerCpu) -> None:
    cpu.count(TRUNCATED, await truncate_pagecache_range(cpu, FILE, MAPPED, 0, 1))


_refills = in_order(call(_truncate), call(user_write, PAGE, 11))
_reads_twice = in_order(call(read_if_cached), call(read_if_cached))


# CPU 0                             CPU 1 has page -> src cached
# demote: src -> dst, deferred
# truncate: clear the entry, which
# names dst; IPI for the page
#                                   read src, before it
#                                   handle the IPI
# out of the cache, free dst
# write: fault, a new page, 11
#                                   read: not src's 7
# flush what is pending, free src
PENDING = Litmus(
    name="truncate-pending",
    question="A pending page's file is truncated and its slot refilled: is the source still read?",
    programs=(in_order(mover, _refills), _reads_twice),
    setup=file_page(),
    expected=(
        never("immediate", TRUNCATED, READ_AGAIN),
        *postings_never(DEFERRED, TRUNCATED, READ_AGAIN, STALE),
        sometimes("mistake:zap-without-flush"),
    ),
    frugal=FRUGAL,
    fast=2,
    slow=2,
)


# CPU 0 demotes                     CPU 1 truncates               CPU 2 has page -> src cached
# entry = migration entry
#                                   has a reference on src, waits
# copy; back to src, unless the slot
# was dst's already
#                                   clear the entry, flush the page
#                                   out of the cache
#                                   write: a new page, 11
#                                                                 read src?
WHILE_MOVING = Litmus(
    name="truncate-while-moving",
    question="A page is truncated while it is being moved: which of its two frames may anybody still read?",
    programs=(mover, _refills, _reads_twice),
    setup=file_page(),
    expected=(
        never("immediate", TRUNCATED, READ_AGAIN),
        *postings_never(DEFERRED, TRUNCATED, READ_AGAIN, STALE),
    ),
    frugal=FRUGAL,
    fast=2,
    slow=2,
)


# CPU 0 truncates                   CPU 1 has the page cached
# clear the entry, flush
#                                   read: fault, finds the old page
# out of the cache                  in the cache: may it map it?
WHILE_FAULTING = Litmus(
    name="truncate-while-faulting",
    question="A fault finds a page in the cache that is being truncated: is it mapped after it has gone?",
    programs=(call(_truncate), in_order(call(user_read, PAGE), call(user_read, PAGE))),
    setup=file_page(),
    expected=(
        never("immediate", TRUNCATED, READ_AGAIN),
        never("migrc:v3", TRUNCATED, READ_AGAIN),
        never("migrc:v9", TRUNCATED, READ_AGAIN),
    ),
    frugal=FRUGAL,
)


def _of_another_process(setup: Setup) -> None:
    file_page(cached=(1,))(setup)
    setup.load(0, OTHER_MM)


# CPU 0 runs another process        CPU 1 has page -> frame 1 cached
# truncate: clear the entry of mm 1;
# IPI for that mm
#                                   handle the IPI
# out of the cache, free frame 1, reuse
#                                   read: a new page
OF_ANOTHER_PROCESS = Litmus(
    name="truncate-by-another-process",
    question="A page is truncated by a process that has not mapped it: is it flushed where it is mapped?",
    programs=(in_order(call(_truncate), call(reuse, FAST)), _reads_twice),
    setup=_of_another_process,
    expected=(
        never("immediate", TRUNCATED, REUSED),
        *postings_never(TRUNCATED, REUSED),
        sometimes("mistake:zap-flushes-the-loaded-mm"),
    ),
    frugal=FRUGAL,
    fast=1,
    slow=1,
)


def _pending_there(setup: Setup) -> None:
    """Frame 1 is mm 2's, cached on CPU 1, which runs it; the file's page is mapped in mm 1 alone."""
    setup.load(1, OTHER_MM)
    setup.area(PAGE, 1, mm=OTHER_MM)
    setup.page(PAGE, version=VERSION, mm=OTHER_MM, cached=(1,))
    file_page(cached=(0,))(setup)


# CPU 0 runs mm 1                   CPU 1 runs mm 2, has frame 1 cached
# demote frame 1 of mm 2, deferred
#                                   truncate: flush the page of mm 1, on CPU 0
# handle the IPI
#                                   that was no flush of mine
# allocate: IPI, reuse frame 1
#                                   read: not frame 1
PENDING_THERE = Litmus(
    name="flushes-for-another-process",
    question="A CPU flushes pages of another process: what has it flushed of its own?",
    programs=(
        in_order(mover, call(reuse, FAST)),
        in_order(call(_truncate), call(read_if_cached)),
    ),
    setup=_pending_there,
    expected=(
        never("immediate", TRUNCATED, REUSED),
        never("migrc:v3", DEFERRED, TRUNCATED, REUSED),
        sometimes("mistake:range-flush-noted"),
    ),
    frugal=FRUGAL,
    fast=2,
    slow=2,
)
