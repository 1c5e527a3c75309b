"""flush_tlb_batched_pending: whoever decides from entries flushes first for what was unmapped before."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from emulator.hardware.operations import AtomicCmpxchg, Load, Operation, ReadFrame, SendIpi
from emulator.hardware.pte import is_migration_entry, pte_pfn, pte_protnone, pte_write, ptl
from emulator.kernel.memory import SegmentationFault
from emulator.kernel.mmap import do_munmap
from emulator.kernel.mprotect import PROT_NONE, PROT_READ, READ_WRITE, change_prot_numa, do_mprotect_pkey
from emulator.kernel.percpu import PerCpu, tlb_flush_batched_word
from emulator.kernel.rmap import TLB_FLUSH_BATCH_FLUSHED_SHIFT, flush_tlb_batched_pending
from emulator.kernel.sched import cond_resched
from emulator.kernel.user import user_read, user_write
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
    random_body,
)

PROCESSORS = pytest.mark.parametrize("architecture", ["sc", "x86"])
ALL_POLICIES = pytest.mark.parametrize("policy", POLICIES)


async def batched(mm: int = 1) -> tuple[int, int]:
    """What the mm's word says: pending, flushed."""
    word = await Load(tlb_flush_batched_word(mm))
    return word % (1 << TLB_FLUSH_BATCH_FLUSHED_SHIFT), word >> TLB_FLUSH_BATCH_FLUSHED_SHIFT


async def bystander(cpu: PerCpu) -> None:
    for page in range(3):
        await user_read(cpu, HEAP + page)
    await mark("cached")
    await after("done")


def beside_another(body: Callable[[PerCpu], Awaitable[None]], on: bool = True) -> SmallMachine:
    """CPU 0 runs `body` when CPU 1 has three pages of the heap cached."""

    async def first(cpu: PerCpu) -> None:
        await after("cached")
        await body(cpu)
        await mark("done")

    return SmallMachine(Thread(0, first), Thread(1, bystander), tlb_flush_batched=on)


@pytest.mark.parametrize("on", [False, True])
def test_the_first_who_looks_after_an_unmap_flushes_the_whole_mm(on: bool) -> None:
    """Even if the batch has been flushed for: nobody tells the mm."""

    async def body(cpu: PerCpu) -> None:
        await demote(cpu, HEAP, HEAP + 1)
        assert await batched() == ((2, 0) if on else (0, 0))
        before = cpu.vmstat["nr_tlb_remote_flush"]
        for _ in range(2):
            await flush_tlb_batched_pending(cpu, 1)
            assert await batched() == ((2, 2) if on else (0, 0))
            assert cpu.vmstat["nr_tlb_remote_flush"] == before + int(on)
            assert not on or not list(machine.cpus[1].tlb.entries())

    machine = beside_another(body, on)
    assert not machine.run().violations


def test_all_who_change_entries_look_first() -> None:
    async def body(cpu: PerCpu) -> None:
        await demote(cpu, HEAP)
        for change in (
            lambda: do_mprotect_pkey(cpu, 1, HEAP + 1, HEAP + 2, PROT_READ),
            lambda: change_prot_numa(cpu, 1, HEAP, HEAP + 1),
            lambda: do_munmap(cpu, 1, HEAP, HEAP + 1),
        ):
            await demote(cpu, HEAP + 1)
            await demote(cpu, HEAP + 2)
            pending, flushed = await batched()
            assert pending > flushed
            await change()
            assert await batched() == (pending, pending)
            await move(cpu, (HEAP + 1, HEAP + 2), 0)
            await user_read(cpu, HEAP + 1)

    assert not beside_another(body).run().violations


