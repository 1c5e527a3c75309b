"""Listens to an engine and tells what happens as events: functions from the programs' own stacks, calls,
acknowledgements and flushes from operations, counters and broken rules from whoever keeps them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import CoroutineType
from typing import Any, Final, NamedTuple

from emulator.checks.onlooker import Check
from emulator.checks.violation import Violation
from emulator.hardware.cpu import Cpu, Kind, Transition
from emulator.hardware.operations import (
    AckIpi,
    FlushTlb,
    FlushTlbAll,
    FlushTlbOne,
    FolioMigrateMapping,
    FolioPut,
    FolioPutTestzero,
    LoadCr3,
    Operation,
    SendIpi,
    Touch,
    WaitAcks,
)
from emulator.hardware.pte import describe as describe_pte
from emulator.hardware.tlb import GLOBAL
from emulator.kernel.percpu import PF_KSWAPD, PerCpu
from emulator.kernel.tlb import TLB_FLUSH_ALL, FlushTlbInfo
from emulator.measure.pending import PendingPeak
from emulator.measure.vmstat import merge
from emulator.memory.memory import Memory
from scenarios.drawing.columns import answered_here
from scenarios.drawing.held import held
from scenarios.drawing.phrases import said, taken
from scenarios.events.event import Event, Reason, What

_FLUSHES: Final = "flush_tlb_func"
_OF_A_BATCH: Final = "arch_tlbbatch_flush"
_COUNTED_EVERY: Final = 1000
"""Counters are looked at when so many steps have passed."""


class _Call(NamedTuple):
    """A function that has begun and not ended, in frame `depth` of the CPU: 0 is its task."""

    program: CoroutineType[Any, Any, Any]
    name: str
    depth: int
    shown: bool


class EventListener:
    """To be made when the machine is, and closed when the run is over; `emit` gets the events in order.

    `now` answers the time, `violations` what was found broken by now. `kernels`, if there are some, have the
    counters and the running tasks, `checks` how much is pending. `steps`: every operation is told, in words;
    `tlbs`: so is what TLBs have, which takes long where that is much.
    """

    def __init__(
        self,
        memory: Memory,
        cpus: Sequence[Cpu],
        emit: Callable[[Event], None],
        now: Callable[[], int],
        violations: Callable[[], Sequence[Violation]],
        *,
        kernels: Sequence[PerCpu] = (),
        checks: Sequence[Check] = (),
        steps: bool = False,
        tlbs: bool = False,
    ) -> None:
        self._memory = memory
        self._cpus = cpus
        self._emit = emit
        self._now = now
        self._violations = violations
        self._pending = [one for one in checks if isinstance(one, PendingPeak)]
        self._kernels = kernels
        self._steps = steps
        self._stacks: list[list[_Call]] = [[] for _ in cpus]
        # How many pages flush_tlb_func has dropped by now, on each CPU.
        self._dropped = [0] * len(cpus)
        self._pids = [0] * len(cpus)
        self._told: set[Violation] = set()
        self._counters: dict[str, int] = {}
        self._count = 0
        self._counted_at = 0
        self._latest = 0
        self._tlbs: list[tuple[str, tuple[int, ...]]] = [("", ()) for _ in cpus if tlbs]
        self._old: set[int] = set()  # frames that were moved away from and are not free yet

    def happened(
        self, transition: Transition, operation: Operation | None, issued: bool, answer: Any
    ) -> None:
        """One transition, told before the CPU goes on."""
        kind = type(operation)
        if kind is Touch and not self._steps:
            return
        at = self._now()
        number = transition.cpu
        if self._tlbs:
            self._look_at_tlbs()
        self._latest = at
        if transition.kind is Kind.STEP:
            self._follow(at, number)
        if operation is None:
            self._end(at, number)
            if self._steps:
                self._emit(Event(at, number, What.STEP, taken(answer)))
            for call in answer:
                self._emit(Event(at, number, What.TAKE, call.function, (call.sender, call.number)))
        else:
            if self._steps:
                known = answer
                if answer is None and transition.kind is Kind.STEP:
                    known = answered_here(self._cpus[number])
                self._emit(Event(at, number, What.STEP, said(transition.kind, operation, issued, known)))
            if not issued:
                self._carried_out(at, number, operation, answer)
        self._notice(at)
        self._count += 1
        if self._kernels and not self._count % _COUNTED_EVERY:
            self._count_up(at)

    def close(self) -> None:
        """The run is over: functions that have begun end here, and what has not been told is."""
        at = self._now()
        if self._tlbs:
            self._look_at_tlbs()
        for number in range(len(self._stacks)):
            self._leave(at, number, 0)
        self._notice(at)
        if self._kernels:
            self._count_up(at)

    def _follow(self, at: int, number: int) -> None:
        """Tell which functions a CPU has left and entered since it was looked at last."""
        stack = self._stacks[number]
        place = 0
        for depth, frame in enumerate(self._cpus[number].frames):
            program: Any = frame.program
            while isinstance(program, CoroutineType):
                if place >= len(stack) or stack[place].program is not program:
                    self._leave(at, number, place)
                    self._enter(at, number, program, depth)
                place += 1
                program = program.cr_await
        self._leave(at, number, place)
        if self._kernels:
            task = self._kernels[number].current
            if task.pid != self._pids[number]:
                self._pids[number] = task.pid
                kernel = "kswapd" if task.flags & PF_KSWAPD else "kthread" if task.pid else "swapper"
                self._emit(Event(at, number, What.TASK, "thread" if task.mm else kernel, (task.pid, task.mm)))

    def _end(self, at: int, number: int) -> None:
        """Tell which functions are over: if only accesses follow a handler, the next interrupt tells."""
        stack = self._stacks[number]
        place = 0
        for frame in self._cpus[number].frames:
            program: Any = frame.program
            while isinstance(program, CoroutineType):
                if place >= len(stack) or stack[place].program is not program:
                    self._leave(at, number, place)
                    return
                place += 1
                program = program.cr_await

    def _enter(self, at: int, number: int, program: CoroutineType[Any, Any, Any], depth: int) -> None:
        stack = self._stacks[number]
        name = program.cr_code.co_name
        # A function of the kernel that asks the mmu's of the same name is one to a reader.
        shown = not (stack and stack[-1].name == name and stack[-1].depth == depth)
        stack.append(_Call(program, name, depth, shown))
        if shown:
            self._emit(Event(at, number, What.ENTER, name, (depth,)))

    def _leave(self, at: int, number: int, keep: int) -> None:
        stack = self._stacks[number]
        while len(stack) > keep:
            call = stack.pop()
            if not call.shown:
                continue
            pages = self._dropped[number]
            if call.name == _FLUSHES and pages:
                self._dropped[number] = 0
                reason = Reason.REMOTE_SHOOTDOWN
                if not call.depth:
                    of_a_batch = any(outer.name == _OF_A_BATCH for outer in stack)
                    reason = Reason.LOCAL_SHOOTDOWN if of_a_batch else Reason.LOCAL_MM_SHOOTDOWN
                self._emit(Event(at, number, What.FLUSH, call.name, (reason, pages)))
            self._emit(Event(at, number, What.LEAVE, call.name))

    def _carried_out(self, at: int, number: int, operation: Operation, answer: Any) -> None:
        if isinstance(operation, SendIpi):
            if operation.function == _FLUSHES:
                info = FlushTlbInfo(*operation.arguments)
                pages = TLB_FLUSH_ALL if info.end == TLB_FLUSH_ALL else (info.end - info.start) // info.stride
                self._emit(Event(at, number, What.FLUSH, _FLUSHES, (Reason.REMOTE_SEND_IPI, pages)))
            values = (answer, int(operation.wait), *operation.targets)
            self._emit(Event(at, number, What.SEND, operation.function, values))
        elif isinstance(operation, AckIpi):
            self._emit(Event(at, number, What.ACK, "", (operation.sender, operation.request)))
        elif isinstance(operation, WaitAcks):
            self._emit(Event(at, number, What.ACKED, "", (operation.request,)))
        elif isinstance(operation, FlushTlbOne):
            if self._dropped[number] >= 0:
                self._dropped[number] += 1
        elif isinstance(operation, FlushTlb | FlushTlbAll):
            self._dropped[number] = TLB_FLUSH_ALL
        elif isinstance(operation, LoadCr3):
            if operation.flush:
                values = (Reason.TASK_SWITCH, TLB_FLUSH_ALL)
                self._emit(Event(at, number, What.FLUSH, "switch_mm_irqs_off", values))
        elif isinstance(operation, FolioMigrateMapping):
            if answer:
                self._old.add(operation.src)
                self._emit(Event(at, number, What.MOVED, "", (operation.src, operation.dst)))
        elif (
            isinstance(operation, FolioPut | FolioPutTestzero)
            and operation.pfn in self._old
            and operation.pfn not in self._memory.folios.folios
        ):
            self._old.discard(operation.pfn)
            self._emit(Event(at, number, What.FREED, "", (operation.pfn,)))

    def _look_at_tlbs(self) -> None:
        """Tell what the latest step has changed in TLBs, or made stale there."""
        for number, cpu in enumerate(self._cpus):
            entries = list(held(cpu, self._memory))
            words = [f"{_page(one.pcid, cpu.pcid)}{one.vpn:#x}: {describe_pte(one.entry)}" for one in entries]
            has = "\n".join(words), tuple(int(one.stale) for one in entries)
            if has != self._tlbs[number]:
                self._tlbs[number] = has
                self._emit(Event(self._latest, number, What.TLB, *has))

    def _notice(self, at: int) -> None:
        """Tell what has been found broken since."""
        found = self._violations()
        if len(found) > len(self._told):
            for one in found:
                if one not in self._told:
                    self._told.add(one)
                    self._emit(Event(at, one.cpu, What.VIOLATION, f"{one.rule}: {one.text}"))

    def _count_up(self, at: int) -> None:
        """Tell which counters have changed since. CPUs are told of in no order of time among each other."""
        at = self._counted_at = max(at, self._counted_at)
        now = merge(kernel.vmstat for kernel in self._kernels)
        if self._pending:
            now["pending pages"] = sum(one.pending for one in self._pending)
        for name, value in now.items():
            if self._counters.get(name, 0) != value:
                self._counters[name] = value
                self._emit(Event(at, -1, What.COUNTER, name, (value,)))


def _page(pcid: int, loaded: int) -> str:
    """What stands before a page in words: nothing where it goes without saying."""
    return "" if pcid == loaded else "kernel " if pcid == GLOBAL else f"PCID {pcid} "
