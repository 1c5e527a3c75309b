"""A subject written down, as recordings begin with it: plain values, checked when they are read.

Nothing in it is executed, and all that is needed to build the machine again is there.
"""

from __future__ import annotations

from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from scenarios.disk import file_problems


class Plain(BaseModel):
    """Values as a file has them."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class TraceFile(Plain):
    """The trace that a workload replayed, by path and by the hash of its content (BLAKE2b)."""

    path: str = Field(min_length=1, max_length=4096)
    blake2b: str = Field(pattern="^[0-9a-f]{32}$")

    @classmethod
    def of(cls, path: Path) -> TraceFile:
        return cls(path=str(path.resolve()), blake2b=content_hash(path))


class Header(Plain):
    """A workload with its settings, or a litmus test.

    `scenario` is the workload's name or the test's, `file` defines the test if it is not a shipped one,
    `chaos` has the fields of `actors.mode.Chaos`. `project` is the version that wrote it.
    """

    kind: Literal["workload", "litmus"]
    scenario: str = Field(min_length=1, max_length=200)
    policy: str = Field(min_length=1, max_length=200)
    arch: Literal["sc", "x86", "riscv"]
    cpus: int = Field(ge=1, le=64)
    seed: int = Field(default=0, ge=0)
    workload: dict[str, Any] = {}
    trace: TraceFile | None = None
    file: str = Field(default="", max_length=4096)
    chaos: dict[str, Any] | None = None
    project: str = ""
    rules: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    def title(self) -> str:
        """One line about the run."""
        stressed = ", stressed" if self.chaos else ""
        where = f"{self.scenario} under {self.policy} on {self.arch}"
        return f"{where}, {self.cpus} CPUs, seed {self.seed}{stressed}"


def content_hash(path: Path) -> str:
    """BLAKE2b of a trace. UsageProblem if it cannot be read."""
    with file_problems(str(path), "a trace made by migrc trace import"):
        return blake2b(path.read_bytes(), digest_size=16).hexdigest()


def project_version() -> str:
    """Version of this project, empty if it runs from its source."""
    try:
        return version("migrc-emulator")
    except PackageNotFoundError:
        return ""
