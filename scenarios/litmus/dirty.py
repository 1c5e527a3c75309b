"""An entry cached writable and dirty lets its CPU write without a fault, whatever the page table says."""

from __future__ import annotations

from emulator.kernel.user import user_read, user_write
from emulator.machine.litmus import SLOW, Litmus, Setup
from scenarios.litmus.answers import DEFERRED, PROMOTED, RECEIVED, never, postings_never, sometimes
from scenarios.litmus.starts import AREA_PAGES, PAGE, VERSION, pages
from scenarios.litmus.steps import bystander, call, in_order, move, mover, reader, scanner

OTHER_MM = 2


# CPU 0 scans                       CPU 1 faults                  CPU 2 has it writable and dirty
# entry = PROT_NONE, dirty
#                                   promote: not writable, defer?
#                                   copy
#                                                                 write the source: lost
# flush
DIRTY_CACHED = Litmus(
    name="dirty-entry-cached",
    question="An entry cached writable and dirty is write-protected by now: may its flush be deferred?",
    programs=(scanner, call(user_read, PAGE), call(user_write, PAGE, 13)),
    setup=pages(PAGE, node=SLOW, written=True, cached=(2,)),
    expected=(
        never("immediate", PROMOTED),
        never("migrc:v3", PROMOTED),
        sometimes("migrc:rfc2"),
    ),
    fast=2,
    slow=1,
)


# CPU 0 demotes                     CPU 1 has frame 1 cached writable
# entry = migration entry
# IPI, wait for it
#                                   write frame 1: still the page's
#                                   handle the IPI
# copy, entry = destination
#                                   read, write: find the destination
WRITABLE = Litmus(
    name="writable-entry-cached",
    question="Is a page moved only when nobody can write to its old frame any more?",
    programs=(mover, in_order(call(user_write, PAGE, 12), call(user_read, PAGE))),
    setup=pages(PAGE, written=True, cached=(1,)),
    expected=(
        never("immediate", RECEIVED),
        *postings_never(RECEIVED),
        sometimes("mistake:defers-writable"),
    ),
    fast=2,
    slow=1,
)


def _dirty_and_clean(setup: Setup) -> None:
    setup.area(PAGE, AREA_PAGES)
    setup.page(PAGE, dirty=True, version=VERSION, cached=(1,))
    # The clean page is another process', so that the flush for it does not interrupt CPU 1.
    setup.load(2, OTHER_MM)
    setup.area(PAGE, AREA_PAGES, mm=OTHER_MM)
    setup.page(PAGE, version=VERSION, mm=OTHER_MM, cached=(2,))


# CPU 0                             CPU 1 has frame 1 cached, read-only and dirty
# demote 1: on the dirty list
# demote 2: on the clean list
# fault on 1's page: flush the clean
# list; that was something, so return
# write
#                                   read frame 1
DIRTY_LIST = Litmus(
    name="dirty-list-left",
    question="Requests wait on two lists: does a write fault flush for both?",
    programs=(in_order(mover, call(move, 2), call(user_write, PAGE, 11)), reader, bystander),
    setup=_dirty_and_clean,
    expected=(
        never("migrc:v3", DEFERRED, RECEIVED),
        sometimes("migrc:rfc1"),
        sometimes("migrc:rfc2"),
        never("migrc:v9", DEFERRED, RECEIVED),
    ),
    fast=2,
    slow=2,
)
