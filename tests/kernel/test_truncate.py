"""Truncation: the pages are gone for everybody who maps them, and what comes after starts from nothing."""

from __future__ import annotations

import pytest

from emulator.kernel.filemap import ext4_buffered_write_iter, filemap_get_folio, filemap_put_folio
from emulator.kernel.memory import BusError
from emulator.kernel.percpu import PerCpu
from emulator.kernel.truncate import (
    ext4_block_truncate_page,
    ext4_punch_hole,
    i_size_write,
    truncate_inode_pages,
    truncate_inode_partial_folio,
    truncate_pagecache,
    truncate_pagecache_range,
    truncate_setsize,
)
from emulator.kernel.user import user_read, user_write
from emulator.kernel.writeback import filemap_write_and_wait_range
from emulator.policies.catalogue import POLICIES
from tests.kernel.small_machine import FILE, HEAP, SHARED, SmallMachine, Thread, after, demote, mark

ALL_POLICIES = pytest.mark.parametrize("policy", POLICIES)
PRIVATE_FILE = 1
SHARED_FILE = 2


@ALL_POLICIES
@pytest.mark.parametrize("pending", [False, True])
def test_a_truncated_page_is_gone_for_every_process(pending: bool, policy: str) -> None:
    both = ((1, SHARED), (2, SHARED))

    async def truncates(cpu: PerCpu) -> None:
        await user_write(cpu, SHARED, 5)
        await user_write(cpu, SHARED + 1, 6)
        await mark("written")
        await after("read")
        if pending:
            await demote(cpu, SHARED)
        assert await truncate_pagecache_range(cpu, SHARED_FILE, both, 0, 1) == 1
        assert await truncate_pagecache_range(cpu, SHARED_FILE, both, 0, 1) == 0
        assert not machine.entry(SHARED, 1) and not machine.entry(SHARED, 2)
        await user_write(cpu, SHARED, 7)
        await mark("truncated")

    async def reads(cpu: PerCpu) -> None:
        await after("written")
        assert await user_read(cpu, SHARED) == 5
        await mark("read")
        await after("truncated")
        assert await user_read(cpu, SHARED) == 7
        assert await user_read(cpu, SHARED + 1) == 6

    machine = SmallMachine(Thread(0, truncates), Thread(1, reads, 2), policy=POLICIES[policy])
    assert not machine.run().violations


@ALL_POLICIES
def test_a_private_copy_stays_and_a_private_reader_loses_the_page(policy: str) -> None:
    async def body(cpu: PerCpu) -> None:
        await user_read(cpu, FILE)
        await user_read(cpu, FILE + 1)
        await user_write(cpu, FILE, 5)
        assert await truncate_pagecache_range(cpu, PRIVATE_FILE, ((1, FILE),), 0, 2) == 2
        assert machine.entry(FILE)
        assert not machine.entry(FILE + 1)
        assert await user_read(cpu, FILE) == 5
        assert await user_read(cpu, FILE + 1) == 0

    machine = SmallMachine(Thread(0, body), policy=POLICIES[policy])
    assert not machine.run().violations


def test_a_truncation_waits_for_a_page_that_arrives_somewhere_else() -> None:
    """The cache names the destination already, and the entry is still that of the migration."""

    async def moves(cpu: PerCpu) -> None:
        await user_write(cpu, SHARED, 5)
        await mark("written")
        await demote(cpu, SHARED)
        await after("truncated")
        assert not machine.entry(SHARED)

    async def truncates(cpu: PerCpu) -> None:
        await after("moved")
        await truncate_inode_pages(cpu, SHARED_FILE, ((1, SHARED),), 0, 1)
        await mark("truncated")

    machine = SmallMachine(Thread(0, moves), Thread(1, truncates))
    machine.drive(0, machine.marked("written"))
    cache = machine.memory.folios.page_cache
    first = cache[SHARED_FILE, 0]
    machine.drive(0, lambda: cache[SHARED_FILE, 0] != first)
    assert machine.moving(SHARED)()
    machine.memory.words.values["test.moved"] = 1
    with pytest.raises(AssertionError, match="CPU 1 cannot go on"):
        machine.drive(1, machine.marked("truncated"))
    assert not machine.run().violations


def test_a_fault_maps_no_page_that_has_been_truncated_meanwhile() -> None:
    async def truncates(cpu: PerCpu) -> None:
        await user_write(cpu, SHARED, 5)
        await mark("written")
        await after("fetched")
        assert await truncate_pagecache_range(cpu, SHARED_FILE, ((1, SHARED), (2, SHARED)), 0, 1) == 1
        await mark("truncated")

    async def reads(cpu: PerCpu) -> None:
        await after("written")
        assert await user_read(cpu, SHARED) == 0

    machine = SmallMachine(Thread(0, truncates), Thread(1, reads, 2))
    machine.drive(0, machine.marked("written"))
    folio = machine.memory.folios.folios[machine.memory.folios.page_cache[SHARED_FILE, 0]]
    references = folio.refcount
    machine.drive(1, lambda: folio.refcount > references)
    machine.memory.words.values["test.fetched"] = 1
    machine.drive(0, machine.marked("truncated"))
    assert not machine.run().violations


def test_a_truncation_leaves_alone_what_lies_there_by_now() -> None:
    """i_mmap said that the file was mapped there, and another area has come since."""

    async def body(cpu: PerCpu) -> None:
        await user_write(cpu, HEAP, 5)
        await truncate_pagecache(cpu, PRIVATE_FILE, ((1, HEAP),), 0, 1)
        assert await user_read(cpu, HEAP) == 5

    assert not SmallMachine(Thread(0, body)).run().violations


