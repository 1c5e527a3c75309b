"""`migrc run`: one workload, policy after policy, on live actors; the result document.

What is wrong with the input becomes a UsageProblem here, including what only shows on the way: a
policy that raises, a cluster that cannot be reached, tiers too small for what the threads map.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import click

from actors.address import Placement
from actors.mode import Mode
from actors.session import LiveResult, LiveSession, ProgramError, SessionError, register
from emulator.machine.builder import Machine
from scenarios.files.keeper import Keeper
from scenarios.files.named_files import named_files
from scenarios.files.recording import MAGIC
from scenarios.runs.document import Document, Pictures, latencies_of, run_of
from scenarios.subjects.mmus import mmu_modules_to_send
from scenarios.subjects.policies import modules_to_send
from scenarios.subjects.programs import LitmusName, modules_of
from scenarios.subjects.subject import Subject
from scenarios.usage import HostProblem, UsageProblem

Progress = Callable[[str, float, str], None]
Report = Callable[[dict[str, int]], None]

_RECORDED: Final = Mode(watched=True, recorded=True)


def run_live(
    subjects: Sequence[Subject],
    *,
    address: str | None,
    dashboard: bool,
    watched: bool,
    record: Path | None,
    progress: Progress,
    document: Document,
    pictures: Pictures,
    placement: Placement = "spread",
    tolerate: bool = False,
) -> None:
    """Run one workload under several policies; `document` and `pictures` grow with each that is through.

    A `watched` run is recorded, in `record` or, if a rule breaks, among the recordings. `progress` gets the
    policy, the share of its accesses that is done, and a line of text. HostProblem if Ray or an actor fails;
    with `tolerate` a run goes on without a CPU whose actor has died.
    """
    policies = [subject.policy for subject in subjects]
    files = named_files(record, policies, "--record", MAGIC) if record is not None else {}
    machines = [subject.workload_machine() for subject in subjects]
    for subject in subjects:
        pass_on(subject)
    running = ""
    try:
        with LiveSession(address, dashboard, placement=placement) as session:
            for subject, machine in zip(subjects, machines, strict=True):
                policy = subject.policy
                running = f"policy {policy}: "
                expected = machine.user.expected_accesses()

                def report(state: dict[str, int], policy: str = policy, expected: int = expected) -> None:
                    done = min(1.0, state["accesses"] / expected) if expected else 0.0
                    progress(policy, done * 0.99, f"{state['accesses']:,} accesses")

                keeper = None
                if watched:
                    result, keeper = _recorded(session, machine, report, subject, files.get(policy))
                else:
                    result = session.run(machine, report, mode=Mode(tolerant=tolerate))
                pictures[policy] = latencies_of(result)
                run = run_of(subject, result)
                if result.core_wait:
                    run["core_wait_share"] = result.core_wait
                if result.network:
                    run["network_ns"] = result.network
                    document["placement"] = placement
                if result.unplugged:
                    run["unplugged"] = list(result.unplugged)
                if watched:
                    run["transitions"] = result.memory["transitions"]
                if keeper is not None and keeper.path is not None:
                    run["recording"] = str(keeper.path)
                document["runs"].append(run)
                if keeper is not None and keeper.problem is not None:
                    raise keeper.problem
                progress(policy, 1.0, f"{result.accesses:,} accesses in {result.elapsed_ns / 1e9:.1f} s")
    except SessionError as problem:
        raise HostProblem(f"{running}{problem}") from None
    except ProgramError as problem:
        raise UsageProblem(f"{running}{problem}") from None


def pass_on(subject: Subject) -> None:
    """Let actors have a user's own policy, mmu and litmus test by value: they may not find their files."""
    modules = modules_to_send(subject.policy) + mmu_modules_to_send(subject.mmu)
    if isinstance(subject.what, LitmusName):
        modules += modules_of(subject.what)
    for module in modules:
        register(module)


def _recorded(
    session: LiveSession, machine: Machine, report: Report, subject: Subject, record: Path | None
) -> tuple[LiveResult, Keeper]:
    """Run it watched; its result, and who kept the recording."""

    def tell(text: str) -> None:
        click.echo(f"migrc: {subject.policy}: {text}", err=True)

    with Keeper.of(subject.header(), record, tell) as keeper:
        result = session.run(machine, report, mode=_RECORDED, keep=keeper.keep)
        keeper.end(result, subject.file_name(f"seed{subject.seed}"))
    return result, keeper
