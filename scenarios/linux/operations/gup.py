"""Pages that the kernel itself reads and writes: /proc/self/mem, vmsplice(2); and membarrier(2)."""

from __future__ import annotations

from emulator.kernel.gup import get_user_pages, get_user_pages_unlocked, kernel_write, put_page
from emulator.kernel.percpu import PerCpu
from scenarios.linux.areas import MM, Area, nothing
from scenarios.linux.operation import Call


async def _write_memory(cpu: PerCpu, area: Area) -> None:
    """access_remote_vm: every page is got by itself, under mmap_lock."""
    for vpn in range(area.start, area.end):
        pfn = await get_user_pages_unlocked(cpu, MM, vpn, True, False)
        await kernel_write(cpu, MM, vpn, pfn, cpu.new_version())
        await put_page(pfn)


async def _splice(cpu: PerCpu, area: Area) -> None:
    """The pipe keeps the references."""
    for vpn in range(area.start, area.end):
        await get_user_pages(cpu, MM, vpn, False)


MEM_WRITE = Call("mem_write", _write_memory)
VMSPLICE = Call("vmsplice", _splice)
# It interrupts the CPUs that run the process' threads, and flushes nothing.
MEMBARRIER = Call("membarrier", nothing)
