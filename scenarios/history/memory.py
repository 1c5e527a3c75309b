"""Bugs of faults and of taking pages away (mm/memory.c)."""

from __future__ import annotations

from emulator.machine.litmus import FAST, Litmus, Setup
from scenarios.history.bug import Bug
from scenarios.litmus.answers import (
    FRAME_REUSED,
    FREE,
    RECEIVED,
    RETURNED,
    REUSED,
    WRONG_VERSION,
    never,
    sometimes,
)
from scenarios.litmus.fork import CHILD
from scenarios.litmus.locks import MUNMAP_WRITEBACK
from scenarios.litmus.starts import FILE, FLAG, PAGE, pages
from scenarios.litmus.steps import (
    bystander,
    call,
    in_order,
    keeps_if_cached,
    moves_and_reuses,
    read_if_cached,
    reuse,
    writes_another_word,
)
from scenarios.litmus.syscalls import fork, munmap, oom_reap, revoke_page

RMAP_REMOVED_EARLY = Bug(
    name="rmap-removed-early",
    title="munmap takes a dirty page of a file out of the reverse map before it flushes for it",
    kinds=("WO",),
    story="CPU 0 (munmap) clears a dirty entry of a shared file page, marks the page dirty, takes the "
    "mapping out of the reverse map, and will flush later. CPU 1 (reclaim, writeback) writes the "
    "page out and never meets that mapping. CPU 2 writes through the dirty entry that it still "
    "has; nobody writes that out.",
    affected="before v6.2",
    source="the commit, 5df397dec7c4c08c23bd14f162f1228836faa4ce",
    fix="5df397dec7c4",
    test=MUNMAP_WRITEBACK,
    before="mistake:rmap-before-flush",
)


def _driver(setup: Setup) -> None:
    setup.driver_page(PAGE, FILE, cached=(1,))
    # In the same page table, which is not freed therefore.
    setup.area(FLAG, 1)


DRIVER_PAGE = Bug(
    name="driver-page-unlinked",
    title="a driver frees a page that munmap has not flushed for yet",
    kinds=("FR",),
    story="CPU 0 (munmap) has cleared the entries of a driver's area (VM_PFNMAP) and taken the area out "
    "of the file's list; the flush is to come. CPU 1 (the driver) wants its page back: "
    "unmap_mapping_range finds no area, so there is nothing to unmap, and returns. The page, of "
    "which the mapping held no reference, is freed. A CPU still has it cached.",
    affected="before v5.19",
    source="the CVE's record; the commit, b67fbebd4cf980aecbcc750e1462128bffe8ae15",
    fix="b67fbebd4cf9",
    cve="CVE-2022-39188",
    test=Litmus(
        name="driver-page-unlinked",
        question="munmap has cleared a driver's page: is it flushed for before the driver can free it?",
        programs=(
            call(munmap, PAGE),
            in_order(revoke_page, call(reuse, FAST), call(read_if_cached)),
        ),
        setup=_driver,
        expected=(
            never("immediate", RECEIVED, REUSED),
            sometimes("mistake:before-b67fbebd4cf9", FRAME_REUSED, FREE),
        ),
        frugal=False,
        drain=False,
        fast=1,
    ),
    before="mistake:before-b67fbebd4cf9",
)

REAPED_WHOLE = Bug(
    name="oom-reaper-whole-mm",
    title="the OOM reaper says that nobody runs an address space that somebody runs",
    kinds=("MF",),
    story="CPU 0 (the OOM reaper) unmaps a live mm with a gather over everything. On arm64 that means "
    "that the ASID is not used again, and no flush. CPU 1, which still runs a thread of that mm, "
    "reads pages that have been freed.",
    affected="v4.6 to v4.14",
    source="the CVE's record; the commit, 687cb0884a714ff484d038e9190edc874edcf146",
    fix="687cb0884a71",
    cve="CVE-2017-18202",
    test=Litmus(
        name="oom-reaper-whole-mm",
        question="The OOM reaper takes the pages of a process that still runs: are they flushed for?",
        programs=(in_order(oom_reap, call(reuse, FAST)), call(read_if_cached)),
        setup=pages(PAGE, cached=(1,)),
        expected=(
            never("immediate", RECEIVED, REUSED),
            sometimes("mistake:before-687cb0884a71", FRAME_REUSED, FREE, RETURNED),
        ),
        frugal=False,
        fast=1,
    ),
    before="mistake:before-687cb0884a71",
    left_out="ASIDs; the mistake leaves out the flush that arm64 left out.",
)

FEW_CPUS = Bug(
    name="mask-of-few-cpus",
    title="a flush leaves out the CPUs above the 32nd",
    kinds=("TS",),
    story="CPU 0 unmaps a page. The set of CPUs that have to flush is kept in too few bits, and those "
    "beyond are not interrupted: they go on through the old translation.",
    affected="XNU (macOS), fixed before it was reported",
    source="the list of Jann Horn's article (projectzero.google, January 2019), issue 1716",
    fix="XNU, Project Zero issue 1716",
    test=Litmus(
        name="mask-of-few-cpus",
        question="Three CPUs have a page cached that is unmapped: is each of them flushed?",
        programs=(moves_and_reuses, bystander, call(read_if_cached)),
        setup=pages(PAGE, cached=(2,)),
        expected=(
            never("immediate", RECEIVED, REUSED),
            sometimes("mistake:few-cpus-in-the-mask", FRAME_REUSED),
        ),
        fast=1,
        slow=2,
    ),
    before="mistake:few-cpus-in-the-mask",
    left_out="32 CPUs; here it is two.",
)


def _parent(setup: Setup) -> None:
    pages(PAGE, cached=(2,), written=True, area=1)(setup)


FORK_BESIDE_FAULTS = Bug(
    name="fork-beside-faults",
    title="faults that hold the lock of their area only go on while fork write-protects it",
    kinds=("PT",),
    story="CPU 0 (fork) has made the parent's entries read-only, and its flush is to come. CPU 1, a thread "
    "of the parent, takes a write fault there under the area's lock, which fork does not take, and copies "
    "the page. CPU 2, another one, writes through the writable entry that it still has: the write is in the "
    "page that the child gets, and the parent has lost it.",
    affected="v6.4",
    source="the commit, fb49c455323ff8319a123dd312be9082c49a23a5, which fears for what hangs on the area",
    fix="fb49c455323f",
    test=Litmus(
        name="fork-beside-faults",
        question="A thread writes to a page that fork is write-protecting: is another one's write kept?",
        programs=(call(fork, CHILD), writes_another_word, call(keeps_if_cached)),
        setup=_parent,
        expected=(
            never("immediate", RECEIVED, "pgcow"),
            sometimes("mistake:before-fb49c455323f", WRONG_VERSION),
        ),
        frugal=False,
    ),
    before="mistake:before-fb49c455323f",
    since="6.4",
)
