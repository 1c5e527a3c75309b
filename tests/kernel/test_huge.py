"""Huge pages of two small ones: one entry, one folio, one flush; test_huge_split.py splits them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from emulator.checks.coherence import FREE, LOST_WRITE, OVERWRITTEN, Coherence
from emulator.checks.grace_period import REUSED, GracePeriod
from emulator.hardware.cpu import Kind, Transition
from emulator.hardware.operations import (
    AllocPages,
    CmpxchgPte,
    FlushTlbOne,
    FolioCopy,
    FolioPut,
    FolioTestFlag,
    FolioZero,
    GetPte,
    Load,
    NrFree,
    ReadFrame,
    TryToMigratePte,
    VmaInsert,
    WriteFrame,
)
from emulator.hardware.pte import (
    ACCESSED,
    EXCLUSIVE,
    PRESENT,
    PSE,
    RW,
    frame_of,
    is_migration_entry,
    make_migration_entry,
    mk_pte,
    pte_huge,
    pte_pfn,
    pte_protnone,
)
from emulator.hardware.tlb import Tlb
from emulator.kernel.gup import get_user_pages, kernel_read, put_page
from emulator.kernel.mmap import do_munmap
from emulator.kernel.mmu_gather import exit_mmap
from emulator.kernel.mprotect import PROT_READ, READ_WRITE, change_prot_numa, do_mprotect_pkey
from emulator.kernel.percpu import PerCpu
from emulator.kernel.policy import Policy
from emulator.kernel.sched import cond_resched
from emulator.kernel.user import user_read, user_write
from emulator.memory.folios import Tier
from emulator.memory.memory import Memory
from emulator.memory.page_table import VM_READ, VM_WRITE, Vma
from emulator.memory.zone import Watermarks
from emulator.policies.catalogue import POLICIES
from emulator.policies.migrc import pending_word
from emulator.policies.migrc_rfc2 import MigrcRfc2
from emulator.policies.migrc_v3 import PG_MIGRC
from tests.kernel.small_machine import FILE, HEAP, SmallMachine, Thread, after, demote, mark, promote

ORDER = 1
TAIL = HEAP + 1
MM = 1
EVERYWHERE = pytest.mark.parametrize("policy", POLICIES)


def machine(*threads: Thread, **settings: Any) -> SmallMachine:
    def memory(tiers: Sequence[Tier]) -> Memory:
        return Memory(tiers, ORDER)

    return SmallMachine(*threads, memory=memory, hpage_order=ORDER, **settings)


def run(body: Callable[[PerCpu], Any], **settings: Any) -> SmallMachine:
    done = machine(Thread(0, body), **settings).run()
    assert not done.violations
    return done


# --- faults --------------------------------------------------------------------------------------


def test_a_fault_maps_the_whole_by_one_entry() -> None:
    async def body(cpu: PerCpu) -> None:
        free = await NrFree(0)
        await user_write(cpu, TAIL, 5)
        assert await NrFree(0) == free - 2
        entry = await GetPte(MM, HEAP)
        assert pte_huge(entry)
        assert await GetPte(MM, TAIL) == entry
        assert pte_pfn(entry) % 2 == 0
        assert await user_read(cpu, HEAP) == 0
        assert await user_read(cpu, TAIL) == 5
        assert await ReadFrame(MM, TAIL, pte_pfn(entry) + 1) == 5

    done = run(body)
    assert done.vmstat("thp_fault_alloc") == 1
    assert done.vmstat("pgfault") == 1  # the head needed none


def test_a_read_maps_it_read_only_and_the_write_makes_all_of_it_writable() -> None:
    async def body(cpu: PerCpu) -> None:
        await user_read(cpu, HEAP)
        assert not await GetPte(MM, HEAP) & RW
        await user_write(cpu, TAIL, 4)
        assert await GetPte(MM, HEAP) & RW
        assert await user_read(cpu, TAIL) == 4

    assert run(body).vmstat("thp_wp_faults") == 1


@pytest.mark.parametrize(
    ("area", "first"),
    [(Vma(HEAP + 1, HEAP + 4, VM_READ | VM_WRITE, 0), HEAP + 1), (Vma(HEAP, HEAP + 1, VM_READ, 0), HEAP)],
)
def test_what_the_area_does_not_contain_gets_small_pages(area: Vma, first: int) -> None:
    async def body(cpu: PerCpu) -> None:
        await user_read(cpu, first)
        assert not pte_huge(await GetPte(MM, first))

    done = run(body, areas=(area,))
    assert not done.vmstat("thp_fault_alloc")


def test_pages_of_files_are_small() -> None:
    async def body(cpu: PerCpu) -> None:
        await user_read(cpu, FILE)
        assert not pte_huge(await GetPte(MM, FILE))

    run(body)


def test_without_a_block_the_fault_falls_back() -> None:
    async def body(cpu: PerCpu) -> None:
        held = [await AllocPages(0, 0, 0, 0) for _ in range(8)]
        for pfn in held[::2]:
            await FolioPut(pfn)
        await user_write(cpu, HEAP, 1)
        await user_write(cpu, TAIL, 2)
        first, second = await GetPte(MM, HEAP), await GetPte(MM, TAIL)
        assert not pte_huge(first | second)
        assert pte_pfn(first) != pte_pfn(second)
        for pfn in held[1::2]:
            await FolioPut(pfn)

    done = run(body, fast=8, marks=Watermarks(0, 0, 0))
    # Once: the second fault finds a small page where the huge one would be.
    assert done.vmstat("thp_fault_fallback") == 1


def test_two_faults_at_once_map_it_once() -> None:
    async def body(cpu: PerCpu) -> None:
        await user_read(cpu, HEAP + cpu.number)

    for seed in range(60):
        done = machine(Thread(0, body), Thread(1, body)).run(seed)
        assert not done.violations


# --- what changes entries ------------------------------------------------------------------------


@EVERYWHERE
def test_it_moves_as_a_whole_with_one_flush_that_nothing_puts_off(policy: str) -> None:
    async def body(cpu: PerCpu) -> None:
        await user_write(cpu, HEAP, 3)
        await user_write(cpu, TAIL, 4)
        await mark("written")
        await after("cached")
        source = pte_pfn(await GetPte(MM, HEAP))
        assert await demote(cpu, HEAP, TAIL) == 1
        assert cpu.vmstat["nr_tlb_remote_flush"] == 1
        assert cpu.vmstat["pgmigrate_success"] == 2
        assert "migrc_deferred" not in cpu.vmstat
        entry = await GetPte(MM, HEAP)
        assert pte_huge(entry)
        assert cpu.parameters.nid(pte_pfn(entry)) == 1 != cpu.parameters.nid(source)
        assert await user_read(cpu, HEAP) == 3
        assert await user_read(cpu, TAIL) == 4
        await mark("moved")

    async def reader(cpu: PerCpu) -> None:
        await after("written")
        assert await user_read(cpu, TAIL) == 4
        await mark("cached")
        await after("moved")
        assert await user_read(cpu, TAIL) == 4

    done = machine(Thread(0, body), Thread(1, reader), policy=POLICIES[policy]).run()
    assert not done.violations


def test_without_a_block_at_the_destination_it_stays() -> None:
    async def body(cpu: PerCpu) -> None:
        await user_write(cpu, HEAP, 3)
        held = [await AllocPages(1, 0, 0, 0) for _ in range(4)]
        await FolioPut(held[0])
        before = await GetPte(MM, HEAP)
        assert await demote(cpu, HEAP) == 0
        assert pte_pfn(await GetPte(MM, HEAP)) == pte_pfn(before)
        for pfn in held[1:]:
            await FolioPut(pfn)

    assert run(body, slow=4).vmstat("pgmigrate_fail") == 2


def test_a_hint_is_one_entry_of_two_pages_and_promotes_both() -> None:
    async def body(cpu: PerCpu) -> None:
        await user_write(cpu, TAIL, 9)
        assert await demote(cpu, HEAP) == 1
        assert await change_prot_numa(cpu, MM, HEAP, HEAP + 4) == 2
        assert pte_protnone(await GetPte(MM, HEAP))
        assert await user_read(cpu, TAIL) == 9
        assert cpu.parameters.nid(pte_pfn(await GetPte(MM, TAIL))) == 0

    done = run(body)
    assert done.vmstat("pgpromote_success") == done.vmstat("numa_pte_updates") == 2
    assert done.vmstat("numa_hint_faults") == 1


def test_mprotect_munmap_and_exit_of_the_whole() -> None:
    async def body(cpu: PerCpu) -> None:
        free = await NrFree(0)
        await user_write(cpu, HEAP, 1)
        await user_write(cpu, HEAP + 2, 1)
        assert await do_mprotect_pkey(cpu, MM, HEAP, HEAP + 2, PROT_READ)
        assert not await GetPte(MM, TAIL) & RW
        assert await do_mprotect_pkey(cpu, MM, HEAP, HEAP + 2, READ_WRITE)
        await user_write(cpu, TAIL, 2)
        await do_munmap(cpu, MM, HEAP, HEAP + 2)
        assert await GetPte(MM, TAIL) == 0
        await exit_mmap(cpu, MM, ((HEAP + 2, HEAP + 4),))
        assert await NrFree(0) == free

    run(body)


def test_a_pin_of_one_page_holds_the_whole() -> None:
    async def body(cpu: PerCpu) -> None:
        await user_write(cpu, TAIL, 3)
        free = await NrFree(0)
        pfn = await get_user_pages(cpu, MM, TAIL, True)
        assert pfn == pte_pfn(await GetPte(MM, HEAP)) + 1
        assert await kernel_read(MM, TAIL, pfn) == 3
        assert await demote(cpu, HEAP) == 0
        await do_munmap(cpu, MM, HEAP, HEAP + 2)
        assert await NrFree(0) == free
        await put_page(pfn)
        assert await NrFree(0) == free + 2

    run(body)


def test_a_huge_entry_goes_only_where_nothing_is_and_an_area_is() -> None:
    memory = Memory((Tier(8, Watermarks(0, 0, 0)),), ORDER)
    memory.execute(0, VmaInsert(MM, HEAP, HEAP + 3, VM_READ, 0, 0))
    pfn = memory.execute(0, AllocPages(0, 1, 0, 0))
    small = memory.execute(0, AllocPages(0, 0, 0, 0))
    huge = mk_pte(pfn, PRESENT | ACCESSED | PSE)
    assert memory.execute(0, CmpxchgPte(MM, HEAP + 2, 0, huge)) == -1
    memory.execute(0, CmpxchgPte(MM, TAIL, 0, mk_pte(small, PRESENT)))
    assert memory.execute(0, CmpxchgPte(MM, HEAP, 0, huge)) == mk_pte(small, PRESENT)
    memory.execute(0, CmpxchgPte(MM, TAIL, mk_pte(small, PRESENT), 0))
    assert memory.execute(0, CmpxchgPte(MM, HEAP, 0, huge)) == 0
    # Any page of it is the one entry: nothing small goes in, and it is migrated as a whole.
    assert memory.execute(0, CmpxchgPte(MM, TAIL, 0, mk_pte(small, PRESENT))) == huge
    assert memory.execute(0, TryToMigratePte(MM, TAIL, pfn)) == huge
    assert is_migration_entry(memory.page_tables.entry(MM, HEAP))
    memory.execute(0, VmaInsert(MM + 1, HEAP, HEAP + 4, VM_READ, 0, 0))
    with pytest.raises(ValueError, match=r"^huge entry at page 0x101: must be a multiple of 2$"):
        memory.execute(0, CmpxchgPte(MM + 1, TAIL, 0, huge))


def test_one_invlpg_of_any_address_drops_it() -> None:
    for vpn in (HEAP, TAIL):
        tlb = Tlb(pmd_order=ORDER)
        entry = mk_pte(8, PRESENT | PSE)
        tlb.insert(1, TAIL, entry)
        assert list(tlb.entries()) == [(1, HEAP, entry)]
        assert tlb.lookup(1, HEAP) == tlb.lookup(1, TAIL) == entry
        assert frame_of(entry, TAIL, ORDER) == 9
        assert tlb.lookup(1, HEAP + 2) is None
        tlb.flush_one(1, vpn)
        assert not len(tlb)


# --- policies ------------------------------------------------------------------------------------


async def _demotes_two(cpu: PerCpu) -> None:
    for head in (HEAP, HEAP + 2):
        await user_read(cpu, head)
    await mark("read")
    await after("cached")
    await demote(cpu, HEAP, HEAP + 2)
    await mark("moved")


async def _caches_two(cpu: PerCpu) -> None:
    await after("read")
    for head in (HEAP, HEAP + 2):
        await user_read(cpu, head + 1)
    await mark("cached")
    await after("moved")


@pytest.mark.parametrize("policy", ["migrc:v3", "migrc:rfc2"])
def test_if_its_flush_were_batched_a_pending_one_would_count_as_one_page(policy: str) -> None:
    async def body(cpu: PerCpu) -> None:
        await _demotes_two(cpu)
        assert await Load(pending_word(0)) == 2  # four pages

    done = machine(
        Thread(0, body), Thread(1, _caches_two), policy=POLICIES[policy], thp_batched_flush=True
    ).run()
    assert not done.violations
    assert done.vmstat("migrc_deferred") == 2


def test_if_its_flush_were_batched_rfc2_would_overrun_its_cap_of_pages() -> None:
    def capped() -> Policy:
        return MigrcRfc2(cap=3)

    async def body(cpu: PerCpu) -> None:
        await _demotes_two(cpu)
        assert "migrc_flushes" not in cpu.vmstat

    done = machine(Thread(0, body), Thread(1, _caches_two), policy=capped, thp_batched_flush=True).run()
    assert not done.violations


def test_as_it_is_no_flag_is_left_on_it() -> None:
    async def body(cpu: PerCpu) -> None:
        await _demotes_two(cpu)
        assert not await FolioTestFlag(pte_pfn(await GetPte(MM, HEAP)), PG_MIGRC)
        assert await Load(pending_word(0)) == 0

    assert not machine(Thread(0, body), Thread(1, _caches_two), policy=POLICIES["migrc:v3"]).run().violations


@EVERYWHERE
def test_random_programs_break_nothing(policy: str) -> None:
    def body(seed: int) -> Callable[[PerCpu], Any]:
        async def steps(cpu: PerCpu) -> None:
            rng = random.Random(f"{seed}/{cpu.number}")
            for _ in range(12):
                vpn = HEAP + rng.randrange(4)
                action = rng.choice(("read", "write", "demote", "promote", "hint"))
                if action == "read":
                    await user_read(cpu, vpn)
                elif action == "write":
                    await user_write(cpu, vpn, cpu.new_version())
                elif action == "hint":
                    await change_prot_numa(cpu, MM, HEAP, HEAP + 4)
                else:
                    await (demote if action == "demote" else promote)(cpu, vpn)
                await cond_resched(cpu)

        return steps

    moved = 0
    for seed in range(40):
        threads = (Thread(0, body(seed)), Thread(1, body(seed)))
        done = machine(*threads, fast=12, slow=12, policy=POLICIES[policy]).run(seed)
        assert not done.violations
        moved += done.vmstat("pgmigrate_success")
    assert moved


# --- checks --------------------------------------------------------------------------------------


class Lab:
    """A memory with a read-only huge page at HEAP, whose tail's content is version 7, and a check."""

    def __init__(self) -> None:
        self.memory = Memory((Tier(4, Watermarks(0, 0, 0)), Tier(4, Watermarks(0, 0, 0))), ORDER)
        self.check = Coherence(self.memory)
        self.do(VmaInsert(MM, HEAP, HEAP + 2, VM_READ | VM_WRITE, 0, 0))
        self.source = self.do(AllocPages(0, 1, 0, 0))
        self.memory.folios.content[self.source + 1] = 7
        self.old = mk_pte(self.source, PRESENT | ACCESSED | EXCLUSIVE | PSE)
        self.do(CmpxchgPte(MM, HEAP, 0, self.old))

    def do(self, operation: Any) -> Any:
        answer = self.memory.execute(0, operation)
        self.check.observe(0, operation, answer)
        return answer

    def move(self) -> int:
        destination: int = self.do(AllocPages(1, 1, 0, 0))
        self.do(TryToMigratePte(MM, HEAP, self.source))
        self.do(FolioCopy(self.source, destination))
        flags = PRESENT | ACCESSED | EXCLUSIVE | PSE
        self.do(CmpxchgPte(MM, HEAP, make_migration_entry(self.old), mk_pte(destination, flags)))
        return destination

    @property
    def rules(self) -> list[str]:
        return [violation.rule for violation in self.check.violations]


