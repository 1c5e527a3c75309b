"""What a live or timed run found, for people: every policy side by side, with its ratio to the first.

The text is made from the result document (the one that `--json` prints) and from the histograms, which the
document only summarises. Away from a terminal the text has no colours and
never wraps, so that it can be pasted into mail.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from emulator.measure.vmstat import COUNTERS, KERNEL_COUNTERS, OWN_COUNTERS
from scenarios.report.conclusion import conclusion
from scenarios.report.console import plain_console, plain_table, print_violations
from scenarios.report.figures import duration, number, ratio_of
from scenarios.report.spread import ratios
from scenarios.runs.document import LATENCIES, Document, Measured, Pictures, Repeats, Run
from scenarios.subjects.mmus import with_mmu

_SUMMARY_ROWS = {"count": "count", "p50": "p50", "p90": "p90", "p99": "p99", "p99_9": "p99.9", "max": "max"}


_NAMES = {
    "elapsed_ns": "elapsed",
    "shootdown_share": "time in shootdowns, of all CPUs",
    "pending_peak": "pending folios, peak (pages)",
    "nr_tlb_remote_flush": "nr_tlb_remote_flush",
    "nr_tlb_remote_flush_received": "nr_tlb_remote_flush_received",
}
_SHOWN: dict[str, Callable[[float], str]] = {
    **dict.fromkeys(_NAMES, lambda value: f"{value:,.1f}"),
    "elapsed_ns": lambda ns: duration(round(ns)),
    "shootdown_share": lambda share: f"{share * 100:.3f} %",
}
_LEAST = {"p50": 2, "p90": 10, "p99": 100, "p99_9": 1000}  # values that a percentile takes
_SITES = {**KERNEL_COUNTERS, **OWN_COUNTERS}


def print_report(document: Document, pictures: Pictures, file: TextIO, whole: bool = False) -> None:
    """Write the report to `file`: colours and rules if it is a terminal, plain text otherwise.

    What it comes to stands first and last. `whole`: counters that are zero too, and where each ticks.
    """
    console = plain_console(file)
    runs = document["runs"]
    console.print(
        f"{document['scenario']}: {document['engine']} engine, kernel {document['kernel']}, "
        f"{document['arch']}{with_mmu(document['mmu'])}, {document['cpus']} CPUs, seed {document['seed']}"
    )
    settings = document.get("live_settings")
    if settings:
        listed = ", ".join(f"{key} = {value}" for key, value in settings.items())
        console.print(f"set for live runs: {listed}")
    if not runs:
        return
    _conclusion(console, document)
    _heading(console, "run")
    console.print(_totals(runs))
    if "repeats" in document and len(document["repeats"]["seeds"]) > 1:
        seeds = ", ".join(map(str, document["repeats"]["seeds"]))
        _heading(console, f"over seeds {seeds}: means, 95 % intervals of ratios")
        console.print(_repeats(document["repeats"]))
    for title, names in (
        ("/proc/vmstat", KERNEL_COUNTERS),
        ("counted here, not in /proc/vmstat", _own(runs)),
    ):
        shown = [name for name in names if whole or any(run["vmstat"].get(name) for run in runs)]
        _heading(console, title)
        if shown:
            console.print(_counters(runs, shown, whole))
        if len(shown) < len(names):
            console.print(Text(f"{len(names) - len(shown)} more are zero (-v shows them)", style="dim"))
    for run in runs:
        for line in _nothing_deferred(run):
            console.print(Text(line))
    _heading(console, "/proc/interrupts")
    for line in _interrupts(runs):
        console.print(line)
    print_latencies(console, runs, pictures)
    print_allocations(console, runs)
    for run in runs:
        _violations(console, run)
    _conclusion(console, document)


def _conclusion(console: Console, document: Document) -> None:
    console.print()
    broken = any(run["violations"] for run in document["runs"])
    for place, line in enumerate(conclusion(document)):
        console.print(Text(line, style=("bold red" if broken else "bold green") if not place else ""))


def _own(runs: Sequence[Run]) -> list[str]:
    """Counters that no kernel has, of this project and of a policy of somebody's own."""
    others = {name for run in runs for name in run["vmstat"]}.difference(COUNTERS)
    return [*OWN_COUNTERS, *sorted(others)]


def _nothing_deferred(run: Run) -> list[str]:
    """Why a MIGRC policy has put nothing off, if so: what the flushes were owed for."""
    counts = run["vmstat"]
    writable, dirty, clean = (counts.get(f"unmap_owed_{kind}", 0) for kind in ("writable", "dirty", "clean"))
    if not run["policy"].startswith("migrc") or counts.get("migrc_deferred") or not writable + dirty + clean:
        return []
    lines = [
        "",
        f"{run['policy']} put nothing off: flushes were owed for {writable:,} writable entries, "
        f"{dirty:,} dirty and {clean:,} clean ones.",
    ]
    if dirty:
        lines.append(
            "RFC v1 and v2 put off dirty ones, v3 and v9 do not. An entry stays dirty when its page moves, "
            "unless kernel.migration_entry_ad is false."
        )
    return lines


def print_latencies(console: Console, runs: Sequence[Measured], pictures: Pictures) -> None:
    """A table of each kind of latency, every policy side by side, and the histograms below it."""
    for key, meaning in LATENCIES.items():
        _heading(console, f"IPI {key}: {meaning}")
        console.print(_latency(runs, key))
        for run in runs:
            histogram = pictures.get(run["policy"], {}).get(key)
            if histogram is not None and len(histogram):
                console.print(f"\n{run['policy']}, {key}, ns:")
                console.print(histogram.picture())


