"""fork: parent and child share pages until one of them writes, and neither sees what the other writes."""

from __future__ import annotations

import pytest

from emulator.hardware.operations import FolioRefcount, GetPte
from emulator.hardware.pte import (
    EXCLUSIVE,
    MIGRATION_WRITE,
    is_migration_entry,
    pte_pfn,
    pte_protnone,
    pte_write,
)
from emulator.kernel.fork import dup_mmap
from emulator.kernel.mmap import do_munmap
from emulator.kernel.mprotect import change_prot_numa
from emulator.kernel.percpu import PerCpu
from emulator.kernel.policy import Policy
from emulator.kernel.user import user_read, user_write
from emulator.policies.catalogue import POLICIES
from emulator.policies.immediate import Immediate
from tests.kernel.small_machine import (
    FILE,
    HEAP,
    PAGES,
    SHARED,
    Body,
    SmallMachine,
    Thread,
    after,
    demote,
    mark,
)

ALL_POLICIES = pytest.mark.parametrize("policy", POLICIES)
AREAS = ((HEAP, HEAP + PAGES), (FILE, FILE + PAGES), (SHARED, SHARED + PAGES))
CHILD = 2


async def fork(cpu: PerCpu) -> None:
    await dup_mmap(cpu, 1, CHILD, AREAS)
    await mark("forked")


def child(body: Body) -> Thread:
    async def runs_when_forked(cpu: PerCpu) -> None:
        await after("forked")
        await body(cpu)

    return Thread(1, runs_when_forked, CHILD)


@ALL_POLICIES
def test_both_map_the_same_folio_read_only_and_nobody_owns_it(policy: str) -> None:
    async def parent(cpu: PerCpu) -> None:
        await user_write(cpu, HEAP, 5)
        pfn = pte_pfn(await GetPte(1, HEAP))
        await fork(cpu)
        for mm in (1, CHILD):
            entry = await GetPte(mm, HEAP)
            assert pte_pfn(entry) == pfn
            assert not pte_write(entry)
            assert not entry & EXCLUSIVE
        assert await FolioRefcount(pfn) == 2
        await mark("looked")
        await after("written")
        assert await user_read(cpu, HEAP) == 5
        # The child has a copy, so this one is the parent's alone again.
        await user_write(cpu, HEAP, 6)
        assert pte_pfn(await GetPte(1, HEAP)) == pfn

    async def writes(cpu: PerCpu) -> None:
        await after("looked")
        assert await user_read(cpu, HEAP) == 5
        await user_write(cpu, HEAP, 9)
        await mark("written")
        assert await user_read(cpu, HEAP) == 9

    machine = SmallMachine(Thread(0, parent), child(writes), policy=POLICIES[policy])
    assert not machine.run().violations
    assert machine.vmstat("pgcow") == 1


@ALL_POLICIES
@pytest.mark.parametrize(("page", "copied"), [(HEAP, True), (FILE, True), (SHARED, False)])
def test_what_is_copied_and_what_is_left_to_faults(page: int, copied: bool, policy: str) -> None:
    async def parent(cpu: PerCpu) -> None:
        await user_write(cpu, page, 5)
        await fork(cpu)
        assert bool(await GetPte(CHILD, page)) is copied
        await mark("looked")

    async def reads(cpu: PerCpu) -> None:
        await after("looked")
        assert await user_read(cpu, page) == 5

    assert not SmallMachine(Thread(0, parent), child(reads), policy=POLICIES[policy]).run().violations


@ALL_POLICIES
def test_an_inaccessible_entry_is_copied_as_it_is(policy: str) -> None:
    async def parent(cpu: PerCpu) -> None:
        await user_write(cpu, HEAP, 5)
        await demote(cpu, HEAP)
        await change_prot_numa(cpu, 1, HEAP, HEAP + 1)
        await fork(cpu)
        assert pte_protnone(await GetPte(CHILD, HEAP))

    async def reads(cpu: PerCpu) -> None:
        assert await user_read(cpu, HEAP) == 5

    assert not SmallMachine(Thread(0, parent), child(reads), policy=POLICIES[policy]).run().violations


class WithoutFlush(Immediate):
    async def after_fork(self, cpu: PerCpu, mm: int) -> None:
        """Leaves the parent's entries where they are cached."""


