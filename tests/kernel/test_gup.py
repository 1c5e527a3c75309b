"""Pinned pages: which frame the kernel gets, and that it stays the page's."""

from __future__ import annotations

import random

import pytest

from emulator.hardware.operations import FolioRefcount, GetPte, ReadFrame
from emulator.hardware.pte import EXCLUSIVE, PRESENT, PSE, RW, pte_pfn, pte_write
from emulator.kernel.fork import dup_mmap
from emulator.kernel.gup import (
    get_user_pages,
    kernel_read,
    kernel_write,
    pin_user_pages_fast,
    put_page,
    unpin_user_page,
    unpin_user_pages_dirty_lock,
)
from emulator.kernel.khugepaged import madvise_collapse
from emulator.kernel.madvise import do_madvise, madvise_pageout
from emulator.kernel.memory import SegmentationFault
from emulator.kernel.mmap import do_munmap
from emulator.kernel.mprotect import change_prot_numa
from emulator.kernel.percpu import PerCpu
from emulator.kernel.sched import cond_resched
from emulator.kernel.user import user_read, user_write
from emulator.policies.catalogue import POLICIES
from tests.kernel.small_machine import FILE, HEAP, SHARED, SmallMachine, Thread, after, demote, mark, move

PROCESSORS = pytest.mark.parametrize("architecture", ["sc", "x86"])
ALL_POLICIES = pytest.mark.parametrize("policy", POLICIES)


@ALL_POLICIES
def test_the_kernel_and_the_program_see_the_same_page(policy: str) -> None:
    async def body(cpu: PerCpu) -> None:
        await user_write(cpu, HEAP, 5)
        pfn = await get_user_pages(cpu, 1, HEAP, True)
        assert pfn == pte_pfn(machine.entry(HEAP))
        assert await FolioRefcount(pfn) == 2
        assert await kernel_read(1, HEAP, pfn) == 5
        await kernel_write(cpu, 1, HEAP, pfn, 6)
        assert await user_read(cpu, HEAP) == 6
        await put_page(pfn)
        assert await FolioRefcount(pfn) == 1

    machine = SmallMachine(Thread(0, body), policy=POLICIES[policy])
    assert not machine.run().violations


@ALL_POLICIES
def test_a_pin_for_writing_faults_where_a_write_would(policy: str) -> None:
    async def body(cpu: PerCpu) -> None:
        await user_read(cpu, FILE)
        cached = pte_pfn(machine.entry(FILE))
        reading = await get_user_pages(cpu, 1, FILE, False)
        writing = await get_user_pages(cpu, 1, FILE, True)
        assert reading == cached != writing
        assert pte_write(machine.entry(FILE))
        await kernel_write(cpu, 1, FILE, writing, 7)
        assert await user_read(cpu, FILE) == 7
        await put_page(reading)
        await put_page(writing)
        with pytest.raises(SegmentationFault):
            await get_user_pages(cpu, 1, HEAP - 1, False)

    machine = SmallMachine(Thread(0, body), policy=POLICIES[policy])
    assert not machine.run().violations


def test_a_hint_is_resolved_first() -> None:
    async def body(cpu: PerCpu) -> None:
        await user_write(cpu, HEAP, 5)
        await demote(cpu, HEAP)
        await change_prot_numa(cpu, 1, HEAP, HEAP + 1)
        pfn = await get_user_pages(cpu, 1, HEAP, False)
        assert cpu.parameters.nid(pfn) == 0
        assert cpu.vmstat["numa_hint_faults"] == 1
        assert await kernel_read(1, HEAP, pfn) == 5
        await put_page(pfn)

    assert not SmallMachine(Thread(0, body)).run().violations


@ALL_POLICIES
@pytest.mark.parametrize("vpn", [HEAP, SHARED])
def test_a_pinned_folio_does_not_migrate(vpn: int, policy: str) -> None:
    async def body(cpu: PerCpu) -> None:
        await user_write(cpu, vpn, 5)
        pfn = await get_user_pages(cpu, 1, vpn, True)
        await mark("pinned")
        assert await demote(cpu, vpn) == 0
        assert cpu.vmstat["pgmigrate_fail"] == 1
        assert pte_pfn(machine.entry(vpn)) == pfn
        assert pte_write(machine.entry(vpn))
        await kernel_write(cpu, 1, vpn, pfn, 6)
        assert await user_read(cpu, vpn) == 6
        await put_page(pfn)
        assert await demote(cpu, vpn) == 1
        assert await user_read(cpu, vpn) == 6
        await mark("done")

    async def other(cpu: PerCpu) -> None:
        await after("pinned")
        await user_read(cpu, vpn)
        await after("done")

    machine = SmallMachine(Thread(0, body), Thread(1, other), policy=POLICIES[policy])
    assert not machine.run().violations


