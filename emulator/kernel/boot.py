"""From power-on to power-off: what each CPU boots, the threads it runs, and the orderly end.

CPU 0 makes the address spaces and, when every thread is through, tears them down, performs what is
still owed and stops the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from emulator.hardware.awaits import check_kept
from emulator.hardware.cpu import Context, Program
from emulator.hardware.operations import AtomicAdd, FolioPut, Load, SmpMb, Store, VmaInsert, WaitFor
from emulator.kernel.fork import mmdrop
from emulator.kernel.mmu_gather import exit_mmap
from emulator.kernel.mmzone import KSWAPD_STOPPED, KSWAPD_WAITING, kswapd_pid
from emulator.kernel.percpu import INIT_MM, PF_KSWAPD, PerCpu, Task
from emulator.kernel.policy import Policy, ThreadBody
from emulator.kernel.sched import (
    IDLE_CPUS,
    THREADS_DONE,
    call_on,
    cpu_startup_entry,
    kthread_stop_ipi,
    policy_pid,
    schedule,
    scheduler_ipi,
    task_program,
    wait_event,
    wake_up_process,
)
from emulator.kernel.smp import ipi_function
from emulator.kernel.user import Chunks, ParallelFor, Sampling, run_accesses, run_parallel_for
from emulator.kernel.vmscan import kswapd
from emulator.memory.page_table import VM_SHARED, Vma

BOOTED = "booted"
THREADS_READY = "threads_ready"
FIRST_USER_PID = 100
POLICY_THREADS = "policy_threads"
"""How many threads of the policy's own there are."""


class Thread(NamedTuple):
    """One user thread: its address space, and its accesses and system calls.

    Or a loop, the same for all threads of that address space, which they share.
    If there is a `before`, all threads have one (it may be empty), and none goes on before every thread is
    through with it; the NUMA scanner starts after that.
    """

    mm: int
    chunks: Callable[[], Chunks] | ParallelFor
    before: Callable[[], Chunks] | None = None


class UserSpace(Protocol):
    """What runs on the machine, as far as the kernel has to know."""

    @property
    def sample_every(self) -> int:
        """Of the accesses of a thread, one in so many is checked in memory."""

    def areas(self) -> dict[int, tuple[Vma, ...]]:
        """The areas of every mm."""

    def threads(self, cpu: int) -> list[Thread]:
        """The threads of one CPU."""

    def thread_count(self) -> int:
        """All threads of all CPUs."""

    def expected_accesses(self) -> int:
        """What all threads together will have accessed at the end, about, for who shows progress."""


def add_kswapd(cpu: PerCpu) -> None:
    """kswapd_run: the kswapd of each node, asleep, for when it is on this CPU."""
    for node in range(len(cpu.parameters.watermarks)):
        daemon = Task(kswapd_pid(node), INIT_MM, PF_KSWAPD, runnable=False)
        cpu.add_task(daemon, task_program(cpu, daemon, kswapd(cpu, daemon, node)))


def add_policy_threads(cpu: PerCpu) -> int:
    """kthread_run of the policy's own threads of this CPU; how many there are."""
    bodies = cpu.policy.threads(cpu)
    for number, body in enumerate(bodies):
        task = Task(policy_pid(number), INIT_MM)
        cpu.add_task(task, task_program(cpu, task, policy_thread(cpu, task, body)))
    return len(bodies)


async def policy_thread(cpu: PerCpu, task: Task, body: ThreadBody) -> None:
    """One of them, and word of its end."""
    await body(cpu, task)
    await AtomicAdd(POLICY_THREADS, -1)


@ipi_function
async def stop_policy_threads(cpu: PerCpu, arguments: tuple[int, ...]) -> None:
    """kthread_stop of those of this CPU, in the order of their numbers."""
    for pid in [pid for pid in cpu.tasks if policy_pid(0) <= pid < FIRST_USER_PID - 1]:
        await kthread_stop_ipi(cpu, (pid,))


def vma_gets_hints(cpu: PerCpu, vma: Vma) -> bool:
    """Whether the NUMA scanner finds anything to mark in an area (change_pte_range).

    Pages of a private mapping of a file are the page cache's until they are written.
    """
    return not vma.file or bool(vma.flags & VM_SHARED) or cpu.parameters.numa_hints_page_cache


