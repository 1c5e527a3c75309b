"""A write to a page whose old read-only translations are still about: flush first, then make it writable."""

from __future__ import annotations

from emulator.kernel.user import user_write
from emulator.machine.litmus import FAST, SLOW, Litmus
from scenarios.litmus.answers import (
    DEFERRED,
    LUF,
    MADE_WRITABLE,
    RECEIVED,
    STALE,
    WRITE_FAULTS,
    never,
    postings_never,
    postings_sometimes,
    sometimes,
)
from scenarios.litmus.starts import PAGE, cached_page, file_page, pages
from scenarios.litmus.steps import call, in_order, move, mover, reader

ELSEWHERE = 0x20


# CPU 0 demotes, then writes        CPU 1 has the source cached
# move, the request is hung
# fault: pending, take list, IPI
#                                   read the source: fine, nothing is written yet
#                                   handle the IPI
# entry = writable, write
#                                   read: finds the destination
PENDING_WRITE = Litmus(
    name="write-fault-pending",
    question="Does a write fault on a pending folio flush before the page can change?",
    programs=(in_order(mover, call(user_write, PAGE, 11)), reader),
    setup=cached_page,
    expected=(
        never("immediate"),
        never("luf:v10", DEFERRED, WRITE_FAULTS),
        *(sometimes(policy, MADE_WRITABLE) for policy in LUF[1:]),
        *postings_never(DEFERRED, WRITE_FAULTS, STALE),
        sometimes("mistake:write-fault-forgets"),
    ),
)

# CPU 0 promotes frame 2, then       CPU 1 has frame 2 cached
# writes: the request hangs on the
# list of the slow node
PROMOTED_WRITE = Litmus(
    name="write-fault-promoted",
    question="Does a write fault on a promoted folio flush for the node that it came from?",
    programs=(in_order(call(move, 2, FAST), call(user_write, PAGE, 11)), reader),
    setup=pages(PAGE, cached=(1,), node=SLOW),
    expected=(
        never("immediate"),
        *postings_never(DEFERRED, WRITE_FAULTS, STALE),
        sometimes("mistake:flushes-one-node", MADE_WRITABLE),
    ),
    fast=1,
    slow=1,
)

# CPU 0 demotes                     CPU 1 writes                  CPU 2 has the source cached
# copy, entry = dst, read-only
#                                   fault: flagged; list is empty
#                                   entry = writable, write 12
#                                                                 read the source: 7
# hang the request
NOT_YET_HUNG = Litmus(
    name="write-fault-before-hung",
    question="What if the write comes when the destination is mapped but the request is still private?",
    programs=(mover, call(user_write, PAGE, 12), reader),
    setup=cached_page,
    expected=(
        never("immediate", RECEIVED),
        sometimes("migrc:v3", MADE_WRITABLE),
        never("migrc:rfc2", DEFERRED, WRITE_FAULTS, STALE),
        never("migrc:v9", DEFERRED, WRITE_FAULTS, STALE),
    ),
)


# CPU 0                             CPU 1 has page -> src cached
# demote: src -> dst, deferred
# write elsewhere: nothing is mapped
# there, so no write-protect fault;
# do_shared_fault maps dst writable
# write 11
#                                   read the source: 7
SHARED_FAULT = Litmus(
    name="shared-fault-pending",
    question="A fault maps a pending page of a file writable at another address: does it flush first?",
    programs=(in_order(mover, call(user_write, ELSEWHERE, 11)), reader),
    setup=file_page(PAGE, ELSEWHERE),
    expected=(never("immediate", RECEIVED), *postings_sometimes(MADE_WRITABLE)),
)
