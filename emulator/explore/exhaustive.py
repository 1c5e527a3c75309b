"""Every interleaving, each state once: a depth-first search over the states of a learned machine.

Four reductions. *Visited states*: what can follow from a state does not depend on how it was reached, and
the state includes everything that a check remembers, so a state met again is not entered again. *Ample
sets* (Peled, "All from one, one for all", CAV 1993; Clarke et al., "State space reduction using partial
order techniques", STTT 1999): where one CPU's next transition concerns that CPU alone, nothing that the
others do can meet it, and no check sees its order among theirs, it is taken first and alone. *Persistent
sets*: where CPUs meet nothing that the others may still do, they are (see `persistent`). *Symmetry*: of
states that differ in which of some alike CPUs is which, one is entered (see `symmetry`). Programs end, so no
transition is put off for ever; should a state be met again on the way to itself all the same, or a way end at
a broken rule and others be asked for, the last choice is widened to all transitions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from emulator.checks.violation import Violation
from emulator.explore.learned import LearnedMachine, Snapshot, state_key
from emulator.explore.learning import learn
from emulator.explore.orbits import Orbits
from emulator.explore.parts import CpuNode, Option
from emulator.explore.persistent import PersistentSets
from emulator.explore.symmetry import NotAlike, Symmetry, apart, symmetry_of
from emulator.hardware.cpu import Kind, Transition
from emulator.hardware.operations import TABLE
from emulator.hardware.operations.table import Alone
from emulator.machine.garbage import rare_collection

_ASKED_EVERY = 1024
_ALONE = {kind: row.alone for kind, row in TABLE.items()}


@dataclass(slots=True)
class Exhausted:
    """What an exhaustive search has found.

    `schedules` were walked to their end or to a known state; they stand for `schedules + saved`
    executions of the graph that was searched. `steps` counts transitions carried out, `states` distinct
    states. Not `complete` if it was stopped, or stopped itself at a violation. `endless` counts states from
    which no run ends (only known if complete), `endless_schedule` leads to one of them. `rounds`: how often
    it was searched until nothing was learnt that matters (`persistent`); `steps` and `rules` are all rounds'.
    `reductions`: those asked for that the machine's checks allow. `stopped`: why it is not complete, if that
    is known; `lost`: because a process that searched is no more.
    """

    schedules: int = 0
    steps: int = 0
    states: int = 0
    saved: int = 0
    complete: bool = False
    violation: Violation | None = None
    schedule: tuple[Transition, ...] = ()
    run: int = 0
    strategy: str = "exhaustive"
    cut: int = 0
    rules: set[str] = field(default_factory=set)
    endless: int = 0
    endless_schedule: tuple[Transition, ...] = ()
    rounds: int = 1
    reductions: tuple[str, ...] = ()
    stopped: str = ""
    lost: bool = False


def ample(node: CpuNode) -> Option | None:
    """The transition of this CPU state that may be taken before everything else, if there is one.

    Not where the CPU can be interrupted: what a handler leaves in its CPU's kernel, or makes known to it, its
    program sees at the very next line.
    """
    step = None
    walks = False
    for option in node.options:
        kind = option.transition.kind
        if kind is Kind.STEP:
            step = option
        elif kind is Kind.WALK or kind is Kind.INVALIDATE:
            walks = True
        else:
            return None
    if step is None or step.action >= 0:
        return None
    operation, issued = step.operation
    if issued:
        return None
    alone = _ALONE[type(operation)]
    return step if alone is Alone.UNINTERRUPTED or (alone is Alone.UNWALKED and not walks) else None


@dataclass(slots=True, eq=False)
class _Level:
    """A state on the way from the start to where the search is."""

    key: int
    snapshot: Snapshot
    options: list[Option]
    narrowed: bool
    at: int = 0
    executions: float = 0.0
    following: list[int] = field(default_factory=list)  # states that lead on, as far as none is known to end


AMPLE: Final = "ample"
PERSISTENT: Final = "persistent"
SYMMETRY: Final = "symmetry"
REDUCTIONS: Final = (AMPLE, PERSISTENT, SYMMETRY)


Reduce = bool | Collection[str]
"""Names of reductions; all of them or none if it is a truth value."""


def reductions(reduce: Reduce, machine: LearnedMachine) -> tuple[str, ...]:
    """The names of those that the machine and its checks allow. ValueError if there is none of a name."""
    names = (REDUCTIONS if reduce else ()) if isinstance(reduce, bool) else tuple(reduce)
    if unknown := set(names).difference(REDUCTIONS):
        raise ValueError(f"no reduction is called {min(unknown)!r}; there are {', '.join(REDUCTIONS)}")
    without = {PERSISTENT} if not machine.dependence.declared else set()
    if SYMMETRY in names and symmetry_of(machine) is None:
        without.add(SYMMETRY)
    return tuple([one for one in names if one not in without])


@rare_collection()
def exhaust(
    machine: LearnedMachine,
    stop: Callable[[], bool] = lambda: False,
    max_states: int = 20_000_000,
    reduce: Reduce = True,
    all_rules: bool = False,
) -> Exhausted:
    """Search every interleaving until the first violation, until `stop` says so, or to the end.

    With `all_rules` it goes on behind violations and collects the names of all rules that break.
    Memory grows by about 150 bytes a state. The machine's learnt states are used and added to.
    """
    machine.reset()
    while True:
        try:
            return _exhaust(machine, stop, max_states, reductions(reduce, machine), all_rules)
        except NotAlike as problem:
            apart(machine, problem)


def _exhaust(
    machine: LearnedMachine,
    stop: Callable[[], bool],
    max_states: int,
    names: tuple[str, ...],
    all_rules: bool,
) -> Exhausted:
    sets = PersistentSets(machine) if PERSISTENT in names else None
    orbits = Orbits(machine, machine.symmetry) if SYMMETRY in names else None
    key_of = state_key if orbits is None else orbits.key
    rules: set[str] = set()
    steps = rounds = 0
    machine.restart()
    if sets is not None:
        choose = _Search(machine, sets, AMPLE in names, all_rules, orbits).choose
        learning = learn(machine, sets, choose, key_of, stop, max_states, all_rules)
        steps = learning.steps
        if not learning.complete:
            machine.settle()
            broken = learning.violation
            seen = Exhausted(learning.ended, steps, learning.states, reductions=names)
            seen.violation, seen.schedule = broken, learning.schedule
            seen.rules = {broken.rule} if broken is not None else set()
            return seen
        machine.restart()
    while True:
        rounds += 1
        found = _Search(machine, sets, AMPLE in names, all_rules, orbits).run(stop, max_states)
        found.rounds, found.reductions = rounds, names
        found.rules = rules = rules | found.rules
        found.steps = steps = steps + found.steps
        # Were not all known that CPUs can reach, what was left out for that has to be looked at again.
        if sets is None or not found.complete or sets.look():
            return found
        machine.restart()


class _Search:
    """One depth-first search."""

    def __init__(
        self,
        machine: LearnedMachine,
        sets: PersistentSets | None,
        ample_first: bool,
        all_rules: bool,
        orbits: Orbits | None,
    ) -> None:
        self._machine = machine
        self._key = state_key if orbits is None else orbits.key
        self._symmetry: Symmetry | None = None if orbits is None else machine.symmetry
        self._sets = sets
        self._ample_first = ample_first
        self._all_rules = all_rules
        self._found = Exhausted()
        self._choices: dict[int, Option | None] = {}
        # State -> executions from it to the end; too many for an exact count.
        self._executions: dict[int, float] = {}
        self._on_path: set[int] = set()
        self._levels: list[_Level] = []

    def choose(self, snapshot: Snapshot) -> tuple[list[Option], int]:
        """What is followed in a state. The second says which: of all (0), of one that concerns its CPU alone
        (-1), or the mask of CPUs whose transitions meet nothing of the others'."""
        if self._ample_first:
            choices = self._choices
            for node in snapshot[0]:
                first = choices.get(id(node), choices)
                if first is choices:
                    first = choices[id(node)] = ample(node)
                if first is not None:
                    return [first], -1  # type: ignore[list-item]
        if self._sets is not None:
            chosen = self._sets.first(snapshot)
            if chosen[1]:
                return chosen
        self._machine.resume(snapshot)
        return self._machine.options(), 0

    def _judge(self, broken: Violation | None) -> bool:
        """Note a violation; whether to stop."""
        if broken is None:
            return False
        found = self._found
        found.rules.add(broken.rule)
        if found.violation is None:
            found.violation = broken
            found.schedule = tuple([level.options[level.at - 1].transition for level in self._levels])
        return not self._all_rules

    def _widen(self, level: _Level) -> None:
        """The way ends here, or leads back to itself: what was put off must not be put off for ever."""
        if level.narrowed:
            level.narrowed = False
            taken = level.options[: level.at]
            self._machine.resume(level.snapshot)
            level.options = [*taken, *[other for other in self._machine.options() if other not in taken]]

    def _enter(self, snapshot: Snapshot, key: int) -> bool:
        """Go into a new state; whether to stop."""
        options, narrowed = self.choose(snapshot)
        if not options:
            self._found.schedules += 1
            self._executions[key] = 1.0
            self._machine.resume(snapshot)
            if self._symmetry is not None:
                self._symmetry.judge(snapshot)
            return self._judge(self._machine.verdict())
        self._levels.append(_Level(key, snapshot, options, narrowed != 0))
        self._on_path.add(key)
        return False

    def run(self, stop: Callable[[], bool], max_states: int) -> Exhausted:
        """From the start, until a violation, `stop`, or the end."""
        machine, found, executions, levels = self._machine, self._found, self._executions, self._levels
        on_path = self._on_path
        # States with no executions when they were left: what they lead to, and the way there.
        open_ended: dict[int, tuple[list[int], tuple[Transition, ...]]] = {}
        start = machine.snapshot()
        start_key = self._key(start)
        if self._enter(start, start_key):
            return found
        while levels:
            level = levels[-1]
            if level.at == len(level.options):
                levels.pop()
                on_path.discard(level.key)
                executions[level.key] = level.executions
                if not level.executions:
                    way = tuple([above.options[above.at - 1].transition for above in levels])
                    open_ended[level.key] = level.following, way
                if levels:
                    levels[-1].executions += level.executions
                continue
            machine.resume(level.snapshot)
            machine.violation = None
            machine.path = []
            option = level.options[level.at]
            level.at += 1
            machine.take(option)
            found.steps += 1
            if len(executions) + len(levels) > max_states or (found.steps % _ASKED_EVERY == 0 and stop()):
                break
            if machine.violation is not None:
                found.schedules += 1
                level.executions += 1
                if self._judge(machine.violation):
                    break
                self._widen(level)
                continue
            snapshot = machine.snapshot()
            key = self._key(snapshot)
            if not level.executions:
                level.following.append(key)
            known = executions.get(key)
            if known is not None:
                found.schedules += 1
                level.executions += known
            elif key in on_path:
                found.schedules += 1
                self._widen(level)
            elif self._enter(snapshot, key):
                break
            elif executions.get(key) is not None:
                level.executions += 1
        else:
            found.complete = found.violation is None or self._all_rules
        machine.settle()
        if self._symmetry is not None:
            self._symmetry.close()
        if found.complete:
            found.endless, found.endless_schedule = endless(open_ended)
        found.states = len(executions) + len(levels)
        total = executions.get(start_key, 0)
        found.saved = max(0, int(total) - found.schedules)
        return found


