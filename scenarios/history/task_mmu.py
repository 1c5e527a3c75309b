"""Bugs of soft-dirty tracking."""

from __future__ import annotations

from emulator.machine.litmus import Litmus, Setup
from scenarios.history.bug import Bug
from scenarios.litmus.answers import AFTER_RETURN, TRACKING, WRONG_VERSION, never, sometimes
from scenarios.litmus.protection import CLEAR_REFS
from scenarios.litmus.starts import AREA_PAGES, PAGE, VERSION, pages, referenced, starts
from scenarios.litmus.steps import (
    call,
    in_order,
    is_noticed,
    keeps_if_cached,
    once_returned,
    read,
    returns,
    writes_another_word,
)
from scenarios.litmus.syscalls import PROT_READ, READ_WRITE, clear_soft_dirty, mprotect

SHMEM = -1

SOFT_DIRTY_UNFLUSHED = Bug(
    name="soft-dirty-unflushed",
    title="soft-dirty tracking begins, and writes still go unnoticed",
    kinds=("MF",),
    story="CPU 0 writes 4 into /proc/PID/clear_refs: every entry loses its write permission, inside a "
    "gather. Nothing is put into that, and since v5.6 an empty gather flushes nothing. CPU 1 "
    "writes through what it has cached; no fault tells the tracker.",
    affected="v5.6 to v5.11",
    source="the commit, 912efa17e512",
    fix="912efa17e512",
    test=CLEAR_REFS,
    before="mistake:before-912efa17e512",
)

_MPROTECT = Litmus(
    name="soft-dirty-mprotect",
    question="Soft-dirty tracking has begun, and mprotect takes and gives back: is the next write noticed?",
    programs=(
        in_order(
            clear_soft_dirty,
            call(mprotect, PAGE, PROT_READ),
            call(mprotect, PAGE, READ_WRITE),
            returns,
        ),
        once_returned(read, is_noticed),
    ),
    setup=pages(PAGE, written=True, area=1),
    expected=(
        never("immediate", AFTER_RETURN),
        sometimes("mistake:before-76aefad628aa", TRACKING),
    ),
    frugal=False,
)

SOFT_DIRTY_MPROTECT = Bug(
    name="soft-dirty-mprotect",
    title="mprotect makes tracked pages writable, and writes go unnoticed",
    kinds=("PT",),
    story="CPU 0 begins to track writes: entries lose their write permission. Then it takes the write "
    "permission of the area and gives it back (mprotect). The page is this mapping's own, so its "
    "entry is made writable at once, without a fault; the check whether writes are tracked was "
    "the wrong way round. CPU 1 writes, and nobody learns of it.",
    affected="v3.18 to v5.19 (files); of anonymous memory, as here, no release before v6.0",
    source="the patch, Peter Xu, 25 July 2022, with its reproducer",
    fix="76aefad628aa",
    test=_MPROTECT,
    before="mistake:before-76aefad628aa",
)


def _shared_unmapped(setup: Setup) -> None:
    setup.area(PAGE, AREA_PAGES, file=SHMEM, shared=True)
    setup.unmapped_page(SHMEM, version=VERSION)


SOFT_DIRTY_READ_FAULT = Bug(
    name="soft-dirty-read-fault",
    title="a page that is read after tracking has begun is writable at once",
    kinds=("PT",),
    story="CPU 0 begins to track writes. CPU 1 reads a page of shared memory that was not mapped: there"
    " is nothing to write back, so a fault gives the entry all that the area permits. Its write "
    "that follows needs no fault. Since then an area whose writes are tracked wants to be told of"
    " them.",
    affected="v3.11 to v3.17",
    source="the patch, Peter Feiner, 24 August 2014",
    fix="64e455079e1b",
    test=Litmus(
        name="soft-dirty-read-fault",
        question="Soft-dirty tracking has begun, then a page is read for the first time: is a write noticed?",
        programs=(in_order(clear_soft_dirty, returns), once_returned(read, is_noticed)),
        setup=_shared_unmapped,
        expected=(
            never("immediate", AFTER_RETURN),
            sometimes("mistake:before-64e455079e1b", TRACKING),
        ),
        frugal=False,
    ),
    before="mistake:before-64e455079e1b",
)


BESIDE_FAULTS = Bug(
    name="soft-dirty-beside-faults",
    title="a write fault copies a page that clear_refs is write-protecting and others still write to",
    kinds=("PT",),
    story="CPU 0 writes 4 into /proc/PID/clear_refs, holds mmap_lock for reading, has write-protected an "
    "entry, and flushes when it has been through all. CPU 1 takes a write fault, which that lock does not "
    "keep out, and copies the page, as somebody else refers to it. CPU 2 writes through the writable entry "
    "that it still has, into the page that nobody reads any more.",
    affected="v3.11 to v5.10",
    source="the commit; the thread of Nadav Amit and Andrea Arcangeli, December 2020",
    fix="29a951dfb3c3",
    test=Litmus(
        name="soft-dirty-beside-faults",
        question="A thread writes to a page that clear_refs is write-protecting: is another's write kept?",
        programs=(clear_soft_dirty, writes_another_word, call(keeps_if_cached)),
        setup=starts(pages(PAGE, cached=(2,), written=True, exclusive=False), referenced()),
        expected=(never("immediate", "pgcow"), sometimes("mistake:before-29a951dfb3c3", WRONG_VERSION)),
        frugal=False,
        drain=False,
    ),
    before="mistake:before-29a951dfb3c3",
)
