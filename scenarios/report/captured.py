"""What a capture of a real kernel comes to, alone or beside runs of ours, and the costs that it suggests."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, TextIO

from rich.text import Text

from emulator.measure.vmstat import COUNTERS
from scenarios.events.capture import Capture
from scenarios.report.comparison import print_latencies
from scenarios.report.console import plain_console, plain_table
from scenarios.report.figures import duration
from scenarios.runs.document import Measured
from scenarios.runs.event_figures import Figures

LEAST: Final = 30
"""Fewer samples suggest no cost."""
_NOTE: Final = (
    "In all columns the handler is the function alone, and a round trip ends with the last handler; "
    "tracing is part of what was traced."
)


def as_document(file: str, capture: Capture, columns: Mapping[str, Figures]) -> dict[str, Any]:
    """The JSON document: the capture, and figures of each column, the real one first."""
    return {
        "capture": file,
        "cpus": capture.cpus,
        "lines": capture.lines,
        "ignored": capture.ignored,
        "lost_events": capture.lost,
        "microseconds": capture.coarse,
        "columns": [
            {
                "name": name,
                "elapsed_ns": one.end,
                "counters": dict(one.counters),
                "interrupts": {"TLB": one.interrupts},
                "ipi_latency_ns": {kind: histogram.summary() for kind, histogram in one.latencies.items()},
                "ipi_latency_hdr": {kind: histogram.hdr() for kind, histogram in one.latencies.items()},
                "taken_before_sent": one.early,
            }
            for name, one in columns.items()
        ],
    }


def print_captured(file: str, capture: Capture, columns: Mapping[str, Figures], into: TextIO) -> None:
    """The same for people."""
    console = plain_console(into)
    (real, *_) = columns.values()
    console.print(f"{file}: {capture.lines:,} events of {capture.cpus} CPUs in {duration(real.end)}")
    table = plain_table(["", *columns])
    for name in COUNTERS:
        counts = [one.counters.get(name) for one in columns.values()]
        if any(counts):
            table.add_row(name, *("-" if count is None else f"{count:,}" for count in counts))
    console.print()
    console.print(table)
    console.print()
    for name, one in columns.items():
        taken = " ".join(f"{count:,}" for count in one.interrupts)
        console.print(f"flush interrupts by CPU, {name}: {taken}")
    runs = [
        Measured(policy=name, ipi_latency_ns={kind: one.summary() for kind, one in figures.latencies.items()})
        for name, figures in columns.items()
    ]
    print_latencies(console, runs, {name: figures.latencies for name, figures in columns.items()})
    console.print()
    for line in _care(capture, real, len(columns) > 1):
        console.print(Text(line))


def _care(capture: Capture, real: Figures, several: bool) -> Sequence[str]:
    found = [_NOTE] if several else []
    if capture.lost:
        found.append(f"The kernel lost {capture.lost:,} events: counts are too small. A larger buffer.")
    if capture.coarse:
        found.append("Times are in whole microseconds: perf script --ns has more.")
    if real.early:
        found.append(f"{real.early:,} calls were taken before they were sent: the CPUs' clocks disagree.")
    if not real.interrupts or not sum(real.interrupts):
        found.append("No flush interrupted another CPU, or csd:* is not in the capture (v6.3 and on).")
    return found


class Suggested(NamedTuple):
    """A key of [costs], in ns; half of `samples` are from `low` to `high`; `how` it came about."""

    key: str
    ns: int
    samples: int
    low: int
    high: int
    how: str


def suggested_costs(figures: Figures, ipi_send_ns: int) -> tuple[list[Suggested], list[str]]:
    """Costs with which the timed engine has the capture's figures, and those that it has too little for.

    `ipi_send_ns`: what the sender's part is said to be, which no tracepoint tells apart from the way.
    """
    found, missing = [], []
    way = [max(ns - ipi_send_ns, 0) for ns in figures.single]
    full = [one.ns for one in figures.handled if one.pages is not None and one.pages < 0]
    for key, samples, how in (
        ("ipi_deliver_ns", way, f"from csd_queue_cpu to the interrupt, less ipi_send_ns = {ipi_send_ns}"),
        ("flush_ns", full, "a handler that flushes all"),
    ):
        if len(samples) < LEAST:
            missing.append(f"{key}: {len(samples)} samples, {LEAST} are needed")
            continue
        low, middle, high = statistics.quantiles(samples, n=4)
        found.append(Suggested(key, round(middle), len(samples), round(low), round(high), how))
    pages = [(one.pages, one.ns) for one in figures.handled if one.pages is not None and one.pages > 0]
    if len(pages) < LEAST or len({count for count, _ in pages}) < 2:
        missing.append(
            f"invlpg_ns: {len(pages)} flushes of {len({count for count, _ in pages})} different sizes, "
            f"{LEAST} of 2 are needed"
        )
    else:
        low, middle, high = map(round, _slopes(pages))
        found.append(Suggested("invlpg_ns", middle, len(pages), low, high, "a page more in a handler"))
    return found, missing


def _slopes(pages: Sequence[tuple[int, int]]) -> tuple[float, float, float]:
    """ns a page: the median and quartiles of the slopes between medians of each size (Theil and Sen's)."""
    by_size: dict[int, list[int]] = {}
    for count, ns in pages:
        by_size.setdefault(count, []).append(ns)
    points = sorted((count, statistics.median(times)) for count, times in by_size.items())
    slopes = sorted(
        (later[1] - first[1]) / (later[0] - first[0])
        for place, first in enumerate(points)
        for later in points[place + 1 :]
    )
    if len(slopes) < 2:
        return slopes[0], slopes[0], slopes[0]
    low, middle, high = statistics.quantiles(slopes, n=4, method="inclusive")
    return low, middle, high
