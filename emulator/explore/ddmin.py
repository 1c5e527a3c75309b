"""From a schedule that breaks a rule to a short one: fewest steps first, then fewest preemptions.

Delta debugging (Zeller, Hildebrandt: Simplifying and Isolating Failure-Inducing Input, IEEE TSE 2002) over
transitions. Departs from it: what is not possible of a candidate is passed over, and what then happened is
what counts, so leaving out one thing leaves out what depended on it; of the paper's two kinds of candidates
only the complements are tried; random detours end it, as a local minimum may be poor.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from emulator.explore.explorer import Explorer, Option
from emulator.explore.schedule import ScheduleProblem, follow, replay
from emulator.explore.subsequence import follow_possible, named
from emulator.hardware.cpu import Transition
from emulator.machine.garbage import rare_collection
from emulator.machine.progress import running_cpu
from emulator.machine.referee import agent_of

Schedule = tuple[Transition, ...]

STAY = 0.7  # how often a detour stays on the CPU that it is on


def preemptions(schedule: Sequence[Transition]) -> int:
    """How often the next transition is another CPU's than the last one."""
    return sum(1 for one, other in pairwise(schedule) if one.cpu != other.cpu)


@rare_collection()
def shrink(
    explorer: Explorer, schedule: Sequence[Transition], rule: str, stop: Callable[[], bool], patience: int
) -> Schedule:
    """A schedule that breaks the same rule, no longer than the given one, and usually far shorter.

    No single transition can be left out of it, unless `stop`, asked before every run, ended the search
    early. `patience` bounds the random detours, in runs. The same arguments give the same result. Raises
    ScheduleProblem if the schedule does not break the rule.
    """
    follow(explorer, schedule)
    # A rule that is judged at the end of a run: every candidate is carried on to its end.
    to_the_end = explorer.violation is None
    broken = replay(explorer, schedule)
    if broken is None or broken.rule != rule:
        did = "nothing" if broken is None else f"'{broken.rule}'"
        raise ScheduleProblem(f"the schedule to shorten breaks {did}, not '{rule}'")
    shrinker = Shrinker(explorer, tuple(explorer.path), rule, to_the_end, stop)
    shrinker.minimise()
    shrinker.detours(patience)
    broken = replay(explorer, shrinker.best)
    if broken is None or broken.rule != rule:
        raise AssertionError(f"runs do not repeat themselves: '{rule}' became {broken}")
    return shrinker.best


class _Stop(Exception):
    """The caller has had enough."""


