"""PCT: run whoever has the highest priority, and lower the leader's priority at a few random points.

Burckhardt, Kothari, Musuvathi, Nagarakatte: A Randomized Scheduler with Probabilistic Guarantees of
Finding Bugs, ASPLOS 2010. A bug that needs d ordering constraints is found in a run of n threads and k steps
with probability at least 1 / (n * k ** (d - 1)).

Departs from it: the threads are agents (a CPU's program, its interrupts, its window, its walker), so that a
late interrupt or a long-waiting store is a priority like any other; k is the longest run seen so far rather
than given; only real decisions count as steps, as lowering a priority where nobody else could go is the same
as lowering it at the leader's next decision; of one agent's several options any is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from emulator.explore.explorer import Explorer, Option
from emulator.explore.strategies.strategy import KINDS, one_of

FIRST_GUESS = 50  # decisions of a run, before any was seen


class Pct:
    """`depth` is d: one initial order of the agents, and d - 1 points at which the leader falls behind."""

    def __init__(self, depth: int = 3) -> None:
        self.depth = depth
        self.name = f"pct:{depth}"
        self.changes = 0  # priorities lowered in this run
        self.priorities: list[int] = []  # by agent; higher goes first
        self._longest = 0
        self._decisions = 0

    def begin(self, random: Random, explorer: Explorer) -> None:
        """A new run: an order of the agents, and where it will change."""
        self._random = random
        self._longest = max(self._longest, self._decisions)
        self._decisions = 0
        self.changes = 0
        agents = KINDS * explorer.cpus
        self.priorities = list(range(self.depth, self.depth + agents))
        random.shuffle(self.priorities)
        length = max(self._longest or FIRST_GUESS, self.depth)
        self._points = sorted(random.sample(range(1, length + 1), self.depth - 1), reverse=True)
        self._next = self._points.pop() if self._points else 0

    def choose(self, options: Sequence[Option]) -> Option:
        """An option of the agent with the highest priority."""
        if len(options) == 1:
            return options[0]
        self._decisions += 1
        leader = self._leader(options)
        if self._decisions == self._next:
            # Below all initial priorities, and below what was lowered before.
            self.changes += 1
            self.priorities[leader] = self.depth - self.changes
            self._next = self._points.pop() if self._points else 0
            leader = self._leader(options)
        return one_of(self._random, options, leader)

    def _leader(self, options: Sequence[Option]) -> int:
        priorities = self.priorities
        leader = options[0].agent
        highest = priorities[leader]
        for option in options:
            agent = option.agent
            if priorities[agent] > highest:
                leader = agent
                highest = priorities[agent]
        return leader
