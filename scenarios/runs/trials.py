"""The engine room of `migrc stress`: run after run on live actors, each disturbed differently, and a tally.

Every run is watched and recorded. What breaks a rule stays as a recording, the first of each rule and target;
the rest is counted and forgotten. Nothing here prints.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Final, NamedTuple

from actors.errors import LostActor, ProgramError, SessionError
from actors.mode import Chaos, Mode
from actors.recorder import KINDS
from actors.session import LiveResult, LiveSession
from emulator.checks.frugality import NEEDLESS
from emulator.machine.builder import Machine
from emulator.measure.histogram import Histogram
from scenarios.files.keeper import Keeper
from scenarios.runs.document import LATENCIES, Pictures, latencies_of
from scenarios.runs.live import pass_on
from scenarios.runs.swarm import Pace, draw_chaos
from scenarios.subjects.subject import Subject
from scenarios.subjects.workload_machine import ScenarioMachine
from scenarios.usage import HostProblem

MOST_TRANSITIONS: Final = 20_000
"""Of a litmus test's run; what takes longer is taken to have no end. Tests take a few hundred."""

_MOST_PER_ACCESS: Final = 20
_PATIENCE_S: Final = 20.0
_MOST_LOST: Final = 3  # one after the other
_RACE: Final = "grace period"

COUNTS: Final = ("runs", "races", "needless", "violations", "lost", "interleavings")
"""What is counted of a target's runs; `interleavings` are distinct ones, `lost` no runs that say anything."""

Look = Callable[["Tally"], None]
"""Called after every run with the tally of what has been run."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is run again and again, the same accesses in every run.

    `most`: transitions after which a run is taken to have no end.
    """

    subject: Subject
    machine: Machine
    most: int


def target(subject: Subject) -> Target:
    """A litmus test or a workload that actors can run. UsageProblem if it cannot be set up."""
    machine = subject.machine()
    pass_on(subject)
    subject = replace(subject, cpus=machine.cpus)
    most = MOST_TRANSITIONS
    if isinstance(machine, ScenarioMachine):
        most += _MOST_PER_ACCESS * machine.user.expected_accesses()
    return Target(subject, machine, most)


class Finding(NamedTuple):
    """The first run of a target that broke this rule, and its recording."""

    rule: str
    run: int
    text: str
    recording: Path | None


@dataclass(slots=True)
class Tally:
    """What came out of one target's runs.

    `races`, `needless` and `violations` count runs: in which happens-before found an order missing, an
    interrupt nobody needed, or in which something really went wrong. `rules` counts runs by rule. `lost` ones
    ended because the host of an actor did; they are not among `runs`.
    """

    target: Target
    runs: int = 0
    races: int = 0
    needless: int = 0
    violations: int = 0
    lost: int = 0
    rules: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    interleavings: set[str] = field(default_factory=set)

    def add(self, result: LiveResult) -> set[str]:
        """Count one run; the rules that had not been broken before."""
        self.runs += 1
        self.interleavings.add(result.memory["interleaving"])
        broken = dict.fromkeys(one.rule for one in result.violations)
        self.races += any(is_race(rule) for rule in broken)
        self.needless += NEEDLESS in broken
        self.violations += any(is_harm(rule) for rule in broken)
        new = {rule for rule in broken if rule not in self.rules}
        for rule in broken:
            self.rules[rule] = self.rules.get(rule, 0) + 1
        return new

    def count(self, name: str) -> int:
        value: int | set[str] = getattr(self, name)
        return value if isinstance(value, int) else len(value)


def is_race(rule: str) -> bool:
    """It says that an order is missing, whether or not this run was hurt by that."""
    return rule.startswith(_RACE)


def is_harm(rule: str) -> bool:
    """Something has really gone wrong: a stale access, a wrong account, a standstill, a refusal."""
    return not is_race(rule) and rule != NEEDLESS


