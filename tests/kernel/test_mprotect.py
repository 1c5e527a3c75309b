"""mprotect: which entries change, which changes are flushed, and what others see meanwhile."""

from __future__ import annotations

import random

import pytest

from emulator.checks.coherence import OVERWRITTEN
from emulator.hardware.operations import FolioMapping, GetPte, ReadFrame, SendIpi
from emulator.hardware.pte import (
    ACCESSED,
    DIRTY,
    EXCLUSIVE,
    PRESENT,
    PROTNONE,
    RW,
    make_migration_entry,
    mk_pte,
    pte_pfn,
    pte_protnone,
    pte_write,
)
from emulator.kernel.memory import SegmentationFault
from emulator.kernel.mmap import do_munmap
from emulator.kernel.mprotect import (
    PROT_NONE,
    PROT_READ,
    READ_WRITE,
    can_change_pte_writable,
    change_prot_numa,
    do_mprotect_pkey,
    pte_needs_flush,
)
from emulator.kernel.percpu import PerCpu
from emulator.kernel.sched import cond_resched
from emulator.kernel.user import user_read, user_write
from emulator.memory.page_table import VM_READ, VM_SHARED, VM_WRITE, Vma
from emulator.policies.catalogue import POLICIES
from tests.kernel.small_machine import (
    FILE,
    HEAP,
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
MAPPED = PRESENT | ACCESSED | DIRTY


@pytest.mark.parametrize(
    ("old", "new", "needs"),
    [
        (MAPPED | RW, MAPPED, True),
        (MAPPED, MAPPED | RW, True),
        (MAPPED, MAPPED & ~DIRTY, True),
        (MAPPED & ~DIRTY, MAPPED, False),
        (MAPPED, MAPPED & ~ACCESSED, False),
        (MAPPED, PROTNONE | DIRTY, True),
        (PROTNONE | DIRTY, MAPPED | RW, False),
        (MAPPED, MAPPED | EXCLUSIVE, False),
    ],
)
def test_which_changes_need_a_flush(old: int, new: int, needs: bool) -> None:
    assert pte_needs_flush(mk_pte(7, old), mk_pte(7, new)) is needs


def test_another_frame_needs_a_flush_and_an_entry_that_was_not_present_does_not() -> None:
    assert pte_needs_flush(mk_pte(7, MAPPED), mk_pte(8, MAPPED))
    assert not pte_needs_flush(make_migration_entry(mk_pte(7, MAPPED)), mk_pte(8, MAPPED))


def test_which_entries_may_become_writable() -> None:
    private, shared = VM_READ | VM_WRITE, VM_READ | VM_WRITE | VM_SHARED
    anonymous, file, tmpfs = Vma(1, 9, private, 0), Vma(1, 9, shared, 1), Vma(1, 9, shared, -1)
    assert can_change_pte_writable(anonymous, private, MAPPED | EXCLUSIVE)
    assert not can_change_pte_writable(anonymous, private, MAPPED)
    assert can_change_pte_writable(file, shared, MAPPED)
    assert not can_change_pte_writable(file, shared, MAPPED & ~DIRTY)
    assert can_change_pte_writable(tmpfs, shared, MAPPED & ~DIRTY)
    assert not can_change_pte_writable(anonymous, VM_READ, MAPPED | EXCLUSIVE)


@ALL_POLICIES
def test_protecting_and_back(policy: str) -> None:
    async def body(cpu: PerCpu) -> None:
        for page in range(3):
            await user_write(cpu, HEAP + page, page + 1)
        assert await do_mprotect_pkey(cpu, 1, HEAP, HEAP + 2, PROT_READ)
        assert [pte_write(machine.entry(HEAP + page)) for page in range(3)] == [False, False, True]
        assert await user_read(cpu, HEAP) == 1
        with pytest.raises(SegmentationFault):
            await user_write(cpu, HEAP + 1, 9)
        await user_write(cpu, HEAP + 2, 30)
        assert await do_mprotect_pkey(cpu, 1, HEAP, HEAP + 2, READ_WRITE)
        # Without a fault: the pages are this mapping's own.
        assert all(pte_write(machine.entry(HEAP + page)) for page in range(3))
        faults = cpu.vmstat["pgfault"]
        await user_write(cpu, HEAP, 10)
        assert cpu.vmstat["pgfault"] == faults
        assert [await user_read(cpu, HEAP + page) for page in range(3)] == [10, 2, 30]

    machine = SmallMachine(Thread(0, body), policy=POLICIES[policy])
    assert not machine.run().violations


def test_a_page_of_a_private_file_still_is_copied_before_the_first_write() -> None:
    async def body(cpu: PerCpu) -> None:
        await user_read(cpu, FILE)
        await do_mprotect_pkey(cpu, 1, FILE, FILE + 1, PROT_READ)
        await do_mprotect_pkey(cpu, 1, FILE, FILE + 1, READ_WRITE)
        assert not pte_write(machine.entry(FILE))
        await user_write(cpu, FILE, 5)
        assert cpu.vmstat["pgcow"] == 1

    machine = SmallMachine(Thread(0, body))
    assert not machine.run().violations


def test_a_shared_page_stays_shared_and_becomes_writable_only_if_dirty() -> None:
    async def body(cpu: PerCpu) -> None:
        await user_write(cpu, SHARED, 5)
        await user_read(cpu, SHARED + 1)
        await do_mprotect_pkey(cpu, 1, SHARED, SHARED + 2, PROT_READ)
        await do_mprotect_pkey(cpu, 1, SHARED, SHARED + 2, READ_WRITE)
        assert [pte_write(machine.entry(SHARED + page)) for page in range(2)] == [True, False]
        await user_write(cpu, SHARED + 1, 6)
        assert not cpu.vmstat.get("pgcow")

    machine = SmallMachine(Thread(0, body))
    assert not machine.run().violations


def test_a_range_over_a_hole_fails_after_what_lies_before_it() -> None:
    async def body(cpu: PerCpu) -> None:
        await user_write(cpu, HEAP, 1)
        assert not await do_mprotect_pkey(cpu, 1, HEAP, FILE, PROT_READ)
        assert not pte_write(machine.entry(HEAP))

    machine = SmallMachine(Thread(0, body))
    assert not machine.run().violations


def test_no_permission_at_all_and_back() -> None:
    """One flush to take the permission away, none to give it back: nobody can have cached such an entry."""

    async def body(cpu: PerCpu) -> None:
        await after("there")
        for page in range(4):
            await user_write(cpu, HEAP + page, page + 1)
        assert await do_mprotect_pkey(cpu, 1, HEAP, HEAP + 2, PROT_NONE)
        assert pte_protnone(await GetPte(1, HEAP)) and not pte_write(await GetPte(1, HEAP))
        assert cpu.vmstat["nr_tlb_remote_flush"] == 1
        for access in (user_read(cpu, HEAP), user_write(cpu, HEAP + 1, 9)):
            with pytest.raises(SegmentationFault, match="in an area without any permission"):
                await access
        assert not cpu.counted("numa_hint_faults")
        assert await user_read(cpu, HEAP + 2) == 3
        assert await do_mprotect_pkey(cpu, 1, HEAP, HEAP + 4, READ_WRITE)
        assert cpu.vmstat["nr_tlb_remote_flush"] == 1
        # Exclusive pages are writable at once.
        faults = cpu.vmstat["pgfault"]
        await user_write(cpu, HEAP, 9)
        assert (await user_read(cpu, HEAP), await user_read(cpu, HEAP + 1)) == (9, 2)
        assert cpu.vmstat["pgfault"] == faults
        await mark("done")

    async def other(cpu: PerCpu) -> None:
        await user_read(cpu, HEAP + 8)
        await mark("there")
        await after("done")

    machine = SmallMachine(Thread(0, body), Thread(1, other))
    assert not machine.run().violations


def test_a_page_without_permission_moves_and_keeps_none() -> None:
    """What is not accessible is in no TLB: nothing is flushed, and the destination is as inaccessible."""

    async def body(cpu: PerCpu) -> None:
        await after("there")
        await user_write(cpu, HEAP, 7)
        await do_mprotect_pkey(cpu, 1, HEAP, HEAP + 1, PROT_NONE)
        source = pte_pfn(await GetPte(1, HEAP))
        flushes = cpu.vmstat["nr_tlb_remote_flush"]
        assert await demote(cpu, HEAP) and cpu.vmstat["nr_tlb_remote_flush"] == flushes
        entry = await GetPte(1, HEAP)
        assert pte_protnone(entry) and pte_pfn(entry) != source
        with pytest.raises(SegmentationFault):
            await user_read(cpu, HEAP)
        await do_mprotect_pkey(cpu, 1, HEAP, HEAP + 1, READ_WRITE)
        assert await user_read(cpu, HEAP) == 7
        await mark("done")

    async def other(cpu: PerCpu) -> None:
        await user_read(cpu, HEAP + 8)
        await mark("there")
        await after("done")

    machine = SmallMachine(Thread(0, body), Thread(1, other))
    assert not machine.run().violations


def test_part_of_an_area_of_a_file_shows_the_same_pages() -> None:
    """A split area goes on where the first part ends (vm_pgoff)."""

    async def body(cpu: PerCpu) -> None:
        await user_write(cpu, SHARED + 5, 7)
        await do_mprotect_pkey(cpu, 1, SHARED + 4, SHARED + 8, PROT_READ)
        await do_munmap(cpu, 1, SHARED, SHARED + 1)
        assert await user_read(cpu, SHARED + 5) == 7
        await user_read(cpu, SHARED + 6)
        pfn = pte_pfn(await GetPte(1, SHARED + 6))
        assert await FolioMapping(pfn) == (2, 6)
        await user_read(cpu, SHARED + 1)
        assert await FolioMapping(pte_pfn(await GetPte(1, SHARED + 1))) == (2, 1)

    assert not SmallMachine(Thread(0, body)).run().violations


def test_no_flush_where_nothing_changes_and_one_for_the_whole_range() -> None:
    async def body(cpu: PerCpu) -> None:
        await after("there")
        for page in range(4):
            await user_write(cpu, HEAP + page, page + 1)
        for prot, flushes in ((READ_WRITE, 0), (PROT_READ, 1), (PROT_READ, 1), (READ_WRITE, 2)):
            await do_mprotect_pkey(cpu, 1, HEAP, HEAP + 4, prot)
            assert cpu.vmstat.get("nr_tlb_remote_flush", 0) == flushes
        await mark("done")

    async def other(cpu: PerCpu) -> None:
        await user_read(cpu, HEAP + 8)
        await mark("there")
        await after("done")

    assert not SmallMachine(Thread(0, body), Thread(1, other)).run().violations


def test_a_hint_is_lost_with_the_protection_that_it_was_made_of() -> None:
    async def body(cpu: PerCpu) -> None:
        await user_write(cpu, HEAP, 1)
        await demote(cpu, HEAP)
        await change_prot_numa(cpu, 1, HEAP, HEAP + 1)
        assert pte_protnone(machine.entry(HEAP))
        await do_mprotect_pkey(cpu, 1, HEAP, HEAP + 1, PROT_READ)
        assert machine.entry(HEAP) & (PRESENT | RW | PROTNONE) == PRESENT
        assert await user_read(cpu, HEAP) == 1
        assert not cpu.vmstat.get("numa_hint_faults")

    machine = SmallMachine(Thread(0, body))
    assert not machine.run().violations


def test_a_writable_entry_under_migration_is_waited_for() -> None:
    async def mover(cpu: PerCpu) -> None:
        await after("written")
        assert await demote(cpu, HEAP) == 1

    async def protector(cpu: PerCpu) -> None:
        await user_write(cpu, HEAP, 1)
        await mark("written")
        await after("moving")
        await do_mprotect_pkey(cpu, 1, HEAP, HEAP + 1, PROT_READ)
        assert not pte_write(machine.entry(HEAP))

    machine = SmallMachine(Thread(0, mover), Thread(1, protector))
    machine.drive(1, machine.marked("written"))
    machine.drive(0, machine.moving(HEAP))
    machine.memory.words.values["test.moving"] = 1
    machine.run()
    assert not machine.violations
    assert machine.vmstat("pgmigrate_success") == 1


@PROCESSORS
@pytest.mark.parametrize("policy", POLICIES)
def test_write_enabling_while_a_source_frame_still_is_cached(policy: str, architecture: str) -> None:
    """The entries are writable, the flush of the range is still to come.

    Without flush_tlb_batched_pending, which would have flushed first (test_batched_pending).

    CPU 0                      CPU 1                     CPU 2 has the source cached
    moves the page
    mprotect: entry writable
                               writes the destination
                                                         reads
    sends the flush
    """

    async def protector(cpu: PerCpu) -> None:
        # Only what was never written through is deferred.
        await user_read(cpu, HEAP)
        await do_mprotect_pkey(cpu, 1, HEAP, HEAP + 1, PROT_READ)
        await mark("protected")
        await after("cached")
        assert await demote(cpu, HEAP) == 1
        await mark("moved")
        await do_mprotect_pkey(cpu, 1, HEAP, HEAP + 1, READ_WRITE)

    async def writer(cpu: PerCpu) -> None:
        # Before anything is moved: under v9 an allocation flushes.
        await user_read(cpu, HEAP + 7)
        await mark("there")
        await after("moved")
        await user_write(cpu, HEAP, 77)
        await mark("written")

    async def reader(cpu: PerCpu) -> None:
        await after("protected")
        await user_read(cpu, HEAP)
        await mark("cached")
        await after("written")
        await user_read(cpu, HEAP)

    machine = SmallMachine(
        Thread(0, protector),
        Thread(1, writer),
        Thread(2, reader),
        cpus=3,
        architecture=architecture,
        policy=POLICIES[policy],
        tlb_flush_batched=False,
    )
    machine.drive(1, machine.marked("there"))
    machine.drive(0, machine.marked("protected"))
    machine.drive(2, machine.marked("cached"))
    machine.drive(0, machine.marked("moved"))
    machine.drive(0, machine.at(0, SendIpi))
    assert pte_write(machine.entry(HEAP))
    machine.drive(1, machine.marked("written"))
    machine.drive(2, machine.at(2, ReadFrame))
    machine.run()
    assert (OVERWRITTEN in machine.rules) is policy.startswith(("migrc", "luf"))


@PROCESSORS
def test_in_parallel_with_accesses_and_moves(architecture: str) -> None:
    for seed in range(60):

        async def body(cpu: PerCpu, seed: int = seed) -> None:
            rng = random.Random(f"{seed}/{cpu.number}")
            for _ in range(8):
                area = rng.choice((HEAP, FILE, SHARED))
                action = rng.randrange(5)
                try:
                    if action == 0:
                        prot = rng.choice((READ_WRITE, READ_WRITE, PROT_READ, PROT_NONE))
                        await do_mprotect_pkey(cpu, 1, area, area + 4, prot)
                    elif action == 1:
                        await user_read(cpu, area + rng.randrange(4))
                    elif action == 2:
                        await user_write(cpu, area + rng.randrange(4), cpu.new_version())
                    elif action == 3:
                        await change_prot_numa(cpu, 1, area, area + 4)
                    else:
                        await move(cpu, range(area, area + 4), rng.randrange(2))
                except SegmentationFault:
                    pass
                await cond_resched(cpu)

        threads = [Thread(number, body) for number in range(3)]
        assert not SmallMachine(*threads, cpus=3, architecture=architecture).run(seed).violations, seed
