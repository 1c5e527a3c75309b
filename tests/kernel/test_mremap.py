"""mremap: pages arrive with their content, the old address is gone everywhere, one flush a page table."""

from __future__ import annotations

import random

import pytest

from emulator.hardware.operations import FindVma, FolioMapping, GetPte
from emulator.hardware.pte import pte_pfn, pte_protnone
from emulator.kernel.memory import SegmentationFault
from emulator.kernel.mmap import do_mmap, mmap_region
from emulator.kernel.mprotect import PROT_NONE, do_mprotect_pkey
from emulator.kernel.mremap import mremap_to
from emulator.kernel.percpu import PerCpu
from emulator.kernel.sched import cond_resched
from emulator.kernel.user import user_read, user_write
from emulator.memory.page_table import VM_READ, VM_WRITE, Vma
from emulator.policies.catalogue import POLICIES
from tests.kernel.small_machine import HEAP, PAGES, SHARED, SmallMachine, Thread, after, demote, mark

ALL_POLICIES = pytest.mark.parametrize("policy", POLICIES)
NEW = 0x1000  # in other page tables


async def bystander(cpu: PerCpu) -> None:
    await user_read(cpu, HEAP + 9)
    await mark("there")
    await after("done")


@ALL_POLICIES
def test_pages_move_with_one_flush_and_the_old_address_is_refused(policy: str) -> None:
    async def body(cpu: PerCpu) -> None:
        await after("there")
        for page in range(4):
            await user_write(cpu, HEAP + page, page + 7)
        await demote(cpu, HEAP + 1)
        await user_read(cpu, HEAP + 1)
        await do_mprotect_pkey(cpu, 1, HEAP + 2, HEAP + 3, PROT_NONE)
        flushes = cpu.counted("nr_tlb_remote_flush")
        frames = [pte_pfn(await GetPte(1, HEAP + page)) for page in range(2)]
        assert await mremap_to(cpu, 1, HEAP, NEW, 2)
        assert cpu.vmstat["nr_tlb_remote_flush"] == flushes + 1
        assert [pte_pfn(await GetPte(1, NEW + page)) for page in range(2)] == frames
        assert [await user_read(cpu, NEW + page) for page in range(2)] == [7, 8]
        with pytest.raises(SegmentationFault):
            await user_read(cpu, HEAP)
        # What nobody can have cached: no flush, and as inaccessible as it was.
        assert await mremap_to(cpu, 1, HEAP + 2, NEW + 2, 1)
        assert pte_protnone(await GetPte(1, NEW + 2))
        assert await user_read(cpu, HEAP + 3) == 10
        await mark("done")

    machine = SmallMachine(Thread(0, body), Thread(1, bystander), policy=POLICIES[policy])
    assert not machine.run().violations


def test_nothing_mapped_nothing_flushed_and_what_was_at_the_new_address_is_gone() -> None:
    async def body(cpu: PerCpu) -> None:
        await after("there")
        await user_write(cpu, HEAP + 4, 5)
        flushes = cpu.counted("nr_tlb_remote_flush")
        assert await mremap_to(cpu, 1, HEAP, HEAP + 12, 2)
        assert cpu.counted("nr_tlb_remote_flush") == flushes
        free = machine.memory.folios.zones[0].nr_free
        await user_write(cpu, HEAP + 12, 6)
        assert await mremap_to(cpu, 1, HEAP + 4, HEAP + 12, 1)
        assert await user_read(cpu, HEAP + 12) == 5
        assert machine.memory.folios.zones[0].nr_free == free
        await mark("done")

    machine = SmallMachine(Thread(0, body), Thread(1, bystander))
    assert not machine.run().violations


def test_what_is_refused() -> None:
    async def body(cpu: PerCpu) -> None:
        await user_write(cpu, HEAP, 5)
        assert not await mremap_to(cpu, 1, HEAP, HEAP + 1, 2)
        assert not await mremap_to(cpu, 1, HEAP + PAGES - 1, NEW, 2)
        assert not await mremap_to(cpu, 1, NEW, NEW + 8, 1)
        assert await user_read(cpu, HEAP) == 5

    assert not SmallMachine(Thread(0, body)).run().violations


