"""Unmapping against what is pending: munmap through mmu_gather, and a new mapping where the old one was."""

from __future__ import annotations

from emulator.kernel.mmap import do_mmap, do_munmap
from emulator.kernel.percpu import PerCpu
from emulator.kernel.user import user_write
from emulator.machine.litmus import FAST, MM, Litmus
from emulator.memory.page_table import VM_READ, VM_WRITE
from scenarios.litmus.answers import (
    DEFERRED,
    LUF,
    REUSED,
    STALE,
    luf_never,
    never,
    never_on_x86,
    postings_never,
)
from scenarios.litmus.starts import PAGE, pages
from scenarios.litmus.steps import call, in_order, mover, read_if_cached, reuse

MAPPED_ANEW = "litmus_mapped_anew"
# munmap's flush of a single page leaves no note, so a later flush interrupts once more for nothing.
FRUGAL = False
ONE_PAGE = pages(PAGE, area=1)

_unmaps = call(do_munmap, MM, PAGE, PAGE + 1)


async def _map_anew(cpu: PerCpu, version: int) -> None:
    if await do_mmap(cpu, MM, PAGE, PAGE + 1, VM_READ | VM_WRITE):
        cpu.count(MAPPED_ANEW)
        await user_write(cpu, PAGE, version)


# CPU 0                             CPU 1 has frame 1 cached
# demote: 1 -> 2, deferred
# clear the entry, which names 2
# flush the page, free 2
#                                   read: frame 1 has to be gone, although the entry named 2
# flush what is pending, free 1, reuse
ZAP_PENDING = Litmus(
    name="munmap-pending",
    question="munmap frees the destination of a pending request: what happens to the source's translations?",
    programs=(in_order(mover, _unmaps, call(reuse, FAST)), call(read_if_cached)),
    setup=ONE_PAGE,
    expected=(
        never("immediate", REUSED),
        *luf_never(DEFERRED, REUSED)[2:],
        *(never_on_x86(policy, DEFERRED, REUSED) for policy in LUF[:2]),
        *postings_never(DEFERRED, REUSED, STALE),
    ),
    frugal=FRUGAL,
    fast=1,
    slow=2,
)

# CPU 0 demotes                     CPU 1 maps anew               CPU 2 has frame 1 cached
# entry = migration entry
#                                   clear it: nothing was present,
#                                   is there nothing to flush?
# flush, or not
#                                   mmap, write to a new page
#                                                                 read frame 1
ZAP_WHILE_MOVING = Litmus(
    name="munmap-while-moving",
    question="munmap meets a migration entry whose flush is still owed: is the range free to be reused?",
    programs=(mover, in_order(_unmaps, call(_map_anew, 12)), call(read_if_cached)),
    setup=ONE_PAGE,
    expected=(never("immediate", MAPPED_ANEW, STALE), *postings_never(MAPPED_ANEW, STALE)),
    frugal=FRUGAL,
    fast=2,
    slow=2,
)


# CPU 0                             CPU 1 has frame 1 cached
# demote: 1 -> 2, deferred
# munmap, flush the range
# mmap at the same address
# write: fault, a new page, 11
#                                   read, if it is still cached: not frame 1's 7
NEW_MAPPING = Litmus(
    name="new-mapping-while-pending",
    question="Can a pending request's old translation be used for a new mapping at the same address?",
    programs=(in_order(mover, _unmaps, call(_map_anew, 11)), call(read_if_cached)),
    setup=ONE_PAGE,
    expected=(
        never("immediate", MAPPED_ANEW),
        *luf_never(DEFERRED, MAPPED_ANEW)[2:],
        *(never_on_x86(policy, DEFERRED, MAPPED_ANEW) for policy in LUF[:2]),
        *postings_never(DEFERRED, MAPPED_ANEW, STALE),
    ),
    frugal=FRUGAL,
)
