"""A CPU that goes (kernel/cpu.c, v6.6): what those that stay do for it, once it runs nothing any more.

In Linux the one that goes does some of it itself (take_cpu_down, smpcfd_dying_cpu). Here it has gone without
a word, but between two instructions of user mode, where it owes nobody anything that only it could pay.
"""

from __future__ import annotations

from emulator.hardware.operations import AtomicAdd, AtomicAnd, DrainPages
from emulator.kernel.mmzone import KSWAPD_STOPPED
from emulator.kernel.percpu import PerCpu, cpumask_word
from emulator.kernel.sched import THREADS_DONE
from emulator.kernel.smp import ipi_function
from emulator.kernel.tlb import flush_everything, flush_tlb_func


@ipi_function
async def cpu_is_dead(cpu: PerCpu, arguments: tuple[int, ...]) -> None:
    """This CPU's part: what the dead one may have put off asking for is flushed. None of its own."""
    await flush_tlb_func(cpu, flush_everything(cpu))


@ipi_function
async def takedown_cpu(cpu: PerCpu, arguments: tuple[int, ...]) -> None:
    """What one CPU does for all. `arguments`: which is dead, how many of its threads are not through, mms.

    clear_tasks_mm_cpumask: nobody flushes for it any more. page_alloc_cpu_dead: its free pages are had by all
    (by drain_all_pages; the others get theirs again). Its threads and kswapds end with it: nobody waits for
    them.
    """
    dead, threads, *mms = arguments
    for mm in mms:
        await AtomicAnd(cpumask_word(mm), ~(1 << dead))
    nodes = len(cpu.parameters.watermarks)
    for node in range(nodes):
        await DrainPages(node)
    await AtomicAdd(KSWAPD_STOPPED, nodes)
    await AtomicAdd(THREADS_DONE, threads)
