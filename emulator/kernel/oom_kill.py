"""The OOM reaper (mm/oom_kill.c, v6.6): a victim's anonymous pages go while its threads may still run."""

from __future__ import annotations

from collections.abc import Iterable

from emulator.hardware.operations import DownRead, FindVma, UpRead
from emulator.kernel.mmu_gather import tlb_finish_mmu, tlb_gather_mmu, unmap_page_range
from emulator.kernel.mprotect import mmap_lock
from emulator.kernel.percpu import PerCpu
from emulator.memory.page_table import VM_SHARED, Vma


async def oom_reap_task_mm(cpu: PerCpu, mm: int, starts: Iterable[int]) -> int:
    """__oom_reap_task_mm of the areas that begin at these pages; how many pages went.

    Each has a gather of its own, since 687cb0884a71 (v4.15): one over everything (`fullmm`) would say that
    nobody runs the mm any more, which architectures may take for "no flush".
    """
    await DownRead(mmap_lock(mm))
    reaped = 0
    for start in starts:
        found = await FindVma(mm, start)
        if found and not Vma(*found).flags & VM_SHARED:
            vma = Vma(*found)
            tlb = await tlb_gather_mmu(mm)
            reaped += await unmap_page_range(cpu, tlb, vma, vma.start, vma.end)
            await tlb_finish_mmu(cpu, tlb)
    await UpRead(mmap_lock(mm))
    return reaped
