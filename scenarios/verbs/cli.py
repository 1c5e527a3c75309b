"""The command `migrc`: its verbs, its options, its exit codes, and errors in one line.

Exit codes: 0 all is well, 1 a check found a violation, 2 bad input, 130 Ctrl-C, 141 the reader of the output
has gone. Standard output carries the result and nothing else; progress and errors go to standard error.
Whatever starts processes is imported only by the verb that needs it, so that help and listings are quick.
"""

from __future__ import annotations

import errno
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, NoReturn

import click

from emulator.policies.catalogue import canonical
from scenarios.litmus import LITMUS
from scenarios.mistakes import MISTAKES
from scenarios.subjects.programs import drop_programs_quietly
from scenarios.usage import UsageProblem, did_you_mean
from scenarios.verbs.check import check as check_command
from scenarios.verbs.replay import replay as replay_command
from scenarios.verbs.replay import shrink as shrink_command
from scenarios.verbs.stress import stress as stress_command
from scenarios.verbs.sweep import sweep as sweep_command
from scenarios.verbs.trace import trace as trace_command
from scenarios.workloads.settings import MAX_CPUS, MAX_TIMED_CPUS
from scenarios.workloads.workload_file import list_workloads, load_workload

VIOLATION: Final = 1
BAD_INPUT: Final = 2
INTERRUPTED: Final = 130
READER_GONE: Final = 141

POLICIES: Final = {
    "immediate": "mainline Linux: batched unmap flush, lazy TLB, tlb_gen",
    "migrc": "the MIGRC patches, v3 (also migrc:v3): the flush of a read-only migration is put off",
    "migrc:rfc1": "the same, RFC v1: RFC v2 with the barriers as first posted",
    "migrc:rfc2": "the same, RFC v2: with a cap on pending pages",
    "migrc:v9": "the same, v9: the source is freed at once, the flush waits until its frame is allocated",
    "MODULE:CLASS": "your own policy class",
}
"""What `--policy` takes, besides mistakes."""

ARCHITECTURES: Final = {
    "sc": "sequential consistency: nothing overtakes anything",
    "x86": "TSO: a store may wait while later loads go ahead",
    "riscv": "RVWMO: loads and stores wait, in any order; for check and replay",
}
"""What `--arch` takes."""

_LIVE_ARCHITECTURES: Final = ("sc", "x86")

Progress = Callable[[str, float, str], None]
"""Called with a policy, the fraction of its run that is done, and a few words."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command with `arguments` (default: those of the process) and exit with its code."""
    if sys.stderr is None:
        # Started with standard error closed (2>&-): what would be said there is said to nobody.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.set_inheritable(nowhere, True)
        sys.stderr = os.fdopen(nowhere, "w")
    if sys.stdin is None:
        sys.stdin = open(os.devnull)  # noqa: SIM115
    drop_programs_quietly()
    sys.exit(_exit_code(arguments))


def _exit_code(arguments: Sequence[str] | None) -> int:
    if sys.stdout is None:
        UsageProblem("standard output is closed; there is nowhere to put the result").show()
        return BAD_INPUT
    output = sys.stdout
    try:
        code = int(migrc.main(arguments, prog_name="migrc", standalone_mode=False) or 0)
        sys.stdout.flush()
        return code
    except click.exceptions.NoArgsIsHelpError as problem:
        problem.show()
        return BAD_INPUT
    except click.ClickException as problem:
        # click shows its own errors with two lines of usage above them; ours are one line, all alike.
        UsageProblem(" ".join(problem.format_message().split())).show()
        return BAD_INPUT
    except SystemExit:
        # click's own answer to a reader that has gone: another standard output, and exit code 1.
        if sys.stdout is output:
            raise
        return READER_GONE
    except click.Abort:
        click.echo("migrc: interrupted", err=True)
        return INTERRUPTED
    except OSError as problem:
        if problem.errno not in (errno.EPIPE, errno.ENOSPC, errno.EIO):
            raise
        # What is still buffered would fail again when the interpreter ends.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if problem.errno == errno.EPIPE:
            return READER_GONE
        UsageProblem(f"standard output cannot be written: {problem.strerror}").show()
        return BAD_INPUT


