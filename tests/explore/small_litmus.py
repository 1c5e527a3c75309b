"""Litmus tests for testing the explorer itself: a demotion, its readers, and a policy that is wrong."""

from __future__ import annotations

from collections.abc import Callable

from emulator.hardware.operations import (
    AllocPages,
    AtomicAdd,
    FolioIsolateLru,
    FolioPut,
    FolioZero,
    Load,
    Lock,
    SmpMb,
    SmpMbAfterAtomic,
    SmpWmb,
    Store,
    Unlock,
    WaitFor,
    XchgPte,
)
from emulator.hardware.ordering import ARCHITECTURES
from emulator.hardware.pte import pte_pfn
from emulator.kernel.migrate import migrate_pages
from emulator.kernel.percpu import PerCpu, TlbUbc
from emulator.kernel.policy import MR_NUMA_MISPLACED, Policy
from emulator.kernel.tlb import arch_tlbbatch_flush, flush_tlb_mm_range
from emulator.kernel.user import user_read, user_write
from emulator.machine.litmus import SLOW, Litmus, LitmusMachine, Setup
from emulator.policies.catalogue import POLICIES

PAGE = 0x10


def one_page(setup: Setup) -> None:
    setup.area(PAGE, 4)
    setup.page(PAGE, version=7)
    for cpu in range(setup.cpus):
        setup.cache(cpu, PAGE)


async def demotes(cpu: PerCpu) -> None:
    await FolioIsolateLru(1)
    await migrate_pages(cpu, [1], SLOW, MR_NUMA_MISPLACED)


async def reads_twice(cpu: PerCpu) -> None:
    await user_read(cpu, PAGE)
    await user_read(cpu, PAGE)


async def writes(cpu: PerCpu) -> None:
    await user_write(cpu, PAGE, 99)


def _reuse(flush: bool) -> Callable[[PerCpu], object]:
    async def program(cpu: PerCpu) -> None:
        old = await XchgPte(1, PAGE, 0)
        if flush:
            await flush_tlb_mm_range(cpu, 1, PAGE, PAGE + 1, freed_tables=True)
        await FolioPut(pte_pfn(old))
        frame = await AllocPages(0, 0, 0, 0)
        await FolioZero(frame)
        await FolioPut(frame)

    return program


async def reads_until_unmapped(cpu: PerCpu) -> None:
    from emulator.kernel.memory import SegmentationFault

    try:
        await user_read(cpu, PAGE)
        await user_read(cpu, PAGE)
    except SegmentationFault:
        pass


def unmapped(setup: Setup) -> None:
    """The area is gone already: who misses faults."""
    one_page(setup)
    setup.memory.page_tables.mm(1).areas.clear()


async def polls(cpu: PerCpu) -> None:
    while await Load("both") < 2:
        pass


def _takes(*locks: str) -> Callable[[PerCpu], object]:
    async def program(cpu: PerCpu) -> None:
        for lock in locks:
            await Lock(lock)
        for lock in reversed(locks):
            await Unlock(lock)
        await AtomicAdd("both", 1)

    return program


def polling(second: tuple[str, str]) -> Litmus:
    """One CPU polls until two others, which take locks "a" and "b" in some order, are through."""
    return Litmus("polling", "?", (polls, _takes("a", "b"), _takes(*second)), one_page, ())  # type: ignore[arg-type]


async def _flushes_cpu_1(cpu: PerCpu) -> None:
    batch = TlbUbc()
    batch.cpumask = 0b10
    await arch_tlbbatch_flush(cpu, batch)


async def _moves_and_asks_if_not_told(cpu: PerCpu) -> None:
    await demotes(cpu)
    await AtomicAdd("moved", 1)
    if await Load("note"):
        await SmpMb()
        await _flushes_cpu_1(cpu)


async def _flushes_what_was_moved(cpu: PerCpu) -> None:
    await WaitFor("moved", 1)
    await _flushes_cpu_1(cpu)


def _notes(barrier: type[SmpMb | SmpWmb | SmpMbAfterAtomic]) -> Callable[[PerCpu], object]:
    async def program(cpu: PerCpu) -> None:
        await barrier()
        await Store("note", 1)

    return program


def note_after_barrier(barrier: type[SmpMb | SmpWmb | SmpMbAfterAtomic]) -> Litmus:
    """Where only barriers let a plain store publish: if CPU 1 was interrupted before its barrier, its note
    tells CPU 0 that the flush has been done, and CPU 0 asks for it all the same."""
    programs = (_moves_and_asks_if_not_told, _notes(barrier), _flushes_what_was_moved)
    return Litmus("note", "is nobody asked for what is done?", programs, one_page, ())  # type: ignore[arg-type]


def demotion(readers: int = 1, writers: int = 0, speculated: tuple[int, ...] = ()) -> Litmus:
    programs = (demotes, *[reads_twice] * readers, *[writes] * writers)
    return Litmus("demotion", "is the page moved safely?", programs, one_page, (), speculated=speculated)


def reuse(flush: bool, readers: int = 1) -> Litmus:
    programs = (_reuse(flush), *[reads_until_unmapped] * readers)
    return Litmus("reuse", "is the frame flushed before it is reused?", programs, unmapped, ())  # type: ignore[arg-type]


def machine(
    litmus: Litmus, architecture: str = "x86", policy: str | Callable[[], Policy] = "immediate"
) -> LitmusMachine:
    make = POLICIES[policy] if isinstance(policy, str) else policy
    return LitmusMachine(litmus, ARCHITECTURES[architecture], make)
