"""`migrc run --engine timed`: one workload, policy after policy, on virtual time; the result document.

The document has the shape of a live run's. Nothing here imports Ray or starts a process. What a policy or a
workload does wrong on the way becomes a UsageProblem, as in a live run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from actors.errors import ProgramError, fault_of
from actors.signals import Terminated
from emulator.machine.progress import running_cpu
from emulator.measure.histogram import Histogram
from emulator.timed.engine import TimedEngine
from scenarios.events.event_file import ZIPPED, EventHeader, written
from scenarios.events.listener import EventListener
from scenarios.files.named_files import named_files
from scenarios.runs.document import Document, Pictures, Run, allocations_of, latencies_of, run_of
from scenarios.subjects.header import project_version
from scenarios.subjects.subject import Subject
from scenarios.usage import UsageProblem

Progress = Callable[[str, float, str], None]

_LOOK_S: Final = 0.1


def run_timed(
    subjects: Sequence[Subject],
    *,
    watched: bool,
    events: Path | None,
    progress: Progress,
    document: Document,
    pictures: Pictures,
) -> None:
    """Run one workload under several policies; `document` and `pictures` grow with each that is through.

    `events` is the file for them, of several policies one each. `progress` gets the policy, the share of its
    accesses that is done, and a line of text.
    """
    policies = [subject.policy for subject in subjects]
    files = {} if events is None else named_files(events, policies, "--events", ZIPPED)
    for subject in subjects:
        run, pictures[subject.policy] = timed_run(subject, watched, progress, files.get(subject.policy))
        document["runs"].append(run)


def timed_run(
    subject: Subject, watched: bool, progress: Progress, events: Path | None = None
) -> tuple[Run, dict[str, Histogram]]:
    """One policy's results and histograms; `events` gets what happens. UsageProblem if a program raises."""
    machine = subject.workload_machine()
    expected = machine.user.expected_accesses()
    begun = time.monotonic()
    next_look = begun

    def look() -> None:
        nonlocal next_look
        now = time.monotonic()
        if now >= next_look:
            next_look = now + _LOOK_S
            done = sum(kernel.accesses for kernel in engine.kernels)
            share = min(1.0, done / expected) if expected else 0.0
            progress(subject.policy, share * 0.99, f"{done:,} accesses")

    prices = subject.workload.costs.prices()
    engine = TimedEngine(machine, prices, watched=watched, look=look, compiled=events is None)
    try:
        with _told(engine, subject, events):
            result = engine.run()
    except Terminated:
        raise
    except (Exception, SystemExit) as problem:
        cpu = running_cpu(problem)
        if cpu < 0:
            raise
        raise UsageProblem(f"policy {subject.policy}: {ProgramError(cpu, fault_of(problem))}") from None
    wall_s = time.monotonic() - begun
    done = f"{result.accesses:,} accesses, {result.elapsed_ns / 1e6:,.3f} ms in {wall_s:.1f} s"
    progress(subject.policy, 1.0, done)
    run = run_of(subject, result)
    run["elapsed_s"] = result.elapsed_ns / 1e9
    run["shootdown_share"] = round(result.shootdown_share, 9)
    allocations = allocations_of(result)
    run["allocation_ns"] = {whose: one.summary() for whose, one in allocations.items()}
    run["allocation_hdr"] = {whose: one.hdr() for whose, one in allocations.items()}
    run["clocks_ns"] = result.clocks_ns
    run["wall_s"] = round(wall_s, 3)
    if result.transitions is not None:
        run["transitions"] = result.transitions
    if events is not None:
        run["events"] = str(events)
    return run, latencies_of(result)


@contextmanager
def _told(engine: TimedEngine, subject: Subject, path: Path | None) -> Iterator[None]:
    """What happens during the block goes into the file, if there is to be one."""
    if path is None:
        yield
        return
    title = f"{subject.title()}, {subject.cpus} CPUs, seed {subject.seed}, timed engine"
    header = EventHeader(title=title, cpus=subject.cpus, unit="ns", project=project_version())
    with written(path, header) as emit:
        judges = (*engine.checks, *engine.watchers)
        listener = EventListener(
            engine.memory,
            engine.cpus,
            emit,
            lambda: engine.now,
            lambda: [violation for one in judges for violation in one.violations],
            kernels=engine.kernels,
            checks=engine.checks,
        )
        engine.listeners.append(listener)
        yield
        listener.close()
