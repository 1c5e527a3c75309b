"""Bugs of KSM."""

from __future__ import annotations

from emulator.hardware.pte import RW
from emulator.machine.litmus import Litmus
from scenarios.history.bug import Bug
from scenarios.litmus.answers import RECEIVED, WRONG_VERSION, never, sometimes
from scenarios.litmus.starts import CLEAN_ENTRY, OTHER, PAGE, owed, pages, starts
from scenarios.litmus.steps import call, keeps_if_cached
from scenarios.litmus.syscalls import ksm

MERGED_WHILE_PENDING = Bug(
    name="ksm-beside-pending",
    title="KSM merges a page that looks read-only and clean, and is still written",
    kinds=("PT",),
    story="CPU 0 has the page cached writable and dirty. One call (MADV_FREE) has cleared the dirty bit, "
    "another (userfaultfd; in 2017 clear_refs as well) the write permission, and both owe their flush. CPU 1 "
    "(KSM) finds an entry that is neither writable nor dirty, leaves its own flush out, compares and merges. "
    "CPU 0 writes in between; the write is lost.",
    affected="v2.6.32 to v4.12",
    source="the commit; the thread of Nadav Amit and Minchan Kim, 2017",
    fix="b3a81d0841a9",
    test=Litmus(
        name="ksm-beside-pending",
        question="Two others have made an entry read-only and clean, and not flushed: does KSM rely on it?",
        programs=(keeps_if_cached, call(ksm, PAGE, OTHER)),
        setup=starts(pages(PAGE, OTHER, cached=(0,), written=True, exclusive=False), owed(CLEAN_ENTRY & ~RW)),
        expected=(
            never("immediate", RECEIVED),
            sometimes("mistake:before-b3a81d0841a9", WRONG_VERSION),
        ),
        frugal=False,
        drain=False,
    ),
    left_out="the two calls, which have been half done from the start on, do not go on.",
    before="mistake:before-b3a81d0841a9",
)
