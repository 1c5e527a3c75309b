"""mmap and munmap: what a range holds afterwards, and that nobody reaches its old frames."""

from __future__ import annotations

import random

import pytest

from emulator.hardware.operations import GetPte, WaitFor
from emulator.hardware.pte import pte_protnone
from emulator.kernel.memory import SegmentationFault
from emulator.kernel.mmap import do_mmap, do_munmap
from emulator.kernel.mprotect import change_prot_numa
from emulator.kernel.percpu import PerCpu
from emulator.kernel.sched import cond_resched
from emulator.kernel.user import user_read, user_write
from emulator.memory.page_table import VM_READ, VM_SHARED, VM_WRITE
from emulator.policies.catalogue import POLICIES
from tests.kernel.small_machine import (
    FILE,
    HEAP,
    PAGES,
    SHARED,
    SmallMachine,
    Thread,
    after,
    demote,
    mark,
    move,
)

PROCESSORS = pytest.mark.parametrize("architecture", ["sc", "x86"])
ALL_POLICIES = pytest.mark.parametrize("policy", POLICIES)
NEW = 0x400


@ALL_POLICIES
def test_a_new_area_is_usable_until_it_is_unmapped(policy: str) -> None:
    async def body(cpu: PerCpu) -> None:
        with pytest.raises(SegmentationFault):
            await user_read(cpu, NEW)
        assert await do_mmap(cpu, 1, NEW, NEW + 4, VM_READ | VM_WRITE)
        assert not await do_mmap(cpu, 1, NEW + 3, NEW + 5, VM_READ)
        await user_write(cpu, NEW, 5)
        assert await user_read(cpu, NEW + 1) == 0
        free = machine.memory.folios.zones[0].nr_free
        assert await do_munmap(cpu, 1, NEW, NEW + 1) == 1
        assert machine.memory.folios.zones[0].nr_free == free + 1
        with pytest.raises(SegmentationFault):
            await user_read(cpu, NEW)
        assert await user_read(cpu, NEW + 1) == 0
        assert await do_mmap(cpu, 1, NEW, NEW + 1, VM_READ | VM_WRITE)
        assert await user_read(cpu, NEW) == 0
        assert await do_munmap(cpu, 1, NEW, NEW + 4) == 2

    machine = SmallMachine(Thread(0, body), policy=POLICIES[policy])
    assert not machine.run().violations


@ALL_POLICIES
def test_a_file_keeps_what_was_written_through_a_mapping_that_is_gone(policy: str) -> None:
    async def body(cpu: PerCpu) -> None:
        await user_write(cpu, SHARED, 5)
        await demote(cpu, SHARED)
        assert await do_munmap(cpu, 1, SHARED, SHARED + PAGES) == 1
        assert await do_mmap(cpu, 1, SHARED, SHARED + PAGES, VM_READ | VM_SHARED, 2)
        assert await user_read(cpu, SHARED) == 5

    assert not SmallMachine(Thread(0, body), policy=POLICIES[policy]).run().violations


@ALL_POLICIES
def test_inaccessible_pages_are_given_back_too(policy: str) -> None:
    async def body(cpu: PerCpu) -> None:
        await user_write(cpu, HEAP, 5)
        await demote(cpu, HEAP)
        await change_prot_numa(cpu, 1, HEAP, HEAP + 1)
        assert pte_protnone(machine.entry(HEAP))
        assert await do_munmap(cpu, 1, HEAP, HEAP + 1) == 1
        assert not machine.entry(HEAP)

    machine = SmallMachine(Thread(0, body), policy=POLICIES[policy])
    assert not machine.run().violations


