"""mmap_lock, and what keeps page faults out meanwhile (include/linux/mmap_lock.h, v6.6).

Before v6.4 a fault holds mmap_lock for reading, which is enough. Since then it may hold its area's lock only,
so whoever changes an area or clears what it has locks that as well; all are unlocked with mmap_lock.
"""

from __future__ import annotations

from emulator.hardware.operations import (
    DowngradeWrite,
    DownRead,
    Lock,
    Unlock,
    UpRead,
    VmaEndWriteAll,
    VmaStartWrite,
)
from emulator.hardware.pte import mmap_lock
from emulator.kernel.percpu import PerCpu


async def mmap_write_lock(mm: int) -> None:
    """mmap_write_lock."""
    await Lock(mmap_lock(mm))


async def vma_start_write(cpu: PerCpu, mm: int, start: int, end: int) -> None:
    """vma_start_write of every area in pages [start, end), and of what begins there: no fault is under way in
    any of them, and none begins before mmap_write_unlock."""
    if cpu.parameters.fault_locks and cpu.parameters.per_vma_locks:
        locked = await VmaStartWrite(mm, start, end)
        cpu.write_locked = tuple(sorted({*cpu.write_locked, *locked}))


async def mmap_write_unlock(cpu: PerCpu, mm: int) -> None:
    """mmap_write_unlock: vma_end_write_all first."""
    await _vma_end_write_all(cpu, mm)
    await Unlock(mmap_lock(mm))


async def mmap_write_downgrade(cpu: PerCpu, mm: int) -> None:
    """mmap_write_downgrade: vma_end_write_all, then others may read under mmap_lock as well.

    mmap_read_unlock ends it.
    """
    await _vma_end_write_all(cpu, mm)
    await DowngradeWrite(mmap_lock(mm))


async def _vma_end_write_all(cpu: PerCpu, mm: int) -> None:
    if cpu.write_locked:
        await VmaEndWriteAll(mm, cpu.write_locked)
        cpu.write_locked = ()


async def mmap_read_lock(mm: int) -> None:
    """mmap_read_lock."""
    await DownRead(mmap_lock(mm))


async def mmap_read_unlock(mm: int) -> None:
    """mmap_read_unlock."""
    await UpRead(mmap_lock(mm))
