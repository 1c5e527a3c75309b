"""Page faults: who gets which page, and what other CPUs may still see of the old one."""

from __future__ import annotations

import pytest

from emulator.hardware.operations import FolioCopy, GetPte, LruAdd, SendIpi
from emulator.hardware.pte import RW, pte_pfn, pte_protnone, pte_write
from emulator.kernel.memory import SegmentationFault
from emulator.kernel.mprotect import change_prot_numa
from emulator.kernel.percpu import PerCpu
from emulator.kernel.user import user_read, user_write
from tests.kernel.small_machine import (
    FILE,
    HEAP,
    PAGES,
    SHARED,
    SmallMachine,
    Thread,
    after,
    demote,
    mark,
    random_body,
)

PROCESSORS = pytest.mark.parametrize("architecture", ["sc", "x86"])


@PROCESSORS
def test_anonymous_pages_start_at_zero_and_belong_to_one_process(architecture: str) -> None:
    async def body(cpu: PerCpu) -> None:
        assert await user_read(cpu, HEAP) == 0
        await user_write(cpu, HEAP, cpu.number + 5)
        assert await user_read(cpu, HEAP) == cpu.number + 5

    for seed in range(100):
        machine = SmallMachine(Thread(0, body, 1), Thread(1, body, 2), architecture=architecture).run(seed)
        assert not machine.violations
        assert machine.memory.folios.zones[0].nr_free == 64


@PROCESSORS
def test_a_file_page_is_read_in_once_for_all(architecture: str) -> None:
    async def body(cpu: PerCpu) -> None:
        for page in range(4):
            assert await user_read(cpu, FILE + page) == 0

    for seed in range(100):
        machine = SmallMachine(Thread(0, body, 1), Thread(1, body, 2), architecture=architecture).run(seed)
        assert not machine.violations
        assert machine.vmstat("pgmajfault") == 4
        assert machine.memory.folios.zones[0].nr_free == 60


@PROCESSORS
def test_a_shared_file_page_is_one_page_for_both_processes(architecture: str) -> None:
    async def writer(cpu: PerCpu) -> None:
        await user_write(cpu, SHARED, 7)
        await mark("written")

    async def reader(cpu: PerCpu) -> None:
        await after("written")
        assert await user_read(cpu, SHARED) == 7

    for seed in range(50):
        machine = SmallMachine(Thread(0, writer, 1), Thread(1, reader, 2), architecture=architecture)
        assert not machine.run(seed).violations


@PROCESSORS
def test_a_private_write_to_a_file_page_leaves_the_file_alone(architecture: str) -> None:
    """Read first (wp_page_copy) or not (do_cow_fault): the other process goes on reading the file."""

    async def writer(cpu: PerCpu) -> None:
        await user_read(cpu, FILE)
        await user_write(cpu, FILE, 7)
        await user_write(cpu, FILE + 1, 8)
        assert [await user_read(cpu, FILE), await user_read(cpu, FILE + 1)] == [7, 8]
        await mark("written")

    async def reader(cpu: PerCpu) -> None:
        await after("written")
        assert [await user_read(cpu, FILE), await user_read(cpu, FILE + 1)] == [0, 0]

    for seed in range(50):
        machine = SmallMachine(Thread(0, writer, 1), Thread(1, reader, 2), architecture=architecture)
        assert not machine.run(seed).violations
        assert machine.vmstat("pgcow") == 1


@PROCESSORS
def test_nobody_reads_the_old_page_after_a_copy_on_write(architecture: str) -> None:
    """A second CPU of the process has the old page cached; what it reads never goes back in time."""
    for seed in range(200):
        seen: list[int] = []

        async def writer(cpu: PerCpu) -> None:
            await after("cached")
            await user_write(cpu, FILE, 1)
            await mark("written")
            await user_write(cpu, FILE, 2)

        async def reader(cpu: PerCpu, seen: list[int] = seen) -> None:
            await user_read(cpu, FILE)
            await mark("cached")
            seen += [await user_read(cpu, FILE) for _ in range(8)]
            await after("written")
            assert await user_read(cpu, FILE) >= 1

        machine = SmallMachine(Thread(0, writer), Thread(1, reader), architecture=architecture).run(seed)
        assert not machine.violations
        assert seen == sorted(seen)


def test_a_page_of_ones_own_is_reused_and_needs_no_flush() -> None:
    async def body(cpu: PerCpu) -> None:
        await user_read(cpu, HEAP)
        before = await GetPte(1, HEAP)
        await after("cached")
        await user_write(cpu, HEAP, 3)
        assert pte_pfn(await GetPte(1, HEAP)) == pte_pfn(before)
        assert "nr_tlb_remote_flush" not in cpu.vmstat

    async def other(cpu: PerCpu) -> None:
        await user_read(cpu, HEAP)
        await mark("cached")

    machine = SmallMachine(Thread(0, body), Thread(1, other)).run()
    assert not machine.violations
    assert machine.vmstat("pgcow") == 0


