"""The result document of a run, as types, for every engine: `--json` prints it, reports are made from it."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final, NotRequired

from typing_extensions import TypedDict

from emulator.measure.histogram import Histogram
from emulator.measure.vmstat import merge
from scenarios.subjects.header import TraceFile, project_version
from scenarios.subjects.subject import Subject

if TYPE_CHECKING:
    from actors.session import LiveResult
    from emulator.timed.result import TimedResult

LATENCIES: Final[Mapping[str, str]] = {
    "delivery": "send to handler entry",
    "handler": "handler run time",
    "round_trip": "send to last acknowledgement",
}
"""What is measured of each IPI, by its key in the document."""

Pictures = dict[str, dict[str, Histogram]]
"""Histograms, in ns, by policy and by key of `LATENCIES`."""


class CheckSampling(TypedDict):
    """One access in `sample_every` was checked in memory, `checked` in this run.

    `operations` counts everything that was judged: those, every fill, and first writes through an entry.
    """

    sample_every: int
    checked: int
    operations: int


class Measured(TypedDict):
    """One policy's latencies: for each key of `LATENCIES` what `Histogram.summary` says, in ns, and all of it
    as HdrHistogram's tools read it (V2, compressed, in base64)."""

    policy: str
    ipi_latency_ns: dict[str, dict[str, int | None]]
    ipi_latency_hdr: NotRequired[dict[str, str]]
    core_wait_share: NotRequired[dict[str, float]]


class Run(Measured):
    """One policy's results.

    `interrupts` has one number for each CPU under `TLB`; `pending_peak` is in pages. A violation is a text or
    a JSON object.
    `transitions`: of a watched run, how many steps happens-before has judged; `recording`, `events`: the
    file, if kept.
    `core_wait_share`: of a live run, for each key of `LATENCIES` how much of all such latencies together was
    waiting for a core (0 to 1), and under `memory` how much of the run the memory actor was (model.md, Time).

    `unplugged`: CPUs whose actors died on the way; counters and accesses are without theirs.

    `network_ns`: on a cluster, the address of each node with actors and its round trip from the driver's.

    Of a timed run all times but `wall_s` are virtual. `elapsed_s` is `elapsed_ns` again, `clocks_ns` each
    CPU's clock at the end. `allocation_ns` summarises, as of latencies, what tasks waited for a page: under
    `all`, and of several processes under the number of each, from 1 on; `allocation_hdr` has all of it. Of
    the time of all CPUs, `shootdown_share` (0 to 1) went to sending flush
    interrupts, waiting for their acknowledgements and handling them.
    """

    vmstat: dict[str, int]
    interrupts: dict[str, list[int]]
    accesses: int
    elapsed_ns: int
    pending_peak: int
    violations: list[Any]
    check_sampling: NotRequired[CheckSampling]
    transitions: NotRequired[int]
    recording: NotRequired[str]
    events: NotRequired[str]
    elapsed_s: NotRequired[float]
    shootdown_share: NotRequired[float]
    allocation_ns: NotRequired[dict[str, dict[str, int | None]]]
    allocation_hdr: NotRequired[dict[str, str]]
    clocks_ns: NotRequired[list[int]]
    wall_s: NotRequired[float]
    network_ns: NotRequired[dict[str, int]]
    unplugged: NotRequired[list[int]]


class Repeats(TypedDict):
    """The same with several seeds: `values` by measure and policy, one for each seed; `violations` of all."""

    seeds: list[int]
    values: dict[str, dict[str, list[float]]]
    violations: dict[str, int]


class Document(TypedDict):
    """The whole result of `migrc run`, in the order and with the keys of its JSON form.

    `kernel` is the version whose ways the kernel has. `costs`: the cost model of a timed run;
    `live_settings`: what the workload sets for live runs only;
    `cores`: how many the processes of a live run shared here; `conclusion`: what it comes to, in lines.
    `project`: the version that wrote it; `host`: what it ran on; `settings`: all of the workload's, whatever
    set them; `trace`: what was replayed, by path and BLAKE2b.
    `placement`: how CPUs lay on the nodes of a cluster. `repeats`: what came out with other seeds.
    `stopped`: what ended it early, `runs` are those that were through; `interrupted`: that was Ctrl-C.
    """

    scenario: str
    engine: str
    kernel: str
    arch: str
    mmu: str
    cpus: int
    seed: int
    runs: list[Run]
    project: NotRequired[str]
    host: NotRequired[dict[str, Any]]
    settings: NotRequired[dict[str, Any]]
    trace: NotRequired[dict[str, str] | None]
    costs: NotRequired[dict[str, int]]
    live_settings: NotRequired[dict[str, Any]]
    cores: NotRequired[int]
    interrupted: NotRequired[bool]
    stopped: NotRequired[str]
    conclusion: NotRequired[list[str]]
    placement: NotRequired[str]
    repeats: NotRequired[Repeats]


def document_of(subject: Subject, engine: str) -> Document:
    """The document before anything has run; the subject's policy does not matter."""
    document = Document(
        scenario=subject.name,
        engine=engine,
        kernel=subject.workload.kernel.version,
        arch=subject.arch,
        mmu=subject.mmu,
        cpus=subject.cpus,
        seed=subject.seed,
        runs=[],
        project=project_version(),
        host={
            "system": platform.system(),
            "machine": platform.machine(),
            "python": platform.python_version(),
            "cores": len(os.sched_getaffinity(0)),
        },
        settings=subject.workload.settings_used(),
        trace=None if subject.trace is None else TraceFile.of(subject.trace).model_dump(),
    )
    if engine == "timed":
        document["costs"] = asdict(subject.workload.costs.prices())
        return document
    document["cores"] = len(os.sched_getaffinity(0))
    if settings := subject.workload.live_settings:
        document["live_settings"] = settings
    return document


def stop(document: Any, why: str) -> None:
    """Note in a document what ended its making early; nothing if that is empty."""
    if why:
        document["stopped"] = why
    if why == "interrupted":
        document["interrupted"] = True


def run_of(subject: Subject, result: LiveResult | TimedResult) -> Run:
    """The run as the document has it, without what only one engine knows."""
    return Run(
        policy=subject.policy,
        vmstat=merge(cpu["vmstat"] for cpu in result.cpus),
        interrupts={"TLB": result.tlb_interrupts},
        ipi_latency_hdr={name: histogram.hdr() for name, histogram in latencies_of(result).items()},
        ipi_latency_ns={name: histogram.summary() for name, histogram in latencies_of(result).items()},
        accesses=result.accesses,
        elapsed_ns=result.elapsed_ns,
        pending_peak=result.memory["pending_peak"],
        violations=[one._asdict() for one in result.violations],
        check_sampling=CheckSampling(
            sample_every=subject.workload.checks.sample_every,
            checked=sum(cpu["sampled_hits"] for cpu in result.cpus),
            operations=result.memory["checked_operations"],
        ),
    )


def latencies_of(result: LiveResult | TimedResult) -> dict[str, Histogram]:
    """The histograms of a result, by key of `LATENCIES`."""
    return {kind: getattr(result, kind) for kind in LATENCIES}


def allocations_of(result: TimedResult) -> dict[str, Histogram]:
    """What tasks waited for a page: of `all`, and of several processes by the number of each."""
    everybody = Histogram()
    for one in result.allocations.values():
        everybody.merge(one)
    if len(result.allocations) < 2:
        return {"all": everybody}
    return {"all": everybody} | {str(mm): one for mm, one in sorted(result.allocations.items())}
