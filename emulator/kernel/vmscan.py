"""Reclaim of both tiers (mm/vmscan.c, v6.6): kswapd, aging of the LRU lists, demoting cold folios.

That is migration to the slow tier and, where that has no room or there is none, dropping pages of files.
There is no swap. Folios go in batches of SWAP_CLUSTER_MAX, which is also the size of the unmap batches
that flush.
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
    NrFree,
    NrLru,
    SmpMb,
    Store,
)
from emulator.kernel.migrate import folio_order, migrate_pages
from emulator.kernel.mmzone import (
    FAST_NODE,
    KSWAPD_STOPPED,
    KSWAPD_WAITING,
    MAX_RECLAIM_RETRIES,
    PRIORITY_BITS,
    WMARK_PROMO,
    kswapd_pid,
    kswapd_progress,
    zone_watermark_ok,
)
from emulator.kernel.pageout import shrink_file_folios
from emulator.kernel.percpu import PF_KSWAPD, PerCpu, Task
from emulator.kernel.policy import MR_DEMOTION
from emulator.kernel.rmap import folio_referenced
from emulator.kernel.sched import THREADS_DONE, cond_resched, schedule, wake_up_process
from emulator.memory.folios import PG_REFERENCED

SLOW_NODE = 1
DEF_PRIORITY = 12  # the first pass looks at 1/4096 of a list

_GIB: Final = 1 << 18  # in pages

# LRU_*_ANON and LRU_*_FILE; and the two of each kind, in `Listed`.
ANON: Final = False
FILE: Final = True
ACTIVE: Final = 0
INACTIVE: Final = 1

# vm.swappiness, and what would be even (MAX_SWAPPINESS: of both kinds together).
SWAPPINESS: Final = 60
MAX_SWAPPINESS: Final = 200

FOLIOREF_RECLAIM = "reclaim"
FOLIOREF_KEEP = "keep"
FOLIOREF_ACTIVATE = "activate"


class Listed(NamedTuple):
    """Pages of a node's two lists of one kind, or how many of them are to be looked at."""

    active: int
    inactive: int


class Shrunk(NamedTuple):
    """Pages that went, and that were looked at."""

    reclaimed: int
    scanned: int


def can_demote(node: int) -> bool:
    """can_demote: whether there is a slower tier below the node."""
    return node == FAST_NODE


def lru_cost_word(node: int, file: bool) -> str:
    """lruvec->file_cost, lruvec->anon_cost: pages of that kind that were looked at in vain."""
    return f"{'file' if file else 'anon'}_cost.{node}"


def inactive_is_low(cpu: PerCpu, active: int, inactive: int) -> bool:
    """inactive_is_low: whether the inactive list of so many pages is short beside the active one.

    With less than 1 GiB on both lists it shall be as long; from there on the ratio is the root of ten times
    the size in GiB: of 1 GiB a quarter is enough, of 10 GiB an eleventh.
    """
    gib = (inactive + active) * cpu.parameters.memory_scale // _GIB
    ratio = isqrt(10 * gib) if gib else 1
    return inactive * ratio < active


async def shrink_active_list(cpu: PerCpu, node: int, pages: int, file: bool) -> None:
    """shrink_active_list: the oldest active folios become inactive, their accessed bits cleared."""
    for pfn in await IsolateLru(node, True, pages, file):
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


async def shrink_inactive_list(cpu: PerCpu, node: int, pages: int, file: bool) -> Shrunk:
    """shrink_inactive_list, shrink_folio_list: keep what was used, demote the rest.

    What has no slower tier below it, or no room there, can go if it is a page of a file, back to that.
    """
    cold = []
    scanned = cold_pages = 0
    for pfn in await IsolateLru(node, False, pages, file):
        size = 1 << await folio_order(cpu, pfn)
        cpu.count("pgscan", size)
        scanned += size
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
        return Shrunk(0, scanned)
    is_kswapd = cpu.current.flags & PF_KSWAPD != 0
    left = cold
    if can_demote(node):
        left = await demote_folio_list(cpu, cold)
        left_pages = sum([1 << await folio_order(cpu, pfn) for pfn in left])
        cpu.count("pgdemote_kswapd" if is_kswapd else "pgdemote_direct", cold_pages - left_pages)
    kept = await shrink_file_folios(cpu, left, is_kswapd) if left else []
    for pfn in kept:
        cold_pages -= 1 << await folio_order(cpu, pfn)
        await FolioPutbackLru(pfn, True)
    return Shrunk(cold_pages, scanned)


