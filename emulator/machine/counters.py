"""A CPU's event counters as a litmus test has them: a program may ask those that its test names.

Counters tell what a run came by, and two runs that differ in nothing else are one to a search. So what a
program asks has to be part of the CPU's state, and everything else cannot be asked.
"""

from __future__ import annotations

import sys
from inspect import CO_COROUTINE
from typing import Any

from emulator.kernel.mmu.mmu import Mmu
from emulator.kernel.percpu import KernelParameters, PerCpu
from emulator.kernel.policy import Policy


class Unasked(Exception):
    """A program asks for a counter that its test does not name; the message, one line, says what to do."""


class CountedCpu(PerCpu):
    """One CPU of a litmus test; `asked` are the counters that programs may ask (`counted`)."""

    def __init__(
        self, number: int, parameters: KernelParameters, policy: Policy, mmu: Mmu, asked: tuple[str, ...]
    ) -> None:
        super().__init__(number, parameters, policy, mmu)
        self.asked = dict.fromkeys(asked, 0)

    def count(self, counter: str, delta: int = 1) -> None:
        """count_vm_events on this CPU."""
        counters: dict[str, int] = self.__dict__["vmstat"]
        counters[counter] = counters.get(counter, 0) + delta
        if counter in self.asked:
            self.asked[counter] += delta

    def count_most(self, counter: str, value: int) -> None:
        """A counter that has the largest value that there ever was, for reports only."""
        counters: dict[str, int] = self.__dict__["vmstat"]
        counters[counter] = max(counters.get(counter, 0), value)

    def count_interrupt(self) -> None:
        """This CPU's column of the TLB row in /proc/interrupts."""
        self.__dict__["tlb_interrupts"] += 1

    def remote_flushes(self) -> int:
        """Always 0: what the kernel keeps of it for its reports would tell states apart that go on alike."""
        return 0

    def count_flushes(self, counter: str, before: int) -> None:
        """Nobody reports what flushes were for."""

    def counted(self, counter: str) -> int:
        """How often this CPU has counted that. Raises Unasked."""
        if counter not in self.asked:
            raise Unasked(f"a program asks for {counter}, which its Litmus does not name in `asks`")
        return self.asked[counter]


def _kept_from_programs(name: str) -> Any:
    def read(cpu: PerCpu) -> Any:
        frame = sys._getframe(1)
        while frame is not None:
            if frame.f_code.co_flags & CO_COROUTINE:
                raise Unasked(
                    f"a program reads {name}, which is for reports and no part of a CPU's state; name the "
                    "counter in the Litmus's `asks` and use cpu.counted(NAME), or use a variable"
                )
            frame = frame.f_back  # type: ignore[assignment]
        return cpu.__dict__[name]

    def write(cpu: PerCpu, value: Any) -> None:
        cpu.__dict__[name] = value

    return property(read, write)


for _name in ("vmstat", "tlb_interrupts"):
    setattr(CountedCpu, _name, _kept_from_programs(_name))
