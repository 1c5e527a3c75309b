"""NUMA balancing with memory tiering (kernel/sched/fair.c, v6.6): the scanner, and which pages are hot.

Each mm has one scan position and one time of its next scan; the first of its threads to find it due
wins the right to scan. A thread's time is the number of its accesses, because that is the only
notion of time that every engine has; where threads share a loop it is how far the loop has come, which is the
same for all of them. A second is the period with which a task begins.
"""

from __future__ import annotations

from typing import Final

from emulator.hardware.operations import AtomicAdd, AtomicCmpxchg, FolioXchgAccessTime, Load, NrFree, Store
from emulator.kernel.migrate import folio_order
from emulator.kernel.mmzone import FAST_NODE, WMARK_PROMO, wmark_pages
from emulator.kernel.mprotect import change_prot_numa
from emulator.kernel.percpu import PerCpu

VIRTUAL_PAGES: Final = 8
"""A scan looks at up to so many pages of address space for each page that it may mark."""


NUMA_MIGRATION_ADJUST_STEPS: Final = 16
NUMA_PERIOD_SLOTS: Final = 10
NUMA_PERIOD_THRESHOLD: Final = 7

_ENOUGH_PAGES: Final = 1 << 18  # 1 GiB

# pgdat->nbp_* of the fast tier: the hot threshold (0: as set), since when it is so and how many pages were
# hot until then, the same for the second whose promotions are counted, and NR_PGPROMOTE_CANDIDATE.
NBP_THRESHOLD: Final = "nbp_threshold"
NBP_TH_START: Final = "nbp_th_start"
NBP_TH_NR_CAND: Final = "nbp_th_nr_cand"
NBP_RL_START: Final = "nbp_rl_start"
NBP_RL_NR_CAND: Final = "nbp_rl_nr_cand"
PGPROMOTE_CANDIDATE: Final = "pgpromote_candidate"


def numa_next_scan_word(mm: int) -> str:
    """mm->numa_next_scan: the time from which somebody may scan."""
    return f"numa_next_scan.{mm}"


def numa_scan_seq_word(mm: int) -> str:
    """mm->numa_scan_seq: how often everything has been gone through."""
    return f"numa_scan_seq.{mm}"


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
    cpu.numa_scan_at = now + cpu.numa_scan_period
    # Of the threads that get here in the same period one wins.
    next_scan = numa_next_scan_word(mm)
    due = await Load(next_scan)
    if now < due or await AtomicCmpxchg(next_scan, due, now + cpu.numa_scan_period) != due:
        return
    cpu.count("numa_scans")
    offset_word = numa_scan_offset_word(mm)
    offset = await Load(offset_word)
    if offset >= areas[-1][1]:
        # reset_ptenuma_scan
        await AtomicAdd(numa_scan_seq_word(mm), 1)
        offset = 0
    before = cpu.remote_flushes()
    offset = await _scan(cpu, mm, areas, offset)
    cpu.count_flushes("tlb_remote_flush_scan", before)
    if not offset:
        await AtomicAdd(numa_scan_seq_word(mm), 1)
    await Store(offset_word, offset)


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


async def task_numa_fault(cpu: PerCpu, mm: int, pages: int) -> None:
    """task_numa_fault, task_numa_placement: a promotion; the first after each pass adapts the scan period.

    What was promoted counts as a private fault on the task's own node, and faults on the slow tier do not
    count (their last_cpupid is a time), so that update_task_scan_period only ever makes the period longer, by
    three tenths. The longest is that of the setting, divided by the windows of a scan that the task's `pages`
    make (task_scan_max).
    """
    seq = await Load(numa_scan_seq_word(mm))
    if seq == cpu.numa_scan_seq:
        return
    cpu.numa_scan_seq = seq
    parameters = cpu.parameters
    first = parameters.numa_scan_period_accesses
    windows = max(1, pages // max(1, parameters.numa_scan_pages))
    slot = -(-cpu.numa_scan_period // NUMA_PERIOD_SLOTS)
    slower = cpu.numa_scan_period + (NUMA_PERIOD_SLOTS - NUMA_PERIOD_THRESHOLD) * slot
    cpu.numa_scan_period = min(slower, max(first, parameters.numa_scan_period_max // windows))


async def should_numa_migrate_memory(cpu: PerCpu, pfn: int) -> bool:
    """should_numa_migrate_memory of a page of the slow tier: whether a hint fault finds it hot.

    Hot is what is used within the threshold after the scan; everything, where the fast tier has more than
    enough free memory, or where there is no scanner and with it no time.
    """
    parameters = cpu.parameters
    if not parameters.numa_promotes or not parameters.numa_scan_pages:
        return parameters.numa_promotes
    if await pgdat_free_space_enough(cpu):
        await Store(NBP_THRESHOLD, 0)
        return True
    await numa_promotion_adjust_threshold(cpu)
    threshold = await Load(NBP_THRESHOLD) or parameters.numa_hot_threshold
    now = cpu.now
    if now - await FolioXchgAccessTime((pfn,), now) >= threshold:
        return False
    return not await numa_promotion_rate_limit(cpu, 1 << await folio_order(cpu, pfn))


async def pgdat_free_space_enough(cpu: PerCpu) -> bool:
    """pgdat_free_space_enough: 1 GiB, and a sixteenth of the node, beyond what kswapd keeps free."""
    parameters = cpu.parameters
    present = parameters.starts[FAST_NODE + 1] - parameters.starts[FAST_NODE]
    enough = max(_ENOUGH_PAGES // parameters.memory_scale, present >> 4)
    if enough >= present:
        return False
    return await NrFree(FAST_NODE) > wmark_pages(cpu, FAST_NODE, WMARK_PROMO) + enough


async def numa_promotion_adjust_threshold(cpu: PerCpu) -> None:
    """numa_promotion_adjust_threshold: once in the longest scan period, an eighth up or down.

    Up to twice the one that is set while fewer pages are hot than the rate limit lets pass, as it is with
    the limit that a kernel has at first.
    """
    parameters = cpu.parameters
    now = cpu.now
    period = parameters.numa_scan_period_max
    start = await Load(NBP_TH_START)
    if now - start <= period or await AtomicCmpxchg(NBP_TH_START, start, now) != start:
        return
    reference = parameters.numa_hot_threshold
    wanted = parameters.numa_promote_rate_pages * period // parameters.numa_scan_period_accesses
    candidates = await Load(PGPROMOTE_CANDIDATE)
    found = candidates - await Load(NBP_TH_NR_CAND)
    unit = reference * 2 // NUMA_MIGRATION_ADJUST_STEPS
    threshold = await Load(NBP_THRESHOLD) or reference
    if found > wanted * 11 // 10:
        threshold = max(threshold - unit, unit)
    elif found < wanted * 9 // 10:
        threshold = min(threshold + unit, reference * 2)
    await Store(NBP_TH_NR_CAND, candidates)
    await Store(NBP_THRESHOLD, threshold)


async def numa_promotion_rate_limit(cpu: PerCpu, pages: int) -> bool:
    """numa_promotion_rate_limit: count hot pages; whether this second had more than may be promoted."""
    now = cpu.now
    cpu.count("pgpromote_candidate", pages)
    candidates = await AtomicAdd(PGPROMOTE_CANDIDATE, pages)
    start = await Load(NBP_RL_START)
    second = cpu.parameters.numa_scan_period_accesses
    if now - start > second and await AtomicCmpxchg(NBP_RL_START, start, now) == start:
        await Store(NBP_RL_NR_CAND, candidates)
    return candidates - await Load(NBP_RL_NR_CAND) >= cpu.parameters.numa_promote_rate_pages
