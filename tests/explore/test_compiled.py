"""Compiled runs beside the reference in Python: the same choices, learnt states, counters and verdicts."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from importlib.resources import files

import pytest

from emulator.explore.compiled import graphs, runs
from emulator.explore.compiled.walker import Walker, walks
from emulator.explore.exhaustive import AMPLE, REDUCTIONS, Exhausted, exhaust
from emulator.explore.learned import LearnedMachine
from emulator.explore.search import Limits, Tally, search
from emulator.explore.strategies import find_strategy
from emulator.explore.strategies.random_walk import RandomWalk
from emulator.machine.litmus import Litmus
from scenarios.subjects.programs import LitmusName, machine_of
from tests.explore.broken_litmus import cached_everywhere, early_free, lost_wakeup, machine, moves, reads
from tests.explore.small_litmus import demotion, polling, reuse
from tests.explore.small_litmus import machine as small_machine

pytest.importorskip("wasmtime")

STRATEGIES = ("random", "pct:1", "pct:3", "pct:20", "uniform", "delay:0", "delay:3", "portfolio")
CATALOGUE = (
    ("deferred-copy", "migrc:v3", "x86"),
    ("crossing-flushes", "mistake:lost-wake-up", "x86"),
    ("mm-left-meanwhile", "migrc:v3", "riscv"),
    ("hint-promotes-pending", "immediate", "riscv"),
    ("two-adders-one-taker", "mistake:hung-too-early", "sc"),
)
PROVED = (("shootdown", "immediate", "riscv"), ("deferred-copy", "migrc:v3", "x86"), CATALOGUE[2])


def never() -> bool:
    return False


def opened(name: str, policy: str, arch: str) -> LearnedMachine:
    return LearnedMachine(machine_of(LitmusName(name), policy, arch))


def of_cpus(machine: LearnedMachine) -> list[tuple[int, int]]:
    """How many states of each CPU are known, and what leads from one to another."""
    return [(len(one.nodes), one.edges_learnt) for one in machine.learners]


def same(first: LearnedMachine, second: LearnedMachine, strategy: str, limits: Limits) -> Tally:
    """One search in Python, one compiled: everything that can be told of them is the same."""
    slow = search(first, find_strategy(strategy)(), 7, limits, never, 3)
    walker = Walker(second)
    fast = walker.search(find_strategy(strategy)(), 7, limits, never, 3)
    assert fast == slow
    assert second.reached == first.reached
    assert of_cpus(second) == of_cpus(first)
    if slow.violation is not None:
        assert (second.path, second.violation) == (first.path, first.violation)
    return slow


@pytest.mark.parametrize("test", CATALOGUE)
def test_every_strategy_makes_the_same_choices(test: tuple[str, str, str]) -> None:
    # One strategy goes on with what the ones before it have learnt, in Python or compiled.
    first, second = opened(*test), opened(*test)
    found = [same(first, second, strategy, Limits(100)).violation for strategy in STRATEGIES]
    assert None in found


def test_some_of_these_searches_find_something() -> None:
    for broken in (early_free, lost_wakeup):
        tally = same(LearnedMachine(broken()), LearnedMachine(broken()), "portfolio", Limits(300))
        assert tally.violation is not None


def test_runs_that_are_cut_are_counted() -> None:
    test = CATALOGUE[0]
    tally = same(opened(*test), opened(*test), "random", Limits(70, steps=20))
    assert tally.cut == 70
    assert tally.steps == 70 * 20


def test_what_was_learnt_before_is_handed_over() -> None:
    test = CATALOGUE[1]
    known, fresh = opened(*test), opened(*test)
    search(known, find_strategy("uniform")(), 1, Limits(40), never)
    walker = Walker(known)
    strategy = find_strategy("pct:3")
    expected = search(fresh, strategy(), 2, Limits(200), never)
    assert walker.search(strategy(), 2, Limits(200), never, 0) == expected
    # And what Python learns between two searches.
    search(known, find_strategy("random")(), 5, Limits(40), never)
    assert walker.search(strategy(), 2, Limits(200), never, 0) == expected


def test_a_machine_that_forgets_is_learnt_anew() -> None:
    test = CATALOGUE[3]
    forgetful = LearnedMachine(machine_of(LitmusName(test[0]), *test[1:]), forget_beyond=100)
    limits = Limits(200)
    strategy = find_strategy("portfolio")
    tally = Walker(forgetful).search(strategy(), 1, limits, never, 0)
    assert tally == search(opened(*test), strategy(), 1, limits, never)


def test_a_search_that_is_stopped_keeps_what_it_did() -> None:
    test = CATALOGUE[0]
    asked = iter([False, False, True])
    tally = Walker(opened(*test)).search(find_strategy("random")(), 1, Limits(1000), lambda: next(asked), 0)
    assert tally.schedules == 128
    assert not tally.complete


def test_long_searches_are_compiled_and_somebody_elses_strategy_is_not() -> None:
    class Own(RandomWalk):
        """Chooses as it likes."""

    explorer = LearnedMachine(machine(moves, reads, setup=cached_everywhere, speculated=(0x10,)))
    assert walks(explorer, RandomWalk())
    assert not walks(explorer, Own())
    own = runs.search(explorer, Own(), 1, Limits(runs.WORTHWHILE), never)
    assert explorer.walker is None
    compiled = runs.search(explorer, RandomWalk(), 1, Limits(runs.WORTHWHILE), never)
    assert explorer.walker is not None
    assert compiled == own


def test_without_a_runtime_everything_is_done_in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_machine: LearnedMachine) -> Walker:
        raise ImportError("no wheel for this platform")

    monkeypatch.setattr(runs, "Walker", missing)
    explorer = opened(*CATALOGUE[0])
    limits = Limits(runs.WORTHWHILE)
    tally = runs.search(explorer, RandomWalk(), 1, limits, never)
    assert tally == search(opened(*CATALOGUE[0]), RandomWalk(), 1, limits, never)


def proved_alike(
    first: LearnedMachine,
    second: LearnedMachine,
    reduce: tuple[str, ...],
    all_rules: bool,
    states: int = 200_000,
) -> Exhausted:
    """One proof in Python, one compiled: everything that can be told of them is the same."""
    slow = exhaust(first, never, states, reduce, all_rules)
    walker = Walker(second)
    assert walker.exhaust(never, states, reduce, all_rules) == slow
    assert second.reached == first.reached
    if slow.states <= states:
        assert of_cpus(second) == of_cpus(first)
        assert walker.states_met() == (len(first.sharing.nodes), len(first.watching.nodes))
    # And with everything learnt, in what memory it has.
    assert walker.exhaust(never, states, reduce, all_rules) == slow
    return slow


@pytest.mark.parametrize("reduce", [(AMPLE,), ()])
@pytest.mark.parametrize("test", PROVED)
def test_proofs_meet_the_same_states(test: tuple[str, str, str], reduce: bool) -> None:
    found = proved_alike(opened(*test), opened(*test), reduce, False)
    assert found.complete == (found.violation is None)


@pytest.mark.parametrize("reduce", [(AMPLE,), ()])
@pytest.mark.parametrize("litmus", [polling(("a", "b")), polling(("b", "a")), reuse(False), demotion(2)])
def test_small_programs_are_searched_alike(litmus: Litmus, reduce: bool) -> None:
    for all_rules in (False, True):
        small = small_machine(litmus, "x86")
        found = proved_alike(LearnedMachine(small), LearnedMachine(small), reduce, all_rules)
        assert found.complete or found.violation


def test_a_proof_that_meets_its_limit_is_cut_at_the_same_state() -> None:
    test = CATALOGUE[2]
    found = proved_alike(opened(*test), opened(*test), (AMPLE,), True, 5_000)
    assert not found.complete
    assert found.states == 5_001


@pytest.mark.parametrize("test", PROVED)
def test_once_all_is_learnt_the_same_goes_first(test: tuple[str, str, str]) -> None:
    machine = opened(*test)
    walker = Walker(machine)
    first = walker.exhaust(never, 200_000, REDUCTIONS, True)
    slow = exhaust(machine, never, 200_000, REDUCTIONS, True)
    assert first.complete
    assert first.states < walker.exhaust(never, 200_000, (AMPLE,), True).states
    again = walker.exhaust(never, 200_000, REDUCTIONS, True)
    assert again == replace(slow, steps=again.steps)
    assert (again.rounds, again.states, again.rules) == (1, first.states, first.rules)


def test_large_proofs_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "FEW", 100)
    explorer = opened(*PROVED[1])
    found = runs.exhaust(explorer)
    assert explorer.walker is not None
    assert found.complete
    small = LearnedMachine(lost_wakeup())
    assert runs.exhaust(small).violation is not None


def test_what_is_shipped_was_made_from_this_source() -> None:
    folder = files("emulator.explore.compiled")
    source = b"".join(
        folder.joinpath(name).read_bytes()
        for name in (
            "collapse.c",
            "orbits.c",
            "graph.c",
            "twister.c",
            "strategies.c",
            "runs.c",
            "exhaustive.c",
            "learning.c",
            "meanings.c",
            "share.c",
        )
    )
    assert folder.joinpath("walker.source").read_text().strip() == sha256(source).hexdigest(), (
        "the C files have changed: run emulator/explore/compiled/build"
    )


def test_a_proof_for_which_there_is_no_memory_ends_unproved() -> None:
    walker = Walker(opened(*CATALOGUE[2]))
    walker.limit_memory(3)
    found = walker.exhaust(never, 200_000, (), True)
    assert not found.complete
    assert 0 < found.states < 105_916


def test_what_is_too_large_for_the_compiled_side_is_done_in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "_MOST_OPTIONS", 3)
    monkeypatch.setattr(runs, "FEW", 100)
    test = CATALOGUE[0]
    tally = runs.search(opened(*test), find_strategy("pct:3")(), 1, Limits(runs.WORTHWHILE), never)
    assert tally == search(opened(*test), find_strategy("pct:3")(), 1, Limits(runs.WORTHWHILE), never)
    found = runs.exhaust(opened(*test), reduce=(AMPLE,))
    assert found == exhaust(opened(*test), reduce=(AMPLE,))
