"""fork(2), and writes that find a page read-only."""

from __future__ import annotations

from emulator.kernel.fork import dup_mmap
from emulator.kernel.mmu_gather import exit_mmap
from emulator.kernel.percpu import PerCpu
from scenarios.linux.areas import (
    CHILD,
    MM,
    START,
    anonymous_read,
    private_file,
    read_pages,
    shared_file,
    write_pages,
)
from scenarios.linux.operation import Operation


async def fork(cpu: PerCpu, pages: int) -> None:
    """dup_mmap of the area; the child runs nowhere."""
    await dup_mmap(cpu, MM, CHILD, ((START, START + pages),))


async def _fork_and_exit(cpu: PerCpu, pages: int) -> None:
    await fork(cpu, pages)
    await exit_mmap(cpu, CHILD, ((START, START + pages),))


FORK = Operation("fork", fork)
COW_PARENT = Operation("cow_parent_N", write_pages, prepare=fork)
REUSE = Operation("reuse_after_fork_N", write_pages, prepare=_fork_and_exit)
ZERO_WRITE = Operation("zero_write_N", write_pages, anonymous_read, read_pages)
PRIVATE_FILE = Operation("private_file_write_N", write_pages, private_file, read_pages)
SHARED_FILE = Operation("shared_file_write_N", write_pages, shared_file, read_pages)
SHARED_TMPFS = Operation("shared_tmpfs_write_N", write_pages, shared_file, read_pages)
