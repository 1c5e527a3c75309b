"""Small machines on which something goes wrong in some schedules, to be searched for and shrunk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from emulator.hardware.operations import (
    AtomicAdd,
    FolioIsolateLru,
    FolioPut,
    Load,
    LocalIrqDisable,
    LocalIrqEnable,
    Store,
    WaitFor,
    XchgPte,
)
from emulator.hardware.ordering import ARCHITECTURES
from emulator.hardware.pte import pte_pfn
from emulator.kernel.memory import SegmentationFault
from emulator.kernel.migrate import migrate_pages
from emulator.kernel.page_alloc import alloc_pages
from emulator.kernel.percpu import PerCpu, Task, TlbUbc
from emulator.kernel.policy import MR_NUMA_MISPLACED, Policy
from emulator.kernel.smp import on_each_cpu_cond_mask
from emulator.kernel.tlb import flush_tlb_func, flush_tlb_mm_range
from emulator.kernel.user import user_read
from emulator.machine.litmus import MM, SLOW, Forbidden, Litmus, LitmusMachine, Setup
from emulator.policies.immediate import Immediate

PAGE = 0x10


class Forgetful(Immediate):
    """Notes the flush that a migration owes where nobody will look."""

    name = "forgetful"

    def batch_for(self, task: Task, pte: int) -> TlbUbc:
        return TlbUbc()


def empty(setup: Setup) -> None:
    pass


def cached_everywhere(setup: Setup) -> None:
    setup.area(PAGE, 4)
    setup.page(PAGE)
    for cpu in range(setup.cpus):
        setup.cache(cpu, PAGE)


class Unwatched(LitmusMachine):
    """Judged by what memory performs alone: these tests count on which rule breaks first."""

    def watchers(self) -> Any:
        return ()


def machine(
    *programs: Callable[[PerCpu], object],
    setup: Callable[[Setup], None] = empty,
    policy: Callable[[], Policy] = Immediate,
    architecture: str = "x86",
    speculated: tuple[int, ...] = (),
    drain: bool = True,
) -> LitmusMachine:
    litmus = Litmus("broken", "?", programs, setup, (), speculated=speculated, drain=drain)  # type: ignore[arg-type]
    return Unwatched(litmus, ARCHITECTURES[architecture], policy)


async def moves(cpu: PerCpu) -> None:
    await FolioIsolateLru(1)
    await migrate_pages(cpu, [1], SLOW, MR_NUMA_MISPLACED)


async def reads(cpu: PerCpu) -> None:
    try:
        await user_read(cpu, PAGE)
        await user_read(cpu, PAGE)
    except SegmentationFault:
        pass


async def frees_before_the_flush(cpu: PerCpu) -> None:
    old = await XchgPte(MM, PAGE, 0)
    await FolioPut(pte_pfn(old))
    await flush_tlb_mm_range(cpu, MM, PAGE, PAGE + 1, freed_tables=True)


async def sleeps(cpu: PerCpu) -> None:
    if not await Load("flag"):
        await AtomicAdd("asleep", 1)
        await WaitFor("wake", 1)


async def wakes(cpu: PerCpu) -> None:
    await AtomicAdd("flag", 1)
    if await Load("asleep"):
        await Store("wake", 1)


async def bystander(cpu: PerCpu) -> None:
    for _ in range(6):
        await AtomicAdd("elsewhere", 1)


async def publishes(cpu: PerCpu) -> None:
    for number in range(4):
        await Store(f"other{number}", number)
    await Store("data", 1)
    await Store("flag", 1)


async def trusts_the_flag(cpu: PerCpu) -> None:
    if await Load("flag") and not await Load("data"):
        raise Forbidden("flag before data", "flag is 1, data is 0")


async def flushes_with_interrupts_off(cpu: PerCpu) -> None:
    await LocalIrqDisable()
    await on_each_cpu_cond_mask(cpu, flush_tlb_func, (MM, PAGE, PAGE + 1, 2, 0), 0b10, False)
    await LocalIrqEnable()


async def sees_itself(cpu: PerCpu) -> None:
    await AtomicAdd("x", 1)
    if await Load("x") == 2:
        raise Forbidden("both are here", "x is 2")


async def allocates_for_ever(cpu: PerCpu) -> None:
    while True:
        await alloc_pages(cpu, 0)


async def reads_nothing(cpu: PerCpu) -> None:
    await user_read(cpu, 0x999)


async def fails(cpu: PerCpu) -> None:
    await Load("x")
    raise RuntimeError("a mistake in the test itself")


def forgetful() -> LitmusMachine:
    """A migration without a flush: any later read through the old translation shows it."""
    return machine(moves, reads, setup=cached_everywhere, policy=Forgetful)


def early_free(readers: int = 1, walked: bool = False) -> LitmusMachine:
    """A frame freed before the flush: the read has to hit between the two."""
    programs = (frees_before_the_flush, *[reads] * readers, bystander)
    return machine(*programs, setup=cached_everywhere, speculated=(PAGE, PAGE + 1) if walked else ())


def lost_wakeup() -> LitmusMachine:
    """A deadlock if the waker runs between the sleeper's look and its falling asleep."""
    return machine(sleeps, wakes, bystander)


def reorders() -> LitmusMachine:
    """Stores without a barrier between them: the last one may be performed first."""
    return machine(publishes, trusts_the_flag, architecture="riscv")
