"""What runs of `migrc stress` come to: a tally of each target, and all together. Nothing is run here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from actors.session import LiveResult
from emulator.checks.frugality import NEEDLESS
from emulator.machine.builder import Machine
from emulator.measure.histogram import Histogram
from scenarios.runs.document import LATENCIES, Pictures, latencies_of
from scenarios.subjects.subject import Subject

_RACE: Final = "grace period"

COUNTS: Final = ("runs", "races", "needless", "violations", "lost", "interleavings")
"""What is counted of a target's runs; `interleavings` are distinct ones, `lost` no runs that say anything."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is run again and again, the same accesses in every run.

    `most`: transitions after which a run is taken to have no end.
    """

    subject: Subject
    machine: Machine
    most: int


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
    ended because the host of an actor did; they are not among `runs`. `over`: a problem has ended it early.
    `told`: so many findings are known from an earlier session.
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
    over: bool = False
    told: int = 0

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
