"""A file that holds how far `migrc stress` has come, so that it goes on there after whatever has ended it.

It is written anew as a whole, under another name first: who is killed meanwhile leaves the one before. What
makes the stress this one stands in it; how long it is to go on does not.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

from pydantic import NonNegativeFloat, NonNegativeInt

from emulator.measure.histogram import Histogram
from scenarios.disk import Plain, file_problems, opened, whole_file
from scenarios.runs.document import LATENCIES
from scenarios.runs.swarm import Pace
from scenarios.runs.tally import Finding, Outcome, Target
from scenarios.subjects.sources import digest_of_sources
from scenarios.usage import UsageProblem

EVERY_S: Final = 1.0
"""So much is lost at most."""

_WRITTEN: Final = "a file that migrc stress --resume has written"


class _Finding(Plain):
    rule: str
    run: int
    text: str
    recording: str | None


class _Tally(Plain):
    runs: NonNegativeInt
    races: NonNegativeInt
    needless: NonNegativeInt
    violations: NonNegativeInt
    lost: NonNegativeInt
    rules: dict[str, int]
    findings: list[_Finding]
    interleavings: list[str]
    over: bool
    lengths: list[list[NonNegativeInt]]
    contested: list[tuple[int, str, int]]


class _Kept(Plain):
    migrc_stress: Literal[1]
    seed: int
    chaos: int
    targets: list[dict[str, Any]]
    sources: list[str]
    elapsed_s: NonNegativeFloat
    problems: list[str]
    latencies: dict[str, dict[str, str]]
    tallies: list[_Tally]


class TallyFile:
    """The file of one stress: these targets, this seed, this chaos, this code. UsageProblem if it is of
    another one, damaged, written by another process too, or cannot be written."""

    def __init__(self, path: Path, targets: Sequence[Target], seed: int, level: int) -> None:
        self.path = path
        headers = [target.subject.header().model_dump(mode="json") for target in targets]
        self._identity: dict[str, Any] = {"migrc_stress": 1, "seed": seed, "chaos": level, "targets": headers}
        self._identity["sources"] = [digest_of_sources(target.subject) for target in targets]
        self._saved_s = 0.0
        self._held: BinaryIO | None = None

    @property
    def _what(self) -> str:
        return f"--resume {self.path}"

    def load(self, outcome: Outcome, paces: Sequence[Pace]) -> None:
        """Put what the file holds, if there is one, into the outcome and the paces of its tallies."""
        with file_problems(self._what, _WRITTEN):
            if not self.path.exists():
                return
            self._held = opened(self.path)
            self._hold(self._held)
            kept = _Kept.model_validate_json(self._held.read())
            for key, here in self._identity.items():
                there = getattr(kept, key)
                if there != here:
                    raise UsageProblem(f"{self._what}: {_difference(key, there, here)}; another file")
            if len(kept.tallies) != len(outcome.tallies):
                raise ValueError("tallies: not one for each target")
            for pace, old in zip(paces, kept.tallies, strict=True):
                if len(old.lengths) != len(pace.steps):
                    raise ValueError("lengths: not one list for each CPU")
                pace.come_back(old.lengths, old.contested)
            if any(kinds.keys() != LATENCIES.keys() for kinds in kept.latencies.values()):
                raise ValueError("latencies: not of every kind")
            latencies = {
                policy: {kind: Histogram.decode(base64.b64decode(kinds[kind])) for kind in LATENCIES}
                for policy, kinds in kept.latencies.items()
            }
        outcome.latencies.update(latencies)
        outcome.elapsed_s = kept.elapsed_s
        outcome.problems += [one for one in kept.problems if one not in outcome.problems]
        for tally, old in zip(outcome.tallies, kept.tallies, strict=True):
            tally.runs, tally.races, tally.needless = old.runs, old.races, old.needless
            tally.violations, tally.lost, tally.over = old.violations, old.lost, old.over
            tally.rules.update(old.rules)
            tally.interleavings.update(old.interleavings)
            tally.findings += [
                Finding(one.rule, one.run, one.text, Path(one.recording) if one.recording else None)
                for one in old.findings
            ]
            tally.told = len(tally.findings)

    def save(self, outcome: Outcome, paces: Sequence[Pace], at_once: bool) -> None:
        """Write it, whole or not at all; unless `at_once`, not if that was done a moment ago."""
        now = time.monotonic()
        if not at_once and now - self._saved_s < EVERY_S:
            return
        kept = {
            **self._identity,
            "elapsed_s": outcome.elapsed_s,
            "problems": outcome.problems,
            "latencies": {
                policy: {kind: base64.b64encode(one.encode()).decode() for kind, one in kinds.items()}
                for policy, kinds in outcome.latencies.items()
            },
            "tallies": [
                {
                    **{name: getattr(tally, name) for name in ("runs", "races", "needless", "violations")},
                    "lost": tally.lost,
                    "rules": tally.rules,
                    "findings": [
                        {**one._asdict(), "recording": one.recording and str(one.recording)}
                        for one in tally.findings
                    ],
                    "interleavings": sorted(tally.interleavings),
                    "over": tally.over,
                    "lengths": pace.lengths(),
                    "contested": sorted(map(list, pace.contested)),
                }
                for tally, pace in zip(outcome.tallies, paces, strict=True)
            ],
        }
        with file_problems(self._what, "a file that can be written"), whole_file(self.path) as file:
            file.write(json.dumps(kept).encode())
            self._check_ours()
            # The lock is the open file's, so it is on this one before this one has the name.
            held, self._held = self._held, os.fdopen(os.dup(file.fileno()), "rb")
            self._hold(self._held)
            if held is not None:
                held.close()
        self._saved_s = time.monotonic()

    def close(self) -> None:
        """Others may have it."""
        if self._held is not None:
            self._held.close()
            self._held = None

    def _hold(self, file: BinaryIO) -> None:
        """Nobody else may go on from it, or write it, as long as this one does."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._written_by_another() from None

    def _check_ours(self) -> None:
        """Two that began at once found no file to hold, and one of them has come first."""
        if self.path.exists():
            mine = None if self._held is None else os.fstat(self._held.fileno())
            if mine is None or not os.path.samestat(mine, self.path.stat()):
                raise self._written_by_another()

    def _written_by_another(self) -> UsageProblem:
        return UsageProblem(f"{self._what}: another migrc stress writes it; another file")


def _difference(key: str, there: Any, here: Any) -> str:
    if key == "sources":
        return "the code that it ran has changed since"
    if key != "targets":
        return f"it is of --{key} {there}, this is --{key} {here}"
    if len(there) != len(here):
        return f"it is of {len(there)} targets, these are {len(here)}"
    for old, new in zip(there, here, strict=True):
        for name in new:
            if old.get(name) != new[name]:
                return f"{name} was {old.get(name)!r:.60} where it is {new[name]!r:.60} now"
    return "its targets are others"
