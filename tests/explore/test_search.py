"""A search repeats itself bit for bit, keeps to its limits and ends at the first violation."""

from __future__ import annotations

import pytest

from emulator.explore.schedule import replay
from emulator.explore.search import ASK_EVERY, Limits, Tally, search
from emulator.explore.strategies import STRATEGIES, Strategy, find_strategy
from emulator.hardware.cpu import Transition
from emulator.machine.referee import Referee
from tests.explore.broken_litmus import cached_everywhere, early_free, lost_wakeup, machine, moves, reads


def never() -> bool:
    return False


class Recording(Referee):
    """Keeps the path of every run."""

    def __init__(self) -> None:
        self.paths: list[list[Transition]] = []
        super().__init__(machine(moves, reads, setup=cached_everywhere, speculated=(0x10,)))
        self.paths.clear()

    def reset(self) -> None:
        super().reset()
        self.paths.append(self.path)


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_same_seed_is_the_same_search(name: str) -> None:
    def everything(seed: int) -> tuple[Tally, list[list[Transition]]]:
        explorer = Recording()
        return search(explorer, find_strategy(name)(), seed, Limits(12), never), explorer.paths

    tally, paths = everything(5)
    assert (tally, paths) == everything(5)
    assert paths != everything(6)[1]
    assert tally == Tally(schedules=12, steps=sum(len(path) for path in paths), strategy=tally.strategy)


def test_a_run_is_the_same_wherever_a_search_begins() -> None:
    whole, part = Recording(), Recording()
    search(whole, find_strategy("random")(), 3, Limits(10), never)
    search(part, find_strategy("random")(), 3, Limits(4), never, first_run=6)
    assert whole.paths[6:] == part.paths


@pytest.mark.parametrize("name", STRATEGIES)
def test_what_is_found_can_be_replayed(name: str) -> None:
    for broken in (early_free(), lost_wakeup()):
        explorer = Referee(broken)
        tally = search(explorer, find_strategy(name)(), 2, Limits(300), never, first_run=1000)
        assert tally.violation is not None
        assert tally.run == 1000 + tally.schedules - 1
        assert not tally.complete
        assert replay(explorer, tally.schedule) == tally.violation


def test_runs_that_are_too_long_are_cut_and_counted() -> None:
    tally = search(Recording(), find_strategy("random")(), 1, Limits(7, steps=5), never)
    assert (tally.schedules, tally.steps, tally.cut) == (7, 35, 7)
    length = len(_one_path())
    tally = search(Recording(), First(), 1, Limits(1, steps=length), never)
    assert (tally.steps, tally.cut) == (length, 0)


def test_a_cut_run_is_not_judged() -> None:
    explorer = Referee(lost_wakeup())
    tally = search(explorer, find_strategy("random")(), 1, Limits(200, steps=8), never)
    assert tally.violation is None


class First:
    """Always the first option."""

    name = "first"

    def begin(self, random: object, explorer: object) -> None:
        pass

    def choose(self, options):  # type: ignore[no-untyped-def]
        return options[0]


def _one_path() -> list[Transition]:
    explorer = Recording()
    strategy: Strategy = First()
    search(explorer, strategy, 1, Limits(1), never)
    return explorer.paths[-1]


def test_it_stops_when_told() -> None:
    asked = []

    def soon() -> bool:
        asked.append(1)
        return len(asked) == 3

    tally = search(Recording(), find_strategy("random")(), 1, Limits(10_000, steps=1), soon)
    assert tally.schedules == 2 * ASK_EVERY
    assert search(Recording(), find_strategy("random")(), 1, Limits(5), lambda: True).schedules == 0
