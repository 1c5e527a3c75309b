"""Huge pages of two small ones under reclaim and the scanner: counted in pages, split for want of a block."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from emulator.hardware.operations import (
    AllocPages,
    FolioGet,
    FolioIsolateLru,
    FolioOrder,
    FolioPut,
    FolioPutbackLru,
    GetPte,
    IsolateLru,
    NrLru,
)
from emulator.hardware.pte import pte_huge, pte_pfn, pte_present, pte_protnone
from emulator.kernel.fair import task_numa_work
from emulator.kernel.migrate import migrate_pages
from emulator.kernel.mprotect import change_prot_numa
from emulator.kernel.percpu import PerCpu
from emulator.kernel.policy import MR_DEMOTION
from emulator.kernel.rmap import folio_referenced
from emulator.kernel.sched import cond_resched
from emulator.kernel.user import user_read, user_write
from emulator.kernel.vmscan import SLOW_NODE, shrink_active_list, shrink_inactive_list
from emulator.memory.folios import Tier
from emulator.memory.memory import Memory
from emulator.memory.page_table import VM_READ, VM_WRITE, Vma
from emulator.memory.zone import Watermarks
from emulator.policies.catalogue import POLICIES
from tests.kernel.small_machine import HEAP, SmallMachine, Thread, after, demote, mark, promote

ORDER = 1
TAIL = HEAP + 1
MM = 1


def machine(*threads: Thread, **settings: Any) -> SmallMachine:
    def memory(tiers: Sequence[Tier]) -> Memory:
        return Memory(tiers, ORDER)

    return SmallMachine(*threads, memory=memory, hpage_order=ORDER, **settings)


def run(body: Callable[[PerCpu], Any], **settings: Any) -> SmallMachine:
    done = machine(Thread(0, body), **settings).run()
    assert not done.violations
    return done


async def reclaim(cpu: PerCpu, vpn: int) -> tuple[list[int], list[int]]:
    """Demote the folio behind a page as reclaim does, which splits it if need be."""
    pfn = pte_pfn(await GetPte(MM, vpn))
    if cpu.parameters.nid(pfn) or not await FolioIsolateLru(pfn):
        return [], []
    moved, failed = await migrate_pages(cpu, [pfn], SLOW_NODE, MR_DEMOTION)
    for stayed in failed:
        await FolioPutbackLru(stayed, True)
    return moved, failed


async def take_blocks(node: int, pages: int) -> list[int]:
    """All frames of a node; every second one is free again, so that there is no block of two."""
    held = [await AllocPages(node, 0, 0, 0) for _ in range(pages)]
    for pfn in held[::2]:
        await FolioPut(pfn)
    return held[1::2]


# --- reclaim ---------------------------------------------------------------------------------------


def test_lists_and_reclaim_count_pages() -> None:
    async def body(cpu: PerCpu) -> None:
        for head in (HEAP, HEAP + 2):
            await user_write(cpu, head, 1)
        assert await NrLru(0, False) == (0, 4)
        taken = await IsolateLru(0, False, 1, False)
        assert len(taken) == 1
        assert await NrLru(0, False) == (0, 2)
        await FolioPutbackLru(taken[0], True)
        assert await NrLru(0, False) == (2, 2)
        await shrink_active_list(cpu, 0, 1, False)
        assert await NrLru(0, False) == (0, 4)
        assert cpu.vmstat["pgdeactivate"] == 2
        # Used since the last look: another round for that one; the other goes.
        assert await shrink_inactive_list(cpu, 0, 4, False) == (2, 4)
        assert await NrLru(0, False) == (0, 2)
        assert await NrLru(1, False) == (0, 2)

    done = run(body)
    assert done.vmstat("pgscan") == 4
    assert done.vmstat("pgmigrate_success") == 2
    assert done.vmstat("thp_migration_success") == 1


def test_clearing_the_accessed_bit_of_a_pmd_flushes() -> None:
    """pmdp_clear_flush_young, where ptep_clear_flush_young of x86 does not."""

    async def body(cpu: PerCpu) -> None:
        await user_write(cpu, HEAP, 1)
        await mark("written")
        await after("cached")
        pfn = pte_pfn(await GetPte(MM, HEAP))
        assert await folio_referenced(cpu, pfn) == 1
        assert cpu.vmstat["nr_tlb_remote_flush"] == 1
        assert await folio_referenced(cpu, pfn) == 0
        assert cpu.vmstat["nr_tlb_remote_flush"] == 1

    async def reader(cpu: PerCpu) -> None:
        await after("written")
        await user_read(cpu, TAIL)
        await mark("cached")

    assert not machine(Thread(0, body), Thread(1, reader)).run().violations


# --- splitting -------------------------------------------------------------------------------------


def test_without_a_block_to_demote_to_it_is_split_and_its_pages_go() -> None:
    async def body(cpu: PerCpu) -> None:
        await user_write(cpu, HEAP, 3)
        await user_write(cpu, TAIL, 4)
        held = await take_blocks(1, 8)
        source = pte_pfn(await GetPte(MM, HEAP))
        moved, failed = await reclaim(cpu, HEAP)
        assert moved == [source, source + 1] and not failed
        for vpn, version in ((HEAP, 3), (TAIL, 4)):
            entry = await GetPte(MM, vpn)
            assert not pte_huge(entry)
            assert cpu.parameters.nid(pte_pfn(entry)) == 1
            assert await FolioOrder(pte_pfn(entry)) == 0
            assert await user_read(cpu, vpn) == version
        # From here on they are pages of their own.
        assert await promote(cpu, TAIL) == 1
        assert cpu.parameters.nid(pte_pfn(await GetPte(MM, HEAP))) == 1
        for pfn in held:
            await FolioPut(pfn)

    done = run(body, slow=8)
    assert done.vmstat("thp_migration_fail") == done.vmstat("thp_migration_split") == 1
    assert done.vmstat("thp_split_page") == done.vmstat("thp_split_pmd") == 1
    assert not done.vmstat("thp_migration_success") and not done.vmstat("pgmigrate_fail")


def test_what_is_left_of_a_split_one_stays_where_it_is() -> None:
    async def body(cpu: PerCpu) -> None:
        await user_write(cpu, TAIL, 4)
        held = await take_blocks(1, 4)  # two are free, of which the watermark keeps one
        moved, failed = await reclaim(cpu, HEAP)
        assert len(moved) == len(failed) == 1
        assert await user_read(cpu, TAIL) == 4
        for pfn in held:
            await FolioPut(pfn)

    assert run(body, slow=4).vmstat("pgmigrate_fail") == 1


def test_with_another_reference_it_is_not_split() -> None:
    async def body(cpu: PerCpu) -> None:
        await user_write(cpu, TAIL, 4)
        held = await take_blocks(1, 8)
        pfn = pte_pfn(await GetPte(MM, HEAP))
        await FolioGet(pfn)
        assert await reclaim(cpu, HEAP) == ([], [pfn])
        assert pte_huge(await GetPte(MM, TAIL))
        for frame in (pfn, *held):
            await FolioPut(frame)

    done = run(body, slow=8)
    assert done.vmstat("thp_split_page_failed") == done.vmstat("thp_migration_fail") == 1
    assert done.vmstat("pgmigrate_fail") == 2
    assert not done.vmstat("thp_migration_split")


def test_for_numa_it_is_not_split() -> None:
    async def body(cpu: PerCpu) -> None:
        await user_write(cpu, HEAP, 3)
        assert await demote(cpu, HEAP) == 1
        held = await take_blocks(0, 8)
        assert await promote(cpu, HEAP) == 0
        assert pte_huge(await GetPte(MM, HEAP))
        for pfn in held:
            await FolioPut(pfn)

    done = run(body, fast=8, marks=Watermarks(0, 0, 0))
    assert done.vmstat("thp_migration_success") == done.vmstat("thp_migration_fail") == 1
    assert not done.vmstat("thp_split_page")


@pytest.mark.parametrize("policy", POLICIES)
def test_random_programs_that_split_break_nothing(policy: str) -> None:
    def body(seed: int) -> Callable[[PerCpu], Any]:
        async def steps(cpu: PerCpu) -> None:
            rng = random.Random(f"{seed}/{cpu.number}")
            for _ in range(14):
                vpn = HEAP + rng.randrange(6)
                action = rng.choice(("read", "write", "reclaim", "reclaim", "promote", "hint"))
                if action == "read":
                    await user_read(cpu, vpn)
                elif action == "write":
                    await user_write(cpu, vpn, cpu.new_version())
                elif action == "hint":
                    await change_prot_numa(cpu, MM, HEAP, HEAP + 6)
                elif pte_present(await GetPte(MM, vpn)):
                    await (reclaim if action == "reclaim" else promote)(cpu, vpn)
                await cond_resched(cpu)

        return steps

    split = failed = 0
    for seed in range(60):
        threads = (Thread(0, body(seed)), Thread(1, body(seed)))
        done = machine(*threads, fast=12, slow=5, policy=POLICIES[policy]).run(seed)
        assert not done.violations, seed
        split += done.vmstat("thp_migration_split")
        failed += done.vmstat("thp_migration_fail")
    assert 0 < split <= failed


# --- the NUMA scanner ------------------------------------------------------------------------------


def test_a_scan_drops_a_pmd_by_one_invlpg_and_counts_its_pages() -> None:
    async def body(cpu: PerCpu) -> None:
        for head in (HEAP, HEAP + 2):
            await user_write(cpu, head, 1)
        assert await demote(cpu, HEAP, HEAP + 2) == 2
        await user_read(cpu, HEAP)
        before = cpu.vmstat.get("nr_tlb_local_flush_one", 0)
        assert await change_prot_numa(cpu, MM, HEAP, HEAP + 4) == 4
        assert cpu.vmstat["nr_tlb_local_flush_one"] == before + 2

    done = run(body)
    assert done.vmstat("numa_pte_updates") == 4
    assert done.vmstat("numa_huge_pte_updates") == 2


@pytest.mark.parametrize("step", [1, 2, 3, 5, 7, 64])
def test_scans_come_to_the_end_of_huge_pages_and_through_the_whole_area(step: int) -> None:
    area = Vma(HEAP + 1, HEAP + 12, VM_READ | VM_WRITE, 0)

    async def body(cpu: PerCpu) -> None:
        for vpn in range(area.start, area.end):
            await user_write(cpu, vpn, 1)
        await demote(cpu, *range(area.start, area.end))
        marked: set[int] = set()
        for scan in range(1, 13):
            await task_numa_work(cpu, MM, ((area.start, area.end),), scan)
            marked |= {vpn for vpn in range(area.start, area.end) if pte_protnone(await GetPte(MM, vpn))}
        assert marked == set(range(area.start, area.end))

    done = run(body, areas=(area,), numa_scan_pages=step, numa_scan_period_accesses=1)
    assert done.vmstat("numa_pte_updates") == 11
    assert done.vmstat("numa_huge_pte_updates") == 5
