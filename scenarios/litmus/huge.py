"""Folios that one PMD maps: here of two pages, of which the programs use the second, the tail.

set_pmd_migration_entry flushes at once, so that no posting ever defers for such a folio. The tests called
`batched` ask about a kernel that would put this flush into the batch, too, and leave MIGRC as it is.
"""

from __future__ import annotations

from emulator.hardware.operations import (
    FolioGet,
    FolioIsolateLru,
    FolioPut,
    FolioPutbackLru,
    FolioZero,
    GetPte,
)
from emulator.hardware.pte import PSE, frame_of
from emulator.kernel.migrate import migrate_misplaced_folio, migrate_pages
from emulator.kernel.mprotect import change_prot_numa
from emulator.kernel.page_alloc import alloc_pages
from emulator.kernel.percpu import PerCpu
from emulator.kernel.policy import MR_DEMOTION
from emulator.kernel.user import user_read, user_write
from emulator.machine.litmus import FAST, MM, SLOW, Forbidden, Litmus, Setup
from emulator.memory.zone import Watermarks
from scenarios.litmus.answers import (
    DEFERRED,
    MADE_WRITABLE,
    PROMOTED,
    RECEIVED,
    REUSED,
    STALE,
    never,
    postings_never,
    postings_sometimes,
    sometimes,
)
from scenarios.litmus.starts import AREA_PAGES, PAGE, VERSION
from scenarios.litmus.steps import call, in_order, move, read, reuse

TAIL = PAGE + 1
SMALL = PAGE + 2
SLOW_SMALL = PAGE + 3
OTHER_SMALL = PAGE + 3
HEAD_FRAME = 2
SLOW_FRAME = 6
HUGE = (("hpage_order", 1),)
BATCHED = (*HUGE, ("thp_batched_flush", True))
WP_FAULTS = "thp_wp_faults"
SPLITS = "thp_migration_split"
PUT_OFF = "flush of a huge page put off"
REFUSED = "promotion refused"


def one_huge_page(setup: Setup) -> None:
    """Frames 2 and 3, the only block of two; frame 1 is a small page's."""
    setup.area(PAGE, AREA_PAGES)
    setup.page(SMALL, version=VERSION)
    assert setup.page(PAGE, version=VERSION, flags=PSE, cached=range(setup.cpus)) == HEAD_FRAME


async def _reuse_tail(cpu: PerCpu) -> None:
    head = await alloc_pages(cpu, 0, (FAST,))
    tail = await alloc_pages(cpu, 0, (FAST,))
    if tail == HEAD_FRAME + 1:
        cpu.count(REUSED)
    await FolioZero(tail)
    await FolioPut(tail)
    await FolioPut(head)


async def _mover(cpu: PerCpu) -> None:
    if await move(cpu, HEAD_FRAME):
        await _reuse_tail(cpu)


async def _mover_that_looks(cpu: PerCpu) -> None:
    if await move(cpu, HEAD_FRAME):
        if cpu.counted(DEFERRED):
            raise Forbidden(PUT_OFF, f"CPU {cpu.number} has deferred for the folio in frame {HEAD_FRAME}")
        await _reuse_tail(cpu)


# CPU 0                             CPU 1 has frames 2 and 3 cached, by one entry
# PMD = migration entry
# IPI, wait
#                                   handle the IPI
# copy both, PMD = frames 4 and 5
# free 2 and 3, allocate 3, clear it
#                                   read the tail: must find frame 5
AS_POSTED = Litmus(
    name="huge-copy",
    question="Is a PMD-mapped folio flushed for as soon as it is unmapped, and by every posting?",
    programs=(_mover_that_looks, call(read, TAIL)),
    setup=one_huge_page,
    expected=(never("immediate", RECEIVED, REUSED), *postings_never(RECEIVED, REUSED)),
    fast=3,
    slow=2,
    settings=HUGE,
    asks=(DEFERRED,),
)

# CPU 0                             CPU 1 has frames 2 and 3 cached, by one entry
# PMD = migration entry, no IPI
# copy both, PMD = frames 4 and 5
#                                   read the tail in frame 3: fine, it is a copy
# allocate: take the list, IPI, wait
#                                   handle the IPI
# free 2 and 3, allocate 3, clear it
#                                   read the tail: must find frame 5
BATCHED_COPY = Litmus(
    name="huge-batched-copy",
    question="If the flush of a huge folio could be deferred: would its tail be reused only after the flush?",
    programs=(_mover, call(read, TAIL)),
    setup=one_huge_page,
    expected=(
        never("immediate", RECEIVED, REUSED),
        *postings_never(DEFERRED, REUSED, STALE),
        sometimes("mistake:freed-before-the-flush"),
        sometimes("mistake:deferred-without-waiting"),
    ),
    fast=3,
    slow=2,
    settings=BATCHED,
)

_moves_and_writes = in_order(call(move, HEAD_FRAME), call(user_write, TAIL, 11))


# CPU 0                             CPU 1 has frames 2 and 3 cached
# move; the flush is done by then
# write: do_huge_pmd_wp_page
#                                   read the tail: frame 5
WRITE = Litmus(
    name="huge-write-fault",
    question="No posting looks in do_huge_pmd_wp_page: can a write there overtake a flush that it owes?",
    programs=(_moves_and_writes, call(read, TAIL)),
    setup=one_huge_page,
    expected=(never("immediate", RECEIVED, WP_FAULTS), *postings_never(RECEIVED, WP_FAULTS)),
    fast=3,
    slow=2,
    settings=HUGE,
)

