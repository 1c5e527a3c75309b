"""Two CPUs that flush what is pending at the same time: who takes the list, who may go on, who waits."""

from __future__ import annotations

from emulator.hardware.operations import (
    AtomicAdd,
    FolioIsolateLru,
    FolioPut,
    FolioZero,
    GetPte,
    Store,
    WaitFor,
)
from emulator.hardware.pte import pte_pfn
from emulator.kernel.migrate import migrate_pages
from emulator.kernel.mmzone import get_page_from_freelist
from emulator.kernel.percpu import PerCpu
from emulator.kernel.policy import MR_NUMA_MISPLACED
from emulator.kernel.user import user_write
from emulator.machine.litmus import FAST, MM, SLOW, Expectation, Litmus, Setup
from scenarios.litmus.answers import (
    DEFERRED,
    FLUSHES,
    LUF,
    MADE_WRITABLE,
    RECEIVED,
    REUSED,
    STALE,
    WRITE_FAULTS,
    never,
    never_on_x86,
    postings_never,
    sometimes,
)
from scenarios.litmus.starts import AREA_PAGES, OTHER, PAGE, VERSION
from scenarios.litmus.steps import MOVED, call, in_order, move, mover, read, reader

FAR = PAGE + 512  # in another page table than PAGE


async def _drain(cpu: PerCpu) -> None:
    await cpu.policy.drain(cpu)


def _two_tables(setup: Setup) -> None:
    for vpn in (PAGE, FAR):
        setup.area(vpn, 1)
        setup.page(vpn, version=VERSION, cached=range(setup.cpus))


async def _moves_both(cpu: PerCpu) -> None:
    folios = [pte_pfn(await GetPte(MM, vpn)) for vpn in (PAGE, FAR)]
    for pfn in folios:
        await FolioIsolateLru(pfn)
    await migrate_pages(cpu, folios, SLOW, MR_NUMA_MISPLACED)


# Two pages of two page tables: a fault looks and flushes under the lock of its own. Both are pending before
# either write begins; from there on nobody waits for anybody.
# CPU 0 writes the far page         CPU 1 writes the page         CPU 2 has its source cached
# fault: pending, take the list
#                                   fault: list is empty
#                                   entry = writable, write 12
#                                                                 read the source: 7
# IPI
EMPTY_IS_NOT_DONE = Litmus(
    name="empty-is-not-done",
    question="Does an empty list mean that the flush which emptied it is done?",
    programs=(
        in_order(call(_moves_both), Store(MOVED, 1), call(user_write, FAR, 11)),
        in_order(WaitFor(MOVED, 1), call(user_write, PAGE, 12)),
        reader,
    ),
    setup=_two_tables,
    expected=(
        sometimes("migrc:v3", MADE_WRITABLE),
        sometimes("migrc:rfc2", MADE_WRITABLE),
        never("migrc:v9", DEFERRED, STALE, WRITE_FAULTS),
        sometimes("mistake:empty-means-done"),
        never("immediate", RECEIVED),
    ),
)


def _two_nodes(setup: Setup) -> None:
    setup.area(PAGE, AREA_PAGES)
    setup.page(PAGE, version=VERSION, cached=range(setup.cpus))
    setup.page(OTHER, SLOW, version=VERSION, cached=range(setup.cpus))


# A preamble: each CPU hangs a request, and only then do both flush.
_both_pending = in_order(AtomicAdd(MOVED, 1), WaitFor(MOVED, 2), call(_drain))

# Frame 1 and frame 3 are pending, on the lists of two nodes.
# CPU 0                             CPU 1
# take node 0's list
#                                   take node 1's list
# IPI to CPU 1, wait, interrupts on
#                                   IPI to CPU 0, wait, interrupts on
# handle CPU 1's
#                                   handle CPU 0's
CROSSING_FLUSHES = Litmus(
    name="crossing-flushes",
    question="Do two CPUs that flush for each other at the same time both get through?",
    programs=(in_order(mover, _both_pending), in_order(call(move, 3, FAST), _both_pending)),
    setup=_two_nodes,
    expected=(
        *postings_never(DEFERRED, FLUSHES),
        sometimes("mistake:interrupts-off", "waits for acknowledgements with interrupts off", "deadlock"),
        sometimes("mistake:lock-order", "deadlock"),
        sometimes("mistake:lost-wake-up", "deadlock"),
    ),
    fast=2,
    slow=2,
)


def _two_pages(setup: Setup) -> None:
    setup.area(PAGE, AREA_PAGES)
    setup.page(PAGE, version=VERSION)
    setup.page(OTHER, version=VERSION, cached=range(setup.cpus))


def _two_pages_cached_there(setup: Setup) -> None:
    setup.area(PAGE, AREA_PAGES)
    setup.page(PAGE, version=VERSION, cached=(1,))
    setup.page(OTHER, version=VERSION, cached=(1,))


