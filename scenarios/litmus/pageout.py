"""Reclaimed pages of files: what was written must be written out, what is read anew must be the same."""

from __future__ import annotations

from emulator.hardware.operations import SmpRmb, SmpWmb
from emulator.kernel.percpu import PF_KSWAPD, PerCpu
from emulator.kernel.user import user_read, user_write
from emulator.machine.litmus import Forbidden, Litmus, Setup
from scenarios.litmus.answers import (
    DEFERRED,
    FRAME_REUSED,
    MADE_WRITABLE,
    RANGE_REUSED,
    READ_AGAIN,
    RECEIVED,
    STALE,
    luf_sometimes,
    never,
    postings_never,
    postings_sometimes,
    sometimes,
)
from scenarios.litmus.starts import FLAG, PAGE, VERSION, file_page
from scenarios.litmus.steps import call, in_order, move, read
from scenarios.litmus.syscalls import reclaim

RECLAIMED = "pgsteal_file"
WRITTEN = "nr_vmscan_write"
LOST = "a write is lost"
WRITTEN_OUT = "grace period: written out while writable"


async def _writer(cpu: PerCpu) -> None:
    await user_write(cpu, PAGE, 12)
    version = await user_read(cpu, PAGE)
    if version != 12:
        raise Forbidden(LOST, f"read version {version} after writing 12")


# CPU 0 reclaims                    CPU 1 has the page writable and dirty
# clear the entry; it was dirty
#                                   write 12, without a fault
# IPI, wait
#                                   handle it
# write out: 12 is in it
# out of the cache, free
#                                   read: fault, from the file, 12
DIRTY_PAGEOUT = Litmus(
    name="pageout-dirty",
    question="A dirty page of a file is written out and reclaimed: is a write through a cached entry lost?",
    programs=(call(reclaim, 1), _writer),
    setup=file_page(written=True, stored=True),
    expected=(
        never("immediate", RECEIVED, RECLAIMED, WRITTEN, READ_AGAIN),
        *postings_never(RECEIVED, RECLAIMED, WRITTEN, READ_AGAIN),
        sometimes("mistake:pageout-without-flush", WRITTEN_OUT, LOST),
    ),
    frugal=False,
)


def _old(setup: Setup) -> None:
    """CPU 0's task is kswapd, and the page has not been used since its accessed bit was cleared."""
    setup.task(0, PF_KSWAPD)
    file_page(cached=(1,), written=True, stored=True)(setup)
    setup.aged(PAGE)


# As above. That the entry has not been accessed says nothing of TLBs.
OLD_PAGEOUT = Litmus(
    name="pageout-dirty-old",
    question="The same by kswapd, of a page that has not been used for a while: is it flushed for?",
    programs=(call(reclaim, 1), _writer),
    setup=_old,
    expected=(
        never("immediate", RECEIVED, RECLAIMED, WRITTEN, READ_AGAIN),
        *postings_never(RECEIVED, RECLAIMED, WRITTEN, READ_AGAIN),
        sometimes("mistake:not-young-not-cached", WRITTEN_OUT, LOST),
        sometimes("mistake:kswapd-writes-unflushed", WRITTEN_OUT, LOST),
    ),
    frugal=False,
)


async def _moves_and_reclaims(cpu: PerCpu) -> None:
    if await move(cpu, 1):
        await reclaim(cpu, 3)


async def _reader(cpu: PerCpu) -> None:
    for _ in range(2):
        version = await read(cpu)
        if version != VERSION:
            raise Forbidden("the file's page changed", f"read version {version}, not {VERSION}")


# CPU 0                             CPU 1 has page -> src cached
# demote: src -> dst, deferred
# reclaim dst: clear the entry,
# out of the cache, flush, free dst
#                                   read: src, before that flush
#                                   read: fault, from the file
# flush what is pending, free src
PENDING_RECLAIMED = Litmus(
    name="reclaim-pending",
    question="The destination of a pending request is reclaimed: what becomes of the source's translations?",
    programs=(_moves_and_reclaims, _reader),
    setup=file_page(stored=True),
    expected=(
        never("immediate", RECLAIMED, READ_AGAIN),
        *postings_never(DEFERRED, RECLAIMED, READ_AGAIN, STALE),
    ),
    frugal=False,
    fast=2,
)


def _clean_page_and_flag(setup: Setup) -> None:
    file_page(cached=(2,), stored=True)(setup)
    setup.area(FLAG, 1)
    setup.page(FLAG, writable=True, dirty=True, cached=range(setup.cpus))


_writes_and_tells = in_order(call(user_write, PAGE, 1), SmpWmb(), call(user_write, FLAG, 1))


async def _told_and_reads(cpu: PerCpu) -> None:
    flag = await user_read(cpu, FLAG)
    await SmpRmb()
    data = await user_read(cpu, PAGE)
    if flag == 1 and data == VERSION:
        raise Forbidden("message passing", f"the flag is 1, the data behind it still {data}")


# CPU 0 reclaims                    CPU 1                         CPU 2 has frame 1 cached
# clear the entry: clean, so the
# flush is left to the batch
# out of the cache
#                                   write: fault, read the file
#                                   into frame 3, map it writable
#                                   data = 1, flag = 1
#                                                                 flag is 1
#                                                                 data, from frame 1: still old
# flush of the batch, free frame 1
REFILLED = Litmus(
    name="reclaim-refill",
    question="A clean page's slot is refilled before reclaim has flushed: may the new page be written?",
    programs=(call(reclaim, 1), _writes_and_tells, _told_and_reads),
    setup=_clean_page_and_flag,
    expected=(
        sometimes("immediate", MADE_WRITABLE, "message passing"),
        *postings_sometimes(MADE_WRITABLE, "message passing"),
        *luf_sometimes(MADE_WRITABLE, RANGE_REUSED, FRAME_REUSED, "message passing"),
    ),
    frugal=False,
)
