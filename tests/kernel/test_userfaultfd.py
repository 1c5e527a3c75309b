"""Write-protection by userfaultfd: one flush, writers wait until it is taken back; it moves with the page."""

from __future__ import annotations

import pytest

from emulator.hardware.operations import GetPte
from emulator.hardware.pte import RW, UFFD_WP
from emulator.kernel.fork import dup_mmap
from emulator.kernel.mprotect import PROT_READ, READ_WRITE, do_mprotect_pkey
from emulator.kernel.percpu import PerCpu
from emulator.kernel.user import user_read, user_write
from emulator.kernel.userfaultfd import mwriteprotect_range, userfaultfd_register
from emulator.memory.page_table import VM_UFFD_WP, Vma
from emulator.policies.catalogue import POLICIES
from tests.kernel.small_machine import HEAP, PAGES, SmallMachine, Thread, after, demote, mark


@pytest.mark.parametrize("policy", POLICIES)
def test_a_writer_waits_until_the_protection_is_taken_back(policy: str) -> None:
    seen: list[int] = []

    async def monitor(cpu: PerCpu) -> None:
        await after("there")
        for page in range(4):
            await user_write(cpu, HEAP + page, page + 7)
        assert await userfaultfd_register(cpu, 1, HEAP, HEAP + 4)
        flushes = cpu.counted("nr_tlb_remote_flush")
        assert await mwriteprotect_range(cpu, 1, HEAP, HEAP + 3, True)
        assert cpu.vmstat["nr_tlb_remote_flush"] == flushes + 1
        entry = await GetPte(1, HEAP)
        assert entry & UFFD_WP and not entry & RW
        await mark("protected")
        assert await user_read(cpu, HEAP) == 7
        # It stays through a migration, and mprotect does not undo it.
        assert await demote(cpu, HEAP + 1)
        await do_mprotect_pkey(cpu, 1, HEAP + 1, HEAP + 2, PROT_READ)
        await do_mprotect_pkey(cpu, 1, HEAP + 1, HEAP + 2, READ_WRITE)
        entry = await GetPte(1, HEAP + 1)
        assert entry & UFFD_WP and not entry & RW
        seen.append(await user_read(cpu, HEAP + 2))
        # More rights need a flush too, or others would fault for nothing.
        assert await mwriteprotect_range(cpu, 1, HEAP, HEAP + 3, False)
        assert await GetPte(1, HEAP) & (RW | UFFD_WP) == RW
        await user_write(cpu, HEAP + 1, 30)
        await after("written")
        seen.append(await user_read(cpu, HEAP + 2))
        await mark("done")

    async def writer(cpu: PerCpu) -> None:
        await user_read(cpu, HEAP + 9)
        await mark("there")
        await after("protected")
        await user_write(cpu, HEAP + 2, 20)
        await mark("written")
        await after("done")

    threads = (Thread(0, monitor), Thread(1, writer))
    machine = SmallMachine(*threads, policy=POLICIES[policy])
    assert not machine.run().violations
    assert seen == [9, 20]


def test_what_is_not_registered_is_refused_and_a_child_is_not_protected() -> None:
    async def body(cpu: PerCpu) -> None:
        await user_write(cpu, HEAP, 7)
        assert not await mwriteprotect_range(cpu, 1, HEAP, HEAP + 1, True)
        assert not await userfaultfd_register(cpu, 1, HEAP, HEAP + PAGES + 1)
        assert await userfaultfd_register(cpu, 1, HEAP, HEAP + 1)
        assert await mwriteprotect_range(cpu, 1, HEAP, HEAP + 1, True)
        await dup_mmap(cpu, 1, 2, ((HEAP, HEAP + 1),))
        assert not await GetPte(2, HEAP) & UFFD_WP
        assert not any(area.flags & VM_UFFD_WP for area in machine.memory.page_tables.mm(2).areas)
        assert Vma(*machine.memory.page_tables.mm(1).areas[0]).flags & VM_UFFD_WP
        await mwriteprotect_range(cpu, 1, HEAP, HEAP + 1, False)

    machine = SmallMachine(Thread(0, body), Thread(0, body_of_child, mm=2))
    assert not machine.run().violations


async def body_of_child(cpu: PerCpu) -> None:
    """Runs nothing; its address space is there to be torn down."""