@pytest.mark.parametrize("policy", ["immediate", "migrc:v3", "migrc:rfc2"])
@pytest.mark.parametrize("write", [False, True])
def test_a_pin_of_a_page_whose_flush_is_pending(write: bool, policy: str) -> None:
    """The pin is on the destination, whatever another CPU's TLB still says."""

    async def owner(cpu: PerCpu) -> None:
        await user_read(cpu, HEAP)
        await after("cached")
        assert await demote(cpu, HEAP) == 1
        pfn = await get_user_pages(cpu, 1, HEAP, write)
        assert cpu.parameters.nid(pfn) == 1
        if write:
            await kernel_write(cpu, 1, HEAP, pfn, 9)
        await mark("got")
        assert await kernel_read(1, HEAP, pfn) == (9 if write else 0)
        await after("read")
        await put_page(pfn)

    async def reader(cpu: PerCpu) -> None:
        await user_read(cpu, HEAP)
        await mark("cached")
        await after("got")
        assert await user_read(cpu, HEAP) == (9 if write else 0)
        await mark("read")

    machine = SmallMachine(Thread(0, owner), Thread(1, reader), policy=POLICIES[policy])
    assert not machine.run().violations


def test_a_page_under_migration_is_waited_for() -> None:
    async def mover(cpu: PerCpu) -> None:
        await after("written")
        assert await demote(cpu, HEAP) == 1

    async def pinner(cpu: PerCpu) -> None:
        await user_write(cpu, HEAP, 5)
        await mark("written")
        await after("moving")
        pfn = await get_user_pages(cpu, 1, HEAP, True)
        assert cpu.parameters.nid(pfn) == 1
        assert await kernel_read(1, HEAP, pfn) == 5
        await put_page(pfn)

    machine = SmallMachine(Thread(0, mover), Thread(1, pinner))
    machine.drive(1, machine.marked("written"))
    machine.drive(0, machine.moving(HEAP))
    machine.memory.words.values["test.moving"] = 1
    assert not machine.run().violations


@PROCESSORS
@ALL_POLICIES
def test_in_parallel_with_accesses_and_moves(policy: str, architecture: str) -> None:
    """Shared and anonymous pages only: those stay where they are for as long as they are pinned.

    Where write faults have known holes nobody writes.
    """
    writes = policy in ("immediate", "migrc:v9")
    for seed in range(60 if policy == "immediate" else 10):

        async def body(cpu: PerCpu, seed: int = seed) -> None:
            rng = random.Random(f"{seed}/{cpu.number}")
            for _ in range(8):
                area = rng.choice((HEAP, SHARED))
                vpn = area + rng.randrange(4)
                action = rng.randrange(5)
                if action == 0 and writes:
                    pfn = await get_user_pages(cpu, 1, vpn, True)
                    await kernel_write(cpu, 1, vpn, pfn, cpu.new_version())
                    await cond_resched(cpu)
                    await kernel_read(1, vpn, pfn)
                    await put_page(pfn)
                elif action == 1:
                    pfn = await get_user_pages(cpu, 1, vpn, False)
                    await kernel_read(1, vpn, pfn)
                    await put_page(pfn)
                elif action == 2 and writes:
                    await user_write(cpu, vpn, cpu.new_version())
                elif action == 3:
                    await change_prot_numa(cpu, 1, area, area + 4)
                else:
                    await move(cpu, range(area, area + 4), rng.randrange(2))

        threads = [Thread(number, body) for number in range(3)]
        machine = SmallMachine(*threads, cpus=3, architecture=architecture, policy=POLICIES[policy])
        assert not machine.run(seed).violations, seed


