"""Machines small enough to see through: words, locks and lists as memory, one program for each CPU.

Programs are plain `async def` functions of a `Lab`, the CPU's kernel; their result is what they put in `log`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from emulator.checks.violation import Violation
from emulator.hardware.cpu import Cpu, IpiRequest, Program
from emulator.hardware.operations import AckIpi, FlushTlb, Operation, SendIpi, WaitAcks
from emulator.hardware.ordering import ARCHITECTURES
from emulator.hardware.tlb import TlbShape
from emulator.memory.blocked import BLOCKED
from emulator.memory.words import Words


class WordMemory:
    """Named words, locks and lists."""

    def __init__(self) -> None:
        self.words = Words()
        self.handlers = self.words.handlers()

    def execute(self, cpu: int, operation: Operation) -> Any:
        return self.handlers[type(operation)](cpu, operation)

    def enabled(self, cpu: int, operation: Any) -> bool:
        if type(operation).__name__ == "Lock":
            return operation.name not in self.words.holders
        return self.execute(cpu, operation) is not BLOCKED

    def results(self) -> dict[str, Any]:
        return {"words": dict(self.words.values), "holders": dict(self.words.holders)}


class NoValue666:
    """Objects to one particular value, and counts what it saw."""

    def __init__(self) -> None:
        self.violations: list[Violation] = []
        self.seen = 0

    def observe(self, cpu: int, operation: Operation, answer: Any) -> None:
        self.seen += 1
        if 666 in operation:
            self.violations.append(Violation("no 666", cpu, type(operation).__name__))

    def finish(self) -> None:
        self.violations.append(Violation("no 666", -1, "at the end"))

    def results(self) -> dict[str, Any]:
        return {"seen": self.seen}


Handler = Callable[["Lab", IpiRequest], Program]


class Lab:
    """The kernel of one CPU. A `handler` serves one request, which is acknowledged after it if so wished."""

    cpu: Cpu

    def __init__(self, number: int, handler: Handler | None, acknowledge: bool) -> None:
        self.number = number
        self.accesses = 0
        self.tlb_interrupts = 0
        self.log: list[Any] = []
        self._handler = handler
        self._acknowledge = acknowledge

    def results(self) -> dict[str, Any]:
        return {"log": self.log, "tlb_interrupts": self.tlb_interrupts}

    async def interrupt(self, batch: tuple[IpiRequest, ...]) -> None:
        self.tlb_interrupts += 1
        for request in batch:
            if self._handler is not None:
                await self._handler(self, request)
            else:
                await FlushTlb()
            if self._acknowledge:
                await AckIpi(request.sender, request.number)

    async def shoot(self, targets: Sequence[int]) -> None:
        """Flush the TLBs of `targets` and wait for them."""
        number = await SendIpi(tuple(targets), "flush", (), True)
        await WaitAcks(number)


Body = Callable[[Lab], Coroutine[Operation, Any, None]]


@dataclass
class LabMachine:
    """One body for each CPU."""

    bodies: Sequence[Body]
    handler: Handler | None = None
    acknowledge: bool = True
    checked: bool = False
    architecture: str = "x86"
    cpus: int = field(init=False)

    def __post_init__(self) -> None:
        self.cpus = len(self.bodies)

    def memory(self) -> WordMemory:
        return WordMemory()

    def checks(self, memory: Any) -> list[Any]:
        return [NoValue666()] if self.checked else []

    def cpu(self, number: int) -> tuple[Cpu, Program, Lab]:
        lab = Lab(number, self.handler, self.acknowledge)
        lab.cpu = Cpu(number, ARCHITECTURES[self.architecture], TlbShape(), lab.interrupt)
        return lab.cpu, self.bodies[number](lab), lab