def test_a_page_being_copied_is_not_moved_away_under_the_copy() -> None:
    """CPU 1 wants to demote the page that CPU 0 is about to copy for its write."""

    async def writer(cpu: PerCpu) -> None:
        await user_read(cpu, FILE)
        await mark("cached")
        await user_write(cpu, FILE, 7)

    async def mover(cpu: PerCpu) -> None:
        await after("cached")
        assert await demote(cpu, FILE) == 0
        await mark("tried")

    machine = SmallMachine(Thread(0, writer), Thread(1, mover))
    machine.drive(0, machine.at(0, FolioCopy))
    machine.drive(1, machine.marked("tried"))
    assert not machine.run().violations


def test_a_file_page_on_its_way_has_its_content_when_others_find_it() -> None:
    """The page cache names the destination only once it has the content."""
    seen = []

    async def mover(cpu: PerCpu) -> None:
        await user_write(cpu, SHARED, 77)
        await mark("written")
        await demote(cpu, SHARED)

    async def reader(cpu: PerCpu) -> None:
        await after("written")
        seen.append(await user_read(cpu, SHARED))
        await mark("read")

    machine = SmallMachine(Thread(0, mover), Thread(1, reader, 2))
    machine.drive(0, machine.marked("written"))
    machine.drive(0, machine.at(0, LruAdd))
    machine.drive(1, machine.marked("read"))
    assert seen == [77]
    assert not machine.run().violations


@PROCESSORS
def test_a_hint_fault_promotes_and_the_page_comes_back_read_only(architecture: str) -> None:
    async def body(cpu: PerCpu) -> None:
        await user_write(cpu, HEAP, 9)
        await after("cached")
        await demote(cpu, HEAP)
        assert pte_write(await GetPte(1, HEAP))
        await change_prot_numa(cpu, 1, HEAP, HEAP + 1)
        hinted = await GetPte(1, HEAP)
        assert pte_protnone(hinted) and not hinted & RW
        flushes = cpu.vmstat["nr_tlb_remote_flush"]
        assert await user_read(cpu, HEAP) == 9
        # An inaccessible entry is in no TLB: nothing to flush.
        assert cpu.vmstat["nr_tlb_remote_flush"] == flushes
        promoted = await GetPte(1, HEAP)
        assert cpu.parameters.nid(pte_pfn(promoted)) == 0
        assert not pte_write(promoted)
        await user_write(cpu, HEAP, 10)
        assert await user_read(cpu, HEAP) == 10
        await mark("done")

    async def other(cpu: PerCpu) -> None:
        await user_read(cpu, HEAP)
        await mark("cached")
        await after("done")

    machine = SmallMachine(Thread(0, body), Thread(1, other), architecture=architecture).run()
    assert not machine.violations
    assert machine.vmstat("pgpromote_success") == machine.vmstat("numa_hint_faults") == 1


@PROCESSORS
def test_an_inaccessible_entry_whose_flush_is_still_to_come_may_be_cached(architecture: str) -> None:
    """CPU 0 has made the page PROT_NONE but not flushed; CPU 1 promotes it; CPU 2 has it cached."""

    async def scanner(cpu: PerCpu) -> None:
        await user_read(cpu, HEAP)
        await demote(cpu, HEAP)
        await mark("demoted")
        await after("cached")
        await change_prot_numa(cpu, 1, HEAP, HEAP + 1)

    async def promoter(cpu: PerCpu) -> None:
        await after("cached")
        await user_read(cpu, HEAP)
        await mark("promoted")

    async def late(cpu: PerCpu) -> None:
        await after("demoted")
        await user_read(cpu, HEAP)
        await mark("cached")
        await after("promoted")
        await user_read(cpu, HEAP)
        await mark("read")

    machine = SmallMachine(
        Thread(0, scanner), Thread(1, promoter), Thread(2, late), cpus=3, architecture=architecture
    )
    machine.drive(0, machine.marked("demoted"))
    machine.drive(2, machine.marked("cached"))
    machine.drive(0, machine.at(0, SendIpi))
    machine.drive(1, machine.marked("promoted"))
    machine.drive(2, machine.marked("read"))
    assert not machine.run().violations


@pytest.mark.parametrize("vpn", [HEAP + PAGES, HEAP - 1])
def test_outside_every_area_is_a_segmentation_fault(vpn: int) -> None:
    async def body(cpu: PerCpu) -> None:
        with pytest.raises(SegmentationFault, match="outside every area"):
            await user_read(cpu, vpn)

    SmallMachine(Thread(0, body)).run()


@PROCESSORS
@pytest.mark.parametrize("processes", [1, 2])
def test_random_runs_are_in_order(processes: int, architecture: str) -> None:
    actions = ("read", "read", "write", "write", "hint", "demote", "promote")
    for seed in range(150):
        cpus = 2 + seed % 3
        threads = [
            Thread(number % cpus, random_body(seed, 15, actions, 2), 1 + number % processes)
            for number in range(cpus + 1)
        ]
        machine = SmallMachine(*threads, cpus=cpus, architecture=architecture, migrate_batch=3).run(seed)
        assert not machine.violations, (seed, machine.violations[0])
