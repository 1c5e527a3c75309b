"""What is run, as one value: a litmus test or a workload, under one policy, on one architecture.

A subject is plain and picklable: worker processes get it, recordings begin with it, and the machine is made
from it. Jobs, targets, points of a sweep, witnesses and recordings are a subject and something.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from actors.errors import Fault, fault_of
from actors.mode import Chaos
from actors.signals import Terminated
from emulator.checks.heed import ALL, Heed
from emulator.explore.scripts import NotDeterministic
from emulator.explore.unsearchable import Unsearchable
from emulator.kernel.boot import UserSpace
from emulator.machine.litmus import LitmusMachine
from emulator.machine.progress import running_cpu
from scenarios.subjects.header import Header, TraceFile, project_version
from scenarios.subjects.mmus import (
    DEFAULT_MMU,
    check_of,
    goes_without_saying,
    is_own_mmu,
    mmu_class,
    with_mmu,
)
from scenarios.subjects.modules import short_path
from scenarios.subjects.policies import is_shipped, policy_factory
from scenarios.subjects.programs import LitmusName, machine_of
from scenarios.subjects.rules import Looked, looked
from scenarios.subjects.workload_machine import ScenarioMachine, build_machine
from scenarios.usage import UsageProblem
from scenarios.workloads.settings import Workload


@lru_cache(maxsize=1)
def _user_space(workload: Workload, cpus: int, seed: int, trace: Path | None) -> UserSpace:
    """Policies are compared over the same accesses: a trace is read for the first of them."""
    return workload.user_space(cpus, seed, trace)


@dataclass(frozen=True, slots=True)
class Subject:
    """`cpus` may be 0 for a litmus test: as many as it has. `trace` and `seed` are of a workload.

    `heed` says which broken rules count, `mmu` how flushes are carried out.
    """

    what: LitmusName | Workload
    policy: str
    arch: str
    cpus: int = 0
    seed: int = 0
    trace: Path | None = None
    heed: Heed = ALL
    mmu: str = DEFAULT_MMU

    @property
    def name(self) -> str:
        return self.what.name

    @property
    def test(self) -> LitmusName:
        assert isinstance(self.what, LitmusName)
        return self.what

    @property
    def workload(self) -> Workload:
        assert isinstance(self.what, Workload)
        return self.what

    @property
    def looked(self) -> Looked:
        """Which rules are looked at in its runs, and which were left out."""
        test = self.what if isinstance(self.what, LitmusName) else None
        return looked(self.heed, test, policy_factory(self.policy)().luf_debug)

    @property
    def own_code(self) -> tuple[str, ...]:
        """What of it is not shipped and is imported and run: a user's file, a user's policy or mmu."""
        file = self.what.file if isinstance(self.what, LitmusName) else ""
        policy = "" if is_shipped(self.policy) else self.policy
        return tuple(filter(None, (file, policy, self.mmu if is_own_mmu(self.mmu) else "")))

    def __str__(self) -> str:
        return f"{self.what} under {self.policy}"

    def title(self) -> str:
        """`NAME under POLICY on ARCH`."""
        return f"{self.name} under {self.policy} on {self.how}"

    @property
    def how(self) -> str:
        """The architecture, and how flushes are carried out where that does not go without saying."""
        return f"{self.arch}{with_mmu(self.mmu)}"

    def file_name(self, *more: str) -> str:
        """A name for a file about it, `NAME--POLICY--ARCH` and more, of letters that are safe everywhere."""
        kernel = self.what.kernel if isinstance(self.what, LitmusName) else ""
        mmu = "" if goes_without_saying(self.mmu) else self.mmu
        parts = (self.name, self.policy, self.arch, *filter(None, (mmu, kernel)), *more)
        return "--".join(safe_name(part) for part in parts)

    def machine(self) -> LitmusMachine | ScenarioMachine:
        """To be run as often as wanted. UsageProblem if it cannot be set up."""
        return self.litmus_machine() if isinstance(self.what, LitmusName) else self.workload_machine()

    def litmus_machine(self) -> LitmusMachine:
        with faults_in_one_line(self):
            machine = machine_of(self.test, self.policy, self.arch, self.mmu)
        machine.heed = self.heed
        return machine

    def workload_machine(self) -> ScenarioMachine:
        workload = self.workload
        workload.check(self.cpus)
        check_of(self.mmu, self.arch)
        user = _user_space(workload, self.cpus, self.seed, self.trace)
        factory, mmu = policy_factory(self.policy), mmu_class(self.mmu)
        machine = build_machine(workload, self.cpus, self.arch, factory, user, mmu)
        machine.heed = self.heed
        return machine

    def header(self, chaos: Chaos | None = None) -> Header:
        """What the recording of a run begins with."""
        litmus = isinstance(self.what, LitmusName)
        return Header(
            **self.ran(),
            kind="litmus" if litmus else "workload",
            scenario=self.name,
            cpus=self.cpus,
            # Of a litmus run nothing but the disturbances is drawn.
            seed=chaos.seed if litmus and chaos is not None else self.seed,
            workload={} if litmus else self.workload.settings_used(),
            trace=None if self.trace is None else TraceFile.of(self.trace),
            chaos=None if chaos is None else chaos._asdict(),
        )

    def ran(self) -> dict[str, Any]:
        """What every file about it says (`header.Ran`), but for the seed."""
        litmus = isinstance(self.what, LitmusName)
        what = {"file": self.test.file, "kernel": self.test.kernel} if litmus else {"file": ""}
        heed = {
            "rules": self.heed.rules,
            "ignored": self.heed.ignored,
            "not_looked_at": self.looked.not_at,
        }
        how = {"policy": self.policy, "arch": self.arch, "mmu": self.mmu, "project": project_version()}
        return {**how, **what, **heed}


def safe_name(text: str) -> str:
    """The text as a part of a file's name that is safe everywhere."""
    return re.sub(r"[^A-Za-z0-9_.+-]+", "_", text)[:80]


@contextmanager
def faults_in_one_line(subject: Subject) -> Iterator[None]:
    """Turn what a program of the test or of the policy raises into a UsageProblem; ours stays a traceback."""
    try:
        yield
    except (UsageProblem, Terminated):
        raise
    except Unsearchable as problem:
        raise UsageProblem(f"{subject}: {problem}") from None
    except NotDeterministic as problem:
        raise UsageProblem(f"{subject} is not deterministic: {problem}") from None
    except (Exception, SystemExit) as problem:
        cpu = running_cpu(problem)
        if cpu < 0:
            raise
        raise program_problem(subject, cpu, fault_of(problem)) from None


def program_problem(subject: Subject, cpu: int, fault: Fault) -> UsageProblem:
    """What a program raised in the middle of a search, in one line."""
    place = f"{short_path(fault.file)}:{fault.line} in {fault.function}"
    return UsageProblem(f"{subject}: CPU {cpu}: {fault.kind}: {fault.message} ({place})")
