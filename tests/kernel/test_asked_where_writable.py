"""Wherever an entry becomes writable the policy is asked, and what a fault maps is what it should be."""

from __future__ import annotations

from collections.abc import Sequence

from emulator.hardware.operations import FolioGet, FolioPut, GetPte, SetPte
from emulator.hardware.pte import ACCESSED, EXCLUSIVE, PSE, RW, pte_pfn, pte_write
from emulator.kernel.fork import dup_mmap
from emulator.kernel.memory import handle_mm_fault
from emulator.kernel.migrate import migrate_misplaced_folio
from emulator.kernel.mprotect import PROT_READ, READ_WRITE, do_mprotect_pkey
from emulator.kernel.percpu import PerCpu
from emulator.kernel.policy import Policy
from emulator.kernel.tlb import flush_tlb_mm
from emulator.kernel.user import user_read, user_write
from emulator.memory.folios import Tier
from emulator.memory.memory import Memory
from emulator.memory.page_table import VM_READ, VM_SHARED, VM_WRITE, Vma
from emulator.memory.zone import Watermarks
from emulator.policies.immediate import Immediate
from emulator.policies.migrc_v3 import MigrcV3
from tests.kernel.small_machine import FILE, HEAP, SHARED, Body, SmallMachine, Thread, demote, mark

CHILD = 2
ASKED = "asked"


class Asks(Immediate):
    async def mapped_writable(self, cpu: PerCpu, pfn: int) -> None:
        cpu.count(ASKED)


def test_mprotect_asks() -> None:
    async def body(cpu: PerCpu) -> None:
        await user_write(cpu, HEAP, 5)
        await do_mprotect_pkey(cpu, 1, HEAP, HEAP + 1, PROT_READ)
        assert not cpu.vmstat.get(ASKED, 0)
        await do_mprotect_pkey(cpu, 1, HEAP, HEAP + 1, READ_WRITE)
        assert pte_write(await GetPte(1, HEAP)) and cpu.vmstat[ASKED] == 1

    assert not SmallMachine(Thread(0, body), policy=Asks).run().violations


def test_a_page_that_is_read_first_is_not_writable() -> None:
    async def body(cpu: PerCpu) -> None:
        await user_read(cpu, HEAP)
        assert not pte_write(await GetPte(1, HEAP))

    assert not SmallMachine(Thread(0, body)).run().violations


def test_a_private_page_of_a_file_begins_as_the_files() -> None:
    areas = (
        Vma(HEAP, HEAP + 1, VM_READ | VM_WRITE, 2),
        Vma(SHARED, SHARED + 1, VM_READ | VM_WRITE | VM_SHARED, 2),
    )

    async def body(cpu: PerCpu) -> None:
        await user_write(cpu, SHARED, 5)
        await handle_mm_fault(cpu, 1, HEAP, True)
        assert pte_pfn(await GetPte(1, HEAP)) != pte_pfn(await GetPte(1, SHARED))
        assert await user_read(cpu, HEAP) == 5

    assert not SmallMachine(Thread(0, body), areas=areas).run().violations


def test_a_childs_entries_have_not_been_used() -> None:
    async def body(cpu: PerCpu) -> None:
        await user_write(cpu, HEAP, 5)
        await dup_mmap(cpu, 1, CHILD, ((HEAP, HEAP + 1),))
        assert await GetPte(1, HEAP) & ACCESSED
        assert not await GetPte(CHILD, HEAP) & ACCESSED
        await mark("forked")

    machine = SmallMachine(Thread(0, body))
    machine.drive(0, machine.marked("forked"))


def test_a_promotion_without_room_wakes_kswapd() -> None:
    async def body(cpu: PerCpu) -> None:
        for page in range(4):
            await user_read(cpu, HEAP + page)
        await demote(cpu, HEAP)
        woken = cpu.vmstat.get("kswapd_wakeups", 0)
        pfn = pte_pfn(await GetPte(1, HEAP))
        await FolioGet(pfn)
        assert not await migrate_misplaced_folio(cpu, pfn, 0)
        assert cpu.vmstat.get("kswapd_wakeups", 0) == woken + 1

    machine = SmallMachine(Thread(0, body), marks=Watermarks(1, 2, 64))
    assert not machine.run().violations


def test_what_one_folio_owes_does_not_keep_the_next_from_waiting() -> None:
    """before_unmap: what the batch owed before a folio is not the folio's."""

    async def body(cpu: PerCpu) -> None:
        await user_write(cpu, HEAP, 5)
        await user_read(cpu, HEAP + 1)
        await mark("there")
        assert await demote(cpu, HEAP, HEAP + 1) == 2
        assert cpu.vmstat["migrc_deferred"] == 1

    async def other(cpu: PerCpu) -> None:
        await user_read(cpu, HEAP + 2)
        while not machine.marked("there")():
            await user_read(cpu, HEAP + 2)

    machine = SmallMachine(Thread(0, body), Thread(1, other), policy=MigrcV3)
    assert not machine.run().violations


# --- huge pages of two small ones ----------------------------------------------------------------


def huge(body: Body, policy: type[Policy] = Immediate) -> SmallMachine:
    def memory(tiers: Sequence[Tier]) -> Memory:
        made = Memory(tiers, 1)
        made.folios.content.update(dict.fromkeys(range(1, 100), 9))
        return made

    return SmallMachine(Thread(0, body), memory=memory, hpage_order=1, policy=policy)


def test_a_new_huge_page_is_zero_and_asks_where_it_becomes_writable() -> None:
    async def body(cpu: PerCpu) -> None:
        assert [await user_read(cpu, HEAP + page) for page in range(2)] == [0, 0]
        assert not cpu.vmstat.get(ASKED, 0)
        await user_write(cpu, HEAP, 5)
        assert cpu.vmstat[ASKED] == 1 and await GetPte(1, HEAP) & PSE

    assert not huge(body, Asks).run().violations


def test_a_huge_page_that_somebody_else_refers_to_is_split_for_a_write() -> None:
    async def body(cpu: PerCpu) -> None:
        await user_write(cpu, HEAP, 5)
        entry = await GetPte(1, HEAP) & ~(EXCLUSIVE | RW)
        await SetPte(1, HEAP, entry)
        await flush_tlb_mm(cpu, 1)
        await FolioGet(pte_pfn(entry))
        await user_write(cpu, HEAP, 6)
        assert not await GetPte(1, HEAP) & PSE
        await FolioPut(pte_pfn(entry))

    assert not huge(body).run().violations


# --- reclaim ---------------------------------------------------------------------------------------


def test_who_finds_no_page_reclaims_by_itself() -> None:
    async def body(cpu: PerCpu) -> None:
        for page in range(16):
            await user_read(cpu, SHARED + page)
            await user_read(cpu, FILE + page)
        assert cpu.vmstat["pgsteal_file"] and cpu.vmstat["allocstall_normal"]

    assert not SmallMachine(Thread(0, body), fast=12, slow=12).run().violations
