"""Batches of two folios, and requests of two address spaces: what holds for one has to hold for each."""

from __future__ import annotations

from emulator.hardware.operations import FolioGet, FolioIsolateLru, FolioPut, FolioPutbackLru
from emulator.kernel.migrate import migrate_pages
from emulator.kernel.percpu import PerCpu
from emulator.kernel.policy import MR_NUMA_MISPLACED
from emulator.kernel.user import user_read
from emulator.machine.litmus import FAST, SLOW, Litmus, Setup
from scenarios.litmus.answers import DEFERRED, RECEIVED, REUSED, STAYED, never, postings_never, sometimes
from scenarios.litmus.starts import AREA_PAGES, OTHER, PAGE, VERSION, pages
from scenarios.litmus.steps import (
    bystander,
    call,
    flush_for_own_reasons,
    in_order,
    move,
    mover,
    read_if_cached,
    reuse,
)

OTHER_MM = 2


async def _move_both(cpu: PerCpu) -> None:
    """Demote frames 1 and 2 in one batch."""
    folios = [pfn for pfn in (1, 2) if await FolioIsolateLru(pfn)]
    _, failed = await migrate_pages(cpu, folios, SLOW, MR_NUMA_MISPLACED)
    for stayed in failed:
        cpu.count(STAYED)
        await FolioPutbackLru(stayed, False)


# CPU 0                             CPU 1 has frames 1 and 2 cached
# demote both as one batch
# allocate: IPI
#                                   handle the IPI
# reuse both
#                                   read the second page: not frame 2
TWO_OF_A_BATCH = Litmus(
    name="batch-of-two",
    question="Two folios of one batch are deferred: is each one's flush done before its frame is reused?",
    programs=(in_order(_move_both, call(reuse, FAST), call(reuse, FAST)), call(read_if_cached, OTHER)),
    setup=pages(PAGE, OTHER, cached=(1,)),
    expected=(
        never("immediate", REUSED),
        *postings_never(DEFERRED, REUSED),
        sometimes("mistake:notes-the-first-only"),
    ),
    fast=2,
    slow=2,
)

# CPU 0                             CPU 1 has frame 1 cached
# somebody holds a reference on 2
# demote 1 and 2 as one batch: 1 goes,
# the move of 2 fails, it is mapped again
#                                   read
# allocate: flush, frame 1
HALF_FAILS = Litmus(
    name="batch-half-fails",
    question="Of two folios of a batch one cannot be moved: is the other one still flushed for and freed?",
    programs=(in_order(FolioGet(2), _move_both, FolioPut(2), call(reuse, FAST)), call(read_if_cached, PAGE)),
    setup=pages(PAGE, OTHER, cached=(1,)),
    expected=(
        never("immediate", STAYED, REUSED),
        *postings_never(DEFERRED, STAYED, REUSED),
        sometimes("mistake:failure-drops-the-batch"),
    ),
    fast=2,
    slow=2,
)

# CPU 0 demotes 1, then 2           CPU 1 has both cached
# request of generation 1
#                                   flush, note 1
#                                   read: walks, caches frame 2 again
# request of generation 2
# CPU 1 has flushed for the first only
# IPI, reuse
#                                   read: not frame 2
FLUSHED_BETWEEN = Litmus(
    name="flushed-between-requests",
    question="A CPU has flushed for the first of two requests: is it left alone for the second as well?",
    programs=(
        in_order(mover, call(move, 2), call(reuse, FAST), call(reuse, FAST)),
        in_order(flush_for_own_reasons, call(user_read, OTHER), call(read_if_cached, OTHER)),
    ),
    setup=pages(PAGE, OTHER, cached=(1,)),
    expected=(
        never("immediate", REUSED),
        *postings_never(DEFERRED, REUSED),
        sometimes("mistake:skips-by-the-first-request"),
    ),
    fast=2,
    slow=2,
    frugal=False,
)


def _two_processes(setup: Setup) -> None:
    """Frame 1 is mm 1's and cached on CPU 1, frame 2 is mm 2's and cached on CPU 2."""
    setup.load(2, OTHER_MM)
    for mm, holder in ((1, 1), (OTHER_MM, 2)):
        setup.area(PAGE, AREA_PAGES, mm=mm)
        setup.page(PAGE, version=VERSION, mm=mm, cached=(holder,))


# CPU 0 demotes 1 and 2             CPU 1 is of the first         CPU 2 has frame 2 cached
# two requests, two masks
# allocate: IPI to both
#                                   handle the IPI                handle the IPI
# reuse both
#                                                                 read: not frame 2
TWO_MASKS = Litmus(
    name="two-processes-pending",
    question="What is pending for two processes is flushed at once: are the CPUs of each interrupted?",
    programs=(
        in_order(mover, call(move, 2), call(reuse, FAST), call(reuse, FAST)),
        bystander,
        call(read_if_cached, PAGE),
    ),
    setup=_two_processes,
    expected=(
        never("immediate", REUSED),
        *postings_never(DEFERRED, REUSED, RECEIVED),
        sometimes("mistake:mask-of-the-last-request"),
    ),
    fast=2,
    slow=2,
)


# CPU 0 demotes both as one batch   CPU 1 is of the first         CPU 2 has frame 2 cached
# one request, one mask for both
# allocate: IPI to both
#                                   handle the IPI                handle the IPI
# reuse both
#                                                                 read: not frame 2
TWO_PROCESSES_ONE_BATCH = Litmus(
    name="batch-of-two-processes",
    question="Two folios of one batch are of two processes: does the one request flush for both?",
    programs=(
        in_order(_move_both, call(reuse, FAST), call(reuse, FAST)),
        bystander,
        call(read_if_cached, PAGE),
    ),
    setup=_two_processes,
    expected=(
        never("immediate", REUSED),
        *postings_never(DEFERRED, REUSED, RECEIVED),
        sometimes("mistake:mask-of-the-first-folio"),
    ),
    fast=2,
    slow=2,
)


def _one_writable(setup: Setup) -> None:
    """As `_two_processes`, but what CPU 2 has cached is writable: it cannot be put off."""
    setup.load(2, OTHER_MM)
    setup.area(PAGE, AREA_PAGES)
    setup.page(PAGE, version=VERSION, cached=(1,))
    setup.area(PAGE, AREA_PAGES, mm=OTHER_MM)
    setup.page(PAGE, version=VERSION, mm=OTHER_MM, writable=True, dirty=True, cached=(2,))


# CPU 0                             CPU 1 has frame 1 cached      CPU 2 has frame 2 cached
# demote 1: pending for CPU 1
# demote 2: flush CPU 2
#                                                                 handle the IPI
# allocate: CPU 1 has not flushed yet
# IPI, reuse frame 1
#                                   read: not frame 1
ANOTHERS_FLUSH = Litmus(
    name="flush-of-another-process",
    question="A batch of another process is flushed: does that count for CPUs that it does not reach?",
    programs=(
        in_order(mover, call(move, 2), call(reuse, FAST), call(reuse, FAST)),
        call(read_if_cached, PAGE),
        call(read_if_cached, PAGE),
    ),
    setup=_one_writable,
    expected=(
        never("immediate", REUSED),
        *postings_never(DEFERRED, REUSED, RECEIVED),
        sometimes("mistake:any-flush-clears-all"),
    ),
    fast=2,
    slow=2,
)
