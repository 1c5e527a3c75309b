"""The verb `migrc replay`: follow a schedule, a witness or the recording of a live run step by step."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import click

from emulator.checks.heed import ALL
from emulator.checks.violation import Violation
from emulator.explore.schedule import ScheduleProblem, format_schedule, parse_schedule
from emulator.explore.schedule import replay as follow
from emulator.hardware.cpu import Transition
from emulator.hardware.ordering import ARCHITECTURES
from emulator.machine.referee import Referee
from scenarios.drawing.columns import Drawing, draw
from scenarios.files.recording import Recording, is_recording
from scenarios.files.witness import load
from scenarios.report.console import print_json, terminal_width
from scenarios.report.repetition import as_document, print_repetition
from scenarios.report.verdicts import harm_in_words
from scenarios.runs.harm_search import harm_of
from scenarios.runs.replays import Replay
from scenarios.subjects.mmus import mmu_on
from scenarios.subjects.programs import find_named, litmus_named
from scenarios.subjects.rules import heed_of
from scenarios.subjects.subject import Subject, faults_in_one_line
from scenarios.usage import UsageProblem
from scenarios.verbs import exits, options
from scenarios.verbs.bars import bars


class _Way(NamedTuple):
    """A subject and what is to happen to it; `rule` is the one that a file promises, empty without one."""

    subject: Subject
    schedule: tuple[Transition, ...]
    rule: str = ""


@click.command()
@click.argument("what", metavar="FILE|SCHEDULE|-")
@click.option("--litmus", metavar="NAME", help="For a schedule: the test, a name or FILE.py[:NAME].")
@click.option("--policy", metavar="P", help="For a schedule: the policy.")
@click.option("--arch", type=click.Choice(list(ARCHITECTURES)), help="For a schedule: the architecture.")
@options.mmu
@click.option(
    "--explain", is_flag=True, help="With the function that each step is in, and who holds what at the end."
)
@click.option("--harm", is_flag=True, help="From a race go on to what it does: a stale read, a lost write.")
@options.trust
@options.json_
@options.no_seed
def replay(
    what: str,
    litmus: str | None,
    policy: str | None,
    arch: str | None,
    mmu: str | None,
    explain: bool,
    harm: bool,
    trust: bool,
    as_json: bool,
) -> int:
    """Follow a schedule step by step and show what every CPU does.

    FILE is a witness that `migrc check` saved. A SCHEDULE is pasted text (`-` reads it from standard input)
    and needs --litmus, --policy and --arch. Exit code 1 if a rule breaks, or if that of the file does not.

    A file is data: what it names beside the package, a litmus test or policy of your own, is imported and run
    with --trust only.

    FILE may also be the recording of a live run: it is followed with all checks on and compared. Exit code 1
    if a rule breaks or it goes another way, else 2 if the file was cut or damaged.
    """
    given = {"--litmus": litmus, "--policy": policy, "--arch": arch, "--mmu": mmu}
    if what == "-" or not _is_file(what):
        way = _pasted(what, given)
    else:
        path = Path(what)
        recorded = is_recording(path)
        for name, value in given.items():
            if value:
                says = "recording" if recorded else "witness file"
                raise UsageProblem(f"{name}: the {says} says that already; leave it out")
        for option, wanted in (("--harm", harm), ("--explain", explain)):
            if recorded and wanted:
                raise UsageProblem(f"{option}: a recording has too much; migrc shrink makes a witness of it")
        if recorded:
            return _recorded(path, trust, as_json)
        witness = load(path)
        options.check_trust(path, witness.subject, trust)
        way = _Way(witness.subject, witness.transitions, witness.rule)
    return _followed(way, explain, harm, as_json)


def _is_file(what: str) -> bool:
    try:
        return Path(what).exists()
    except (OSError, ValueError):
        # A pasted schedule is too long for a name.
        return False


def _pasted(what: str, given: dict[str, str | None]) -> _Way:
    litmus, policy, arch, mmu = given.values()
    if litmus is None or policy is None or arch is None:
        if not any(given.values()) and what != "-":
            raise UsageProblem(
                f"{what}: no such file; a witness file, or a schedule with --litmus, --policy and --arch"
            )
        missing = [name for name, value in given.items() if not value and name != "--mmu"]
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
    ours = heed_of(tests[0], ALL)
    how = mmu_on(arch, mmu, find_named(tests[0]).mmu)
    return _Way(Subject(tests[0], policy, arch, heed=ours, mmu=how), schedule)


def _followed(way: _Way, explain: bool, harm: bool, as_json: bool) -> int:
    """Follow and draw; the exit code. What cannot be followed is bad input unless it came from a file."""
    machine = way.subject.litmus_machine()
    explorer = Referee(machine)
    problem, violation = "", None
    with faults_in_one_line(way.subject):
        try:
            violation = follow(explorer, way.schedule)
        except ScheduleProblem as error:
            if not way.rule:
                raise UsageProblem(str(error)) from None
            problem = str(error)
        drawing = draw(machine, explorer.path, explain)
    if violation is not None:
        drawing = drawing.broken(violation.rule, violation.cpu)
    found = None
    if harm and violation is not None:
        found = harm_of(way.subject, explorer.path, violation.rule, 0)
    again = not way.rule or (violation is not None and violation.rule == way.rule)
    if as_json:
        document = _document(way, problem, violation, drawing, again)
        document |= {"still_held": [one._asdict() for one in drawing.stale]} if explain else {}
        print_json(document if found is None else document | {"harm": found.as_json()})
    else:
        click.echo(way.subject.title() + "\n")
        click.echo(drawing.text(terminal_width()) + "\n")
        for one in drawing.stale:
            click.echo(f"still held: {one}")
        blind = f"; {way.subject.looked}" if way.subject.heed else ""
        click.echo(f"breaks: {violation.rule}: {violation.text}" if violation else f"no rule broke{blind}")
        if found is not None:
            click.echo("\n".join(harm_in_words(found, terminal_width())))
        if not again:
            why = f": {problem}" if problem else ""
            click.echo(f"the file says {way.rule!r}, which did not come out again{why}")
    return exits.VIOLATION if violation is not None or not again else 0


def _document(
    way: _Way, problem: str, violation: Violation | None, drawing: Drawing, again: bool
) -> dict[str, Any]:
    return {
        "litmus": way.subject.name,
        "policy": way.subject.policy,
        "arch": way.subject.arch,
        "mmu": way.subject.mmu,
        "rule": violation.rule if violation else None,
        "text": violation.text if violation else None,
        "expected_rule": way.rule or None,
        "came_out_again": again if way.rule else None,
        "not_looked_at": list(way.subject.looked.not_at),
        "problem": problem or None,
        "schedule": format_schedule(way.schedule),
        "steps": len(drawing.steps),
        "columns": list(drawing.steps),
    }


def _recorded(path: Path, trust: bool, as_json: bool) -> int:
    """Follow a recording and compare; the exit code."""
    with Recording(path) as recording:
        options.check_trust(path, recording.subject(), trust)
        again = Replay(recording, recording.machine())
        began = time.monotonic()
        with bars() as news:
            size = max(recording.size, 1)
            again.run(
                lambda transitions, position: news.show("", position / size, f"{transitions:,} transitions")
            )
        elapsed_s = time.monotonic() - began
    if as_json:
        print_json(as_document(again, elapsed_s))
    else:
        print_repetition(again, elapsed_s, terminal_width())
    if again.referee.violation is not None or again.different or not again.rules_again:
        return exits.VIOLATION
    return exits.BAD_INPUT if recording.problem else 0
