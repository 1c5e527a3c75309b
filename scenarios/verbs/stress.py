"""The verb `migrc stress`: litmus tests and workloads on live actors, each run disturbed differently."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from actors.address import Placement
from emulator.checks.heed import ALL, Heed
from scenarios.litmus import LITMUS
from scenarios.report.console import print_json
from scenarios.runs.document import stop
from scenarios.runs.swarm import DEFAULT_LEVEL, LEVELS
from scenarios.runs.verdict import plan
from scenarios.subjects.mmus import mmu_on
from scenarios.subjects.named import tests_named
from scenarios.subjects.programs import LitmusName, litmus_named
from scenarios.subjects.rules import heed
from scenarios.subjects.subject import Subject
from scenarios.usage import HostProblem, UsageProblem, did_you_mean
from scenarios.verbs import exits, options, pages
from scenarios.verbs.bars import bars
from scenarios.verbs.pages import Page
from scenarios.workloads.settings import MAX_CPUS, Workload
from scenarios.workloads.workload_file import list_workloads, load_workload

if TYPE_CHECKING:
    from scenarios.runs.tally import Tally
    from scenarios.runs.trials import Look, Plan

DEFAULT_S: Final = 60.0
LITMUS_ARCHS: Final = ("x86", "riscv")
WORKLOAD_ARCHS: Final = ("x86",)
WORKLOAD_POLICIES: Final = ("immediate", "migrc")


@click.command()
@click.argument("names", nargs=-1, metavar="NAME...", shell_complete=options.tests)
@options.every
@click.option("--runs", type=options.COUNT, help="So many in all, shared out evenly.")
@options.seconds(f"For so long in all; {DEFAULT_S:.0f} if neither this nor --runs is given.")
@options.policies("Instead of those that must break no rule; repeatable.")
@options.archs("Instead of x86, and riscv for litmus tests; repeatable.")
@options.mmu
@click.option(
    "--chaos",
    "level",
    type=click.IntRange(0, LEVELS),
    default=DEFAULT_LEVEL,
    show_default=True,
    help="How much CPUs are disturbed; 0 is only the order in which a CPU does things.",
)
@options.cpus(
    MAX_CPUS,
    f"Of workloads; {options.DEFAULT_CPUS} if not given. A litmus test says itself how many it has.",
    None,
)
@options.overrides
@options.heed
@click.option(
    "--resume",
    type=options.FILE,
    metavar="FILE",
    help="Keep how far it is in FILE, and go on from there if it exists.",
)
@options.address
@options.placement
@options.seed("Of all disturbances.")
@pages.html
@options.json_
def stress(
    names: tuple[str, ...],
    every: bool,
    runs: int | None,
    seconds: float | None,
    policies: tuple[str, ...],
    archs: tuple[str, ...],
    mmu: str | None,
    rules: tuple[str, ...],
    ignored: tuple[str, ...],
    level: int,
    cpus: int | None,
    overrides: tuple[str, ...],
    resume: Path | None,
    address: str | None,
    placement: Placement | None,
    seed: int,
    html: Page,
    as_json: bool,
) -> int:
    """Run litmus tests and workloads live, again and again, each run disturbed in another way.

    NAME is a shipped litmus test or workload (see `migrc list`), a wildcard over the tests, a .py file with
    tests of your own (FILE.py:NAME for one of several) or a workload's .toml file. Every run is judged by
    happens-before; the first that breaks a rule leaves its recording in ./recordings. Exit code 1 if a rule
    broke.
    """
    tests, workloads = _named(names, every, overrides)
    if not workloads:
        for option, given in (("--cpus", cpus is not None), ("--set", bool(overrides))):
            if given:
                raise UsageProblem(f"{option}: for workloads only, and there is none; leave it out")
    place = options.placed(placement, address)
    heeded = heed(rules, ignored, tests)
    subjects, left_out = _litmus_subjects(tests, policies, archs, heeded, mmu)
    for line in left_out:
        click.echo(f"migrc: left out: {line}", err=True)

    # Ray takes a second to import, so not before the input is known to be good.
    from scenarios.report.tallies import as_document, print_outcome
    from scenarios.runs.tally import Outcome
    from scenarios.runs.trials import Plan, stress, target

    count = cpus or options.DEFAULT_CPUS
    subjects += [
        Subject(workload, policy, arch, count, seed, workload.trace_file(None), heeded, mmu_on(arch, mmu))
        for workload in workloads
        for policy in policies or WORKLOAD_POLICIES
        for arch in archs or WORKLOAD_ARCHS
    ]
    bounds = Plan(seed, level, runs, DEFAULT_S if seconds is None and runs is None else seconds)
    targets, problems = [], []
    for subject in subjects:
        try:
            targets.append(target(subject))
        except UsageProblem as problem:
            if len(subjects) == 1:
                raise
            problems.append(problem.message)
    outcome = Outcome(problems=problems)

    def tell(stopped: str) -> None:
        document = {**as_document(outcome, seed, level), "left_out": left_out}
        stop(document, stopped)
        if as_json:
            print_json(document)
        elif outcome.count("runs") or stopped in ("", "interrupted"):
            print_outcome(outcome, seed, level, sys.stdout)
        if outcome.count("runs"):
            html.write(lambda: document)

    with exits.told(tell), _news(bounds) as look:
        stress(targets, bounds, address, look, outcome=outcome, resume=resume, placement=place)
    if outcome.problem:
        raise UsageProblem(outcome.problem)
    if lost := outcome.count("lost"):
        text = (
            f"{lost:,} of {lost + outcome.count('runs'):,} runs were lost, which says nothing of what was run"
        )
        if not outcome.found:
            raise HostProblem(f"{text}; the hosts of actors stalled or died")
        click.echo(f"migrc: {text}", err=True)
    if not outcome.count("runs"):
        raise UsageProblem("no run was made in that time, so nothing is known; raise --seconds")
    return html.code(exits.VIOLATION if outcome.found else 0)


def _named(
    names: Sequence[str], every: bool, overrides: Sequence[str]
) -> tuple[list[LitmusName], list[Workload]]:
    if every:
        return tests_named(names, every), []
    if not names:
        raise UsageProblem(
            "name a litmus test, a workload, a file of either, or --all; migrc list shows what there is"
        )
    shipped = [one.name for one in list_workloads()]
    tests: list[LitmusName] = []
    workloads: dict[str, Workload] = {}
    for name in names:
        if name in shipped or name.endswith(".toml"):
            workloads[name] = load_workload(name, overrides, live=True)
            continue
        if name not in LITMUS and not (name.endswith(".py") or set("/:*?[") & set(name)):
            known = did_you_mean(name, [*LITMUS, *shipped])
            raise UsageProblem(f"unknown litmus test or workload {name!r}; {known}")
        tests += litmus_named(name)
    return list(dict.fromkeys(tests)), list(workloads.values())


def _litmus_subjects(
    tests: Sequence[LitmusName],
    policies: Sequence[str],
    archs: Sequence[str],
    heed: Heed = ALL,
    mmu: str | None = None,
) -> tuple[list[Subject], list[str]]:
    """What to run, and a line for each test that is left out.

    Without a policy given, those that a test expects to break no rule on that architecture.
    """
    jobs = plan(tests, policies, archs or LITMUS_ARCHS, heed, mmu)
    why = {job.subject.test: f"{job.subject.test} {job.left_out}" for job in jobs if job.left_out}
    found = [job for job in jobs if not job.left_out and (policies or job.expected == "Never")]
    run = {job.subject.test for job in found}
    nothing = "expects Never of no policy there"
    left_out = [why.get(test, f"{test} {nothing}") for test in tests if test not in run]
    if tests and not found:
        raise UsageProblem(f"{'; '.join(left_out)}; say which with --policy")
    subjects = [job.subject for job in found]
    if not policies:
        # Mistakes that happen to do no harm are not what anybody wants to be sure of.
        subjects = [one for one in subjects if not one.policy.startswith("mistake:")] or subjects
    return subjects, left_out


@contextmanager
def _news(bounds: Plan) -> Iterator[Look]:
    """A running tally on a terminal; what is found is told anywhere, at once."""
    told: dict[int, int] = {}
    tallies: dict[int, Tally] = {}
    began = time.monotonic()
    with bars() as news:

        def look(tally: Tally) -> None:
            tallies[id(tally)] = tally
            title = tally.target.subject.title()
            for one in tally.findings[told.get(id(tally), tally.told) :]:
                where = f"; the recording is {one.recording}" if one.recording is not None else ""
                news.line(f"migrc: {title}, run {one.run}: {one.rule}{where}")
            told[id(tally)] = len(tally.findings)
            done = sum(one.runs for one in tallies.values())
            races = sum(one.races for one in tallies.values())
            violations = sum(one.violations for one in tallies.values())
            if bounds.runs:
                share = done / bounds.runs
            else:
                share = (time.monotonic() - began) / (bounds.seconds or DEFAULT_S)
            text = f"{done:,} runs, {races:,} with races, {violations:,} with violations; {title}"
            news.show("stress", share, text)

        news.wait_for("starting Ray")
        yield look
