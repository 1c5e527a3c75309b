"""The verb `migrc check`: litmus tests, searched for broken rules, judged against what they expect."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from emulator.explore.strategies import STRATEGIES, UnknownStrategy, find_strategy
from emulator.hardware.ordering import ARCHITECTURES
from scenarios.drawing.columns import DEFAULT_WIDTH
from scenarios.litmus import LITMUS
from scenarios.report import verdicts as report
from scenarios.runs.searches import EXHAUSTIVE, results
from scenarios.runs.verdict import Job, Result, Settings, plan
from scenarios.subjects.programs import LitmusName, litmus_named, policy_factory, unique
from scenarios.usage import UsageProblem

if TYPE_CHECKING:
    from actors.search_workers import SearchWorkers

UNEXPECTED: Final = 1
INTERRUPTED: Final = 130
MAX_WORKERS: Final = 64
SCHEDULES: Final = 5_000
SCHEDULES_ALL: Final = 1_500
STATES_ALL: Final = 20_000
SEED: Final = click.IntRange(0, 2**63 - 1)
COUNT: Final = click.IntRange(1, 10**9)

Tell = Callable[[Result], None]


class Seconds(click.FloatRange):
    """A time that is more than 0 and ends."""

    def __init__(self) -> None:
        super().__init__(0, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number. click's own error if it is none."""
        seconds = float(super().convert(value, param, ctx))
        if not math.isfinite(seconds):
            self.fail(f"{value} is no time; a number of seconds", param, ctx)
        return seconds


@click.command()
@click.argument("names", nargs=-1, metavar="NAME...")
@click.option("--all", "every", is_flag=True, help="Every shipped litmus test.")
@click.option(
    "--policy",
    "policies",
    multiple=True,
    metavar="P",
    help="Instead of the policies that the test expects something of; repeatable.",
)
@click.option(
    "--arch",
    "archs",
    multiple=True,
    type=click.Choice(list(ARCHITECTURES)),
    help="Instead of the architectures that the test expects something of; repeatable.",
)
@click.option(
    "--strategy",
    default="portfolio",
    show_default=True,
    metavar="S",
    help=f"{', '.join(STRATEGIES)} (also pct:DEPTH, delay:BOUND), or {EXHAUSTIVE}.",
)
@click.option(
    "--schedules",
    type=COUNT,
    help="Runs for each result; an exhaustive search has no such limit.  [default: 5000; 1500 with --all]",
)
@click.option("--steps", type=COUNT, default=10_000, show_default=True, help="Steps for each run, at most.")
@click.option("--seconds", type=Seconds(), help="For each result, at most.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of all that is random.")
@click.option(
    "--workers",
    type=click.IntRange(1, MAX_WORKERS),
    default=1,
    show_default=True,
    help="Processes that share the runs of each result (on Ray); an exhaustive search uses one.",
)
@click.option(
    "--states",
    type=COUNT,
    help="Of a search of every interleaving, at most.  "
    "[default: 150000 within the portfolio, 20000 with --all; 20000000 if exhaustive]",
)
@click.option(
    "--save",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("witnesses"),
    show_default=True,
    metavar="DIR",
    help="Where witness files go.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--ktap", "as_ktap", is_flag=True, help="Print KTAP, version 1.")
@click.option("-v", "--verbose", is_flag=True, help="Columns for expected violations too.")
@click.pass_context
def check(
    context: click.Context,
    names: tuple[str, ...],
    every: bool,
    policies: tuple[str, ...],
    archs: tuple[str, ...],
    strategy: str,
    schedules: int | None,
    steps: int,
    seconds: float | None,
    seed: int,
    workers: int,
    states: int | None,
    folder: Path,
    as_json: bool,
    as_ktap: bool,
    verbose: bool,
) -> None:
    """Search litmus tests for broken rules.

    NAME is a shipped test (see `migrc list`), a wildcard over them, or a .py file with tests of your own
    (FILE.py:NAME for one of several). Exit code 1 if a verdict is not the expected one.
    """
    if as_json and as_ktap:
        raise UsageProblem("--json and --ktap: one or the other")
    _known_strategy(strategy)
    jobs = plan(_tests(names, every), _each_once("--policy", policies), _each_once("--arch", archs))
    for policy in dict.fromkeys(job.policy for job in jobs):
        policy_factory(policy)
    if schedules is None:
        schedules = SCHEDULES_ALL if every else SCHEDULES
    if states is None and every and strategy != EXHAUSTIVE:
        states = STATES_ALL
    settings = Settings(strategy, schedules, steps, seconds, seed, folder, states)
    many = every or len(jobs) > 1
    finished: list[Result] = []
    tell = _teller(len(jobs), many, as_json, as_ktap, verbose)
    try:
        interrupted = _run_all(jobs, settings, workers, finished, tell)
    except UsageProblem as problem:
        if as_ktap and finished:
            click.echo(f"Bail out! {' '.join(problem.message.split())}")
        if as_json and finished:
            click.echo(json.dumps({**_document(finished, True, False), "stopped": problem.message}, indent=2))
        raise
    if as_json:
        click.echo(json.dumps(_document(finished, many, interrupted), indent=2))
    elif as_ktap:
        if interrupted:
            click.echo("Bail out! interrupted")
    elif many or interrupted:
        click.echo(report.summary(finished, len(jobs)))
    if interrupted:
        click.echo("migrc: interrupted", err=True)
        context.exit(INTERRUPTED)
    if not all(result.ok for result in finished):
        context.exit(UNEXPECTED)


