"""The NUMA balancing scanner (kernel/sched/fair.c: task_numa_work, v6.6).

Each mm has one scan position and one time of its next scan; the first of its threads to find it due
wins the right to scan. A thread's time is the number of its accesses, because that is the only
notion of time that every engine has.
"""

from __future__ import annotations

from emulator.hardware.operations import AtomicAdd, AtomicCmpxchg, Load
from emulator.kernel.mprotect import change_prot_numa
from emulator.kernel.percpu import PerCpu


async def task_numa_work(cpu: PerCpu, mm: int, areas: tuple[tuple[int, int], ...]) -> None:
    """Make the next `numa_scan_pages` pages of the mm's areas inaccessible, if this thread is due.

    `areas`: pages [start, end) of the areas that vma_migratable and not read-only shared files.
    """
    parameters = cpu.parameters
    if not parameters.numa_scan_pages or cpu.accesses < cpu.numa_scan_at:
        return
    period = cpu.accesses // parameters.numa_scan_period_accesses
    cpu.numa_scan_at = (period + 1) * parameters.numa_scan_period_accesses
    # Of the threads that get here in the same period one wins (mm->numa_next_scan).
    last = await Load(f"numa_scan_period.{mm}")
    if period <= last or await AtomicCmpxchg(f"numa_scan_period.{mm}", last, period) != last:
        return
    total = sum(end - start for start, end in areas)
    if not total:
        return
    step = min(parameters.numa_scan_pages, total)
    position = (await AtomicAdd(f"numa_scan_offset.{mm}", step) - step) % total
    cpu.count("numa_scans")
    for start, end in areas:
        if position >= end - start:
            position -= end - start
            continue
        # Up to the end of a huge page, where the next scan goes on.
        first = min(parameters.hpage_align(start + position), end) if position else start
        last = min(parameters.hpage_align(start + position + step), end)
        if first < last:
            await change_prot_numa(cpu, mm, first, last)
        step -= min(step, end - start - position)
        position = 0
        if not step:
            return
