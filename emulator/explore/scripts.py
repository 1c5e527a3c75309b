"""What the programs of a CPU do, as a graph that is learnt: by what they are answered, and by nothing else.

Programs see answers only, never the CPU that runs them. So what they do from one state on, given one answer,
is the same with whatever is in the TLB and the window, and on every architecture: a `Script` says it again.
Only what no machine of a test has met yet is done by real coroutines. These cannot be copied; to learn
something new about an old state they are run again from their boot with the answers that lead there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, NamedTuple, cast

from emulator.explore.fingerprint import exactly, fingerprint
from emulator.explore.surroundings import Surroundings
from emulator.hardware.awaits import FORGOTTEN
from emulator.hardware.cpu import Cpu, IpiRequest, Program
from emulator.hardware.operations import TABLE, BeginLoad, Iret, Series
from emulator.kernel.percpu import PerCpu
from emulator.machine.builder import Machine
from emulator.machine.progress import broken_by_program, operation_text
from emulator.machine.stepper import boot

_MOST_LIVE: Final = 500  # real stacks of programs, about 10 kB each
_ENDS: Final = object()  # in place of what is awaited: the topmost program is over
_SINGLE: Final = frozenset(TABLE) - {BeginLoad, Series}
_INTERRUPT: Final = "interrupt"
_IRET: Final = Iret()


class NotDeterministic(Exception):
    """A program did something else the second time, with the same answers; the message says where."""


@dataclass(slots=True, eq=False)
class Stack:
    """Real programs of one CPU, the task at the bottom, what each awaits, and the kernel that they share.

    Whoever awaits `Iret` is never answered."""

    programs: list[Any]
    awaited: list[Any]
    bottom: Any
    kernel: PerCpu
    entry: Callable[[tuple[IpiRequest, ...]], Program]

    @classmethod
    def of(cls, cpu: Cpu, kernel: PerCpu) -> Stack:
        """Those of a CPU that has done nothing but boot."""
        awaited = [
            BeginLoad(frame.operation)
            if frame.begun and frame.operation is not None
            else frame.operation
            if frame.series is None
            else Series(frame.series)
            for frame in cpu.frames
        ]
        programs = [frame.program for frame in cpu.frames]
        return cls(programs, awaited, programs[0] if programs else None, kernel, cpu.interrupt_entry)

    def key(self, surroundings: Surroundings) -> Any:
        """A value that equals another's only if they go on alike. Raises Unreadable."""
        return fingerprint(list(zip(self.awaited, self.programs, strict=True)), self.kernel, surroundings)

    def step(self, event: Any) -> Any:
        """Enter an interrupt or answer the topmost program; what it awaits then. Raises what that raises."""
        kind, what = event
        if kind is _INTERRUPT:
            self.programs.append(self.entry(what))
            self.awaited.append(None)
            what = None
        try:
            awaited = self.awaited[-1] = self.programs[-1].send(what)
        except StopIteration:
            awaited = _ENDS
        if (
            awaited is _ENDS
            or type(awaited) is Iret
            or (type(awaited) is Series and _IRET in awaited.members)
        ):
            self.programs.pop()
            self.awaited.pop()
        return awaited


class Line(NamedTuple):
    """What programs do with one answer: what the topmost awaits then, or `error` if it raises something that
    stands for a rule; where they are; the counters that they have counted on the way."""

    awaited: Any
    state: ProgramState | None
    counted: tuple[str, ...] = ()
    error: Exception | None = None


@dataclass(slots=True, eq=False)
class ProgramState:
    """One state of all programs of a CPU and its kernel. `event` is what led here from `parent`, `boot` what
    begins here. `lines`: by what happens."""

    number: int
    key: Any
    standing: str
    parent: ProgramState | None = None
    event: Any = None
    boot: Callable[[], Stack] | None = None
    lines: dict[Any, Line] = field(default_factory=dict)


