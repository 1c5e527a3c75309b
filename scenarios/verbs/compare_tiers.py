"""`migrc compare tiers`: a tiering program on a real kernel beside the same program here, ratio by ratio."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import click

from emulator.kernel.versions import VERSIONS
from scenarios.disk import file_problems, whole_file
from scenarios.linux import tier_counts
from scenarios.linux.recorder.tiers import Program, record_tiers
from scenarios.linux.tier_reasons import REASONS
from scenarios.report.console import plain_console, plain_table, print_json
from scenarios.subjects.subject import Subject
from scenarios.usage import UsageProblem
from scenarios.verbs import exits, options
from scenarios.verbs.bars import bars
from scenarios.workloads.settings import Workload
from scenarios.workloads.workload_file import load_workload
from scenarios.workloads.xsbench import XsbenchWorkload

WORKLOAD: Final = "tiering-recorded"
CPUS: Final = 4
MACHINES: Final = {
    "6.1": ("memory.fast_pages=75966", "memory.min_free_pages=156", "costs.ipi_deliver_ns=35000"),
}
"""What the recorded machine of a version had or took, where that is not what the workload says."""


@click.command()
@click.option(
    "--kernel", type=click.Choice(tuple(VERSIONS)), default="6.12", show_default=True, help="Which version."
)
@click.option(
    "--record", is_flag=True, help="First record the version under QEMU, in place of the shipped one."
)
@click.option(
    "--packages",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="For --record: where the kernel's package is; without it apt is asked.",
)
@click.option("--runs", type=click.IntRange(1, 20), default=3, show_default=True, help="To record.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the lookups here.")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="SECTION.KEY=VALUE",
    help=f"Replace a value of the workload {WORKLOAD}, such as scale=8; repeatable.",
)
@options.json_
@options.quiet
def tiers(
    kernel: str,
    record: bool,
    packages: Path | None,
    runs: int,
    seed: int,
    overrides: tuple[str, ...],
    as_json: bool,
    quiet: bool,
) -> int:
    """Put what a tiering program counted on Linux beside the same program on the timed engine.

    Sizes are as recorded (scale=1, some minutes). Exit code 1 if a ratio is further than 20 per cent from all
    recorded runs and no reason is known.
    """
    if record:
        _record(kernel, runs, packages, quiet)
    elif packages is not None:
        raise UsageProblem("--packages: only for --record")
    known = tier_counts.recorded_tiers()
    if kernel not in known:
        raise UsageProblem(f"--kernel {kernel}: not recorded; {', '.join(known)}, or --record")
    recording = tier_counts.read_tiers(tier_counts.tiers_path(kernel))
    workload = load_workload(
        WORKLOAD, ["scale=1", f'kernel.version="{kernel}"', *MACHINES.get(kernel, ()), *overrides]
    )
    found = tier_counts.beside(recording, [_counted(workload, seed, quiet)])
    reasons = REASONS.get(kernel, {})
    if as_json:
        rows = [{**one._asdict(), "near": one.near, "reason": reasons.get(one.name, "")} for one in found]
        print_json({"kernel": kernel, "recorded": recording.about, "seed": seed, "ratios": rows})
    else:
        console = plain_console(sys.stdout)
        console.print(
            f"Linux {recording.about.get('kernel', kernel)}, {len(recording.runs)} runs; ours, seed {seed}\n"
        )
        table = plain_table(["", "Linux", "least", "most", "ours", "ratio", "is"], left=["", "is"])
        for one in found:
            verdict = "near" if one.near else "known" if one.name in reasons else "FAR"
            figures = (f"{value:.3g}" for value in (one.linux, one.least, one.most, one.ours))
            table.add_row(one.name, *figures, f"{one.ours / one.linux:.2f}" if one.linux else "-", verdict)
        console.print(table)
        for one in found:
            if not one.near and one.name in reasons:
                console.print(f"\n{one.name}: {reasons[one.name]}")
    far = [one for one in found if not one.near and one.name not in reasons]
    return exits.VIOLATION if far else 0


def _counted(workload: Workload, seed: int, quiet: bool) -> tier_counts.Counts:
    """What the same program counts here."""
    from scenarios.runs.timed import timed_run

    with bars(quiet) as news:
        run, _ = timed_run(Subject(workload, "immediate", "x86", CPUS, seed), False, news.show)
    counts: dict[str, float] = dict(run["vmstat"])
    counts |= {f"{tier_counts.INTERRUPTS}{cpu}": n for cpu, n in enumerate(run["interrupts"]["TLB"])}
    return tier_counts.with_tables(counts, workload.kernel.numa_scan_pages)


def _record(kernel: str, runs: int, packages: Path | None, quiet: bool) -> None:
    workload = load_workload(WORKLOAD, ["scale=1"])
    assert isinstance(workload, XsbenchWorkload)
    own = workload.xsbench
    program = Program(
        own.grid_pages,
        own.index_pages,
        own.lookups * CPUS,
        own.lookups_at_once,
        own.grid_reads,
        workload.kernel.numa_scan_pages,
    )
    with bars(quiet) as news:
        recording = record_tiers(
            kernel,
            program,
            runs,
            packages,
            lambda done: news.show("record", done / runs, f"{done} of {runs}"),
        )
    path = tier_counts.tiers_path(kernel)
    with file_problems(f"{path}: cannot be written", "a folder of your own"), whole_file(path) as file:
        file.write(tier_counts.tiers_text(recording).encode())
