"""The NUMA scanner: which pages a scan goes through, what counts, and where the next one goes on."""

from __future__ import annotations

import pytest

from emulator.hardware.operations import GetPte, Load
from emulator.hardware.pte import pte_protnone
from emulator.kernel.fair import numa_scan_offset_word, task_numa_work
from emulator.kernel.percpu import PerCpu
from emulator.kernel.user import user_read, user_write
from emulator.memory.page_table import VM_READ, VM_WRITE, Vma
from tests.kernel.small_machine import HEAP, SmallMachine, Thread, demote

MM = 1
FIRST = Vma(HEAP, HEAP + 40, VM_READ | VM_WRITE, 0)
SECOND = Vma(HEAP + 50, HEAP + 60, VM_READ | VM_WRITE, 0)


def scans(count: int, slow: set[int], step: int) -> list[tuple[list[int], int]]:
    """Of each scan the pages that it made inaccessible, and where the next one begins.

    All pages of both areas are mapped, `slow` (from the start of the first) in the slow tier.
    """
    found: list[tuple[list[int], int]] = []

    async def body(cpu: PerCpu) -> None:
        pages = [*range(FIRST.start, FIRST.end), *range(SECOND.start, SECOND.end)]
        for vpn in pages:
            await user_write(cpu, vpn, 1)
        await demote(cpu, *sorted(HEAP + page for page in slow))
        before: set[int] = set()
        for scan in range(1, count + 1):
            await task_numa_work(cpu, MM, ((FIRST.start, FIRST.end), (SECOND.start, SECOND.end)), scan)
            marked = {vpn - HEAP for vpn in pages if pte_protnone(await GetPte(MM, vpn))}
            offset = await Load(numa_scan_offset_word(MM))
            found.append((sorted(marked - before), offset - HEAP if offset else 0))
            before = marked

    machine = SmallMachine(
        Thread(0, body), areas=(FIRST, SECOND), numa_scan_pages=step, numa_scan_period_accesses=1
    ).run()
    assert not machine.violations
    assert machine.vmstat("numa_scans") == count
    assert machine.vmstat("numa_pte_updates") == sum(len(marked) for marked, _ in found)
    return found


def test_a_scan_goes_on_where_the_last_one_stopped_and_starts_over_at_the_end() -> None:
    everything = {*range(40), *range(50, 60)}
    assert scans(5, everything, 15) == [
        ([*range(15)], 15),
        ([*range(15, 30)], 30),
        ([*range(30, 40), *range(50, 55)], 55),
        ([*range(55, 60)], 0),
        ([], 0),
    ]


def test_what_has_nothing_to_mark_is_gone_through_for_nothing() -> None:
    """Steps of 4 without a page of the slow tier do not count; pages beside one in a step do."""
    assert scans(3, {17, 18, 52}, 4) == [
        ([17, 18], 20),
        # 20 pages of the first area, then two of the second before the step that has one.
        ([52], 54),
        ([], 0),
    ]


def test_a_scan_looks_at_eight_times_what_it_may_mark_and_no_more() -> None:
    assert scans(3, {39, 50}, 4) == [([], 32), ([39], 40), ([50], 54)]
    assert scans(3, {39, 59}, 2) == [([], 16), ([], 32), ([39], 40)]


def test_a_step_larger_than_all_areas_is_one_scan_of_everything() -> None:
    assert scans(2, {0, 59}, 1000) == [([0, 59], 0), ([], 0)]


def test_a_scan_that_ends_with_the_last_page_is_followed_by_one_from_the_start() -> None:
    async def body(cpu: PerCpu) -> None:
        last = SECOND.end - 1
        await user_write(cpu, last, 1)
        await demote(cpu, last)
        for scan in (1, 2):
            await task_numa_work(cpu, MM, ((SECOND.start, SECOND.end),), scan)
            assert pte_protnone(await GetPte(MM, last))
            assert await Load(numa_scan_offset_word(MM)) == SECOND.end
            assert await user_read(cpu, last) == 1

    pages = SECOND.end - SECOND.start
    machine = SmallMachine(
        Thread(0, body),
        areas=(SECOND,),
        numa_scan_pages=pages,
        numa_scan_period_accesses=1,
        numa_promotes=False,
    )
    assert not machine.run().violations


@pytest.mark.parametrize("step", [1, 3, 7, 64])
def test_every_page_gets_its_turn(step: int) -> None:
    slow = {0, 13, 38, 39, 50, 59}
    marked = [page for scan, _ in scans(60, slow, step) for page in scan]
    assert sorted(marked) == sorted(slow)
