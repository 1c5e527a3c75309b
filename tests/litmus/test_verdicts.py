"""Every verdict of the catalogue: each test, under each policy, on each architecture.

The search here is smaller than that of `migrc check --all`. A "Never" is proved where there are few states;
elsewhere it says only that nothing was found.
"""

from __future__ import annotations

import pytest

from emulator.explore.compiled.runs import exhaust
from emulator.explore.exhaustive import Exhausted
from emulator.explore.learned import LearnedMachine
from emulator.explore.schedule import replay
from emulator.explore.search import Limits, Tally, search
from emulator.explore.strategies import find_strategy
from emulator.machine.referee import Referee
from scenarios.litmus import LITMUS
from scenarios.runs.searches import Known
from scenarios.runs.verdict import Job, plan
from scenarios.subjects.programs import LitmusName

RUNS = 400
FEWER = 80
STATES = 6_000


def chance(explorer: LearnedMachine) -> Tally:
    return search(explorer, find_strategy("portfolio")(), 1, Limits(RUNS), lambda: False)


def short_chance(explorer: LearnedMachine) -> Tally:
    return search(explorer, find_strategy("portfolio")(), 1, Limits(FEWER), lambda: False)


def long_chance(explorer: LearnedMachine) -> Tally:
    return search(explorer, find_strategy("portfolio")(), 1, Limits(10 * RUNS), lambda: False)


def proof(explorer: LearnedMachine) -> Exhausted:
    return exhaust(explorer, max_states=STATES)


def what_is_wrong(job: Job, large: set[str], known: Known) -> str:
    """Why the verdict is not the expected one; empty if it is. Proofs have given up `large` policies."""
    machine = job.subject.litmus_machine()
    explorer = LearnedMachine(machine, programs=known.programs(machine))
    looks = [chance, proof, long_chance]
    if job.expected == "Never":
        # Of what is large, one architecture is looked at for longer; `migrc check --all` looks at all.
        looks = [short_chance, chance] if job.subject.policy in large else [proof, chance]
    for look in looks:
        found = look(explorer)
        if found.violation is not None or found.complete:
            break
        if look is short_chance and explorer.reached.issuperset(job.reached):
            break
        if look is proof:
            large.add(job.subject.policy)
    broken = found.violation
    if broken is not None:
        # The plain engine has the last word.
        assert replay(Referee(machine), found.schedule) == broken
        if job.expected == "Never":
            return f"expected Never, broke {broken.rule}"
        return "" if not job.rules or broken.rule in job.rules else f"broke {broken.rule}"
    if job.expected == "Sometimes":
        return "expected Sometimes, found nothing"
    unreached = [name for name in job.reached if name not in explorer.reached]
    return f"vacuous, not reached: {', '.join(unreached)}" if unreached else ""


@pytest.mark.parametrize("name", LITMUS)
def test_verdict(name: str) -> None:
    jobs = plan([LitmusName(name)], [], [])
    # A weaker architecture comes later and has more states.
    large: set[str] = set()
    known = Known()
    wrong = {job.subject.title(): why for job in jobs if (why := what_is_wrong(job, large, known))}
    known.forget()
    assert not wrong
