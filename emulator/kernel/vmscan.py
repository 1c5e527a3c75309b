"""Reclaim of the fast tier (mm/vmscan.c, v6.6): kswapd, aging of the LRU lists, demoting cold folios.

That is migration to the slow tier and, where that has no room, dropping pages of files; there is no swap.
Folios go in batches of SWAP_CLUSTER_MAX, which is also the size of the unmap batches that flush.
"""

from __future__ import annotations

from math import isqrt
from typing import Final, NamedTuple

from emulator.hardware.operations import (
    AtomicAdd,
    AtomicXchg,
    FolioClearFlag,
    FolioPutbackLru,
    FolioSetFlag,
    FolioTestFlag,
    IsolateLru,
    Load,
    NrLru,
    SmpMb,
    Store,
)
from emulator.kernel.migrate import folio_order, migrate_pages
from emulator.kernel.mmzone import (
    FAST_NODE,
    KSWAPD_STOPPED,
    KSWAPD_WAITING,
    WMARK_PROMO,
    kswapd_pid,
    zone_watermark_ok,
)
from emulator.kernel.pageout import shrink_file_folios
from emulator.kernel.percpu import PF_KSWAPD, PerCpu, Task
from emulator.kernel.policy import MR_DEMOTION
from emulator.kernel.rmap import folio_referenced
from emulator.kernel.sched import THREADS_DONE, cond_resched, schedule, wake_up_process
from emulator.memory.folios import PG_REFERENCED

SLOW_NODE = 1
MAX_RECLAIM_RETRIES = 16
DEF_PRIORITY = 12  # the first pass looks at 1/4096 of a list
PRIORITY_BITS: Final = 4

_GIB: Final = 1 << 18  # in pages

FOLIOREF_RECLAIM = "reclaim"
FOLIOREF_KEEP = "keep"
FOLIOREF_ACTIVATE = "activate"


def inactive_is_low(cpu: PerCpu, active: int, inactive: int) -> bool:
    """inactive_is_low: whether the inactive list of so many pages is short beside the active one.

    With less than 1 GiB on both lists it shall be as long; from there on the ratio is the root of ten times
    the size in GiB: of 1 GiB a quarter is enough, of 10 GiB an eleventh.
    """
    gib = (inactive + active) * cpu.parameters.memory_scale // _GIB
    ratio = isqrt(10 * gib) if gib else 1
    return inactive * ratio < active


async def shrink_active_list(cpu: PerCpu, node: int, pages: int) -> None:
    """shrink_active_list: the oldest active folios become inactive, their accessed bits cleared."""
    for pfn in await IsolateLru(node, True, pages):
        await folio_referenced(cpu, pfn)
        cpu.count("pgdeactivate", 1 << await folio_order(cpu, pfn))
        await FolioPutbackLru(pfn, False)


async def demote_folio_list(cpu: PerCpu, folios: list[int]) -> list[int]:
    """demote_folio_list: move isolated folios to the slow tier; those that stayed, still isolated."""
    before = cpu.remote_flushes()
    _, failed = await migrate_pages(cpu, folios, SLOW_NODE, MR_DEMOTION)
    cpu.count_flushes("tlb_remote_flush_demotion", before)
    return failed


async def folio_check_references(cpu: PerCpu, pfn: int) -> str:
    """folio_check_references: what becomes of a folio at the end of the inactive list.

    One that was used once since the last look gets another round; one that was used in both rounds, or
    through several mappings, is active. (Anonymous folios and those of files alike, but executable ones.)
    """
    used = await folio_referenced(cpu, pfn)
    before = await FolioTestFlag(pfn, PG_REFERENCED)
    if not used:
        if before:
            await FolioClearFlag(pfn, PG_REFERENCED)
        return FOLIOREF_RECLAIM
    if not before:
        await FolioSetFlag(pfn, PG_REFERENCED)
    return FOLIOREF_ACTIVATE if before or used > 1 else FOLIOREF_KEEP


async def shrink_inactive_list(cpu: PerCpu, node: int, pages: int) -> int:
    """shrink_inactive_list, shrink_folio_list: keep what was used, demote the rest; pages that went.

    The second round is for what the slow tier has no room for: pages of files go back to their files.
    """
    cold = []
    cold_pages = 0
    for pfn in await IsolateLru(node, False, pages):
        size = 1 << await folio_order(cpu, pfn)
        cpu.count("pgscan", size)
        references = await folio_check_references(cpu, pfn)
        if references == FOLIOREF_RECLAIM:
            cold.append(pfn)
            cold_pages += size
        elif references == FOLIOREF_ACTIVATE:
            cpu.count("pgactivate", size)
            await FolioPutbackLru(pfn, True)
        else:
            await FolioPutbackLru(pfn, False)
    if not cold:
        return 0
    is_kswapd = cpu.current.flags & PF_KSWAPD != 0
    failed = await demote_folio_list(cpu, cold)
    left = sum([1 << await folio_order(cpu, pfn) for pfn in failed])
    cpu.count("pgdemote_kswapd" if is_kswapd else "pgdemote_direct", cold_pages - left)
    kept = await shrink_file_folios(cpu, failed, is_kswapd) if failed else []
    for pfn in kept:
        cold_pages -= 1 << await folio_order(cpu, pfn)
        await FolioPutbackLru(pfn, True)
    return cold_pages


