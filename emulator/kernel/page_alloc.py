"""Page allocation (mm/page_alloc.c, v6.6): the fallback list and the slow path.

Where the policy's pending pages meet an allocation that cannot be satisfied without them.
"""

from __future__ import annotations

from emulator.hardware.operations import DrainPages
from emulator.kernel.mmzone import WMARK_LOW, WMARK_MIN, get_page_from_freelist, wakeup_kswapd
from emulator.kernel.percpu import PerCpu
from emulator.kernel.vmscan import try_to_free_pages


class OutOfMemory(Exception):
    """No node can satisfy an allocation that may not fail (the kernel's OOM killer would run)."""


async def alloc_pages(cpu: PerCpu, order: int, nodes: tuple[int, ...] = ()) -> int:
    """__alloc_pages for user memory: the fast tier first, then the others; a frame.

    Raises OutOfMemory if not even the slow path finds one.
    """
    nodes = nodes or tuple(range(len(cpu.parameters.watermarks)))
    watch = cpu.stopwatch
    begun = watch.now() if watch is not None else 0
    pfn = await get_page_from_freelist(cpu, nodes, order, WMARK_LOW)
    if pfn < 0 and await cpu.policy.allocation_failed(cpu, order):
        pfn = await get_page_from_freelist(cpu, nodes, order, WMARK_LOW)
    if pfn < 0:
        pfn = await alloc_pages_slowpath(cpu, order, nodes)
    if pfn < 0:
        cpu.count("allocation_failures")
        raise OutOfMemory(
            f"CPU {cpu.number}: order-{order} allocation failed on nodes {', '.join(map(str, nodes))}: "
            "the tiers are too small for what the workload maps"
        )
    if watch is not None:
        watch.allocated(cpu.current.mm, begun)
    return pfn


async def alloc_pages_slowpath(cpu: PerCpu, order: int, nodes: tuple[int, ...]) -> int:
    """__alloc_pages_slowpath: wake kswapd, try down to min, reclaim, try without watermarks."""
    for node in nodes:
        await wakeup_kswapd(cpu, node)
    await cpu.policy.slowpath_enter(cpu)
    pfn = await _slowpath_attempts(cpu, order, nodes)
    # Not in a `finally`: a program that is dropped in the middle of a search could not carry it out.
    await cpu.policy.slowpath_leave(cpu)
    return pfn


async def _slowpath_attempts(cpu: PerCpu, order: int, nodes: tuple[int, ...]) -> int:
    pfn = await get_page_from_freelist(cpu, nodes, order, WMARK_MIN)
    if pfn >= 0:
        return pfn
    await cpu.policy.slowpath_retry_failed(cpu)
    cpu.count("allocstall_normal")
    await try_to_free_pages(cpu, nodes)
    pfn = await get_page_from_freelist(cpu, nodes, order, WMARK_MIN)
    if pfn < 0 and cpu.parameters.per_cpu_pages:
        # __alloc_pages_direct_reclaim: free pages may be on the lists of other CPUs.
        for node in nodes:
            await DrainPages(node)
        pfn = await get_page_from_freelist(cpu, nodes, order, WMARK_MIN)
    if pfn >= 0:
        return pfn
    # Last resort before the OOM killer: the reserves (ALLOC_NO_WATERMARKS).
    return await get_page_from_freelist(cpu, nodes, order, 0)
