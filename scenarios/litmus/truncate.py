"""A file's page is taken away and its slot filled anew: nobody may go on reading what was there.

Hansen's second rule for deferred flushes (<d650c29b-129f-4fac-9a9d-ea1fbdae2c3a@intel.com>): a page-cache
slot whose old page is still owed a flush is not refilled before it. The postings defer for migrations only,
and truncation flushes wherever the page is mapped.
"""

from __future__ import annotations

from emulator.kernel.percpu import PerCpu
from emulator.kernel.truncate import truncate_inode_pages
from emulator.kernel.user import user_read, user_write
from emulator.machine.litmus import MM, Litmus, Setup
from scenarios.litmus.steps import (
    DEFERRED,
    PAGE,
    STALE,
    VERSION,
    move,
    mover,
    never,
    read_if_cached,
    sometimes,
)

FILE = 1
MAPPED = ((MM, PAGE),)
REFILLED = "pgmajfault"
TRUNCATED = "litmus_truncated"
# The flush of a single page leaves no note, so a later flush interrupts once more for nothing.
FRUGAL = False


def _shared_page(setup: Setup) -> None:
    setup.area(PAGE, 1, file=FILE, shared=True)
    pfn = setup.page(PAGE, exclusive=False, version=VERSION)
    setup.in_page_cache(pfn, FILE, 0)
    for cpu in range(setup.cpus):
        setup.cache(cpu, PAGE)


async def _truncates_and_writes(cpu: PerCpu) -> None:
    cpu.count(TRUNCATED, await truncate_inode_pages(cpu, FILE, MAPPED, 0, 1))
    await user_write(cpu, PAGE, 11)


async def _moves_and_truncates(cpu: PerCpu) -> None:
    await move(cpu, 1)
    await _truncates_and_writes(cpu)


async def _reader(cpu: PerCpu) -> None:
    await read_if_cached(cpu)
    await read_if_cached(cpu)


# CPU 0                             CPU 1 has page -> src cached
# demote: src -> dst, deferred
# truncate: clear the entry, which
# names dst; IPI for the page
#                                   read src, before it
#                                   handle the IPI
# out of the cache, free dst
# write: fault, a new page, 11
#                                   read: not src's 7
# flush what is pending, free src
PENDING = Litmus(
    name="truncate-pending",
    question="A pending page's file is truncated and its slot refilled: is the source still read?",
    programs=(_moves_and_truncates, _reader),
    setup=_shared_page,
    expected=(
        never("immediate", TRUNCATED, REFILLED),
        never("migrc:v3", DEFERRED, TRUNCATED, REFILLED, STALE),
        never("migrc:rfc2", DEFERRED, TRUNCATED, REFILLED, STALE),
        never("migrc:v9", DEFERRED, TRUNCATED, REFILLED, STALE),
        sometimes("mistake:zap-without-flush"),
    ),
    frugal=FRUGAL,
    fast=2,
    slow=2,
)


# CPU 0 demotes                     CPU 1 truncates               CPU 2 has page -> src cached
# entry = migration entry
#                                   has a reference on src, waits
# copy; back to src, unless the slot
# was dst's already
#                                   clear the entry, flush the page
#                                   out of the cache
#                                   write: a new page, 11
#                                                                 read src?
WHILE_MOVING = Litmus(
    name="truncate-while-moving",
    question="A page is truncated while it is being moved: which of its two frames may anybody still read?",
    programs=(mover, _truncates_and_writes, _reader),
    setup=_shared_page,
    expected=(
        never("immediate", TRUNCATED, REFILLED),
        never("migrc:v3", DEFERRED, TRUNCATED, REFILLED, STALE),
        never("migrc:rfc2", DEFERRED, TRUNCATED, REFILLED, STALE),
        never("migrc:v9", DEFERRED, TRUNCATED, REFILLED, STALE),
    ),
    frugal=FRUGAL,
    fast=2,
    slow=2,
)


async def _truncater(cpu: PerCpu) -> None:
    cpu.count(TRUNCATED, await truncate_inode_pages(cpu, FILE, MAPPED, 0, 1))


async def _faults_and_reads(cpu: PerCpu) -> None:
    await user_read(cpu, PAGE)
    await user_read(cpu, PAGE)


# CPU 0 truncates                   CPU 1 has the page cached
# clear the entry, flush
#                                   read: fault, finds the old page
# out of the cache                  in the cache: may it map it?
WHILE_FAULTING = Litmus(
    name="truncate-while-faulting",
    question="A fault finds a page in the cache that is being truncated: is it mapped after it has gone?",
    programs=(_truncater, _faults_and_reads),
    setup=_shared_page,
    expected=(
        never("immediate", TRUNCATED, REFILLED),
        never("migrc:v3", TRUNCATED, REFILLED),
        never("migrc:v9", TRUNCATED, REFILLED),
    ),
    frugal=FRUGAL,
)

TESTS = (PENDING, WHILE_MOVING, WHILE_FAULTING)
