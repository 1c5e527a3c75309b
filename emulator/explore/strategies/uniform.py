"""Uniform random walk: an agent is chosen in proportion to the steps that it still has to take.

Zhao, Wolff, Mathur, Roychoudhury: Selectively Uniform Concurrency Testing, ASPLOS 2025 (its algorithm URW).
With exact numbers and no waiting every interleaving is as likely as any other; a plain random walk prefers
those in which the short programs are through early.

Departs from it: the threads are agents (a CPU's program, its interrupts, its window, its walker), which wait
for each other, so uniformity is an aim and no theorem here; the numbers are averages over the runs led so
far, and an agent that outlives its estimate weighs as one step. Selection by interesting events is left out.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from random import Random

from emulator.explore.explorer import Explorer, Option
from emulator.explore.strategies.strategy import KINDS, WALKER, one_of

LEAST = 1.0  # weight of an agent that should be through
LEAST_WALKER = 0.2


class Uniform:
    """Weighs agents by their estimated remaining steps; in the first run all weigh the same."""

    name = "uniform"

    def __init__(self) -> None:
        self._runs = 0
        self._totals: list[int] = []  # steps by agent, all earlier runs together
        self._taken: list[int] = []  # steps by agent in this run
        self._estimates: list[float] = []
        self._least: list[float] = []

    def begin(self, random: Random, explorer: Explorer) -> None:
        """A new run: what the last one showed goes into the estimates."""
        self._random = random
        agents = KINDS * explorer.cpus
        if not self._totals:
            self._totals = [0] * agents
            self._least = [LEAST_WALKER if agent % KINDS == WALKER else LEAST for agent in range(agents)]
        else:
            self._runs += 1
            self._totals = [total + new for total, new in zip(self._totals, self._taken, strict=True)]
        self._taken = [0] * agents
        runs = self._runs or 1
        self._estimates = [total / runs for total in self._totals]

    def choose(self, options: Sequence[Option]) -> Option:
        """An option of an agent drawn by weight, any one if the agent has several."""
        option = options[0] if len(options) == 1 else self._draw(options)
        self._taken[option.agent] += 1
        return option

    def _draw(self, options: Sequence[Option]) -> Option:
        taken = self._taken
        estimates = self._estimates
        least = self._least
        agents = []
        bounds = []
        total = 0.0
        last = -1
        for option in options:
            agent = option.agent
            if agent != last:
                last = agent
                remaining = estimates[agent] - taken[agent]
                floor = least[agent]
                total += remaining if remaining > floor else floor
                agents.append(agent)
                bounds.append(total)
        at = self._random.random() * total
        return one_of(self._random, options, agents[min(bisect_right(bounds, at), len(agents) - 1)])
