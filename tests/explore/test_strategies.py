"""Each strategy does what its paper says, and each finds what is to be found."""

from __future__ import annotations

import pickle
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.checks.violation import Violation
from emulator.explore.search import Limits, search
from emulator.explore.strategies import STRATEGIES, Strategy, UnknownStrategy, find_strategy
from emulator.explore.strategies.delay_bounded import DelayBounded
from emulator.explore.strategies.pct import Pct
from emulator.hardware.cpu import Kind, Transition
from emulator.machine.litmus import LitmusMachine
from emulator.machine.referee import KINDS, PlainOption, Referee, agent_of
from tests.explore.broken_litmus import early_free, forgetful, lost_wakeup

NAMES = (*STRATEGIES, "pct:1", "pct:5", "delay:0", "delay:4")


class Counters:
    """An explorer of agents that never wait: each has a number of steps to take."""

    def __init__(self, steps: dict[tuple[Kind, int], int]) -> None:
        self.steps = steps
        self.cpus = 1 + max(cpu for _, cpu in steps)
        self.violation: Violation | None = None
        self.reset()

    def reset(self) -> None:
        self.path: list[Transition] = []
        self.left = dict(self.steps)

    def options(self) -> Sequence[PlainOption]:
        found = [Transition(kind, cpu) for (kind, cpu), left in self.left.items() if left]
        return sorted([PlainOption(one, agent_of(one)) for one in found], key=lambda one: one.agent)

    def take(self, option: Any) -> None:
        self.path.append(option.transition)
        self.left[option.transition.kind, option.transition.cpu] -= 1

    def finish(self) -> None:
        pass


def run(explorer: Counters, strategy: Strategy, seed: int) -> tuple[Transition, ...]:
    explorer.reset()
    strategy.begin(random.Random(seed), explorer)
    while options := explorer.options():
        chosen = strategy.choose(options)
        assert chosen in options
        explorer.take(chosen)
    return tuple(explorer.path)


machines = st.dictionaries(
    st.tuples(st.sampled_from(Kind), st.integers(0, 3)), st.integers(1, 6), min_size=1, max_size=8
)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25, deadline=None)
@given(steps=machines)
def test_every_run_comes_to_its_end_and_can_be_repeated(
    name: str, steps: dict[tuple[Kind, int], int]
) -> None:
    def runs() -> list[tuple[Transition, ...]]:
        explorer = Counters(steps)
        strategy = find_strategy(name)()
        return [run(explorer, strategy, seed) for seed in range(5)]

    assert runs() == runs()
    assert all(len(path) == sum(steps.values()) for path in runs())


FINDERS = ["random", "pct", "pct:2", "uniform", "delay", "delay:3", "portfolio"]


@pytest.mark.parametrize(
    ("name", "make"),
    # Where the reader has to be later than a program ten times as long, a random walk is hopeless.
    [
        (name, make)
        for name in FINDERS
        for make in (forgetful, early_free, lost_wakeup)
        if (name, make) != ("random", forgetful)
    ],
)
def test_it_finds_the_bug(name: str, make: Callable[[], LitmusMachine]) -> None:
    tally = search(Referee(make()), find_strategy(name)(), 7, Limits(300), lambda: False)
    assert tally.violation is not None
    assert tally.strategy.startswith(name if ":" in name else name.partition(":")[0])


@pytest.mark.parametrize("name", ["random", "uniform"])
def test_walkers_do_not_drown_the_rest(name: str) -> None:
    walkers = {(Kind.WALK, cpu): 1000 for cpu in range(4)}
    explorer = Counters({(Kind.STEP, 0): 40, (Kind.STEP, 1): 40, **walkers})
    strategy = find_strategy(name)()
    strategy.begin(random.Random(1), explorer)
    while explorer.left[Kind.STEP, 0] and explorer.left[Kind.STEP, 1]:
        explorer.take(strategy.choose(explorer.options()))
    walks = sum(1 for one in explorer.path if one.kind is Kind.WALK)
    assert 0 < walks < len(explorer.path) / 2


def test_a_lone_walker_is_chosen() -> None:
    explorer = Counters({(Kind.WALK, 0): 3, (Kind.WALK, 1): 3})
    assert len(run(explorer, find_strategy("random")(), 1)) == 6


