"""Unmapping against what is pending: munmap through mmu_gather, and a new mapping where the old one was."""

from __future__ import annotations

from emulator.kernel.mmap import do_mmap, do_munmap
from emulator.kernel.percpu import PerCpu
from emulator.kernel.user import user_write
from emulator.machine.litmus import FAST, MM, Litmus, Setup
from emulator.memory.page_table import VM_READ, VM_WRITE
from scenarios.litmus.steps import (
    DEFERRED,
    PAGE,
    REUSED,
    STALE,
    VERSION,
    move,
    mover,
    never,
    read_if_cached,
    reuse,
)

MAPPED_ANEW = "litmus_mapped_anew"
# munmap's flush of a single page leaves no note, so a later flush interrupts once more for nothing.
FRUGAL = False


def _one_page(setup: Setup) -> None:
    setup.area(PAGE, 1)
    setup.page(PAGE, version=VERSION)
    for cpu in range(setup.cpus):
        setup.cache(cpu, PAGE)


async def _unmap(cpu: PerCpu) -> None:
    await do_munmap(cpu, MM, PAGE, PAGE + 1)


async def _moves_and_unmaps(cpu: PerCpu) -> None:
    await move(cpu, 1)
    await _unmap(cpu)
    await reuse(cpu, FAST)


async def _unmapper(cpu: PerCpu) -> None:
    await _unmap(cpu)
    if await do_mmap(cpu, MM, PAGE, PAGE + 1, VM_READ | VM_WRITE):
        cpu.count(MAPPED_ANEW)
        await user_write(cpu, PAGE, 12)


async def _reader(cpu: PerCpu) -> None:
    await read_if_cached(cpu)


# CPU 0                             CPU 1 has frame 1 cached
# demote: 1 -> 2, deferred
# clear the entry, which names 2
# flush the page, free 2
#                                   read: frame 1 has to be gone, although the entry named 2
# flush what is pending, free 1, reuse
ZAP_PENDING = Litmus(
    name="munmap-pending",
    question="munmap frees the destination of a pending request: what happens to the source's translations?",
    programs=(_moves_and_unmaps, _reader),
    setup=_one_page,
    expected=(
        never("immediate", REUSED),
        never("migrc:v3", DEFERRED, REUSED, STALE),
        never("migrc:rfc2", DEFERRED, REUSED, STALE),
        never("migrc:v9", DEFERRED, REUSED, STALE),
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
    programs=(mover, _unmapper, _reader),
    setup=_one_page,
    expected=(
        never("immediate", MAPPED_ANEW, STALE),
        never("migrc:v3", MAPPED_ANEW, STALE),
        never("migrc:rfc2", MAPPED_ANEW, STALE),
        never("migrc:v9", MAPPED_ANEW, STALE),
    ),
    frugal=FRUGAL,
    fast=2,
    slow=2,
)


async def _maps_anew(cpu: PerCpu) -> None:
    await move(cpu, 1)
    await do_munmap(cpu, MM, PAGE, PAGE + 1)
    if await do_mmap(cpu, MM, PAGE, PAGE + 1, VM_READ | VM_WRITE):
        cpu.count(MAPPED_ANEW)
        await user_write(cpu, PAGE, 11)


# CPU 0                             CPU 1 has frame 1 cached
# demote: 1 -> 2, deferred
# munmap, flush the range
# mmap at the same address
# write: fault, a new page, 11
#                                   read, if it is still cached: not frame 1's 7
NEW_MAPPING = Litmus(
    name="new-mapping-while-pending",
    question="Can a pending request's old translation be used for a new mapping at the same address?",
    programs=(_maps_anew, _reader),
    setup=_one_page,
    expected=(
        never("immediate", MAPPED_ANEW),
        never("migrc:v3", DEFERRED, MAPPED_ANEW, STALE),
        never("migrc:rfc2", DEFERRED, MAPPED_ANEW, STALE),
        never("migrc:v9", DEFERRED, MAPPED_ANEW, STALE),
    ),
    frugal=FRUGAL,
)

TESTS = (ZAP_PENDING, ZAP_WHILE_MOVING, NEW_MAPPING)
