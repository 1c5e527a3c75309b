"""Reclaim by demotion (mm/vmscan.c, v6.6): kswapd, aging of the LRU lists, demoting cold folios.

The fast tier's reclaim is migration to the slow tier; there is no swap. Folios go in batches of
SWAP_CLUSTER_MAX, which is also the size of the unmap batches that flush.
"""

from __future__ import annotations

from emulator.hardware.operations import (
    FolioPutbackLru,
    IsolateLru,
    NrLru,
    SmpMb,
    Store,
)
from emulator.kernel.migrate import migrate_pages
from emulator.kernel.mmzone import (
    FAST_NODE,
    KSWAPD_STOPPED,
    KSWAPD_WAITING,
    WMARK_PROMO,
    kswapd_pid,
    zone_watermark_ok,
)
from emulator.kernel.percpu import PerCpu, Task
from emulator.kernel.policy import MR_DEMOTION
from emulator.kernel.rmap import folio_referenced
from emulator.kernel.sched import cond_resched, schedule

SLOW_NODE = 1
MAX_RECLAIM_RETRIES = 16


async def shrink_active_list(cpu: PerCpu, node: int, pages: int) -> None:
    """shrink_active_list: the oldest active folios become inactive, their accessed bits cleared."""
    for pfn in await IsolateLru(node, True, pages):
        await folio_referenced(pfn)
        cpu.count("pgdeactivate")
        await FolioPutbackLru(pfn, False)


async def demote_folio_list(cpu: PerCpu, folios: list[int]) -> int:
    """demote_folio_list: move isolated folios to the slow tier; how many went."""
    moved, failed = await migrate_pages(cpu, folios, SLOW_NODE, MR_DEMOTION)
    for pfn in failed:
        await FolioPutbackLru(pfn, True)
    return len(moved)


async def shrink_inactive_list(cpu: PerCpu, node: int, pages: int) -> int:
    """shrink_inactive_list, shrink_folio_list: keep what was used, demote the rest; pages demoted."""
    cold = []
    for pfn in await IsolateLru(node, False, pages):
        cpu.count("pgscan")
        if await folio_referenced(pfn):
            cpu.count("pgactivate")
            await FolioPutbackLru(pfn, True)
        else:
            cold.append(pfn)
    return await demote_folio_list(cpu, cold) if cold else 0


async def shrink_node(cpu: PerCpu, node: int) -> int:
    """shrink_node: one round over both lists; pages demoted."""
    cluster = cpu.parameters.swap_cluster_max
    active, inactive = await NrLru(node)
    if inactive < active:
        await shrink_active_list(cpu, node, cluster)
    return await shrink_inactive_list(cpu, node, cluster)


async def try_to_free_pages(cpu: PerCpu, node: int) -> int:
    """try_to_free_pages: direct reclaim by a task that could not allocate; pages demoted."""
    if node != FAST_NODE:
        return 0
    demoted = 0
    for _ in range(MAX_RECLAIM_RETRIES):
        demoted = await shrink_node(cpu, node)
        if demoted:
            break
    cpu.count("pgdemote_direct", demoted)
    return demoted


async def pgdat_balanced(cpu: PerCpu, node: int) -> bool:
    """pgdat_balanced: with memory tiering, kswapd aims at the promotion watermark."""
    return await zone_watermark_ok(cpu, node, 0, WMARK_PROMO)


async def kswapd(cpu: PerCpu, task: Task, node: int) -> None:
    """kswapd of one node: demote until balanced, then sleep until woken; kthread_stop ends it."""
    assert task.pid == kswapd_pid(node)
    waiting = f"{KSWAPD_WAITING}.{node}"
    failures = 0
    while not task.should_stop:
        if failures < MAX_RECLAIM_RETRIES and not await pgdat_balanced(cpu, node):
            demoted = await shrink_node(cpu, node)
            cpu.count("pgdemote_kswapd", demoted)
            failures = 0 if demoted else failures + 1
            await cond_resched(cpu)
            continue
        # prepare_to_wait: from here on a waker makes the task runnable again. Announcing it before
        # looking once more is what keeps a wake-up from being lost between the look and the sleep.
        task.runnable = False
        await Store(waiting, 1)
        await SmpMb()
        if failures < MAX_RECLAIM_RETRIES and not await pgdat_balanced(cpu, node):
            task.runnable = True
            continue
        if task.should_stop:
            task.runnable = True
            break
        await schedule(cpu)
        failures = 0
    await Store(KSWAPD_STOPPED, 1)
