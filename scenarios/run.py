"""`migrc run`: one workload, policy after policy, on live actors; the result document.

What is wrong with the input becomes a UsageProblem here, including what only shows on the way: a
policy that raises, a cluster that cannot be reached, tiers too small for what the threads map.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from actors.session import LiveResult, LiveSession, ProgramError, SessionError, register
from emulator.kernel.boot import UserSpace
from emulator.kernel.policy import Policy
from emulator.measure.histogram import Histogram
from emulator.measure.vmstat import merge
from emulator.policies.catalogue import POLICIES, UnknownPolicy, find_policy
from scenarios.errors import UsageProblem
from scenarios.machine import build_machine
from scenarios.report.live import CheckSampling, Document, Run
from scenarios.traces.format import TraceError
from scenarios.user_space import ReplayUserSpace, TieringUserSpace
from scenarios.workload import Workload

Progress = Callable[[str, float, str], None]


def resolve_policy(name: str) -> Callable[[], Policy]:
    """The factory of a named policy; a user's own module is looked for in the current directory too.

    Raises UsageProblem if there is no such policy or making one raises.
    """
    if name not in POLICIES and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        factory = find_policy(name)
    except UnknownPolicy as problem:
        raise UsageProblem(f"--policy: {problem}") from None
    try:
        factory()
    except Exception as problem:
        raise UsageProblem(
            f"--policy {name}: making one raised {type(problem).__name__}: {problem}"
        ) from None
    if name not in POLICIES:
        register(sys.modules[factory.__module__])
    return factory


def user_space(workload: Workload, cpus: int, seed: int, trace: Path | None) -> UserSpace:
    """The programs of the workload. Raises UsageProblem if the trace is none."""
    if trace is None:
        return TieringUserSpace(workload, cpus, seed)
    try:
        user = ReplayUserSpace.from_trace(workload, cpus, seed, trace.resolve())
    except TraceError as problem:
        raise UsageProblem(str(problem)) from None
    except OSError as problem:
        raise UsageProblem(f"{trace}: {problem.strerror}; a trace made by migrc trace import") from None
    pages = sum(area.end - area.start for areas in user.areas().values() for area in areas)
    room = workload.memory.fast_pages + workload.memory.slow_pages
    if pages > room * 7 // 8:
        raise UsageProblem(
            f"{trace}: {pages} pages in {workload.threads.processes} process(es), but the tiers "
            f"hold {room}; make memory.slow_pages {pages * 8 // 7 + 1 - workload.memory.fast_pages} or more"
        )
    return user


def run_workload(
    workload: Workload,
    *,
    cpus: int,
    policies: list[str],
    seed: int,
    arch: str,
    address: str | None,
    trace: Path | None,
    dashboard: bool,
    progress: Progress,
) -> tuple[Document, dict[str, dict[str, Histogram]]]:
    """Run every policy over the same accesses; the document, and the histograms by policy and name.

    `progress` gets the policy, the share of its accesses that is done, and a line of text.
    """
    factories = {name: resolve_policy(name) for name in policies}
    user = user_space(workload, cpus, seed, trace)
    expected = user.expected_accesses()
    runs: list[Run] = []
    running = ""
    pictures: dict[str, dict[str, Histogram]] = {}
    try:
        with LiveSession(address, dashboard) as session:
            for name, factory in factories.items():
                running = f"policy {name}: "
                machine = build_machine(workload, cpus, arch, factory, user)

                def report(state: dict[str, int], name: str = name) -> None:
                    done = min(1.0, state["accesses"] / expected) if expected else 0.0
                    progress(name, done * 0.99, f"{state['accesses']:,} accesses")

                result = session.run(machine, report)
                progress(name, 1.0, f"{result.accesses:,} accesses in {result.elapsed_ns / 1e9:.1f} s")
                runs.append(_run_document(name, workload, result))
                pictures[name] = {
                    "delivery": result.delivery,
                    "handler": result.handler,
                    "round_trip": result.round_trip,
                }
    except SessionError as problem:
        raise UsageProblem(f"{running}{problem}") from None
    except ProgramError as problem:
        raise UsageProblem(f"{running}{problem}") from None
    document = Document(scenario=workload.name, engine="live", arch=arch, cpus=cpus, seed=seed, runs=runs)
    return document, pictures


def _run_document(policy: str, workload: Workload, result: LiveResult) -> Run:
    return Run(
        policy=policy,
        vmstat=merge(cpu["vmstat"] for cpu in result.cpus),
        interrupts={"TLB": result.tlb_interrupts},
        ipi_latency_ns={
            "delivery": result.delivery.summary(),
            "handler": result.handler.summary(),
            "round_trip": result.round_trip.summary(),
        },
        accesses=result.accesses,
        elapsed_ns=result.elapsed_ns,
        pending_peak=result.memory["pending_peak"],
        violations=result.violations,
        check_sampling=CheckSampling(
            sample_every=workload.checks.sample_every,
            checked=sum(cpu["sampled_hits"] for cpu in result.cpus),
            operations=result.memory["checked_operations"],
        ),
    )
