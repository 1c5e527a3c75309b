"""Pinned pages: which frame the kernel gets, and that it stays the page's."""

from __future__ import annotations

import random

import pytest

from emulator.hardware.operations import FolioRefcount
from emulator.hardware.pte import pte_pfn, pte_write
from emulator.kernel.gup import get_user_pages, kernel_read, kernel_write, unpin_user_page
from emulator.kernel.memory import SegmentationFault
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
        await unpin_user_page(pfn)
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
        await unpin_user_page(reading)
        await unpin_user_page(writing)
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
        await unpin_user_page(pfn)

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
        await unpin_user_page(pfn)
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
        await unpin_user_page(pfn)

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
        await unpin_user_page(pfn)

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
                    await unpin_user_page(pfn)
                elif action == 1:
                    pfn = await get_user_pages(cpu, 1, vpn, False)
                    await kernel_read(1, vpn, pfn)
                    await unpin_user_page(pfn)
                elif action == 2 and writes:
                    await user_write(cpu, vpn, cpu.new_version())
                elif action == 3:
                    await change_prot_numa(cpu, 1, area, area + 4)
                else:
                    await move(cpu, range(area, area + 4), rng.randrange(2))

        threads = [Thread(number, body) for number in range(3)]
        machine = SmallMachine(*threads, cpus=3, architecture=architecture, policy=POLICIES[policy])
        assert not machine.run(seed).violations, seed
