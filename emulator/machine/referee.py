"""The plain engine with all checks on: lets one thing after the other happen, says which rule broke first.

It builds the machine anew for every run and steps it, about twenty microseconds a step: slow, and easy to
believe. Searches run on something faster; what they find has to be confirmed here, and recordings of live
runs are followed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from emulator.checks.heed import Noted
from emulator.checks.violation import Violation
from emulator.hardware.cpu import Kind, Transition
from emulator.hardware.operations import Touch
from emulator.machine.builder import Machine
from emulator.machine.progress import broken_by_program, running_cpu, waits_with_interrupts_off
from emulator.machine.shared import Shared
from emulator.machine.stepper import plain_engine

KINDS: Final = 4
"""Agents of a CPU."""


def agent_of(transition: Transition) -> int:
    """The agent that carries out a transition: a CPU's program, its interrupts, its window or its walker.
    What others drop in its TLB comes as their interrupts do."""
    kind = transition.kind
    return KINDS * transition.cpu + (Kind.INTERRUPT if kind is Kind.INVALIDATE else kind)


class PlainOption(NamedTuple):
    """Something that can happen next, and who would act."""

    transition: Transition
    agent: int


class Referee:
    """One run at a time of one machine. `path` is what was taken of its options, `violation` the first broken
    rule, `error` what a program raised that stands for no rule.
    """

    def __init__(self, machine: Machine, shared: type[Shared] = Shared) -> None:
        self.machine = machine
        self.cpus = machine.cpus
        self._shared = shared
        self.reset()

    def reset(self) -> None:
        """Begin a run on a machine built anew."""
        machine = self.machine
        self.engine = plain_engine(machine, self._shared)
        self._watchers = machine.watchers()
        self.engine.listeners += self._watchers
        self.path: list[Transition] = []
        self.violation: Violation | None = None
        self.error: Exception | None = None
        self._dead = False  # a program has raised: nothing sensible can follow
        # CPUs whose programs have raised what does not count: the others go on, but the end says nothing.
        self._gone: set[int] = set()
        self._own: list[Violation] = Noted(machine.heed)  # what shows in the stepping
        noting = (*self.engine.checks, *self._watchers)
        self._noted: list[list[Violation]] = [*(one.violations for one in noting), self._own]

    def options(self, cpu: int = -1) -> Sequence[PlainOption]:
        """What the engine says is possible, of one CPU if given; nothing once a program has raised."""
        if self._dead:
            return ()
        found = self.engine.transitions(cpu)
        return [PlainOption(one, agent_of(one)) for one in found if one.cpu not in self._gone]

    def take(self, option: Any) -> None:
        """Let one of `options()` happen. ValueError if it is not possible now, or what a program raises."""
        if not self.step(option.transition):
            raise ValueError(f"{option.transition} is not possible here")
        if self.error is not None:
            raise self.error
        self.path.append(option.transition)

    def attempt(self, transition: Transition) -> Transition | None:
        """Let a transition happen whose schedule has been altered: what it has become, None if nothing.

        The entry of a window is the last that can be performed and stands no later; a run of touches that is
        another one ends where it does.
        """
        kind, cpu, at = transition
        earlier = range(at - 1, -1, -1) if kind is Kind.PERFORM else ()
        for found in (self._touches(transition), *(Transition(kind, cpu, one) for one in earlier)):
            if self.step(found):
                if self.error is not None:
                    raise self.error
                self.path.append(found)
                return found
        return None

    def _touches(self, transition: Transition) -> Transition:
        if transition.kind is not Kind.STEP or not transition.at:
            return transition
        cpu = self.engine.cpus[transition.cpu]
        operation = cpu.operation if cpu.frames else None
        if isinstance(operation, Touch) and not operation.start <= transition.at <= operation.stop:
            return transition._replace(at=0)
        return transition

    def step(self, transition: Transition) -> bool:
        """Let a transition happen and judge it. False, and nothing has changed, if it is not possible now."""
        if self._dead or transition.cpu in self._gone:
            return False
        engine = self.engine
        before = engine.steps
        try:
            engine.take(transition)
        except Exception as problem:
            if isinstance(problem, ValueError) and engine.steps == before:
                return False
            self._raised(transition.cpu, problem)
        if transition.cpu in self._gone:
            return True
        if not self._own and (deaf := waits_with_interrupts_off(engine.cpus[transition.cpu])):
            self._own.append(deaf)
        if self.violation is None:
            self.violation = self._first()
        return True

    def _raised(self, cpu: int, problem: Exception) -> None:
        broken = broken_by_program(cpu, problem)
        if broken is not None and not self.machine.heed.counts(broken.rule):
            self._gone.add(cpu)
            return
        self._dead = True
        if broken is not None:
            self._own.append(broken)
        elif running_cpu(problem) < 0:
            raise problem
        else:
            self.error = problem

    def finish(self) -> None:
        """Nothing is going to happen any more: judge the end, or that it is none.

        Watchers only judge the end of a machine that has performed what it owes.
        """
        engine = self.engine
        if self._gone:
            return
        if engine.finished():
            engine.finish()
            for watcher in self._watchers if self.machine.drains else ():
                watcher.finish()
        elif not self._dead and all(one.kind is Kind.WALK for one in engine.transitions()):
            self._own.append(engine.deadlock())
        if self.violation is None:
            self.violation = self._first()

    def note(self, violation: Violation) -> None:
        """Note what nobody here can see."""
        self._own.append(violation)

    def violations(self) -> list[Violation]:
        """All that was found."""
        return [violation for noted in self._noted for violation in noted]

    def _first(self) -> Violation | None:
        """The checks of memory first, then the watchers, then what shows in the stepping."""
        for noted in self._noted:
            if noted:
                return noted[0]
        return None
