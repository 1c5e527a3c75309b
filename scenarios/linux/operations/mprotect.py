"""mprotect(2): to read-only, to PROT_NONE, and back; pkey_mprotect(2); mlock(2) and munlock(2)."""

from __future__ import annotations

from emulator.kernel.mlock import do_mlock, do_munlock
from emulator.kernel.mprotect import READ_WRITE, do_mprotect_pkey
from emulator.kernel.percpu import PerCpu
from emulator.memory.page_table import VM_EXEC, VM_PKEY_BIT0
from scenarios.linux.areas import MM, Area, inaccessible, read_only
from scenarios.linux.operation import Call


async def _writable(cpu: PerCpu, area: Area) -> None:
    await do_mprotect_pkey(cpu, MM, area.start, area.end, READ_WRITE)


async def _executable(cpu: PerCpu, area: Area) -> None:
    await do_mprotect_pkey(cpu, MM, area.start, area.end, READ_WRITE | VM_EXEC)


async def _keyed(cpu: PerCpu, area: Area) -> None:
    await do_mprotect_pkey(cpu, MM, area.start, area.end, READ_WRITE | VM_PKEY_BIT0)


async def lock(cpu: PerCpu, area: Area) -> None:
    """mlock(2)."""
    await do_mlock(cpu, MM, area.start, area.end)


async def _unlock(cpu: PerCpu, area: Area) -> None:
    await do_munlock(cpu, MM, area.start, area.end)


RO = Call("mprotect_ro", read_only)
RW = Call("mprotect_rw", _writable, read_only)
NONE = Call("mprotect_none", inaccessible)
BACK = Call("mprotect_back", _writable, inaccessible)
PKEY = Call("mprotect_pkey", _keyed)
EXEC = Call("mprotect_exec", _executable)
SAME = Call("mprotect_same", _writable)
MLOCK = Call("mlock", lock)
MUNLOCK = Call("munlock", _unlock, lock)
