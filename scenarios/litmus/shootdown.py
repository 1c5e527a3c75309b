"""The shootdown itself: unmap, interrupt, wait for acknowledgements, and only then use the frame again."""

from __future__ import annotations

from emulator.explore.litmus import FAST, Litmus, Setup
from emulator.kernel.percpu import PerCpu
from scenarios.litmus.steps import (
    AREA_PAGES,
    PAGE,
    RECEIVED,
    REUSED,
    STALE,
    VERSION,
    move,
    never,
    read,
    reuse,
    sometimes,
)


def _one_page(setup: Setup) -> None:
    setup.area(PAGE, AREA_PAGES)
    setup.page(PAGE, version=VERSION)
    for cpu in range(setup.cpus):
        setup.cache(cpu, PAGE)


async def _mover(cpu: PerCpu) -> None:
    if await move(cpu, 1):
        await reuse(cpu, FAST)


async def _reader(cpu: PerCpu) -> None:
    await read(cpu)


# CPU 0 moves and reuses            CPU 1 has frame 1 cached
# entry = migration entry
# IPI to CPU 1
# copy, map frame 2, free frame 1
# allocate frame 1, clear it
#                                   read through the old translation: is the 0 of somebody else visible?
#                                   handle the IPI, acknowledge
SHOOTDOWN = Litmus(
    name="shootdown",
    question="May a frame be reused before every CPU that may have it cached has acknowledged the flush?",
    programs=(_mover, _reader),
    setup=_one_page,
    expected=(
        never("immediate", RECEIVED, REUSED, STALE),
        sometimes("mistake:no-wait-for-acknowledgements"),
        sometimes("mistake:interrupt-to-nobody"),
    ),
    fast=1,
    slow=2,
)

TESTS = (SHOOTDOWN,)
