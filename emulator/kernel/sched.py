"""Which task runs on a CPU: a round-robin run queue, sleeping, waking, and the idle loop.

Only what TLB flushing can see of a scheduler: address spaces are switched, kernel threads run
lazily on the last one, an idle CPU halts until somebody interrupts it.
"""

from __future__ import annotations

from typing import Final

from emulator.hardware.cpu import Program
from emulator.hardware.operations import (
    Halt,
    Load,
    LocalIrqDisable,
    LocalIrqEnable,
    SendIpi,
    SmpMb,
    SwitchTo,
    WaitFor,
    WaitWhile,
)
from emulator.kernel.percpu import INIT_MM, PerCpu, Task
from emulator.kernel.policy import Policy
from emulator.kernel.smp import IpiFunction, ipi_function

_FIRST_POLICY_PID: Final = 10
THREADS_DONE: Final = "threads_done"
"""How many user threads are through with their accesses."""
IDLE_CPUS: Final = "idle_cpus"
"""The CPUs whose one thread sleeps until the program's first part is over."""


@ipi_function
async def scheduler_ipi(cpu: PerCpu, arguments: tuple[int, ...]) -> None:
    """Make a sleeping task of this CPU runnable (the reschedule vector); -1 ends the idle loop."""
    (pid,) = arguments
    if pid < 0:
        cpu.stopping = True
        return
    task = cpu.tasks.get(pid)
    # A wake-up may be on its way while its task ends.
    if task is not None:
        _make_runnable(cpu, task)


@ipi_function
async def kthread_stop_ipi(cpu: PerCpu, arguments: tuple[int, ...]) -> None:
    """kthread_stop's part on the CPU of the thread: mark it and wake it."""
    task = cpu.tasks[arguments[0]]
    task.should_stop = True
    _make_runnable(cpu, task)


def _make_runnable(cpu: PerCpu, task: Task) -> None:
    """ttwu: a task that still is on its CPU, on its way to sleep, just goes on."""
    if not task.runnable:
        task.runnable = True
        if task is not cpu.current:
            cpu.runqueue.appendleft(task)
            cpu.need_resched = True


async def wake_up_process(cpu: PerCpu, target: int, pid: int) -> None:
    """wake_up_process for a task of CPU `target`; does not wait for it."""
    await call_on(cpu, target, scheduler_ipi, pid)


async def call_on(cpu: PerCpu, target: int, function: IpiFunction, argument: int) -> None:
    """Run a one-argument function on CPU `target`, without waiting for it."""
    if target == cpu.number:
        await LocalIrqDisable()
        await function(cpu, (argument,))
        await LocalIrqEnable()
    else:
        await SendIpi((target,), function.__name__, (argument,), False)


async def schedule(cpu: PerCpu) -> None:
    """Let the next runnable task have this CPU; returns when the caller is chosen again."""
    # Interrupts off before choosing: a wake-up between the choice and the switch would be lost.
    await LocalIrqDisable()
    cpu.need_resched = False
    previous = cpu.current
    if previous is not cpu.idle and previous.runnable:
        cpu.runqueue.append(previous)
    chosen = cpu.runqueue.popleft() if cpu.runqueue else cpu.idle
    if chosen is previous:
        await LocalIrqEnable()
        return
    # smp_mb__after_spinlock of the run queue's lock (kernel/sched/core.c: __schedule): what the previous task
    # did in user mode is done before anybody is told that this CPU is lazy.
    await SmpMb()
    if cpu.mmu.frees_lazily:
        await cpu.mmu.sweep(cpu)
    borrowed = cpu.tlbstate.loaded_mm if previous.mm == INIT_MM else INIT_MM
    if chosen.mm == INIT_MM:
        await cpu.mmu.enter_lazy_tlb(cpu)
    else:
        await cpu.mmu.switch_mm_irqs_off(cpu, chosen.mm)
        cpu.prev_mm = borrowed
    cpu.current = chosen
    await SwitchTo(chosen.context)
    await LocalIrqEnable()
    await finish_task_switch(cpu)


async def finish_task_switch(cpu: PerCpu) -> None:
    """finish_task_switch, as the next task: what a kernel thread has borrowed it has given back (prev_mm)."""
    mm, cpu.prev_mm = cpu.prev_mm, INIT_MM
    if mm != INIT_MM:
        await cpu.policy.switched(cpu, mm)


def has_ticks(cpu: PerCpu) -> bool:
    """Whether anybody does something at a tick."""
    return cpu.mmu.frees_lazily or type(cpu.policy).tick is not Policy.tick


async def scheduler_tick(cpu: PerCpu) -> None:
    """scheduler_tick."""
    await cpu.mmu.tick(cpu)
    await cpu.policy.tick(cpu)


def policy_pid(number: int) -> int:
    """pid of a thread of the policy's own on any CPU, by its place in `Policy.threads`."""
    return _FIRST_POLICY_PID + number


async def kthread_wait(cpu: PerCpu, task: Task, word: str) -> bool:
    """wait_event in a thread of a policy's own, until the word is not 0: false where it is to stop instead.

    Whoever makes it so wakes the thread (wake_up_process). Where nothing schedules, in a litmus test, it
    waits once; the next time it is to stop.
    """
    while not task.should_stop:
        task.runnable = False
        await SmpMb()
        if cpu.idle.context is None:
            task.should_stop = task.runnable = True
            await WaitWhile(word, 0)
            return True
        if await Load(word):
            task.runnable = True
            return True
        if not task.should_stop:
            await schedule(cpu)
    task.runnable = True
    return False


async def wait_event(cpu: PerCpu, word: str, value: int) -> None:
    """wait_event on a word: other tasks of this CPU run meanwhile; without any it just waits."""
    while await Load(word) != value:
        if cpu.runqueue:
            await schedule(cpu)
        else:
            await WaitFor(word, value)


async def cond_resched(cpu: PerCpu) -> None:
    """Give way if somebody else is runnable."""
    if cpu.runqueue:
        await schedule(cpu)


def task_program(cpu: PerCpu, task: Task, body: Program) -> Program:
    """What a new task runs: schedule_tail, its body, do_exit."""

    async def run() -> None:
        await LocalIrqEnable()
        await finish_task_switch(cpu)
        await body
        task.runnable = False
        del cpu.tasks[task.pid]
        await schedule(cpu)

    return run()


async def cpu_startup_entry(cpu: PerCpu) -> None:
    """The idle loop, bottom program of every CPU; ends when this CPU is told to stop."""
    while not cpu.stopping or cpu.tasks:
        if cpu.runqueue:
            await schedule(cpu)
        else:
            await Halt()
