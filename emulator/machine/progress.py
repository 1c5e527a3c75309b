"""Rules that show in the stepping itself rather than in memory: progress, and what a program says."""

from __future__ import annotations

from typing import Final

from emulator.checks.violation import Violation
from emulator.hardware.cpu import Cpu
from emulator.hardware.operations import WaitAcks
from emulator.kernel.memory import SegmentationFault
from emulator.kernel.page_alloc import OutOfMemory
from emulator.machine.litmus import Forbidden

SILENCE: Final = "silence"
"""The rule that a stressed run breaks if for long nobody gets anywhere and nobody says why."""

DEADLOCK = "deadlock"
ALLOCATION_FAILED = "allocation failed"
SEGMENTATION_FAULT = "segmentation fault"
WAITS_WITH_INTERRUPTS_OFF = "waits for acknowledgements with interrupts off"


def broken_by_program(cpu: int, error: Exception) -> Violation | None:
    """The rule that an exception out of a program stands for; None if it is the program's own fault."""
    if isinstance(error, Forbidden):
        return Violation(rule=error.rule, cpu=cpu, text=error.text)
    if isinstance(error, OutOfMemory):
        return Violation(rule=ALLOCATION_FAILED, cpu=cpu, text=str(error))
    if isinstance(error, SegmentationFault):
        return Violation(rule=SEGMENTATION_FAULT, cpu=cpu, text=str(error))
    return None


def waits_with_interrupts_off(cpu: Cpu) -> Violation | None:
    """Two CPUs that wait for each other's acknowledgement like this would wait for ever."""
    if cpu.frames and not cpu.irqs and type(cpu.operation) is WaitAcks:
        text = "csd_lock_wait with interrupts off: two CPUs that do so to each other never go on"
        return Violation(rule=WAITS_WITH_INTERRUPTS_OFF, cpu=cpu.number, text=text)
    return None
