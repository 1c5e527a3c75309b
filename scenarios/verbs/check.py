"""The verb `migrc check`: litmus tests, searched for broken rules, judged against what they expect."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource

from actors.errors import SessionError
from actors.signals import Terminated
from emulator.explore.strategies import STRATEGIES, UnknownStrategy, find_strategy
from emulator.kernel.versions import DEFAULT, VERSIONS
from scenarios.disk import file_problems
from scenarios.history import BUGS
from scenarios.report import extent
from scenarios.report import verdicts as report
from scenarios.report.console import print_json, terminal_width
from scenarios.report.summary import load_baseline, unexpected
from scenarios.runs.document import stop
from scenarios.runs.harm_search import harm_of
from scenarios.runs.proofs import INTERRUPTED, TERMINATED
from scenarios.runs.searches import EXHAUSTIVE, results
from scenarios.runs.trust import conformance_of, trust
from scenarios.runs.verdict import Job, Result, Settings, plan, plan_of_history
from scenarios.subjects.named import bugs_named, tests_named
from scenarios.subjects.programs import LitmusName
from scenarios.subjects.rules import heed
from scenarios.usage import HostProblem, InternalProblem, UsageProblem
from scenarios.verbs import exits, options, pages
from scenarios.verbs.bars import bars
from scenarios.verbs.pages import Page

if TYPE_CHECKING:
    from actors.search_workers import SearchWorkers

SCHEDULES: Final = 5_000
SCHEDULES_ALL: Final = 1_500
STATES_ALL: Final = 800_000
STATES_BEYOND: Final = 100_000


@click.command()
@click.argument("names", nargs=-1, metavar="NAME...", shell_complete=options.tests)
@options.every
@click.option(
    "--history",
    is_flag=True,
    help="Bugs that the kernel had, all or those that NAME means: before the fix a rule breaks.",
)
@click.option(
    "--kernel",
    type=click.Choice(tuple(VERSIONS)),
    help=f"Which version of Linux the kernel does as.  [default: {DEFAULT}]",
)
@click.option(
    "--conformance",
    metavar="P|M",
    help="How far a policy or mmu may be trusted: every test that applies to it, or those that NAME means.",
)
@options.policies("Instead of the policies that the test expects something of; repeatable.")
@options.archs("Instead of the architectures that the test expects something of; repeatable.")
@options.mmu
@click.option(
    "--strategy",
    default="portfolio",
    show_default=True,
    metavar="S",
    help=f"{', '.join(STRATEGIES)} (also pct:DEPTH, delay:BOUND), or {EXHAUSTIVE}.",
)
@click.option(
    "--schedules",
    type=options.COUNT,
    help="Runs for each result; an exhaustive search has no such limit.  "
    "[default: 5000; 1500 with --all or --history]",
)
@click.option(
    "--steps", type=options.COUNT, default=10_000, show_default=True, help="Steps for each run, at most."
)
@options.heed
@options.seconds("For each result, at most.")
@options.seed()
@options.workers("Processes that share the runs of each result, or the states if exhaustive (on Ray).")
@options.address
@options.memory
@click.option(
    "--states",
    type=options.COUNT,
    help="Of a search of every interleaving, at most.  "
    "[default: 3000000 within the portfolio, 800000 with --all; 20000000 if exhaustive]",
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
@click.option(
    "--resume",
    type=options.FILE,
    metavar="FILE",
    help="Keep an exhaustive search here if it has to stop; the same command goes on from there.",
)
@pages.html
@options.json_
@click.option("--ktap", "as_ktap", is_flag=True, help="Print KTAP, version 1.")
@click.option("--harm", is_flag=True, help="From a race go on to what it does: a stale read, a lost write.")
@click.option(
    "--baseline",
    type=options.FILE,
    metavar="RESULT",
    help="What --json printed earlier: the summary says what is new, mended or no longer proved.",
)
@click.option("--proved", is_flag=True, help="Exit code 1 too if a Never is not proved; each is named.")
@click.option("-v", "--verbose", is_flag=True, help="Columns for expected violations too.")
def check(
    names: tuple[str, ...],
    every: bool,
    history: bool,
    kernel: str | None,
    conformance: str | None,
    policies: tuple[str, ...],
    archs: tuple[str, ...],
    mmu: str | None,
    rules: tuple[str, ...],
    ignored: tuple[str, ...],
    strategy: str,
    schedules: int | None,
    workers: int,
    states: int | None,
    html: Page,
    as_json: bool,
    as_ktap: bool,
    harm: bool,
    baseline: Path | None,
    proved: bool,
    verbose: bool,
    **search: Any,
) -> int:
    """Search litmus tests for broken rules.

    NAME is a shipped test (see `migrc list`), a wildcard over them, or a .py file with tests of your own
    (FILE.py:NAME for one of several). With --history it is a bug's name, commit or CVE. Exit code 1 if a
    verdict is not the expected one.
    """
    if as_json and as_ktap:
        raise UsageProblem("--json and --ktap: one or the other")
    _known_strategy(strategy)
    if history and policies:
        raise UsageProblem("--history and --policy: a bug says itself under what its test is run")
    if history and mmu is not None:
        raise UsageProblem("--history and --mmu: bugs are of the x86 kernel")
    if conformance is not None and (history or policies):
        raise UsageProblem("--conformance and --history or --policy: one or the other")
    bugs = bugs_named(names) if history else []
    every = every or (conformance is not None and not names)
    tests = tests_named(names, every) if every or not history else []
    asked = None if conformance is None else conformance_of(conformance, tests, mmu)
    if asked is not None:
        tests, policies, mmu = list(asked.tests), asked.policies, asked.mmu
        archs = archs or asked.archs
    version = "" if kernel in (None, DEFAULT) else str(kernel)
    tests = [test._replace(kernel=version) for test in tests]
    heeded = heed(rules, ignored, [*tests, *(LitmusName(bug.test.name) for bug in bugs)])
    jobs = [*plan(tests, policies, archs, heeded, mmu), *plan_of_history(bugs, archs, heeded, version)]
    if all(job.left_out for job in jobs):
        raise UsageProblem(f"{jobs[0].subject.test} {jobs[0].left_out} (policy {jobs[0].subject.policy})")
    if schedules is None:
        schedules = SCHEDULES_ALL if every or history else SCHEDULES
    beyond = None
    if states is None and every and strategy != EXHAUSTIVE:
        states, beyond = STATES_ALL, STATES_BEYOND
    if click.get_current_context().get_parameter_source("folder") is not ParameterSource.DEFAULT:
        with file_problems(f"--save: {search['folder']}", "a folder for witnesses"):
            search["folder"].mkdir(parents=True, exist_ok=True)
    before = None if baseline is None else load_baseline(baseline)
    settings = Settings(strategy, schedules, states=states, states_beyond=beyond, workers=workers, **search)
    _check_exhaustive(settings, jobs)
    many = every or len(jobs) > 1 or before is not None
    finished: list[Result] = []
    told = 0

    def tell(stopped: str) -> None:
        if as_ktap:
            if stopped:
                click.echo(f"Bail out! {stopped}")
        elif _nothing_but_errors(finished):
            return
        elif as_json:
            document = _document(finished, many or asked is not None, stopped)
            if asked is not None and not stopped:
                document["conformance"] = extent.as_document(trust(asked, finished))
            if before is not None:
                document["against_baseline"] = [*unexpected(finished, DEFAULT, before)]
            print_json(document)
        elif (finished and (many or stopped)) or stopped == "interrupted":
            _echo(unexpected(finished, DEFAULT, before))
            click.echo(report.summary(finished, len(jobs)))
            _echo(report.without_expectations(finished))
        if asked is not None and not stopped and not as_json and not as_ktap:
            _echo(extent.in_words(trust(asked, finished)))
        if finished:
            html.write(lambda: _document(finished, True, stopped))

    with exits.told(tell), _pool(workers, settings) as pool, bars() as news:

        def look(job: Job, done: int, text: str) -> None:
            share = 0.0 if strategy == EXHAUSTIVE else done / settings.schedules
            name = f"{job.subject.name} {job.subject.policy} {job.subject.arch}"
            text = f"{done:,} schedules" if done else text
            news.show(name, (len(finished) + share) / len(jobs), text, row="search")

        for result in results(jobs, settings, pool, look):
            finished.append(result)
            if harm and result.witness is not None:
                race = result.witness
                look(result.job, 0, "what the race leads to")
                result.harm = harm_of(result.job.subject, race.transitions, race.rule, race.seed)
            with news.aside():
                if as_ktap:
                    _echo(report.ktap_head(len(jobs)) if len(finished) == 1 else ())
                    _echo(report.ktap(result, len(finished)))
                elif not as_json and not _nothing_but_errors(finished):
                    for one in finished[told:]:
                        if one.job.bug and one.job.bug != (finished[told - 1].job.bug if told else ""):
                            _echo(report.bug_title(BUGS[one.job.bug]))
                        details = verbose or not many or not one.ok
                        _echo(report.in_words(one, details, terminal_width()))
                        told += 1
            if result.stopped == INTERRUPTED:
                raise KeyboardInterrupt
            if result.lost and result.violation is None:
                raise HostProblem(f"--workers: {result.stopped}")
            if result.stopped in TERMINATED:
                raise Terminated(128 + signal.Signals[result.stopped])
    errors = [result.error for result in finished if result.error]
    if errors:
        distinct = len(dict.fromkeys(errors))
        text = f"{distinct} errors; the first: {errors[0]}" if distinct > 1 else errors[0]
        if any(result.ours for result in finished):
            raise InternalProblem(text)
        raise UsageProblem(text)
    if proved:
        for line in report.unproved(finished):
            click.echo(line, err=as_json or as_ktap)
    held = not proved or not any(result.unproved for result in finished)
    if asked is not None:
        # What was not reached is part of the answer.
        held = held and not trust(asked, finished).broken
    else:
        held = held and all(result.ok for result in finished)
    return html.code(0 if held else exits.VIOLATION)


def _echo(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(line)


def _nothing_but_errors(results: Sequence[Result]) -> bool:
    """One and the same, most likely: the line on standard error says it."""
    return bool(results) and all(result.error for result in results)


def _known_strategy(name: str) -> None:
    if name == EXHAUSTIVE:
        return
    try:
        find_strategy(name)
    except UnknownStrategy as problem:
        raise UsageProblem(f"--strategy: {problem}, or {EXHAUSTIVE}") from None


def _check_exhaustive(settings: Settings, jobs: Sequence[Job]) -> None:
    """UsageProblem for options that only an exhaustive search has."""
    wanted = {"--address": settings.address, "--resume": settings.resume}
    for option, value in wanted.items():
        if value is not None and settings.strategy != EXHAUSTIVE:
            raise UsageProblem(f"{option}: only with --strategy {EXHAUSTIVE}")
    if settings.resume is not None and len(jobs) > 1:
        raise UsageProblem(
            f"--resume: a file is of one search, and these are {len(jobs)}; "
            "one test with one --policy and one --arch"
        )


@contextmanager
def _pool(workers: int, settings: Settings) -> Iterator[SearchWorkers | None]:
    """Worker processes, if more than one is asked for and can be used."""
    if workers == 1 or settings.strategy == EXHAUSTIVE:
        yield None
        return
    # Ray takes a second to import.
    from actors.search_workers import SearchWorkers

    try:
        with SearchWorkers(workers, os.getcwd()) as pool:
            yield pool
    except SessionError as problem:
        raise HostProblem(f"--workers: {problem}") from None


def _document(finished: Sequence[Result], many: bool, stopped: str) -> dict[str, object]:
    found = [report.as_json(result) for result in finished]
    if stopped:
        document: dict[str, object] = {"results": found}
        stop(document, stopped)
        return document
    return {"results": found} if many else found[0]
