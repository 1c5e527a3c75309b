"""Processes that take turns on CPU 1: there are six address-space numbers."""

from __future__ import annotations

from emulator.hardware.operations import WaitFor
from emulator.kernel.percpu import PerCpu
from emulator.kernel.sched import wake_up_process
from scenarios.linux.areas import PID, ROUNDS, ROUNDS_DONE, Area
from scenarios.linux.operation import Call


async def _take_turns(cpu: PerCpu, area: Area) -> None:
    await wake_up_process(cpu, 1, PID)
    await WaitFor(ROUNDS_DONE, ROUNDS)


SWITCH = Call("switch", _take_turns)
