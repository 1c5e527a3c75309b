"""The huge zero page, and pages of a huge one that are all zeroes when it is split."""

from __future__ import annotations

from typing import Any

import pytest

from emulator.hardware.operations import GetPte, PmdRange
from emulator.hardware.pte import ACCESSED, PSE, RW, UFFD_WP, ZERO_PFN, pte_huge, pte_pfn
from emulator.kernel.fork import dup_mmap
from emulator.kernel.madvise import do_madvise, madvise_cold, madvise_dontneed, madvise_free, madvise_pageout
from emulator.kernel.mmap import do_munmap
from emulator.kernel.mprotect import PROT_READ, do_mprotect_pkey
from emulator.kernel.mremap import mremap_to
from emulator.kernel.percpu import PerCpu
from emulator.kernel.task_mmu import CLEAR_REFS_ALL, CLEAR_REFS_SOFT_DIRTY, clear_refs_write
from emulator.kernel.user import user_read, user_write
from emulator.kernel.userfaultfd import mwriteprotect_range, userfaultfd_register, userfaultfd_unregister
from tests.kernel.small_machine import HEAP, Body, SmallMachine, Thread, after, mark

MM = 1
SIZE = 4


def run(*bodies: Body, **settings: Any) -> SmallMachine:
    threads = [Thread(number, body) for number, body in enumerate(bodies)]
    defaults: dict[str, Any] = {"forbids_zeropage": False, "hpage_order": 2}
    machine = SmallMachine(*threads, **defaults | settings).run()
    assert not machine.violations
    return machine


def test_a_read_maps_it_and_the_first_write_splits_it() -> None:
    async def body(cpu: PerCpu) -> None:
        assert [await user_read(cpu, HEAP + page) for page in range(SIZE)] == [0] * SIZE
        entry = await GetPte(MM, HEAP)
        assert pte_huge(entry) and pte_pfn(entry) == ZERO_PFN and not entry & RW
        await mark("read")
        await after("too")
        await user_write(cpu, HEAP + 1, 7)
        assert await PmdRange(MM, HEAP, HEAP + SIZE) == ((HEAP, 0),)
        assert cpu.vmstat["thp_split_pmd"] == 1 and cpu.vmstat["pgcow"] == 1
        assert [await user_read(cpu, HEAP + page) for page in range(SIZE)] == [0, 7, 0, 0]
        await mark("written")

    async def other(cpu: PerCpu) -> None:
        await after("read")
        assert await user_read(cpu, HEAP + 1) == 0
        await mark("too")
        await after("written")
        assert await user_read(cpu, HEAP + 1) == 7

    run(body, other)


def test_it_is_shared_protected_moved_and_unmapped_without_a_count() -> None:
    async def body(cpu: PerCpu) -> None:
        await user_read(cpu, HEAP)
        await dup_mmap(cpu, MM, 2, ((HEAP, HEAP + SIZE),))
        assert pte_pfn(await GetPte(2, HEAP)) == ZERO_PFN
        await do_mprotect_pkey(cpu, MM, HEAP, HEAP + SIZE, PROT_READ)
        assert await user_read(cpu, HEAP + 3) == 0
        assert await mremap_to(cpu, MM, HEAP, HEAP + 32, SIZE)
        assert await user_read(cpu, HEAP + 34) == 0
        await do_munmap(cpu, MM, HEAP + 33, HEAP + 34)
        assert await user_read(cpu, HEAP + 32) == 0
        await do_munmap(cpu, MM, HEAP + 32, HEAP + 32 + SIZE)
        await do_munmap(cpu, 2, HEAP, HEAP + SIZE)

    run(body)