def test_a_file_shows_the_same_pages_elsewhere() -> None:
    async def body(cpu: PerCpu) -> None:
        await user_write(cpu, SHARED + 3, 7)
        assert await mremap_to(cpu, 1, SHARED + 2, NEW, 4)
        assert await user_read(cpu, NEW + 1) == 7
        await user_read(cpu, NEW + 2)
        assert await FolioMapping(pte_pfn(await GetPte(1, NEW + 2))) == (2, 4)
        assert Vma(*await FindVma(1, NEW))[3:] == (2, 2)

    assert not SmallMachine(Thread(0, body)).run().violations


@pytest.mark.parametrize("start", [HEAP + 0x200 - 8, HEAP])
def test_a_flush_for_each_page_table_that_is_left_or_reached(start: int) -> None:
    area = Vma(start, start + 16, VM_READ | VM_WRITE, 0)

    async def body(cpu: PerCpu) -> None:
        await after("there")
        for vpn in range(start, start + 16):
            await user_write(cpu, vpn, vpn)
        flushes = cpu.counted("nr_tlb_remote_flush")
        assert await mremap_to(cpu, 1, start, NEW, 16)
        crosses = start // 512 != (start + 15) // 512
        # And one before the page tables that are empty by then are freed.
        assert cpu.vmstat["nr_tlb_remote_flush"] == flushes + 1 + crosses + 1
        assert [await user_read(cpu, NEW + page) for page in range(16)] == list(range(start, start + 16))
        await mark("done")

    async def other(cpu: PerCpu) -> None:
        await user_read(cpu, start)
        await mark("there")
        await after("done")

    machine = SmallMachine(Thread(0, body), Thread(1, other), areas=(area,), tlb_flush_batched=False)
    assert not machine.run().violations


@ALL_POLICIES
def test_map_fixed_replaces_what_was_there_with_one_flush(policy: str) -> None:
    async def body(cpu: PerCpu) -> None:
        await after("there")
        for page in range(4):
            await user_write(cpu, HEAP + page, page + 7)
        flushes = cpu.counted("nr_tlb_remote_flush")
        assert not await do_mmap(cpu, 1, HEAP, HEAP + 2, VM_READ | VM_WRITE)
        assert await mmap_region(cpu, 1, HEAP, HEAP + 2, VM_READ | VM_WRITE) == 2
        assert cpu.vmstat["nr_tlb_remote_flush"] == flushes + 1
        assert [await user_read(cpu, HEAP + page) for page in range(4)] == [0, 0, 9, 10]
        assert await mmap_region(cpu, 1, NEW, NEW + 2, VM_READ) == 0
        assert cpu.vmstat["nr_tlb_remote_flush"] == flushes + 1
        await mark("done")

    machine = SmallMachine(Thread(0, body), Thread(1, bystander), policy=POLICIES[policy])
    assert not machine.run().violations


@pytest.mark.parametrize("policy", ["immediate", "migrc:v3", "migrc:v9"])
@pytest.mark.parametrize("seed", range(9))
def test_a_page_that_wanders_is_read_and_moved_to_the_other_tier_meanwhile(seed: int, policy: str) -> None:
    async def wanderer(cpu: PerCpu) -> None:
        await user_write(cpu, HEAP, 7)
        at = HEAP
        for to in (NEW, HEAP + 1, NEW + 600, HEAP):
            assert await mremap_to(cpu, 1, at, to, 1)
            at = to
            await cond_resched(cpu)
            assert await user_read(cpu, at) == 7

    async def mover(cpu: PerCpu) -> None:
        rng = random.Random(f"{seed}/{cpu.number}")
        for _ in range(8):
            vpn = rng.choice((HEAP, HEAP + 1, NEW, NEW + 600))
            try:
                if rng.randrange(2):
                    await demote(cpu, vpn)
                elif await GetPte(1, vpn):
                    await user_read(cpu, vpn)
            except SegmentationFault:
                pass
            await cond_resched(cpu)

    threads = (Thread(0, wanderer), Thread(1, mover), Thread(2, mover))
    machine = SmallMachine(*threads, cpus=3, policy=POLICIES[policy]).run(seed)
    assert not machine.violations
