"""Machines of a few programs, written out in a test, on the timed engine."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from emulator.hardware.cpu import Cpu, IpiRequest, Program
from emulator.hardware.operations import AckIpi, FlushTlb
from emulator.hardware.ordering import ARCHITECTURES
from emulator.hardware.tlb import TlbShape
from emulator.kernel.percpu import PerCpu
from emulator.machine.builder import Machine, parameters_of
from emulator.measure.costs import Costs
from emulator.memory.folios import Tier
from emulator.memory.memory import Memory
from emulator.memory.zone import Watermarks
from emulator.policies.immediate import Immediate
from emulator.timed.engine import TimedEngine
from emulator.timed.result import TimedResult

FAST_PAGES = 64
FIRST_SLOW = 1 + FAST_PAGES
MARKS = Watermarks(1, 1, 1)

Body = Callable[[Cpu], Coroutine[Any, Any, None]]


async def flush_and_acknowledge(batch: tuple[IpiRequest, ...]) -> None:
    for request in batch:
        await FlushTlb()
        if request.wait:
            await AckIpi(request.sender, request.number)


class Lab(Machine):
    """One program for each CPU; every call flushes and is acknowledged."""

    def __init__(self, bodies: Sequence[Body], shape: TlbShape) -> None:
        tiers = (Tier(FAST_PAGES, MARKS), Tier(FAST_PAGES, MARKS))
        super().__init__(ARCHITECTURES["x86"], parameters_of(len(bodies), tiers), tiers, shape, Immediate)
        self._bodies = bodies

    def checks(self, memory: Memory) -> list[Any]:
        return []

    def watchers(self) -> list[Any]:
        return []

    def program(self, cpu: Cpu, kernel: PerCpu) -> Program:
        cpu.interrupt_entry = flush_and_acknowledge
        cpu.mm = cpu.pcid = 1
        return self._bodies[cpu.number](cpu)


def engine_of(*bodies: Body, costs: Costs | None = None, lookahead: bool = True) -> TimedEngine:
    return TimedEngine(Lab(bodies, TlbShape()), costs or Costs(), lookahead=lookahead)


def run(*bodies: Body, costs: Costs | None = None) -> TimedResult:
    return engine_of(*bodies, costs=costs).run()
