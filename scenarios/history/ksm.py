"""Bugs of KSM."""

from __future__ import annotations

from emulator.hardware.operations import WaitPte
from emulator.machine.litmus import MM, Litmus
from scenarios.history.bug import Bug
from scenarios.litmus.answers import RECEIVED, WRONG_VERSION, never, sometimes
from scenarios.litmus.calls import ksm, writeprotect
from scenarios.litmus.starts import CLEAN_ENTRY, OTHER, PAGE, owed, pages, registered, starts
from scenarios.litmus.steps import call, in_order, keeps_if_cached

MERGED_WHILE_PENDING = Bug(
    name="ksm-beside-pending",
    title="KSM merges a page that looks read-only and clean, and is still written",
    kinds=("PT",),
    story="CPU 0 has the page cached writable and dirty. CPU 1 (MADV_FREE) clears the dirty bit, CPU 2 "
    "(userfaultfd; in 2017 clear_refs as well) the write permission; both owe their flush. CPU 3 "
    "(KSM) finds an entry that is neither writable nor dirty, leaves its own flush out, compares "
    "and merges. CPU 0 writes in between; the write is lost.",
    affected="v2.6.32 to v4.12",
    source="the commit; the thread of Nadav Amit and Minchan Kim, 2017",
    fix="b3a81d0841a9",
    test=Litmus(
        name="ksm-beside-pending",
        question="Two others have made an entry read-only and clean, and not flushed: does KSM rely on it?",
        programs=(
            keeps_if_cached,
            call(writeprotect, PAGE),
            in_order(WaitPte(MM, PAGE, CLEAN_ENTRY), call(ksm, PAGE, OTHER)),
        ),
        setup=starts(
            pages(PAGE, OTHER, cached=(0,), written=True, exclusive=False), registered, owed(CLEAN_ENTRY)
        ),
        expected=(
            never("immediate", RECEIVED),
            sometimes("mistake:before-b3a81d0841a9", WRONG_VERSION),
        ),
        frugal=False,
        drain=False,
    ),
    left_out="CPU 1's call, which has been half done from the start on, does not go on.",
    before="mistake:before-b3a81d0841a9",
)
