"""A CPU between two transitions as a value, all but its programs; and a CPU put into such a state again."""

from __future__ import annotations

from typing import Any, NamedTuple

from emulator.hardware.cpu import Cpu, Frame
from emulator.hardware.operations import Halt, Operation


class FrameState(NamedTuple):
    """A `Frame` but for its program. `interrupted`: what Halt asks."""

    irqs: bool
    operation: Operation | None
    series: tuple[Operation, ...] | None
    answers: tuple[Any, ...]
    begun: bool
    interrupted: bool


class CpuState(NamedTuple):
    """What decides what a CPU does next, but for its programs and what never changes; no counters."""

    mm: int
    pcid: int
    irqs: bool
    tlb: tuple[Any, ...]
    pending: tuple[Any, ...]
    values: frozenset[tuple[int, Any]]
    frames: tuple[FrameState, ...]


def state_of(cpu: Cpu) -> CpuState:
    """The state that a CPU is in; its call queue is empty."""
    frames = [
        FrameState(
            frame.irqs,
            frame.operation,
            frame.series,
            () if frame.series is None else tuple(frame.answers),
            frame.begun,
            _asks_interrupts(frame) and cpu.interrupts_taken > frame.interrupts_before,
        )
        for frame in cpu.frames
    ]
    pending, values = tuple(cpu.window.pending), frozenset(cpu.window.values.items())
    return CpuState(cpu.mm, cpu.pcid, cpu.irqs, cpu.tlb.state(), pending, values, tuple(frames))


def _asks_interrupts(frame: Frame) -> bool:
    """Halt waits for one, here or later in the series."""
    return type(frame.operation) is Halt or (
        frame.series is not None and any(type(one) is Halt for one in frame.series)
    )


def restore(cpu: Cpu, state: CpuState, program: Any) -> None:
    """Put a CPU of the same machine into that state; `program` is what runs in every frame."""
    cpu.mm, cpu.pcid, cpu.irqs, tlb, pending, values, frames = state
    cpu.tlb.restore(tlb)
    cpu.window.pending = list(pending)
    cpu.window.values = dict(values)
    cpu.call_queue.clear()
    cpu.interrupts_taken = 1
    cpu.frames = [
        Frame(program, irqs, operation, series, list(answers), begun, int(not interrupted))
        for irqs, operation, series, answers, begun, interrupted in frames
    ]