@dataclass(slots=True)
class Outcome:
    """All runs together. `latencies` by policy and kind; `problems`: what ended targets early, in a line."""

    tallies: list[Tally] = field(default_factory=list)
    latencies: Pictures = field(default_factory=dict)
    elapsed_s: float = 0.0
    problems: list[str] = field(default_factory=list)

    @property
    def problem(self) -> str:
        """In one line; empty if there is none."""
        more = f"{len(self.problems)} problems; the first: " if len(self.problems) > 1 else ""
        return more + self.problems[0] if self.problems else ""

    @property
    def rate(self) -> float:
        return self.count("runs") / self.elapsed_s if self.elapsed_s else 0.0

    def count(self, name: str) -> int:
        """One of `COUNTS`, of all tallies."""
        return sum(tally.count(name) for tally in self.tallies)

    @property
    def found(self) -> bool:
        return any(tally.rules for tally in self.tallies)

    def add_latencies(self, policy: str, result: LiveResult) -> None:
        kinds = self.latencies.setdefault(policy, {kind: Histogram() for kind in LATENCIES})
        for kind, histogram in latencies_of(result).items():
            kinds[kind].merge(histogram)


@dataclass(frozen=True, slots=True)
class Plan:
    """How long, and how much disturbed. Runs are shared among the targets in turn; None is no bound."""

    seed: int
    level: int
    runs: int | None
    seconds: float | None


def stress(
    targets: Sequence[Target],
    plan: Plan,
    address: str | None,
    look: Look,
    session: LiveSession | None = None,
    outcome: Outcome | None = None,
) -> Outcome:
    """Run all targets in turn until the plan is fulfilled; `session` if there is one already.

    `outcome` grows with every run, so that whatever ends this early, what is through is there. HostProblem if
    no session can be had, or if actors are lost again and again.
    """
    outcome = Outcome() if outcome is None else outcome
    outcome.tallies = [Tally(target) for target in targets]
    paces = [Pace(target.machine.cpus) for target in targets]
    try:
        with LiveSession(address) if session is None else nullcontext(session) as live:
            began = time.monotonic()
            try:
                _stress(live, plan, outcome, paces, look)
            finally:
                outcome.elapsed_s = time.monotonic() - began
    except SessionError as problem:
        raise HostProblem(str(problem)) from None
    return outcome


def _stress(session: LiveSession, plan: Plan, outcome: Outcome, paces: list[Pace], look: Look) -> None:
    deadline = float("inf") if plan.seconds is None else time.monotonic() + plan.seconds
    turns = deque(zip(outcome.tallies, paces, strict=True))
    lost = 0
    for number in count():
        if not turns or number == plan.runs or time.monotonic() >= deadline:
            return
        tally, pace = turns.popleft()
        chaos = draw_chaos(plan.seed, tally.runs, plan.level, pace)
        try:
            result = one_run(session, tally, pace, chaos, plan.seed)
        except ProgramError as problem:
            outcome.problems.append(f"{tally.target.subject.title()}: {problem}")
            continue
        except LostActor:
            lost += 1
            tally.lost += 1
            if lost == _MOST_LOST:
                raise
            turns.append((tally, pace))
            look(tally)
            continue
        lost = 0
        turns.append((tally, pace))
        outcome.add_latencies(tally.target.subject.policy, result)
        look(tally)


def one_run(session: LiveSession, tally: Tally, pace: Pace, chaos: Chaos, seed: int) -> LiveResult:
    """Run the tally's target once under these disturbances and count what comes out."""
    target = tally.target
    steps = [0] * target.machine.cpus
    with Keeper.of(target.subject.header(chaos), None, lambda text: None) as keeper:

        def keep(events: tuple[int, ...], checksum: int) -> None:
            for index in range(0, len(events), 3):
                steps[events[index] // KINDS] += events[index + 2]
            keeper.keep(events, checksum)

        mode = Mode(watched=True, recorded=True, chaos=chaos, most=target.most)
        result = session.run(target.machine, patience_s=_PATIENCE_S, mode=mode, keep=keep)
        counts = target.subject.heed.counts
        result = replace(result, violations=[one for one in result.violations if counts(one.rule)])
        run = tally.runs
        new = tally.add(result)
        keeper.end(result, target.subject.file_name(f"seed{seed}", f"run{run}"), bool(new))
    if not result.cut:
        pace.add(steps, result.memory["contested"])
    texts = {one.rule: one.text for one in reversed(result.violations)}
    tally.findings += [Finding(rule, run, texts[rule], keeper.path) for rule in texts if rule in new]
    return result