@pytest.mark.parametrize("swap", [False, True])
def test_what_is_pinned_stays_its_mappings_own(swap: bool) -> None:
    """Not a migration, reclaim, nor a fork after those parts it from who has pinned it."""

    async def body(cpu: PerCpu) -> None:
        await user_write(cpu, HEAP, 5)
        pfn = await pin_user_pages_fast(cpu, 1, HEAP, True)
        assert not await demote(cpu, HEAP)
        await do_madvise(cpu, 1, HEAP, HEAP + 1, madvise_pageout)
        assert await GetPte(1, HEAP) & (EXCLUSIVE | PRESENT) == EXCLUSIVE | PRESENT
        assert not cpu.counted("pswpout")
        await dup_mmap(cpu, 1, 2, ((HEAP, HEAP + 1),))
        await user_write(cpu, HEAP, 6)
        await kernel_write(cpu, 1, HEAP, pfn, 7)
        assert await user_read(cpu, HEAP) == 7 and pte_pfn(await GetPte(1, HEAP)) == pfn
        assert await ReadFrame(2, HEAP, pte_pfn(await GetPte(2, HEAP))) == 5
        await unpin_user_pages_dirty_lock(pfn)
        assert await demote(cpu, HEAP)
        await do_munmap(cpu, 2, HEAP, HEAP + 1)

    assert not SmallMachine(Thread(0, body), swap=swap).run().violations


def test_a_pinned_huge_page_is_copied_page_by_page_and_not_collapsed() -> None:
    async def body(cpu: PerCpu) -> None:
        for page in range(8):
            await user_write(cpu, HEAP + page, page + 1)
        pfn = await pin_user_pages_fast(cpu, 1, HEAP + 2, True)
        await dup_mmap(cpu, 1, 2, ((HEAP, HEAP + 8),))
        # The other huge page is shared as a whole.
        assert cpu.counted("fork_copied") == 4 and await GetPte(2, HEAP + 4) & PSE
        assert not await madvise_collapse(cpu, 1, HEAP, HEAP + 4)
        await user_write(cpu, HEAP + 2, 20)
        await kernel_write(cpu, 1, HEAP + 2, pfn, 21)
        assert [await user_read(cpu, HEAP + page) for page in range(4)] == [1, 2, 21, 4]
        frames = [pte_pfn(await GetPte(2, HEAP + page)) for page in range(4)]
        assert [await ReadFrame(2, HEAP + page, frames[page]) for page in range(4)] == [1, 2, 3, 4]
        await unpin_user_page(pfn)
        await do_munmap(cpu, 2, HEAP, HEAP + 8)

    assert not SmallMachine(Thread(0, body), hpage_order=2).run().violations


def test_a_pin_for_reading_makes_a_shared_page_its_mappings_own() -> None:
    async def body(cpu: PerCpu) -> None:
        await user_write(cpu, HEAP, 5)
        await dup_mmap(cpu, 1, 2, ((HEAP, HEAP + 1),))
        shared = pte_pfn(await GetPte(1, HEAP))
        pfn = await pin_user_pages_fast(cpu, 1, HEAP, False)
        assert pfn != shared and await GetPte(1, HEAP) & (EXCLUSIVE | RW) == EXCLUSIVE
        await user_write(cpu, HEAP, 6)
        assert await kernel_read(1, HEAP, pfn) == 6
        await unpin_user_page(pfn)
        # The child is the only one by now: it is not copied.
        assert await pin_user_pages_fast(cpu, 2, HEAP, False) == shared
        await unpin_user_page(shared)
        await do_munmap(cpu, 2, HEAP, HEAP + 1)

    assert not SmallMachine(Thread(0, body)).run().violations


def test_a_reference_that_is_no_pin_is_not_given_back_as_one() -> None:
    async def body(cpu: PerCpu) -> None:
        await user_write(cpu, HEAP, 5)
        pfn = await get_user_pages(cpu, 1, HEAP, False)
        await unpin_user_page(pfn)
        await put_page(pfn)

    assert SmallMachine(Thread(0, body)).run().rules == {"unpinned without a pin"}


def test_who_has_a_page_alone_again_has_it_as_its_own() -> None:
    """page_move_anon_rmap of a write fault: so it is not shared by a fork while it is pinned."""

    async def body(cpu: PerCpu) -> None:
        await user_write(cpu, HEAP, 5)
        await dup_mmap(cpu, 1, 2, ((HEAP, HEAP + 1),))
        await do_munmap(cpu, 2, HEAP, HEAP + 1)
        await user_write(cpu, HEAP, 6)
        assert await GetPte(1, HEAP) & EXCLUSIVE and not cpu.counted("pgcow")

    assert not SmallMachine(Thread(0, body)).run().violations
