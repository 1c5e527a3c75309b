"""Machines of a few programs, written out in a test, on the timed engine."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from emulator.hardware.cpu import Cpu, IpiRequest, Program
from emulator.hardware.operations import AckIpi, FlushTlb
from emulator.hardware.ordering import ARCHITECTURES
from emulator.hardware.tlb import TlbShape
from emulator.measure.costs import Costs
from emulator.memory.folios import Tier
from emulator.memory.memory import Memory
from emulator.memory.zone import Watermarks
from emulator.timed.engine import TimedEngine, TimedResult

FAST_PAGES = 64
FIRST_SLOW = 1 + FAST_PAGES
MARKS = Watermarks(1, 1, 1)

Body = Callable[[Cpu], Coroutine[Any, Any, None]]


class Kernel:
    accesses = 0
    tlb_interrupts = 0

    def count(self, event: str, n: int = 1) -> None:
        pass

    def results(self) -> dict[str, Any]:
        return {}


async def flush_and_acknowledge(batch: tuple[IpiRequest, ...]) -> None:
    for request in batch:
        await FlushTlb()
        if request.wait:
            await AckIpi(request.sender, request.number)


@dataclass
class Lab:
    """One program for each CPU; every call flushes and is acknowledged."""

    bodies: list[Body]
    shape: TlbShape = field(default_factory=TlbShape)

    @property
    def cpus(self) -> int:
        return len(self.bodies)

    def memory(self) -> Memory:
        return Memory((Tier(FAST_PAGES, MARKS), Tier(FAST_PAGES, MARKS)))

    def checks(self, memory: Memory) -> list[Any]:
        return []

    def watchers(self, memory: Memory) -> list[Any]:
        return []

    def cpu(self, number: int) -> tuple[Cpu, Program, Kernel]:
        cpu = Cpu(number, ARCHITECTURES["x86"], self.shape, flush_and_acknowledge)
        cpu.mm = cpu.pcid = 1
        return cpu, self.bodies[number](cpu), Kernel()


def engine_of(*bodies: Body, costs: Costs | None = None, lookahead: bool = True) -> TimedEngine:
    return TimedEngine(Lab(list(bodies)), costs or Costs(), lookahead=lookahead)


def run(*bodies: Body, costs: Costs | None = None) -> TimedResult:
    return engine_of(*bodies, costs=costs).run()
