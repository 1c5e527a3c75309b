"""Zones as the kernel sees them: watermarks, the free lists, and the waking of kswapd.

mm/page_alloc.c and include/linux/mmzone.h, v6.6. A watermark check counts what the policy has
pending as free, because a flush would free it at once; whether such a page can be had is another
question, and the policy is asked when it cannot.
"""

from __future__ import annotations

from emulator.hardware.operations import AtomicXchg, Load, NrFree, Store
from emulator.kernel.percpu import PerCpu
from emulator.kernel.sched import IDLE_CPUS, wake_up_process

FAST_NODE = 0

WMARK_MIN = 1
WMARK_LOW = 2
WMARK_HIGH = 3
WMARK_PROMO = 4

KSWAPD_WAITING = "kswapd_waiting"
KSWAPD_STOPPED = "kswapd_stopped"
MAX_RECLAIM_RETRIES = 16
PRIORITY_BITS = 4


def wmark_pages(cpu: PerCpu, node: int, mark: int) -> int:
    """The watermark of a node in pages; 0 for none. WMARK_PROMO lies one step above high."""
    marks = cpu.parameters.watermarks[node]
    if mark == WMARK_PROMO:
        return marks.high + (marks.high - marks.low)
    return (0, marks.min, marks.low, marks.high)[mark]


def kswapd_pid(node: int) -> int:
    """pid of a node's kswapd."""
    return 1 + node


def kswapd_progress(node: int) -> str:
    """How far a node's kswapd is, whatever its CPU: pgdat->kswapd_failures, and the priority below."""
    return f"kswapd_progress.{node}"


async def zone_watermark_ok(cpu: PerCpu, node: int, pages: int, mark: int) -> bool:
    """Would the watermark still hold after taking `pages` pages?"""
    free = await NrFree(node) + await cpu.policy.pending_pages(cpu, node)
    return free - pages >= wmark_pages(cpu, node, mark)


async def wakeup_kswapd(cpu: PerCpu, node: int) -> None:
    """wakeup_kswapd: if it sleeps, and only once. It wakes on an idle CPU, else on that of its waker.

    kswapd is bound to a node, not to a CPU. Where every CPU is busy, select_task_rq_fair has its waker's to
    choose from and the one where it ran last; over a run each CPU has it as often, and so it is here.
    """
    if not await AtomicXchg(f"{KSWAPD_WAITING}.{node}", 0):
        return
    if await Load(kswapd_progress(node)) >> PRIORITY_BITS >= MAX_RECLAIM_RETRIES:
        # A hopeless node is left to direct reclaim.
        await Store(f"{KSWAPD_WAITING}.{node}", 1)
        return
    cpu.count("kswapd_wakeups")
    idle = await Load(IDLE_CPUS)
    target = (idle & -idle).bit_length() - 1 if idle else cpu.number
    await wake_up_process(cpu, target, kswapd_pid(node))


async def get_page_from_freelist(
    cpu: PerCpu, nodes: tuple[int, ...], order: int, mark: int, may_interrupt: bool = True
) -> int:
    """get_page_from_freelist: the first node whose watermark holds; a frame, or -1.

    Who has interrupts off may not interrupt others (`may_interrupt`), and a policy may refuse what it would
    have to flush for.
    """
    for node in nodes:
        pages = wmark_pages(cpu, node, mark)
        pending = await cpu.policy.pending_pages(cpu, node)
        pfn = await cpu.policy.take_pages(cpu, node, order, pages, pending, may_interrupt)
        if pfn < 0 and await cpu.policy.watermark_failed(cpu, node):
            pending = await cpu.policy.pending_pages(cpu, node)
            pfn = await cpu.policy.take_pages(cpu, node, order, pages, pending, may_interrupt)
        if pfn >= 0:
            await cpu.policy.before_handed_out(cpu, pfn, order)
            cpu.count("pgalloc_normal", 1 << order)
            return pfn
    return -1


async def alloc_pages_thisnode(cpu: PerCpu, node: int, order: int) -> int:
    """__alloc_pages for a migration's destination: this node only, no reclaim for it; a frame, or -1.

    alloc_misplaced_dst_folio and alloc_demote_folio leave __GFP_DIRECT_RECLAIM out, but the slow path is
    entered all the same: that is where policies give up what they have pending. A demotion wakes the slow
    tier's kswapd there (GFP_NOWAIT), a promotion nobody.
    """
    pfn = await get_page_from_freelist(cpu, (node,), order, WMARK_LOW)
    if pfn < 0 and await cpu.policy.allocation_failed(cpu, order):
        pfn = await get_page_from_freelist(cpu, (node,), order, WMARK_LOW)
    if pfn < 0:
        if node != FAST_NODE:
            await wakeup_kswapd(cpu, node)
        await cpu.policy.slowpath_enter(cpu)
        pfn = await get_page_from_freelist(cpu, (node,), order, WMARK_MIN)
        await cpu.policy.slowpath_leave(cpu)
    return pfn