def _print_version(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    try:
        number = version("migrc-emulator")
    except PackageNotFoundError:
        number = "(not installed, run from its source)"
    click.echo(f"migrc {number}")
    context.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_version,
    help="Show the version and exit.",
)
def migrc() -> None:
    """Emulate Linux TLB shootdowns on tiered memory, immediate and deferred (MIGRC)."""


migrc.add_command(trace_command)
migrc.add_command(check_command)
migrc.add_command(replay_command)
migrc.add_command(shrink_command)
migrc.add_command(sweep_command)
migrc.add_command(stress_command)


@migrc.command()
@click.argument("scenario")
@click.option(
    "--engine",
    type=click.Choice(("live", "timed")),
    default="live",
    show_default=True,
    help="live: real concurrency, on Ray; timed: virtual time, by a cost model ([costs] of the workload).",
)
@click.option(
    "--cpus",
    type=click.IntRange(1, max(MAX_CPUS, MAX_TIMED_CPUS)),
    default=4,
    show_default=True,
    help="Simulated CPUs; live, one Ray actor each.",
)
@click.option(
    "--policy",
    "policies",
    multiple=True,
    default=("immediate", "migrc"),
    show_default=True,
    metavar="P",
    help="When flushes are done; repeat to compare. See `migrc list`.",
)
@click.option(
    "--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Of all that is random."
)
@click.option(
    "--arch",
    type=click.Choice(_LIVE_ARCHITECTURES),
    default="x86",
    show_default=True,
    help="Which effects may overtake which.",
)
@click.option("--address", metavar="HOST:PORT", help="Use this Ray cluster instead of starting Ray here.")
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
    "--record",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Keep the recording; with several policies one file each, FILE with the policy in its name.",
)
@click.option(
    "--watched/--unwatched",
    default=None,
    help="Happens-before judges every step, or not: a live run is slower for it, a timed one takes 2 to 4 "
    "times as long.  [default: live yes, timed no]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of the report.")
@click.option("--dashboard", is_flag=True, help="Start the Ray dashboard too.")
@click.option("--quiet", is_flag=True, help="No progress on standard error.")
@click.pass_context
def run(
    context: click.Context,
    scenario: str,
    engine: str,
    cpus: int,
    policies: tuple[str, ...],
    seed: int,
    arch: str,
    address: str | None,
    trace: Path | None,
    overrides: tuple[str, ...],
    record: Path | None,
    watched: bool | None,
    as_json: bool,
    dashboard: bool,
    quiet: bool,
) -> None:
    """Run SCENARIO: a shipped name, or the path of a workload's TOML file.

    Every policy runs the same accesses, one after the other; the report puts them side by side. Live runs are
    watched: checks of happens-before judge every step, which takes messages and so some time. A run that
    breaks a rule leaves its recording in ./recordings, for `migrc replay` and `migrc shrink`.
    """
    workload = load_workload(scenario, overrides, live=engine == "live")
    _check_engine(engine, cpus, {"--address": address, "--record": record, "--dashboard": dashboard})
    workload.check(cpus)
    trace_file = workload.trace_file(trace)
    _check_policies(policies)
    if address is not None and not address.strip():
        raise UsageProblem("--address: it is empty; HOST:PORT of a Ray cluster, or leave it out")

    if record is not None and watched is False:
        raise UsageProblem("--record: an unwatched run cannot be recorded; leave out one of the two")

    from scenarios.report.comparison import print_report

    if engine == "timed":
        from scenarios.runs.timed import run_timed

        with _showing_progress(quiet) as progress:
            document, pictures = run_timed(
                workload,
                cpus=cpus,
                policies=policies,
                seed=seed,
                arch=arch,
                trace=trace_file,
                watched=bool(watched),
                progress=progress,
            )
    else:
        # Ray takes a second to import, so not before the input is known to be good.
        from scenarios.runs.live import run_workload

        with _showing_progress(quiet) as progress:
            document, pictures = run_workload(
                workload,
                cpus=cpus,
                policies=list(policies),
                seed=seed,
                arch=arch,
                address=address,
                trace=trace_file,
                dashboard=dashboard,
                watched=watched is not False,
                record=record,
                progress=progress,
            )
    try:
        if as_json:
            click.echo(json.dumps(document, indent=2))
        else:
            print_report(document, pictures, sys.stdout)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as problem:
        raise UsageProblem(f"the result cannot be written: {problem.strerror}") from None
    if document.get("interrupted"):
        click.echo("migrc: interrupted", err=True)
        context.exit(INTERRUPTED)
    if any(result["violations"] for result in document["runs"]):
        context.exit(VIOLATION)


