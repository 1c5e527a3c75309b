"""A few of the programs that `benchmarks/random_programs.py` draws by thousands."""

from __future__ import annotations

from benchmarks.random_programs import compare, draw

FIRST = 0
PROGRAMS = 30
STATES = 1_500


def test_all_ways_to_explore_a_program_find_the_same() -> None:
    found = [compare(draw(seed), STATES, runs=5) for seed in range(FIRST, FIRST + PROGRAMS)]
    assert not [one.disagreement for one in found if one.disagreement]
    assert sum(one.outcome == "compared, all ways" for one in found) > PROGRAMS // 2
    assert len(set().union(*[one.rules for one in found])) >= 3
