"""fork(2) and vfork(2), and reads and writes that fault."""

from __future__ import annotations

from emulator.kernel.percpu import PerCpu
from scenarios.linux.areas import CHILD, HUGE, Area, fork, nothing, read_pages, write_pages
from scenarios.linux.operation import Call


async def _write(cpu: PerCpu, area: Area) -> None:
    await write_pages(cpu, area)


async def _write_heads(cpu: PerCpu, area: Area) -> None:
    """The first page of each huge one."""
    await write_pages(cpu, area, HUGE)


async def _read(cpu: PerCpu, area: Area) -> None:
    await read_pages(cpu, area)


FORK = Call("fork", fork)
# The child borrows the mm until it is another program's.
VFORK = Call("vfork", nothing)
COW_PARENT = Call("cow_parent", _write, fork)
COW_CHILD = Call("cow_child", _write, fork, caller=CHILD)
READ = Call("read", _read)
WRITE = Call("write", _write)
WRITE_HEADS = Call("write_heads", _write_heads)
