"""What a sweep found, for people: a line for each point, with its policies one below the other."""

from __future__ import annotations

from typing import TextIO

from scenarios.report.conclusion import FEW_INTERRUPTS, has_moved
from scenarios.report.console import plain_console, plain_table
from scenarios.report.figures import duration
from scenarios.runs.grid import SweepDocument
from scenarios.subjects.mmus import with_mmu


def print_sweep(document: SweepDocument, file: TextIO) -> None:
    """Write the table to `file`: colours if it is a terminal, plain text otherwise, never wrapped.

    `to first` compares the elapsed time with that of the first policy at the same point.
    """
    console = plain_console(file)
    console.print(
        f"{document['scenario']}: timed engine, kernel {document['kernel']}, "
        f"{document['arch']}{with_mmu(document['mmu'])}, "
        f"{document['cpus']} CPUs, seed {document['seed']}, unless varied"
    )
    console.print()
    figures = ("elapsed", "to first", "in shootdowns", "remote flushes", "received", "round trip p50", "p99")
    table = plain_table((*document["vary"], "policy", *figures, "violations"), left=("policy",))
    first = document["policies"][0]
    base = {
        tuple(point["values"].items()): point["run"]["elapsed_ns"]
        for point in document["points"]
        if point["policy"] == first
    }
    for point in document["points"]:
        run = point["run"]
        against = base.get(tuple(point["values"].items()))
        trip = run["ipi_latency_ns"]["round_trip"]
        table.add_row(
            *point["values"].values(),
            point["policy"],
            duration(run["elapsed_ns"]),
            f"{run['elapsed_ns'] / against:.3f}" if against else "-",
            f"{run['shootdown_share'] * 100:.2f} %",
            f"{run['vmstat']['nr_tlb_remote_flush']:,}",
            f"{run['vmstat']['nr_tlb_remote_flush_received']:,}",
            *("-" if trip[name] is None else duration(int(trip[name] or 0)) for name in ("p50", "p99")),
            f"{len(run['violations']):,}",
        )
    console.print(table)
    for line in _silence(document):
        console.print(line)


def _silence(document: SweepDocument) -> list[str]:
    """At how many points the study says nothing of what it is about."""
    runs = [point["run"] for point in document["points"]]
    counts = {
        "nothing migrated": sum(not has_moved(run) for run in runs),
        f"there were fewer than {FEW_INTERRUPTS} interrupts": sum(
            sum(run["interrupts"]["TLB"]) < FEW_INTERRUPTS for run in runs
        ),
        "nothing was put off although the policy could": sum(
            run["policy"].startswith("migrc") and not run["vmstat"].get("migrc_deferred") for run in runs
        ),
    }
    told = [f"at {count:,} of {len(runs):,} {what}" for what, count in counts.items() if count]
    return ["", f"With care: {'; '.join(told)}."] if told else []
