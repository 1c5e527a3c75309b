"""The result of a run as `--json` prints it, read back: what was run, and what came out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from scenarios.disk import file_problems, opened
from scenarios.files.recording import trace_of
from scenarios.subjects.header import TraceFile
from scenarios.subjects.mmus import check_mmu
from scenarios.subjects.subject import Subject
from scenarios.workloads.kinds import workload_of

_RIGHT: Final = "what migrc run --json printed"
_MAX_BYTES: Final = 64 << 20


class _Read(BaseModel):
    """Values as they are in the file; what else is there is nobody's business here."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class _Ran(_Read):
    policy: str = Field(min_length=1, max_length=200)


class Ran(_Read):
    """What a result says of how it came about."""

    scenario: str
    engine: Literal["timed", "live"]
    arch: str
    mmu: str = Field(max_length=200)
    cpus: int = Field(ge=1, le=4096)
    seed: int = Field(ge=0, lt=2**63)
    settings: dict[str, Any]
    trace: TraceFile | None = None
    project: str = ""
    runs: list[_Ran] = Field(min_length=1, max_length=1000)


def load_result(path: Path) -> tuple[Ran, dict[str, Any]]:
    """The result, and all that is in the file. UsageProblem if it is none, or has no settings yet."""
    with file_problems(str(path), _RIGHT):
        with opened(path) as file:
            content = file.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise ValueError("too long for a result")
        try:
            document = json.loads(content)
        except RecursionError:
            raise ValueError("nested too deeply") from None
        if not isinstance(document, dict):
            raise ValueError("no JSON object")
        return Ran.model_validate_json(content), document


def subjects_of(ran: Ran, path: Path) -> list[Subject]:
    """What was run, policy after policy. UsageProblem if this version has no such thing."""
    with file_problems(f"{path}: settings", "a result of this version of migrc"):
        workload = workload_of(ran.settings)
        workload.check(ran.cpus)
    check_mmu(ran.mmu, str(path))
    trace = trace_of(ran.trace, path)
    return [
        Subject(workload, one.policy, ran.arch, ran.cpus, ran.seed, trace, mmu=ran.mmu) for one in ran.runs
    ]
