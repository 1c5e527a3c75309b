"""Drawing the disturbances of a stressed run: repeatable, within bounds, and all kinds get their turn."""

from __future__ import annotations

from itertools import pairwise

import pytest

from actors.mode import Chaos
from scenarios.runs.swarm import DEFAULT_LEVEL, LEVELS, Pace, draw_chaos

RUNS = 200


def pace(cpus: int = 3) -> Pace:
    """As after a run of a program whose CPUs meet at a word and a page."""
    known = Pace(cpus)
    met = [(cpu, access, 2) for cpu in range(cpus) for access in ("r word a", "w word a", "r pte 1 16")]
    known.add([60.0, 20.0, 10.0][:cpus], met)
    return known


def drawn(seed: int, level: int, known: Pace) -> list[Chaos]:
    return [draw_chaos(seed, run, level, known) for run in range(RUNS)]


def test_the_same_seed_draws_the_same() -> None:
    assert drawn(7, DEFAULT_LEVEL, pace()) == drawn(7, DEFAULT_LEVEL, pace())
    assert drawn(7, DEFAULT_LEVEL, pace()) != drawn(8, DEFAULT_LEVEL, pace())


def test_no_two_runs_are_disturbed_alike() -> None:
    assert len(set(drawn(0, DEFAULT_LEVEL, pace()))) == RUNS


def test_level_0_leaves_only_the_order_in_which_a_cpu_does_things() -> None:
    for chaos in drawn(3, 0, pace()):
        assert chaos == Chaos(chaos.seed)


@pytest.mark.parametrize("level", range(1, LEVELS + 1))
@pytest.mark.parametrize("cpus", [1, 2, 3])
def test_what_is_drawn_stays_within_bounds(level: int, cpus: int) -> None:
    known = pace(cpus)
    for chaos in drawn(1, level, known):
        assert all(0 <= one < 1 for one in (chaos.late_interrupts, chaos.late_effects, chaos.walks))
        assert 0 <= chaos.pauses <= 0.5
        assert 0 <= chaos.pause_us <= 1000
        assert sorted(chaos.order) in ([], list(range(cpus)))
        assert all(0 <= cpu < cpus and 0 <= step <= known.steps[cpu] for cpu, step in chaos.stops)
        assert set(chaos.meetings) <= known.contested


def test_effects_are_never_late_for_ever() -> None:
    # A chance of 1 would be a CPU that never gets anywhere.
    assert max(chaos.late_effects for chaos in drawn(2, LEVELS, pace())) < 1


def test_every_way_to_stand_still_has_its_turn_within_ten_runs() -> None:
    known = pace()
    for seed in range(20):
        chaos = [draw_chaos(seed, run, DEFAULT_LEVEL, known) for run in range(10)]
        assert sum(bool(one.stops) for one in chaos) >= 3
        assert {access[0] for one in chaos for _, access, _ in one.meetings} == {"r", "w"}
        assert {one.order[0] for one in chaos if one.meetings} == {0, 1, 2}


def test_stops_are_spread_over_the_program() -> None:
    known = pace(2)
    steps = sorted(
        chaos.stops[0][1]
        for chaos in (draw_chaos(5, run, DEFAULT_LEVEL, known) for run in range(80))
        if chaos.stops and chaos.stops[0][0] == 0
    )
    gaps = [after - before for before, after in pairwise(steps)]
    assert max(gaps) <= 10


@pytest.mark.parametrize("seed", range(6))
def test_every_cpu_has_its_turn_to_be_late(seed: int) -> None:
    """However few its steps are against the others'."""
    known = Pace(3)
    known.add([300, 300, 5], [])
    late = [draw_chaos(seed, run, DEFAULT_LEVEL, known) for run in range(10)]
    assert {chaos.stops[0][0] for chaos in late if chaos.stops} == {0, 1, 2}


def test_meetings_wait_until_it_is_known_where_cpus_meet() -> None:
    assert not any(chaos.meetings for chaos in drawn(0, DEFAULT_LEVEL, Pace(2)))


def test_a_pace_learns_how_long_a_program_is() -> None:
    known = Pace(2)
    for steps in (100, 110, 5000, 90, 105):
        known.add([steps, 10], [])
    assert known.steps == [105, 10], "one run in which it polled does not count"
    for _ in range(9):
        known.add([200, 10], [])
    assert known.steps == [200, 10], "what is long ago does not either"
