"""Frees that others flush for later (`--mmu latr`): at their next tick, or before they switch."""

from __future__ import annotations

from emulator.hardware.operations import SmpMb, SmpRmb
from emulator.kernel.mmu.latr import FULL, GIVEN_BACK, SAVED, Latr
from emulator.kernel.percpu import PerCpu
from emulator.kernel.user import user_read, user_write
from emulator.machine.litmus import FAST, Forbidden, Litmus, Setup
from scenarios.litmus.answers import (
    FOREIGN,
    FRAME_REUSED,
    FREE,
    RANGE_REUSED,
    RETURNED,
    REUSED,
    WRONG_VERSION,
)
from scenarios.litmus.broadcasts import x86_never, x86_sometimes
from scenarios.litmus.starts import FLAG, OTHER, PAGE, VERSION, pages, starts
from scenarios.litmus.steps import call, in_order, read_if_cached, reuse
from scenarios.litmus.syscalls import MADV_DONTNEED, madvise, mmap, munmap, tick

MAPPED_AGAIN = "litmus_mapped_again"
NEW = 11
BY_DESIGN = (RETURNED,)
"""A call returns before others have dropped what it took: that is LATR, and `latr-returns` asks about it."""


TICK = call(tick)
GIVES_UP = in_order(call(munmap, PAGE), TICK, TICK, call(reuse, FAST))
READ = call(read_if_cached)

# CPU 0                             CPU 1 has the page cached
# munmap: save a state, return
#                                   read: as before
# tick, tick, ...                   tick: sweep, flush; tick
# both have had two: free the frame
# reuse it
#                                   read: nothing cached
EARLY_FREE = Litmus(
    name="latr-early-free",
    question="munmap leaves the flush to the next tick of others: is the frame free before they have had it?",
    programs=(
        in_order(call(munmap, PAGE), TICK, TICK, TICK, call(reuse, FAST)),
        in_order(READ, TICK, READ, TICK, READ),
    ),
    setup=pages(PAGE, cached=(1,)),
    expected=(
        x86_never("immediate", SAVED, GIVEN_BACK, REUSED),
        x86_sometimes("mistake:latr-one-tick", FRAME_REUSED, FREE),
        x86_sometimes("mistake:latr-frees-at-once", FRAME_REUSED, FREE),
    ),
    drain=False,
    frugal=False,
    fast=2,
    mmu="latr",
    ignore=BY_DESIGN,
)

# CPU 0                             CPU 1 has both pages cached
# munmap: the one state is in use now
# munmap of another: IPI
#                                   handle the IPI: flush
# free that frame
# tick, tick                        tick: sweep; tick
# free the first, and reuse it
TABLE_FULL = Litmus(
    name="latr-table-full",
    question="All states are in use: are others interrupted for the next one?",
    programs=(
        in_order(call(munmap, PAGE), call(munmap, OTHER), TICK, TICK, call(reuse, FAST)),
        in_order(call(read_if_cached, OTHER), TICK, TICK, READ),
    ),
    setup=pages(PAGE, OTHER, cached=(1,)),
    expected=(
        x86_never("immediate", SAVED, FULL, REUSED),
        x86_sometimes("mistake:latr-forgets-when-full", FRAME_REUSED, FREE),
    ),
    drain=False,
    frugal=False,
    fast=3,
    settings=(("latr_states", 1),),
    mmu="latr",
    ignore=BY_DESIGN,
)


async def _stop_tick(cpu: PerCpu) -> None:
    assert isinstance(cpu.mmu, Latr)
    await cpu.mmu.stop_tick(cpu)


# CPU 0                             CPU 1 has the page cached
#                                   stop the tick (nohz_full): sweep
# munmap: save a state
# CPU 1 has no tick: IPI
#                                   handle the IPI: flush
# two ticks: free the frame, reuse it
#                                   read
TICK_OFF = Litmus(
    name="latr-tick-off",
    question="A CPU stops its tick and stays in user mode: is what munmap frees flushed for there?",
    programs=(GIVES_UP, in_order(call(_stop_tick), READ, READ)),
    setup=pages(PAGE, cached=(1,)),
    expected=(
        x86_never("immediate", SAVED, GIVEN_BACK, REUSED),
        x86_sometimes("mistake:latr-knows-no-nohz", FRAME_REUSED, FREE),
    ),
    drain=False,
    frugal=False,
    fast=2,
    mmu="latr",
    ignore=BY_DESIGN,
)


async def _maps_again(cpu: PerCpu) -> None:
    await munmap(cpu, PAGE)
    for _ in range(3):
        if await mmap(cpu, PAGE):
            cpu.count(MAPPED_AGAIN)
            await user_write(cpu, PAGE, NEW)
            return
        await tick(cpu)


# CPU 0                             CPU 1 has the page cached
# munmap
# mmap there: the range is kept
# tick, tick; the range is free
#                                   tick; tick
# mmap there, write
#                                   read: nothing of the old area
RANGE = Litmus(
    name="latr-range-reused",
    question="munmap leaves the flush to others: is a new area put there before they have had it?",
    programs=(_maps_again, in_order(TICK, TICK, READ)),
    setup=pages(PAGE, cached=(1,)),
    expected=(
        x86_never("immediate", SAVED, GIVEN_BACK, MAPPED_AGAIN),
        x86_sometimes("mistake:latr-range-at-once", RANGE_REUSED, FOREIGN),
    ),
    drain=False,
    frugal=False,
    fast=2,
    mmu="latr",
    ignore=BY_DESIGN,
)

# CPU 0                             CPU 1 has the page cached
# munmap: save a state, return
#                                   read what has been unmapped
RETURNS = Litmus(
    name="latr-returns",
    question="munmap has returned: may another CPU still use what it unmapped?",
    programs=(call(munmap, PAGE), READ),
    setup=pages(PAGE, cached=(1,)),
    expected=(x86_sometimes("immediate", RETURNED),),
    drain=False,
    frugal=False,
    fast=2,
    mmu="latr",
)


async def _gives_up_and_writes(cpu: PerCpu) -> None:
    await madvise(cpu, PAGE, MADV_DONTNEED)
    await user_write(cpu, PAGE, NEW)
    await SmpMb()
    await user_write(cpu, FLAG, NEW)


async def _sees_it(cpu: PerCpu) -> None:
    if await user_read(cpu, FLAG) != NEW:
        return
    await SmpRmb()
    if (version := await user_read(cpu, PAGE)) == VERSION:
        what = f"page {PAGE:#x} is read as {version} after {NEW} was written there"
        raise Forbidden(WRONG_VERSION, what)


def _with_a_flag(setup: Setup) -> None:
    setup.area(FLAG, 1)
    setup.page(FLAG, writable=True, dirty=True)


# CPU 0                             CPU 1 has the page cached
# MADV_DONTNEED: save a state
# write it: a fault, a new frame
# say so
#                                   hear it; read: the old frame
REFAULT = Litmus(
    name="latr-madvise-refault",
    question="A page is given up by madvise and written again: does a thread that hears of it see that?",
    programs=(_gives_up_and_writes, _sees_it),
    setup=starts(pages(PAGE, cached=(1,)), _with_a_flag),
    expected=(x86_sometimes("immediate", FOREIGN, WRONG_VERSION),),
    drain=False,
    frugal=False,
    fast=4,
    mmu="latr",
    ignore=BY_DESIGN,
)
