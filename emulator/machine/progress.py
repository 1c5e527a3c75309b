"""The rules of progress: a run goes on and comes to its end, and no program says that it cannot.

They show in the stepping rather than in memory. Each engine has its own way to find out that one is broken;
what it is called and the sentence that says so are the same for all, and here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from traceback import walk_tb
from types import CoroutineType, FrameType
from typing import Any, Final

from emulator.checks.violation import Violation
from emulator.hardware.cpu import Cpu, IpiRequest, Program
from emulator.hardware.operations import Idle, LocalIrqEnable, Operation, Touch, WaitAcks, describe
from emulator.kernel.memory import SegmentationFault
from emulator.kernel.page_alloc import OutOfMemory
from emulator.machine.call_book import UnknownCall
from emulator.machine.litmus import Forbidden
from emulator.memory.memory import Memory

DEADLOCK: Final = "deadlock"
"""Nothing can happen any more, and somebody waits."""

LIVELOCK: Final = "livelock"
"""Something can always happen, but the run has no end."""

NO_END: Final = "no end"
"""The run has taken more steps than it may."""

SILENCE: Final = "silence"
"""For long nobody has got anywhere, and nobody says why; only real time can break it."""

ALLOCATION_FAILED: Final = "allocation failed"
"""There was no frame left for a program."""

SEGMENTATION_FAULT: Final = "segmentation fault"
"""A program made an access that its address space does not allow."""

WAITS_WITH_INTERRUPTS_OFF: Final = "waits for acknowledgements with interrupts off"
"""Two CPUs that wait for each other's acknowledgement like this would wait for ever."""

_GATE: Final = (Memory.execute.__code__, Memory.enabled.__code__)
_MOST_STEPS: Final = 100_000
_MOST_PER_PAGE: Final = 100
_MOST_PER_INTERRUPT: Final = 100


# --- where a CPU is --------------------------------------------------------------------------------


def at_end(cpu: Cpu) -> bool:
    """Its program is over: halted for good, or idle and ready for others' interrupts."""
    return cpu.halted or (len(cpu.frames) == 1 and type(cpu.operation) is Idle)


def standing(cpu: Cpu) -> str:
    """What a CPU is at, in words; empty if it has come to its end."""
    if at_end(cpu):
        return ""
    return f"{'' if cpu.irqs else 'with interrupts off '}at {operation_text(cpu.operation)}"


def operation_text(operation: Operation) -> str:
    """The operation on one short line; a touch of a million pages included."""
    if isinstance(operation, Touch):
        return f"Touch({operation.start}..{operation.stop} of {len(operation.accesses)} accesses)"
    text = describe(operation)
    return text if len(text) <= 120 else text[:117] + "..."


def waits(cpus: Sequence[Cpu], calls: Sequence[Sequence[IpiRequest]]) -> list[str]:
    """Who waits for what. `calls` are the queues; a CPU that has halted takes nothing any more."""
    return [f"CPU {cpu.number} {standing(cpu)}" for cpu in cpus if not at_end(cpu)] + [
        unserved(request, cpu.number)
        for cpu, queue in zip(cpus, calls, strict=True)
        if cpu.halted
        for request in queue
        if request.wait
    ]


def unserved(request: IpiRequest, cpu: int) -> str:
    """Of a call that `cpu`, which has halted, will not take."""
    return f"CPU {request.sender} waits for {request.function} on CPU {cpu}, whose program has ended"


# --- broken rules ----------------------------------------------------------------------------------


def deadlock(waiting: Sequence[str]) -> Violation:
    """`waiting` as `waits` has it."""
    return Violation(rule=DEADLOCK, cpu=-1, text=f"nothing can happen any more: {'; '.join(waiting)}")


def most_steps(memory: Memory, cpus: int) -> int:
    """Steps of all CPUs together, from one user access to the next, that a run with a clock may take.

    A kernel path visits every page of the machine a few times at most before some thread goes on, and takes
    some tens of steps for each. All CPUs may be on one, and each interrupts all others. It is counted, not
    timed: the same machine ends at the same step.
    """
    pages = sum(zone.pages for zone in memory.folios.zones)
    return _MOST_STEPS + _MOST_PER_PAGE * pages + _MOST_PER_INTERRUPT * cpus * (cpus - 1)


