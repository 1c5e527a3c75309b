"""What litmus tests have in common: a page that is cached, moving it, reusing a frame, reading twice.

Nothing here waits for another CPU. What is counted here is proof that a run got to the point of its test.
"""

from __future__ import annotations

from emulator.hardware.operations import (
    FolioIsolateLru,
    FolioPut,
    FolioPutbackLru,
    FolioZero,
    GetPte,
    LocalIrqDisable,
    LocalIrqEnable,
    ReadFrame,
    Translate,
)
from emulator.hardware.pte import pte_pfn
from emulator.kernel.migrate import migrate_pages
from emulator.kernel.page_alloc import alloc_pages
from emulator.kernel.percpu import PerCpu
from emulator.kernel.policy import MR_NUMA_MISPLACED
from emulator.kernel.tlb import flush_tlb_local
from emulator.kernel.user import user_read
from emulator.machine.litmus import FAST, MM, SLOW, Expectation, Setup

PAGE = 0x10
OTHER = 0x11
AREA_PAGES = 4
VERSION = 7

REUSED = "litmus_frame_reused"
STALE = "litmus_old_translation"
STAYED = "litmus_not_moved"
DEFERRED = "migrc_deferred"
SKIPPED = "migrc_skipped"
RECEIVED = "nr_tlb_remote_flush_received"
WRITE_FAULTS = "migrc_write_faults"


def never(policy: str, *reached: str) -> Expectation:
    """Nothing may break under this policy on any architecture; the counters show that it could have."""
    return Expectation(policy, "Never", "Never", "Never", reached)


def sometimes(policy: str, *rules: str) -> Expectation:
    """One of these rules (any if none is named) breaks in some interleaving on every architecture."""
    return Expectation(policy, "Sometimes", "Sometimes", "Sometimes", (), rules)


async def move(cpu: PerCpu, pfn: int, target: int = SLOW) -> bool:
    """Migrate one folio for NUMA balancing, which the postings defer for; whether it went."""
    if not await FolioIsolateLru(pfn):
        return False
    moved, failed = await migrate_pages(cpu, [pfn], target, MR_NUMA_MISPLACED)
    for stayed in failed:
        cpu.count(STAYED)
        await FolioPutbackLru(stayed, False)
    return bool(moved)


async def move_again(cpu: PerCpu, vpn: int, target: int) -> bool:
    """Migrate the folio that page `vpn` has by now."""
    return await move(cpu, pte_pfn(await GetPte(MM, vpn)), target)


async def reuse(cpu: PerCpu, node: int, order: int = 0) -> None:
    """Take 2**order frames of the node for something else, clear them, and give them back."""
    pfn = await alloc_pages(cpu, order, (node,))
    cpu.count(REUSED)
    await FolioZero(pfn)
    await FolioPut(pfn)


async def read(cpu: PerCpu, vpn: int = PAGE) -> int:
    """A user's read; counts that the CPU still has a translation which the page table does not have."""
    cached = await Translate(vpn, False)
    if cached:
        entry = await GetPte(MM, vpn)
        if pte_pfn(entry) != pte_pfn(cached):
            cpu.count(STALE)
    return await user_read(cpu, vpn)


async def read_if_cached(cpu: PerCpu, vpn: int = PAGE) -> None:
    """A user's read as long as the TLB has the page; a fault while others unmap it is another question."""
    mm = cpu.tlbstate.loaded_mm
    cached = await Translate(vpn, False)
    if not cached:
        return
    if pte_pfn(await GetPte(mm, vpn)) != pte_pfn(cached):
        cpu.count(STALE)
    cached = await Translate(vpn, False)
    if cached:
        await ReadFrame(mm, vpn, pte_pfn(cached))


def cached_page(setup: Setup) -> None:
    """A page in frame 1 that every CPU has cached."""
    setup.area(PAGE, AREA_PAGES)
    setup.page(PAGE, version=VERSION)
    for cpu in range(setup.cpus):
        setup.cache(cpu, PAGE)


def page_cached_on_1(setup: Setup) -> None:
    """A page in frame 1 that CPU 1 has cached."""
    setup.area(PAGE, AREA_PAGES)
    setup.page(PAGE, version=VERSION)
    setup.cache(1, PAGE)


def pages_cached_on_1(setup: Setup) -> None:
    """Two pages that CPU 1 has cached."""
    setup.area(PAGE, AREA_PAGES)
    for vpn in (PAGE, OTHER):
        setup.page(vpn, version=VERSION)
        setup.cache(1, vpn)


async def mover(cpu: PerCpu) -> None:
    """A program: demote frame 1."""
    await move(cpu, 1)


async def moves_and_reuses(cpu: PerCpu) -> None:
    """A program: demote frame 1, then need memory of its node."""
    if await move(cpu, 1):
        await reuse(cpu, FAST)


async def reader(cpu: PerCpu) -> None:
    """A program: read the page."""
    await read(cpu)


async def flush_for_own_reasons(cpu: PerCpu) -> None:
    """A whole local flush, as any large munmap of this CPU's own would need."""
    await LocalIrqDisable()
    await flush_tlb_local(cpu)
    await LocalIrqEnable()
