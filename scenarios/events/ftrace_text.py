"""Events as the text of ftrace, so that scripts made for captures of real kernels read them.

Lines are in the order of time, with the format of each tracepoint as in include/trace/events/ of v6.12. What
an emulated kernel does not have is filled in: priorities, vectors, and numbers in the place of pointers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, TextIO

from scenarios.events.event import Event, Reason, What
from scenarios.events.event_file import EventHeader

CALL_FUNCTION_VECTOR: Final = 0xFC
RESCHEDULE_VECTOR: Final = 0xFD
_RESCHEDULE: Final = "scheduler_ipi"
_CALLER: Final = "smp_call_function_many_cond"
_REASONS: Final = {
    Reason.TASK_SWITCH: "flush on task switch",
    Reason.REMOTE_SHOOTDOWN: "remote shootdown",
    Reason.LOCAL_SHOOTDOWN: "local shootdown",
    Reason.LOCAL_MM_SHOOTDOWN: "local mm shootdown",
    Reason.REMOTE_SEND_IPI: "remote ipi send",
    Reason.REMOTE_WRONG_CPU: "remote wrong CPU",
}
_HEADER: Final = """\
# tracer: nop
#
# {title}
# times are in {unit}
#
# entries-in-buffer/entries-written: {count}/{count}   #P:{cpus}
#
#                                _-----=> irqs-off/BH-disabled
#                               / _----=> need-resched
#                              | / _---=> hardirq/softirq
#                              || / _--=> preempt-depth
#                              ||| / _-=> migrate-disable
#                              |||| /     delay
#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
#              | |         |   |||||     |         |
"""


class _Cpu:
    """What one CPU is at, for the columns before a line's text."""

    def __init__(self, number: int) -> None:
        self.task = (f"swapper/{number}", 0)
        self.depths: list[int] = []
        self.calls: list[tuple[str, int, int]] = []  # taken and not begun: function, sender, request
        self.vector = 0  # of the interrupt that it is in
        self.running: list[tuple[int, tuple[str, int, int]]] = []  # with how many functions were open before

    @property
    def in_handler(self) -> bool:
        return bool(self.depths and self.depths[-1])


def write_ftrace(header: EventHeader, events: Iterable[Event], into: TextIO) -> int:
    """Write the text; how many lines of events it has. UnicodeError cannot come: all is ASCII."""
    cpus = [_Cpu(number) for number in range(header.cpus)]
    # A CPU's own events are in order already, and sorting keeps them so.
    lines = sorted(
        ((event.at, _line(cpus[event.cpu], event, text)) for event, text in _told(cpus, events)),
        key=lambda line: line[0],
    )
    unit = "seconds, of the run" if header.unit == "ns" else "steps, a microsecond each"
    title = header.title.encode("ascii", "replace").decode()
    into.write(_HEADER.format(title=title, unit=unit, count=len(lines), cpus=header.cpus))
    scale = 1 if header.unit == "ns" else 1000
    for at, (before, text) in lines:
        seconds, ns = divmod(at * scale, 10**9)
        into.write(f"{before} {seconds:5d}.{ns:09d}: {text}\n")
    return len(lines)


def _line(cpu: _Cpu, event: Event, text: str) -> tuple[str, str]:
    """The columns of a line before its time, and its text."""
    comm, pid = cpu.task
    flags = "d.h1." if cpu.in_handler or text.startswith("call_function_") else "....."
    return f"{comm:>16}-{pid:<7} [{event.cpu:03d}] {flags}", text


def _told(cpus: list[_Cpu], events: Iterable[Event]) -> Iterator[tuple[Event, str]]:
    for event in events:
        if event.cpu >= 0:
            yield from ((event, text) for text in _texts(cpus[event.cpu], event, len(cpus)))


def _texts(cpu: _Cpu, event: Event, cpus: int) -> Iterator[str]:
    _, number, what, name, values = event
    if what is What.ENTER:
        cpu.depths.append(values[0])
        call = next((one for one in cpu.calls if one[0] == name), None)
        if values[0] and call is not None:
            cpu.calls.remove(call)
            cpu.running.append((len(cpu.depths) - 1, call))
            yield f"csd_function_entry: func={name}, csd={_csd(call, number)}"
    elif what is What.LEAVE:
        depth = cpu.depths.pop() if cpu.depths else 0
        if cpu.running and cpu.running[-1][0] == len(cpu.depths):
            _, call = cpu.running.pop()
            yield f"csd_function_exit: func={name}, csd={_csd(call, number)}"
        if depth and (not cpu.depths or cpu.depths[-1] < depth):
            # Functions without a single operation.
            for call in cpu.calls:
                csd = _csd(call, number)
                yield f"csd_function_entry: func={call[0]}, csd={csd}"
                yield f"csd_function_exit: func={call[0]}, csd={csd}"
            cpu.calls.clear()
            if cpu.vector:
                yield f"call_function_exit: vector={cpu.vector}"
            cpu.vector = 0
    elif what is What.SEND:
        request, _, *targets = values
        if name == _RESCHEDULE:
            yield from (f"ipi_send_cpu: cpu={one} callsite=try_to_wake_up callback={name}" for one in targets)
            return
        for target in targets:
            csd = _csd((name, number, request), target)
            yield f"csd_queue_cpu: cpu={target} callsite={_CALLER} func={name} csd={csd}"
        mask = _bitmap(sum(1 << target for target in targets), cpus)
        yield f"ipi_send_cpumask: cpumask={mask} callsite={_CALLER} callback={name}"
    elif what is What.TAKE:
        if name == _RESCHEDULE:
            yield f"reschedule_entry: vector={RESCHEDULE_VECTOR}"
            yield f"reschedule_exit: vector={RESCHEDULE_VECTOR}"
            return
        if not cpu.vector:
            cpu.vector = CALL_FUNCTION_VECTOR
            yield f"call_function_entry: vector={cpu.vector}"
        sender, request = values
        cpu.calls.append((name, sender, request))
    elif what is What.FLUSH:
        reason, pages = values
        yield f"tlb_flush: pages:{pages} reason:{_REASONS[Reason(reason)]} ({reason})"
    elif what is What.TASK:
        before, after = cpu.task, _task(name, number, values[0])
        yield (
            f"sched_switch: prev_comm={before[0]} prev_pid={before[1]} prev_prio=120 prev_state=S ==> "
            f"next_comm={after[0]} next_pid={after[1]} next_prio=120"
        )
        cpu.task = after
    elif what in (What.STEP, What.VIOLATION):
        mark = "" if what is What.STEP else "VIOLATION: "
        yield f"tracing_mark_write: {mark}{name.encode('ascii', 'replace').decode()}"


def _task(name: str, number: int, pid: int) -> tuple[str, int]:
    """comm and pid of a task on CPU `number`. Threads stay on theirs, and each CPU has numbered them anew."""
    if not pid:
        return f"swapper/{number}", 0
    return name, pid + (1000 * number if name == "thread" else 0)


def _csd(call: tuple[str, int, int], target: int) -> str:
    """A number for the call_single_data of one target, in the place of its address."""
    _, sender, request = call
    return f"{sender << 48 | target << 32 | request & 0xFFFFFFFF:016x}"


def _bitmap(mask: int, cpus: int) -> str:
    """As %*pb prints it: hexadecimal, in groups of 32 bits."""
    groups = []
    for low in range(0, cpus, 32):
        digits = -(-min(32, cpus - low) // 4)
        groups.append(f"{mask >> low & 0xFFFFFFFF:0{digits}x}")
    return ",".join(reversed(groups))
