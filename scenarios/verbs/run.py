"""The verb `migrc run`: one workload under several policies, live or on virtual time, side by side."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from emulator.kernel.mmu.x86 import X86
from scenarios.report.comparison import print_report
from scenarios.report.conclusion import conclusion
from scenarios.report.console import print_json
from scenarios.runs.document import Pictures, document_of, stop
from scenarios.subjects.mmus import mmu_on
from scenarios.subjects.subject import Subject
from scenarios.usage import UsageProblem
from scenarios.verbs import exits, options, pages
from scenarios.verbs.bars import bars
from scenarios.verbs.pages import Page
from scenarios.workloads.settings import MAX_CPUS, MAX_TIMED_CPUS
from scenarios.workloads.workload_file import load_workload


@click.command()
@click.argument("scenario", shell_complete=options.scenarios)
@click.option(
    "--engine",
    type=click.Choice(("live", "timed")),
    default="live",
    show_default=True,
    help="live: real concurrency, on Ray; timed: virtual time, by a cost model ([costs] of the workload).",
)
@options.cpus(options.MOST_CPUS, "Simulated CPUs; live, one Ray actor each.")
@options.policies("When flushes are done; repeat to compare.", ("immediate", "migrc"))
@options.seed()
@options.arch
@options.mmu
@options.address
@options.placement
@options.trace
@options.overrides
@click.option(
    "--record",
    type=options.FILE,
    metavar="FILE",
    help="Keep the recording; with several policies one file each, FILE with the policy in its name.",
)
@click.option(
    "--events",
    type=options.FILE,
    metavar="FILE",
    help="Timed: keep what happens, for migrc export; files as of --record. It takes a few times as long.",
)
@click.option(
    "--watched/--unwatched",
    default=None,
    help="Happens-before judges every step, or not: a live run is slower for it, a timed one takes 2 to 4 "
    "times as long.  [default: live yes, timed no]",
)
@click.option(
    "--repeat",
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    help="Timed: with so many seeds, this and those after it; the report says what is more than chance.",
)
@pages.html
@click.option(
    "--tolerate",
    is_flag=True,
    help="Live, --unwatched: go on without a CPU whose actor dies; it is unplugged, as CPU hotplug does.",
)
@options.json_
@click.option("--dashboard", is_flag=True, help="Start the Ray dashboard too.")
@options.quiet
@click.option("-v", "--verbose", is_flag=True, help="Counters that are zero too, and where each ticks.")
def run(
    scenario: str,
    engine: str,
    cpus: int,
    policies: tuple[str, ...],
    seed: int,
    arch: str,
    mmu: str | None,
    trace: Path | None,
    overrides: tuple[str, ...],
    events: Path | None,
    watched: bool | None,
    repeat: int,
    html: Page,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    **live: Any,
) -> int:
    """Run SCENARIO: a shipped name, or the path of a workload's TOML file.

    Every policy runs the same accesses, one after the other; the report puts them side by side. Live runs are
    watched: checks of happens-before judge every step, which takes messages and so some time. A run that
    breaks a rule leaves its recording in ./recordings, for `migrc replay` and `migrc shrink`.
    """
    workload = load_workload(scenario, overrides, live=engine == "live")
    _check_engine(engine, cpus, live)
    workload.check(cpus)
    trace_file = workload.trace_file(trace)
    if events is not None and engine == "live":
        raise UsageProblem(
            "--events: live, nobody has the time of all CPUs; --record FILE, then migrc export FILE"
        )
    if live["record"] is not None and watched is False:
        raise UsageProblem("--record: an unwatched run cannot be recorded; leave out one of the two")
    if repeat > 1 and engine == "live":
        raise UsageProblem("--repeat: timed runs only; live ones differ with the same seed")
    how = mmu_on(arch, mmu)
    subjects = [Subject(workload, policy, arch, cpus, seed, trace_file, mmu=how) for policy in policies]
    if live["tolerate"]:
        _check_tolerant(subjects[0], watched)
    document = document_of(subjects[0], engine)
    pictures: Pictures = {}

    def tell(stopped: str) -> None:
        stop(document, stopped)
        document["conclusion"] = conclusion(document)
        if as_json:
            print_json(document)
        elif document["runs"] or stopped == "interrupted":
            print_report(document, pictures, sys.stdout, verbose)
        if document["runs"]:
            html.write(lambda: document)

    if engine == "timed":
        from scenarios.runs.repeats import run_again
        from scenarios.runs.timed import run_timed

        with exits.told(tell), bars(quiet) as news:
            run_timed(
                subjects,
                watched=bool(watched),
                events=events,
                progress=news.follow,
                document=document,
                pictures=pictures,
            )
            if repeat > 1:
                run_again(subjects, repeat, bool(watched), news.follow, document)
    else:
        # Ray takes a second to import, so not before the input is known to be good.
        from scenarios.runs.live import run_live

        live["placement"] = options.placed(live["placement"], live["address"])

        with exits.told(tell), bars(quiet) as news:
            news.wait_for("starting Ray")
            run_live(
                subjects,
                watched=watched is not False,
                progress=news.follow,
                document=document,
                pictures=pictures,
                **live,
            )
    broken = any(result["violations"] for result in document["runs"])
    broken = broken or ("repeats" in document and any(document["repeats"]["violations"].values()))
    return html.code(exits.VIOLATION if broken else 0)


def _check_tolerant(subject: Subject, watched: bool | None) -> None:
    """A CPU can go where nobody waits for what only it could say or give back. UsageProblem elsewhere."""
    if watched is not False:
        raise UsageProblem("--tolerate: no schedule has a CPU that dies, so only with --unwatched")
    if subject.mmu != X86.name:
        raise UsageProblem(f"--tolerate: with --mmu {subject.mmu} others wait for each CPU; x86 only")
    machine = subject.workload_machine()
    if machine.parameters.page_table_frames:
        raise UsageProblem(
            "--tolerate: the page tables of a CPU would be lost with it; --set kernel.page_table_frames=false"
        )
    if any(thread.before is not None for thread in machine.user.threads(0)):
        raise UsageProblem(f"--tolerate: threads of {subject.name} wait for all of them; another workload")


def _check_engine(engine: str, cpus: int, live_only: dict[str, Any]) -> None:
    """Options that mean nothing to the engine, and more CPUs than it takes, are refused."""
    most = MAX_TIMED_CPUS if engine == "timed" else MAX_CPUS
    if cpus > most:
        raise UsageProblem(f"--cpus: {cpus} is too large for the {engine} engine; {most} or fewer")
    for option, given in live_only.items():
        if engine == "timed" and given:
            raise UsageProblem(f"--{option}: a timed run has no use for it; leave it out, or --engine live")
