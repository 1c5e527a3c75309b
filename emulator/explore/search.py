"""Random search: run after run, each with a strategy's choices, until a rule breaks or the limits are met.

Run N draws from a generator that is seeded with the seed and N alone. Strategies may also learn from
earlier runs (how long a run is), so a single run is repeated by its schedule; the same seed with a fresh
strategy repeats the whole search, choice by choice.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from emulator.checks.violation import Violation
from emulator.explore.explorer import Explorer
from emulator.explore.strategies.strategy import Strategy
from emulator.hardware.cpu import Transition
from emulator.machine.garbage import rare_collection

ASK_EVERY = 64  # runs between two looks at whether to stop


@dataclass(frozen=True, slots=True)
class Limits:
    """How far to look: `schedules` runs of at most `steps` transitions each."""

    schedules: int
    steps: int = 10_000


@dataclass(slots=True)
class Tally:
    """What a search did, and the violation that ended it, if one did.

    `schedules` and `steps` count runs and transitions, `cut` the runs that met the limit of steps; those
    say little, as their end was not judged. `complete`: everything possible was looked at. With a
    violation, `schedule` leads to it, found in run number `run` by `strategy`; else `run` is -1.
    """

    schedules: int = 0
    steps: int = 0
    complete: bool = False
    violation: Violation | None = None
    schedule: tuple[Transition, ...] = ()
    run: int = -1
    strategy: str = ""
    cut: int = 0


@rare_collection()
def search(
    explorer: Explorer,
    strategy: Strategy,
    seed: int,
    limits: Limits,
    stop: Callable[[], bool],
    first_run: int = 0,
) -> Tally:
    """Runs number `first_run` and on, at most `limits.schedules` of them, to the first violation.

    `stop` is asked before the first run and every 64 runs. Never `complete`: it is chance that chooses.
    """
    tally = Tally(strategy=strategy.name)
    options_of = explorer.options
    take = explorer.take
    choose = strategy.choose
    for run in range(first_run, first_run + limits.schedules):
        if not tally.schedules % ASK_EVERY and stop():
            break
        explorer.reset()
        strategy.begin(random.Random(f"{seed}/{run}"), explorer)
        left = limits.steps
        while options := options_of():
            if not left:
                tally.cut += 1
                break
            left -= 1
            take(choose(options))
            if explorer.violation is not None:
                break
        else:
            explorer.finish()
        tally.schedules += 1
        tally.steps += limits.steps - left
        if explorer.violation is not None:
            tally.violation = explorer.violation
            tally.schedule = tuple(explorer.path)
            tally.run = run
            tally.strategy = strategy.name
            break
    return tally
