"""Bugs of huge pages: a PMD that is none for a moment."""

from __future__ import annotations

from emulator.machine.litmus import FAST, SLOW, Body, Litmus
from scenarios.history.bug import Bug
from scenarios.litmus.answers import RECEIVED, WRONG_VERSION, never, sometimes
from scenarios.litmus.sizes import SPLIT
from scenarios.litmus.starts import HUGE, PAGE, huge_page
from scenarios.litmus.steps import call, finds, in_order
from scenarios.litmus.syscalls import MADV_DONTNEED, MADV_FREE, madvise, numa_scan

PAGES = 2


def _given_up_beside(other: Body, node: int, name: str, before: str) -> Litmus:
    return Litmus(
        name=name,
        question="A huge page is given up while its PMD is changed: is it there after the call?",
        programs=(other, in_order(call(madvise, PAGE, MADV_DONTNEED, PAGES), call(finds, 0))),
        setup=huge_page(cached=(1,), node=node, written=True),
        expected=(never("immediate", RECEIVED), sometimes(before, WRONG_VERSION)),
        frugal=False,
        fast=3,
        slow=3,
        settings=(HUGE,),
    )


DONTNEED_BESIDE_FREE = Bug(
    name="dontneed-beside-free-huge",
    title="MADV_DONTNEED leaves a huge page out that MADV_FREE has cleared for a moment",
    kinds=("PT",),
    story="CPU 0 (MADV_FREE) takes the PMD out and puts it back clean. CPU 1 (MADV_DONTNEED) looks in "
    "between, without the lock, finds no huge page and no table and goes on. When it has returned,"
    " its thread reads the page that it has given up.",
    affected="v4.5 to v4.11",
    source="the commit, 58ceeb6bec86",
    fix="58ceeb6bec86",
    test=_given_up_beside(
        call(madvise, PAGE, MADV_FREE, PAGES), FAST, "dontneed-free-huge", "mistake:before-58ceeb6bec86"
    ),
    before="mistake:before-58ceeb6bec86",
)

DONTNEED_BESIDE_HINTS = Bug(
    name="dontneed-beside-numa-huge",
    title="MADV_DONTNEED leaves a huge page out that the NUMA scanner has cleared for a moment",
    kinds=("PT",),
    story="CPU 0 (the scanner, change_huge_pmd) takes the PMD out and puts it back inaccessible. CPU 1 "
    "(MADV_DONTNEED) looks in between, without the lock, and leaves it out. When it has returned, "
    "its thread reads the page that it has given up.",
    affected="v3.8 to v4.11",
    source="the commit, ced108037c2a",
    fix="ced108037c2a",
    test=_given_up_beside(
        call(numa_scan, PAGE, PAGES), SLOW, "dontneed-numa-huge", "mistake:before-ced108037c2a"
    ),
    before="mistake:before-ced108037c2a",
)

SPLIT_UNFLUSHED = Bug(
    name="split-before-flush",
    title="a huge page is split while CPUs have it cached as a whole",
    kinds=("HS",),
    story="CPU 0 splits a mapped huge page. If it wrote the table of small entries first and flushed "
    "afterwards, CPU 1 could miss in its TLB for small pages while the huge entry still has the "
    "address: some CPUs raise a machine check, others answer from either. So the huge entry is "
    "made invalid and flushed for before the table is there.",
    affected="no release; what the comment in __split_huge_pmd_locked warns of",
    source="the comment in mm/huge_memory.c (AMD publication 41322, erratum 383)",
    fix="AMD 41322, erratum 383",
    test=SPLIT,
    before="mistake:splits-before-it-flushes",
)
