"""Delay-bounded: a deterministic round robin, in which a few times the agent whose turn it is has to wait.

Emmi, Qadeer, Rakamaric: Delay-Bounded Scheduling, POPL 2011. An agent goes on until it cannot; a delay passes
its turn to the next one in the round. Many bugs need very few delays.

Departs from it: the paper enumerates all schedules with at most d delays, here the places are drawn at
random, over the longest run seen so far; the tasks are agents (a CPU's program, its interrupts, its window,
its walker); the agent that begins is drawn as well, as it would else cost delays to let the last one begin.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from emulator.explore.explorer import Explorer, Option
from emulator.explore.strategies.strategy import KINDS, one_of

FIRST_GUESS = 50  # decisions of a run, before any was seen


class DelayBounded:
    """At most `bound` delays in a run; several may fall on one decision."""

    def __init__(self, bound: int = 2) -> None:
        self.bound = bound
        self.name = f"delay:{bound}"
        self.delays = 0  # in this run
        self._longest = 0
        self._decisions = 0

    def begin(self, random: Random, explorer: Explorer) -> None:
        """A new run: who begins, and where somebody has to wait."""
        self._random = random
        self._longest = max(self._longest, self._decisions)
        self._decisions = 0
        self.delays = 0
        self._agents = KINDS * explorer.cpus
        self._turn = int(random.random() * self._agents)
        length = self._longest or FIRST_GUESS
        places = [1 + int(random.random() * length) for _ in range(self.bound)]
        self._places = sorted(places, reverse=True)

    def choose(self, options: Sequence[Option]) -> Option:
        """An option of the agent whose turn it is, or of the next one in the round that can act."""
        if len(options) == 1:
            self._turn = options[0].agent
            return options[0]
        self._decisions += 1
        self._turn = self._from(options, self._turn)
        while self._places and self._places[-1] <= self._decisions:
            self._places.pop()
            self.delays += 1
            self._turn = self._from(options, self._turn + 1)
        return one_of(self._random, options, self._turn)

    def _from(self, options: Sequence[Option], turn: int) -> int:
        """The first agent in the round, from `turn` on, that can act."""
        agents = self._agents
        return (turn + min([(option.agent - turn) % agents for option in options])) % agents
