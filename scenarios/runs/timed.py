"""`migrc run --engine timed`: one workload, policy after policy, on virtual time; the result document.

The document has the shape of a live run's. Nothing here imports Ray or starts a process. What a policy or a
workload does wrong on the way becomes a UsageProblem, as in a live run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from actors.errors import ProgramError, Terminated, fault_of, running_cpu
from emulator.kernel.boot import UserSpace
from emulator.kernel.policy import Policy
from emulator.measure.histogram import Histogram
from emulator.timed.engine import TimedEngine, TimedResult
from scenarios.report.comparison import Document, Run
from scenarios.runs.document import pictures_of, run_of
from scenarios.subjects.programs import policy_factory
from scenarios.subjects.workload_machine import build_machine
from scenarios.usage import UsageProblem
from scenarios.workloads.settings import Workload
from scenarios.workloads.user_space import user_space

Progress = Callable[[str, float, str], None]
Pictures = dict[str, dict[str, Histogram]]

_LOOK_S: Final = 0.1


def run_timed(
    workload: Workload,
    *,
    cpus: int,
    policies: Sequence[str],
    seed: int,
    arch: str,
    trace: Path | None,
    watched: bool,
    progress: Progress,
) -> tuple[Document, Pictures]:
    """Run every policy over the same accesses; the document, and the histograms by policy and name.

    Ctrl-C ends it with the policies that are through. `progress` gets the policy, the share of its accesses
    that is done, and a line of text.
    """
    factories = {name: policy_factory(name) for name in policies}
    user = user_space(workload, cpus, seed, trace)
    document = Document(
        scenario=workload.name,
        engine="timed",
        arch=arch,
        cpus=cpus,
        seed=seed,
        runs=[],
        costs=asdict(workload.costs.prices()),
    )
    pictures: Pictures = {}
    try:
        for name, factory in factories.items():
            run, pictures[name] = timed_policy(
                workload,
                name,
                factory,
                cpus=cpus,
                arch=arch,
                user=user,
                watched=watched,
                progress=progress,
            )
            document["runs"].append(run)
    except KeyboardInterrupt:
        document["interrupted"] = True
    return document, pictures


def timed_policy(
    workload: Workload,
    name: str,
    factory: Callable[[], Policy],
    *,
    cpus: int,
    arch: str,
    user: UserSpace,
    watched: bool,
    progress: Progress,
) -> tuple[Run, dict[str, Histogram]]:
    """One policy's results and histograms. UsageProblem if a program raises."""
    machine = build_machine(workload, cpus, arch, factory, user)
    expected = user.expected_accesses()
    begun = time.monotonic()
    next_look = begun

    def look() -> None:
        nonlocal next_look
        now = time.monotonic()
        if now >= next_look:
            next_look = now + _LOOK_S
            done = sum(kernel.accesses for kernel in engine.kernels)
            share = min(1.0, done / expected) if expected else 0.0
            progress(name, share * 0.99, f"{done:,} accesses")

    engine = TimedEngine(machine, workload.costs.prices(), watched=watched, look=look)
    try:
        result = engine.run()
    except Terminated:
        raise
    except (Exception, SystemExit) as problem:
        cpu = running_cpu(problem)
        if cpu < 0:
            raise
        raise UsageProblem(f"policy {name}: {ProgramError(cpu, fault_of(problem))}") from None
    wall_s = time.monotonic() - begun
    progress(name, 1.0, f"{result.accesses:,} accesses, {result.elapsed_ns / 1e6:,.3f} ms in {wall_s:.1f} s")
    return _run_document(name, workload, result, wall_s), pictures_of(result)


def _run_document(policy: str, workload: Workload, result: TimedResult, wall_s: float) -> Run:
    document = run_of(policy, workload, result)
    document["elapsed_s"] = result.elapsed_ns / 1e9
    document["shootdown_share"] = round(result.shootdown_share, 9)
    document["clocks_ns"] = result.clocks_ns
    document["wall_s"] = round(wall_s, 3)
    if result.transitions is not None:
        document["transitions"] = result.transitions
    return document
