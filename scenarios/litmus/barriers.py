"""Read the generation, flush, note it: in this order, or a CPU is taken for flushed that is not.

The adversary is the page walker, which may bring a translation back at any moment until the entry is
gone. Whether an order needs a barrier is a property of the architecture: MOV to CR3 serializes, while
SFENCE.VMA orders neither the load before it nor the store after it.
"""

from __future__ import annotations

from emulator.explore.litmus import FAST, Expectation, Litmus, Setup
from emulator.kernel.percpu import PerCpu
from emulator.kernel.user import user_read
from scenarios.litmus.steps import (
    AREA_PAGES,
    PAGE,
    REUSED,
    SKIPPED,
    VERSION,
    flush_for_own_reasons,
    move,
    never,
    reuse,
    sometimes,
)


def _one_page(setup: Setup) -> None:
    setup.area(PAGE, AREA_PAGES)
    setup.page(PAGE, version=VERSION)
    setup.cache(1, PAGE)


async def _mover(cpu: PerCpu) -> None:
    if await move(cpu, 1):
        await reuse(cpu, FAST)


async def _flusher(cpu: PerCpu) -> None:
    await flush_for_own_reasons(cpu)
    await user_read(cpu, PAGE)


# CPU 0 demotes, then needs memory  CPU 1 flushes on its own      CPU 1's walker
#                                   (the load is put off)
#                                   flush
#                                                                 fetches page -> frame 1
# unmap, generation 1
#                                   the load finds 1, note 1
# CPU 1 is done: free frame 1, reuse
#                                   read frame 1
# The other way round, the note is visible before the flush is:
# unmap, generation 1
#                                   load 1
#                                   note 1 (early)
# CPU 1 is done: free frame 1, reuse
#                                   flush, too late
FLUSH_NOTES = Litmus(
    name="flush-notes",
    question="Is the order read generation, flush, write note kept where only barriers keep it?",
    programs=(_mover, _flusher),
    setup=_one_page,
    expected=(
        never("migrc:v3", SKIPPED, REUSED),
        never("migrc:rfc2", SKIPPED, REUSED),
        never("migrc:v9", SKIPPED, REUSED),
        never("migrc:rfc1", SKIPPED, REUSED),
        Expectation("mistake:no-barrier-before-flush", "Never", "Never", "Sometimes", (SKIPPED, REUSED)),
        Expectation("mistake:no-barrier-after-flush", "Never", "Never", "Sometimes", (SKIPPED, REUSED)),
        sometimes("mistake:generation-read-after-flush"),
        sometimes("mistake:note-before-flush"),
    ),
    speculated=(PAGE,),
    fast=1,
    slow=2,
)

TESTS = (FLUSH_NOTES,)
