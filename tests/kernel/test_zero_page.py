"""The shared zero page: who reads it, what the first write costs, and that nobody counts it."""

from __future__ import annotations

import pytest

from emulator.hardware.operations import GetPte
from emulator.hardware.pte import RW, ZERO_PFN, pte_pfn
from emulator.kernel.fork import dup_mmap
from emulator.kernel.gup import get_user_pages, kernel_read, put_page
from emulator.kernel.mmap import do_munmap
from emulator.kernel.mprotect import PROT_NONE, PROT_READ, READ_WRITE, change_prot_numa, do_mprotect_pkey
from emulator.kernel.percpu import PerCpu
from emulator.kernel.user import user_read, user_write
from emulator.policies.catalogue import POLICIES
from tests.kernel.small_machine import HEAP, Body, SmallMachine, Thread, after, mark


def run(*bodies: Body, policy: str = "immediate") -> SmallMachine:
    threads = [Thread(number, body) for number, body in enumerate(bodies)]
    machine = SmallMachine(*threads, policy=POLICIES[policy], forbids_zeropage=False).run()
    assert not machine.violations
    return machine


@pytest.mark.parametrize("policy", POLICIES)
def test_a_read_takes_no_memory_and_the_first_write_flushes_one_page(policy: str) -> None:
    free: list[int] = []

    async def body(cpu: PerCpu) -> None:
        await after("there")
        zone = machine.memory.folios.zones[0]
        before = zone.nr_free
        assert [await user_read(cpu, HEAP + page) for page in range(3)] == [0, 0, 0]
        free.append(before - zone.nr_free)
        entry = await GetPte(1, HEAP)
        assert pte_pfn(entry) == ZERO_PFN and entry and not entry & RW
        flushes = cpu.counted("nr_tlb_remote_flush")
        await user_write(cpu, HEAP, 5)
        assert cpu.vmstat["nr_tlb_remote_flush"] == flushes + 1 and cpu.vmstat["pgcow"] == 1
        assert await user_read(cpu, HEAP) == 5
        # Written at once: no copy, no flush.
        await user_write(cpu, HEAP + 8, 6)
        assert cpu.vmstat["nr_tlb_remote_flush"] == flushes + 1 and cpu.vmstat["pgcow"] == 1
        await mark("done")

    async def other(cpu: PerCpu) -> None:
        await user_read(cpu, HEAP + 9)
        await mark("there")
        await after("done")
        assert await user_read(cpu, HEAP) == 5

    threads = (Thread(0, body), Thread(1, other))
    machine = SmallMachine(*threads, policy=POLICIES[policy], forbids_zeropage=False)
    assert not machine.run().violations
    assert free == [0]


def test_it_is_shared_with_a_child_pinned_protected_and_unmapped_without_a_count() -> None:
    async def body(cpu: PerCpu) -> None:
        for page in range(4):
            assert await user_read(cpu, HEAP + page) == 0
        pfn = await get_user_pages(cpu, 1, HEAP, False)
        assert pfn == ZERO_PFN and await kernel_read(1, HEAP, pfn) == 0
        await put_page(pfn)
        await do_mprotect_pkey(cpu, 1, HEAP, HEAP + 1, PROT_NONE)
        await do_mprotect_pkey(cpu, 1, HEAP, HEAP + 1, PROT_READ)
        await do_mprotect_pkey(cpu, 1, HEAP, HEAP + 1, READ_WRITE)
        assert not await GetPte(1, HEAP) & RW
        assert not await change_prot_numa(cpu, 1, HEAP, HEAP + 4)
        await dup_mmap(cpu, 1, 2, ((HEAP, HEAP + 16),))
        assert pte_pfn(await GetPte(2, HEAP + 3)) == ZERO_PFN
        written = await get_user_pages(cpu, 1, HEAP + 1, True)
        assert written != ZERO_PFN
        await put_page(written)
        await user_write(cpu, HEAP, 3)
        await do_munmap(cpu, 1, HEAP, HEAP + 4)
        await do_munmap(cpu, 2, HEAP, HEAP + 16)
        assert machine.memory.folios.faults == []

    machine = SmallMachine(Thread(0, body), forbids_zeropage=False)
    assert not machine.run().violations


@pytest.mark.parametrize("seed", range(6))
def test_one_of_two_who_write_at_once_copies(seed: int) -> None:
    async def body(cpu: PerCpu) -> None:
        assert await user_read(cpu, HEAP) in (0, 10, 11)
        await user_write(cpu, HEAP, 10 + cpu.number)
        assert await user_read(cpu, HEAP) in (10, 11)

    machine = SmallMachine(Thread(0, body), Thread(1, body), forbids_zeropage=False).run(seed)
    assert not machine.violations
    assert 1 <= sum(kernel.counted("pgcow") for kernel in machine.kernels) <= 1
