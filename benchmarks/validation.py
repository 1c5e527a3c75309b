"""The tables of docs/validation.md: what the first posting measured beside what the emulator counts.

`python benchmarks/validation.py table [--scale N] [--seed N]` puts both side by side on the timed engine;
`saved` shows what each policy saves, with the spread of three seeds; `live` runs live actors beside the timed
engine, both with what the workload sets for live runs; `sensitivity` shows what the reductions depend on.
Minutes each, all print markdown. A real kernel stands beside the same program in `migrc compare tiers`.
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
SENSITIVITY_SCALE = 256

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

# What `saved` shows of each policy.
SAVED = (
    "pgdemote_kswapd",
    "numa_pages_migrated",
    "nr_tlb_remote_flush",
    "nr_tlb_remote_flush_received",
    "tlb_remote_flush_demotion",
    "tlb_remote_flush_scan",
    "migrc_deferred",
    "migrc_flushes",
    "elapsed_s",
)

# What is varied, one at a time: each beside the value of the scenario.
VARIED = (
    ("scale", (64, 128, 512)),
    ("kernel.swap_cluster_max", (16, 64)),
    ("kernel.sched_slice_batches", (1, 32)),
    ("kernel.numa_scan_period_accesses", (6384120, 25536480)),
    ("kernel.migration_entry_ad", ("true",)),
    ("kernel.numa_hot_threshold_accesses", (12768240,)),
    ("kernel.page_table_frames", ("true",)),
    ("memory.min_free_pages", (1448,)),
    ("xsbench.lookups", (2125000, 8500000)),
    ("costs.cache_misses_per_1000", (190,)),
    ("costs.ipi_deliver_ns", (5000,)),
    ("costs.page_slow_ns", (4000,)),
)

RECORDED_SCENARIO = "tiering-recorded"
ALL_POLICIES = ("immediate", "migrc:rfc2", "migrc", "migrc:v9")


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


def policies(scenario: str, scale: int, seeds: range, *settings: str) -> None:
    """What each policy saves: the middle one of the seeds, and the least and the most of their changes."""
    runs = [
        run("timed", ALL_POLICIES, f"scale={scale}", *settings, seed=seed, scenario=scenario)["runs"]
        for seed in seeds
    ]
    print(f"| scale {scale}, seeds {seeds[0]} to {seeds[-1]} | {' | '.join(ALL_POLICIES)} |")
    print("|---" * (len(ALL_POLICIES) + 1) + "|")
    for name in SAVED:
        cells = []
        for which, _ in enumerate(ALL_POLICIES):
            pairs = [(_value(one[0], name), _value(one[which], name)) for one in runs]
            middle = sorted(after for _, after in pairs)[len(pairs) // 2]
            text = f"{middle * 1e3:.1f} ms" if name == "elapsed_s" else f"{middle:,.0f}"
            if which and all(before for before, _ in pairs):
                changes = sorted(100 * (after - before) / before for before, after in pairs)
                digits = 1 if name == "elapsed_s" else 0
                text += f" ({changes[0]:+.{digits}f} to {changes[-1]:+.{digits}f} %)"
            cells.append(text)
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def _value(one: dict[str, Any], name: str) -> float:
    return float(one[name] if name == "elapsed_s" else one["vmstat"][name])


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
    parser.add_argument("what", choices=("table", "live", "sensitivity", "saved"))
    parser.add_argument("--scale", type=int, help="of table; the workload's own unless given")
    parser.add_argument("--seed", type=int, default=0, help="of table")
    arguments = parser.parse_args()
    if arguments.what == "sensitivity":
        sensitivity()
    elif arguments.what == "live":
        live()
    elif arguments.what == "saved":
        policies(SCENARIO, 128, range(3))
        print()
        policies(RECORDED_SCENARIO, 16, range(3), 'kernel.version="6.12"')
    else:
        table(arguments.scale, arguments.seed)


if __name__ == "__main__":
    main()