def boot_program(cpu: PerCpu, user: UserSpace) -> Program:
    """The bottom program of a CPU; the CPU halts for good when it ends."""

    async def start_kernel() -> None:
        areas = user.areas()
        if cpu.number == 0:
            for mm, vmas in areas.items():
                for vma in vmas:
                    await VmaInsert(mm, *vma)
            for node in range(len(cpu.parameters.watermarks)):
                await Store(f"{KSWAPD_WAITING}.{node}", 1)
            await Store(BOOTED, 1)
        await WaitFor(BOOTED, 1)
        add_kswapd(cpu)
        if started := add_policy_threads(cpu):
            await AtomicAdd(POLICY_THREADS, started)
        threads = user.threads(cpu.number)
        left = len(threads)

        async def meet(pid: int) -> None:
            """pthread_create, from its threads' side: none begins before all are through with the first part.
            Who has to wait sleeps, and leaves its CPU idle.
            """
            if await AtomicAdd(THREADS_READY, 1) == user.thread_count():
                for one in range(cpu.parameters.cpus):
                    for other in range(len(user.threads(one))):
                        if (one, FIRST_USER_PID + other) != (cpu.number, pid):
                            await wake_up_process(cpu, one, FIRST_USER_PID + other)
                return
            idles = cpu.bit if len(threads) == 1 else 0
            await AtomicAdd(IDLE_CPUS, idles)
            while True:
                cpu.tasks[pid].runnable = False
                await SmpMb()
                if await Load(THREADS_READY) == user.thread_count():
                    break
                await schedule(cpu)
            cpu.tasks[pid].runnable = True
            await AtomicAdd(IDLE_CPUS, -idles)

        async def run_thread(pid: int, thread: Thread) -> None:
            nonlocal left
            numa_areas = tuple(
                sorted((vma.start, vma.end) for vma in areas[thread.mm] if vma_gets_hints(cpu, vma))
            )
            sampling = Sampling(user.sample_every)
            if thread.before is not None:
                await run_accesses(cpu, thread.before(), sampling, ())
                await meet(pid)
            if isinstance(thread.chunks, ParallelFor):
                await run_parallel_for(cpu, thread.chunks, sampling, numa_areas)
            else:
                await run_accesses(cpu, thread.chunks(), sampling, numa_areas)
            if cpu.mmu.frees_lazily:
                await cpu.mmu.finish(cpu)
            await AtomicAdd(THREADS_DONE, 1)
            # The join at the end of a parallel region, with active waiting as OpenMP does: the CPU stays in
            # user mode, so that a flush still has to interrupt it.
            await wait_event(cpu, THREADS_DONE, user.thread_count())
            left -= 1
            if cpu.number == 0 and not left:
                start_shutdown()

        def start_shutdown() -> None:
            task = Task(FIRST_USER_PID - 1, INIT_MM)
            cpu.add_task(task, task_program(cpu, task, shutdown(cpu, user, areas)))

        for number, thread in enumerate(threads):
            task = Task(FIRST_USER_PID + number, thread.mm)
            cpu.add_task(task, task_program(cpu, task, run_thread(task.pid, thread)))
        if cpu.number == 0 and not threads:
            start_shutdown()
        await cpu_startup_entry(cpu)
        check_kept(cpu.policy)
        for pfn in cpu.page_tables:
            await FolioPut(pfn)

    program = start_kernel()
    cpu.idle.context = Context(program)
    return program


async def shutdown(cpu: PerCpu, user: UserSpace, areas: dict[int, tuple[Vma, ...]]) -> None:
    """Wait for every thread, then stop kswapd, free the address spaces, drain, stop the CPUs."""
    await wait_event(cpu, THREADS_DONE, user.thread_count())
    nodes = len(cpu.parameters.watermarks)
    for one in range(cpu.parameters.cpus):
        for node in range(nodes):
            await call_on(cpu, one, kthread_stop_ipi, kswapd_pid(node))
    await wait_event(cpu, KSWAPD_STOPPED, nodes * cpu.parameters.cpus)
    for mm, vmas in areas.items():
        await exit_mmap(cpu, mm, tuple((vma.start, vma.end) for vma in vmas))
        await mmdrop(cpu, mm)
    if type(cpu.policy).threads is not Policy.threads:
        for one in range(cpu.parameters.cpus):
            await call_on(cpu, one, stop_policy_threads, 0)
        await wait_event(cpu, POLICY_THREADS, 0)
    await cpu.policy.drain(cpu)
    for other in range(cpu.parameters.cpus):
        if other != cpu.number:
            await call_on(cpu, other, scheduler_ipi, -1)
    await call_on(cpu, cpu.number, scheduler_ipi, -1)
