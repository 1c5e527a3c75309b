"""Pages lose a right, or their frame, while they go on being used: who may still act on the old one?

Writeback, soft-dirty tracking, KSM and the first write to a page that has only been read: each changes
an entry and relies on its own flush before it goes on.
"""

from __future__ import annotations

from dataclasses import replace

from emulator.hardware.operations import Load, SmpRmb, SmpWmb, Store, Translate
from emulator.kernel.ksm import try_to_merge_two_pages
from emulator.kernel.percpu import PerCpu
from emulator.kernel.task_mmu import CLEAR_REFS_SOFT_DIRTY, clear_refs_write
from emulator.kernel.user import user_read, user_write
from emulator.kernel.userfaultfd import mwriteprotect_range
from emulator.kernel.writeback import filemap_write_and_wait_range
from emulator.machine.litmus import MM, Forbidden, Litmus, Setup
from scenarios.litmus.answers import (
    DEFERRED,
    LUF,
    RECEIVED,
    RETURNED,
    STALE,
    TRACKING,
    never,
    never_on_x86,
    postings_never,
    sometimes,
)
from scenarios.litmus.pageout import LOST, WRITTEN_OUT
from scenarios.litmus.starts import FILE, FLAG, OTHER, PAGE, file_page, pages, registered, starts
from scenarios.litmus.steps import call, in_order, mover, reader

WRITTEN = "nr_written"
MERGED = "ksm_pages_merged"
COPIED = "pgcow"
CLEARED = "litmus.cleared"
TRACKED = "litmus_tracked"
# The flush of a single page leaves no note, so a later flush interrupts once more for nothing.
FRUGAL = False


async def _writer(cpu: PerCpu) -> None:
    await user_write(cpu, PAGE, 12)
    version = await user_read(cpu, PAGE)
    if version != 12:
        raise Forbidden(LOST, f"read version {version} after writing 12")


# CPU 0 writes the file out         CPU 1 has the page writable and dirty
# clear the entry; it was dirty
#                                   write 12, without a fault
# IPI, wait
#                                   handle it
# entry = read-only, clean
# write out: 12 is in it
#                                   or 12 now: fault, dirty again
MSYNC = Litmus(
    name="msync-dirty",
    question="A dirty page of a file is written out, still mapped: may it be written meanwhile, unnoticed?",
    programs=(call(filemap_write_and_wait_range, FILE, 0, 1), _writer),
    setup=file_page(written=True, stored=True),
    expected=(
        never("immediate", RECEIVED, WRITTEN),
        *postings_never(RECEIVED, WRITTEN),
        sometimes("mistake:protect-without-flush", WRITTEN_OUT),
    ),
    frugal=FRUGAL,
)

_clears_and_tells = in_order(
    call(clear_refs_write, MM, PAGE, PAGE + 1, CLEAR_REFS_SOFT_DIRTY), SmpWmb(), Store(CLEARED, 1)
)


async def _is_tracked(cpu: PerCpu) -> None:
    cleared = await Load(CLEARED)
    await SmpRmb()
    writes = await Translate(PAGE, True)
    if cleared and writes:
        raise Forbidden(TRACKING, "tracking has begun, but a write goes through without a fault")
    if cleared:
        cpu.count(TRACKED)


# CPU 0                             CPU 1 has the page writable and dirty
# clear_refs: entry = read-only
# flush the mm
# return to the caller
#                                   a write now faults, and is noticed
CLEAR_REFS = Litmus(
    name="clear-refs-write",
    question="Soft-dirty tracking has begun: does a write still go through without a fault?",
    programs=(_clears_and_tells, _is_tracked),
    setup=pages(PAGE, written=True),
    expected=(
        never("immediate", RECEIVED, TRACKED),
        *postings_never(RECEIVED, TRACKED),
        sometimes("mistake:protect-without-flush", TRACKING, RETURNED),
        sometimes("mistake:before-912efa17e512", TRACKING, RETURNED),
    ),
    frugal=FRUGAL,
)

_protects_and_tells = in_order(
    call(mwriteprotect_range, MM, PAGE, PAGE + 1, True), SmpWmb(), Store(CLEARED, 1)
)


# As above, with a flush of the range.
UFFD_PROTECT = replace(
    CLEAR_REFS,
    name="uffd-write-protected",
    question="userfaultfd has write-protected a page: does a write still go through without a fault?",
    programs=(_protects_and_tells, _is_tracked),
    setup=starts(pages(PAGE, written=True), registered),
    expected=CLEAR_REFS.expected[:-1],  # but for the mistake that clear_refs made
)

# CPU 0 merges two equal pages      CPU 1 has the first writable and dirty
# entry = read-only, IPI, wait
# compare: equal
#                                   write 12: before the IPI, and they
#                                   differ, or a fault
# entry = the other frame, IPI
# free the first
MERGE = Litmus(
    name="ksm-merge",
    question="KSM merges a page with an equal one while its owner writes to it: is the write lost?",
    programs=(call(try_to_merge_two_pages, MM, PAGE, OTHER), _writer),
    setup=pages(PAGE, OTHER, written=True, cached=(1,)),
    expected=(
        never("immediate", RECEIVED, MERGED),
        *postings_never(RECEIVED, MERGED),
        sometimes("mistake:protect-without-flush"),
    ),
    frugal=FRUGAL,
)

# CPU 0                             CPU 1 has page -> src cached
# demote: src -> dst, deferred
# merge: the entry, which names dst,
# is cleared; IPI for the page
#                                   read src, before it
#                                   handle the IPI
# entry = the other frame
MERGE_PENDING = Litmus(
    name="ksm-pending",
    question="A pending page is merged with an equal one: is its source still read afterwards?",
    programs=(in_order(mover, call(try_to_merge_two_pages, MM, PAGE, OTHER)), reader),
    setup=pages(PAGE, OTHER, cached=(1,)),
    expected=(
        never("immediate", RECEIVED, MERGED),
        *(never_on_x86(policy, DEFERRED, MERGED) for policy in LUF[:3]),
        *postings_never(DEFERRED, MERGED, STALE),
    ),
    frugal=FRUGAL,
)


def _zero_page_and_flag(setup: Setup) -> None:
    setup.area(PAGE, 1)
    setup.zero_page(PAGE, cached=range(setup.cpus))
    setup.area(FLAG, 1)
    setup.page(FLAG, writable=True, dirty=True, cached=range(setup.cpus))


_writes_and_tells = in_order(call(user_write, PAGE, 1), SmpWmb(), call(user_write, FLAG, 1))


async def _told_and_reads(cpu: PerCpu) -> None:
    flag = await user_read(cpu, FLAG)
    await SmpRmb()
    data = await user_read(cpu, PAGE)
    if flag and not data:
        raise Forbidden("message passing", "the flag is 1, the data behind it still 0")


# CPU 0                             CPU 1 has the zero page cached
# write: fault, a page of its own
# clear the entry; IPI, wait
#                                   read 0, before it
#                                   handle it
# entry = the page; data = 1
# flag = 1
#                                   flag is 1: data is 1
ZERO_PAGE = Litmus(
    name="zero-page-written",
    question="A page that was only read is written for the first time: does anybody go on reading zeros?",
    programs=(_writes_and_tells, _told_and_reads),
    setup=_zero_page_and_flag,
    expected=(
        never("immediate", RECEIVED, COPIED),
        *postings_never(RECEIVED, COPIED),
        sometimes("mistake:protect-without-flush"),
    ),
    frugal=FRUGAL,
)
