"""Random walk: every option is as likely as any other, save walkers.

The baseline of all papers on randomised concurrency testing, and better than its name (Thomson, Donaldson,
Betts: Concurrency Testing Using Controlled Schedulers: An Empirical Study, ACM TOPC 2016). Departs from it in
that walkers, who can act at nearly any moment, are mostly passed over: a run would else be about them.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from emulator.explore.explorer import Explorer, Option
from emulator.explore.strategies.strategy import KINDS, WALKER

WALK_ACCEPTED = 0.2  # how often a walk that was drawn is taken when something else could happen


class RandomWalk:
    """Uniform over the options, walks weighed down."""

    name = "random"

    def begin(self, random: Random, explorer: Explorer) -> None:
        """A new run."""
        self._random = random.random

    def choose(self, options: Sequence[Option]) -> Option:
        """Any option; a walk rarely, unless nothing else is possible."""
        if len(options) == 1:
            return options[0]
        random = self._random
        option = options[int(random() * len(options))]
        if option.agent % KINDS != WALKER or random() < WALK_ACCEPTED:
            return option
        others = [other for other in options if other.agent % KINDS != WALKER]
        return others[int(random() * len(others))] if others else option
