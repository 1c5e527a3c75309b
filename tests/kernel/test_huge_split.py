"""A PMD that is split in place: small entries name one folio, and who may notice is flushed for."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from emulator.hardware.operations import GetPte, NrFree
from emulator.hardware.pte import ACCESSED, DIRTY, PSE, pte_huge, pte_pfn
from emulator.kernel.fork import dup_mmap
from emulator.kernel.khugepaged import collapse_huge_page
from emulator.kernel.madvise import Advice, do_madvise, madvise_cold, madvise_dontneed, madvise_free
from emulator.kernel.memory import SegmentationFault
from emulator.kernel.mmap import do_mmap, do_munmap
from emulator.kernel.mmu_gather import zap_page_range_single
from emulator.kernel.mprotect import PROT_READ, READ_WRITE, change_prot_numa, do_mprotect_pkey
from emulator.kernel.mremap import mremap_to
from emulator.kernel.percpu import PerCpu
from emulator.kernel.sched import cond_resched
from emulator.kernel.user import user_read, user_write
from emulator.memory.page_table import VM_READ, VM_WRITE, Vma
from emulator.policies.catalogue import POLICIES
from tests.kernel.small_machine import HEAP, Body, SmallMachine, Thread, demote, promote

TAIL = HEAP + 1
MM = 1


def machine(*threads: Thread, **settings: Any) -> SmallMachine:
    return SmallMachine(*threads, hpage_order=1, **settings)


def run(body: Callable[[PerCpu], Any]) -> SmallMachine:
    done = machine(Thread(0, body)).run()
    assert not done.violations
    return done


async def _unmaps_the_tail(cpu: PerCpu) -> None:
    await do_munmap(cpu, MM, TAIL, TAIL + 1)


async def _protects_the_head(cpu: PerCpu) -> None:
    await do_mprotect_pkey(cpu, MM, HEAP, TAIL, PROT_READ)


async def _scans_a_part(cpu: PerCpu) -> None:
    await change_prot_numa(cpu, MM, TAIL, HEAP + 4)


async def _drops_the_tail(cpu: PerCpu) -> None:
    area = Vma(HEAP, HEAP + 16, VM_READ | VM_WRITE, 0)
    assert await zap_page_range_single(cpu, MM, area, TAIL, HEAP + 2) == 1


async def _unmaps_up_to_its_end(cpu: PerCpu) -> None:
    await do_munmap(cpu, MM, HEAP, HEAP + 2)


async def _copies_on_write(cpu: PerCpu) -> None:
    await dup_mmap(cpu, MM, 3, ((HEAP, HEAP + 16),))
    await user_write(cpu, TAIL, 3)


@pytest.mark.parametrize(
    ("part", "splits"),
    [
        (_unmaps_the_tail, 1),
        (_protects_the_head, 1),
        (_scans_a_part, 1),
        (_copies_on_write, 1),
        (_drops_the_tail, 1),
        (_unmaps_up_to_its_end, 0),
    ],
)
def test_a_part_of_it_splits_the_pmd_in_place(part: Callable[[PerCpu], Any], splits: int) -> None:
    """One flush of the whole range that interrupts lazy CPUs too, then small entries for the same frames."""

    async def body(cpu: PerCpu) -> None:
        await user_write(cpu, HEAP, 1)
        await user_write(cpu, HEAP + 2, 2)
        head = pte_pfn(await GetPte(MM, HEAP))
        await part(cpu)
        assert cpu.counted("thp_split_pmd") == splits
        entry = await GetPte(MM, HEAP)
        if splits:
            assert pte_pfn(entry) == head and not pte_huge(entry)
            assert await user_read(cpu, HEAP) == 1
        assert await user_read(cpu, HEAP + 2) == 2

    done = run(body)
    assert pte_huge(done.entry(HEAP + 2)) or not done.entry(HEAP + 2)


@pytest.mark.parametrize(("by", "splits"), [(0x1000, 0), (0x1001, 1)])
def test_it_moves_whole_where_a_pmd_fits_and_page_by_page_elsewhere(by: int, splits: int) -> None:
    async def body(cpu: PerCpu) -> None:
        await user_write(cpu, TAIL, 4)
        assert await mremap_to(cpu, MM, HEAP, HEAP + by, 2)
        assert pte_huge(await GetPte(MM, HEAP + by)) == (not splits)
        assert await user_read(cpu, TAIL + by) == 4
        assert cpu.counted("thp_split_pmd") == splits
        await do_munmap(cpu, MM, HEAP + by, HEAP + by + 2)

    run(body)


def test_the_folio_stays_until_its_last_page_is_unmapped() -> None:
    async def body(cpu: PerCpu) -> None:
        free = await NrFree(0)
        await user_write(cpu, TAIL, 7)
        await do_munmap(cpu, MM, HEAP, HEAP + 1)
        assert await NrFree(0) == free - 2
        assert await user_read(cpu, TAIL) == 7
        await user_write(cpu, TAIL, 8)
        await do_munmap(cpu, MM, TAIL, TAIL + 1)
        assert await NrFree(0) == free

    run(body)


def test_what_a_split_one_still_maps_stays_where_it_is() -> None:
    """A folio that small entries map is not moved: they are more references than its PMDs account for."""

    async def body(cpu: PerCpu) -> None:
        await user_write(cpu, HEAP, 1)
        await do_mprotect_pkey(cpu, MM, HEAP, TAIL, PROT_READ)
        assert await demote(cpu, HEAP) == 0
        assert await user_read(cpu, HEAP) == 1 and await user_read(cpu, TAIL) == 0

    run(body)


@pytest.mark.parametrize("seed", range(20))
def test_splits_race_with_walkers_faults_and_migrations(seed: int) -> None:
    async def splits(cpu: PerCpu) -> None:
        for number in range(3):
            await user_write(cpu, HEAP + 2 * number, 1)
            await do_mprotect_pkey(cpu, MM, HEAP + 2 * number, HEAP + 2 * number + 1, PROT_READ)
            await do_munmap(cpu, MM, HEAP + 2 * number + 1, HEAP + 2 * number + 2)

    async def uses(cpu: PerCpu) -> None:
        for number in range(3):
            for _ in range(3):
                await user_read(cpu, HEAP + 2 * number)

    async def moves(cpu: PerCpu) -> None:
        for number in range(6):
            await demote(cpu, HEAP + number // 2 * 2)
            await promote(cpu, HEAP + number // 2 * 2)

    done = machine(Thread(0, splits), Thread(1, uses), Thread(2, moves), cpus=3).run(seed)
    assert not done.violations


@pytest.mark.parametrize("advice", [madvise_free, madvise_cold])
def test_advice_takes_whole_ones_as_they_are_and_splits_others(advice: Advice) -> None:
    async def body(cpu: PerCpu) -> None:
        await user_write(cpu, HEAP, 1)
        await user_write(cpu, HEAP + 2, 2)
        dropped = cpu.counted("nr_tlb_local_flush_one")
        assert await do_madvise(cpu, MM, HEAP, HEAP + 2, advice)
        # Two pages when it is made invalid, one PMD with the gather.
        assert cpu.counted("nr_tlb_local_flush_one") == dropped + 3
        entry = await GetPte(MM, HEAP)
        assert pte_huge(entry) and not entry & ACCESSED
        assert bool(entry & DIRTY) == (advice is madvise_cold)
        assert await do_madvise(cpu, MM, HEAP + 2, HEAP + 3, advice)
        assert cpu.counted("thp_split_page") == 1
        head, tail = await GetPte(MM, HEAP + 2), await GetPte(MM, HEAP + 3)
        assert not head & (ACCESSED | PSE) and tail & ACCESSED
        assert await user_read(cpu, HEAP) == 1 and await user_read(cpu, HEAP + 2) == 2

    run(body)


def _random(seed: int, name: str, actions: Sequence[str]) -> Body:
    async def body(cpu: PerCpu) -> None:
        rng = random.Random(f"{seed}/{name}")
        for _ in range(12):
            start = HEAP + rng.randrange(12)
            end = min(start + rng.randrange(1, 6), HEAP + 16)
            action = rng.choice(actions)
            try:
                if action == "read":
                    await user_read(cpu, start)
                elif action == "write":
                    await user_write(cpu, start, cpu.new_version())
                elif action == "map anew":
                    await do_munmap(cpu, MM, start, end)
                    await do_mmap(cpu, MM, start, end, VM_READ | VM_WRITE)
                elif action == "protect":
                    await do_mprotect_pkey(cpu, MM, start, end, rng.choice((PROT_READ, READ_WRITE)))
                elif action == "advise":
                    advice = rng.choice((madvise_dontneed, madvise_free, madvise_cold))
                    await do_madvise(cpu, MM, start, end, advice)
                elif action == "collapse":
                    await collapse_huge_page(cpu, MM, cpu.parameters.hpage_head(start))
                elif action == "scan":
                    await change_prot_numa(cpu, MM, start, end)
                else:
                    await (demote if action == "demote" else promote)(cpu, cpu.parameters.hpage_head(start))
            except SegmentationFault:
                pass
            await cond_resched(cpu)

    return body


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("seed", range(12))
def test_whatever_happens_to_parts_of_huge_pages(seed: int, policy: str) -> None:
    shares = ("read", "write", "demote", "promote", "scan", "collapse")
    bodies = [_random(seed, "a", shares)]
    bodies += [_random(seed, name, (*shares, "map anew", "protect", "advise")) for name in "bc"]
    threads = [Thread(cpu, body) for cpu, body in enumerate(bodies)]
    area = Vma(HEAP, HEAP + 16, VM_READ | VM_WRITE, 0)
    done = SmallMachine(*threads, cpus=3, policy=POLICIES[policy], hpage_order=2, areas=(area,)).run(seed)
    assert not done.violations