class Shrinker:
    """`best` is the best schedule so far; every candidate that beats it replaces it. `tried` counts them.

    Candidates are made from its named form (see `subsequence`). A rule that is judged at the end of a run
    asks for `to_the_end`.
    """

    def __init__(
        self, explorer: Explorer, best: Schedule, rule: str, to_the_end: bool, stop: Callable[[], bool]
    ) -> None:
        self.best = best
        self.tried = 0
        self._named = named(best, explorer.cpus)
        self._explorer = explorer
        self._rule = rule
        self._to_the_end = to_the_end
        self._stop = stop

    def minimise(self) -> None:
        """Every stage, over again as long as any of them helps."""
        try:
            before: Schedule = ()
            while self.best != before:
                before = self.best
                self._leave_out_parts()
                self._leave_out_stretches()
                self._insert_one()
                self._join_blocks()
        except _Stop:
            pass

    def detours(self, patience: int) -> None:
        """Random variations of the best schedule, each that helps minimised in turn."""
        chance = random.Random("shrink")
        try:
            for _ in range(patience):
                kept = chance.randrange(len(self.best) + 1)
                if chance.random() < 0.5:
                    self._wander(kept, len(self.best), chance)
                    better = self._judge()
                else:
                    better = self._try(self._with_burst(kept, chance))
                if better:
                    self.minimise()
        except _Stop:
            pass

    def minimise_long(self) -> None:
        """For what is as long as a recording: what each CPU does in a stretch, then as `minimise`.

        From the back, as what comes late is needed by less.
        """
        try:
            for cpu in range(self._explorer.cpus):
                self._leave_out(0, len(self.best), cpu)
            size = len(self.best) // 2
            while size:
                at = len(self.best) - size
                while at > -size:
                    for cpu in range(self._explorer.cpus):
                        self._leave_out(max(at, 0), at + size, cpu)
                    at -= size
                size //= 2
            self.minimise()
        except _Stop:
            pass

    # --- the stages --------------------------------------------------------------------------------

    def _leave_out_parts(self) -> None:
        """Without all that one CPU does, or one of its agents (its interrupts, its walker)."""
        for cpu in sorted({one.cpu for one in self.best}):
            self._try([one for one in self._named if one.cpu != cpu])
        for agent in sorted({agent_of(one) for one in self.best}):
            self._try([one for one in self._named if agent_of(one) != agent])

    def _leave_out(self, low: int, high: int, cpu: int) -> None:
        """Without what one CPU does in a stretch."""
        if any(one.cpu == cpu for one in self.best[low:high]):
            kept = [one for one in self._named[low:high] if one.cpu != cpu]
            self._try([*self._named[:low], *kept, *self._named[high:]])

    def _leave_out_stretches(self) -> None:
        """Delta debugging: without one stretch, of half the length, a quarter and so on down to one."""
        size = len(self.best) // 2
        while size:
            at = 0
            helped = False
            while at < len(self.best):
                if self._try(self._named[:at] + self._named[at + size :]):
                    helped = True
                else:
                    at += size
            if size == 1 and not helped:
                return
            size = max(1, size // 2)

    def _insert_one(self) -> None:
        """One other choice somewhere, the rest after it as before: what follows may come sooner."""
        at = 0
        while at < len(self.best):
            for other in self._others(at):
                if self._try([*self._named[:at], other, *self._named[at:]]):
                    break
            else:
                at += 1

    def _join_blocks(self) -> None:
        """A stretch of one CPU's transitions moved next to another stretch of that CPU."""
        helped = True
        while helped:
            helped = any(self._try(candidate) for candidate in self._joined())

    # --- candidates --------------------------------------------------------------------------------

    def _others(self, at: int) -> list[Transition]:
        """What else could have happened at position `at`."""
        self._replay(at)
        possible = [one.transition for one in self._explorer.options() if one.transition != self.best[at]]
        return [named([*self.best[:at], one], self._explorer.cpus)[at] for one in possible]

    def _joined(self) -> Iterator[list[Transition]]:
        blocks: list[list[Transition]] = []
        for one in self._named:
            if blocks and blocks[-1][0].cpu == one.cpu:
                blocks[-1].append(one)
            else:
                blocks.append([one])
        for number, block in enumerate(blocks):
            others = blocks[:number] + blocks[number + 1 :]
            for place, other in enumerate(others):
                if other[0].cpu == block[0].cpu:
                    # Right after an earlier stretch, right before a later one.
                    cut = place + 1 if place < number else place
                    yield [one for part in (*others[:cut], block, *others[cut:]) for one in part]

    def _with_burst(self, kept: int, chance: random.Random) -> list[Transition]:
        """A few random transitions put in after `kept`, the rest as before."""
        self._wander(kept, kept + chance.randint(1, 12), chance)
        explorer = self._explorer
        return [*named(explorer.path, explorer.cpus), *self._named[kept:]]

    # --- candidates' runs ------------------------------------------------------------------------

    def _look(self) -> None:
        if self._stop():
            raise _Stop

    def _replay(self, length: int) -> None:
        """Go to where the best schedule is after `length` transitions."""
        self._look()
        follow(self._explorer, self.best[:length])

    def _try(self, candidate: Sequence[Transition]) -> bool:
        """Follow what is possible of a candidate; whether it became the new best."""
        self._look()
        self.tried += 1
        try:
            follow_possible(self._explorer, candidate, len(self.best), self._look)
        except Exception as problem:
            # What a program raises that stands for no rule is not looked for.
            if running_cpu(problem) < 0:
                raise
            return False
        if self._to_the_end:
            self._carry_on()
        return self._judge()

    def _wander(self, kept: int, most: int, chance: random.Random) -> None:
        """Go at random from `kept` to `most` transitions, mostly on one CPU, and on those of the best."""
        needed = {one.cpu for one in self.best}
        self._replay(kept)
        explorer = self._explorer
        while explorer.violation is None and len(explorer.path) < most:
            options = explorer.options()
            if not options:
                return
            options = [one for one in options if one.transition.cpu in needed] or options
            if explorer.path and chance.random() < STAY:
                cpu = explorer.path[-1].cpu
                options = [one for one in options if one.transition.cpu == cpu] or options
            explorer.take(options[int(chance.random() * len(options))])

    def _carry_on(self) -> None:
        """To the end of the run, staying on a CPU as long as it can go on."""
        explorer = self._explorer
        longest = len(self.best)
        while explorer.violation is None and len(explorer.path) < longest:
            options = explorer.options()
            if not options:
                return
            explorer.take(_same_cpu(options, explorer.path))

    def _judge(self) -> bool:
        """The run so far breaks the rule and beats the best: then it is the new best."""
        explorer = self._explorer
        if explorer.violation is None and not explorer.options():
            explorer.finish()
        broken = explorer.violation
        if broken is None or broken.rule != self._rule:
            return False
        found = tuple(explorer.path)
        if (len(found), preemptions(found)) >= (len(self.best), preemptions(self.best)):
            return False
        self.best = found
        self._named = named(found, explorer.cpus)
        return True


def _same_cpu(options: Sequence[Option], path: Sequence[Transition]) -> Option:
    """The first option of the CPU that went last, else the first one."""
    if path:
        for option in options:
            if option.transition.cpu == path[-1].cpu:
                return option
    return options[0]