@pytest.mark.parametrize(
    "change",
    [
        partial(do_mprotect_pkey, prot=PROT_READ),
        change_prot_numa,
        do_munmap,
    ],
)
def test_they_look_whatever_the_page_table_holds(change: Callable[..., Awaitable[object]]) -> None:
    """zap_pte_range, change_pte_range (v6.6): `flush_tlb_batched_pending(mm)` comes before the first entry is
    looked at. Reclaim may have emptied the range a moment ago, and its CPU not have flushed yet."""

    async def body(cpu: PerCpu) -> None:
        await demote(cpu, HEAP)
        before = cpu.vmstat["nr_tlb_remote_flush"]
        await change(cpu, 1, HEAP + 8, HEAP + 9)
        assert cpu.vmstat["nr_tlb_remote_flush"] == before + 1
        assert await batched() == (1, 1)

    assert not beside_another(body).run().violations


def test_each_page_table_is_asked_about_under_its_own_lock() -> None:
    """pte_offset_map_lock (v6.6, USE_SPLIT_PTE_PTLOCKS): 512 entries have one lock."""
    held: list[set[str]] = []

    async def body(cpu: PerCpu) -> None:
        await user_read(cpu, HEAP)
        await user_read(cpu, SHARED)
        await do_munmap(cpu, 1, HEAP, SHARED + 1)

    def watched(cpu: int, operation: Operation) -> object:
        if operation == Load(tlb_flush_batched_word(1)):
            held.append(set(machine.memory.words.holders))
        return execute(cpu, operation)

    machine = beside_another(body)
    execute = machine.memory.execute
    machine.memory.execute = watched  # type: ignore[method-assign]
    assert not machine.run().violations
    assert [locks & {ptl(1, HEAP), ptl(1, SHARED)} for locks in held[:2]] == [
        {ptl(1, HEAP)},
        {ptl(1, SHARED)},
    ]


def test_reclaim_counts_its_unmap_before_it_drops_the_lock() -> None:
    """try_to_unmap_one, try_to_migrate_one (v6.6): set_tlb_ubc_flush_pending between ptep_get_and_clear and
    the
    end of page_vma_mapped_walk's lock. Who waits for the lock and finds the entry gone finds it counted."""

    async def body(cpu: PerCpu) -> None:
        await demote(cpu, HEAP)

    machine = beside_another(body)
    machine.drive(1, machine.marked("cached"))
    machine.drive(0, lambda: is_migration_entry(machine.entry(HEAP)))
    assert machine.memory.words.holders == {ptl(1, HEAP): 0}
    machine.drive(0, lambda: not machine.memory.words.holders)
    assert machine.memory.words.values[tlb_flush_batched_word(1)] == 1
    assert not machine.run().violations


def test_what_is_unmapped_during_the_flush_is_not_lost() -> None:
    async def looker(cpu: PerCpu) -> None:
        await after("demoted")
        await flush_tlb_batched_pending(cpu, 1)
        assert await batched() == (2, 0)
        await flush_tlb_batched_pending(cpu, 1)
        assert await batched() == (2, 2)

    async def mover(cpu: PerCpu) -> None:
        await user_read(cpu, HEAP)
        await user_read(cpu, HEAP + 1)
        await after("looking")
        await demote(cpu, HEAP)
        await mark("demoted")
        await demote(cpu, HEAP + 1)
        await mark("both")

    async def user(cpu: PerCpu) -> None:
        await user_read(cpu, HEAP)
        await mark("looking")
        await after("both")

    machine = SmallMachine(
        Thread(0, looker), Thread(1, mover), Thread(2, user), cpus=3, tlb_flush_batched=True
    )
    machine.drive(2, machine.marked("looking"))
    machine.drive(1, machine.marked("demoted"))
    machine.drive(0, machine.at(0, AtomicCmpxchg))
    machine.drive(1, machine.marked("both"))
    assert not machine.run().violations