# CPU 0                             CPU 1 has frames 2 and 3 cached
# move, deferred
# write: do_huge_pmd_wp_page does not
# ask, PMD = writable, write 11
#                                   read the tail in frame 3: 7
BATCHED_WRITE = Litmus(
    name="huge-batched-write-fault",
    question="If the flush of a huge folio could be deferred: would a write to it be found in time?",
    programs=(_moves_and_writes, call(read, TAIL)),
    setup=one_huge_page,
    expected=(never("immediate", RECEIVED, WP_FAULTS), *postings_sometimes(MADE_WRITABLE)),
    fast=3,
    slow=2,
    settings=BATCHED,
)


def _one_small_page_to_promote(setup: Setup) -> None:
    one_huge_page(setup)
    assert setup.page(SLOW_SMALL, node=SLOW, version=VERSION) == SLOW_FRAME


async def _promoter(cpu: PerCpu) -> None:
    await move(cpu, HEAD_FRAME)
    await FolioGet(SLOW_FRAME)  # numa_migrate_prep
    if not await migrate_misplaced_folio(cpu, SLOW_FRAME, FAST):
        raise Forbidden(REFUSED, "two pages are free or a flush would free them, and the high watermark is 1")


# CPU 0
# demote frames 2 and 3: pending, and
# migrc_pending_nr is 1
# promote a page: 0 free + 1 - 1 < 1
# no room; kswapd is woken
BATCHED_COUNT = Litmus(
    name="huge-batched-count",
    question="A pending huge folio counts as one page: is a promotion refused that a flush would allow?",
    programs=(_promoter, call(read, TAIL)),
    setup=_one_small_page_to_promote,
    expected=(
        never("immediate", "pgpromote_success"),
        sometimes("migrc:v3", REFUSED),
        sometimes("migrc:rfc2", REFUSED),
        never("migrc:v9", DEFERRED, "pgpromote_success"),
    ),
    fast=3,
    slow=3,
    marks=Watermarks(0, 0, 1),
    settings=BATCHED,
)


def _one_huge_page_to_promote(setup: Setup) -> None:
    """The huge page is in the slow tier; frame 2, half of the fast tier's block, is a small page's."""
    setup.area(PAGE, AREA_PAGES)
    setup.page(SMALL, version=VERSION)
    assert setup.page(OTHER_SMALL, version=VERSION, cached=(1,)) == HEAD_FRAME
    setup.page(PAGE, node=SLOW, version=VERSION, flags=PSE)


async def _toucher_of_a_hint(cpu: PerCpu) -> None:
    await change_prot_numa(cpu, MM, PAGE, SMALL)
    await move(cpu, HEAD_FRAME)
    await user_read(cpu, TAIL)
    if frame_of(await GetPte(MM, PAGE), TAIL, 1) == HEAD_FRAME + 1:
        cpu.count(REUSED)


# CPU 0                             CPU 1 has page -> frame 2 cached
# scan: PMD = PROT_NONE, flush
# demote frame 2, deferred
# hint fault: promote; a block of two
# is there only with frame 2
# allocate: flush what is pending
#                                   read page: must not find frame 2
# copy both, PMD = frames 2 and 3
HINT_PENDING = Litmus(
    name="huge-hint-pending",
    question="A hint fault promotes a huge page into a block of which a frame is still pending: who flushes?",
    programs=(_toucher_of_a_hint, call(read, OTHER_SMALL)),
    setup=_one_huge_page_to_promote,
    expected=(
        never("immediate", PROMOTED, REUSED),
        *postings_never(DEFERRED, PROMOTED, REUSED, STALE),
        sometimes("mistake:freed-before-the-flush"),
    ),
    fast=3,
    slow=4,
    settings=HUGE,
    frugal=False,
)


def _one_huge_page_and_no_block(setup: Setup) -> None:
    """Frames 2 and 3 in the fast tier; the slow one has frames 5 and 6, which are no block."""
    setup.area(PAGE, AREA_PAGES)
    frame = setup.page(PAGE, version=VERSION, writable=True, dirty=True, flags=PSE, cached=(1,))
    assert frame == HEAD_FRAME


async def _demoter(cpu: PerCpu) -> None:
    if await FolioIsolateLru(HEAD_FRAME):
        moved, failed = await migrate_pages(cpu, [HEAD_FRAME], SLOW, MR_DEMOTION)
        for stayed in failed:
            await FolioPutbackLru(stayed, True)
        if len(moved) == 2:
            await reuse(cpu, FAST, 1)


# CPU 0                             CPU 1 has frames 2 and 3 cached, by one entry, writable
# no block of two to demote to: split
# PMD = migration entry, IPI, wait
#                                   handle the IPI
# two folios, two entries for them
#                                   write the tail: frame 3
# demote both, one by one
# allocate 2 and 3, clear them
#                                   read the head: must find frame 5 or 6
SPLIT = Litmus(
    name="huge-split",
    question="A huge page is split because it has no destination: does a write through its PMD get lost?",
    programs=(_demoter, in_order(call(user_write, TAIL, 11), call(user_read, PAGE))),
    setup=_one_huge_page_and_no_block,
    expected=(never("immediate", SPLITS, REUSED), *postings_never(SPLITS, REUSED)),
    fast=4,
    slow=2,
    settings=HUGE,
    frugal=False,
)