# --- PCT ------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(steps=machines, depth=st.integers(1, 6))
def test_pct_changes_a_priority_at_most_depth_minus_one_times(
    steps: dict[tuple[Kind, int], int], depth: int
) -> None:
    explorer = Counters(steps)
    pct = Pct(depth)
    for seed in range(6):
        explorer.reset()
        pct.begin(random.Random(seed), explorer)
        assert len(set(pct.priorities)) == KINDS * explorer.cpus
        changes = 0
        while options := explorer.options():
            before = list(pct.priorities)
            chosen = pct.choose(options)
            changed = [agent for agent, priority in enumerate(pct.priorities) if priority != before[agent]]
            assert len(changed) <= 1
            if changed:
                # The leader falls behind everybody.
                assert before[changed[0]] == max(before[option.agent] for option in options)
                assert pct.priorities[changed[0]] < min(before)
                changes += 1
            assert pct.priorities[chosen.agent] == max(pct.priorities[option.agent] for option in options)
            explorer.take(chosen)
        assert changes == pct.changes <= depth - 1


def test_pct_of_depth_one_runs_agents_one_after_another() -> None:
    explorer = Counters({(Kind.STEP, cpu): 5 for cpu in range(3)})
    orders = set()
    pct = Pct(1)
    for seed in range(50):
        path = run(explorer, pct, seed)
        assert all(len({one.cpu for one in path[at : at + 5]}) == 1 for at in (0, 5, 10))
        orders.add(tuple(one.cpu for one in path[::5]))
    assert len(orders) == 6


def test_pct_learns_how_long_a_run_is() -> None:
    explorer = Counters({(Kind.STEP, 0): 300, (Kind.STEP, 1): 300})
    pct = Pct(2)
    late = [run(explorer, pct, seed) for seed in range(60)]
    first_switch = [next(at for at, one in enumerate(path) if one.cpu != path[0].cpu) for path in late]
    assert max(first_switch[:1]) <= 50
    assert max(first_switch[1:]) > 200


# --- uniform --------------------------------------------------------------------------------------


def test_uniform_makes_every_interleaving_as_likely() -> None:
    explorer = Counters({(Kind.STEP, 0): 3, (Kind.STEP, 1): 1})
    uniform = find_strategy("uniform")()
    found = Counter(run(explorer, uniform, seed) for seed in range(2000))
    assert len(found) == 4
    assert all(400 < count < 600 for count in found.values())


# --- delay bounding -------------------------------------------------------------------------------


@settings(deadline=None)
@given(steps=machines, bound=st.integers(0, 4))
def test_delays_are_bounded_and_without_them_nobody_is_interrupted(
    steps: dict[tuple[Kind, int], int], bound: int
) -> None:
    explorer = Counters(steps)
    delaying = DelayBounded(bound)
    for seed in range(6):
        path = run(explorer, delaying, seed)
        assert delaying.delays <= bound
        stretches = 1 + sum(1 for at in range(1, len(path)) if agent_of(path[at]) != agent_of(path[at - 1]))
        assert stretches <= len(steps) + bound


# --- names ----------------------------------------------------------------------------------------


def test_names_lead_to_strategies() -> None:
    assert find_strategy("pct:4")().name == "pct:4"
    assert find_strategy("delay:0")().name == "delay:0"
    assert find_strategy("random")().name == "random"
    portfolio = find_strategy("portfolio")()
    assert portfolio.name == "portfolio"
    names = set()
    for seed in range(100):
        portfolio.begin(random.Random(seed), Counters({(Kind.STEP, 0): 1}))
        names.add(portfolio.name)
    assert {"portfolio/random", "portfolio/pct:2", "portfolio/pct:3", "portfolio/uniform"} <= names


@pytest.mark.parametrize("name", NAMES)
def test_factories_travel(name: str) -> None:
    assert pickle.loads(pickle.dumps(find_strategy(name)))().name == find_strategy(name)().name


@pytest.mark.parametrize(
    "name", ["", "dfs", "pct:", "pct:0", "pct:x", "pct:101", "delay:-1", "random:2", "pct:٣"]
)
def test_unknown_names(name: str) -> None:
    with pytest.raises(UnknownStrategy) as caught:
        find_strategy(name)
    assert len(str(caught.value).splitlines()) == 1
