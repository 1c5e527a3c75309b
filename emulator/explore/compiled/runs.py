"""Random search, compiled where that pays: a drop-in for `search.search`, choice by choice the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from emulator.explore.compiled.walker import Walker, walks
from emulator.explore.explorer import Explorer
from emulator.explore.garbage import rare_collection
from emulator.explore.learned import LearnedMachine
from emulator.explore.search import Limits, Tally
from emulator.explore.search import search as search_in_python
from emulator.explore.strategies.strategy import Strategy

WORTHWHILE: Final = 500  # runs; loading the compiled side takes as long as a hundred or two


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
        walker = _walker(explorer)
        if walker is not None:
            return walker.search(strategy, seed, limits, stop, first_run)
    return search_in_python(explorer, strategy, seed, limits, stop, first_run)


def _walker(machine: LearnedMachine) -> Walker | None:
    """The machine's walker; None on a platform for which there is no WebAssembly runtime."""
    walker: Walker | None = machine.walker
    if walker is None:
        try:
            walker = machine.walker = Walker(machine)
        except ImportError:
            return None
    return walker
