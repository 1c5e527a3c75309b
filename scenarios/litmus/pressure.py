"""Memory that only a flush would give back: no allocation may fail for want of it."""

from __future__ import annotations

from emulator.hardware.operations import Store, WaitFor
from emulator.kernel.percpu import PerCpu
from emulator.machine.litmus import FAST, Litmus
from scenarios.litmus.steps import (
    DEFERRED,
    REUSED,
    move,
    moves_and_reuses,
    never,
    page_cached_on_1,
    pages_cached_on_1,
    reader,
    reuse,
    sometimes,
)

FAILED = "allocation failed"
MOVED = "litmus.moved"


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
    setup=page_cached_on_1,
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
    setup=pages_cached_on_1,
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