@pytest.mark.parametrize(
    ("policy", "leaks"),
    [*((POLICIES[name], False) for name in POLICIES), (WithoutFlush, True)],
    ids=[*POLICIES, "without flush"],
)
def test_a_thread_that_has_the_page_writable_does_not_write_into_the_child(
    policy: type[Policy], leaks: bool
) -> None:
    async def parent(cpu: PerCpu) -> None:
        await after("cached")
        await fork(cpu)

    async def writes(cpu: PerCpu) -> None:
        await user_write(cpu, HEAP, 5)
        await mark("cached")
        await after("forked")
        await user_write(cpu, HEAP, 6)
        await mark("written")

    seen: list[int] = []

    async def reads(cpu: PerCpu) -> None:
        await after("written")
        seen.append(await user_read(cpu, HEAP))

    machine = SmallMachine(Thread(0, parent), Thread(2, writes), child(reads), cpus=3, policy=policy)
    machine.run()
    assert seen == ([6] if leaks else [5])
    assert leaks or not machine.violations


@ALL_POLICIES
@pytest.mark.parametrize("architecture", ["sc", "x86"])
def test_a_page_under_migration_arrives_on_both_sides(architecture: str, policy: str) -> None:
    async def parent(cpu: PerCpu) -> None:
        await after("moving")
        await fork(cpu)
        for mm in (1, CHILD):
            entry = await GetPte(mm, HEAP)
            assert is_migration_entry(entry) and not entry & (MIGRATION_WRITE | EXCLUSIVE)
        await mark("copied")

    async def mover(cpu: PerCpu) -> None:
        await user_write(cpu, HEAP, 5)
        await demote(cpu, HEAP)

    async def reads(cpu: PerCpu) -> None:
        assert await user_read(cpu, HEAP) == 5

    machine = SmallMachine(
        Thread(0, parent),
        Thread(2, mover),
        child(reads),
        cpus=3,
        policy=POLICIES[policy],
        architecture=architecture,
    )
    machine.drive(2, machine.moving(HEAP))
    machine.memory.words.values["test.moving"] = 1
    machine.drive(0, machine.marked("copied"))
    machine.drive(2, lambda: not is_migration_entry(machine.entry(HEAP, CHILD)))
    assert pte_pfn(machine.entry(HEAP)) == pte_pfn(machine.entry(HEAP, CHILD))
    assert machine.kernels[0].parameters.nid(pte_pfn(machine.entry(HEAP))) == 1
    assert not machine.run(seed=1).violations


@ALL_POLICIES
def test_a_page_under_migration_arrives_at_the_child_when_the_parent_has_unmapped_it(policy: str) -> None:
    async def parent(cpu: PerCpu) -> None:
        await after("moving")
        await fork(cpu)
        await do_munmap(cpu, 1, HEAP, HEAP + 1)
        await mark("unmapped")

    async def mover(cpu: PerCpu) -> None:
        await user_write(cpu, HEAP, 5)
        await demote(cpu, HEAP)

    async def reads(cpu: PerCpu) -> None:
        assert await user_read(cpu, HEAP) == 5

    machine = SmallMachine(Thread(0, parent), Thread(2, mover), child(reads), cpus=3, policy=POLICIES[policy])
    machine.drive(2, machine.moving(HEAP))
    machine.memory.words.values["test.moving"] = 1
    machine.drive(0, machine.marked("unmapped"))
    assert not machine.run(seed=1).violations


@ALL_POLICIES
@pytest.mark.parametrize("seed", range(20))
def test_forking_while_pages_are_written_and_moved(seed: int, policy: str) -> None:
    """Whatever the order, the child's pages do not change under it, and every reference is accounted for."""

    async def parent(cpu: PerCpu) -> None:
        for page in range(4):
            await user_write(cpu, HEAP + page, 5)
        await mark("written")
        await fork(cpu)
        await user_write(cpu, HEAP, 6)

    async def writes_and_moves(cpu: PerCpu) -> None:
        await after("written")
        await user_write(cpu, HEAP + 1, 7)
        await demote(cpu, HEAP, HEAP + 1, HEAP + 2)
        await user_write(cpu, HEAP + 2, 8)

    async def reads(cpu: PerCpu) -> None:
        first = [await user_read(cpu, HEAP + page) for page in range(4)]
        assert first == [await user_read(cpu, HEAP + page) for page in range(4)]
        assert first[0] == first[3] == 5
        await user_write(cpu, HEAP + 3, 9)

    machine = SmallMachine(
        Thread(0, parent), Thread(2, writes_and_moves), child(reads), cpus=3, policy=POLICIES[policy]
    )
    assert not machine.run(seed).violations
