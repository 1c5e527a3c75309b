"""Two CPUs that flush what is pending at the same time: who takes the list, who may go on, who waits."""

from __future__ import annotations

from emulator.hardware.operations import AtomicAdd, FolioPut, FolioZero, Store, WaitFor
from emulator.kernel.mmzone import get_page_from_freelist
from emulator.kernel.percpu import PerCpu
from emulator.kernel.user import user_write
from emulator.machine.litmus import FAST, SLOW, Litmus, Setup
from scenarios.litmus.steps import (
    AREA_PAGES,
    DEFERRED,
    OTHER,
    PAGE,
    REUSED,
    STALE,
    VERSION,
    WRITE_FAULTS,
    cached_page,
    move,
    never,
    read,
    reader,
    sometimes,
)

MOVED = "litmus.moved"


async def _mover_and_writer(cpu: PerCpu) -> None:
    await move(cpu, 1)
    # The page is pending before either write begins; from here on nobody waits for anybody.
    await Store(MOVED, 1)
    await user_write(cpu, PAGE, 11)


async def _writer(cpu: PerCpu) -> None:
    await WaitFor(MOVED, 1)
    await user_write(cpu, PAGE, 12)


# CPU 0 writes                      CPU 1 writes                  CPU 2 has the source cached
# fault: pending, take the list
#                                   fault: list is empty
#                                   entry = writable, write 12
#                                                                 read the source: 7
# IPI
EMPTY_IS_NOT_DONE = Litmus(
    name="empty-is-not-done",
    question="Does an empty list mean that the flush which emptied it is done?",
    programs=(_mover_and_writer, _writer, reader),
    setup=cached_page,
    expected=(
        sometimes("migrc:v3"),
        sometimes("migrc:rfc2"),
        never("migrc:v9", DEFERRED, STALE, WRITE_FAULTS),
        sometimes("mistake:empty-means-done"),
        never("immediate", "nr_tlb_remote_flush_received"),
    ),
)


def _two_nodes(setup: Setup) -> None:
    setup.area(PAGE, AREA_PAGES)
    setup.page(PAGE, version=VERSION)
    setup.page(OTHER, SLOW, version=VERSION)
    for cpu in range(setup.cpus):
        setup.cache(cpu, PAGE)
        setup.cache(cpu, OTHER)


async def _both_pending(cpu: PerCpu, pfn: int, target: int) -> None:
    # A preamble: each CPU hangs a request, and only then do both flush.
    await move(cpu, pfn, target)
    await AtomicAdd(MOVED, 1)
    await WaitFor(MOVED, 2)


async def _first(cpu: PerCpu) -> None:
    await _both_pending(cpu, 1, SLOW)
    await cpu.policy.drain(cpu)


async def _second(cpu: PerCpu) -> None:
    await _both_pending(cpu, 3, FAST)
    await cpu.policy.drain(cpu)


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
    programs=(_first, _second),
    setup=_two_nodes,
    expected=(
        never("migrc:v3", DEFERRED, "migrc_flushes"),
        never("migrc:rfc2", DEFERRED, "migrc_flushes"),
        never("migrc:v9", DEFERRED, "migrc_flushes"),
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
    setup.page(OTHER, version=VERSION)
    for cpu in range(setup.cpus):
        setup.cache(cpu, OTHER)


async def _flusher(cpu: PerCpu) -> None:
    await move(cpu, 1)
    await cpu.policy.drain(cpu)


async def _adder(cpu: PerCpu) -> None:
    if await move(cpu, 2):
        pfn = await get_page_from_freelist(cpu, (FAST,), 0, 0)
        cpu.count(REUSED)
        await FolioZero(pfn)
        await FolioPut(pfn)


async def _reader_of_other(cpu: PerCpu) -> None:
    await read(cpu, OTHER)


# v9 keeps no account of who has flushed, so it interrupts CPUs for nothing at times; not judged here.
# CPU 0 flushes                     CPU 1 demotes                 CPU 2 has frame 2 cached
# IPI, wait
#                                                                 handle the IPI
#                                   unmap, add CPU 2 to the mask
# take out whoever was flushed
#                                   frame 2 is handed out again:
#                                   nothing pending, no flush
#                                                                 read frame 2
FLUSH_RACES_ADD = Litmus(
    name="flush-races-add",
    question="A flush empties the mask while an unmap adds to it: is the new flush remembered?",
    programs=(_flusher, _adder, _reader_of_other),
    setup=_two_pages,
    expected=(
        never("migrc:v9", DEFERRED, REUSED, STALE, "migrc_flushes"),
        sometimes("mistake:adds-while-flushing"),
    ),
    fast=2,
    slow=2,
    frugal=False,
)

TESTS = (EMPTY_IS_NOT_DONE, CROSSING_FLUSHES, FLUSH_RACES_ADD)
