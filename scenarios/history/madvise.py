"""Bugs of advice that others give at the same time, or while others move what it is about."""

from __future__ import annotations

from emulator.hardware.operations import Load, SmpRmb, SmpWmb, Store
from emulator.kernel.percpu import PerCpu
from emulator.machine.litmus import MM, Litmus
from scenarios.history.bug import Bug
from scenarios.litmus.advice import DISCARDED
from scenarios.litmus.answers import (
    LOST_WRITE,
    RANGE_REUSED,
    RECEIVED,
    WRONG_VERSION,
    never,
    sometimes,
)
from scenarios.litmus.starts import PAGE, given_up_page, pages
from scenarios.litmus.steps import WRITTEN, call, finds, in_order, write_if_cached
from scenarios.litmus.syscalls import (
    MADV_DONTNEED,
    MADV_FREE,
    kernel_write,
    madvise,
    pin_if_mapped,
    reclaim,
    unpin,
)

_gives_up = call(madvise, PAGE, MADV_DONTNEED)
_frees = call(madvise, PAGE, MADV_FREE)

DONTNEED_TWICE = Bug(
    name="dontneed-beside-dontneed",
    title="MADV_DONTNEED returns before another one that has found the pages has flushed",
    kinds=("PT", "FL"),
    story="CPU 0 (MADV_DONTNEED) clears the entry and owes a flush. CPU 1 does the same on the same "
    "range under mmap_lock for reading, finds nothing to do and returns. Its thread reads the old "
    "page through what it has cached.",
    affected="before v4.13",
    source="the thread of the series by Minchan Kim and Nadav Amit, July 2017, quoting Mel Gorman",
    fix="99baac21e458",
    test=Litmus(
        name="dontneed-dontneed",
        question="A page is given up twice at once: may who finds nothing return before the other flushes?",
        programs=(
            call(madvise, PAGE, MADV_DONTNEED),
            in_order(call(madvise, PAGE, MADV_DONTNEED), call(finds, 0)),
        ),
        setup=pages(PAGE, cached=(1,)),
        expected=(
            never("immediate", RECEIVED),
            sometimes("mistake:before-99baac21e458", WRONG_VERSION, RANGE_REUSED),
        ),
        frugal=False,
    ),
    before="mistake:before-99baac21e458",
)


async def _writes_and_loses(cpu: PerCpu) -> None:
    # After a walk the entry is dirty again, or the write came before CPU 0 has cleared it.
    if await write_if_cached(cpu):
        await reclaim(cpu)
        await finds(cpu, WRITTEN)


FREE_TWICE = Bug(
    name="free-beside-free",
    title="MADV_FREE returns while CPUs write through entries that are clean in memory already",
    kinds=("PT", "FL"),
    story="CPU 0 (MADV_FREE) clears the entry's dirty bit and owes a flush. CPU 1 does the same, finds "
    "the entry clean, flushes nothing and returns. Its thread writes through the dirty entry that "
    "it has cached, which sets no bit. CPU 2 (reclaim) finds the page clean and drops it with what"
    " was written.",
    affected="before v4.13",
    source="the thread of the series by Minchan Kim and Nadav Amit, July 2017",
    fix="99baac21e458",
    test=Litmus(
        name="free-free",
        question="Two CPUs advise MADV_FREE, one writes when its call has returned: is that write dropped?",
        programs=(_frees, in_order(_frees, _writes_and_loses)),
        setup=pages(PAGE, cached=(1,), written=True),
        expected=(
            never("immediate", RECEIVED),
            sometimes("mistake:before-99baac21e458", WRONG_VERSION),
        ),
        frugal=False,
        fast=2,
    ),
    before="mistake:before-99baac21e458",
)


READ_IN = "litmus.read_in"


async def _reads_a_disk(cpu: PerCpu) -> None:
    """Direct I/O, right into the page, as long as it is mapped."""
    pfn = await pin_if_mapped(cpu, PAGE, write=True)
    if pfn >= 0:
        await kernel_write(cpu, MM, PAGE, pfn, WRITTEN)
        await unpin(cpu, pfn, dirty=True)
        await SmpWmb()
        await Store(READ_IN, 1)


async def _finds_what_was_read(cpu: PerCpu) -> None:
    if await Load(READ_IN):
        await SmpRmb()
        cpu.count(READ_IN)
        await finds(cpu, WRITTEN)


FREE_BESIDE_IO = Bug(
    name="free-beside-direct-io",
    title="reclaim drops a page of MADV_FREE into which direct I/O reads",
    kinds=("PT",),
    story="A page has been given up by MADV_FREE. CPU 1 reads from a disk into it, without a buffer: it pins "
    "the page through its entry, which stays clean, and writes. CPU 0 (reclaim) looks whether the page was "
    "written since: neither the entry nor the folio says so yet, so it goes, and with it what was read. Now "
    "a reference keeps it, and who gives that back has made the folio dirty before.",
    affected="v4.12 to v5.17",
    source="the commit, 6c8e2a256915a223f6289f651d6b926cd7135c9e",
    fix="6c8e2a256915",
    test=Litmus(
        name="free-direct-io",
        question="A page of MADV_FREE is written through a pin while it is reclaimed: is that write dropped?",
        programs=(in_order(reclaim, _finds_what_was_read), _reads_a_disk),
        setup=given_up_page,
        expected=(
            never("immediate", READ_IN, DISCARDED),
            sometimes("mistake:before-6c8e2a256915", WRONG_VERSION, LOST_WRITE),
            sometimes("mistake:lazyfree-flag-first", WRONG_VERSION),
        ),
        frugal=False,
        fast=2,
    ),
    before="mistake:before-6c8e2a256915",
)
