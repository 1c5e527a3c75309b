"""What `--json` prints, as one HTML page that asks the network for nothing: the verdict first, then figures
and pictures, then all the rest to be unfolded.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TextIO

from markupsafe import Markup

from emulator.measure.histogram import Histogram
from emulator.measure.vmstat import KERNEL_COUNTERS, OWN_COUNTERS
from scenarios.files.results import (
    AnyResult,
    CheckResults,
    OneRun,
    RunResult,
    StressResult,
    SweepResult,
    Verdict,
)
from scenarios.report.charts import bars_over, lines_over, percentile_curves, stacked
from scenarios.report.comparison import over_seeds
from scenarios.report.figures import duration, number, ratio_of
from scenarios.report.templates import template
from scenarios.runs.document import LATENCIES
from scenarios.subjects.header import project_version
from scenarios.subjects.mmus import with_mmu

MARK: Final = b"<!DOCTYPE html>"
_MOST_CARDS: Final = 50
_FEW: Final = 24
_FLUSHES: Final = {
    "demotion": "tlb_remote_flush_demotion",
    "promotion": "tlb_remote_flush_promotion",
    "scans": "tlb_remote_flush_scan",
}


def write_page(result: AnyResult, into: TextIO) -> None:
    """Write the page. ValueError if the result says what cannot be, as a file from a stranger may."""
    for kind, (name, view) in _VIEWS.items():
        if isinstance(result, kind):
            text = template(name).render(result=result, version=project_version(), **view(result))
            into.write(text)
            return


class Row(NamedTuple):
    """A name, a value for each run, with its ratio to the first one, and what it means."""

    name: str
    cells: tuple[tuple[str, str], ...]
    meaning: str = ""


def _row(
    name: str, values: Sequence[int | None], show: Callable[[int], str] = number, meaning: str = ""
) -> Row:
    cells = [
        ("-" if value is None else show(value), ratio_of(value, values[0]) if place else "")
        for place, value in enumerate(values)
    ]
    return Row(name, tuple(cells), meaning)


def _run(result: RunResult) -> dict[str, Any]:
    runs = result.runs
    totals = [
        _row("accesses", [run.accesses for run in runs]),
        _row("elapsed", [run.elapsed_ns for run in runs], duration),
        _row("remote flushes", [_count(run, "nr_tlb_remote_flush") for run in runs]),
        _row("interrupts taken", [_count(run, "nr_tlb_remote_flush_received") for run in runs]),
    ]
    if all(run.shootdown_share is not None for run in runs):
        shares = [round((run.shootdown_share or 0) * 1e6) for run in runs]
        totals.append(_row("time in shootdowns, of all CPUs", shares, lambda share: f"{share / 1e4:.2f} %"))
    totals += [
        _row("pending folios, peak (pages)", [run.pending_peak for run in runs]),
        _row("violations", [len(run.violations) for run in runs]),
    ]
    return {
        "title": f"{result.scenario}: {', '.join(run.policy for run in runs)}",
        "totals": totals,
        "over_seeds": _over_seeds(result),
        "counters": [*_counters(runs)],
        "charts": _charts(runs),
        "violations": [(run, [*map(_words, run.violations[:_MOST_CARDS])]) for run in runs if run.violations],
        "settings": json.dumps(result.settings, indent=2),
        "host": ", ".join(f"{key} {value}" for key, value in result.host.items()),
        "how": _how(result),
    }


def _over_seeds(result: RunResult) -> tuple[str, list[str], list[list[str]]] | None:
    """Which seeds, the columns and the rows, if there was more than one."""
    if result.repeats is None or len(result.repeats.seeds) < 2:
        return None
    return ", ".join(map(str, result.repeats.seeds)), *over_seeds(result.repeats.values)


def _how(result: RunResult | SweepResult) -> str:
    return (
        f"{result.engine} engine, kernel {result.kernel}, {result.arch}{with_mmu(result.mmu)}, "
        f"{result.cpus} CPUs, seed {result.seed}"
    )


def _words(violation: Any) -> str:
    if isinstance(violation, dict) and {"rule", "text"} <= violation.keys():
        return f"{violation['rule']}: {violation['text']}"
    return violation if isinstance(violation, str) else json.dumps(violation)


def _count(run: OneRun, name: str) -> int:
    return run.vmstat.get(name, 0)


def _counters(runs: Sequence[OneRun]) -> Iterable[Row]:
    """Those that somebody ticked, with where they tick; the kernel's first."""
    names = dict.fromkeys(itertools.chain(KERNEL_COUNTERS, OWN_COUNTERS, *(run.vmstat for run in runs)))
    meanings = {**KERNEL_COUNTERS, **OWN_COUNTERS}
    for name in names:
        counts = [_count(run, name) for run in runs]
        if any(counts):
            yield _row(name, counts, meaning=meanings.get(name, "of the policy's own"))