def test_a_tail_frame_is_a_read_copy_until_the_page_is_written() -> None:
    lab = Lab()
    destination = lab.move()
    assert lab.do(ReadFrame(MM, TAIL, lab.source + 1)) == 7
    assert lab.rules == []
    lab.do(WriteFrame(MM, TAIL, destination + 1, 8))
    lab.do(ReadFrame(MM, HEAP, lab.source))  # the head has not changed
    assert lab.rules == []
    lab.do(ReadFrame(MM, TAIL, lab.source + 1))
    assert lab.rules == [OVERWRITTEN]


def test_a_write_to_the_old_tail_is_lost_and_a_read_of_it_freed_is_seen() -> None:
    lab = Lab()
    lab.move()
    lab.do(WriteFrame(MM, TAIL, lab.source + 1, 9))
    lab.do(FolioPut(lab.source))
    lab.do(ReadFrame(MM, TAIL, lab.source + 1))
    assert lab.rules == [LOST_WRITE, FREE]


@pytest.mark.parametrize("flushed", [None, HEAP, TAIL])
def test_the_grace_period_ends_with_a_flush_of_any_of_its_pages(flushed: int | None) -> None:
    """CPU 1, who alone holds it, unmaps; then the tail's frame alone is used again."""
    old = mk_pte(8, PRESENT | ACCESSED | PSE)
    check = GracePeriod(2, True, {MM: 0b10}, lambda pfn: 0, {(MM, HEAP): old}, ORDER)

    def step(operation: Any, answer: Any) -> None:
        check.happened(Transition(Kind.STEP, 1), operation, False, answer)

    step(CmpxchgPte(MM, HEAP, old, 0), old)
    if flushed is not None:
        step(FlushTlbOne(flushed), None)
    step(AllocPages(0, 0, 0, 0), 9)
    step(FolioZero(9), None)
    assert [violation.rule for violation in check.violations] == ([] if flushed else [REUSED])
