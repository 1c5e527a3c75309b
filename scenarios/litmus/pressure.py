"""Memory that only a flush would give back: no allocation may fail for want of it."""

from __future__ import annotations

from emulator.explore.litmus import FAST, Litmus, Setup
from emulator.hardware.operations import Store, WaitFor
from emulator.kernel.percpu import PerCpu
from scenarios.litmus.steps import (
    AREA_PAGES,
    DEFERRED,
    OTHER,
    PAGE,
    REUSED,
    VERSION,
    move,
    never,
    read,
    reuse,
    sometimes,
)

FAILED = "allocation failed"
MOVED = "litmus.moved"


def _one_page(setup: Setup) -> None:
    setup.area(PAGE, AREA_PAGES)
    setup.page(PAGE, version=VERSION)
    setup.cache(1, PAGE)


async def _mover(cpu: PerCpu) -> None:
    if await move(cpu, 1):
        await reuse(cpu, FAST)


async def _reader(cpu: PerCpu) -> None:
    await read(cpu)


# CPU 0                             CPU 1 has frame 1 cached
# demote: the only frame is pending
# allocate: none free
# flush, free frame 1
#                                   handle the IPI
# allocate again: frame 1
HIDDEN_PRESSURE = Litmus(
    name="allocation-needs-the-flush",
    question="Is pending memory flushed for and found before an allocation fails?",
    programs=(_mover, _reader),
    setup=_one_page,
    expected=(
        never("migrc:v3", DEFERRED, REUSED),
        never("migrc:rfc2", DEFERRED, REUSED),
        never("migrc:v9", DEFERRED, REUSED),
        sometimes("mistake:no-flush-under-pressure", FAILED),
        sometimes("mistake:flushes-below-the-watermark-only", FAILED),
    ),
    fast=1,
    slow=2,
)


def _two_pages(setup: Setup) -> None:
    setup.area(PAGE, AREA_PAGES)
    for vpn in (PAGE, OTHER):
        setup.page(vpn, version=VERSION)
        setup.cache(1, vpn)


async def _moves_both(cpu: PerCpu) -> None:
    await move(cpu, 1)
    await move(cpu, 2)
    await Store(MOVED, 1)
    await reuse(cpu, FAST)


async def _allocator(cpu: PerCpu) -> None:
    await WaitFor(MOVED, 1)
    await reuse(cpu, FAST)


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
    programs=(_moves_both, _allocator),
    setup=_two_pages,
    expected=(
        never("immediate", REUSED),
        sometimes("migrc:v3", FAILED),
        sometimes("migrc:rfc2", FAILED),
        never("migrc:v9", DEFERRED, REUSED),
    ),
    fast=2,
    slow=2,
)

TESTS = (HIDDEN_PRESSURE, TWO_ALLOCATORS)
