"""Reclaimed pages of files: what was written must be written out, what is read anew must be the same."""

from __future__ import annotations

from emulator.hardware.operations import FolioIsolateLru, FolioPutbackLru, SmpRmb, SmpWmb
from emulator.kernel.pageout import shrink_file_folios
from emulator.kernel.percpu import PerCpu
from emulator.kernel.user import user_read, user_write
from emulator.machine.litmus import Forbidden, Litmus, Setup
from scenarios.litmus.steps import DEFERRED, PAGE, RECEIVED, STALE, VERSION, move, never, read, sometimes

FILE = 1
FLAG = 0x20
KEPT = "litmus_kept"
RECLAIMED = "pgsteal_file"
WRITTEN = "nr_vmscan_write"
READ_AGAIN = "pgmajfault"
LOST = "a write is lost"
WRITTEN_OUT = "grace period: written out while writable"
WRITABLE = "grace period: destination made writable"


def _shared_page(setup: Setup, writable: bool) -> None:
    setup.area(PAGE, 1, file=FILE, shared=True)
    pfn = setup.page(PAGE, writable=writable, dirty=writable, exclusive=False, version=VERSION)
    setup.in_page_cache(pfn, FILE, 0)
    # What the file has is what was read from it, until something else is written out.
    setup.memory.folios.files[FILE, 0] = VERSION


def _dirty_page(setup: Setup) -> None:
    _shared_page(setup, writable=True)
    for cpu in range(setup.cpus):
        setup.cache(cpu, PAGE)


async def _reclaim(cpu: PerCpu, pfn: int) -> None:
    if not await FolioIsolateLru(pfn):
        return
    for kept in await shrink_file_folios(cpu, [pfn]):
        cpu.count(KEPT)
        await FolioPutbackLru(kept, False)


async def _reclaimer(cpu: PerCpu) -> None:
    await _reclaim(cpu, 1)


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
    programs=(_reclaimer, _writer),
    setup=_dirty_page,
    expected=(
        never("immediate", RECEIVED, RECLAIMED, WRITTEN, READ_AGAIN),
        never("migrc:v3", RECEIVED, RECLAIMED, WRITTEN, READ_AGAIN),
        never("migrc:rfc2", RECEIVED, RECLAIMED, WRITTEN, READ_AGAIN),
        never("migrc:v9", RECEIVED, RECLAIMED, WRITTEN, READ_AGAIN),
        sometimes("mistake:pageout-without-flush", WRITTEN_OUT, LOST),
    ),
    frugal=False,
)


def _clean_page(setup: Setup) -> None:
    _shared_page(setup, writable=False)
    for cpu in range(setup.cpus):
        setup.cache(cpu, PAGE)


async def _moves_and_reclaims(cpu: PerCpu) -> None:
    if await move(cpu, 1):
        await _reclaim(cpu, 3)


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
    setup=_clean_page,
    expected=(
        never("immediate", RECLAIMED, READ_AGAIN),
        never("migrc:v3", DEFERRED, RECLAIMED, READ_AGAIN, STALE),
        never("migrc:rfc2", DEFERRED, RECLAIMED, READ_AGAIN, STALE),
        never("migrc:v9", DEFERRED, RECLAIMED, READ_AGAIN, STALE),
    ),
    frugal=False,
    fast=2,
)


def _clean_page_and_flag(setup: Setup) -> None:
    _shared_page(setup, writable=False)
    setup.area(FLAG, 1)
    setup.page(FLAG, writable=True, dirty=True)
    for cpu in range(setup.cpus):
        setup.cache(cpu, FLAG)
    setup.cache(2, PAGE)


async def _writes_and_tells(cpu: PerCpu) -> None:
    await user_write(cpu, PAGE, 1)
    await SmpWmb()
    await user_write(cpu, FLAG, 1)


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
    programs=(_reclaimer, _writes_and_tells, _told_and_reads),
    setup=_clean_page_and_flag,
    expected=(
        sometimes("immediate", WRITABLE, "message passing"),
        sometimes("migrc:v3", WRITABLE, "message passing"),
        sometimes("migrc:rfc2", WRITABLE, "message passing"),
        sometimes("migrc:v9", WRITABLE, "message passing"),
    ),
    frugal=False,
)

TESTS = (DIRTY_PAGEOUT, PENDING_RECLAIMED, REFILLED)
