"""The verb `migrc step`: a litmus test in the hands of a person, one transition after the other."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import click

from actors.errors import fault_of
from emulator.checks.heed import ALL
from emulator.explore.schedule import ScheduleProblem, format_schedule, parse_schedule
from emulator.hardware.cpu import Kind
from emulator.hardware.ordering import ARCHITECTURES
from scenarios.files.recording import is_recording
from scenarios.files.witness import load
from scenarios.report.console import print_json
from scenarios.runs.walkthrough import Walkthrough
from scenarios.subjects.programs import find_named, litmus_named
from scenarios.subjects.rules import heed_of
from scenarios.subjects.subject import Subject, faults_in_one_line
from scenarios.usage import UsageProblem
from scenarios.verbs import exits, options

MOST_STEPS: Final = 10_000
"""Of one command."""

_HELP: Final = """\
  TOKENS  let that happen: what stands before each line, as in a schedule (0*5 i1: five steps, an interrupt)
  Enter   what comes next: as the witness goes, else the first line
  i       go on to the next interrupt that is taken
  g       go on to the end
  u [N]   undo one step, or N
  cpus, tlb, pte, frames, words    what there is now
  s       the schedule until here
  q       quit"""


@click.command()
@click.argument("what", metavar="TEST|FILE")
@click.option("--policy", metavar="P", help="Of a test.  [default: immediate]")
@click.option("--arch", type=click.Choice(list(ARCHITECTURES)), help="Of a test.  [default: x86]")
@options.mmu
@options.trust
@options.json_
@options.no_seed
def step(what: str, policy: str | None, arch: str | None, mmu: str | None, trust: bool, as_json: bool) -> int:
    """Step through a litmus test: choose what happens next, look at TLBs and page tables, undo.

    TEST is a name or FILE.py[:NAME]; FILE is a witness that `migrc check` saved, and its way comes next
    unless you choose another. Commands are read from standard input; ? lists them. Exit code 1 if a rule
    breaks.
    """
    path = Path(what)
    given = {"--policy": policy, "--arch": arch, "--mmu": mmu}
    if path.suffix != ".py" and path.is_file():
        if is_recording(path):
            raise UsageProblem(f"{what}: a recording; migrc shrink makes a witness of a litmus test's")
        for name, value in given.items():
            if value:
                raise UsageProblem(f"{name}: the witness file says that already; leave it out")
        witness = load(path)
        options.check_trust(path, witness.subject, trust)
        subject, way = witness.subject, witness.transitions
    else:
        tests = litmus_named(what)
        if len(tests) > 1:
            raise UsageProblem(f"{what}: {len(tests)} tests; one, as FILE.py:NAME if it is in a file")
        mine = mmu or find_named(tests[0]).mmu
        heed = heed_of(tests[0], ALL)
        subject, way = Subject(tests[0], policy or "immediate", arch or "x86", heed=heed, mmu=mine), ()
    say: Callable[[str], None] = lambda text: click.echo(text, err=as_json)  # noqa: E731
    say(subject.title())
    with faults_in_one_line(subject):
        walk = Walkthrough(subject.litmus_machine(), way)
        for line in _lines(say):
            try:
                if not _obey(walk, line, say):
                    break
            except ScheduleProblem as problem:
                say(f"? {problem}")
            _show(walk, say)
    if as_json:
        print_json(_document(walk, subject))
    if walk.error is not None:
        raise UsageProblem(f"{subject}: {fault_of(walk.error)}")
    return exits.VIOLATION if walk.violation is not None else 0


def _lines(say: Callable[[str], None]) -> Iterator[str]:
    """What the person types; first of all nothing, to see where everything begins."""
    yield "?" if sys.stdin.isatty() else "cpus"
    while True:
        if sys.stdin.isatty():
            click.echo("> ", nl=False, err=True)
        line = sys.stdin.readline()
        if not line:
            return
        yield line.strip()


def _obey(walk: Walkthrough, line: str, say: Callable[[str], None]) -> bool:
    """Carry out one command; False to quit. ScheduleProblem if it is none, or not possible."""
    looks = {
        "cpus": walk.cpus,
        "tlb": walk.tlbs,
        "pte": walk.page_tables,
        "frames": walk.frames,
        "words": walk.words,
    }
    word, _, rest = line.partition(" ")
    if word == "q":
        return False
    if word == "?":
        say(_HELP)
    elif word in looks:
        say("\n".join(looks[word]()) or "nothing")
    elif word == "s":
        say(format_schedule(walk.path) or "nothing has happened yet")
    elif word == "u":
        if rest and not (rest.isdecimal() and len(rest) < 8):
            raise ScheduleProblem(f"u {rest}: a number of steps")
        walk.back(int(rest or 1))
    elif word in ("", "g", "i"):
        _go_on(walk, word, say)
    else:
        for transition in parse_schedule(line):
            _take(walk, transition, say)
    return True


def _go_on(walk: Walkthrough, how: str, say: Callable[[str], None]) -> None:
    """One step (""), until an interrupt is taken (i), or to the end (g)."""
    for _ in range(MOST_STEPS):
        transition = (walk.interrupt() if how == "i" else None) or walk.default()
        if transition is None:
            return
        _take(walk, transition, say)
        if not how or (how == "i" and transition.kind is Kind.INTERRUPT):
            return
    say(f"{MOST_STEPS:,} steps, and no end; go on if you want to")


def _take(walk: Walkthrough, transition: Any, say: Callable[[str], None]) -> None:
    text = walk.take(transition)
    say(f"{len(walk.path):4}  CPU {transition.cpu}  {text}")


def _show(walk: Walkthrough, say: Callable[[str], None]) -> None:
    """What may come next, or how it has ended."""
    if walk.violation is not None:
        say(f"breaks: {walk.violation.rule}: {walk.violation.text}")
        return
    if walk.error is not None:
        say(f"a program raises: {fault_of(walk.error)}")
        return
    nexts = walk.nexts()
    if not nexts:
        say("the end; no rule broke")
        return
    say("next:")
    width = max(len(one.token) for one in nexts)
    for one in nexts:
        where = f"   ({' > '.join(one.path[-2:])})" if one.path else ""
        say(f"  {one.token:<{width}}  CPU {one.cpu}  {one.text}{where}")


def _document(walk: Walkthrough, subject: Subject) -> dict[str, Any]:
    broken = walk.violation
    return {
        "litmus": subject.name,
        "policy": subject.policy,
        "arch": subject.arch,
        "mmu": subject.mmu,
        "schedule": format_schedule(walk.path),
        "steps": len(walk.path),
        "rule": None if broken is None else broken.rule,
        "text": None if broken is None else broken.text,
        "next": [one._asdict() for one in walk.nexts()],
    }