def print_allocations(console: Console, runs: Sequence[Run]) -> None:
    """What tasks waited for a page, where that was measured: all together, then each process."""
    measured = [run.get("allocation_ns", {}) for run in runs]
    for whose in dict.fromkeys(name for one in measured for name in one):
        of_whom = "" if whose == "all" else f", process {whose}"
        _heading(console, f"page allocation: from asking for a page to having it{of_whom}")
        console.print(_summaries(runs, [one.get(whose, {}) for one in measured]))


def _heading(console: Console, text: str) -> None:
    console.print()
    console.print(Text(text, style="bold"))


def _side_by_side(runs: Sequence[Measured]) -> Table:
    table = plain_table([""])
    for place, run in enumerate(runs):
        table.add_column(run["policy"], justify="right", no_wrap=True)
        if place:
            table.add_column("ratio", justify="right", no_wrap=True, style="cyan")
    return table


def _row(
    table: Table, name: str, values: Sequence[int | None], show: Callable[[int], str], *more: str
) -> None:
    cells = [name]
    for place, value in enumerate(values):
        cells.append("-" if value is None else show(value))
        if place:
            cells.append(ratio_of(value, values[0]))
    table.add_row(*cells, *more)


def _totals(runs: Sequence[Run]) -> Table:
    table = _side_by_side(runs)
    _row(table, "accesses", [run["accesses"] for run in runs], number)
    _row(table, "elapsed", [run["elapsed_ns"] for run in runs], duration)
    if runs and all("shootdown_share" in run for run in runs):
        # In millionths, because a row is of integers.
        shares = [round(run["shootdown_share"] * 1e6) for run in runs]
        _row(table, "time in shootdowns, of all CPUs", shares, lambda share: f"{share / 1e4:.2f} %")
    _row(table, "pending folios, peak (pages)", [run["pending_peak"] for run in runs], number)
    if all("check_sampling" in run for run in runs):
        samplings = [run["check_sampling"] for run in runs]
        _row(table, "one access is checked in every", [one["sample_every"] for one in samplings], number)
        _row(table, "accesses checked that way", [one["checked"] for one in samplings], number)
        _row(table, "checks made, fills included", [one["operations"] for one in samplings], number)
    if all("transitions" in run for run in runs):
        _row(table, "steps judged by happens-before", [run["transitions"] for run in runs], number)
    _row(table, "violations", [len(run["violations"]) for run in runs], number)
    return table


def _repeats(repeats: Repeats) -> Table:
    columns, rows = over_seeds(repeats["values"])
    table = plain_table(columns)
    for row in rows:
        table.add_row(*row)
    return table


def over_seeds(values: Mapping[str, Mapping[str, Sequence[float]]]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of `Repeats.values`: of each policy the mean, and the ratio to the first, by seed."""
    first, *others = next(iter(values.values()))
    columns = ["", first, *(column for policy in others for column in (policy, "ratio", "95 %"))]
    rows = []
    for measure, of in values.items():
        show = _SHOWN.get(measure, _SHOWN["pending_peak"])
        cells = [show(statistics.fmean(of[first]))]
        for policy in others:
            found = ratios(of[first], of[policy])
            cells.append(show(statistics.fmean(of[policy])))
            if found is None:
                cells += ["-", "-"]
            else:
                ratio = "no difference" if 1 in found else f"{found.mean:.3f}"
                cells += [ratio, f"{found.low:.3f} to {found.high:.3f}"]
        rows.append([_NAMES.get(measure, measure), *cells])
    return columns, rows


def _counters(runs: Sequence[Run], names: Sequence[str], sites: bool) -> Table:
    table = _side_by_side(runs)
    if sites:
        table.add_column("ticks", no_wrap=True, style="dim")
    for name in names:
        site = (_SITES.get(name, ""),) if sites else ()
        _row(table, name, [run["vmstat"].get(name) for run in runs], number, *site)
    return table


def _interrupts(runs: Sequence[Run]) -> list[str]:
    """The TLB row as Linux prints it (arch/x86/kernel/irq.c: arch_show_interrupts), one for each policy."""
    cpus = max((len(run["interrupts"]["TLB"]) for run in runs), default=0)
    lines = [(" " * 11 + "".join(f"CPU{cpu:<8}" for cpu in range(cpus))).rstrip()]
    for run in runs:
        counts = "".join(f"{count:>10} " for count in run["interrupts"]["TLB"])
        lines.append(f"TLB: {counts}  TLB shootdowns ({run['policy']})")
    return lines


def _latency(runs: Sequence[Measured], key: str) -> Table:
    table = _summaries(runs, [run["ipi_latency_ns"][key] for run in runs])
    waits = [run["core_wait_share"].get(key) if "core_wait_share" in run else None for run in runs]
    if any(wait is not None for wait in waits):
        # In thousandths, because a row is of integers.
        rounded = [None if wait is None else round(wait * 1000) for wait in waits]
        _row(table, "waiting for a core", rounded, lambda share: f"{share / 10:.1f} %")
    return table


def _summaries(runs: Sequence[Measured], summaries: Sequence[Mapping[str, int | None]]) -> Table:
    """`Histogram.summary` of each run."""
    table = _side_by_side(runs)
    for name, label in _SUMMARY_ROWS.items():
        show = number if name == "count" else duration
        # Of ten values nobody knows the 99th percentile.
        known = [(summary.get("count") or 0) >= _LEAST.get(name, 1) for summary in summaries]
        values = [
            summary.get(name) if there else None for summary, there in zip(summaries, known, strict=True)
        ]
        _row(table, label, values, show)
    return table


def _violations(console: Console, run: Run) -> None:
    found = run["violations"]
    if not found:
        return
    console.print()
    console.print(Text(f"{run['policy']}: {len(found)} violations", style="bold red"))
    print_violations(console.print, [one if isinstance(one, str) else json.dumps(one) for one in found])