@PROCESSORS
@pytest.mark.parametrize("policy", ["immediate", "migrc:v3", "migrc:rfc2"])
@pytest.mark.parametrize("write", [False, True])
def test_a_page_under_migration_is_unmapped_and_its_range_used_again(
    write: bool, policy: str, architecture: str
) -> None:
    """The migration entry goes, and with it what a TLB may still hold of the source."""

    async def mover(cpu: PerCpu) -> None:
        await after("cached")
        await demote(cpu, HEAP)

    async def unmapper(cpu: PerCpu) -> None:
        await user_read(cpu, HEAP + 8)
        await after("moving")
        assert await do_munmap(cpu, 1, HEAP, HEAP + 1) == 0
        assert await do_mmap(cpu, 1, HEAP, HEAP + 1, VM_READ | VM_WRITE)
        await user_write(cpu, HEAP, 77)
        await mark("written")

    async def reader(cpu: PerCpu) -> None:
        if write:
            await user_write(cpu, HEAP, 3)
        else:
            await user_read(cpu, HEAP)
        await mark("cached")
        await after("written")
        assert await user_read(cpu, HEAP) == 77

    machine = SmallMachine(
        Thread(0, mover), Thread(1, unmapper), Thread(2, reader), cpus=3, architecture=architecture,
        policy=POLICIES[policy],
    )  # fmt: skip
    machine.drive(1, machine.at(1, WaitFor))
    machine.drive(2, machine.marked("cached"))
    machine.drive(0, machine.moving(HEAP))
    machine.memory.words.values["test.moving"] = 1
    machine.drive(1, machine.marked("written"))
    machine.run()
    assert not machine.violations


@PROCESSORS
@ALL_POLICIES
def test_a_new_mapping_while_the_flush_of_a_migration_is_pending(policy: str, architecture: str) -> None:
    """CPU 1 holds the source of a page that has moved; its range is unmapped and mapped anew."""

    async def owner(cpu: PerCpu) -> None:
        await user_read(cpu, FILE)
        await after("cached")
        assert await demote(cpu, FILE) == 1
        assert await do_munmap(cpu, 1, FILE, FILE + PAGES) == 1
        assert await do_mmap(cpu, 1, FILE, FILE + PAGES, VM_READ | VM_WRITE)
        await user_write(cpu, FILE, 77)
        await mark("written")

    async def reader(cpu: PerCpu) -> None:
        await user_read(cpu, FILE)
        await mark("cached")
        await after("written")
        assert await user_read(cpu, FILE) == 77

    for seed in range(9):
        machine = SmallMachine(
            Thread(0, owner), Thread(1, reader), architecture=architecture, policy=POLICIES[policy]
        )
        assert not machine.run(seed).violations, seed


@PROCESSORS
@ALL_POLICIES
def test_in_parallel_with_accesses_and_moves(policy: str, architecture: str) -> None:
    """Each thread maps and unmaps a range of its own, and all use and move all ranges that stay.

    Where write faults have known holes nobody writes to what others read.
    """
    writes = policy in ("immediate", "migrc:v9")
    for seed in range(60 if policy == "immediate" else 10):

        async def body(cpu: PerCpu, seed: int = seed) -> None:
            rng = random.Random(f"{seed}/{cpu.number}")
            own = NEW + cpu.number * 16
            for _ in range(8):
                area = rng.choice((HEAP, FILE, SHARED))
                action = rng.randrange(5)
                if action == 0:
                    file = rng.choice((0, 1, 2))
                    shared = VM_SHARED if file == 2 else 0
                    assert await do_mmap(cpu, 1, own, own + 4, VM_READ | VM_WRITE | shared, file)
                    for page in range(4):
                        version = cpu.new_version()
                        await user_write(cpu, own + page, version)
                        if not shared:
                            assert await user_read(cpu, own + page) == version
                    assert await do_munmap(cpu, 1, own, own + 4) <= 4
                    assert [await GetPte(1, own + page) for page in range(4)] == [0] * 4
                elif action == 1:
                    await user_read(cpu, area + rng.randrange(4))
                elif action == 2 and writes:
                    await user_write(cpu, area + rng.randrange(4), cpu.new_version())
                elif action == 3:
                    other = NEW + rng.randrange(3) * 16
                    await change_prot_numa(cpu, 1, other, other + 4)
                else:
                    start = rng.choice((area, NEW, NEW + 16, NEW + 32))
                    await move(cpu, range(start, start + 4), rng.randrange(2))
                await cond_resched(cpu)

        threads = [Thread(number, body) for number in range(3)]
        machine = SmallMachine(*threads, cpus=3, architecture=architecture, policy=POLICIES[policy])
        assert not machine.run(seed).violations, seed
