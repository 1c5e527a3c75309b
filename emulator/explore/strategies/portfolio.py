"""Portfolio: every run is led by one of several strategies, because none is best for all bugs.

Thomson, Donaldson, Betts (Concurrency Testing Using Controlled Schedulers: An Empirical Study, ACM TOPC 2016)
compared random walk, PCT and delay bounding: the depth that a bug needs is not known beforehand. Which one
leads run N is drawn from that run's own generator: the same whatever ran before, and in whatever process.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from emulator.explore.explorer import Explorer, Option
from emulator.explore.strategies.delay_bounded import DelayBounded
from emulator.explore.strategies.pct import Pct
from emulator.explore.strategies.random_walk import RandomWalk
from emulator.explore.strategies.strategy import Strategy
from emulator.explore.strategies.uniform import Uniform


class Portfolio:
    """The default. Its name says who leads the run, once one has begun."""

    def __init__(self) -> None:
        self.members: tuple[Strategy, ...] = (
            RandomWalk(),
            Pct(2),
            Uniform(),
            Pct(3),
            DelayBounded(1),
            Pct(4),
            DelayBounded(3),
            Pct(6),
        )
        self._leader: Strategy | None = None

    @property
    def name(self) -> str:
        """`portfolio`, and during and after a run who leads it: `portfolio/pct:3`."""
        return "portfolio" if self._leader is None else f"portfolio/{self._leader.name}"

    def begin(self, random: Random, explorer: Explorer) -> None:
        """A new run, and somebody to lead it."""
        self._leader = self.members[int(random.random() * len(self.members))]
        self._leader.begin(random, explorer)
        self._choose = self._leader.choose

    def choose(self, options: Sequence[Option]) -> Option:
        """What the leader chooses."""
        return self._choose(options)
