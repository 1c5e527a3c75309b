"""The tables of docs/validation.md: what the first posting measured beside what the emulator counts.

`python benchmarks/validation.py table [--scale N] [--seed N]` puts both side by side on the timed engine
(four minutes); `live` runs live actors beside the timed engine, both with what the workload sets for live
runs (ten minutes); `sensitivity` shows what the reductions depend on (fifteen minutes); `linux` puts what was
recorded of a tiering program on real kernels beside the same program here (six minutes). All print markdown.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SCENARIO = "xsbench-rfc"
POLICIES = ("immediate", "migrc:rfc2")
SENSITIVITY_SCALE = 128

# RFC v1 and v2 of the MIGRC patches, cover letters: QEMU/KVM, 4 CPUs, 2 GB + 6 GB, v6.4, XSBench.
POSTED = {
    "pgdemote_kswapd": (1_052_596, 1_044_602),
    "numa_pages_migrated": (1_052_359, 1_044_202),
    "pgmigrate_success": (2_161_846, 2_157_808),
    "nr_tlb_remote_flush": (72_370, 30_453),
    "nr_tlb_remote_flush_received": (213_711, 88_840),
    "nr_tlb_local_flush_all": (3_385, 3_039),
    "nr_tlb_local_flush_one": (198_679, 198_875),
}
POSTED_ELAPSED_S = (33.50, 30.40)
POSTED_CPU_S = (92.852 + 10.527, 80.331 + 10.304)
CPUS = 4

# What is varied, one at a time: each beside the value of the scenario.
VARIED = (
    ("scale", (32, 64, 256, 512)),
    ("kernel.swap_cluster_max", (16, 64)),
    ("kernel.sched_slice_batches", (2, 32)),
    ("kernel.numa_scan_period_accesses", (6384120, 25536480)),
    ("kernel.migration_entry_ad", ("false",)),
    ("memory.min_free_pages", (362, 1448)),
    ("xsbench.lookups", (2125000, 8500000)),
    ("xsbench.lookups_at_once", (34, 340000)),
    ("costs.cache_misses_per_1000", (190, 760)),
    ("costs.ipi_deliver_ns", (200, 5000)),
    ("costs.page_slow_ns", (400, 4000)),
)

RECORDED_SCENARIO = "tiering-recorded"
PAGES_OF_TABLE = 512
ALL_HOT = "kernel.numa_hot_threshold_accesses=1000000000000"
# For each table its title, the settings of the run, and what was recorded, in the order of `ratios`.
RECORDED: tuple[tuple[str, tuple[str, ...], tuple[float | None, ...]], ...] = (
    (
        "6.12, hot = 1 period",
        ('kernel.version="6.12"',),
        (42_169, 43_703, 6_142, 18_299, 2.98, 7.1, 0.146, 0.036, 0.325, 0.0024, 0.88, 0.52, 0.70, 6.1, 0.25),
    ),
    (
        "6.12, all hot",
        ('kernel.version="6.12"', ALL_HOT),
        (18_546, 20_145, 4_134, 11_950, 2.89, 5.2, 0.223, 0.13, 0.65, 0.019, 0.95, 0.22, 0.22, 10.0, 0.26),
    ),
    (
        "6.1, all hot",
        ('kernel.version="6.1"', ALL_HOT),
        (14_560, 15_257, 15_652, 45_977, 2.94, 1, 1.075, None, 0.175, None, 0.74, 0.10, 0.10, 11.2, None),
    ),
)


def run(
    engine: str, policies: tuple[str, ...], *settings: str, seed: int = 0, scenario: str = SCENARIO
) -> dict[str, Any]:
    """One run of the scenario, its JSON document."""
    command = [sys.executable, "-m", "scenarios", "run", scenario, "--engine", engine, "--json"]
    command += ["--cpus", str(CPUS), "--seed", str(seed)]
    command += [word for policy in policies for word in ("--policy", policy)]
    command += [word for setting in settings for word in ("--set", setting)]
    if engine == "live":
        command.append("--unwatched")
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def change(before: float, after: float, digits: int = 0) -> str:
    """How much less, in per cent."""
    return f"{100 * (after - before) / before:+.{digits}f} %" if before else "-"


def lookups_s(elapsed: float, cpu: float) -> float:
    """How long all CPUs worked if one worked alone before: both parts make up elapsed and CPU time."""
    return (cpu - elapsed) / (CPUS - 1)


def table(scale: int | None, seed: int) -> None:
    """Posted and counted side by side; counts as they are, not multiplied by the scale."""
    settings = () if scale is None else (f"scale={scale}",)
    divisor = _shipped_scale() if scale is None else scale
    first, second = run("timed", POLICIES, *settings, seed=seed)["runs"]
    print("| | posted, before | with MIGRC | | ours, immediate | migrc:rfc2 | |")
    print("|---|---|---|---|---|---|---|")
    for name, (before, after) in POSTED.items():
        ours = first["vmstat"][name], second["vmstat"][name]
        cells = [f"{before:,}", f"{after:,}", change(before, after)]
        cells += [f"{ours[0]:,}", f"{ours[1]:,}", change(*ours)]
        print(f"| {name} | {' | '.join(cells)} |")
    ratios = [
        counts["nr_tlb_remote_flush_received"] / counts["nr_tlb_remote_flush"]
        for counts in (first["vmstat"], second["vmstat"])
    ]
    print(f"| received / remote | 2.95 | 2.92 | | {ratios[0]:.2f} | {ratios[1]:.2f} | |")
    posted = [lookups_s(*one) for one in zip(POSTED_ELAPSED_S, POSTED_CPU_S, strict=True)]
    times = [one["elapsed_s"] * divisor for one in (first, second)]
    cells = [f"{posted[0]:.1f} s", f"{posted[1]:.1f} s", change(posted[0], posted[1])]
    cells += [f"{times[0]:.1f} s", f"{times[1]:.1f} s", change(times[0], times[1], digits=1)]
    print(f"| posted: lookups; ours: elapsed times {divisor} | {' | '.join(cells)} |")


def _shipped(scenario: str) -> dict[str, Any]:
    path = ROOT / "scenarios" / "workloads" / f"{scenario}.toml"
    return tomllib.loads(path.read_text())


def _shipped_scale() -> int:
    return int(_shipped(SCENARIO)["scale"])


def ratios(counts: dict[str, int], interrupts: list[int]) -> dict[str, float]:
    """What is compared of one run; counts are multiplied by what its sizes were divided by."""
    shipped = _shipped(RECORDED_SCENARIO)
    scale = int(shipped["scale"])
    tables = counts["numa_scans"] * shipped["kernel"]["numa_scan_pages"] / scale / PAGES_OF_TABLE
    remote = counts["nr_tlb_remote_flush"]
    demoted = counts["pgdemote_kswapd"]
    promoted = counts["pgpromote_success"]
    hints = counts["numa_hint_faults"]
    flushes = counts["tlb_remote_flush_demotion"]
    return {
        "pgdemote_kswapd": scale * demoted,
        "pgpromote_success": scale * promoted,
        "nr_tlb_remote_flush": scale * remote,
        "nr_tlb_remote_flush_received": scale * counts["nr_tlb_remote_flush_received"],
        "received / remote": counts["nr_tlb_remote_flush_received"] / remote,
        "pages per demotion flush": demoted / flushes,
        "remote flushes per demoted page": remote / demoted,
        "flushes that are not demotion's": 1 - flushes / remote,
        "scanner's flushes per page table": counts["tlb_remote_flush_scan"] / tables,
        "promotion's flushes per promotion": counts["tlb_remote_flush_promotion"] / promoted,
        "hint faults per marked entry": hints / counts["numa_pte_updates"],
        "promotions per hint fault": promoted / hints,
        "promotions per hot page": promoted / max(1, counts["pgpromote_candidate"]),
        "pages scanned per demoted": counts["pgscan"] / demoted,
        "interrupts of the CPU with most": max(interrupts) / sum(interrupts),
    }


def linux() -> None:
    """What real kernels did beside the same program here, and what each policy saves of it."""
    for title, settings, recorded in RECORDED:
        document = run("timed", POLICIES[:1], *settings, scenario=RECORDED_SCENARIO)
        (one,) = document["runs"]
        print(f"| {title} | recorded | ours | ratio |\n|---|---|---|---|")
        for (name, ours), linux_did in zip(
            ratios(one["vmstat"], one["interrupts"]["TLB"]).items(), recorded, strict=True
        ):
            ratio = "" if linux_did is None else f"{ours / linux_did:.2f}"
            print(f"| {name} | {_figure(linux_did)} | {_figure(ours)} | {ratio} |")
        print(flush=True)
    policies = ("immediate", "migrc:rfc2", "migrc", "migrc:v9")
    runs = run("timed", policies, scenario=RECORDED_SCENARIO)["runs"]
    first = runs[0]
    print("| policy | remote | received | demotion's | scans' | elapsed |")
    print("|---|---|---|---|---|---|")
    for one in runs:
        names = (
            "nr_tlb_remote_flush",
            "nr_tlb_remote_flush_received",
            "tlb_remote_flush_demotion",
            "tlb_remote_flush_scan",
        )
        cells = [f"{one['vmstat'][name]:,}" for name in names] + [f"{one['elapsed_s'] * 1e3:.1f} ms"]
        if one is not first:
            changes = [change(first["vmstat"][name], one["vmstat"][name]) for name in names]
            changes.append(change(first["elapsed_s"], one["elapsed_s"], digits=1))
            cells = [f"{cell} ({by})" for cell, by in zip(cells, changes, strict=True)]
        print(f"| {one['policy']} | {' | '.join(cells)} |", flush=True)


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def live() -> None:
    """The same settings on both engines, unwatched live; counts as they are."""
    lively = run("live", POLICIES)
    settings = [f"{key}={value}" for key, value in lively["live_settings"].items()]
    pairs = [run("timed", POLICIES, *settings)["runs"], lively["runs"]]
    print("| | timed, immediate | migrc:rfc2 | | live, immediate | migrc:rfc2 | |")
    print("|---|---|---|---|---|---|---|")
    for name in POSTED:
        cells = []
        for first, second in pairs:
            ours = first["vmstat"][name], second["vmstat"][name]
            cells += [f"{ours[0]:,}", f"{ours[1]:,}", change(*ours)]
        print(f"| {name} | {' | '.join(cells)} |")


def sensitivity() -> None:
    """What the reductions depend on: one setting at a time, at a smaller scale."""
    print("| setting | demoted | remote | received | received / remote | elapsed |")
    print("|---|---|---|---|---|---|")
    cases = [("as shipped", "")]
    cases += [(f"{key} = {value}", f"{key}={value}") for key, values in VARIED for value in values]
    for label, setting in cases:
        settings = [setting] if setting else []
        if not setting.startswith("scale"):
            settings.insert(0, f"scale={SENSITIVITY_SCALE}")
        runs = run("timed", POLICIES, *settings)["runs"]
        first, second = (one["vmstat"] for one in runs)
        remote, received = "nr_tlb_remote_flush", "nr_tlb_remote_flush_received"
        cells = [
            f"{first['pgdemote_kswapd']:,}",
            change(first[remote], second[remote]),
            change(first[received], second[received]),
            f"{first[received] / max(1, first[remote]):.2f}",
            change(runs[0]["elapsed_s"], runs[1]["elapsed_s"], digits=1),
        ]
        print(f"| {label} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Print one of the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=("table", "live", "sensitivity", "linux"))
    parser.add_argument("--scale", type=int, help="of table; the workload's own unless given")
    parser.add_argument("--seed", type=int, default=0, help="of table")
    arguments = parser.parse_args()
    if arguments.what == "sensitivity":
        sensitivity()
    elif arguments.what == "live":
        live()
    elif arguments.what == "linux":
        linux()
    else:
        table(arguments.scale, arguments.seed)


if __name__ == "__main__":
    main()
