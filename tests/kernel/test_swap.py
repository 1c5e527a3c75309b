"""Swap: a page goes out with a flush for what was written, and comes back with its content."""

from __future__ import annotations

import pytest

from emulator.hardware.operations import GetPte
from emulator.hardware.pte import EXCLUSIVE, RW, is_swap_entry, pte_pfn
from emulator.kernel.fork import dup_mmap
from emulator.kernel.madvise import do_madvise, madvise_pageout
from emulator.kernel.mlock import do_mlock, do_munlock
from emulator.kernel.mmap import do_munmap
from emulator.kernel.mprotect import PROT_READ, do_mprotect_pkey
from emulator.kernel.mremap import mremap_to
from emulator.kernel.percpu import PerCpu
from emulator.kernel.user import user_read, user_write
from emulator.policies.catalogue import POLICIES
from tests.kernel.small_machine import HEAP, Body, SmallMachine, Thread, after, mark

MM = 1


def run(*bodies: Body, policy: str = "immediate", swap: bool = True) -> SmallMachine:
    threads = [Thread(number, body) for number, body in enumerate(bodies)]
    machine = SmallMachine(*threads, policy=POLICIES[policy], swap=swap).run()
    assert not machine.violations
    return machine


async def out(cpu: PerCpu, pages: int) -> list[bool]:
    await do_madvise(cpu, MM, HEAP, HEAP + pages, madvise_pageout)
    return [is_swap_entry(await GetPte(MM, HEAP + page)) for page in range(pages)]


@pytest.mark.parametrize("policy", POLICIES)
def test_pages_come_back_with_their_content(policy: str) -> None:
    async def body(cpu: PerCpu) -> None:
        for page in range(3):
            await user_write(cpu, HEAP + page, 10 + page)
        await mark("written")
        await after("there")
        assert await out(cpu, 3) == [True] * 3
        assert cpu.vmstat["pswpout"] == 3
        flushes = cpu.remote_flushes()
        assert await user_read(cpu, HEAP) == 10
        await user_write(cpu, HEAP + 1, 21)
        assert cpu.remote_flushes() == flushes
        assert await GetPte(MM, HEAP + 1) & (RW | EXCLUSIVE) == RW | EXCLUSIVE
        await mark("back")

    async def other(cpu: PerCpu) -> None:
        await after("written")
        assert await user_read(cpu, HEAP + 2) == 12
        await mark("there")
        await after("back")
        assert [await user_read(cpu, HEAP + page) for page in range(3)] == [10, 21, 12]

    run(body, other, policy=policy)


def test_without_a_device_pages_stay() -> None:
    async def body(cpu: PerCpu) -> None:
        await user_write(cpu, HEAP, 5)
        assert await out(cpu, 1) == [False]
        assert await user_read(cpu, HEAP) == 5

    run(body, swap=False)


def test_what_is_in_swap_is_protected_moved_forked_and_unmapped() -> None:
    async def body(cpu: PerCpu) -> None:
        for page in range(4):
            await user_write(cpu, HEAP + page, 10 + page)
        assert await out(cpu, 4) == [True] * 4
        await dup_mmap(cpu, MM, 2, ((HEAP, HEAP + 2),))
        assert not await GetPte(2, HEAP) & EXCLUSIVE and is_swap_entry(await GetPte(2, HEAP))
        await do_mprotect_pkey(cpu, MM, HEAP + 1, HEAP + 2, PROT_READ)
        assert await user_read(cpu, HEAP + 1) == 11
        await do_munmap(cpu, MM, HEAP + 3, HEAP + 4)
        assert await mremap_to(cpu, MM, HEAP + 2, HEAP + 32, 1)
        assert await user_read(cpu, HEAP + 32) == 12
        # Read, then written: the child's page is another one.
        await user_write(cpu, HEAP, 20)
        assert await user_read(cpu, HEAP) == 20
        await do_munmap(cpu, 2, HEAP, HEAP + 2)
        await do_munmap(cpu, MM, HEAP + 32, HEAP + 33)

    run(body)


def test_locked_memory_is_there_and_may_be_written() -> None:
    async def body(cpu: PerCpu) -> None:
        assert await do_mlock(cpu, MM, HEAP, HEAP + 3)
        entries = [await GetPte(MM, HEAP + page) for page in range(3)]
        assert all(entry & RW for entry in entries) and len({pte_pfn(entry) for entry in entries}) == 3
        assert await do_munlock(cpu, MM, HEAP, HEAP + 3)
        assert not await do_mlock(cpu, MM, HEAP, HEAP + 1000)

    run(body)