def no_access(cpus: Iterable[Cpu], steps: int) -> Violation:
    """`steps` have been taken without a user access: no end."""
    places = [f"CPU {cpu.number} {standing(cpu)} in {_function(cpu)}" for cpu in cpus if not at_end(cpu)]
    return Violation(rule=NO_END, cpu=-1, text=f"no user access in {steps:,} steps: {'; '.join(places)}")


def not_over(transitions: int) -> Violation:
    """That many are too many: no end."""
    return Violation(rule=NO_END, cpu=-1, text=f"not over after {transitions:,} transitions")


def silence(seconds: float, states: Sequence[str]) -> Violation:
    """`states` says of every CPU what it is at."""
    text = f"no CPU got anywhere for {seconds:g} s; they wait for: {'; '.join(states)}"
    return Violation(rule=SILENCE, cpu=-1, text=text)


def broken_by_program(cpu: int, error: Exception) -> Violation | None:
    """The rule that an exception out of a program stands for; None if it is the program's own fault."""
    if isinstance(error, Forbidden):
        return Violation(rule=error.rule, cpu=cpu, text=error.text)
    if isinstance(error, OutOfMemory):
        return Violation(rule=ALLOCATION_FAILED, cpu=cpu, text=str(error))
    if isinstance(error, SegmentationFault):
        return Violation(rule=SEGMENTATION_FAULT, cpu=cpu, text=str(error))
    return None


def boot_program(cpu: Cpu, program: Program) -> None:
    """`Cpu.boot`; a program that breaks a rule before its first operation breaks it in a step of its own."""
    try:
        cpu.boot(program)
    except Exception as error:
        broken = broken_by_program(cpu.number, error)
        if broken is None:
            raise
        cpu.frames.clear()
        cpu.boot(_breaks(broken.rule, broken.text))


async def _breaks(rule: str, text: str) -> None:
    await LocalIrqEnable()
    raise Forbidden(rule, text)


def running_cpu(problem: BaseException) -> int:
    """The simulated CPU whose program raised `problem` or asked memory for what it cannot do; -1 if none."""
    if isinstance(problem, UnknownCall):
        return problem.cpu
    found = -1
    trace = problem.__traceback__
    while trace is not None:
        inside = trace.tb_frame.f_locals
        if isinstance(inside.get("self"), Cpu):
            found = inside["self"].number
        if _at_gate(trace.tb_frame):
            found = inside["cpu"]
        trace = trace.tb_next
    return found


def _at_gate(frame: FrameType) -> bool:
    """It carries out an operation of memory: its `cpu` and `operation` say which. Engines may call what
    memory has for a class of operations without going through the gate."""
    inside = frame.f_globals.get("__name__", "").startswith(f"{Memory.__module__.rpartition('.')[0]}.")
    return frame.f_code in _GATE or (inside and {"cpu", "operation"} <= frame.f_locals.keys())


def asked(problem: BaseException) -> str:
    """The operation that memory could not carry out, in words; empty if it is not that."""
    for frame, _ in walk_tb(problem.__traceback__):
        if _at_gate(frame):
            return f"{frame.f_locals['operation']!r:.120}"
    return ""


def waits_with_interrupts_off(cpu: Cpu) -> Violation | None:
    """Whether the CPU's next operation breaks this rule."""
    if cpu.frames and not cpu.irqs and type(cpu.operation) is WaitAcks:
        text = "csd_lock_wait with interrupts off: two CPUs that do so to each other never go on"
        return Violation(rule=WAITS_WITH_INTERRUPTS_OFF, cpu=cpu.number, text=text)
    return None


def _function(cpu: Cpu) -> str:
    """The innermost function that awaits the operation."""
    program: Any = cpu.frames[-1].program
    while isinstance(program.cr_await, CoroutineType):
        program = program.cr_await
    return str(program.__qualname__)
