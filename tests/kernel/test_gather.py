"""What one gather flushes: how far, in which steps, whom it interrupts, and when frames go."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from emulator.hardware.operations import FolioRefcount, GetPte, Load
from emulator.hardware.pte import pte_pfn
from emulator.kernel import mmu_gather
from emulator.kernel.mmap import do_mmap, do_munmap
from emulator.kernel.mmu_gather import MAX_GATHER_PAGES, exit_mmap, tlb_finish_mmu, tlb_gather_mmu
from emulator.kernel.mprotect import PROT_READ, do_mprotect_pkey
from emulator.kernel.percpu import PerCpu, is_lazy_word
from emulator.kernel.sched import schedule, wake_up_process
from emulator.kernel.tlb import TLB_FLUSH_ALL
from emulator.kernel.truncate import truncate_pagecache, truncate_pagecache_range
from emulator.kernel.user import user_read, user_write
from emulator.memory.page_table import VM_READ, VM_WRITE, Vma
from emulator.policies.immediate import Immediate
from tests.kernel.small_machine import AREAS, FILE, HEAP, SHARED, SmallMachine, Thread, after, mark

TABLE = 512
PMD_TABLE = 512 * TABLE
PUD_TABLE = 512 * PMD_TABLE
READ_WRITE = VM_READ | VM_WRITE


class Flush(NamedTuple):
    start: int
    end: int
    stride: int
    freed_tables: bool


class Recorded(Immediate):
    """Keeps what was flushed before frames or tables went."""

    def __init__(self) -> None:
        self.flushes: list[Flush] = []

    async def flush_zapped(
        self, cpu: PerCpu, mm: int, start: int, end: int, stride: int, freed_tables: bool
    ) -> None:
        self.flushes.append(Flush(start, end, stride, freed_tables))
        await super().flush_zapped(cpu, mm, start, end, stride, freed_tables)


def flushes(cpu: PerCpu) -> list[Flush]:
    assert isinstance(cpu.policy, Recorded)
    taken, cpu.policy.flushes = cpu.policy.flushes, []
    return taken


async def populate(cpu: PerCpu, start: int, end: int) -> None:
    for vpn in range(start, end):
        await user_write(cpu, vpn, 1)


async def new_area(cpu: PerCpu, start: int, pages: int) -> None:
    assert await do_mmap(cpu, 1, start, start + pages, READ_WRITE)
    await populate(cpu, start, start + pages)


def test_tables_that_neighbours_use_stay_and_nobody_is_told_of_freed_ones() -> None:
    async def body(cpu: PerCpu) -> None:
        await populate(cpu, HEAP, HEAP + 8)
        await do_munmap(cpu, 1, HEAP + 2, HEAP + 6)
        assert flushes(cpu) == [Flush(HEAP + 2, HEAP + 6, 1, False)]

    assert not SmallMachine(Thread(0, body), policy=Recorded).run().violations


@pytest.mark.parametrize(
    ("start", "pages", "neighbour", "flush"),
    [
        # Its own page table: freed, and its first page joins the range.
        (8 * TABLE + 4, 3, 9 * TABLE, Flush(8 * TABLE, 8 * TABLE + 7, 1, True)),
        # Nothing else within what a PMD table maps, nor a PUD table.
        (3 * PMD_TABLE + 8, 1, 5 * PMD_TABLE, Flush(3 * PMD_TABLE, 3 * PMD_TABLE + 9, 1, True)),
        (
            PUD_TABLE + 64 * PMD_TABLE + 4096,
            1,
            2 * PUD_TABLE,
            Flush(PUD_TABLE, PUD_TABLE + 64 * PMD_TABLE + 4097, 1, True),
        ),
    ],
)
def test_freed_tables_widen_the_range(start: int, pages: int, neighbour: int, flush: Flush) -> None:
    async def body(cpu: PerCpu) -> None:
        # An area that nobody has used keeps tables from being freed: borders count, not entries.
        assert await do_mmap(cpu, 1, neighbour, neighbour + 1, READ_WRITE)
        await new_area(cpu, start, pages)
        await do_munmap(cpu, 1, start, start + pages)
        assert flushes(cpu) == [flush]
        # Now the table is gone, too: a second time there is nothing to flush for.
        assert await do_mmap(cpu, 1, start, start + pages, READ_WRITE)
        await do_munmap(cpu, 1, start, start + pages)
        assert flushes(cpu) == []

    assert not SmallMachine(Thread(0, body), policy=Recorded).run().violations


def test_an_empty_table_is_freed_all_the_same_and_flushed_for_as_one_pmd() -> None:
    area = 8 * TABLE

    async def body(cpu: PerCpu) -> None:
        await new_area(cpu, area, 2)
        assert await mmu_gather.zap_page_range_single(
            cpu, 1, Vma(area, area + 2, READ_WRITE, 0), area, area + 2
        )
        assert flushes(cpu) == [Flush(area, area + 2, 1, False)]
        await do_munmap(cpu, 1, area, area + 2)
        assert flushes(cpu) == [Flush(area, area + 1, TABLE, True)]

    assert not SmallMachine(Thread(0, body), policy=Recorded).run().violations


@pytest.mark.parametrize("whole", [True, False])
def test_lazy_cpus_are_interrupted_only_for_freed_tables(whole: bool) -> None:
    """Whoever borrows the mm may still walk tables that are freed, but not read what was unmapped."""

    async def unmaps(cpu: PerCpu) -> None:
        await populate(cpu, HEAP, HEAP + 4)
        await after("cached")
        while not await Load(is_lazy_word(1)):
            pass
        lazy = machine.kernels[1].vmstat
        before = lazy.get("nr_tlb_remote_flush_received", 0)
        await do_munmap(cpu, 1, HEAP, HEAP + (16 if whole else 2))
        assert lazy.get("nr_tlb_remote_flush_received", 0) == before + whole
        await mark("unmapped")
        await wake_up_process(cpu, 1, sleeper[0])

    async def sleeps(cpu: PerCpu) -> None:
        await user_read(cpu, HEAP)
        sleeper.append(cpu.current.pid)
        cpu.current.runnable = False
        await mark("cached")
        await schedule(cpu)

    for seed in range(0, 30, 3):
        sleeper: list[int] = []
        machine = SmallMachine(Thread(0, unmaps), Thread(1, sleeps))
        assert not machine.run(seed).violations


def test_one_flush_for_several_page_tables_and_areas() -> None:
    async def body(cpu: PerCpu) -> None:
        await populate(cpu, HEAP, HEAP + 3)
        await user_read(cpu, FILE)
        await user_read(cpu, SHARED)
        assert await do_munmap(cpu, 1, HEAP + 1, SHARED + 1) == 4
        assert [(flush.start, flush.end) for flush in flushes(cpu)] == [(HEAP + 1, SHARED + 1)]

    assert not SmallMachine(Thread(0, body), policy=Recorded).run().violations


def test_a_full_gather_flushes_and_frees_before_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_GATHER_PAGES == 8 + 19 * 510
    monkeypatch.setattr(mmu_gather, "MAX_GATHER_PAGES", 4)

    async def body(cpu: PerCpu) -> None:
        await populate(cpu, HEAP, HEAP + 10)
        free = machine.memory.folios.zones[0].nr_free
        assert await do_munmap(cpu, 1, HEAP, HEAP + 10) == 10
        assert [(flush.start, flush.end) for flush in flushes(cpu)] == [
            (HEAP, HEAP + 4),
            (HEAP + 4, HEAP + 8),
            (HEAP + 8, HEAP + 10),
        ]
        assert machine.memory.folios.zones[0].nr_free == free + 10

    machine = SmallMachine(Thread(0, body), policy=Recorded)
    assert not machine.run().violations


def test_frames_are_kept_until_the_flush() -> None:
    class Looks(Recorded):
        async def flush_zapped(
            self, cpu: PerCpu, mm: int, start: int, end: int, stride: int, freed_tables: bool
        ) -> None:
            kept.append(await FolioRefcount(frames[0]))
            await super().flush_zapped(cpu, mm, start, end, stride, freed_tables)

    frames: list[int] = []
    kept: list[int] = []

    async def body(cpu: PerCpu) -> None:
        await user_write(cpu, HEAP, 1)
        frames.append(pte_pfn(await GetPte(1, HEAP)))
        await do_munmap(cpu, 1, HEAP, HEAP + 1)
        assert kept == [1] and not await FolioRefcount(frames[0])

    assert not SmallMachine(Thread(0, body), policy=Looks).run().violations


def test_whole_huge_pages_are_flushed_one_step_each_and_mixed_ones_page_by_page() -> None:
    heap = Vma(HEAP, HEAP + 16, READ_WRITE, 0)

    async def body(cpu: PerCpu) -> None:
        for vpn in (HEAP, HEAP + 4, HEAP + 8):
            await user_write(cpu, vpn, 1)
        one = cpu.counted("nr_tlb_local_flush_one")
        assert await do_mprotect_pkey(cpu, 1, HEAP, HEAP + 4, PROT_READ)
        assert cpu.counted("nr_tlb_local_flush_one") == one + 1
        assert await do_munmap(cpu, 1, HEAP, HEAP + 8) == 8
        # The second area's tables: with small ones a PMD table maps 4 * 512 pages, and the area is in use.
        assert flushes(cpu) == [Flush(HEAP, HEAP + 8, 4, False)]
        assert cpu.counted("nr_tlb_local_flush_one") == one + 3

    machine = SmallMachine(Thread(0, body), policy=Recorded, areas=(heap,), hpage_order=2)
    assert not machine.run().violations


def test_who_finishes_while_another_gathers_flushes_everything() -> None:
    async def body(cpu: PerCpu) -> None:
        await user_write(cpu, HEAP, 1)
        other = await tlb_gather_mmu(1)
        everything = cpu.counted("nr_tlb_local_flush_all")
        await do_munmap(cpu, 1, HEAP + 1, HEAP + 2)
        assert cpu.counted("nr_tlb_local_flush_all") == everything + 1
        assert flushes(cpu) == [Flush(0, TLB_FLUSH_ALL, 1, True)]
        await tlb_finish_mmu(cpu, other)
        assert flushes(cpu) == []

    assert not SmallMachine(Thread(0, body), policy=Recorded).run().violations


def test_an_address_space_is_given_up_with_one_flush() -> None:
    async def body(cpu: PerCpu) -> None:
        await populate(cpu, HEAP, HEAP + 3)
        await user_read(cpu, FILE)
        await exit_mmap(cpu, 1, tuple((area.start, area.end) for area in AREAS))
        assert flushes(cpu) == [Flush(0, TLB_FLUSH_ALL, 1, True)]
        assert not machine.memory.page_tables.mm(1).tables

    machine = SmallMachine(Thread(0, body), policy=Recorded)
    assert not machine.run().violations


@pytest.mark.parametrize("truncate", [truncate_pagecache, truncate_pagecache_range])
def test_truncation_flushes_once_for_each_mapping(truncate) -> None:  # type: ignore[no-untyped-def]
    async def body(cpu: PerCpu) -> None:
        await populate(cpu, SHARED, SHARED + 6)
        await user_read(cpu, FILE)
        # Mapped a second time, shifted by one page.
        mappings = ((1, SHARED), (1, AGAIN - 1))
        assert await do_mmap(cpu, 1, AGAIN, AGAIN + 5, READ_WRITE, 2, 1)
        await user_read(cpu, AGAIN)
        await user_read(cpu, AGAIN + 4)
        assert await truncate(cpu, 2, mappings, 1, 6) == 5
        assert [(flush.start, flush.end) for flush in flushes(cpu)] == [
            (SHARED + 1, SHARED + 6),
            (AGAIN, AGAIN + 5),
        ]
        assert await GetPte(1, SHARED) and await GetPte(1, FILE)

    AGAIN = 0x380
    assert not SmallMachine(Thread(0, body), policy=Recorded).run().violations


def test_a_file_that_ends_earlier_takes_private_copies_along() -> None:
    async def body(cpu: PerCpu) -> None:
        await user_write(cpu, FILE, 5)
        await user_write(cpu, FILE + 1, 6)
        assert await truncate_pagecache(cpu, 1, ((1, FILE),), 1, 2) == 1
        assert await user_read(cpu, FILE) == 5
        assert await user_read(cpu, FILE + 1) == 0

    assert not SmallMachine(Thread(0, body)).run().violations


def test_zero_pages_take_no_room_and_are_all_unmapped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mmu_gather, "MAX_GATHER_PAGES", 4)

    async def body(cpu: PerCpu) -> None:
        for vpn in range(HEAP, HEAP + 10):
            await user_read(cpu, vpn)
        assert await do_munmap(cpu, 1, HEAP, HEAP + 10) == 10
        assert not any([await GetPte(1, vpn) for vpn in range(HEAP, HEAP + 10)])

    assert not SmallMachine(Thread(0, body), policy=Recorded).run().violations