@migrc.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    help="Accepted as by every verb; a listing does not depend on it.",
)
def list_command(as_json: bool, seed: int | None) -> None:
    """Show what can be run: scenarios, litmus tests, policies, mistakes, architectures."""
    workloads = list_workloads()
    tests = {name: one.question for name, one in LITMUS.items()}
    mistakes = {name: _first_line(one) for name, one in MISTAKES.items()}
    if as_json:
        listing = {
            "scenarios": [
                {"name": one.name, "kind": one.kind, "description": one.description} for one in workloads
            ],
            "policies": [{"name": name, "description": text} for name, text in POLICIES.items()],
            "archs": [{"name": name, "description": text} for name, text in ARCHITECTURES.items()],
            "litmus": [{"name": name, "description": text} for name, text in tests.items()],
            "mistakes": [{"name": name, "description": text} for name, text in mistakes.items()],
        }
        click.echo(json.dumps(listing, indent=2))
        return
    sections = {
        "scenarios": {one.name: one.description for one in workloads},
        "litmus tests (migrc check)": tests,
        "policies (--policy)": POLICIES,
        "mistakes (--policy, to see a check bark)": mistakes,
        "architectures (--arch)": ARCHITECTURES,
    }
    width = max(len(name) for rows in sections.values() for name in rows)
    blocks = (
        "\n".join([title, *(f"  {name:<{width}}  {text}" for name, text in rows.items())])
        for title, rows in sections.items()
        if rows
    )
    click.echo("\n\n".join(blocks))


def _first_line(thing: object) -> str:
    return (inspect.getdoc(thing) or "").partition("\n")[0]


def _check_engine(engine: str, cpus: int, live_only: dict[str, object]) -> None:
    """Options that mean nothing to the engine, and more CPUs than it takes, are refused."""
    most = MAX_TIMED_CPUS if engine == "timed" else MAX_CPUS
    if cpus > most:
        raise UsageProblem(f"--cpus: {cpus} is too large for the {engine} engine; {most} or fewer")
    for option, given in live_only.items():
        if engine == "timed" and given:
            raise UsageProblem(f"{option}: a timed run has no use for it; leave it out, or --engine live")


def _check_policies(policies: Sequence[str]) -> None:
    """Names without a colon must be known, and no policy runs twice. What `a:b` means, the run finds out."""
    for number, name in enumerate(policies):
        if ":" not in name and name not in POLICIES:
            raise UsageProblem(f"--policy: unknown policy {name!r}; {did_you_mean(name, POLICIES)}")
        if canonical(name) in map(canonical, policies[:number]):
            raise UsageProblem(f"--policy: {name} is given twice; each policy once")


@contextmanager
def _showing_progress(quiet: bool) -> Iterator[Progress]:
    """A bar for each policy if standard error is a terminal, else one line when a policy has finished."""
    if quiet:
        yield lambda policy, fraction, text: None
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

        tasks: dict[str, TaskID] = {}
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[text]}", markup=False),
        )
        with Bars(*columns, console=Console(stderr=True), transient=True) as bars:

            def draw(policy: str, fraction: float, text: str) -> None:
                if policy not in tasks:
                    tasks[policy] = bars.add_task(policy, total=1.0, text=text)
                bars.update(tasks[policy], completed=fraction, text=text)

            yield draw
    else:
        finished: set[str] = set()

        def tell(policy: str, fraction: float, text: str) -> None:
            if fraction >= 1 and policy not in finished:
                finished.add(policy)
                click.echo(f"migrc: {policy}: {text}", err=True)

        yield tell
