"""Bugs of userfaultfd's write-protection."""

from __future__ import annotations

from emulator.hardware.pte import RW
from emulator.machine.litmus import Litmus
from scenarios.history.bug import Bug
from scenarios.litmus.answers import RECEIVED, WRONG_VERSION, never, sometimes
from scenarios.litmus.starts import PAGE, WRITABLE_ENTRY, owed, pages, referenced, registered, starts
from scenarios.litmus.steps import call, keeps_if_cached
from scenarios.litmus.syscalls import get_page

COPIED_WHILE_PENDING = Bug(
    name="uffd-copied-while-pending",
    title="a write fault copies a page that others still write to",
    kinds=("PT", "WO"),
    story="One thread (userfaultfd, mmap_lock for reading) has taken the write permission, and its flush"
    " is to come. Another has taken the protection back. CPU 0 takes a write fault, and "
    "wp_page_copy copies the page. CPU 1 writes through its old entry. CPU 0 flushes and maps the "
    "copy, without that write.",
    affected="v5.7 to v5.11",
    source="the commit; the thread of Nadav Amit, 2021",
    fix="6ce64428d620",
    test=Litmus(
        name="uffd-copied-while-pending",
        question="userfaultfd has not flushed for a right that it took: is what a fault copies written?",
        programs=(call(get_page, PAGE, True), keeps_if_cached),
        setup=starts(
            pages(PAGE, cached=(1,), written=True, exclusive=False),
            registered,
            referenced(),
            owed(WRITABLE_ENTRY & ~RW),
        ),
        expected=(
            never("immediate", RECEIVED),
            sometimes("mistake:before-6ce64428d620", WRONG_VERSION),
        ),
        frugal=False,
        drain=False,
        settings=(("uffd_gives_write_back", False),),
    ),
    left_out="the two calls, of which the first owes the flush, are over or half done from the start on.",
    before="mistake:before-6ce64428d620",
)