async def lru_note_cost(cpu: PerCpu, node: int, file: bool, rotated: int, listed: int) -> None:
    """lru_note_cost: pages that were looked at in vain, by kind; halved when they are more than a quarter of
    what is `listed`. (Writing pages out costs nothing here.)"""
    cost = await AtomicAdd(lru_cost_word(node, file), rotated)
    other = await Load(lru_cost_word(node, not file))
    if cost + other > listed // 4:
        await Store(lru_cost_word(node, file), cost // 2)
        await Store(lru_cost_word(node, not file), other // 2)


async def get_scan_count(
    cpu: PerCpu, node: int, priority: int, anon: Listed, file: Listed
) -> tuple[Listed, Listed]:
    """prepare_scan_control, get_scan_count: how much to look at of both kinds' lists, in one pass.

    Anonymous folios only where they can be demoted, as there is no swap. Where hardly any pages of files are
    left, nothing else; where there are plenty of inactive ones, only those. Else swappiness and what has
    been looked at in vain decide. The share is that of lists as long as on the machine that is meant, as
    clusters are not divided either.
    """
    scale = cpu.parameters.memory_scale
    high = cpu.parameters.watermarks[node].high
    files = sum(file)
    of_anon, of_file = 0, 1
    if can_demote(node):
        if not priority:
            of_anon = 1
        elif (
            files <= high
            and not inactive_is_low(cpu, *anon)
            and anon.inactive * scale >> priority
            and files + await NrFree(node) <= high
        ):
            of_anon, of_file = 1, 0
        elif not file.inactive * scale >> priority or inactive_is_low(cpu, *file):
            anon_cost = await Load(lru_cost_word(node, ANON))
            file_cost = await Load(lru_cost_word(node, FILE))
            both = anon_cost + file_cost
            of_anon = SWAPPINESS * (3 * both + 1) // (both + anon_cost + 1)
            of_file = (MAX_SWAPPINESS - SWAPPINESS) * (3 * both + 1) // (both + file_cost + 1)
    whole = of_anon + of_file if priority else 1
    return (
        Listed(*[min(pages, (pages * scale >> priority) * of_anon // whole) for pages in anon]),
        Listed(*[min(pages, (pages * scale >> priority) * of_file // whole) for pages in file]),
    )


async def shrink_node(cpu: PerCpu, node: int, priority: int, nr_to_reclaim: int) -> Shrunk:
    """shrink_node, shrink_lruvec: one pass over 1/2^priority of all lists, a cluster at a time, until
    `nr_to_reclaim` pages went. Then the kind of which less is left is done, and the other is looked at in the
    same proportion.
    """
    cluster = cpu.parameters.swap_cluster_max
    sizes = Listed(*await NrLru(node, ANON)), Listed(*await NrLru(node, FILE))
    targets = await get_scan_count(cpu, node, priority, *sizes)
    left = [list(target) for target in targets]
    deactivates = [inactive_is_low(cpu, *size) for size in sizes]
    # Direct reclaim's first pass is not cut short.
    whole = priority == DEF_PRIORITY and not cpu.current.flags & PF_KSWAPD
    reclaimed = scanned = 0
    while left[ANON][INACTIVE] or any(left[FILE]):
        for file in (ANON, FILE):
            if inactive := min(left[file][INACTIVE], cluster):
                left[file][INACTIVE] -= inactive
                shrunk = await shrink_inactive_list(cpu, node, inactive, file)
                reclaimed += shrunk.reclaimed
                scanned += shrunk.scanned
                if cpu.parameters.rotation_costs:
                    rotated = shrunk.scanned - shrunk.reclaimed
                    await lru_note_cost(cpu, node, file, rotated, sum(map(sum, sizes)))
            if active := min(left[file][ACTIVE], cluster):
                left[file][ACTIVE] -= active
                if deactivates[file]:
                    await shrink_active_list(cpu, node, active, file)
        await end_of_batch(cpu)
        if reclaimed >= nr_to_reclaim and not whole:
            of_kind = [sum(one) for one in left]
            if not all(of_kind):
                break
            smaller = ANON if of_kind[FILE] > of_kind[ANON] else FILE
            done = 100 - of_kind[smaller] * 100 // (sum(targets[smaller]) + 1)
            left[smaller] = [0, 0]
            other = not smaller
            for which, target in enumerate(targets[other]):
                looked_at = target - left[other][which]
                left[other][which] = max(0, target * done // 100 - looked_at)
    if can_demote(node) and inactive_is_low(cpu, *await NrLru(node, ANON)):
        await shrink_active_list(cpu, node, cluster, ANON)
    return Shrunk(reclaimed, scanned)


async def end_of_batch(cpu: PerCpu) -> None:
    """cond_resched, as often as a time slice ends: a batch is much shorter than one."""
    cpu.reclaim_batches += 1
    if cpu.reclaim_batches % cpu.parameters.sched_slice_batches == 0:
        await cond_resched(cpu)


async def try_to_free_pages(cpu: PerCpu, nodes: tuple[int, ...]) -> int:
    """try_to_free_pages, shrink_zones: direct reclaim by a task that could not allocate from these nodes.

    Answers how many pages went. A node that gives some is not hopeless any more.
    """
    cluster = cpu.parameters.swap_cluster_max
    reclaimed = 0
    for priority in range(DEF_PRIORITY, -1, -1):
        for node in nodes:
            went = (await shrink_node(cpu, node, priority, cluster)).reclaimed
            if went and await Load(kswapd_progress(node)) >> PRIORITY_BITS:
                await Store(kswapd_progress(node), DEF_PRIORITY)
            reclaimed += went
        if reclaimed >= cluster:
            break
    return reclaimed


async def pgdat_balanced(cpu: PerCpu, node: int) -> bool:
    """pgdat_balanced: with memory tiering, kswapd aims at the promotion watermark."""
    return await zone_watermark_ok(cpu, node, 0, WMARK_PROMO)


class Balance(NamedTuple):
    """How far kswapd has come: pages reclaimed, and the priority of the next pass, 0 if there is none."""

    reclaimed: int
    priority: int


async def balance_pgdat(cpu: PerCpu, node: int, priority: int) -> Balance:
    """balance_pgdat: scan more and more of the lists until the node is balanced.

    A pass that reclaims nothing, or looks at less than it was to reclaim, is followed by one over twice
    as much. It breaks off where its time slice is over and others wait for this CPU.
    """
    cluster = cpu.parameters.swap_cluster_max
    nr_to_reclaim = max(cpu.parameters.watermarks[node].high, cluster)
    slice_end = cpu.reclaim_batches + cpu.parameters.sched_slice_batches
    total = 0
    while priority >= 1 and not await pgdat_balanced(cpu, node):
        # kswapd_age_node
        if can_demote(node) and inactive_is_low(cpu, *await NrLru(node, ANON)):
            await shrink_active_list(cpu, node, cluster, ANON)
        shrunk = await shrink_node(cpu, node, priority, nr_to_reclaim)
        total += shrunk.reclaimed
        if not shrunk.reclaimed or max(shrunk) < nr_to_reclaim:
            priority -= 1
        if shrunk.scanned:
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
    progress = kswapd_progress(node)
    failures, priority = 0, DEF_PRIORITY
    while not task.should_stop:
        if failures < MAX_RECLAIM_RETRIES and not await pgdat_balanced(cpu, node):
            reclaimed, priority = await balance_pgdat(cpu, node, priority)
            if reclaimed:
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
            await Store(progress, failures << PRIORITY_BITS | DEF_PRIORITY)
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
