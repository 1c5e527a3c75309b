"""Bugs of userfaultfd's write-protection."""

from __future__ import annotations

from emulator.hardware.operations import WaitPte
from emulator.machine.litmus import MM, Litmus
from scenarios.history.bug import Bug
from scenarios.litmus.answers import RECEIVED, WRONG_VERSION, never, sometimes
from scenarios.litmus.calls import pin, writeprotect
from scenarios.litmus.starts import PAGE, PROTECTED_ENTRY, owed, pages, referenced, registered, starts
from scenarios.litmus.steps import call, in_order, keeps_if_cached

COPIED_WHILE_PENDING = Bug(
    name="uffd-copied-while-pending",
    title="a write fault copies a page that others still write to",
    kinds=("PT", "WO"),
    story="CPU 0 (userfaultfd, mmap_lock for reading) takes the write permission; its flush is to come. "
    "CPU 1 takes the protection back. CPU 2 takes a write fault, and wp_page_copy copies the page."
    " CPU 3 writes through its old entry. CPU 2 flushes and maps the copy, without that write.",
    affected="v5.7 to v5.11",
    source="the commit; the thread of Nadav Amit, 2021",
    fix="6ce64428d620",
    test=Litmus(
        name="uffd-copied-while-pending",
        question="userfaultfd has not flushed for a right that it took: is what a fault copies written?",
        programs=(
            call(writeprotect, PAGE, False),
            in_order(WaitPte(MM, PAGE, PROTECTED_ENTRY), call(pin, PAGE, True)),
            keeps_if_cached,
        ),
        setup=starts(
            pages(PAGE, cached=(2,), written=True, exclusive=False),
            registered,
            referenced(),
            owed(PROTECTED_ENTRY),
        ),
        expected=(
            never("immediate", RECEIVED),
            sometimes("mistake:before-6ce64428d620", WRONG_VERSION),
        ),
        frugal=False,
        drain=False,
        settings=(("uffd_gives_write_back", False),),
    ),
    left_out="CPU 0's call, which has been half done from the start on, does not go on.",
    before="mistake:before-6ce64428d620",
)
