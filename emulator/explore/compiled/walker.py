"""Runs of a strategy, and searches of every interleaving, in compiled code over a machine's graphs."""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Callable
from hashlib import sha512
from typing import Final

from emulator.explore.compiled.composed import Composed
from emulator.explore.compiled.graphs import BROKEN, DONE, LOOK, MOST_CPUS
from emulator.explore.exhaustive import AMPLE, PERSISTENT, SYMMETRY, Exhausted, endless, reductions
from emulator.explore.learned import LearnedMachine
from emulator.explore.persistent import PersistentSets
from emulator.explore.search import ASK_EVERY, Limits, Tally
from emulator.explore.strategies import delay_bounded, pct, random_walk, uniform
from emulator.explore.strategies.portfolio import Portfolio
from emulator.explore.strategies.strategy import KINDS, WALKER, Strategy
from emulator.explore.symmetry import NotAlike, apart
from emulator.hardware.cpu import Transition

# Numbers that strategies.c and exhaustive.c know.
_RANDOM, _PCT, _UNIFORM, _DELAY = range(4)
BY: Final = {AMPLE: 1, PERSISTENT: 2}
_BY_SYMMETRY: Final = 4
_MOST_MEMORY: Final = 2 << 30  # after which random runs begin with an empty graph
# What runs and exhaustive searches report besides.
_RUNS: Final = struct.Struct("<IIQII")
_LEARNT: Final = struct.Struct("<IQ")
_SEARCHED: Final = struct.Struct("<IQQQIdII")

_Member = tuple[int, int, int]


def walks(machine: LearnedMachine, strategy: Strategy | None = None) -> bool:
    """Whether a Walker can do this: a strategy of ours if any, and not more CPUs than there is room for."""
    return machine.cpus <= MOST_CPUS and (strategy is None or _members(strategy) is not None)


def _members(strategy: Strategy) -> tuple[_Member, ...] | None:
    """Kind and numbers of a fresh strategy, of each member of a portfolio; None if it is somebody's own."""
    kind = type(strategy)
    if kind is Portfolio:
        found = [_members(member) for member in strategy.members]  # type: ignore[attr-defined]
        return None if None in found else tuple([one[0] for one in found if one])
    if kind is pct.Pct:
        points = strategy.depth - 1  # type: ignore[attr-defined]
        # random.sample draws from a list up to this size of its population, else into a set.
        small = 21 + (4 ** math.ceil(math.log(points * 3, 4)) if points > 5 else 0)
        return ((_PCT, points + 1, small),)
    if kind is delay_bounded.DelayBounded:
        return ((_DELAY, strategy.bound, 0),)  # type: ignore[attr-defined]
    if kind is uniform.Uniform:
        return ((_UNIFORM, 0, 0),)
    return ((_RANDOM, 0, 0),) if kind is random_walk.RandomWalk else None


