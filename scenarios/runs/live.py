"""`migrc run`: one workload, policy after policy, on live actors; the result document.

What is wrong with the input becomes a UsageProblem here, including what only shows on the way: a
policy that raises, a cluster that cannot be reached, tiers too small for what the threads map.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click

from actors.mode import Mode
from actors.session import LiveResult, LiveSession, ProgramError, SessionError, register
from emulator.kernel.policy import Policy
from emulator.machine.protocols import Machine
from emulator.measure.histogram import Histogram
from emulator.policies.catalogue import POLICIES, UnknownPolicy, find_policy
from scenarios.files.headers import workload_header
from scenarios.files.keeper import file_name, keeping, named_files
from scenarios.files.recording import Header
from scenarios.report.comparison import Document, Run
from scenarios.runs.document import pictures_of, run_of
from scenarios.subjects.workload_machine import build_machine
from scenarios.usage import UsageProblem
from scenarios.workloads.settings import Workload
from scenarios.workloads.user_space import user_space

Progress = Callable[[str, float, str], None]
Report = Callable[[dict[str, int]], None]

_PLAIN: Final = Mode()
_RECORDED: Final = Mode(watched=True, recorded=True)


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
    watched: bool,
    record: Path | None,
    progress: Progress,
) -> tuple[Document, dict[str, dict[str, Histogram]]]:
    """Run every policy over the same accesses; the document, and the histograms by policy and name.

    A `watched` run is recorded, in `record` or, if a rule breaks, among the recordings.

    Ctrl-C ends it with the policies that are through. `progress` gets the policy, the share of its accesses
    that is done, and a line of text.
    """
    files = named_files(record, policies) if record is not None else {}
    factories = {name: resolve_policy(name) for name in policies}
    user = user_space(workload, cpus, seed, trace)
    expected = user.expected_accesses()
    document = Document(scenario=workload.name, engine="live", arch=arch, cpus=cpus, seed=seed, runs=[])
    if workload.live_settings:
        document["live_settings"] = workload.live_settings
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

                if watched:
                    header = workload_header(
                        workload, policy=name, arch=arch, cpus=cpus, seed=seed, trace=trace
                    )
                    result, file = _recorded(session, machine, report, header, files.get(name))
                else:
                    result, file = session.run(machine, report, mode=_PLAIN), None
                pictures[name] = pictures_of(result)
                document["runs"].append(_run_document(name, workload, result, file))
                progress(name, 1.0, f"{result.accesses:,} accesses in {result.elapsed_ns / 1e9:.1f} s")
    except KeyboardInterrupt:
        document["interrupted"] = True
    except SessionError as problem:
        raise UsageProblem(f"{running}{problem}") from None
    except ProgramError as problem:
        raise UsageProblem(f"{running}{problem}") from None
    return document, pictures


def _recorded(
    session: LiveSession, machine: Machine, report: Report, header: Header, record: Path | None
) -> tuple[LiveResult, Path | None]:
    """Run it watched; its result, and its recording if that stays."""

    def tell(text: str) -> None:
        click.echo(f"migrc: {header.policy}: {text}", err=True)

    with keeping(header, record, tell) as keeper:
        result = session.run(machine, report, mode=_RECORDED, keep=keeper.keep)
        keeper.end(result, file_name(header))
    return result, keeper.path


def _run_document(policy: str, workload: Workload, result: LiveResult, recording: Path | None) -> Run:
    document = run_of(policy, workload, result)
    if "transitions" in result.memory:
        document["transitions"] = result.memory["transitions"]
    if recording is not None:
        document["recording"] = str(recording)
    return document
