"""Bugs of whom a flush interrupts, and of loading address spaces (arch/x86/mm/tlb.c)."""

from __future__ import annotations

from emulator.machine.litmus import FAST, Litmus
from scenarios.history.bug import Bug
from scenarios.litmus.answers import FRAME_REUSED, FREE, RETURNED, REUSED, never, sometimes
from scenarios.litmus.starts import PAGE, pages, runs, starts
from scenarios.litmus.steps import call, in_order, read_if_cached, reuse
from scenarios.litmus.syscalls import MADV_DONTNEED, madvise, switch_to

OTHER_MM = 2

LOADED_BEFORE_SEEN = Bug(
    name="loaded-before-seen",
    title="a CPU uses page tables before those who flush can see it",
    kinds=("MO", "TS"),
    story="CPU 1 loads another page table before its bit in mm_cpumask is visible, and fills its TLB. "
    "CPU 0 changes an entry, reads the mask without CPU 1, and sends it no interrupt. CPU 1 goes "
    "on through the old entry.",
    affected="before v4.5",
    source="the commit and the mails of the CVE",
    fix="71b3c126e611",
    cve="CVE-2016-2069",
    test=Litmus(
        name="loaded-before-seen",
        question="A CPU loads an address space, and its walker is quick: is it seen by who flushes?",
        programs=(
            in_order(call(madvise, PAGE, MADV_DONTNEED), call(reuse, FAST)),
            in_order(call(switch_to), call(read_if_cached)),
        ),
        setup=starts(pages(PAGE, cached=()), runs(1, OTHER_MM)),
        expected=(
            never("immediate", REUSED),
            sometimes("mistake:before-71b3c126e611", FRAME_REUSED, FREE, RETURNED),
        ),
        frugal=False,
        speculated=(PAGE,),
        fast=1,
    ),
    before="mistake:before-71b3c126e611",
)


def _comes_back(name: str, before: str, everywhere: bool = True) -> Litmus:
    """CPU 1 leaves the mm, stays in its mask, and comes back to what it has cached."""
    wrong = sometimes(before, FRAME_REUSED, FREE, RETURNED)
    return Litmus(
        name=name,
        question="A CPU comes back to an address space in whose mask it has stayed: is it flushed?",
        programs=(
            in_order(call(madvise, PAGE, MADV_DONTNEED), call(reuse, FAST)),
            in_order(call(switch_to, OTHER_MM), call(switch_to), call(read_if_cached)),
        ),
        setup=pages(PAGE, cached=(1,)),
        # On sc every store is visible at once.
        expected=(never("immediate", REUSED), wrong if everywhere else wrong._replace(sc=None)),
        frugal=False,
        fast=1,
        settings=(("version", "6.18"),),
    )


SKIPPED_WHILE_SWITCHING = Bug(
    name="skipped-while-switching",
    title="a CPU that is about to run an address space is not interrupted for it",
    kinds=("TS",),
    story="CPU 1 comes back to an mm in whose mask it has stayed. It has read the generation and loads "
    "CR3; what it runs is LOADED_MM_SWITCHING. CPU 0 flushes, takes that for another mm and leaves"
    " CPU 1 out. CPU 1 goes on through entries that it has kept.",
    affected="v6.14, and stable kernels with 209954cbc7d0 or its follow-ups",
    source="the CVE's record (CVEProject/cvelistV5)",
    fix="fea4e317f9e7",
    cve="CVE-2025-37964",
    test=_comes_back("skipped-while-switching", "mistake:before-fea4e317f9e7"),
    before="mistake:before-fea4e317f9e7",
)

SWITCHING_UNORDERED = Bug(
    name="switching-unordered",
    title="the generation is read before others can see that a CPU is switching",
    kinds=("MO", "TS"),
    story="As skipped-while-switching, with the fix. CPU 1's bit is in the mask already, so that no "
    "locked operation stands between its store of LOADED_MM_SWITCHING and its load of the "
    "generation, and the load comes first. CPU 0 raises the generation, still sees CPU 1 in "
    "another mm and leaves it out.",
    affected="v6.14 to v6.17",
    source="the stable patch, 2025, and github.com/gregkh/linux/commit/b2dbc71fe33b",
    fix="83b0177a6c48",
    test=_comes_back("switching-unordered", "mistake:before-83b0177a6c48", everywhere=False),
    before="mistake:before-83b0177a6c48",
)

SWITCHING_LATE = Bug(
    name="switching-late",
    title="a backport says that a CPU is switching after it has read the generation",
    kinds=("WO", "TS"),
    story="Backports of the fix of skipped-while-switching put two blocks in the wrong order: CPU 1 "
    "reads the generation, and only then stores LOADED_MM_SWITCHING. CPU 0 raises the generation "
    "in between, sees CPU 1 in another mm and leaves it out. Memory corruption that took half an "
    "hour to show.",
    affected="6.1.y, 6.6.y and 6.12.y with the backport",
    source="github.com/gregkh/linux/commit/b2dbc71fe33b",
    fix="b2dbc71fe33b",
    test=_comes_back("switching-late", "mistake:before-b2dbc71fe33b"),
    before="mistake:before-b2dbc71fe33b",
)
