"""A few of the programs that `benchmarks/random_programs.py` draws by thousands, and what they notice."""

from __future__ import annotations

import pytest

from benchmarks.drawn_programs import draw
from benchmarks.random_programs import compare
from benchmarks.search_mistakes import MISTAKES, put_in
from emulator.checks.coherence import Coherence
from emulator.explore import exhaustive, fingerprint

FIRST = 0
PROGRAMS = 20
STATES = 2_000
# By the first program that notices. With the last one the searches agree, and mainline is accused.
NOTICED = {
    "barriers-before-interrupts": (209, "find other rules"),
    "walks-forgotten": (56, "find other rules"),
    "local-forgotten": (59, "a run breaks a rule that the unreduced search does not know"),
    "one-destination-of-a-source": (208, "mainline is accused of mapped without the page's content"),
}


def test_all_ways_to_explore_a_program_find_the_same() -> None:
    found = [compare(draw(seed), STATES, runs=5) for seed in range(FIRST, FIRST + PROGRAMS)]
    assert not [one.disagreement for one in found if one.disagreement]
    assert sum(one.outcome.startswith("compared") for one in found) > PROGRAMS // 3
    assert len(set().union(*[one.rules for one in found])) >= 3


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_a_search_or_a_check_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seed, words = NOTICED[name]
    assert not compare(draw(seed), 9_000, runs=5).disagreement
    # Put back at the end.
    monkeypatch.setattr(exhaustive, "ample", exhaustive.ample)
    monkeypatch.setattr(fingerprint._Reader, "_suspended", fingerprint._Reader._suspended)
    monkeypatch.setattr(Coherence, "_derive", Coherence._derive)
    put_in(name)
    assert words in compare(draw(seed), 9_000, runs=5).disagreement