@PROCESSORS
@ALL_POLICIES
def test_mprotect_flushes_for_a_deferred_migration_before_the_entry_is_writable(
    policy: str, architecture: str
) -> None:
    """The question asked about v3: may one CPU write the destination while another reads the source?

    CPU 0                      CPU 1                     CPU 2 has the source cached
    moves the page, deferred
    mprotect: an unmap is
    pending, flush the mm
                                                         drop the entry
    entry writable
                               writes the destination
                                                         reads it
    """

    async def protector(cpu: PerCpu) -> None:
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
        # A write before the entry is writable is not allowed, and no part of the question.
        while not pte_write(machine.entry(HEAP)):
            await user_read(cpu, HEAP + 7)
        await user_write(cpu, HEAP, 77)
        await mark("written")

    async def reader(cpu: PerCpu) -> None:
        await after("protected")
        await user_read(cpu, HEAP)
        await mark("cached")
        await after("written")
        assert await user_read(cpu, HEAP) == 77

    def booted() -> SmallMachine:
        return SmallMachine(
            Thread(0, protector), Thread(1, writer), Thread(2, reader), cpus=3,
            architecture=architecture, policy=POLICIES[policy], tlb_flush_batched=True,
        )  # fmt: skip

    machine = booted()
    machine.drive(1, machine.marked("there"))
    machine.drive(0, machine.marked("protected"))
    machine.drive(2, machine.marked("cached"))
    machine.drive(0, machine.marked("moved"))
    assert machine.kernels[0].parameters.nid(pte_pfn(machine.entry(HEAP))) == 1
    machine.drive(0, machine.at(0, SendIpi))
    assert not pte_write(machine.entry(HEAP))
    machine.drive(0, lambda: pte_write(machine.entry(HEAP)))
    machine.drive(1, machine.marked("written"))
    machine.drive(2, machine.at(2, ReadFrame))
    assert not machine.run().violations
    for seed in range(6):
        machine = booted()
        assert not machine.run(seed).violations, seed


@pytest.mark.parametrize("policy", ["immediate", "migrc:v3", "migrc:rfc2"])
def test_the_scanner_flushes_before_it_marks(policy: str) -> None:
    async def body(cpu: PerCpu) -> None:
        await user_read(cpu, HEAP)
        await after("cached")
        await demote(cpu, HEAP)
        await mark("moved")
        await change_prot_numa(cpu, 1, HEAP, HEAP + 1)
        await mark("done")

    machine = SmallMachine(
        Thread(0, body), Thread(1, bystander), policy=POLICIES[policy], tlb_flush_batched=True
    )
    machine.drive(1, machine.marked("cached"))
    machine.drive(0, machine.marked("moved"))
    machine.drive(0, machine.at(0, SendIpi))
    assert not pte_protnone(machine.entry(HEAP))
    assert not machine.run().violations


@PROCESSORS
@ALL_POLICIES
def test_in_parallel_with_accesses_and_moves(policy: str, architecture: str) -> None:
    """Where write faults have known holes nobody writes; protections change all the same."""
    writes = ("write",) if policy in ("immediate", "migrc:v9") else ()
    actions = ("read", "hint", "demote", "promote", *writes)
    for seed in range(8):

        async def body(cpu: PerCpu, seed: int = seed) -> None:
            rng = random.Random(f"{seed}/{cpu.number}")
            for _ in range(8):
                area = rng.choice((HEAP, FILE, SHARED))
                try:
                    if rng.random() < 0.3:
                        prot = rng.choice((READ_WRITE, READ_WRITE, PROT_READ, PROT_NONE))
                        await do_mprotect_pkey(cpu, 1, area, area + 4, prot)
                    else:
                        await random_body(rng.randrange(1 << 30), 1, actions)(cpu)
                except SegmentationFault:
                    pass
                await cond_resched(cpu)

        threads = [Thread(number, body) for number in range(3)]
        machine = SmallMachine(
            *threads, cpus=3, architecture=architecture, policy=POLICIES[policy], tlb_flush_batched=True
        ).run(seed)
        assert not machine.violations, seed
