"""Searches, compiled where that pays: drop-ins for `search.search` and `exhaustive.exhaust`.

Choice by choice and state by state they are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from emulator.explore.compiled.graphs import TooLarge
from emulator.explore.compiled.walker import Walker, walks
from emulator.explore.exhaustive import Exhausted, Reduce, reductions
from emulator.explore.exhaustive import exhaust as exhaust_in_python
from emulator.explore.explorer import Explorer
from emulator.explore.learned import LearnedMachine
from emulator.explore.search import Limits, Tally
from emulator.explore.search import search as search_in_python
from emulator.explore.strategies.strategy import Strategy
from emulator.machine.garbage import rare_collection

WORTHWHILE: Final = 500  # runs; loading the compiled side takes as long as a hundred or two
FEW: Final = 2_000  # states that are searched in Python before that


@rare_collection()
def search(
    explorer: Explorer,
    strategy: Strategy,
    seed: int,
    limits: Limits,
    stop: Callable[[], bool],
    first_run: int = 0,
) -> Tally:
    """As `search.search`; `strategy` has led no run yet."""
    if limits.schedules >= WORTHWHILE and isinstance(explorer, LearnedMachine) and walks(explorer, strategy):
        walker = walker_of(explorer)
        if walker is not None:
            with suppress(TooLarge):
                return walker.search(strategy, seed, limits, stop, first_run)
    return search_in_python(explorer, strategy, seed, limits, stop, first_run)


def exhaust(
    machine: LearnedMachine,
    stop: Callable[[], bool] = lambda: False,
    max_states: int = 20_000_000,
    reduce: Reduce = True,
    all_rules: bool = False,
) -> Exhausted:
    """As `exhaustive.exhaust`; memory grows by about 60 bytes a state of four CPUs."""
    if max_states > FEW and walks(machine):
        few = exhaust_in_python(machine, stop, FEW, reduce, all_rules)
        if few.complete or few.states <= FEW:
            return few
        walker = walker_of(machine)
        if walker is not None:
            with suppress(TooLarge):
                return walker.exhaust(stop, max_states, reductions(reduce, machine), all_rules)
    return exhaust_in_python(machine, stop, max_states, reduce, all_rules)


def walker_of(machine: LearnedMachine) -> Walker | None:
    """The machine's walker; None on a platform for which there is no WebAssembly runtime."""
    walker: Walker | None = machine.walker
    if walker is None:
        try:
            walker = machine.walker = Walker(machine)
        except ImportError:
            return None
    return walker
