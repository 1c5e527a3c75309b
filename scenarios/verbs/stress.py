"""The verb `migrc stress`: litmus tests and workloads on live actors, each run disturbed differently."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import click

from emulator.hardware.ordering import ARCHITECTURES
from scenarios.litmus import LITMUS
from scenarios.runs.swarm import DEFAULT_LEVEL, LEVELS
from scenarios.runs.verdict import Job, plan
from scenarios.subjects.programs import LitmusName, litmus_named, policy_factory, unique
from scenarios.usage import UsageProblem, did_you_mean
from scenarios.verbs.check import COUNT, SEED, Seconds
from scenarios.workloads.settings import MAX_CPUS, Workload
from scenarios.workloads.workload_file import list_workloads, load_workload

if TYPE_CHECKING:
    from scenarios.runs.trials import Look, Outcome, Plan, Tally, Target

FOUND: Final = 1
INTERRUPTED: Final = 130
DEFAULT_S: Final = 60.0
DEFAULT_CPUS: Final = 4
LITMUS_ARCHS: Final = ("x86", "riscv")
WORKLOAD_ARCHS: Final = ("x86",)
WORKLOAD_POLICIES: Final = ("immediate", "migrc")
_WILD: Final = frozenset("*?[")


@click.command()
@click.argument("names", nargs=-1, metavar="NAME...")
@click.option("--all", "every", is_flag=True, help="Every shipped litmus test.")
@click.option("--runs", type=COUNT, help="So many in all, shared out evenly.")
@click.option(
    "--seconds",
    type=Seconds(),
    help=f"For so long in all; {DEFAULT_S:.0f} if neither this nor --runs is given.",
)
@click.option(
    "--policy",
    "policies",
    multiple=True,
    metavar="P",
    help="Instead of those that must break no rule; repeatable.",
)
@click.option(
    "--arch",
    "archs",
    multiple=True,
    type=click.Choice(list(ARCHITECTURES)),
    help="Instead of x86, and riscv for litmus tests; repeatable.",
)
@click.option(
    "--chaos",
    "level",
    type=click.IntRange(0, LEVELS),
    default=DEFAULT_LEVEL,
    show_default=True,
    help="How much CPUs are disturbed; 0 is only the order in which a CPU does things.",
)
@click.option(
    "--cpus",
    type=click.IntRange(1, MAX_CPUS),
    help=f"Of workloads; {DEFAULT_CPUS} if not given. A litmus test says itself how many it has.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="SECTION.KEY=VALUE",
    help="Replace a value of the workloads; repeatable.",
)
@click.option("--address", metavar="HOST:PORT", help="Use this Ray cluster instead of starting Ray here.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of all disturbances.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def stress(
    context: click.Context,
    names: tuple[str, ...],
    every: bool,
    runs: int | None,
    seconds: float | None,
    policies: tuple[str, ...],
    archs: tuple[str, ...],
    level: int,
    cpus: int | None,
    overrides: tuple[str, ...],
    address: str | None,
    seed: int,
    as_json: bool,
) -> None:
    """Run litmus tests and workloads live, again and again, each run disturbed in another way.

    NAME is a shipped litmus test or workload (see `migrc list`), a wildcard over the tests, a .py file with
    tests of your own (FILE.py:NAME for one of several) or a workload's .toml file. Every run is judged by
    happens-before; the first that breaks a rule leaves its recording in ./recordings. Exit code 1 if a rule
    broke.
    """
    tests, workloads = _named(names, every, overrides)
    _check_options(tests, workloads, policies, archs, cpus, overrides, address)
    jobs = _jobs(tests, policies, archs)

    # Ray takes a second to import, so not before the input is known to be good.
    from scenarios.report.tallies import as_document, print_outcome
    from scenarios.runs.trials import Plan

    targets = _targets(jobs, workloads, policies, archs, cpus or DEFAULT_CPUS, seed)
    bounds = Plan(seed, level, runs, DEFAULT_S if seconds is None and runs is None else seconds)
    outcome = _run(targets, bounds, address)
    if as_json:
        click.echo(json.dumps(as_document(outcome, seed, level), indent=2))
    else:
        print_outcome(outcome, seed, level, sys.stdout)
    if outcome.problem:
        raise UsageProblem(outcome.problem)
    if outcome.interrupted:
        click.echo("migrc: interrupted", err=True)
        context.exit(INTERRUPTED)
    if outcome.found:
        context.exit(FOUND)


def _named(
    names: Sequence[str], every: bool, overrides: Sequence[str]
) -> tuple[list[LitmusName], list[Workload]]:
    if every and names:
        raise UsageProblem("--all and a name: one or the other")
    if every:
        return [LitmusName(name) for name in LITMUS], []
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
        plain = not (name.endswith(".py") or "/" in name or ":" in name or _WILD & set(name))
        if plain and name not in LITMUS:
            known = [*LITMUS, *shipped]
            raise UsageProblem(f"unknown litmus test or workload {name!r}; {did_you_mean(name, known)}")
        tests += litmus_named(name)
    return unique(tests), list(workloads.values())


def _check_options(
    tests: Sequence[LitmusName],
    workloads: Sequence[Workload],
    policies: Sequence[str],
    archs: Sequence[str],
    cpus: int | None,
    overrides: Sequence[str],
    address: str | None,
) -> None:
    for option, values in (("--policy", policies), ("--arch", archs)):
        for number, value in enumerate(values):
            if value in values[:number]:
                raise UsageProblem(f"{option}: {value} is given twice; each once")
    for policy in policies:
        policy_factory(policy)
    if not workloads:
        for option, given in (("--cpus", cpus is not None), ("--set", bool(overrides))):
            if given:
                raise UsageProblem(f"{option}: for workloads only, and there is none; leave it out")
    if address is not None and not address.strip():
        raise UsageProblem("--address: it is empty; HOST:PORT of a Ray cluster, or leave it out")


def _jobs(tests: Sequence[LitmusName], policies: Sequence[str], archs: Sequence[str]) -> list[Job]:
    """Without a policy given, those that a test expects to break no rule on that architecture."""
    if policies:
        return plan(tests, policies, archs or LITMUS_ARCHS)
    found = [job for job in plan(tests, (), archs or LITMUS_ARCHS) if job.expected == "Never"]
    for test in tests:
        if not any(job.test == test for job in found):
            raise UsageProblem(f"{test}: it expects Never of no policy there; say which with --policy")
    # Mistakes that happen to do no harm are not what anybody wants to be sure of.
    return [job for job in found if not job.policy.startswith("mistake:")] or found


def _targets(
    jobs: Sequence[Job],
    workloads: Sequence[Workload],
    policies: Sequence[str],
    archs: Sequence[str],
    cpus: int,
    seed: int,
) -> list[Target]:
    from scenarios.runs.trials import litmus_target, workload_target

    found: list[Target] = [litmus_target(job.test, job.policy, job.arch) for job in jobs]
    found += [
        workload_target(workload, policy, arch, cpus, seed)
        for workload in workloads
        for policy in policies or WORKLOAD_POLICIES
        for arch in archs or WORKLOAD_ARCHS
    ]
    return found


def _run(targets: Sequence[Target], bounds: Plan, address: str | None) -> Outcome:
    from scenarios.runs.trials import stress

    with _progress(bounds) as look:
        return stress(targets, bounds, address, look)


@contextmanager
def _progress(bounds: Plan) -> Iterator[Look]:
    """A running tally on standard error if that is a terminal; what is found is told anywhere, at once."""
    seen: dict[int, int] = {}

    def news(tally: Tally, tell: Callable[[str], None]) -> None:
        known = seen.get(id(tally), 0)
        seen[id(tally)] = len(tally.findings)
        target = tally.target
        for one in tally.findings[known:]:
            where = f"; the recording is {one.recording}" if one.recording is not None else ""
            title = f"{target.name} under {target.policy} on {target.arch}"
            tell(f"migrc: {title}, run {one.run}: {one.rule}{where}")

    if not sys.stderr.isatty():
        yield lambda target, tally: news(tally, lambda line: click.echo(line, err=True))
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[text]}", markup=False),
    )
    tallies: dict[int, Tally] = {}
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("", total=bounds.runs or bounds.seconds, text="starting")

        def look(target: Target, tally: Tally) -> None:
            tallies[id(tally)] = tally
            news(tally, lambda line: bars.console.print(line, markup=False, highlight=False, soft_wrap=True))
            done = sum(one.runs for one in tallies.values())
            races = sum(one.races for one in tallies.values())
            violations = sum(one.violations for one in tallies.values())
            elapsed = bars.tasks[0].elapsed or 0.0
            bars.update(
                task,
                completed=done if bounds.runs else elapsed,
                text=f"{done:,} runs, {races:,} with races, {violations:,} with violations; "
                f"{target.name} {target.policy} {target.arch}",
            )

        yield look
