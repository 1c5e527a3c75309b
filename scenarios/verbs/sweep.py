"""The verb `migrc sweep`: timed runs over a grid of settings, kept point by point, shown as one table."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click

from scenarios.report.comparison import Run, duration
from scenarios.report.points import print_sweep
from scenarios.runs.grid import Point, ResultFile, Sweep, SweepDocument, parse_axes, run_point
from scenarios.usage import UsageProblem
from scenarios.workloads.settings import MAX_TIMED_CPUS
from scenarios.workloads.workload_file import load_workload

VIOLATION: Final = 1
INTERRUPTED: Final = 130
MAX_WORKERS: Final = 64

Tell = Callable[[Point, Run, int], None]
"""Called with a point that is through, its run, and how many are."""


@click.command()
@click.argument("scenario")
@click.option(
    "--vary",
    multiple=True,
    required=True,
    metavar="KEY=A,B,C",
    help="Values of cpus, sockets, seed or section.key; repeatable, for a grid.",
)
@click.option(
    "--policy",
    "policies",
    multiple=True,
    default=("immediate", "migrc"),
    show_default=True,
    metavar="P",
    help="Repeat to compare. See `migrc list`.",
)
@click.option(
    "--cpus",
    type=click.IntRange(1, MAX_TIMED_CPUS),
    default=4,
    show_default=True,
    help="Simulated CPUs, unless varied.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    default=0,
    show_default=True,
    help="Of all that is random, unless varied.",
)
@click.option(
    "--arch",
    type=click.Choice(("sc", "x86")),
    default="x86",
    show_default=True,
    help="Which barriers the kernel needs.",
)
@click.option(
    "--trace", type=click.Path(path_type=Path), metavar="FILE", help="For replay: the trace to replay."
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="SECTION.KEY=VALUE",
    help="Replace a value of the workload; repeatable.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, MAX_WORKERS),
    default=1,
    show_default=True,
    help="Processes that share the points (on Ray if more than one).",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Keep every result, a JSON line each; a sweep that is there goes on.",
)
@click.option(
    "--watched", is_flag=True, help="Happens-before judges every step too; takes 2 to 4 times as long."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of the table.")
@click.option("--quiet", is_flag=True, help="No progress on standard error.")
@click.pass_context
def sweep(
    context: click.Context,
    scenario: str,
    vary: tuple[str, ...],
    policies: tuple[str, ...],
    cpus: int,
    seed: int,
    arch: str,
    trace: Path | None,
    overrides: tuple[str, ...],
    workers: int,
    out: Path | None,
    watched: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Run SCENARIO on the timed engine at every point of a grid.

    `--vary cpus=4,16 --vary sockets=1,2` makes four points, each run under every policy. Ctrl-C keeps the
    points that are through, and the same command with the same --out goes on from there.
    """
    for number, name in enumerate(policies):
        if name in policies[:number]:
            raise UsageProblem(f"--policy: {name} is given twice; each policy once")
    whole = Sweep(
        scenario=scenario,
        overrides=overrides,
        axes=parse_axes(vary),
        policies=policies,
        cpus=cpus,
        seed=seed,
        arch=arch,
        trace=None if trace is None else str(trace.resolve()),
        watched=watched,
    )
    whole.check()
    points = whole.points()
    interrupted = False
    with ResultFile(out, whole) as file:
        left = [point for point in points if point not in file.results]
        try:
            with _telling(quiet, whole, len(points)) as tell:
                for point, run in _runs(whole, left, workers):
                    file.add(point, whole.finished(point, run))
                    tell(point, run, len(file.results))
        except KeyboardInterrupt:
            interrupted = True
        document = SweepDocument(
            scenario=load_workload(scenario, overrides).name,
            engine="timed",
            arch=arch,
            cpus=cpus,
            seed=seed,
            vary={axis.key: list(axis.values) for axis in whole.axes},
            policies=list(policies),
            points=[file.results[point] for point in points if point in file.results],
        )
    if interrupted:
        document["interrupted"] = True
    if as_json:
        click.echo(json.dumps(document, indent=2))
    else:
        print_sweep(document, sys.stdout)
    sys.stdout.flush()
    if interrupted:
        click.echo(
            f"migrc: interrupted, {len(document['points'])} of {len(points)} runs are through", err=True
        )
        context.exit(INTERRUPTED)
    if any(point["run"]["violations"] for point in document["points"]):
        context.exit(VIOLATION)


def _runs(whole: Sweep, points: Sequence[Point], workers: int) -> Iterator[tuple[Point, Run]]:
    """Every point with its run, as they finish."""
    count = min(workers, len(points))
    if count <= 1:
        for point in points:
            yield point, run_point(whole, point)
        return
    # Ray takes a second to import.
    from actors.errors import SessionError
    from scenarios.runs.grid_workers import SweepWorkers

    try:
        with SweepWorkers(count, os.getcwd()) as pool:
            yield from pool.results(whole, points)
    except SessionError as problem:
        raise UsageProblem(f"--workers: {problem}") from None


@contextmanager
def _telling(quiet: bool, whole: Sweep, planned: int) -> Iterator[Tell]:
    """A bar if standard error is a terminal, else a line for each run."""
    if quiet:
        yield lambda point, run, done: None
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (
            TextColumn("sweep"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[text]}", markup=False),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
            task = bars.add_task("", total=planned, text="")
            yield lambda point, run, done: bars.update(task, completed=done, text=_name(whole, point))
    else:

        def tell(point: Point, run: Run, done: int) -> None:
            text = f"{_name(whole, point)}: {duration(run['elapsed_ns'])}"
            click.echo(f"migrc: {done} of {planned}: {text}", err=True)

        yield tell


def _name(whole: Sweep, point: Point) -> str:
    values = (f"{axis.key}={value}" for axis, value in zip(whole.axes, point.values, strict=True))
    return " ".join((*values, point.policy))
