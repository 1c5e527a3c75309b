"""KSM: ksmd, on CPU 0 while the process waits there, merges pages that are all equal; and the way back."""

from __future__ import annotations

from emulator.kernel.ksm import unmerge_ksm_pages
from emulator.kernel.percpu import INIT_MM, PerCpu
from scenarios.linux.areas import MM, Area, merge
from scenarios.linux.operation import Call


async def _unmerge(cpu: PerCpu, area: Area) -> None:
    await unmerge_ksm_pages(cpu, MM, area.start, area.end)


KSM = Call("ksm", merge, caller=INIT_MM)
UNMERGE = Call("unmerge", _unmerge)