def endless(
    open_ended: Mapping[int, tuple[list[int], tuple[Transition, ...]]],
) -> tuple[int, tuple[Transition, ...]]:
    """How many states there are from which no way leads to an end, and a short way to one of them.

    That is a livelock, or a program that waits by polling. `open_ended`: states that were left without one,
    what they lead to, and the way there.
    """
    left = set(open_ended)
    while True:
        # What is no longer left has a way to an end, like what has counted executions.
        ending = {key for key in left if any(one not in left for one in open_ended[key][0])}
        if not ending:
            break
        left -= ending
    ways = [way for key, (_, way) in open_ended.items() if key in left]
    return len(left), min(ways, key=len, default=())


@rare_collection()
def shortest(
    machine: LearnedMachine,
    rule: str,
    stop: Callable[[], bool] = lambda: False,
    max_states: int = 5_000_000,
) -> tuple[Transition, ...] | None:
    """A schedule of fewest steps that breaks `rule`, by breadth; None if there is none or it was stopped."""
    machine.reset()
    start = machine.snapshot()
    seen = {state_key(start)}
    layer: list[tuple[Snapshot, _Trail | None]] = [(start, None)]
    taken = 0
    while layer:
        following: list[tuple[Snapshot, _Trail | None]] = []
        for snapshot, trail in layer:
            machine.resume(snapshot)
            options = machine.options()
            if not options:
                verdict = machine.verdict()
                if verdict is not None and verdict.rule == rule:
                    return _unwind(trail)
            for option in options:
                machine.resume(snapshot)
                machine.violation = None
                machine.path = []
                machine.take(option)
                taken += 1
                if len(seen) > max_states or (taken % _ASKED_EVERY == 0 and stop()):
                    return None
                if machine.violation is not None:
                    if machine.violation.rule == rule:
                        return _unwind((option.transition, trail))
                    continue
                after = machine.snapshot()
                key = state_key(after)
                if key not in seen:
                    seen.add(key)
                    following.append((after, (option.transition, trail)))
        layer = following
    return None


_Trail = tuple[Transition, "_Trail | None"]


def _unwind(trail: _Trail | None) -> tuple[Transition, ...]:
    steps = []
    while trail is not None:
        steps.append(trail[0])
        trail = trail[1]
    return tuple(reversed(steps))
