"""The NUMA balancing scanner (kernel/sched/fair.c: task_numa_work, v6.6).

Each mm has one scan position and one time of its next scan; the first of its threads to find it due
wins the right to scan. A thread's time is the number of its accesses, because that is the only
notion of time that every engine has; where threads share a loop it is how far the loop has come, which is the
same for all of them.
"""

from __future__ import annotations

from typing import Final

from emulator.hardware.operations import AtomicCmpxchg, Load, Store
from emulator.kernel.mprotect import change_prot_numa
from emulator.kernel.percpu import PerCpu

VIRTUAL_PAGES: Final = 8
"""A scan looks at up to so many pages of address space for each page that it may mark."""


def numa_scan_offset_word(mm: int) -> str:
    """mm->numa_scan_offset: the page where the next scan goes on."""
    return f"numa_scan_offset.{mm}"


async def task_numa_work(cpu: PerCpu, mm: int, areas: tuple[tuple[int, int], ...], now: int) -> None:
    """Make the next `numa_scan_pages` pages of the mm's areas inaccessible, if this thread is due at `now`.

    `areas`: pages [start, end) of the areas that vma_migratable and not read-only shared files, ascending.
    Ranges in which there was nothing to mark do not count, but for the address space that is gone through.
    A scan ends with the last area; the next one begins with the first. Without areas no time goes by.
    """
    parameters = cpu.parameters
    if not areas or not parameters.numa_scan_pages or now < cpu.numa_scan_at:
        return
    period = now // parameters.numa_scan_period_accesses
    cpu.numa_scan_at = (period + 1) * parameters.numa_scan_period_accesses
    # Of the threads that get here in the same period one wins (mm->numa_next_scan).
    last = await Load(f"numa_scan_period.{mm}")
    if period <= last or await AtomicCmpxchg(f"numa_scan_period.{mm}", last, period) != last:
        return
    cpu.count("numa_scans")
    offset_word = numa_scan_offset_word(mm)
    offset = await Load(offset_word)
    if offset >= areas[-1][1]:
        offset = 0
    await Store(offset_word, await _scan(cpu, mm, areas, offset))


async def _scan(cpu: PerCpu, mm: int, areas: tuple[tuple[int, int], ...], offset: int) -> int:
    """One scan from page `offset` on; where the next one goes on, 0 for the beginning."""
    pages = cpu.parameters.numa_scan_pages
    virtual = VIRTUAL_PAGES * pages
    for first, last in areas:
        start = max(offset, first)
        while start < last:
            # Up to the end of a huge page, where the next scan goes on.
            end = min(cpu.parameters.hpage_align(start + pages), last)
            if await change_prot_numa(cpu, mm, start, end):
                pages -= end - start
            virtual -= end - start
            start = end
            if pages <= 0 or virtual <= 0:
                return start
    return 0