class Walker(Composed):
    """The compiled side of one learned machine. Raises as `Graphs` does."""

    states = 0
    """That an exhaustive search had met when it was last looked at."""

    # --- runs ----------------------------------------------------------------------------------

    def search(
        self, strategy: Strategy, seed: int, limits: Limits, stop: Callable[[], bool], first_run: int
    ) -> Tally:
        """As `search.search` with a fresh strategy that `walks`."""
        machine = self._machine
        self._begin(strategy)
        tally = Tally(strategy=strategy.name)
        last = first_run + limits.schedules
        for first in range(first_run, last, ASK_EVERY):
            if stop():
                break
            machine.reset()
            if self._call("memory_taken") % 2**32 > _MOST_MEMORY:
                self._known = ()
            self._load()
            runs = range(first, min(first + ASK_EVERY, last))
            words = self._hand_over(_seeds(seed, runs))
            self._call("begin_runs", len(runs), words, limits.steps)
            code, at = self._go_on("go_on")
            done, cut, steps, leader, length = _RUNS.unpack(self._words(at, _RUNS.size // 4))
            tally.schedules += done
            tally.steps += steps
            tally.cut += cut
            if code == BROKEN:
                self._repeat(length)
                tally.violation = machine.violation
                tally.schedule = tuple(machine.path)
                tally.run = first + done - 1
                if type(strategy) is Portfolio:
                    tally.strategy = f"{strategy.name}/{strategy.members[leader].name}"
                break
            machine.settle()
        return tally

    def _begin(self, strategy: Strategy) -> None:
        members = _members(strategy)
        assert members is not None
        self._load()
        numbers = [KINDS, WALKER, pct.FIRST_GUESS, *[number for member in members for number in member]]
        self._hand_over(array("I", numbers))
        shares = random_walk.WALK_ACCEPTED, uniform.LEAST_WALKER
        self._call("strategy", len(members), type(strategy) is Portfolio, *shares)

    def _repeat(self, length: int) -> None:
        """Take the path of the run that broke a rule, so that the machine stands where it ended."""
        machine = self._machine
        machine.resume(machine.start)
        machine.path = []
        machine.violation = None
        for number in list(self._words(self._call("path_at"), length)):
            machine.take(self._options[number])
        if machine.violation is None:
            machine.finish()

    # --- every interleaving --------------------------------------------------------------------

    def mib(self) -> int:
        """What it has of memory by now, in MiB."""
        taken: int = self._memory.data_len(self._store)
        return taken >> 20

    def limit_memory(self, mib: int) -> None:
        """An exhaustive search ends, not complete, before it takes more; there are 4 GiB at most."""
        self._call("limit_memory", mib)

    def exhaust(
        self, stop: Callable[[], bool], max_states: int, names: tuple[str, ...], all_rules: bool
    ) -> Exhausted:
        """As `exhaustive.exhaust`, but learns in another order."""
        machine = self._machine
        machine.reset()
        while True:
            names = reductions(names, machine)
            try:
                return self._exhaust(stop, max_states, names, all_rules)
            except NotAlike as problem:
                apart(machine, problem)

    def _exhaust(
        self, stop: Callable[[], bool], max_states: int, names: tuple[str, ...], all_rules: bool
    ) -> Exhausted:
        machine = self._machine
        machine.restart()
        sets = self._sets = PersistentSets(machine) if PERSISTENT in names else None
        by = sum(BY.get(name, _BY_SYMMETRY) for name in names)
        if SYMMETRY in names:
            # What it knows of states counts only as far as it has been tried.
            self._symmetry, self._known = machine.symmetry, ()
        rules: set[str] = set()
        steps = rounds = 0
        try:
            if sets is not None:
                over, states, steps = self._find_out(sets, by, all_rules, max_states, stop)
                if over:
                    machine.settle()
                    return Exhausted(0, steps, states, reductions=names)
            while True:
                rounds += 1
                self._load()
                self._call("begin_exhaustive", by, all_rules, max_states)
                if sets is not None:
                    self._rely_on(sets)
                while True:
                    code, at = self._go_on("exhaust_on", stop)
                    self.states = self._words(at, 1)[0]
                    if code != LOOK or stop():
                        break
                machine.settle()
                found = self._exhausted(at, code == DONE, all_rules)
                found.rounds, found.reductions = rounds, names
                found.rules = rules = rules | found.rules
                found.steps = steps = steps + found.steps
                if sets is None or not found.complete or sets.look():
                    return found
        finally:
            self._sets = self._symmetry = None

    def _find_out(
        self, sets: PersistentSets, by: int, all_rules: bool, max_states: int, stop: Callable[[], bool]
    ) -> tuple[bool, int, int]:
        """What CPUs can reach, as `learning` does it: whether it has met a limit, states, and transitions.

        If a rule breaks it ends: whoever proves will come upon that. So it does when nothing has been learnt
        of CPUs from half of the states: most likely nothing will be.
        """
        self._load()
        self._call("begin_learning", by, all_rules, max_states)
        self._rely_on(sets)
        learnt = learnt_at = 0
        while True:
            code, at = self._go_on("learn_on", stop)
            self.states, steps = _LEARNT.unpack(self._words(at, _LEARNT.size // 4))
            if code == LOOK:
                if stop():
                    return True, self.states, steps
                known = sum(learner.edges_learnt for learner in self._machine.learners)
                if learnt != known:
                    learnt, learnt_at = known, self.states
                elif self.states > 2 * learnt_at and sets.look():
                    return False, self.states, steps
            elif code != DONE:
                return code != BROKEN, self.states, steps
            elif sets.look():
                return False, self.states, steps
            else:
                self._rely_on(sets)
                self._call("learn_again")

    def _exhausted(self, at: int, to_the_end: bool, all_rules: bool) -> Exhausted:
        report = _SEARCHED.unpack(self._words(at, _SEARCHED.size // 4))
        states, steps, schedules, rules, first, total, length, words = report
        found = Exhausted(states=states, steps=steps, schedules=schedules)
        found.rules = {rule for rule, number in self._rules.items() if rules >> number - 1 & 1}
        if first:
            self._repeat(length)
            found.violation, found.schedule = self._machine.violation, tuple(self._machine.path)
        found.complete = to_the_end and (not first or all_rules)
        found.saved = max(0, int(total) - schedules)
        if found.complete:
            found.endless, found.endless_schedule = endless(self._open_ended(words))
        return found

    def _open_ended(self, words: int) -> dict[int, tuple[list[int], tuple[Transition, ...]]]:
        left = list(self._words(self._call("open_at"), words)) if words else []
        found = {}
        at = 0
        while at < len(left):
            state, count = left[at : at + 2]
            following = left[at + 2 : at + 2 + count]
            at += 2 + count
            way = left[at + 1 : at + 1 + left[at]]
            at += 1 + len(way)
            found[state] = following, tuple([self._options[number].transition for number in way])
        return found


def _seeds(seed: int, runs: range) -> array[int]:
    """What random.Random(f"{seed}/{run}") begins with, of each run: how many words, and these."""
    found = array("I")
    for run in runs:
        text = f"{seed}/{run}".encode()
        number = int.from_bytes(text + sha512(text).digest())
        words = -(-number.bit_length() // 32)
        found.append(words)
        found.frombytes(number.to_bytes(4 * words, "little"))
    return found