def _charts(runs: Sequence[OneRun]) -> list[Markup]:
    if not runs:
        return []
    names = [run.policy for run in runs]
    parts = {part: [_count(run, key) for run in runs] for part, key in _FLUSHES.items()}
    known = [sum(counts) for counts in zip(*parts.values(), strict=True)]
    rest = [max(_count(run, "nr_tlb_remote_flush") - told, 0) for run, told in zip(runs, known, strict=True)]
    drawn = [stacked("remote flushes, by what took them", names, {**parts, "others": rest})]
    for kind, meaning in LATENCIES.items():
        curves = {run.policy: _histogram(run, kind).curve() for run in runs if kind in run.ipi_latency_hdr}
        if any(curves.values()):
            drawn.append(percentile_curves(f"IPI {kind.replace('_', ' ')}: {meaning}", curves))
    waited = {run.policy: _allocations(run).curve() for run in runs if "all" in run.allocation_hdr}
    if any(waited.values()):
        drawn.append(percentile_curves("page allocation: from asking for a page to having it", waited))
    cpus = max(len(run.interrupts.get("TLB", ())) for run in runs)
    taken = {run.policy: run.interrupts.get("TLB", []) for run in runs}
    if cpus:
        drawn.append(bars_over("TLB interrupts, by CPU", [str(cpu) for cpu in range(cpus)], taken))
    return drawn


def _histogram(run: OneRun, kind: str) -> Histogram:
    return Histogram.from_hdr(run.ipi_latency_hdr[kind], run.ipi_latency_ns.get(kind, {}).get("max") or 0)


def _allocations(run: OneRun) -> Histogram:
    return Histogram.from_hdr(run.allocation_hdr["all"], run.allocation_ns.get("all", {}).get("max") or 0)


_SWEPT: Final[Mapping[str, tuple[Callable[[OneRun], float], Callable[[float], str]]]] = {
    "elapsed": (lambda run: run.elapsed_ns, lambda ns: duration(round(ns))),
    "remote flushes": (lambda run: _count(run, "nr_tlb_remote_flush"), lambda count: f"{count:,.0f}"),
    "interrupts taken": (
        lambda run: _count(run, "nr_tlb_remote_flush_received"),
        lambda count: f"{count:,.0f}",
    ),
    "time in shootdowns, %": (lambda run: (run.shootdown_share or 0) * 100, lambda share: f"{share:.2f}"),
    "round trip p99": (
        lambda run: run.ipi_latency_ns.get("round_trip", {}).get("p99") or 0,
        lambda ns: duration(round(ns)),
    ),
}


