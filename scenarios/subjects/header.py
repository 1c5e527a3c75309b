"""A subject written down, as recordings begin with it: plain values, checked when they are read.

Nothing in it is executed, and all that is needed to build the machine again is there.
"""

from __future__ import annotations

from contextlib import suppress
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from emulator.checks.heed import Heed
from scenarios.disk import Plain, content, file_problems
from scenarios.subjects.mmus import DEFAULT_MMU, with_mmu


class TraceFile(Plain):
    """The trace that a workload replayed, by path and by the hash of its content (BLAKE2b)."""

    path: str = Field(min_length=1, max_length=4096)
    blake2b: str = Field(pattern="^[0-9a-f]{32}$")

    @classmethod
    def of(cls, path: Path) -> TraceFile:
        return cls(path=str(path.resolve()), blake2b=content_hash(path))


class Ran(Plain):
    """What every file about runs says of them. `file` defines the litmus test if it is not a shipped one.

    `mmu` says how flushes are carried out; `kernel` is the version whose ways a litmus test's kernel has,
    empty for the default one (a workload says it itself). `rules` and `ignored` say which rules counted,
    `not_looked_at` names those that did not; `project` is the version that wrote it.
    """

    policy: str = Field(min_length=1, max_length=200)
    arch: Literal["sc", "x86", "riscv", "arm64"]
    mmu: str = Field(default=DEFAULT_MMU, min_length=1, max_length=200)
    seed: int = Field(default=0, ge=0)
    file: str = Field(default="", max_length=4096)
    kernel: str = Field(default="", max_length=10)
    project: str = ""
    rules: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    not_looked_at: tuple[str, ...] = ()

    @property
    def heed(self) -> Heed:
        return Heed(self.rules, self.ignored)


class Header(Ran):
    """A workload with its settings, or a litmus test.

    `scenario` is the workload's name or the test's, `chaos` has the fields of `actors.mode.Chaos`.
    """

    kind: Literal["workload", "litmus"]
    scenario: str = Field(min_length=1, max_length=200)
    cpus: int = Field(ge=1, le=64)
    workload: dict[str, Any] = Field(default={})
    trace: TraceFile | None = None
    chaos: dict[str, Any] | None = None

    def title(self) -> str:
        """One line about the run."""
        stressed = ", stressed" if self.chaos else ""
        where = f"{self.scenario} under {self.policy} on {self.arch}{with_mmu(self.mmu)}"
        return f"{where}, {self.cpus} CPUs, seed {self.seed}{stressed}"


def content_hash(path: Path) -> str:
    """BLAKE2b of a trace. UsageProblem if it cannot be read."""
    with file_problems(str(path), "a trace made by migrc trace import"):
        return blake2b(content(path), digest_size=16).hexdigest()


def project_version() -> str:
    """Version of this project, empty if it runs from its source."""
    with suppress(PackageNotFoundError):
        return version("migrc-emulator")
    return ""
