"""clear_refs: accessed bits without a flush, write permissions with one."""

from __future__ import annotations

import pytest

from emulator.hardware.operations import GetPte
from emulator.hardware.pte import ACCESSED, RW, SOFT_DIRTY
from emulator.kernel.gup import pin_user_pages_fast, unpin_user_pages_dirty_lock
from emulator.kernel.mprotect import PROT_READ, READ_WRITE, do_mprotect_pkey
from emulator.kernel.percpu import PerCpu
from emulator.kernel.task_mmu import CLEAR_REFS_ALL, CLEAR_REFS_SOFT_DIRTY, clear_refs_write
from emulator.kernel.user import user_read, user_write
from emulator.policies.catalogue import POLICIES
from tests.kernel.small_machine import HEAP, PAGES, SHARED, SmallMachine, Thread, after, demote, mark


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("what", [CLEAR_REFS_ALL, CLEAR_REFS_SOFT_DIRTY])
def test_what_is_taken_away_and_what_is_flushed(what: int, policy: str) -> None:
    protects = what == CLEAR_REFS_SOFT_DIRTY

    async def body(cpu: PerCpu) -> None:
        await after("there")
        for page in range(3):
            await user_write(cpu, HEAP + page, page + 7)
        flushes = cpu.counted("nr_tlb_remote_flush")
        await clear_refs_write(cpu, 1, HEAP, HEAP + PAGES, what)
        entry = await GetPte(1, HEAP)
        assert bool(entry & RW) is not protects and bool(entry & ACCESSED) is protects
        assert cpu.counted("nr_tlb_remote_flush") == flushes + protects
        faults = cpu.vmstat["pgfault"]
        await user_write(cpu, HEAP, 20)
        await user_write(cpu, HEAP, 21)
        assert cpu.vmstat["pgfault"] == faults + protects
        assert [await user_read(cpu, HEAP + page) for page in range(3)] == [21, 8, 9]
        await mark("done")

    async def other(cpu: PerCpu) -> None:
        await user_read(cpu, HEAP + 8)
        await mark("there")
        await after("done")

    machine = SmallMachine(Thread(0, body), Thread(1, other), policy=POLICIES[policy])
    assert not machine.run().violations


@pytest.mark.parametrize("order", [0, 2])
def test_mprotect_gives_back_what_was_written_since(order: int) -> None:
    """The others fault, so that the tracker learns of it."""

    async def body(cpu: PerCpu) -> None:
        for page in range(8):
            await user_write(cpu, HEAP + page, page)
        await clear_refs_write(cpu, 1, HEAP, HEAP + PAGES, CLEAR_REFS_SOFT_DIRTY)
        await user_write(cpu, HEAP, 20)
        for prot in (PROT_READ, READ_WRITE):
            await do_mprotect_pkey(cpu, 1, HEAP, HEAP + PAGES, prot)
        entries = [await GetPte(1, HEAP + page) & RW for page in (0, 4)]
        assert entries == [RW, 0]
        faults = cpu.vmstat["pgfault"]
        await user_write(cpu, HEAP, 21)
        assert cpu.vmstat["pgfault"] == faults
        await user_write(cpu, HEAP + 4, 22)
        assert cpu.vmstat["pgfault"] == faults + 1
        # Tracking begins anew.
        await clear_refs_write(cpu, 1, HEAP, HEAP + PAGES, CLEAR_REFS_SOFT_DIRTY)
        for prot in (PROT_READ, READ_WRITE):
            await do_mprotect_pkey(cpu, 1, HEAP, HEAP + PAGES, prot)
        assert not await GetPte(1, HEAP) & (RW | SOFT_DIRTY)

    assert not SmallMachine(Thread(0, body), hpage_order=order).run().violations


def test_what_was_not_writable_is_not_after_a_migration() -> None:
    async def body(cpu: PerCpu) -> None:
        await user_write(cpu, HEAP, 5)
        await clear_refs_write(cpu, 1, HEAP, HEAP + PAGES, CLEAR_REFS_SOFT_DIRTY)
        await user_write(cpu, HEAP, 6)
        await do_mprotect_pkey(cpu, 1, HEAP, HEAP + PAGES, PROT_READ)
        assert await GetPte(1, HEAP) & SOFT_DIRTY
        assert await demote(cpu, HEAP)
        assert not await GetPte(1, HEAP) & RW

    assert not SmallMachine(Thread(0, body)).run().violations


def test_what_is_pinned_is_left_alone_in_private_memory_only() -> None:
    """No fault copies a shared page away from its pin."""

    async def body(cpu: PerCpu) -> None:
        for page, kept in ((HEAP, RW), (SHARED, 0)):
            await user_write(cpu, page, 5)
            pfn = await pin_user_pages_fast(cpu, 1, page, True)
            await clear_refs_write(cpu, 1, page, page + PAGES, CLEAR_REFS_SOFT_DIRTY)
            assert await GetPte(1, page) & RW == kept
            await unpin_user_pages_dirty_lock(pfn)

    assert not SmallMachine(Thread(0, body)).run().violations
