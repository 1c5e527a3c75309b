"""A machine of four CPUs that runs one operation in one configuration, in one order, and counts.

Everybody else goes first: CPU 0 goes on only when no other CPU can, so that threads spin or sleep when it
gets to the operation. What is counted is what the recorder counts, at the same places.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple

from emulator.hardware.cpu import Context, Cpu, Kind, Program, TakeCalls
from emulator.hardware.operations import AtomicAdd, Store, WaitFor
from emulator.hardware.operations.places import word
from emulator.hardware.operations.table import TABLE, Where
from emulator.hardware.ordering import ARCHITECTURES
from emulator.hardware.pte import PMD_ORDER
from emulator.hardware.tlb import TlbShape
from emulator.kernel.mmu.mmu import Mmu
from emulator.kernel.percpu import PerCpu, Task, mm_users_word
from emulator.kernel.policy import Policy
from emulator.kernel.sched import cond_resched, cpu_startup_entry, schedule, task_program, wake_up_process
from emulator.kernel.tlb import (
    FLUSHED_ALL,
    FLUSHED_NOTHING,
    LEFT_LAZY,
    ON_FLUSH_BATCH,
    ON_FLUSH_RANGE,
    ON_FLUSHED,
    TLB_FLUSH_ALL,
)
from emulator.machine.builder import Machine, parameters_of
from emulator.machine.stepper import LocalEngine, plain_engine
from emulator.memory.blocked import BLOCKED
from emulator.memory.folios import Tier
from emulator.memory.zone import Watermarks
from emulator.policies.immediate import Immediate
from scenarios.linux.areas import AWAY, MM, OTHER, PID, ROUNDS, ROUNDS_DONE, map_pages, write_pages
from scenarios.linux.cases import Counted
from scenarios.linux.operation import OTHERS, Found
from scenarios.linux.operations.move import move_pages

CPUS: Final = 4
_TIERS: Final = (Tier(1 << 14, Watermarks(0, 0, 0)), Tier(1 << 14, Watermarks(0, 0, 0)))
_FIRST_OF_MANY: Final = 100
_ELSEWHERE_CPU: Final = 3
_BEFORE, _DURING, _AFTER = range(3)
_ORDER: Final = (Kind.PERFORM, Kind.INTERRUPT, Kind.STEP)
_GO = "linux.go"
_READY = "linux.ready"
_PREPARED = "linux.prepared"
_SETTLED = "linux.settled"
_NUDGE = "linux.nudge"
_CALL = "linux.call"
_CALLED = "linux.called"
_END = "linux.end"  # never comes: who spins keeps its CPU

_WAITS: Final = frozenset(
    [TakeCalls, *(kind for kind, row in TABLE.items() if row.waits is word or row.where is Where.IPI)]
)
_WAKES: Final = frozenset(
    [kind for kind, row in TABLE.items() if word in row.place.writes or row.where is Where.IPI]
)
_STRIDES: Final = {1 << PMD_ORDER: "/pmd"}
_WORDS: Final = {FLUSHED_ALL: "full", LEFT_LAZY: "lazy", FLUSHED_NOTHING: "none"}


class Configuration(NamedTuple):
    """What the CPUs beside CPU 0 do: threads of the process spin or sleep there, another process spins, or
    processes take turns."""

    spins: tuple[int, ...] = ()
    sleeps: tuple[int, ...] = ()
    other: tuple[int, ...] = ()
    turns: tuple[int, ...] = ()


CONFIGURATIONS: Final[dict[str, Configuration]] = {
    "k0": Configuration(),
    **{f"s{last}": Configuration(spins=tuple(range(1, last + 1))) for last in range(1, CPUS)},
    **{f"l{last}": Configuration(sleeps=tuple(range(1, last + 1))) for last in range(1, CPUS)},
    **{
        f"o{last}": Configuration(sleeps=(every := tuple(range(1, last + 1))), other=every)
        for last in range(1, CPUS)
    },
    "on1": Configuration(turns=(1,)),
    "mix": Configuration(spins=(1,), sleeps=(2, 3), other=(2,)),
}


class _Log:
    """What happens on all CPUs, as far as it is counted."""

    def __init__(self, initiator: int) -> None:
        self.initiator = initiator
        self.phase = _BEFORE
        self.over = False
        self.calls: Counter[str] = Counter()
        self.recv: dict[int, Counter[str]] = {}
        self.local: Counter[str] = Counter()
        self.send = 0
        self.switch: Counter[str] = Counter()

    def counted(self) -> Counted:
        recv = {str(cpu): dict(done) for cpu, done in sorted(self.recv.items())}
        return Counted(dict(self.calls), self.send, recv, dict(self.local), dict(self.switch))


class _ProbedCpu(PerCpu):
    """One CPU of the machine, probed where the recorder probes the kernel."""

    def __init__(self, log: _Log, number: int, parameters: Any, policy: Policy, mmu: Mmu) -> None:
        super().__init__(number, parameters, policy, mmu)
        self._log = log

    def count(self, counter: str, delta: int = 1) -> None:
        super().count(counter, delta)
        log = self._log
        if counter == "tlb_flush_on_task_switch" and log.phase != _BEFORE:
            log.switch[f"{'op' if log.phase == _DURING else 'wake'}{self.number}"] += delta
        elif counter == "nr_tlb_remote_flush" and log.phase == _DURING and self.number == log.initiator:
            log.send += delta

    def probe(self, event: str, *arguments: int) -> None:
        log = self._log
        if log.phase != _DURING:
            return
        if event == ON_FLUSHED:
            by, what = arguments
            if by != log.initiator:
                return
            done = log.local if by == self.number else log.recv.setdefault(self.number, Counter())
            done[_WORDS.get(what, str(what))] += 1
        elif self.number == log.initiator and event == ON_FLUSH_BATCH:
            log.calls["batch"] += 1
        elif self.number == log.initiator and event == ON_FLUSH_RANGE:
            start, end, stride, freed_tables = arguments
            pages = "full" if end == TLB_FLUSH_ALL else str(end - start)
            log.calls[pages + _STRIDES.get(stride, "") + ("+ft" if freed_tables else "")] += 1


class Testbed(Machine):
    """The machine of one case; `run` it once."""

    __test__ = False  # no test of pytest's

    def __init__(self, found: Found, configuration: str, kernel: str, pcid: bool, initiator: int = 0) -> None:
        settings: dict[str, Any] = {
            "numa_scan_pages": 0,
            "tlb_flush_batched": True,
            "version": kernel,
            "pcid": pcid,
        }
        parameters = parameters_of(CPUS, _TIERS, **(settings | found.settings))
        super().__init__(ARCHITECTURES["x86"], parameters, _TIERS, TlbShape(), Immediate)
        self.found = found
        self.initiator = initiator
        self.configuration = CONFIGURATIONS[configuration]
        self.log = _Log(initiator)

    def kernel(self, number: int) -> PerCpu:
        """Probed."""
        return _ProbedCpu(self.log, number, self.parameters, self.policy(), self.mmu())

    def program(self, cpu: Cpu, kernel: PerCpu) -> Program:
        """The idle loop, with this CPU's tasks ready to run."""
        number = kernel.number
        where = self.configuration
        call = self.found.call
        if number == 0:
            self._add(kernel, PID, MM, self._initiates)
            if call.caller != MM:
                self._add(kernel, PID + 1, call.caller, self._calls)
        elif number in where.spins + where.sleeps:
            self._add(kernel, PID, MM, self._helps)
        elif number == _ELSEWHERE_CPU and self.found.kind.elsewhere is not None:
            self._add(kernel, PID, AWAY, self._helps)
        if number in where.turns:
            for turn in range(self.found.number):
                self._add(kernel, PID + turn, _FIRST_OF_MANY + turn, partial(self._takes_turns, turn))
        if number in where.other:
            self._add(kernel, PID + 1, OTHER, _spins)
        program = cpu_startup_entry(kernel)
        kernel.idle.context = Context(program)
        return program

    def _add(self, kernel: PerCpu, pid: int, mm: int, body: Callable[[PerCpu], Program]) -> None:
        task = Task(pid, mm)
        kernel.add_task(task, task_program(kernel, task, body(kernel)))

    def _threads(self) -> int:
        return len(self.configuration.spins + self.configuration.sleeps)

    def _helpers(self) -> int:
        elsewhere = self.found.kind.elsewhere is not None
        taken = {*self.configuration.spins, *self.configuration.sleeps}
        return len(taken | {_ELSEWHERE_CPU} if elsewhere else taken)

    async def _initiates(self, cpu: PerCpu) -> None:
        """The thread on CPU 0, from its memory to the last wake-up."""
        found, log = self.found, self.log
        await found.kind.set_up(cpu, found.area)
        if found.moved:
            await map_pages(cpu, OTHERS)
            await write_pages(cpu, OTHERS)
        await AtomicAdd(mm_users_word(MM), 1 + self._threads())
        await Store(_GO, 1)
        await WaitFor(_READY, self._helpers())
        await found.prepare(cpu)
        if found.moved:
            await move_pages(cpu, OTHERS)
        await Store(_PREPARED, 1)
        await WaitFor(_SETTLED, self._helpers())
        log.phase = _DURING
        if self.initiator:
            if found.call.alone:
                # This thread has ended too.
                await cpu.mmu.enter_lazy_tlb(cpu)
            await Store(_CALL, 1)
            await WaitFor(_CALLED, 1)
        elif found.call.caller == MM:
            await found.run(cpu)
        else:
            await _sleep(cpu)
        log.phase = _AFTER
        for other in () if found.call.alone else self.configuration.sleeps:
            await wake_up_process(cpu, other, PID)
        await Store(_NUDGE, 1)
        log.over = True

    async def _calls(self, cpu: PerCpu) -> None:
        """The task of another process that calls, while the thread of CPU 0 sleeps."""
        await self.found.run(cpu)
        self.log.phase = _AFTER
        await wake_up_process(cpu, cpu.number, PID)

    async def _helps(self, cpu: PerCpu) -> None:
        """A thread on another CPU: touches the pages, then spins or sleeps, or makes the call."""
        await WaitFor(_GO, 1)
        kind = self.found.kind
        elsewhere = cpu.current.mm == AWAY and kind.elsewhere
        await (elsewhere or kind.touch)(cpu, self.found.area)
        if self.found.moved and not elsewhere:
            await write_pages(cpu, OTHERS)
        await AtomicAdd(_READY, 1)
        await WaitFor(_PREPARED, 1)
        await AtomicAdd(_SETTLED, 1)
        if self.found.call.alone and not elsewhere and cpu.number != self.initiator:
            return
        if cpu.number in self.configuration.sleeps and not self.found.call.alone:
            await _sleep(cpu)
        if cpu.number == self.initiator:
            await WaitFor(_CALL, 1)
            await self.found.run(cpu)
            await Store(_CALLED, 1)
        await WaitFor(_END, 1)

    async def _takes_turns(self, turn: int, cpu: PerCpu) -> None:
        """One of as many processes as the name says, which wake each other in a circle, a few times."""
        last = self.found.number - 1
        for _ in range(ROUNDS):
            await _sleep(cpu)
            if turn < last:
                await wake_up_process(cpu, cpu.number, PID + turn + 1)
            elif await AtomicAdd(ROUNDS_DONE, 1) < ROUNDS:
                await wake_up_process(cpu, cpu.number, PID)
        await _sleep(cpu)

    def run(self) -> Counted:
        """The case, from power-on to the end; what was counted. HugePageSplit where the emulator has no path.

        Raises RuntimeError if the programs do not come to their end.
        """
        engine = plain_engine(self)
        waiting: set[int] = set()
        while any(_advance(engine, number, waiting) for number in range(CPUS - 1, -1, -1)):
            pass
        if not self.log.over:
            raise RuntimeError(f"{self.found.call.name} does not come to its end: {engine.deadlock().text}")
        return self.log.counted()


def _advance(engine: LocalEngine, number: int, waiting: set[int]) -> bool:
    """Let one CPU take its next step, if it can take one.

    Who waits for a word or an interrupt is not asked again before somebody has written a word or sent one.
    """
    if number in waiting:
        return False
    cpu = engine.cpus[number]
    choices = cpu.choices()
    if len(choices) > 1:
        choices.sort(key=lambda choice: _ORDER.index(choice.transition.kind))
    for transition, operation in choices:
        answer = None if operation is None else engine.shared.execute(number, operation)
        if answer is not BLOCKED:
            if type(operation) in _WAKES:
                waiting.clear()
            cpu.take(transition, answer)
            return True
    if all(type(operation) in _WAITS for _, operation in choices):
        waiting.add(number)
    return False


async def _spins(cpu: PerCpu) -> None:
    """User mode without an end; somebody who is woken on this CPU gets it."""
    await WaitFor(_NUDGE, 1)
    await cond_resched(cpu)


async def _sleep(cpu: PerCpu) -> None:
    """Until somebody wakes this task."""
    cpu.current.runnable = False
    await schedule(cpu)
