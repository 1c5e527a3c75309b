"""mprotect(2): to read-only or PROT_NONE, and back."""

from __future__ import annotations

from emulator.kernel.mprotect import PROT_NONE, PROT_READ, READ_WRITE, do_mprotect_pkey
from emulator.kernel.percpu import PerCpu
from scenarios.linux.areas import (
    MM,
    START,
    anonymous_read,
    nothing,
    read_pages,
    unpopulated,
    write_pages,
    written_file,
)
from scenarios.linux.operation import Operation


async def read_only(cpu: PerCpu, pages: int) -> None:
    """mprotect(PROT_READ) of the area."""
    await do_mprotect_pkey(cpu, MM, START, START + pages, PROT_READ)


async def _writable(cpu: PerCpu, pages: int) -> None:
    await do_mprotect_pkey(cpu, MM, START, START + pages, READ_WRITE)


async def inaccessible(cpu: PerCpu, pages: int) -> None:
    """mprotect(PROT_NONE) of the area."""
    await do_mprotect_pkey(cpu, MM, START, START + pages, PROT_NONE)


RO = Operation("mprotect_ro_N", read_only)
RW = Operation("mprotect_rw_N", _writable, prepare=read_only)
NONE = Operation("mprotect_none_N", inaccessible)
BACK = Operation("mprotect_back_N", _writable, prepare=inaccessible)
RO_UNPOPULATED = Operation("mprotect_ro_unpop_N", read_only, unpopulated, nothing)
RO_ZERO = Operation("mprotect_ro_zero_N", read_only, anonymous_read, read_pages)
FILE_RO = Operation("mprotect_file_ro_N", read_only, written_file, write_pages)