@ALL_POLICIES
@pytest.mark.parametrize("seed", range(25))
def test_truncation_races_with_faults_and_moves(seed: int, policy: str) -> None:
    """At the end no page maps a frame that its file does not have there (accounting), whoever came first."""

    async def truncates(cpu: PerCpu) -> None:
        for _ in range(4):
            await truncate_pagecache_range(cpu, SHARED_FILE, ((1, SHARED),), 0, 2)

    async def faults(cpu: PerCpu) -> None:
        await user_read(cpu, HEAP)
        for _ in range(6):
            await user_read(cpu, SHARED)
            await user_read(cpu, SHARED + 1)

    async def moves(cpu: PerCpu) -> None:
        for _ in range(4):
            await demote(cpu, SHARED, SHARED + 1)
            await user_read(cpu, SHARED + 1)

    machine = SmallMachine(
        Thread(0, truncates), Thread(1, faults), Thread(2, moves), cpus=3, policy=POLICIES[policy]
    )
    machine.run(seed)
    assert not machine.violations
    for folio in machine.memory.folios.folios.values():
        assert not folio.rmap or folio.mapping


def test_a_file_that_has_a_size_ends_there_and_grows_with_empty_pages() -> None:
    async def body(cpu: PerCpu) -> None:
        await i_size_write(SHARED_FILE, 2)
        await user_write(cpu, SHARED, 5)
        await user_write(cpu, SHARED + 1, 6)
        with pytest.raises(BusError):
            await user_read(cpu, SHARED + 2)
        assert await truncate_setsize(cpu, SHARED_FILE, ((1, SHARED),), 1) == 1
        assert await user_read(cpu, SHARED) == 5
        for access in (user_read(cpu, SHARED + 1), user_write(cpu, SHARED + 1, 7)):
            with pytest.raises(BusError):
                await access
        assert await truncate_setsize(cpu, SHARED_FILE, ((1, SHARED),), 3) == 0
        assert await user_read(cpu, SHARED + 1) == 0
        assert await user_read(cpu, SHARED + 2) == 0

    assert not SmallMachine(Thread(0, body), file_sizes=True).run().violations


def test_what_is_stored_behind_the_end_is_gone_though_no_page_of_it_was_cached() -> None:
    async def body(cpu: PerCpu) -> None:
        await i_size_write(SHARED_FILE, 2)
        for pgoff in range(2):
            machine.memory.folios.files[SHARED_FILE, pgoff] = 5
        assert await truncate_setsize(cpu, SHARED_FILE, ((1, SHARED),), 1) == 0
        await truncate_setsize(cpu, SHARED_FILE, ((1, SHARED),), 2)
        await ext4_punch_hole(cpu, SHARED_FILE, ((1, SHARED),), 0, 1)
        assert not machine.memory.folios.files

    machine = SmallMachine(Thread(0, body), file_sizes=True)
    machine.run()


def test_what_is_written_by_its_file_is_found_where_it_is_mapped_and_becomes_dirty() -> None:
    async def body(cpu: PerCpu) -> None:
        await user_read(cpu, SHARED)
        faults, flushes = cpu.counted("pgfault"), cpu.counted("nr_tlb_local_flush_one")
        await ext4_buffered_write_iter(cpu, SHARED_FILE, 0, 9)
        await ext4_buffered_write_iter(cpu, SHARED_FILE, 1, 10)
        assert await user_read(cpu, SHARED) == 9
        assert (cpu.counted("pgfault"), cpu.counted("nr_tlb_local_flush_one")) == (faults, flushes)
        assert await filemap_write_and_wait_range(cpu, SHARED_FILE, 0, 2) == 2
        assert await user_read(cpu, SHARED + 1) == 10

    assert not SmallMachine(Thread(0, body)).run().violations


@pytest.mark.parametrize("cached", [True, False])
def test_the_tail_of_a_page_that_is_cut_is_cleared_where_it_is(cached: bool) -> None:
    async def body(cpu: PerCpu) -> None:
        await ext4_buffered_write_iter(cpu, SHARED_FILE, 0, 9)
        await user_read(cpu, SHARED)
        await filemap_write_and_wait_range(cpu, SHARED_FILE, 0, 1)
        entry = machine.entry(SHARED, 1)
        if not cached:
            await truncate_pagecache_range(cpu, SHARED_FILE, ((1, SHARED),), 0, 1)
            machine.memory.folios.files[SHARED_FILE, 0] = 9
        await truncate_inode_partial_folio(cpu, SHARED_FILE, 0)
        assert machine.entry(SHARED, 1) == (entry if cached else 0)
        await ext4_block_truncate_page(cpu, SHARED_FILE, 0)
        assert await user_read(cpu, SHARED) == 0
        assert await filemap_write_and_wait_range(cpu, SHARED_FILE, 0, 1) == 1
        assert not machine.memory.folios.files[SHARED_FILE, 0]

    machine = SmallMachine(Thread(0, body))
    assert not machine.run().violations


def test_a_folio_that_is_in_no_cache_is_only_made_if_it_is_asked_for() -> None:
    async def body(cpu: PerCpu) -> None:
        assert await filemap_get_folio(cpu, SHARED_FILE, 3, False) == -1
        await ext4_buffered_write_iter(cpu, SHARED_FILE, 3, 9)
        assert await filemap_get_folio(cpu, SHARED_FILE, 3, False) >= 0
        await filemap_put_folio(SHARED_FILE, 3, machine.memory.folios.page_cache[SHARED_FILE, 3])

    machine = SmallMachine(Thread(0, body))
    assert not machine.run().violations
