"""What every engine's result has: the run of the document, and the histograms beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from emulator.checks.violation import Violation
from emulator.measure.histogram import Histogram
from emulator.measure.vmstat import merge
from scenarios.report.comparison import CheckSampling, Run
from scenarios.workloads.settings import Workload


class Result(Protocol):
    """One policy's result; per-CPU lists have one entry for each CPU."""

    @property
    def cpus(self) -> Sequence[dict[str, Any]]:
        """What each CPU's kernel reports."""

    @property
    def tlb_interrupts(self) -> list[int]:
        """The TLB row of /proc/interrupts."""

    @property
    def memory(self) -> dict[str, Any]:
        """What memory and the checks report."""

    @property
    def violations(self) -> list[Violation]:
        """What broke a rule."""

    @property
    def accesses(self) -> int:
        """User accesses of all CPUs."""

    @property
    def elapsed_ns(self) -> int:
        """From go to the end."""

    @property
    def delivery(self) -> Histogram:
        """Send to handler entry, in ns."""

    @property
    def handler(self) -> Histogram:
        """Handler run time, in ns."""

    @property
    def round_trip(self) -> Histogram:
        """Send to last acknowledgement, in ns."""


def run_of(policy: str, workload: Workload, result: Result) -> Run:
    """The run as the document has it, without what only one engine knows."""
    return Run(
        policy=policy,
        vmstat=merge(cpu["vmstat"] for cpu in result.cpus),
        interrupts={"TLB": result.tlb_interrupts},
        ipi_latency_ns={name: histogram.summary() for name, histogram in pictures_of(result).items()},
        accesses=result.accesses,
        elapsed_ns=result.elapsed_ns,
        pending_peak=result.memory["pending_peak"],
        violations=[one._asdict() for one in result.violations],
        check_sampling=CheckSampling(
            sample_every=workload.checks.sample_every,
            checked=sum(cpu["sampled_hits"] for cpu in result.cpus),
            operations=result.memory["checked_operations"],
        ),
    )


def pictures_of(result: Result) -> dict[str, Histogram]:
    """The histograms, by key of `LATENCIES`."""
    return {"delivery": result.delivery, "handler": result.handler, "round_trip": result.round_trip}
