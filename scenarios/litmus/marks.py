"""Watermarks count what is pending as free: a page that counts twice is memory that is not there."""

from __future__ import annotations

from emulator.hardware.operations import Store, WaitFor
from emulator.kernel.mmzone import WMARK_HIGH, zone_watermark_ok
from emulator.kernel.percpu import PerCpu
from emulator.machine.litmus import FAST, SLOW, Forbidden, Litmus, Setup
from emulator.memory.zone import Watermarks
from scenarios.litmus.answers import DEFERRED, never, postings_never, sometimes
from scenarios.litmus.starts import AREA_PAGES, OTHER, PAGE, VERSION
from scenarios.litmus.steps import MOVED, call, in_order, move, mover

COUNTED_TWICE = "watermark met by pages that are not there"
LOOKED = "litmus_watermark_refused"
SLOW_FRAME = 3


def _one_page_each(setup: Setup) -> None:
    """Frame 1 of two in the fast tier, frame 3 in the slow one."""
    setup.area(PAGE, AREA_PAGES)
    setup.page(PAGE, version=VERSION, cached=range(setup.cpus))
    assert setup.page(OTHER, SLOW, version=VERSION, cached=range(setup.cpus)) == SLOW_FRAME


async def _look(cpu: PerCpu) -> None:
    """The high watermark is 1: taking a page would leave it met only if two were free or pending."""
    if await zone_watermark_ok(cpu, FAST, 1, WMARK_HIGH):
        raise Forbidden(COUNTED_TWICE, "a page of the fast tier is in use, and two of two count as free")
    cpu.count(LOOKED)


async def _drain(cpu: PerCpu) -> None:
    await cpu.policy.drain(cpu)


# Once a page has been promoted, none of the two is free before the other one has been demoted.
# CPU 0                             CPU 1
# promote frame 3, pending there
# demote frame 1: pending
# free 0 + pending 1
# flush, count it out
#                                   free 0 + pending 0
# free it
#                                   free 1 + pending 0
COUNTED_ONCE = Litmus(
    name="watermark-counts-once",
    question="A pending page is freed: does it ever count twice in the watermark?",
    programs=(
        in_order(call(move, SLOW_FRAME, FAST), Store(MOVED, 1), mover, _look, _drain),
        in_order(WaitFor(MOVED, 1), _look, _look),
    ),
    setup=_one_page_each,
    expected=(
        never("immediate", LOOKED),
        *postings_never(DEFERRED, LOOKED),
        sometimes("mistake:freed-before-counted-out", COUNTED_TWICE),
        sometimes("mistake:counts-what-is-free", COUNTED_TWICE),
    ),
    fast=2,
    slow=3,
    marks=Watermarks(0, 0, 1),
)