def terminal_width() -> int:
    """How wide text may be: the terminal, or a fixed width where there is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else DEFAULT_WIDTH


def _known_strategy(name: str) -> None:
    if name == EXHAUSTIVE:
        return
    try:
        find_strategy(name)
    except UnknownStrategy as problem:
        raise UsageProblem(f"--strategy: {problem}, or {EXHAUSTIVE}") from None


def _tests(names: Sequence[str], every: bool) -> list[LitmusName]:
    if every and names:
        raise UsageProblem("--all and a name: one or the other")
    if every:
        if not LITMUS:
            raise UsageProblem("--all: no litmus tests are shipped")
        return [LitmusName(name) for name in LITMUS]
    if not names:
        raise UsageProblem("name a litmus test, a .py file, or --all; migrc list shows what there is")
    return unique([test for name in names for test in litmus_named(name)])


def _each_once(option: str, values: Sequence[str]) -> Sequence[str]:
    for number, value in enumerate(values):
        if value in values[:number]:
            raise UsageProblem(f"{option}: {value} is given twice; each once")
    return values


def _teller(planned: int, many: bool, as_json: bool, as_ktap: bool, verbose: bool) -> Tell:
    """Prints a result as soon as it is known, where the form lets it."""
    number = 0

    def tell(result: Result) -> None:
        nonlocal number
        number += 1
        if as_json:
            return
        if as_ktap:
            lines = [*report.ktap_head(planned)] if number == 1 else []
            lines += report.ktap(result, number)
        else:
            details = verbose or not many or not result.ok
            lines = [*report.in_words(result, details, terminal_width())]
        click.echo("\n".join(lines))

    return tell


def _run_all(
    jobs: Sequence[Job], settings: Settings, workers: int, finished: list[Result], tell: Tell
) -> bool:
    """Every job, each told when it is through; whether Ctrl-C ended it."""
    try:
        with _pool(workers, settings) as pool, _progress(jobs, settings) as (look, aside):
            for result in results(jobs, settings, pool, look):
                finished.append(result)
                with aside():
                    tell(result)
    except KeyboardInterrupt:
        return True
    return False


@contextmanager
def _pool(workers: int, settings: Settings) -> Iterator[SearchWorkers | None]:
    """Worker processes, if more than one is asked for and can be used."""
    if workers == 1 or settings.strategy == EXHAUSTIVE:
        yield None
        return
    # Ray takes a second to import.
    from actors.errors import SessionError
    from actors.search_workers import SearchWorkers

    try:
        with SearchWorkers(workers, os.getcwd()) as pool:
            yield pool
    except SessionError as problem:
        raise UsageProblem(f"--workers: {problem}") from None


@contextmanager
def _progress(
    jobs: Sequence[Job], settings: Settings
) -> Iterator[tuple[Callable[[Job, int], None], Callable[[], AbstractContextManager[None]]]]:
    """A line on standard error while something is searched, if that is a terminal.

    What is to be called with news, and what clears the line for as long as something else is printed.
    """
    if not sys.stderr.isatty():
        yield lambda job, done: None, nullcontext
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[text]}", markup=False),
        TimeElapsedColumn(),
    )
    numbers = {id(job): number for number, job in enumerate(jobs)}
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("", total=len(jobs), text="")

        def look(job: Job, done: int) -> None:
            share = 0.0 if settings.strategy == EXHAUSTIVE else done / settings.schedules
            bars.update(
                task,
                completed=numbers[id(job)] + share,
                description=f"{job.test.name} {job.policy} {job.arch}",
                text=f"{done:,} schedules" if done else "",
            )

        @contextmanager
        def aside() -> Iterator[None]:
            bars.stop()
            try:
                yield
            finally:
                bars.start()

        yield look, aside


def _document(finished: Sequence[Result], many: bool, interrupted: bool) -> dict[str, object]:
    found = [report.as_json(result) for result in finished]
    if interrupted:
        return {"results": found, "interrupted": True}
    return {"results": found} if many else found[0]