async def shrink_node(cpu: PerCpu, node: int, priority: int, nr_to_reclaim: int) -> int:
    """shrink_node, shrink_lruvec: one pass over 1/2^priority of both lists, a cluster at a time, until
    `nr_to_reclaim` pages went; how many did.

    The share is that of lists as long as on the machine that is meant, as clusters are not divided either.
    """
    cluster = cpu.parameters.swap_cluster_max
    active, inactive = await NrLru(node)
    may_deactivate = inactive_is_low(cpu, active, inactive)
    scale = cpu.parameters.memory_scale
    active = min(active, active * scale >> priority)
    inactive = min(inactive, inactive * scale >> priority)
    demoted = 0
    while inactive and demoted < nr_to_reclaim:
        if active:
            if may_deactivate:
                await shrink_active_list(cpu, node, min(active, cluster))
            active -= min(active, cluster)
        demoted += await shrink_inactive_list(cpu, node, min(inactive, cluster))
        inactive -= min(inactive, cluster)
        await end_of_batch(cpu)
    active, inactive = await NrLru(node)
    if inactive_is_low(cpu, active, inactive):
        await shrink_active_list(cpu, node, cluster)
    return demoted


async def end_of_batch(cpu: PerCpu) -> None:
    """cond_resched, as often as a time slice ends: a batch is much shorter than one."""
    cpu.reclaim_batches += 1
    if cpu.reclaim_batches % cpu.parameters.sched_slice_batches == 0:
        await cond_resched(cpu)


async def try_to_free_pages(cpu: PerCpu, node: int) -> int:
    """try_to_free_pages: direct reclaim by a task that could not allocate; pages that went."""
    if node != FAST_NODE:
        return 0
    cluster = cpu.parameters.swap_cluster_max
    demoted = 0
    for priority in range(DEF_PRIORITY, -1, -1):
        demoted += await shrink_node(cpu, node, priority, cluster)
        if demoted >= cluster:
            break
    return demoted


async def pgdat_balanced(cpu: PerCpu, node: int) -> bool:
    """pgdat_balanced: with memory tiering, kswapd aims at the promotion watermark."""
    return await zone_watermark_ok(cpu, node, 0, WMARK_PROMO)


class Balance(NamedTuple):
    """How far kswapd has come: pages demoted, and the priority of the next pass, 0 if there is none."""

    demoted: int
    priority: int


async def balance_pgdat(cpu: PerCpu, node: int, priority: int) -> Balance:
    """balance_pgdat: scan more and more of the lists until the node is balanced.

    A pass that demotes nothing, or does not get through what it was to reclaim, is followed by one over twice
    as much. It breaks off where its time slice is over and others wait for this CPU.
    """
    cluster = cpu.parameters.swap_cluster_max
    nr_to_reclaim = max(cpu.parameters.watermarks[node].high, cluster)
    slice_end = cpu.reclaim_batches + cpu.parameters.sched_slice_batches
    total = 0
    while priority >= 1 and not await pgdat_balanced(cpu, node):
        # kswapd_age_node
        active, inactive = await NrLru(node)
        if inactive_is_low(cpu, active, inactive):
            await shrink_active_list(cpu, node, cluster)
        demoted = await shrink_node(cpu, node, priority, nr_to_reclaim)
        total += demoted
        if demoted < nr_to_reclaim:
            priority -= 1
        await end_of_batch(cpu)
        if cpu.runqueue and cpu.reclaim_batches >= slice_end:
            return Balance(total, priority)
    return Balance(total, 0)


async def kswapd(cpu: PerCpu, task: Task, node: int) -> None:
    """kswapd of one node, when it is on this CPU: demote until balanced, then sleep until woken; kthread_stop
    ends it.

    A task that goes from CPU to CPU is one task for each CPU here, all asleep but for one: whoever takes the
    word that says that kswapd sleeps wakes the one of his CPU. Where others wait for the CPU, it goes on on
    the next one: with more tasks than CPUs, load_balance keeps moving them around.
    """
    assert task.pid == kswapd_pid(node)
    waiting = f"{KSWAPD_WAITING}.{node}"
    progress = f"kswapd_progress.{node}"  # of which there is one for all CPUs: failures, then the priority
    failures, priority = 0, DEF_PRIORITY
    while not task.should_stop:
        if failures < MAX_RECLAIM_RETRIES and not await pgdat_balanced(cpu, node):
            demoted, priority = await balance_pgdat(cpu, node, priority)
            if demoted:
                failures = 0
            elif not priority:
                failures += 1
            priority = priority or DEF_PRIORITY
            # A thread that waits for others to end does not give way here, so nobody is sent to its CPU.
            if not cpu.runqueue or cpu.parameters.cpus == 1 or await Load(THREADS_DONE):
                continue
            await Store(progress, failures << PRIORITY_BITS | priority)
            task.runnable = False
            await wake_up_process(cpu, (cpu.number + 1) % cpu.parameters.cpus, task.pid)
        else:
            # prepare_to_wait: from here on a waker makes the task runnable again. Announcing it before
            # looking once more is what keeps a wake-up from being lost between the look and the sleep.
            task.runnable = False
            await Store(progress, DEF_PRIORITY)
            await Store(waiting, 1)
            await SmpMb()
            if (
                failures < MAX_RECLAIM_RETRIES
                and not await pgdat_balanced(cpu, node)
                and await AtomicXchg(waiting, 0)
            ):
                task.runnable = True
                continue
        if task.should_stop:
            task.runnable = True
            break
        await schedule(cpu)
        found = await Load(progress)
        failures, priority = found >> PRIORITY_BITS, found & (1 << PRIORITY_BITS) - 1
    await AtomicAdd(KSWAPD_STOPPED, 1)
