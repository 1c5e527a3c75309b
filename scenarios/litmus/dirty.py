"""An entry cached writable and dirty lets its CPU write without a fault, whatever the page table says."""

from __future__ import annotations

from emulator.hardware.pte import PRESENT, PROTNONE, RW
from emulator.kernel.user import user_read, user_write
from emulator.machine.litmus import FAST, MM, SLOW, Litmus, Setup
from scenarios.litmus.answers import (
    COPIED_WRITABLE,
    DEFERRED,
    FRAME_REUSED,
    FREE,
    LOST_WRITE,
    MADE_WRITABLE,
    PROMOTED,
    RECEIVED,
    REUSED,
    luf_sometimes,
    never,
    never_on_x86,
    postings_never,
    postings_sometimes,
    sometimes,
)
from scenarios.litmus.starts import (
    AREA_PAGES,
    FILE,
    PAGE,
    VERSION,
    WRITABLE_ENTRY,
    file_page,
    owed,
    pages,
    runs,
    starts,
)
from scenarios.litmus.steps import (
    bystander,
    call,
    in_order,
    keeps_if_cached,
    move,
    mover,
    read_if_cached,
    reader,
    reuse,
    scanner,
    write_if_cached,
)
from scenarios.litmus.syscalls import reclaim

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
    programs=(scanner, call(user_read, PAGE), call(write_if_cached)),
    setup=pages(PAGE, node=SLOW, written=True, cached=(2,)),
    expected=(
        never("immediate", PROMOTED),
        *luf_sometimes(COPIED_WRITABLE),
        never("migrc:v3", PROMOTED),
        sometimes("migrc:rfc2", COPIED_WRITABLE),
        sometimes("mistake:before-20841405940e", COPIED_WRITABLE),
        sometimes("generations:rfc", COPIED_WRITABLE),
        never_on_x86("generations:repaired", PROMOTED),
        sometimes("mistake:pending-compared-backwards", COPIED_WRITABLE),
        sometimes("mistake:table-not-marked", COPIED_WRITABLE),
    ),
    fast=2,
    slow=1,
)

_INACCESSIBLE = WRITABLE_ENTRY & ~(PRESENT | RW) | PROTNONE


# The scanner has made the entry inaccessible and still owes its flush. Before v6.3 each page is flushed for
# by itself.
# CPU 0                             CPU 1 has it writable and dirty
# demote: PROT_NONE, so no flush?
# copy
#                                   write the source: lost
DIRTY_UNBATCHED = Litmus(
    name="dirty-entry-unbatched",
    question="A page became inaccessible, unflushed, and moves by itself: may its old frame be written?",
    programs=(mover, call(keeps_if_cached)),
    setup=starts(pages(PAGE, written=True, cached=(1,)), owed(_INACCESSIBLE)),
    expected=(
        never("immediate", RECEIVED),
        sometimes("mistake:before-20841405940e", COPIED_WRITABLE, LOST_WRITE, FREE),
    ),
    settings=(("version", "6.1"),),
    drain=False,
    frugal=False,
    fast=1,
    slow=1,
)

