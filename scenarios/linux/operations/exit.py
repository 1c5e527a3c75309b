"""The end of a thread, and that of a process."""

from __future__ import annotations

from emulator.kernel.mmu_gather import exit_mmap
from emulator.kernel.percpu import PerCpu
from emulator.kernel.tlb import enter_lazy_tlb
from scenarios.linux.areas import MM, START, nothing
from scenarios.linux.operation import Operation


async def _exit(cpu: PerCpu, pages: int) -> None:
    """do_exit of the last thread: exit_mm gives the mm up, the CPU goes on with it lazily, it is freed."""
    await enter_lazy_tlb(cpu)
    await exit_mmap(cpu, MM, ((START - 1, START + pages + 1),))


THREAD_EXIT = Operation("thread_exit", nothing)
EXIT = Operation("exit_N", _exit)
