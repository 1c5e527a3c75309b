"""Programs drawn from a seed, explored in several ways that must not disagree: does a *Never* hold?

Nobody reads these programs, there are thousands. Each is searched with the reductions, in Python and in
compiled code, without them, and by random runs of the plain engine and of the learnt graphs: the searches
must find the same rules and reach the same counters, no run may break a rule that they do not know, and
under mainline no translation may be stale.
`python benchmarks/random_programs.py 1000 --seed 0`; `--break NAME` puts a mistake into a search or a check,
which has to be found.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pprint import pformat
from typing import NamedTuple

from benchmarks import search_mistakes
from benchmarks.drawn_programs import MAINLINE, MUTATED, Drawn, draw, machine
from emulator.checks import coherence, grace_period
from emulator.explore.compiled.runs import walker_of
from emulator.explore.exhaustive import REDUCTIONS, Exhausted, Reduce, exhaust, reductions, shortest
from emulator.explore.learned import LearnedMachine
from emulator.explore.schedule import format_schedule
from emulator.explore.search import Limits, search
from emulator.explore.strategies import find_strategy
from emulator.machine.progress import running_cpu
from emulator.machine.referee import Referee

STATES = 20_000
RUNS = 30
MOST_STEPS = 2_000
REDUCED, COMPILED, UNREDUCED = "reduced", "compiled", "unreduced"
WAYS: dict[str, Reduce] = {
    REDUCED: True,
    COMPILED: True,
    **{name: (name,) for name in REDUCTIONS},
    UNREDUCED: False,
}
# What mainline's own paths never let happen, whatever a program does.
NEVER_UNDER_MAINLINE = frozenset(
    (
        *(coherence.OVERWRITTEN, coherence.FOREIGN, coherence.FREE, coherence.LOST_WRITE, coherence.FILL),
        *(coherence.CONTENT, coherence.CACHE, coherence.SPLIT),
        *(grace_period.REUSED, grace_period.WRITABLE, grace_period.COPIED, grace_period.SHARED),
        *(grace_period.RANGE, grace_period.OWED),
    )
)


class Comparison(NamedTuple):
    """What became of one program. `outcome`: what it was compared with, or why it was not."""

    outcome: str
    rules: frozenset[str] = frozenset()
    disagreement: str = ""
    states: tuple[int, int] = (0, 0)  # with the reductions and without


def compare(drawn: Drawn, states: int = STATES, runs: int = RUNS) -> Comparison:
    """Explore one program in all ways."""
    built = machine(drawn)
    learnt = {way: LearnedMachine(built) for way in WAYS}
    found: dict[str, Exhausted] = {}
    try:
        for way, reduce in WAYS.items():
            tally = _every_state(learnt[way], states, reduce, way == COMPILED)
            if tally.complete:
                found[way] = tally
            elif way == REDUCED:
                return Comparison("skipped: too many states")
        broken = _runs(Referee(built), drawn.seed, runs) | _runs(learnt[REDUCED], drawn.seed, runs)
    except Exception as problem:  # what a drawn program asks for is possible: an error is ours
        if drawn.policy in MUTATED and running_cpu(problem) >= 0:
            return Comparison("skipped: a hook misses what another one does")
        return Comparison("error", disagreement=f"seed {drawn.seed}: {problem!r}\n{_text(drawn)}")
    rules = frozenset().union(*[tally.rules for tally in found.values()])
    wrong = [
        f"a run breaks a rule that the {way} search does not know"
        for way, tally in found.items()
        if not set(broken) <= tally.rules
    ]
    if drawn.policy == MAINLINE and (stale := NEVER_UNDER_MAINLINE & rules):
        wrong.append(f"mainline is accused of {', '.join(sorted(stale))}")
    first, *others = found
    for way in others:
        one, other = found[first], found[way]
        if one.rules != other.rules:
            wrong.append(f"the {first} and the {way} search find other rules")
        if apart := learnt[first].reached ^ learnt[way].reached:
            wrong.append(f"the {first} and the {way} search reach other counters: {sorted(apart)}")
        if bool(one.endless) != bool(other.endless):
            wrong.append(f"states without an end: {one.endless} {first}, {other.endless} {way}")
    outcome = "compared, all ways" if UNREDUCED in found else "compared, without the unreduced search"
    if not wrong:
        sizes = (found[REDUCED].states, found[UNREDUCED].states) if UNREDUCED in found else (0, 0)
        return Comparison(outcome, rules, states=sizes)
    schedules = dict(broken)
    for way, tally in found.items():
        for rule in tally.rules - schedules.keys():
            if (steps := shortest(learnt[way], rule)) is not None:
                schedules[rule] = format_schedule(steps)
    lines = [
        f"seed {drawn.seed}: {'; '.join(wrong)}",
        _text(drawn),
        *[f"{way}: {sorted(tally.rules)}, {tally.states} states" for way, tally in found.items()],
        f"runs: {sorted(broken)}",
        *[f"{rule}: {schedule}" for rule, schedule in schedules.items()],
    ]
    return Comparison(outcome, rules, "\n".join(lines))


def _every_state(machine: LearnedMachine, states: int, reduce: Reduce, compiled: bool) -> Exhausted:
    """In compiled code from the first state on, where there is any."""
    walker = walker_of(machine) if compiled else None
    if walker is None:
        return exhaust(machine, max_states=states, reduce=reduce, all_rules=True)
    return walker.exhaust(lambda: False, states, reductions(reduce, machine), True)


def _text(drawn: Drawn) -> str:
    return pformat(drawn._asdict(), width=110, sort_dicts=False)


def _runs(explorer: Referee | LearnedMachine, seed: int, runs: int) -> dict[str, str]:
    """The rules that random runs break, each with its schedule."""
    strategy = find_strategy("random")()
    found: dict[str, str] = {}
    for run in range(runs):
        tally = search(explorer, strategy, seed, Limits(1, MOST_STEPS), lambda: False, first_run=run)
        if tally.violation is not None:
            found.setdefault(tally.violation.rule, format_schedule(tally.schedule))
    return found


def main() -> int:
    """0 if nothing disagrees, or if a mistake that was put in has been found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("programs", type=int, nargs="?", default=1000)
    parser.add_argument("--seed", type=int, default=0, help="of the first program")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after that long")
    parser.add_argument("--states", type=int, default=STATES, help="skip programs with more")
    parser.add_argument("--runs", type=int, default=RUNS, help="random runs of each program")
    parser.add_argument(
        "--break",
        dest="mistake",
        choices=search_mistakes.MISTAKES,
        help="put this in, and stop where it is found",
    )
    options = parser.parse_args()
    if options.mistake:
        search_mistakes.put_in(options.mistake)
    began = time.monotonic()
    outcomes: Counter[str] = Counter()
    rules: Counter[str] = Counter()
    disagreements = reduced = unreduced = fewer = 0
    for seed in range(options.seed, options.seed + options.programs):
        if time.monotonic() - began > options.seconds:
            break
        found = compare(draw(seed), options.states, options.runs)
        outcomes[found.outcome] += 1
        rules.update(found.rules or (["none"] if found.outcome.startswith("compared") else []))
        reduced += found.states[0]
        unreduced += found.states[1]
        fewer += found.states[0] < found.states[1]
        if found.disagreement:
            disagreements += 1
            print(found.disagreement, flush=True)
            if options.mistake:
                break
    for title, counts in (("programs", outcomes), ("rules broken", rules)):
        print(f"{title}:", *[f"{count:7} {name}" for name, count in counts.most_common()], sep="\n")
    print(f"states: {reduced} with reductions, {unreduced} without; fewer in {fewer} programs")
    print(
        f"seeds {options.seed} to {options.seed + outcomes.total() - 1}, {disagreements} disagreements, "
        f"{time.monotonic() - began:.0f} s"
    )
    return int(bool(disagreements) != bool(options.mistake))


if __name__ == "__main__":
    sys.exit(main())