# The same where one CPU is all that runs the address space, and reclaim takes a page of a file.
RECLAIMED_ALONE = Litmus(
    name="inaccessible-reclaimed-alone",
    question="A page became inaccessible, unflushed, and is reclaimed: does who alone has it flush?",
    programs=(in_order(reclaim, call(reuse, FAST), call(read_if_cached)), bystander),
    setup=starts(file_page(written=True, cached=(0,)), owed(_INACCESSIBLE), runs(1, OTHER_MM)),
    expected=(
        never("immediate", REUSED),
        sometimes("mistake:before-20841405940e", FRAME_REUSED, FREE),
    ),
    drain=False,
    frugal=False,
    fast=1,
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


def _writable_and_clean(setup: Setup) -> None:
    setup.area(PAGE, AREA_PAGES)
    setup.page(PAGE, writable=True, version=VERSION, cached=(1,))


# CPU 0                             CPU 1 has frame 1 cached, not yet written
# demote; the destination is mapped
# writable: a write does not fault
# write
#                                   read: not frame 1
WRITABLE_CLEAN = Litmus(
    name="writable-entry-clean",
    question="Nobody has written through a writable entry yet: may its flush be deferred?",
    programs=(in_order(mover, call(user_write, PAGE, 11)), reader),
    setup=_writable_and_clean,
    expected=(
        never("immediate", RECEIVED),
        *postings_never(RECEIVED),
        sometimes("mistake:defers-what-is-clean"),
    ),
    fast=2,
    slow=1,
)


def _mapped_twice(setup: Setup) -> None:
    setup.area(PAGE, AREA_PAGES)
    pfn = setup.page(PAGE, exclusive=False, version=VERSION, cached=(1,))
    setup.map_again(PAGE + 1, pfn, writable=True)
    setup.cache(1, PAGE + 1)


# CPU 0                             CPU 1 has frame 1 cached twice, once writable
# demote: one entry could wait, the
# other one cannot
#                                   write frame 1: lost, if it was copied
# IPI, copy
#                                   read: what was written
ONE_OF_TWO_WRITABLE = Litmus(
    name="one-writable-mapping",
    question="Of two mappings of a folio one is writable: is it copied only when both are flushed?",
    programs=(mover, in_order(call(user_write, PAGE + 1, 12), call(user_read, PAGE))),
    setup=_mapped_twice,
    expected=(
        never("immediate", RECEIVED),
        *postings_never(RECEIVED),
        sometimes("mistake:defers-the-whole-batch"),
    ),
    fast=2,
    slow=1,
)


def _dirty(setup: Setup) -> None:
    setup.area(PAGE, AREA_PAGES)
    setup.page(PAGE, dirty=True, version=VERSION, cached=(1,))


# CPU 0                             CPU 1 has frame 1 cached, read-only and dirty
# demote: on a list of its own, or
# not deferred
#                                   read
# the end: flush what is on that list, too
DIRTY_PENDING = Litmus(
    name="dirty-entry-pending",
    question="An entry is read-only and dirty, nobody writes: is its source freed in the end?",
    programs=(mover, reader),
    setup=_dirty,
    expected=(
        never("immediate", RECEIVED),
        never("migrc:v3", RECEIVED),
        never("migrc:rfc2", DEFERRED, RECEIVED),
        never("migrc:v9", RECEIVED),
        sometimes("mistake:drains-what-is-clean"),
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
        sometimes("migrc:rfc1", MADE_WRITABLE),
        sometimes("migrc:rfc2", MADE_WRITABLE),
        never("migrc:v9", DEFERRED, RECEIVED),
    ),
    fast=2,
    slow=2,
)


def _written_alone(setup: Setup) -> None:
    """A file's page, written by mm 1, which runs on CPU 0 only, and read by mm 2 on CPU 1."""
    setup.load(1, OTHER_MM)
    for mm in (MM, OTHER_MM):
        setup.area(PAGE, 1, file=FILE, shared=True, mm=mm)
    pfn = setup.page(PAGE, writable=True, dirty=True, exclusive=False, version=VERSION, cached=(0,))
    setup.in_page_cache(pfn, FILE, 0)
    setup.map_again(PAGE, pfn, mm=OTHER_MM)
    setup.cache(1, PAGE, OTHER_MM)


# Only what is left to the batch tells the postings that a mapping is writable (nr_flush_required); that of an
# mm which runs here alone is flushed at once and not seen.
# CPU 0                             CPU 1 has frame 1 cached, in another mm
# demote: its own entry, writable, is
# flushed at once; the other one is
# read-only: defer
# write: the destination is writable
#                                   read frame 1
WRITTEN_ALONE = Litmus(
    name="writable-where-run-alone",
    question="A folio is writable in a process that runs here alone, only read in another: may it wait?",
    programs=(in_order(mover, call(user_write, PAGE, 11)), call(read_if_cached, PAGE)),
    setup=_written_alone,
    expected=(never("immediate", RECEIVED), *postings_sometimes(MADE_WRITABLE)),
    fast=2,
    slow=1,
)