async def _adder(cpu: PerCpu) -> None:
    if await move(cpu, 2):
        pfn = await get_page_from_freelist(cpu, (FAST,), 0, 0)
        if pfn >= 0:
            # Else both are pending, and CPU 0 has the lists (two-allocators).
            cpu.count(REUSED)
            await FolioZero(pfn)
            await FolioPut(pfn)


# v9 keeps no account of who has flushed, so it interrupts CPUs for nothing at times; not judged here.
# CPU 0 flushes, has frame 2 cached  CPU 1 demotes frame 2
# flush, IPI, wait
#                                    unmap, add CPU 0 to the mask
#                                    handle the IPI
# take out whoever was flushed
#                                    frame 2 is handed out again:
#                                    nothing pending, no flush
# read frame 2
FLUSH_RACES_ADD = Litmus(
    name="flush-races-add",
    question="A flush empties the mask while an unmap adds to it: is the new flush remembered?",
    programs=(in_order(mover, call(_drain), call(read, OTHER)), _adder),
    setup=_two_pages,
    expected=(
        never("immediate", REUSED),
        never("migrc:v3", DEFERRED, REUSED, STALE, FLUSHES),
        # No run comes to where CPU 0 still has what is stale when it reads.
        never("migrc:rfc2", DEFERRED, REUSED, FLUSHES),
        never("migrc:v9", DEFERRED, REUSED, STALE, FLUSHES),
        sometimes("mistake:adds-while-flushing"),
    ),
    fast=2,
    slow=2,
    frugal=False,
)


# CPU 0 flushes for frame 1         CPU 1 demotes frame 2, needs memory, has both cached
# IPI, wait
#                                   handle the IPI, note generation 1
#                                   unmap, generation 2
# free frame 1
#                                   my own note is 1: flush, free frame 2, reuse
#                                   read: not frame 2
NOTED_BY_ANOTHER = Litmus(
    name="noted-by-another",
    question="A CPU defers while another one flushes for it: may that one note for it that it has flushed?",
    programs=(in_order(mover, call(_drain)), in_order(_adder, call(read, OTHER))),
    setup=_two_pages_cached_there,
    expected=(
        never("immediate", REUSED),
        *postings_never(DEFERRED, REUSED, FLUSHES),
        sometimes("mistake:notes-for-others-early"),
        sometimes("mistake:notes-for-others-late"),
    ),
    fast=2,
    slow=2,
    frugal=False,
)


def _one_written_one_read(setup: Setup) -> None:
    setup.area(PAGE, AREA_PAGES)
    setup.page(PAGE, writable=True, dirty=True, version=VERSION, cached=(1,))
    setup.page(OTHER, version=VERSION, cached=(1,))


# CPU 0 demotes what is written     CPU 1 demotes what is read, has both cached
# IPI, wait
#                                   handle the IPI
#                                   unmap frame 2, add itself to the mask
# take out whoever was flushed
#                                   allocate: nothing pending, no flush
#                                   read frame 2
BATCH_RACES_ADD = Litmus(
    name="batch-flush-races-add",
    question="An ordinary flush of unmapped pages meets an unmap that is put off: is the new one remembered?",
    programs=(mover, in_order(_adder, call(read, OTHER))),
    setup=_one_written_one_read,
    expected=(
        never("immediate", REUSED),
        *(never_on_x86(policy, REUSED) for policy in LUF[:3]),
        *postings_never(DEFERRED, REUSED),
        sometimes("mistake:adds-while-batches-flush"),
    ),
    fast=2,
    slow=2,
    frugal=False,
)


def _two_written_one_read(setup: Setup) -> None:
    setup.area(PAGE, AREA_PAGES)
    for vpn, written in ((PAGE, True), (OTHER, False), (OTHER + 1, True)):
        setup.page(vpn, writable=written, dirty=written, version=VERSION, cached=() if written else (1,))


# CPU 0 demotes what is written     CPU 1 demotes the other that is written, has the third cached
# IPI, wait
#                                   handle the IPI
#                                   flush, done: that CPU 0 flushes still stands
#                                   unmap what is read: not put off
# take out whoever was flushed
#                                   allocate
TWO_FLUSHES_RACE_ADD = Litmus(
    name="two-batch-flushes-race-add",
    question="Two flushes of unmapped pages are under way and one ends: is an unmap still not put off?",
    programs=(mover, in_order(call(move, 3), _adder)),
    setup=_two_written_one_read,
    expected=(
        # Large: 270,000 states on riscv. Nothing here depends on the architecture.
        Expectation("migrc:v9", None, "Never", None, (DEFERRED, REUSED)),
        sometimes("mistake:flushing-is-a-flag"),
    ),
    drain=False,
    fast=3,
    slow=3,
    frugal=False,
)
