"""The verb `migrc sweep`: timed runs over a grid of settings, kept point by point, shown as one table."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from actors.errors import SessionError
from scenarios.report.console import print_json
from scenarios.report.figures import duration
from scenarios.report.points import print_sweep
from scenarios.runs.document import Run, stop
from scenarios.runs.grid import Point, ResultFile, Sweep, parse_axes, run_point, told_point
from scenarios.usage import HostProblem, UsageProblem
from scenarios.verbs import exits, options, pages
from scenarios.verbs.bars import bars
from scenarios.verbs.pages import Page
from scenarios.workloads.settings import MAX_TIMED_CPUS


@click.command()
@click.argument("scenario", shell_complete=options.scenarios)
@click.option(
    "--vary",
    multiple=True,
    required=True,
    metavar="KEY=A,B,C",
    help="Values of cpus, sockets, seed or section.key; repeatable, for a grid. 1024*cpus: of each.",
)
@options.policies("Repeat to compare.", ("immediate", "migrc"))
@options.cpus(MAX_TIMED_CPUS, "Simulated CPUs, unless varied.")
@options.seed("Of all that is random, unless varied.")
@options.arch
@options.mmu
@options.trace
@options.overrides
@options.workers("Processes that share the points (on Ray if more than one, or with --address).")
@options.address
@click.option(
    "--out",
    type=options.FILE,
    metavar="FILE",
    help="Keep every result, a JSON line each; a sweep that is there goes on.",
)
@click.option(
    "--watched", is_flag=True, help="Happens-before judges every step too; takes 2 to 4 times as long."
)
@pages.html
@options.json_
@options.quiet
def sweep(
    vary: tuple[str, ...],
    trace: Path | None,
    workers: int,
    address: str | None,
    out: Path | None,
    html: Page,
    as_json: bool,
    quiet: bool,
    **settings: Any,
) -> int:
    """Run SCENARIO on the timed engine at every point of a grid.

    `--vary cpus=4,16 --vary sockets=1,2` makes four points, each run under every policy. Ctrl-C keeps the
    points that are through, and the same command with the same --out goes on from there.
    """
    whole = Sweep(axes=parse_axes(vary), trace=None if trace is None else trace.resolve(), **settings)
    whole.check()
    points = whole.points()
    with ResultFile(out, whole) as file:
        left = [point for point in points if point not in file.results]
        document = whole.document([])

        def tell(stopped: str) -> None:
            stop(document, stopped)
            document["points"] = [file.results[point] for point in points if point in file.results]
            if as_json:
                print_json(document)
            elif document["points"] or stopped in ("", "interrupted"):
                print_sweep(document, sys.stdout)
            if document["points"]:
                html.write(lambda: document)

        def done() -> str:
            return f", {len(document['points'])} of {len(points)} runs are through"

        with exits.told(tell, done), bars(quiet) as news:
            for point, run in _runs(whole, left, workers, address):
                file.add(point, whole.finished(point, run))
                through, name = len(file.results), whole.name(point)
                news.show("sweep", through / len(points), f"{through}/{len(points)} {name}")
                if not news.drawn:
                    elapsed = duration(run["elapsed_ns"])
                    news.line(f"migrc: {through} of {len(points)}: {name}: {elapsed}")
    broken = any(point["run"]["violations"] for point in document["points"])
    return html.code(exits.VIOLATION if broken else 0)


def _runs(
    whole: Sweep, points: Sequence[Point], workers: int, address: str | None
) -> Iterator[tuple[Point, Run]]:
    """Every point with its run, as they finish."""
    count = min(workers, len(points))
    if count <= 1 and (address is None or not count):
        for point in points:
            yield point, run_point(whole.subject(point), whole.watched)
        return
    # Ray takes a second to import.
    from actors.worker_pool import Worker, WorkerPool

    def begin(worker: Any, point: Point) -> Any:
        return worker.call.remote(told_point, whole.subject(point), whole.watched)

    try:
        with WorkerPool(Worker, "sweep", count, os.getcwd(), address) as pool:
            for point, told in pool.answers(points, begin):
                if isinstance(told, str):
                    raise UsageProblem(told)
                yield point, told
    except SessionError as problem:
        raise HostProblem(f"{'--address' if address else '--workers'}: {problem}") from None
