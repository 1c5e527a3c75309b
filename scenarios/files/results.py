"""What verbs print with `--json`, read back for people to look at: a run, checks, a sweep, a stress."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, model_validator

from scenarios.disk import file_problems, opened

_MOST: Final = 100_000
_MAX_BYTES: Final = 64 << 20
Count = Annotated[int, Field(ge=0, lt=2**63)]
Seconds = Annotated[float, Field(ge=0, lt=1e12)]
Value = Annotated[float, Field(ge=0, lt=1e15)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Read(BaseModel):
    """Values as they are in the document; what else is there is not shown."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)


class Checked(_Read):
    """One in how many accesses was checked."""

    sample_every: Count = 1


class OneRun(_Read):
    """One policy's figures: as `scenarios.runs.document.Run`."""

    policy: str
    vmstat: dict[str, Count]
    interrupts: dict[str, list[Count]]
    ipi_latency_ns: dict[str, dict[str, Count | None]]
    ipi_latency_hdr: dict[str, str] = Field(default_factory=dict)
    accesses: Count
    elapsed_ns: Count
    pending_peak: Count
    violations: list[Any]
    shootdown_share: Share | None = None
    allocation_ns: dict[str, dict[str, Count | None]] = Field(default_factory=dict)
    allocation_hdr: dict[str, str] = Field(default_factory=dict)
    check_sampling: Checked = Checked()
    transitions: Count = 0
    recording: str = ""
    events: str = ""


class _Setting(_Read):
    """Where it all was, and what ended it early, if something did."""

    scenario: str
    engine: str
    kernel: str
    arch: str
    mmu: str
    cpus: int = Field(ge=1, le=4096)
    seed: Count
    stopped: str = ""


class Again(_Read):
    """What came out with other seeds: by measure and policy a value for each seed."""

    seeds: list[int] = Field(min_length=1)
    values: dict[str, dict[str, list[Value]]] = Field(min_length=1)

    @model_validator(mode="after")
    def _alike(self) -> Again:
        """ValueError if not every policy has a value for every seed."""
        policies = [*next(iter(self.values.values()))]
        for of in self.values.values():
            if not policies or [*of] != policies or any(len(one) != len(self.seeds) for one in of.values()):
                raise ValueError("not a value of every policy for every seed")
        return self


class RunResult(_Setting):
    """Of `migrc run`."""

    repeats: Again | None = None
    runs: list[OneRun] = Field(max_length=1000)
    conclusion: list[str] = Field(default_factory=list)
    settings: dict[str, Any] = Field(default_factory=dict)
    host: dict[str, Any] = Field(default_factory=dict)
    project: str = ""


class SweptPoint(_Read):
    """One run of a sweep, and where in the grid it is."""

    values: dict[str, str]
    policy: str
    run: OneRun


class SweepResult(_Setting):
    """Of `migrc sweep`."""

    vary: dict[str, list[str]] = Field(min_length=1)
    policies: list[str] = Field(min_length=1)
    points: list[SweptPoint] = Field(max_length=_MOST)


class Proof(_Read):
    """How much of all interleavings was searched."""

    proved: bool
    states: Count
    stopped: str | None = None


class Step(_Read):
    """One step of a witness."""

    step: Count
    cpu: int = Field(ge=0, lt=4096)
    text: str


class Seen(_Read):
    """A rule that broke, and how."""

    rule: str
    text: str = ""
    schedule: str
    columns: list[Step] = Field(default_factory=list)


class Verdict(_Read):
    """Of one litmus test under one policy on one architecture."""

    litmus: str
    policy: str
    arch: str
    mmu: str
    kernel: str
    expected: str | None
    observation: str
    complete: bool
    schedules: Count
    steps: Count
    ok: bool
    reason: str
    states: Count | None
    proof: Proof
    elapsed_s: Seconds
    witness: Seen | None
    file: str | None
    left_out: str | None
    error: str | None


class CheckResults(_Read):
    """Of `migrc check`."""

    results: list[Verdict] = Field(max_length=_MOST)
    stopped: str = ""


class Finding(_Read):
    """The first run that broke a rule."""

    rule: str
    text: str
    run: Count
    recording: str | None = None


class Target(_Read):
    """What was run again and again, and what came of it."""

    scenario: str
    policy: str
    arch: str
    mmu: str
    cpus: Count
    runs: Count
    races: Count
    needless: Count
    violations: Count
    lost: Count
    interleavings: Count
    rules: dict[str, Count]
    findings: list[Finding]


class StressResult(_Read):
    """Of `migrc stress`."""

    seed: Count
    chaos: Count
    runs: Count
    races: Count
    violations: Count
    lost: Count
    elapsed_s: Seconds
    results: list[Target] = Field(max_length=_MOST)
    ipi_latency_ns: dict[str, dict[str, dict[str, Count | None]]]
    stopped: str = ""


AnyResult = RunResult | SweepResult | CheckResults | StressResult

_BY_KEY: Final[tuple[tuple[str, Callable[[dict[str, Any]], AnyResult]], ...]] = (
    ("points", SweepResult.model_validate),
    ("runs_per_second", StressResult.model_validate),
    ("runs", RunResult.model_validate),
    ("results", CheckResults.model_validate),
)


def read_result(document: Any) -> AnyResult:
    """The document of any verb that has a page. ValueError, pydantic's among them, if it is none."""
    if isinstance(document, dict):
        if "litmus" in document and "observation" in document:
            return CheckResults.model_validate({"results": [document]})
        for key, read in _BY_KEY:
            if key in document:
                return read(document)
    raise ValueError("no result of run, check, sweep or stress")


def load_page_result(path: Path) -> AnyResult:
    """The same, from a file. UsageProblem if it is none."""
    with file_problems(str(path), "what migrc run, check, sweep or stress printed with --json"):
        with opened(path) as file:
            content = file.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise ValueError("too long for a result")
        try:
            return read_result(json.loads(content))
        except RecursionError:
            raise ValueError("nested too deeply") from None