class ProgramGraph:
    """All known states of the programs of one CPU, and real ones that stand at some of them."""

    def __init__(self, number: int, surroundings: Surroundings) -> None:
        self.number = number
        self.states: dict[Any, ProgramState] = {}
        self._surroundings = surroundings
        self._live: dict[ProgramState, list[Stack]] = {}
        self._standing = 0  # so many of them

    def begin(self, machine: Machine) -> tuple[Cpu, Script]:
        """A CPU of this machine that has booted, and the script that it runs by."""
        cpu, kernel = boot(machine, self.number)
        stack = Stack.of(cpu, kernel)
        start = self._state(stack)
        if start.parent is None and start.boot is None:
            start.boot = partial(self._boot, machine)
        self._stays(start, stack)
        script = Script(self, start, tuple(kernel.vmstat))
        cpu.interrupt_entry = script.enter
        for frame in cpu.frames:
            frame.program = cast(Program, script)
        return cpu, script

    def _boot(self, machine: Machine) -> Stack:
        return Stack.of(*boot(machine, self.number))

    def _state(self, stack: Stack, parent: ProgramState | None = None, event: Any = None) -> ProgramState:
        key = stack.key(self._surroundings)
        state = self.states.get(key)
        if state is None:
            standing = _standing(stack)
            state = self.states[key] = ProgramState(len(self.states), key, standing, parent, event)
        return state

    def forget(self) -> None:
        """Take apart what refers to each other, so that nobody has to search for it (`gc`)."""
        for state in self.states.values():
            state.lines.clear()
            state.parent = None
        self.states.clear()
        self._live.clear()
        self._standing = 0

    def exact(self, answer: Any) -> Any:
        """An answer as a value that equals no other's."""
        return exactly(answer, self._surroundings)

    def learn(self, state: ProgramState, key: Any, event: Any) -> tuple[Line, Stack]:
        """Let real programs do it, and who they were.

        What is a mistake of theirs is not kept.
        """
        stack = self._standing_at(state) or self._brought_to(state)
        before = dict(stack.kernel.vmstat)
        try:
            awaited = stack.step(event)
        except Exception as error:
            if broken_by_program(self.number, error) is None:
                raise
            self._surroundings.check(stack.bottom)
            error.__traceback__ = None
            line = state.lines[key] = Line(None, None, (), error)
            return line, stack
        if FORGOTTEN or not (awaited is _ENDS or _is_operation(awaited)):
            return Line(awaited, None), stack
        self._surroundings.check(stack.bottom)
        counted = [name for name, count in stack.kernel.vmstat.items() if before.get(name) != count]
        following = self._state(stack, state, event)
        line = state.lines[key] = Line(awaited, following, tuple(counted))
        self._stays(following, stack)
        return line, stack

    def _stays(self, state: ProgramState, stack: Stack) -> None:
        """Somebody will go on from there, by one way or another: each takes one of those that stand there."""
        self._live.setdefault(state, []).append(stack)
        self._standing += 1

    def drop(self) -> None:
        """Not more than a few stay. To be called while no program runs: what they hold goes with them."""
        while self._standing > _MOST_LIVE:
            self._standing_at(next(iter(self._live)))

    def _standing_at(self, state: ProgramState) -> Stack | None:
        """One that stands there and does so no more; None if there is none."""
        there = self._live.get(state)
        if there is None:
            return None
        self._standing -= 1
        stack = there.pop()
        if not there:
            del self._live[state]
        return stack

    def _brought_to(self, state: ProgramState) -> Stack:
        """Boot others and repeat what leads to `state`."""
        events = []
        at = state
        while at.boot is None:
            assert at.parent is not None
            events.append(at.event)
            at = at.parent
        stack = at.boot()
        for event in reversed(events):
            stack.step(event)
        if stack.key(self._surroundings) != state.key:
            raise NotDeterministic(
                f"CPU {self.number} is {_standing(stack)} where it was {state.standing} before: "
                "a program or policy keeps state outside its own CPU"
            )
        return stack


def _is_operation(awaited: Any) -> bool:
    """What a CPU takes for one, so that it goes on (`Cpu`)."""
    kind = type(awaited)
    return (
        kind in _SINGLE or kind is BeginLoad or (kind is Series and _SINGLE.issuperset(map(type, awaited[0])))
    )


def _standing(stack: Stack) -> str:
    """What the programs are at, in words."""
    return f"at {operation_text(stack.awaited[-1])}" if stack.awaited else "at its end"


class Script:
    """In place of the programs of one CPU, all of them. `at`: where they are; `counted`: what they have
    counted since somebody looked."""

    def __init__(self, graph: ProgramGraph, start: ProgramState, counted: tuple[str, ...]) -> None:
        self._graph = graph
        self.at = start
        self.counted: tuple[str, ...] = counted
        self._batch: tuple[IpiRequest, ...] | None = None
        self._stack: Stack | None = None

    def enter(self, batch: tuple[IpiRequest, ...]) -> Any:
        """An interrupt, whose handler is sent None next."""
        self._batch = batch
        return self

    def send(self, answer: Any) -> Any:
        """As of a coroutine."""
        batch = self._batch
        state = self.at
        if batch is None:
            key, event = self._graph.exact(answer), ("", answer)
        else:
            self._batch = None
            key, event = (_INTERRUPT, self._graph.exact(batch)), (_INTERRUPT, batch)
        line = state.lines.get(key)
        if line is None:
            line, self._stack = self._graph.learn(state, key, event)
        if line.error is not None:
            raise line.error
        if line.state is not None:
            self.at = line.state
            self.counted += line.counted
        if line.awaited is _ENDS:
            raise StopIteration
        return line.awaited

    def throw(self, error: Exception) -> Any:
        """As of a coroutine, for what has just been awaited and is none."""
        assert self._stack is not None
        return self._stack.programs[-1].throw(error)


class Programs:
    """Of all CPUs of a machine, and of others that run the same. Raises what `Surroundings` raises."""

    def __init__(self, machine: Machine) -> None:
        self._roots = machine.roots
        self.surroundings = Surroundings(self._roots)
        self.graphs = [ProgramGraph(number, self.surroundings) for number in range(machine.cpus)]

    def run_on(self, machine: Machine) -> bool:
        """Whether they are the programs of this machine as well."""
        roots = machine.roots
        return (
            machine.cpus == len(self.graphs)
            and len(roots) == len(self._roots)
            and all(one is other for one, other in zip(roots, self._roots, strict=True))
        )

    def forget(self) -> None:
        """Give back what has been learnt."""
        for graph in self.graphs:
            graph.forget()