@pytest.mark.parametrize(("version", "zeroes"), [("6.12", 3), ("6.6", 0)])
def test_who_splits_a_huge_page_finds_the_pages_that_nobody_has_written(version: str, zeroes: int) -> None:
    async def body(cpu: PerCpu) -> None:
        await user_write(cpu, HEAP + 2, 5)
        # A part of it is called cold: the folio is split.
        await do_madvise(cpu, MM, HEAP + 1, HEAP + 3, madvise_cold)
        frames = [pte_pfn(await GetPte(MM, HEAP + page)) for page in range(SIZE)]
        assert frames.count(ZERO_PFN) == zeroes and frames[2] != ZERO_PFN
        assert [await user_read(cpu, HEAP + page) for page in range(SIZE)] == [0, 0, 5, 0]
        await user_write(cpu, HEAP, 6)
        assert await user_read(cpu, HEAP) == 6

    machine = run(body, version=version)
    assert machine.vmstat("thp_split_page") == 1


@pytest.mark.parametrize("swap", [False, True])
def test_reclaim_splits_it(swap: bool) -> None:
    async def body(cpu: PerCpu) -> None:
        for page in range(SIZE):
            await user_write(cpu, HEAP + page, page + 1)
        await do_madvise(cpu, MM, HEAP, HEAP + SIZE, madvise_pageout)
        assert cpu.vmstat["thp_split_page"] == 1 and cpu.counted("pswpout") == (SIZE if swap else 0)
        assert [await user_read(cpu, HEAP + page) for page in range(SIZE)] == [1, 2, 3, 4]

    run(body, swap=swap)


def test_tracking_protects_a_huge_page_as_a_whole() -> None:
    async def body(cpu: PerCpu) -> None:
        await user_write(cpu, HEAP, 5)
        await clear_refs_write(cpu, MM, HEAP, HEAP + SIZE, CLEAR_REFS_ALL)
        assert await GetPte(MM, HEAP) & (ACCESSED | RW) == RW
        await clear_refs_write(cpu, MM, HEAP, HEAP + SIZE, CLEAR_REFS_SOFT_DIRTY)
        assert await GetPte(MM, HEAP) & (PSE | RW) == PSE
        await user_write(cpu, HEAP, 6)
        assert cpu.vmstat["thp_wp_faults"] == 1
        assert await userfaultfd_register(cpu, MM, HEAP, HEAP + SIZE)
        assert await mwriteprotect_range(cpu, MM, HEAP, HEAP + SIZE, True)
        assert await GetPte(MM, HEAP) & (PSE | UFFD_WP | RW) == PSE | UFFD_WP
        # A part of it: small entries, each of them protected.
        assert await mwriteprotect_range(cpu, MM, HEAP, HEAP + 1, False)
        assert await GetPte(MM, HEAP) & (PSE | UFFD_WP) == 0
        assert await GetPte(MM, HEAP + 1) & UFFD_WP
        await user_write(cpu, HEAP, 7)
        assert await userfaultfd_unregister(cpu, MM, HEAP, HEAP + SIZE)
        await user_write(cpu, HEAP + 1, 8)
        assert [await user_read(cpu, HEAP + page) for page in range(2)] == [7, 8]

    run(body)


@pytest.mark.parametrize("write", [False, True])
def test_what_was_given_up_before_is_not_what_a_pmd_has_to_be_a_copy_of(write: bool) -> None:
    async def body(cpu: PerCpu) -> None:
        await user_write(cpu, HEAP, 5)
        await do_madvise(cpu, MM, HEAP, HEAP + SIZE, madvise_dontneed)
        # Its frames go to another page; then there is the huge zero page, or a new huge one.
        await user_write(cpu, HEAP + SIZE, 6)
        if write:
            await user_write(cpu, HEAP, 7)
            await do_madvise(cpu, MM, HEAP, HEAP + SIZE, madvise_free)
        assert await user_read(cpu, HEAP) == (7 if write else 0)
        await clear_refs_write(cpu, MM, HEAP, HEAP + SIZE, CLEAR_REFS_SOFT_DIRTY)
        assert await user_read(cpu, HEAP) == (7 if write else 0)

    run(body)
