"""How a timed run ends when it does not end by itself: nobody can go on, or nobody gets anywhere.

A kernel path visits every page of the machine a few times at most before some thread goes on, and takes some
tens of steps for each. So a number of steps that is out of proportion to the memory, without one user access
in between, has no end. It is counted, not timed: the same machine ends at the same step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import CoroutineType
from typing import Any, Final

from emulator.checks.violation import NO_END, Violation
from emulator.hardware.cpu import Cpu
from emulator.hardware.operations import Idle, describe
from emulator.memory.memory import Memory

DEADLOCK: Final = "deadlock"

_MOST_STEPS: Final = 100_000
_MOST_PER_PAGE: Final = 100


def most_steps(memory: Memory) -> int:
    """Steps of all CPUs together, from one user access to the next, that a run may take."""
    return _MOST_STEPS + _MOST_PER_PAGE * sum(zone.pages for zone in memory.folios.zones)


def no_end(cpus: Iterable[Cpu], steps: int) -> Violation:
    """`steps` have been taken without a user access."""
    places = [f"{text} in {_function(cpu)}" for cpu, text in _standing(cpus)]
    text = f"no user access in {steps:,} steps: {'; '.join(places)}"
    return Violation(rule=NO_END, cpu=-1, text=text)


def deadlock(cpus: Sequence[Cpu]) -> Violation | None:
    """Nobody goes next; somebody should."""
    waiting = [text for _, text in _standing(cpus)]
    calls = [
        f"CPU {request.sender} waits for {request.function} on CPU {cpu.number}, whose program has ended"
        for cpu in cpus
        if cpu.halted
        for request in cpu.call_queue
        if request.wait
    ]
    if not waiting and not calls:
        return None
    text = f"nothing can happen any more: {'; '.join(waiting + calls)}"
    return Violation(rule=DEADLOCK, cpu=-1, text=text)


def _standing(cpus: Iterable[Cpu]) -> list[tuple[Cpu, str]]:
    """Where every CPU is that has not come to its end."""
    return [
        (
            cpu,
            f"CPU {cpu.number} {'with interrupts off ' if not cpu.irqs else ''}at {describe(cpu.operation)}",
        )
        for cpu in cpus
        if not cpu.halted and not (len(cpu.frames) == 1 and type(cpu.operation) is Idle)
    ]


def _function(cpu: Cpu) -> str:
    """The innermost function that awaits the operation."""
    program: Any = cpu.frames[-1].program
    while isinstance(program.cr_await, CoroutineType):
        program = program.cr_await
    return str(program.__qualname__)
