"""The end of a thread, and that of a process."""

from __future__ import annotations

from emulator.kernel.mmu_gather import exit_mmap
from emulator.kernel.percpu import PerCpu
from scenarios.linux.areas import MM, Area, nothing
from scenarios.linux.operation import Call


async def _exit(cpu: PerCpu, area: Area) -> None:
    """do_exit of the last thread: exit_mm gives the mm up, the CPU goes on with it lazily, it is freed."""
    await cpu.mmu.enter_lazy_tlb(cpu)
    await exit_mmap(cpu, MM, ((area.start - 1, area.end + 1),))


THREAD_EXIT = Call("thread_exit", nothing)
# The last of the threads to go gives the memory back.
EXIT = Call("exit", _exit, by_any=True, alone=True)
EXIT_LAST = Call("exit_last", _exit, alone=True)