def _sweep(result: SweepResult) -> dict[str, Any]:
    axis, *others = sorted(result.vary, key=lambda key: not _is_numeric(result.vary[key]))
    charts = []
    if _is_numeric(result.vary[axis]):
        for title, (value, show) in _SWEPT.items():
            lines: dict[str, list[tuple[float, float]]] = {}
            for point in result.points:
                name = ", ".join([point.policy, *(f"{key}={point.values.get(key)}" for key in others)])
                place = float(point.values.get(axis, "nan"))
                lines.setdefault(name, []).append((place, value(point.run)))
            charts.append(lines_over(title, axis, {name: sorted(line) for name, line in lines.items()}, show))
    base = {tuple(p.values.items()): p.run for p in result.points if p.policy == result.policies[0]}
    rows = []
    for point in result.points:
        first = base.get(tuple(point.values.items()))
        cells = [show(value(point.run)) for value, show in _SWEPT.values()]
        against = ratio_of(point.run.elapsed_ns, first.elapsed_ns) if first else "-"
        rows.append([*(point.values.get(key, "-") for key in result.vary), point.policy, against, *cells])
    broken = [point for point in result.points if point.run.violations]
    return {
        "title": f"{result.scenario}: {', '.join(result.vary)}",
        "how": f"{_how(result)}, unless varied",
        "charts": charts,
        "columns": [*result.vary, "policy", "elapsed to first", *_SWEPT],
        "rows": rows,
        "broken": [(point, _words(point.run.violations[0])) for point in broken[:_MOST_CARDS]],
    }


def _is_numeric(values: Sequence[str]) -> bool:
    try:
        return all(abs(float(value)) < 1e18 for value in values)
    except ValueError:
        return False


def _check(result: CheckResults) -> dict[str, Any]:
    archs = list(dict.fromkeys(one.arch for one in result.results))
    rows: dict[tuple[str, str, str], dict[str, Verdict]] = {}
    for one in result.results:
        where = f"{one.policy}{with_mmu(one.mmu)}"
        rows.setdefault((one.litmus, where, one.kernel), {})[one.arch] = one
    judged = [one for one in result.results if not one.left_out and not one.error]
    never = [one for one in judged if one.observation == "Never"]
    unexpected = [one for one in result.results if one.error or not one.ok]
    return {
        "title": f"{len(result.results):,} results of {len({one.litmus for one in result.results}):,} tests",
        "archs": archs,
        "rows": [
            (*key, [(arch, _cell(of[arch]) if arch in of else None) for arch in archs])
            for key, of in rows.items()
        ],
        "unexpected": unexpected,
        # What breaks as expected is worth a look where there is little else.
        "shown": unexpected[:_MOST_CARDS] or [one for one in judged if one.witness and len(judged) <= _FEW],
        "never": len(never),
        "proved": sum(one.proof.proved for one in never),
        "seconds": sum(one.elapsed_s for one in result.results),
        "lanes": lambda seen: range(1 + max((step.cpu for step in seen.columns), default=0)),
    }


class Cell(NamedTuple):
    """A verdict in a word, its class on the page, and what to say of it when asked."""

    text: str
    kind: str
    more: str


def _cell(one: Verdict) -> Cell:
    if one.error or one.left_out:
        return Cell(
            "error" if one.error else "left out",
            "bad" if one.error else "dim",
            one.error or one.left_out or "",
        )
    searched = f"{one.proof.states:,} states" if one.proof.states else f"{one.schedules:,} schedules"
    more = f"{searched}, {one.elapsed_s:.1f} s; expected {one.expected or 'nothing'}"
    if not one.ok:
        return Cell(one.observation, "bad", f"{one.reason}; {more}")
    if one.observation == "Sometimes":
        steps = f" ({len(one.witness.columns)})" if one.witness and one.witness.columns else ""
        rule = f"{one.witness.rule}; " if one.witness else ""
        return Cell(f"Sometimes{steps}", "some", f"{rule}{more}")
    return Cell("Never" if one.proof.proved else "Never?", "proved" if one.proof.proved else "seen", more)


def _stress(result: StressResult) -> dict[str, Any]:
    latencies = [
        (policy, LATENCIES.get(kind, kind), summary)
        for policy, kinds in result.ipi_latency_ns.items()
        for kind, summary in kinds.items()
        if summary.get("count")
    ]
    return {
        "title": f"{result.runs:,} runs of {len(result.results):,} targets, disturbed",
        "found": [one for one in result.results if one.rules],
        "latencies": latencies,
    }


_VIEWS: Final[Mapping[type, tuple[str, Callable[[Any], dict[str, Any]]]]] = {
    RunResult: ("run.html", _run),
    SweepResult: ("sweep.html", _sweep),
    CheckResults: ("check.html", _check),
    StressResult: ("stress.html", _stress),
}
