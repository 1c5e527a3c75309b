"""Machines small enough to see through: words, locks and lists as memory, one program for each CPU.

Programs are plain `async def` functions of a `Lab`, the CPU's kernel; their result is what they put in `log`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from emulator.checks.onlooker import Check
from emulator.checks.violation import Violation
from emulator.hardware.cpu import Cpu, IpiRequest, Program
from emulator.hardware.operations import AckIpi, FlushTlb, Operation, SendIpi, WaitAcks
from emulator.hardware.ordering import ARCHITECTURES
from emulator.hardware.tlb import TlbShape
from emulator.kernel.mmu.x86 import X86
from emulator.kernel.percpu import KernelParameters, PerCpu
from emulator.kernel.policy import Policy
from emulator.machine.builder import Machine, parameters_of
from emulator.memory.folios import Tier
from emulator.memory.memory import Memory
from emulator.memory.zone import Watermarks
from emulator.policies.immediate import Immediate


class WordMemory(Memory):
    """What it has to say at the end are its words and locks."""

    def results(self) -> dict[str, Any]:
        return {"words": dict(self.words.values), "holders": dict(self.words.holders)}


class NoValue666(Check):
    """Objects to one particular value, and counts what it saw."""

    def __init__(self) -> None:
        super().__init__()
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


class Lab(PerCpu):
    """The kernel of one CPU. A `handler` serves one request, which is acknowledged after it if so wished."""

    cpu: Cpu

    def __init__(
        self,
        number: int,
        parameters: KernelParameters,
        policy: Policy,
        handler: Handler | None,
        acknowledge: bool,
    ) -> None:
        super().__init__(number, parameters, policy, X86())
        self.log: list[Any] = []
        self._handler = handler
        self._acknowledge = acknowledge

    def results(self) -> dict[str, Any]:
        return {"log": self.log, "tlb_interrupts": self.tlb_interrupts}

    async def interrupt(self, batch: tuple[IpiRequest, ...]) -> None:
        self.count_interrupt()
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


TIERS = (Tier(1, Watermarks(0, 0, 0)),)


class LabMachine(Machine):
    """One body for each CPU."""

    def __init__(
        self,
        bodies: Sequence[Body],
        handler: Handler | None = None,
        acknowledge: bool = True,
        checked: bool = False,
    ) -> None:
        super().__init__(
            ARCHITECTURES["x86"], parameters_of(len(bodies), TIERS), TIERS, TlbShape(), Immediate
        )
        self.bodies = bodies
        self.handler = handler
        self.acknowledge = acknowledge
        self.checked = checked

    def memory(self) -> WordMemory:
        return WordMemory(self.tiers)

    def checks(self, memory: Memory) -> list[Any]:
        return [NoValue666()] if self.checked else []

    def kernel(self, number: int) -> Lab:
        return Lab(number, self.parameters, self.policy(), self.handler, self.acknowledge)

    def cpu(self, number: int) -> tuple[Cpu, Program, PerCpu]:
        lab = self.kernel(number)
        lab.cpu = Cpu(number, self.architecture, self.shape, lab.interrupt)
        return lab.cpu, self.program(lab.cpu, lab), lab

    def program(self, cpu: Cpu, kernel: PerCpu) -> Program:
        assert isinstance(kernel, Lab)
        return self.bodies[kernel.number](kernel)
