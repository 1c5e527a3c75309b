"""KSM: ksmd, on CPU 0 while the process waits there, merges pages that are all equal."""

from __future__ import annotations

from emulator.kernel.ksm import try_to_merge_two_pages
from emulator.kernel.percpu import INIT_MM, PerCpu
from emulator.kernel.user import user_write
from scenarios.linux.areas import MM, START, unpopulated
from scenarios.linux.operation import Operation


async def _equal(cpu: PerCpu, pages: int) -> None:
    await unpopulated(cpu, pages)
    await _write_alike(cpu, pages)


async def _write_alike(cpu: PerCpu, pages: int) -> None:
    for vpn in range(START, START + pages):
        await user_write(cpu, vpn, 1)


async def _merge(cpu: PerCpu, pages: int) -> None:
    for vpn in range(START + 1, START + pages):
        await try_to_merge_two_pages(cpu, MM, vpn, START)


KSM = Operation("ksm_N", _merge, _equal, _write_alike, caller=INIT_MM)
