"""The verbs `migrc replay` and `migrc shrink`: look at a witness again, and make it shorter.

Given the recording of a live run instead, they hand it on to `recorded_command`.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from emulator.checks.violation import Violation
from emulator.explore.ddmin import preemptions
from emulator.explore.ddmin import shrink as shrink_schedule
from emulator.explore.schedule import ScheduleProblem, format_schedule, parse_schedule
from emulator.explore.schedule import replay as replay_schedule
from emulator.hardware.cpu import Transition
from emulator.hardware.ordering import ARCHITECTURES
from emulator.machine.litmus import LitmusMachine
from scenarios.drawing.columns import Drawing, draw
from scenarios.files.recording import is_recording
from scenarios.files.witness import load, save
from scenarios.runs.deadline import patient
from scenarios.runs.searches import confirmed, fast_explorer, plain_explorer
from scenarios.runs.verdict import Job
from scenarios.subjects.programs import LitmusName, faults_in_one_line, litmus_named, machine_of
from scenarios.usage import UsageProblem
from scenarios.verbs.check import SEED, Seconds, terminal_width
from scenarios.verbs.recorded import replay_recording, shrink_recording

BROKEN: Final = 1
INTERRUPTED: Final = 130
SHRINK_S: Final = 60.0
PATIENCE: Final = 1_000_000
_NO_SEED = "Accepted as by every verb; nothing here is random."


@dataclass(frozen=True, slots=True)
class _Told:
    """What is to be replayed; `rule` is the one that a file promises, empty without one."""

    test: LitmusName
    policy: str
    arch: str
    schedule: tuple[Transition, ...]
    rule: str


@click.command()
@click.argument("what", metavar="FILE|SCHEDULE|-")
@click.option("--litmus", metavar="NAME", help="For a schedule: the test, a name or FILE.py[:NAME].")
@click.option("--policy", metavar="P", help="For a schedule: the policy.")
@click.option("--arch", type=click.Choice(list(ARCHITECTURES)), help="For a schedule: the architecture.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--seed", type=SEED, help=_NO_SEED)
@click.pass_context
def replay(
    context: click.Context,
    what: str,
    litmus: str | None,
    policy: str | None,
    arch: str | None,
    as_json: bool,
    seed: int | None,
) -> None:
    """Follow a schedule step by step and show what every CPU does.

    FILE is a witness that `migrc check` saved. A SCHEDULE is pasted text (`-` reads it from standard input)
    and needs --litmus, --policy and --arch. Exit code 1 if a rule breaks, or if that of the file does not.

    FILE may also be the recording of a live run: it is followed with all checks on and compared. Exit code 1
    if a rule breaks or it goes another way, else 2 if the file was cut or damaged.
    """
    if what != "-" and _is_file(what) and is_recording(Path(what)):
        _nothing_more(litmus=litmus, policy=policy, arch=arch)
        context.exit(replay_recording(Path(what), as_json, terminal_width()))
    told = _told(what, litmus, policy, arch)
    machine = machine_of(told.test, told.policy, told.arch)
    with faults_in_one_line(told.test, told.policy):
        problem, violation, drawing = _follow(told, machine)
    again = not told.rule or (violation is not None and violation.rule == told.rule)
    if as_json:
        click.echo(json.dumps(_document(told, problem, violation, drawing, again), indent=2))
    else:
        click.echo(f"{told.test.name} under {told.policy} on {told.arch}\n")
        click.echo(drawing.text(terminal_width()) + "\n")
        click.echo(f"breaks: {violation.rule}: {violation.text}" if violation else "no rule broke")
        if not again:
            click.echo(f"the file says {told.rule!r}, which did not come out again{problem}")
    if violation is not None or not again:
        context.exit(BROKEN)


def _nothing_more(**given: str | None) -> None:
    for name, value in given.items():
        if value:
            raise UsageProblem(f"--{name}: the recording says that already; leave it out")


def _told(what: str, litmus: str | None, policy: str | None, arch: str | None) -> _Told:
    given = [name for name, value in (("litmus", litmus), ("policy", policy), ("arch", arch)) if value]
    if what != "-" and _is_file(what):
        if given:
            raise UsageProblem(f"--{given[0]}: the witness file says that already; leave it out")
        witness = load(Path(what))
        return _Told(witness.test, witness.policy, witness.arch, witness.transitions, witness.rule)
    if litmus is None or policy is None or arch is None:
        if not given and what != "-":
            raise UsageProblem(
                f"{what}: no such file; a witness file, or a schedule with --litmus, --policy and --arch"
            )
        missing = [f"--{name}" for name in ("litmus", "policy", "arch") if name not in given]
        raise UsageProblem(f"a schedule needs {' and '.join(missing)} too")
    tests = litmus_named(litmus)
    if len(tests) > 1:
        raise UsageProblem(f"--litmus {litmus}: {len(tests)} tests; one, as FILE.py:NAME if it is in a file")
    try:
        schedule = parse_schedule(sys.stdin.read() if what == "-" else what)
    except ScheduleProblem as problem:
        raise UsageProblem(str(problem)) from None
    except UnicodeDecodeError:
        raise UsageProblem("standard input: not text; a schedule as migrc check prints it") from None
    return _Told(tests[0], policy, arch, schedule, "")


def _is_file(what: str) -> bool:
    try:
        return Path(what).exists()
    except (OSError, ValueError):
        # A pasted schedule is too long for a name.
        return False


def _follow(told: _Told, machine: LitmusMachine) -> tuple[str, Violation | None, Drawing]:
    """Replay and draw; a schedule that cannot be followed is bad input unless it came from a file."""
    explorer = plain_explorer(machine)
    problem = ""
    violation = None
    try:
        violation = replay_schedule(explorer, told.schedule)
    except ScheduleProblem as error:
        if not told.rule:
            raise UsageProblem(str(error)) from None
        problem = f": {error}"
    drawing = draw(machine, explorer.path)
    if violation is not None:
        drawing = drawing.broken(violation.rule, violation.cpu)
    return problem, violation, drawing


def _document(
    told: _Told, problem: str, violation: Violation | None, drawing: Drawing, again: bool
) -> dict[str, Any]:
    return {
        "litmus": told.test.name,
        "policy": told.policy,
        "arch": told.arch,
        "rule": violation.rule if violation else None,
        "text": violation.text if violation else None,
        "expected_rule": told.rule or None,
        "came_out_again": again if told.rule else None,
        "problem": problem.removeprefix(": ") or None,
        "schedule": format_schedule(told.schedule),
        "steps": len(drawing.steps),
        "columns": list(drawing.steps),
    }


@click.command()
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@click.option(
    "--seconds",
    type=Seconds(),
    default=SHRINK_S,
    show_default=True,
    help="How long to try.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="Save here instead of over FILE."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--seed", type=SEED, help=_NO_SEED)
@click.pass_context
def shrink(
    context: click.Context, file: Path, seconds: float, out: Path | None, as_json: bool, seed: int | None
) -> None:
    """Try hard to find a shorter way to the same broken rule.

    FILE is replaced only by a better one. Ctrl-C keeps the best that was found so far. From the recording of
    a live run a new file is made beside it: a witness for a litmus test, FILE-shrunk for a workload.
    """
    if is_recording(file):
        context.exit(shrink_recording(file, out, seconds, as_json))
    witness = load(file)
    job = Job(witness.test, witness.policy, witness.arch, None)
    machine = machine_of(job.test, job.policy, job.arch)
    before = witness.transitions
    with faults_in_one_line(job.test, job.policy), patient(seconds) as patience:
        try:
            found = shrink_schedule(fast_explorer(machine), before, witness.rule, patience.over, PATIENCE)
        except ScheduleProblem as problem:
            click.echo(f"migrc: {file}: its rule does not come out again: {problem}", err=True)
            context.exit(BROKEN)
    with faults_in_one_line(job.test, job.policy):
        after, violation = confirmed(job, machine, found, witness.rule)
    better = (len(after), preemptions(after)) < (len(before), preemptions(before))
    target = file if out is None else out
    kept = witness
    if better:
        kept = witness.model_copy(update={"schedule": format_schedule(after), "text": violation.text})
    if better or out is not None:
        save(kept, target)
    if as_json:
        document = {"before": len(before), "after": len(after), "file": str(target), "replaced": better}
        click.echo(json.dumps({**document, "rule": kept.rule, "schedule": kept.schedule}, indent=2))
    else:
        click.echo(f"{len(before)} steps before, {len(after)} after")
        click.echo(f"{kept.rule}: {kept.schedule}")
        click.echo(f"saved as {target}" if better or out is not None else f"{file} stays as it was")
    if patience.interrupted:
        click.echo("migrc: interrupted", err=True)
        context.exit(INTERRUPTED)
