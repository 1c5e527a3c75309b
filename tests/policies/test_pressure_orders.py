"""No allocation of any order fails for want of a flush, and nothing is pending at the end: random programs.

`PRESSURE_RUNS` says how many programs each policy runs here; `benchmarks/pressure.py` runs thousands.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest

from benchmarks.random_pressure import CUT, MAX_ORDER, REFUSED, RULE, pressure, run
from scenarios.litmus.answers import DEFERRED, REUSED

RUNS = int(os.environ.get("PRESSURE_RUNS", "60"))


@pytest.mark.parametrize("policy", ["immediate", "migrc:v3", "migrc:rfc2", "migrc:v9"])
def test_nothing_fails_that_a_flush_would_have_satisfied(policy: str) -> None:
    counts: Counter[str] = Counter()
    for seed in range(RUNS):
        violation, counted = run(seed, policy)
        assert violation is None, f"seed {seed}: {violation}"
        counts += counted
    assert not counts[CUT]
    # The interesting places were reached: blocks of every order, refusals that are real, deferred folios.
    assert all(counts[f"{REUSED}_{order}"] for order in range(MAX_ORDER + 1))
    assert counts[REFUSED]
    assert bool(counts[DEFERRED]) is (policy != "immediate")


@pytest.mark.parametrize("policy", ["mistake:no-flush-under-pressure", "mistake:no-flush-for-high-orders"])
def test_a_policy_that_forgets_to_flush_is_found_out(policy: str) -> None:
    broken = [violation for seed in range(100) if (violation := run(seed, policy)[0]) is not None]
    assert broken
    assert {violation.rule for violation in broken} == {RULE}


def test_a_seed_is_one_program() -> None:
    first, second = pressure(7), pressure(7)
    assert (first.fast, first.marks, first.cpus) == (second.fast, second.marks, second.cpus)
    assert run(7, "migrc:v3") == run(7, "migrc:v3")
