"""Litmus tests for the version that frees before it flushes: demotions, reuse, writes, two flushers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from emulator.explore.compiled.runs import exhaust
from emulator.explore.exhaustive import Exhausted
from emulator.explore.learned import LearnedMachine
from emulator.hardware.operations import FolioIsolateLru, FolioPut, FolioPutbackLru, FolioZero
from emulator.hardware.ordering import ARCHITECTURES
from emulator.kernel.migrate import migrate_pages
from emulator.kernel.mmzone import get_page_from_freelist
from emulator.kernel.percpu import PerCpu
from emulator.kernel.policy import MR_NUMA_MISPLACED, Policy
from emulator.kernel.user import user_read, user_write
from emulator.machine.litmus import FAST, SLOW, Litmus, LitmusMachine, Setup

PAGE = 0x10
OTHER = 0x11
Body = Callable[[PerCpu], Awaitable[None]]


def pages(setup: Setup) -> None:
    """Two read-only pages in frames 1 and 2, which is all of the fast tier; everybody has them cached."""
    setup.area(PAGE, 4)
    for vpn in (PAGE, OTHER):
        setup.page(vpn, version=7)
        for cpu in range(setup.cpus):
            setup.cache(cpu, vpn)


def demotes(
    pfn: int, then_reuses: bool = False, then_writes: int | None = None, then_drains: bool = False
) -> Body:
    async def body(cpu: PerCpu) -> None:
        if await FolioIsolateLru(pfn):
            for stayed in (await migrate_pages(cpu, [pfn], SLOW, MR_NUMA_MISPLACED))[1]:
                await FolioPutbackLru(stayed, False)
        if then_reuses:
            await reuses(cpu)
        if then_writes is not None:
            await user_write(cpu, PAGE + pfn - 1, then_writes)
        if then_drains:
            await cpu.policy.drain(cpu)

    return body


async def reuses(cpu: PerCpu) -> None:
    pfn = await get_page_from_freelist(cpu, (FAST,), 0, 0)
    if pfn >= 0:
        cpu.count("reused")
        await FolioZero(pfn)
        await FolioPut(pfn)


async def drains(cpu: PerCpu) -> None:
    await cpu.policy.drain(cpu)


def reads(vpn: int = PAGE) -> Body:
    async def body(cpu: PerCpu) -> None:
        await user_read(cpu, vpn)

    return body


def writes(vpn: int = PAGE) -> Body:
    async def body(cpu: PerCpu) -> None:
        await user_write(cpu, vpn, 11)

    return body


def litmus(name: str, *programs: Body, speculated: tuple[int, ...] = ()) -> Litmus:
    return Litmus(name, "is it safe?", programs, pages, (), fast=2, slow=4, speculated=speculated)


TESTS = {
    one.name: one
    for one in (
        litmus("readers", demotes(1), reads(), reads()),
        litmus("speculation", demotes(1, then_reuses=True), reads(), speculated=(PAGE,)),
        litmus("reuse", demotes(1, then_reuses=True), reads(), reads()),
        litmus("reuse elsewhere", demotes(1), reuses, reads()),
        litmus("write", demotes(1), writes(), reads()),
        litmus("two writers", demotes(1, then_writes=9), writes(), reads()),
        # Two write faults of a page wait for each other at its page table's lock, a drain for none of them.
        litmus("drain and writer", demotes(1, then_drains=True), writes(), reads()),
        litmus("two demotions", demotes(1, then_reuses=True), demotes(2), reads()),
        litmus("two demotions, two reuses", demotes(1, then_reuses=True), demotes(2, then_reuses=True)),
        litmus("demotion and flusher", demotes(1, then_reuses=True), drains, reads()),
    )
}


def search(test: Litmus, architecture: str, make: Callable[[], Policy], all_rules: bool = False) -> Exhausted:
    return exhaust(
        LearnedMachine(LitmusMachine(test, ARCHITECTURES[architecture], make)), all_rules=all_rules
    )
