"""Memory that only a flush would give back: no allocation may fail for want of it."""

from __future__ import annotations

from emulator.hardware.operations import FolioIsolateLru, FolioPut, FolioPutbackLru, FolioZero, Store, WaitFor
from emulator.kernel.mmzone import get_page_from_freelist
from emulator.kernel.percpu import INIT_MM, PF_KSWAPD, PerCpu
from emulator.kernel.vmscan import demote_folio_list
from emulator.machine.litmus import FAST, SLOW, Expectation, Litmus, Setup
from scenarios.litmus.answers import (
    DEFERRED,
    FAILED,
    FRAME_REUSED,
    LUF,
    REUSED,
    never,
    postings_never,
    sometimes,
)
from scenarios.litmus.starts import AREA_PAGES, OTHER, PAGE, VERSION, pages
from scenarios.litmus.steps import (
    MOVED,
    call,
    in_order,
    move,
    mover,
    moves_and_reuses,
    read_if_cached,
    reader,
    reuse,
)

SLOW_FRAME = 3
DEMOTED = "pgmigrate_success"

# CPU 0                             CPU 1 has frame 1 cached
# demote: the only frame is pending
# allocate: none free
# flush, free frame 1
#                                   handle the IPI
# allocate again: frame 1
HIDDEN_PRESSURE = Litmus(
    name="allocation-needs-the-flush",
    question="Is pending memory flushed for and found before an allocation fails?",
    programs=(moves_and_reuses, reader),
    setup=pages(PAGE, cached=(1,)),
    expected=(
        *postings_never(DEFERRED, REUSED),
        sometimes("mistake:no-flush-under-pressure", FAILED),
        sometimes("mistake:flushes-below-the-watermark-only", FAILED),
    ),
    fast=1,
    slow=2,
)


# CPU 0                             CPU 1
# both frames are pending
# allocate: none free, take the list
#                                   allocate: none free, the list is empty
#                                   reclaim: nothing left to demote
#                                   fails
# free both frames
TWO_ALLOCATORS = Litmus(
    name="two-allocators",
    question="Two CPUs need pending memory; one is flushing for it: does the other one fail?",
    programs=(
        in_order(mover, call(move, 2), Store(MOVED, 1), call(reuse, FAST)),
        in_order(WaitFor(MOVED, 1), call(reuse, FAST)),
    ),
    setup=pages(PAGE, OTHER, cached=(1,)),
    expected=(
        never("immediate", REUSED),
        # What is said to be done is read without a barrier: on riscv a control dependency is all.
        *(
            Expectation(policy, "Never", "Never", "Sometimes", (REUSED,), (FRAME_REUSED,))
            for policy in LUF[:3]
        ),
        sometimes("migrc:v3", FAILED),
        sometimes("migrc:rfc2", FAILED),
        never("migrc:v9", DEFERRED, REUSED),
    ),
    fast=2,
    slow=2,
)


async def _takes(cpu: PerCpu) -> None:
    pfn = await get_page_from_freelist(cpu, (FAST,), 0, 0)
    if pfn >= 0:
        cpu.count(REUSED)
        await FolioZero(pfn)
        await FolioPut(pfn)


# CPU 0 demotes                     CPU 1 has frame 1 cached
# entry = destination
# free frame 1, or let it be pending
#                                   take it as soon as it is free: flush
#                                   read: not frame 1
# the batch is through
TAKEN_AT_ONCE = Litmus(
    name="freed-and-taken-at-once",
    question="Somebody takes a source before the batch that it belongs to is through: is it flushed for?",
    programs=(mover, in_order(_takes, call(read_if_cached, PAGE))),
    setup=pages(PAGE, cached=(1,)),
    expected=(
        never("immediate", REUSED),
        never("migrc:v3", DEFERRED, REUSED),
        # Does not flush for a watermark, only in the slow path.
        never("migrc:rfc2", DEFERRED),
        never("migrc:v9", DEFERRED, REUSED),
        sometimes("mistake:noted-after-free"),
    ),
    fast=1,
    slow=2,
)


def _one_slow_frame(setup: Setup) -> None:
    setup.area(PAGE, AREA_PAGES)
    setup.page(PAGE, version=VERSION)
    assert setup.page(OTHER, SLOW, version=VERSION, cached=(2,)) == SLOW_FRAME
    setup.load(1, INIT_MM)
    setup.task(1, PF_KSWAPD)


async def demote(cpu: PerCpu, pfn: int) -> None:
    """Demote an isolated folio; it goes back to its list if it stays."""
    for stayed in await demote_folio_list(cpu, [pfn]):
        await FolioPutbackLru(stayed, True)


# CPU 0                             CPU 1 is kswapd               CPU 2 has frame 3 cached
# promote frame 3: pending
#                                   demote frame 1; there is only
#                                   frame 3 to take it: IPI
#                                                                 handle the IPI
#                                   copy
#                                                                 read: not frame 3
KSWAPD_TAKES = Litmus(
    name="kswapd-takes-pending",
    question="kswapd demotes into the frame that a promotion has left pending: does it flush for it?",
    programs=(
        in_order(call(move, SLOW_FRAME, FAST), Store(MOVED, 1)),
        in_order(WaitFor(MOVED, 1), FolioIsolateLru(1), call(demote, 1)),
        call(read_if_cached, OTHER),
    ),
    setup=_one_slow_frame,
    expected=(
        never("immediate", DEMOTED),
        *postings_never(DEFERRED, DEMOTED),
        sometimes("mistake:kernel-threads-do-not-flush"),
    ),
    fast=2,
    slow=1,
)
