"""Blocks of several frames: what is pending keeps them from merging, so high orders fail first."""

from __future__ import annotations

from emulator.kernel.percpu import PerCpu
from emulator.machine.litmus import FAST, Litmus, Setup
from scenarios.litmus.steps import DEFERRED, PAGE, REUSED, STALE, VERSION, move, never, read, reuse, sometimes

FAILED = "allocation failed"
ORDER = 1
PAGES = 3


def _three_pages(setup: Setup) -> None:
    """Frames 1 to 3, of which 2 and 3 are one block of order 1 when both are free."""
    setup.area(PAGE, PAGES)
    for page in range(PAGES):
        setup.page(PAGE + page, version=VERSION)
        setup.cache(1, PAGE + page)


async def _moves_and_needs_a_block(cpu: PerCpu) -> None:
    for pfn in (2, 3):
        await move(cpu, pfn)
    await reuse(cpu, FAST, ORDER)


async def _moves_one_and_needs_a_block(cpu: PerCpu) -> None:
    """Frame 1 is free at once where nothing is deferred: the watermark holds, and there is no block."""
    for pfn in (3, 2, 1):
        await move(cpu, pfn)
    await reuse(cpu, FAST)
    await reuse(cpu, FAST, ORDER)


async def _reader(cpu: PerCpu) -> None:
    await read(cpu, PAGE + 1)


# CPU 0                             CPU 1 has frames 1 to 3 cached
# demote frames 2 and 3: pending
# allocate order 1: no block
# flush
#                                   handle the IPI
# free 2 and 3: they merge
# allocate again: frames 2 and 3
HIGH_ORDER = Litmus(
    name="high-order-needs-the-flush",
    question="Do pending frames become one free block before an allocation of a higher order fails?",
    programs=(_moves_and_needs_a_block, _reader),
    setup=_three_pages,
    expected=(
        never("immediate", REUSED),
        never("migrc:v3", DEFERRED, REUSED, STALE),
        never("migrc:rfc2", DEFERRED, REUSED, STALE),
        never("migrc:v9", DEFERRED, REUSED, STALE),
        sometimes("mistake:no-flush-under-pressure", FAILED),
        sometimes("mistake:no-flush-for-high-orders", FAILED),
    ),
    fast=PAGES,
    slow=PAGES,
)

# CPU 0                             CPU 1 has frames 1 to 3 cached
# demote 3, 2 and 1: pending
# allocate order 0: flush or not,
# there are frames; give it back
# allocate order 1: the block has to
# be whole again
BOTH_ORDERS = Litmus(
    name="high-order-after-low",
    question="Does an allocation of order 0, satisfied by any frame, leave the next one its block?",
    programs=(_moves_one_and_needs_a_block, _reader),
    setup=_three_pages,
    expected=(
        never("immediate", REUSED),
        never("migrc:v3", DEFERRED, REUSED, STALE),
        never("migrc:rfc2", DEFERRED, REUSED, STALE),
        never("migrc:v9", DEFERRED, REUSED, STALE),
    ),
    fast=PAGES,
    slow=PAGES,
)

TESTS = (HIGH_ORDER, BOTH_ORDERS)
