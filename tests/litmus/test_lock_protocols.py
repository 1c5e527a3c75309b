"""Protocols around the page-table lock: what is right stays silent, what is wrong is found."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from emulator.checks.grace_period import RETURNED
from emulator.explore.learned import LearnedMachine
from emulator.explore.search import Limits, search
from emulator.explore.strategies import find_strategy
from emulator.hardware.operations import (
    AtomicAdd,
    CmpxchgPte,
    FolioIsolateLru,
    FolioPut,
    FolioPutbackLru,
    FolioTryGet,
    GetPte,
    Load,
    Lock,
    ReadFrame,
    Series,
    SetPte,
    SmpMb,
    SmpRmb,
    Store,
    Translate,
    Unlock,
    XchgPte,
)
from emulator.hardware.ordering import ARCHITECTURES
from emulator.hardware.pte import EXCLUSIVE, PRESENT, RW, pte_pfn, pte_present, ptl
from emulator.kernel.memory import wp_page_copy
from emulator.kernel.mmap import do_munmap
from emulator.kernel.mmu.x86 import inc_mm_tlb_gen
from emulator.kernel.percpu import PerCpu, cpumask_word, tlb_flush_batched_word
from emulator.kernel.rmap import try_to_unmap_flush
from emulator.kernel.tlb import flush_tlb_mm_range
from emulator.kernel.user import user_read, user_write
from emulator.machine.litmus import MM, Forbidden, Litmus, LitmusMachine, Setup
from emulator.policies.immediate import Immediate
from scenarios.litmus.starts import FLAG, PAGE, VERSION, file_page, pages
from scenarios.litmus.steps import call
from scenarios.litmus.syscalls import reclaim

Body = Callable[[PerCpu], Awaitable[None]]


async def _breaks_before_it_makes(cpu: PerCpu) -> None:
    """Clear, flush, look at the page, which nobody can write, put it back; all under the lock."""
    lock = ptl(MM, PAGE)
    await Lock(lock)
    if await GetPte(MM, PAGE) & PRESENT:
        old = await XchgPte(MM, PAGE, 0)
        await flush_tlb_mm_range(cpu, MM, PAGE, PAGE + 1)
        reads = await Series((ReadFrame(MM, PAGE, pte_pfn(old)), ReadFrame(MM, PAGE, pte_pfn(old))))
        if reads[0] != reads[1]:
            raise Forbidden("changed", f"version {reads[0]}, then {reads[1]}")
        await SetPte(MM, PAGE, old)
    await Unlock(lock)


async def _write_protects(cpu: PerCpu) -> None:
    """Write-protect and flush under the lock, the page somebody else's as well from then on."""
    lock = ptl(MM, PAGE)
    await FolioTryGet(1)
    await Lock(lock)
    old = await GetPte(MM, PAGE)
    while pte_pfn(old) == 1 and (seen := await CmpxchgPte(MM, PAGE, old, old & ~(RW | EXCLUSIVE))) != old:
        old = seen
    await flush_tlb_mm_range(cpu, MM, PAGE, PAGE + 1)
    await Unlock(lock)
    await FolioPut(1)


async def _faults_without_the_lock(cpu: PerCpu) -> None:
    """do_wp_page as it was here: it looks at the entry, decides and copies before it takes the lock."""
    pte = await GetPte(MM, PAGE)
    if pte & PRESENT and not pte & RW and await FolioTryGet(pte_pfn(pte)):
        if await GetPte(MM, PAGE) == pte:
            await wp_page_copy(cpu, MM, PAGE, pte)
        else:
            await FolioPut(pte_pfn(pte))


async def _keeps_what_it_writes(cpu: PerCpu) -> None:
    await user_write(cpu, PAGE, 13)
    version = await user_read(cpu, PAGE)
    if version == VERSION:
        raise Forbidden("lost write", f"read version {version} after writing 13")


async def _counts_after_the_lock(cpu: PerCpu) -> None:
    """try_to_unmap_one, but for set_tlb_ubc_flush_pending, which comes when others have the lock already."""
    if not await FolioIsolateLru(1):
        return
    lock = ptl(MM, PAGE)
    _, entry = await Series((Lock(lock), GetPte(MM, PAGE)))
    if pte_present(entry):
        await XchgPte(MM, PAGE, 0)
    await Unlock(lock)
    if pte_present(entry):
        await inc_mm_tlb_gen(MM)
        cpu.current.tlb_ubc.cpumask |= await Load(cpumask_word(MM))
        cpu.current.tlb_ubc.nr_flush_required += 1
        await AtomicAdd(tlb_flush_batched_word(MM), 1)
        await FolioPut(1)
    await try_to_unmap_flush(cpu)
    await FolioPutbackLru(1, False)


async def _unmaps_and_tells(cpu: PerCpu) -> None:
    await do_munmap(cpu, MM, PAGE, PAGE + 1)
    await SmpMb()
    await Store("unmapped", 1)


async def _has_it_cached(cpu: PerCpu) -> None:
    unmapped = await Load("unmapped")
    await SmpRmb()
    if await Translate(PAGE, False) and unmapped:
        raise Forbidden("cached after munmap", "the call has returned")


def _file_page_beside_another(setup: Setup) -> None:
    file_page(stored=True, cached=(2,))(setup)
    setup.area(FLAG, 1)


ON_CPU_2 = pages(PAGE, cached=(2,), written=True)
WRITER = call(user_write, PAGE, 12)


@pytest.mark.parametrize(
    ("programs", "setup", "rule"),
    [
        ((_breaks_before_it_makes, WRITER, call(user_write, PAGE, 13)), pages(PAGE, written=True), None),
        ((_write_protects, WRITER, _keeps_what_it_writes), ON_CPU_2, None),
        ((_write_protects, _faults_without_the_lock, _keeps_what_it_writes), ON_CPU_2, "lost write"),
        ((call(reclaim, 1), _unmaps_and_tells, _has_it_cached), _file_page_beside_another, None),
        (
            (_counts_after_the_lock, _unmaps_and_tells, _has_it_cached),
            _file_page_beside_another,
            RETURNED,
        ),
    ],
)
def test_a_protocol_is_silent_or_found(
    programs: tuple[Body, ...], setup: Callable[[Setup], None], rule: str | None
) -> None:
    litmus = Litmus("protocol", "?", programs, setup, (), drain=False, frugal=False)
    machine = LitmusMachine(litmus, ARCHITECTURES["x86"], Immediate)
    found = search(LearnedMachine(machine), find_strategy("portfolio")(), 1, Limits(2000), lambda: False)
    assert (found.violation.rule if found.violation else None) == rule
