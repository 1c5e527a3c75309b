"""What a search needs of a machine: to start over, to ask what is possible, to let one thing happen.

Searching, replaying and shrinking know nothing else. `DirectExplorer` is the plain implementation: it
steps the plain engine and builds the machine anew for every run. It is slow and easy to believe.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from emulator.checks.violation import Violation
from emulator.hardware.cpu import Kind, Transition
from emulator.machine.litmus import LitmusMachine
from emulator.machine.progress import DEADLOCK, broken_by_program, waits_with_interrupts_off
from emulator.machine.stepper import LocalEngine

KINDS = len(Kind)


class Option(Protocol):
    """Something that can happen next.

    `agent` numbers who acts: a CPU's program, its interrupts, its window or its walker (`agent_of`).
    """

    @property
    def transition(self) -> Transition:
        """What would happen."""

    @property
    def agent(self) -> int:
        """Who would act: `KINDS` times the CPU, plus the kind."""


class Explorer(Protocol):
    """A machine in one state of one run. `path` is what was taken so far, `violation` the first broken rule.

    Searches ask it about a million times a second, so it has nothing that they do not need.
    """

    cpus: int
    path: list[Transition]
    violation: Violation | None

    def reset(self) -> None:
        """Begin a run: back to the start, with an empty path of its own and no violation."""

    def options(self) -> Sequence[Option]:
        """Everything that can happen next, in a fixed order, an agent's options side by side.

        Empty at the end of a run.
        """

    def take(self, option: Any) -> None:
        """Let one of this machine's own `options()` happen; may set `violation`."""

    def finish(self) -> None:
        """To be called when `options()` is empty: judges the end, may set `violation`."""


def agent_of(transition: Transition) -> int:
    """The agent that carries out a transition."""
    return KINDS * transition.cpu + transition.kind


class DirectOption(NamedTuple):
    """An option of the plain engine."""

    transition: Transition
    agent: int


class DirectExplorer:
    """An `Explorer` that steps the plain engine: about twenty microseconds a step, a millisecond a run.

    All checks are on; those of transitions are made afresh for every run. Exceptions out of programs that
    stand for a rule become violations; all others come through `take`.
    """

    def __init__(self, machine: LitmusMachine) -> None:
        self.machine = machine
        self.cpus = machine.litmus.cpus
        self.path: list[Transition] = []
        self.violation: Violation | None = None
        self._engine = self._build()
        self._dead = False  # a program has raised: nothing sensible can follow

    def _build(self) -> LocalEngine:
        return self.machine.engine(self.machine.watchers())

    def reset(self) -> None:
        """Begin a run on a machine built anew."""
        self._engine = self._build()
        self.path = []
        self.violation = None
        self._dead = False

    def options(self) -> Sequence[DirectOption]:
        """What the engine says is possible; nothing once a program has raised."""
        if self._dead:
            return ()
        return [DirectOption(one, agent_of(one)) for one in self._engine.transitions()]

    def take(self, option: Any) -> None:
        """Let one of `options()` happen. ValueError if it is not possible now."""
        transition: Transition = option.transition
        cpu = self._engine.cpus[transition.cpu]
        broken = None
        try:
            self._engine.take(transition)
        except Exception as error:
            broken = broken_by_program(transition.cpu, error)
            if broken is None:
                raise
            self._dead = True
        self.path.append(transition)
        if self.violation is None:
            self.violation = self._watched() or broken or waits_with_interrupts_off(cpu)

    def finish(self) -> None:
        """Judge the end: a deadlock, or what the observers find; only the latter needs a drained machine."""
        if self.violation is not None:
            return
        if not self._engine.finished():
            self.violation = Violation(rule=DEADLOCK, cpu=-1, text=str(self._engine.deadlock()))
        elif self.machine.litmus.drain:
            self._engine.finish()
            for watcher in self._engine.watchers:
                watcher.finish()
            self.violation = self._watched()

    def _watched(self) -> Violation | None:
        """The first violation that an observer or watcher has noted, memory's observers first."""
        noted = [one.violations for one in self._engine.observers]
        noted += [one.violations for one in self._engine.watchers]
        return next((violations[0] for violations in noted if violations), None)
